"""How a client follows: after a long time away, with a filter, and in a room with few members at first."""

from nio import RoomMessageText, RoomPreset, RoomTopicEvent, SyncError

from kit import check, equal, good, history, people, register, session


def texts(events):
    return [event.body for event in events if isinstance(event, RoomMessageText)]


async def following():
    async with people("heidi_n", "ivan_n") as (heidi, ivan):
        await gap(ivan)
        await filters(heidi, ivan)
        await members(heidi)


async def gap(ivan):
    room = good(await ivan.client.room_create(name="The docks", preset=RoomPreset.public_chat)).room_id
    async with session("heidi_n") as heidi:
        good(await heidi.join(room))
        said = ["Casting off"]
        await ivan.says(room, said[0])
        before = good(await heidi.sync(full_state=True)).next_batch

        async with check("who was away for 60 messages is told of a gap"):
            for number in range(1, 61):
                said.append(f"log entry {number}")
                await ivan.says(room, said[-1])
            timeline = good(await heidi.sync()).rooms.join[room].timeline
            equal((timeline.limited, texts(timeline.events)), (True, said[-10:]))
        async with check("paging back from there closes the gap, with nothing lost or doubled"):
            earlier, pages = await history(heidi, room, timeline.prev_batch)
            equal(earlier + said[-10:], said)
            if pages < 3:
                raise AssertionError(f"{pages} pages")
        async with check("the gap is as long as the two syncs say"):
            between = good(await heidi.room_messages(room, timeline.prev_batch, end=before, limit=100)).chunk
            equal(texts(between)[::-1], said[1:-10])
        async with check("an old token shows the same again"):
            again = good(await heidi.sync(since=before)).rooms.join[room].timeline
            equal((again.limited, texts(again.events)), (True, said[-10:]))
        async with check("a token that nobody gave is refused"):
            response = await heidi.sync(since="once upon a time")
            equal((type(response), response.status_code), (SyncError, "M_INVALID_PARAM"))


async def filters(heidi, ivan):
    async with check("a stored filter leaves out what it says"):
        wanted = good(await ivan.client.room_create(name="The bridge", preset=RoomPreset.public_chat)).room_id
        unwanted = good(await ivan.client.room_create(name="The bilge", preset=RoomPreset.public_chat)).room_id
        for room in (wanted, unwanted):
            good(await heidi.client.join(room))
            await heidi.says(room, "not for these eyes")
            good(await ivan.client.room_put_state(room, "m.room.topic", {"topic": "Course and speed"}))
            await ivan.says(room, "steady as she goes")
        stored = good(await heidi.client.upload_filter(room={
            "not_rooms": [unwanted],
            "timeline": {"limit": 5, "types": ["m.room.message"], "not_senders": [heidi.id]},
        })).filter_id
        async with session("heidi_n") as narrow:
            page = good(await narrow.sync(sync_filter=stored))
            equal(unwanted in page.rooms.join, False, "the room that is left out")
            equal(texts(page.rooms.join[wanted].timeline.events), ["steady as she goes"])
            equal(len(page.rooms.join[wanted].timeline.events), 1, "how many events")
            # What is not in the timeline is in the state all the same.
            topics = [event.topic for event in page.rooms.join[wanted].state if isinstance(event, RoomTopicEvent)]
            equal(topics, ["Course and speed"])


async def members(heidi):
    names = [f"stoker_n{number}" for number in range(1, 7)]
    room = good(await heidi.client.room_create(name="The mess", preset=RoomPreset.public_chat)).room_id
    await register(*names)
    for name in names:
        async with session(name) as stoker:
            good(await stoker.join(room))
    for number in range(1, 13):
        await heidi.says(room, f"announcement {number}")
    lazy = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 10}}}

    def told(page):
        state = page.rooms.join[room].state + page.rooms.join[room].timeline.events
        return sorted(event.state_key for event in state if event.source["type"] == "m.room.member")

    async with check("lazy loading tells of who speaks, and how many there are"):
        async with session("heidi_n") as again:
            page = good(await again.sync(sync_filter=lazy))
            equal(told(page), [heidi.id])
            equal(page.rooms.join[room].summary.joined_member_count, 7)
            async with session(names[2]) as stoker:
                good(await stoker.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "may I speak?"}))
            page = good(await again.sync(sync_filter=lazy))
            equal((told(page), texts(page.rooms.join[room].timeline.events)), ([f"@{names[2]}:localhost"], ["may I speak?"]))
            everybody = good(await again.joined_members(room)).members
            equal(sorted(member.user_id for member in everybody), sorted([heidi.id, *(f"@{name}:localhost" for name in names)]))
