"""Two people, each with matrix-nio, talk in a room while their server is stopped, killed and started again.

Says one check a line on stdout ("@ ok …" or "@ failed …"); asks the runner for "stop" and "kill", and reads "down" and "up".
"""

import asyncio
import contextlib
import logging
import os
import sys

from nio import (
    AsyncClient, AsyncClientConfig, ErrorResponse, InviteMemberEvent, JoinError, LocalProtocolError, LoginError, MessageDirection,
    ReceiptEvent, RoomMemberEvent, RoomMessageText, RoomSendError, SyncResponse,
    TypingNoticeEvent,
)

BASE_URL = os.environ["BASE_URL"]
PASSWORD = "a password that is long enough"
LIMIT = 30
RECONNECT_LIMIT = 60
# nio logs each retry while the server is away.
logging.disable(logging.CRITICAL)


def say(line):
    print(f"@ {line}", flush=True)


async def heard(word):
    line = (await asyncio.to_thread(sys.stdin.readline)).strip()
    if line != word:
        raise RuntimeError(f"expected '{word}' from the runner, got '{line}'")


@contextlib.asynccontextmanager
async def check(what):
    try:
        yield
    except Exception as error:
        say(f"failed {what}: {type(error).__name__} {error}".replace("\n", " "))
        raise
    say(f"ok {what}")


def equal(actual, expected, what="value"):
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r} instead of {expected!r}")


def good(response):
    """nio gives errors as values."""
    if type(response).__name__.endswith("Error"):
        raise AssertionError(f"{response}")
    return response


class Person:
    """A client that syncs in the background and keeps what it was told, in that order."""

    def __init__(self, name):
        self.client = AsyncClient(BASE_URL, name, config=AsyncClientConfig(encryption_enabled=False, request_timeout=60))
        self.id = f"@{name}:localhost"
        self.messages, self.event_ids, self.invites, self.members = [], [], [], {}
        self.typing, self.read_up_to, self.left = {}, {}, set()
        self.changed = asyncio.Condition()
        self.syncing = None
        for callback, kind in [(self.on_message, RoomMessageText), (self.on_invite, InviteMemberEvent),
                               (self.on_member, RoomMemberEvent)]:
            self.client.add_event_callback(callback, kind)
        self.client.add_ephemeral_callback(self.on_typing, TypingNoticeEvent)
        self.client.add_ephemeral_callback(self.on_receipt, ReceiptEvent)
        self.client.add_response_callback(self.on_response)

    async def on_message(self, room, event):
        self.messages.append(event.body)
        self.event_ids.append(event.event_id)

    async def on_invite(self, room, event):
        self.invites.append((room.room_id, event.sender, event.membership))

    async def on_member(self, room, event):
        self.members[(room.room_id, event.state_key)] = event.content

    async def on_typing(self, room, event):
        self.typing[room.room_id] = event.users

    async def on_receipt(self, room, event):
        for receipt in event.receipts:
            self.read_up_to[(room.room_id, receipt.user_id)] = receipt.event_id

    async def on_response(self, response):
        if isinstance(response, SyncResponse):
            self.left |= set(response.rooms.leave)
        async with self.changed:
            self.changed.notify_all()

    async def sees(self, what, probe, limit=LIMIT):
        """Waits until `probe` holds: looks now and after each response."""
        try:
            async with asyncio.timeout(limit), self.changed:
                while not probe():
                    if self.syncing and self.syncing.done():
                        self.syncing.result()
                    await self.changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self.id} did not see {what} within {limit} s") from None

    async def log_in(self):
        good(await self.client.login(PASSWORD, device_name="story"))
        good(await self.client.sync(timeout=0, full_state=True))
        self.syncing = asyncio.create_task(self.follow())

    async def follow(self):
        try:
            await self.client.sync_forever(timeout=20_000)
        finally:
            # Who waits for something is to hear that nothing more will come.
            async with self.changed:
                self.changed.notify_all()

    async def says(self, room, text):
        response = await self.client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": text})
        return good(response).event_id

    async def stop(self):
        if self.syncing:
            self.syncing.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self.syncing
        await self.client.close()

    async def history(self, room):
        """Every message of the room, oldest first, and the number of pages that it took."""
        found, pages, start = [], 0, self.client.next_batch
        while start:
            page = good(await self.client.room_messages(room, start, direction=MessageDirection.back, limit=20))
            found += [event.body for event in page.chunk if isinstance(event, RoomMessageText)]
            pages += bool(page.chunk)
            if not page.chunk or page.end == start or pages > 50:
                break
            start = page.end
        return found[::-1], pages


async def server_is_away():
    """Returns once nothing listens any more."""
    host, port = BASE_URL.removeprefix("http://").split(":")
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.02)


async def story():
    alice, bob = Person("alice"), Person("bob")
    everyone = [alice, bob]
    try:
        await talk(alice, bob, everyone)
    finally:
        for person in everyone:
            await person.stop()


async def talk(alice, bob, everyone):
    async with check("two people register"):
        for person in (alice, bob):
            registering = AsyncClient(BASE_URL)
            response = good(await registering.register(person.client.user, PASSWORD))
            equal(response.user_id, person.id, "user id")
            await registering.close()
    async with check("a name is taken only once"):
        registering = AsyncClient(BASE_URL)
        response = await registering.register("alice", PASSWORD)
        await registering.close()
        equal((isinstance(response, ErrorResponse), getattr(response, "status_code", None)), (True, "M_USER_IN_USE"))
    async with check("a wrong password is refused"):
        stranger = AsyncClient(BASE_URL, "alice")
        response = await stranger.login("wrong")
        await stranger.close()
        equal((type(response), getattr(response, "status_code", None)), (LoginError, "M_FORBIDDEN"))
    async with check("both log in by password and sync"):
        await alice.log_in()
        await bob.log_in()
        equal((alice.client.user_id, bob.client.user_id), (alice.id, bob.id))
    async with check("a display name is set and read"):
        good(await alice.client.set_displayname("Alice in Chains"))
        equal(good(await bob.client.get_profile(alice.id)).displayname, "Alice in Chains")
    async with check("alice creates a room"):
        room = good(await alice.client.room_create(name="The parlour", topic="Tea")).room_id
        await alice.sees("the room", lambda: room in alice.client.rooms and alice.client.rooms[room].name == "The parlour")
    async with check("who is not invited may not join"):
        response = await bob.client.join(room)
        equal((type(response), getattr(response, "status_code", None)), (JoinError, "M_FORBIDDEN"))
    async with check("bob sees alice's invite"):
        good(await alice.client.room_invite(room, bob.id))
        await bob.sees("the invite", lambda: (room, alice.id, "invite") in bob.invites)
    async with check("bob joins, and both see it"):
        good(await bob.client.join(room))
        await bob.sees("the room", lambda: room in bob.client.rooms)
        await alice.sees("bob", lambda: alice.members.get((room, bob.id), {}).get("membership") == "join")
        await bob.sees("alice's name", lambda: bob.client.rooms[room].user_name(alice.id) == "Alice in Chains")
    said = []

    async def both_see(person, text):
        await person.says(room, text)
        said.append(text)
        for reader in (alice, bob):
            await reader.sees(f"'{text}'", lambda: text in reader.messages)

    async with check("both see a message of each"):
        await both_see(alice, "Good evening, Bob")
        await both_see(bob, "Good evening, Alice")
    async with check("a new name shows in the room"):
        good(await alice.client.set_displayname("Alice"))
        await bob.sees("the new name", lambda: bob.members.get((room, alice.id), {}).get("displayname") == "Alice")
    async with check("alice sees bob typing, and that he stopped"):
        good(await bob.client.room_typing(room, True, timeout=20_000))
        await alice.sees("bob typing", lambda: bob.id in alice.typing.get(room, []))
        good(await bob.client.room_typing(room, False))
        await alice.sees("that bob stopped", lambda: bob.id not in alice.typing.get(room, []))
    async with check("alice sees how far bob has read"):
        last = bob.event_ids[-1]
        good(await bob.client.update_receipt_marker(room, last))
        await alice.sees("the receipt", lambda: alice.read_up_to.get((room, bob.id)) == last)
    async with check("60 messages arrive in order"):
        for number in range(1, 61):
            await alice.says(room, f"message {number}")
            said.append(f"message {number}")
        await bob.sees("the last one", lambda: "message 60" in bob.messages)
        equal(bob.messages, said)
    async with check("a new login pages back to the beginning, over several pages"):
        again = Person("bob")
        everyone.append(again)
        await again.log_in()
        found, pages = await again.history(room)
        equal(found, said)
        if pages < 3:
            raise AssertionError(f"{pages} pages")
    for word, name in (("stop", "a stop"), ("kill", "a kill")):
        async with check(f"a message sent while the server is away arrives once after {name}"):
            say(word)
            await heard("down")
            await server_is_away()
            # nio repeats a request under the same transaction id until the server answers.
            text = f"into the void before {name}"
            sending = asyncio.create_task(alice.says(room, text))
            say("seen")
            await heard("up")
            await asyncio.wait_for(sending, RECONNECT_LIMIT)
            said.append(text)
            for reader in (alice, bob):
                await reader.sees(f"'{text}'", lambda: text in reader.messages, RECONNECT_LIMIT)
        async with check(f"they talk on after {name}"):
            await both_see(alice, f"still here after {name}?")
            await both_see(bob, f"still here after {name}!")
        async with check(f"nothing is lost or doubled by {name}"):
            for reader in (alice, bob):
                equal(reader.messages, said, reader.id)
                equal((await reader.history(room))[0], said, f"history of {reader.id}")
            equal(good(await bob.client.get_profile(alice.id)).displayname, "Alice")
    async with check("bob leaves, and both see it"):
        good(await bob.client.room_leave(room))
        await alice.sees("that he left", lambda: alice.members.get((room, bob.id), {}).get("membership") == "leave")
        await bob.sees("that he left", lambda: room in bob.left)
    async with check("who has left may not speak"):
        try:
            response = await bob.client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "one more thing"})
            equal((type(response), getattr(response, "status_code", None)), (RoomSendError, "M_FORBIDDEN"))
        except LocalProtocolError:
            pass  # nio itself knows that he is no member


async def main():
    try:
        await asyncio.wait_for(story(), 280)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


sys.exit(asyncio.run(main()))
