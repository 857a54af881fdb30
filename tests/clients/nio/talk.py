"""Two people talk in a room while their server is stopped, killed and started again.

Asks the runner for "stop" and "kill", and reads "down" and "up".
"""

import asyncio

from nio import AsyncClient, ErrorResponse, JoinError, LocalProtocolError, LoginError, RoomSendError

from kit import BASE_URL, LIMIT, PASSWORD, RECONNECT_LIMIT, Person, check, equal, good, heard, register, say


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


async def talk():
    alice, bob = Person("alice"), Person("bob")
    everyone = [alice, bob]
    try:
        await tell(alice, bob, everyone)
    finally:
        for person in everyone:
            await person.stop()


async def tell(alice, bob, everyone):
    async with check("two people register"):
        await register("alice", "bob")
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
        good(await bob.client.room_leave(room))  # as a second device would that has not heard of it
        await alice.sees("that he left", lambda: alice.members.get((room, bob.id), {}).get("membership") == "leave")
        await bob.sees("that he left", lambda: room in bob.left)
    async with check("who has left may not speak"):
        try:
            response = await bob.client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "one more thing"})
            equal((type(response), getattr(response, "status_code", None)), (RoomSendError, "M_FORBIDDEN"))
        except LocalProtocolError:
            pass  # nio itself knows that he is no member
