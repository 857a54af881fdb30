"""Rooms and who gets into them: names and the directory, being sent out and let in again, and how much of the past one sees."""

from nio import RoomPreset, RoomVisibility

from kit import check, equal, good, history, people, refusal


async def rooms():
    async with people("erin_n", "frank_n") as (erin, frank):
        room = await directory(erin, frank)
        await doors(erin, frank, room)
        await past(erin, frank)


async def directory(erin, frank):
    async def listed(search):
        return good(await frank.client.list_public_rooms(filter_generic_search_term=search)).public_rooms

    async with check("a room is published, found by a search, and joined by its alias"):
        room = good(await erin.client.room_create(
            RoomVisibility.public, alias="orangery", name="The orangery", topic="Lemons and other troubles",
            preset=RoomPreset.public_chat,
        )).room_id
        found = [(r.room_id, r.name, r.topic, r.canonical_alias, r.num_joined_members) for r in await listed("LEMONS")]
        equal(found, [(room, "The orangery", "Lemons and other troubles", "#orangery:localhost", 1)])
        named = good(await frank.client.room_resolve_alias("#orangery:localhost"))
        equal((named.room_id, named.servers), (room, ["localhost"]))
        equal(good(await frank.client.join("#orangery:localhost")).room_id, room)
        await erin.sees("frank", lambda: erin.members.get((room, frank.id), {}).get("membership") == "join")
    async with check("a second alias comes and goes"):
        good(await erin.client.room_put_alias("#limonaia:localhost", room))
        taken = await erin.client.room_create(alias="limonaia")
        equal(refusal(taken), "M_ROOM_IN_USE", "a taken alias")
        # nio does not tell whether this was refused.
        await frank.client.room_delete_alias("#limonaia:localhost")
        equal(good(await frank.client.room_resolve_alias("#limonaia:localhost")).room_id, room, "after somebody else's try")
        good(await erin.client.room_delete_alias("#limonaia:localhost"))
        equal(refusal(await frank.client.room_resolve_alias("#limonaia:localhost")), "M_NOT_FOUND")
    async with check("the directory comes in pages"):
        for number in (1, 2, 3):
            good(await erin.client.room_create(
                RoomVisibility.public, name=f"Orangery annex {number}", preset=RoomPreset.public_chat))
        found, since, pages = [], None, 0
        while pages < 10:
            page = good(await frank.client.list_public_rooms(2, since=since, filter_generic_search_term="orangery"))
            found += [listed.name for listed in page.public_rooms]
            pages, since = pages + 1, page.next_batch
            if since is None:
                break
        equal((found[0], pages), ("The orangery", 2), "the largest first, and the number of pages")
        equal(sorted(found[1:]), [f"Orangery annex {number}" for number in (1, 2, 3)])
    return room


async def doors(erin, frank, room):
    def now(person, of):
        return person.members.get((room, of.id), {}).get("membership")

    async with check("who has no power sends nobody out"):
        equal(refusal(await frank.client.room_kick(room, erin.id)), "M_FORBIDDEN", "kick")
        equal(refusal(await frank.client.room_ban(room, erin.id)), "M_FORBIDDEN", "ban")
    async with check("who is kicked may come again"):
        good(await erin.client.room_kick(room, frank.id, "muddy boots"))
        await frank.sees("that he is out", lambda: room in frank.left)
        await erin.sees("that he is out", lambda: now(erin, frank) == "leave")
        equal(erin.members[(room, frank.id)].get("reason"), "muddy boots")
        good(await frank.client.join(room))
        await erin.sees("that he is back", lambda: now(erin, frank) == "join")
    async with check("who is banned stays out until the ban is lifted"):
        good(await erin.client.room_ban(room, frank.id, "again"))
        await erin.sees("the ban", lambda: now(erin, frank) == "ban")
        equal(refusal(await frank.client.join(room)), "M_FORBIDDEN", "his join")
        equal(refusal(await erin.client.room_invite(room, frank.id)), "M_FORBIDDEN", "an invite")
        good(await erin.client.room_unban(room, frank.id))
        good(await frank.client.join(room))
        await erin.sees("that he is back", lambda: now(erin, frank) == "join")
        joined = good(await erin.client.joined_members(room)).members
        equal(sorted(member.user_id for member in joined), [erin.id, frank.id])
    async with check("a room that is left can be forgotten"):
        good(await frank.client.room_leave(room))
        good(await frank.client.room_forget(room))
        equal(refusal(await frank.client.room_messages(room, "")), "M_FORBIDDEN")


async def past(erin, frank):
    said = ["before the invite", "after the invite", "after the join"]
    shown = {"joined": said[2:], "invited": said[1:], "shared": said, "world_readable": said}
    async with people("stranger_n") as (stranger,):
        for visibility, expected in shown.items():
            async with check(f"where history is '{visibility}', a newcomer sees {len(expected)} of 3 messages"):
                state = {
                    "type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": visibility},
                }
                room = good(await erin.client.room_create(initial_state=[state])).room_id
                await erin.says(room, said[0])
                good(await erin.client.room_invite(room, frank.id))
                await erin.says(room, said[1])
                good(await frank.client.join(room))
                await erin.says(room, said[2])
                equal((await history(frank.client, room, ""))[0], expected, "frank's history")

                outside = await stranger.client.room_messages(room, "")
                if visibility == "world_readable":
                    equal((await history(stranger.client, room, ""))[0], said, "a stranger's history")
                else:
                    equal(refusal(outside), "M_FORBIDDEN", "a stranger")
                good(await frank.client.room_leave(room))
                await erin.says(room, "after the leave")
                # Who has left sees the room as it was, except where anybody sees it as it is.
                later = [*said, "after the leave"] if visibility == "world_readable" else expected
                equal((await history(frank.client, room, ""))[0], later, "who has left")
