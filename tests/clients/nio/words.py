"""What becomes of words once they are said: they are edited, taken back, and reacted to."""

from nio import RedactedEvent, RoomGetEventError, RoomPreset

from kit import check, equal, good, people, refusal


async def words():
    async with people("carol_n", "dave_n") as (carol, dave):
        room = good(await carol.client.room_create(name="The study", preset=RoomPreset.public_chat)).room_id
        good(await dave.client.join(room))
        await carol.sees("dave", lambda: carol.members.get((room, dave.id), {}).get("membership") == "join")

        async with check("an edit reaches who saw the first words"):
            event = await carol.says(room, "Breakfast at teh usual time")
            await dave.sees("the first words", lambda: event in dave.event_ids)
            said = "Breakfast at the usual time"
            good(await carol.client.room_send(room, "m.room.message", {
                "msgtype": "m.text", "body": f"* {said}", "m.new_content": {"msgtype": "m.text", "body": said},
                "m.relates_to": {"rel_type": "m.replace", "event_id": event},
            }))
            await dave.sees("the edit", lambda: dave.edits.get(event) == said)
        async with check("what is taken back is gone, and the reason is there"):
            event = await carol.says(room, "I never liked the wallpaper")
            await dave.sees("the words", lambda: event in dave.event_ids)
            good(await carol.client.room_redact(room, event, reason="rash"))
            await dave.sees("that they are gone", lambda: dave.redactions.get(event) == "rash")
            found = good(await dave.client.room_get_event(room, event)).event
            equal((type(found), found.redacter, found.reason), (RedactedEvent, carol.id, "rash"))
        async with check("who may not take back the words of others is told so"):
            event = await carol.says(room, "This stays")
            equal(refusal(await dave.client.room_redact(room, event)), "M_FORBIDDEN")
        async with check("both see reactions, and that one is withdrawn"):
            event = await carol.says(room, "Cake?")

            async def reacts(person, key):
                relation = {"rel_type": "m.annotation", "event_id": event, "key": key}
                return good(await person.client.room_send(room, "m.reaction", {"m.relates_to": relation})).event_id

            withdrawn = await reacts(dave, "👍")
            kept = await reacts(carol, "🍰")
            both = {withdrawn: (event, dave.id, "👍"), kept: (event, carol.id, "🍰")}
            for person in (carol, dave):
                await person.sees("both", lambda who=person: who.reactions == both)
            good(await dave.client.room_redact(room, withdrawn))
            for person in (carol, dave):
                await person.sees("that one is gone", lambda who=person: who.reactions == {kept: both[kept]})
        async with check("what is unread is counted until it is read"):
            def counts(person):
                shown = person.client.rooms[room]
                return shown.unread_notifications, shown.unread_highlights

            good(await dave.client.update_receipt_marker(room, await carol.says(room, "Up to here")))
            await dave.sees("that all is read", lambda: counts(dave) == (0, 0))
            await carol.says(room, "Tea is served")
            good(await carol.client.room_send(room, "m.room.message", {
                "msgtype": "m.text", "body": "Yours is getting cold", "m.mentions": {"user_ids": [dave.id]},
            }))
            last = await carol.says(room, "Very cold")
            await dave.sees("three, one of them for him", lambda: counts(dave) == (3, 1))
            # nio says so of all threads by a null.
            good(await dave.client.update_receipt_marker(room, last, thread_id=None))
            await dave.sees("that all is read again", lambda: counts(dave) == (0, 0))
        async with check("an event that is not there is not found"):
            response = await dave.client.room_get_event(room, "$nothing")
            equal((type(response), response.status_code), (RoomGetEventError, "M_NOT_FOUND"))
