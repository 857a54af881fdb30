"""What the stories share: people who are logged in, waiting for what they are to see, and saying how it went.

A story says one check a line on stdout ("@ ok …" or "@ failed …").
"""

import asyncio
import contextlib
import logging
import os
import sys

from nio import (
    AsyncClient, AsyncClientConfig, InviteMemberEvent, MessageDirection, ReactionEvent, ReceiptEvent, RedactionEvent,
    RoomMemberEvent, RoomMessageText, SyncResponse, TypingNoticeEvent,
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


def refusal(response):
    """The errcode with which something was refused; nothing if it wasn't."""
    return response.status_code if type(response).__name__.endswith("Error") else None


async def register(*names):
    for name in names:
        registering = AsyncClient(BASE_URL)
        response = good(await registering.register(name, PASSWORD))
        equal(response.user_id, f"@{name}:localhost", "user id")
        await registering.close()


@contextlib.asynccontextmanager
async def people(*names):
    """New people, logged in and following what happens, for as long as the story takes."""
    await register(*names)
    everyone = [Person(name) for name in names]
    try:
        for person in everyone:
            await person.log_in()
        yield everyone
    finally:
        for person in everyone:
            await person.stop()


@contextlib.asynccontextmanager
async def session(name, **wish):
    """One more session of somebody, that does not follow."""
    client = AsyncClient(BASE_URL, name, config=AsyncClientConfig(encryption_enabled=False, request_timeout=60))
    try:
        good(await client.login(PASSWORD, device_name=wish.get("device_name", "story")))
        yield client
    finally:
        await client.close()


class Person:
    """A client that syncs in the background and keeps what it was told, in that order."""

    def __init__(self, name):
        self.client = AsyncClient(BASE_URL, name, config=AsyncClientConfig(encryption_enabled=False, request_timeout=60))
        self.id = f"@{name}:localhost"
        self.messages, self.event_ids, self.invites, self.members = [], [], [], {}
        self.typing, self.read_up_to, self.left = {}, {}, set()
        self.edits, self.reactions, self.redactions = {}, {}, {}
        self.changed = asyncio.Condition()
        self.syncing = None
        for callback, kind in [(self.on_message, RoomMessageText), (self.on_invite, InviteMemberEvent),
                               (self.on_member, RoomMemberEvent), (self.on_reaction, ReactionEvent),
                               (self.on_redaction, RedactionEvent)]:
            self.client.add_event_callback(callback, kind)
        self.client.add_ephemeral_callback(self.on_typing, TypingNoticeEvent)
        self.client.add_ephemeral_callback(self.on_receipt, ReceiptEvent)
        self.client.add_response_callback(self.on_response)

    async def on_message(self, room, event):
        relation = event.source["content"].get("m.relates_to", {})
        if relation.get("rel_type") == "m.replace":
            self.edits[relation["event_id"]] = event.source["content"]["m.new_content"]["body"]
            return
        self.messages.append(event.body)
        self.event_ids.append(event.event_id)

    async def on_reaction(self, room, event):
        self.reactions[event.event_id] = (event.reacts_to, event.sender, event.key)

    async def on_redaction(self, room, event):
        self.redactions[event.redacts] = event.reason
        self.reactions.pop(event.redacts, None)

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
        return await history(self.client, room, self.client.next_batch)


async def history(client, room, start):
    """Every message back from a token (from the end, if it is empty), oldest first, and the number of pages."""
    found, pages = [], 0
    while start is not None:
        page = good(await client.room_messages(room, start, direction=MessageDirection.back, limit=20))
        found += [event.body for event in page.chunk if isinstance(event, RoomMessageText)]
        pages += bool(page.chunk)
        if not page.chunk or page.end == start or pages > 50:
            break
        start = page.end
    return found[::-1], pages
