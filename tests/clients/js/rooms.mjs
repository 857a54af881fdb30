// Rooms and who gets into them: names and the directory, being sent out and let in again, and how much of the past one sees.
import { check, equal, goodbye, history, login, refusal, register, until } from "./kit.mjs";

const membership = (client, roomId, userId) => client.getRoom(roomId)?.getMember(userId)?.membership;
const names = async (client, search) =>
    (await client.publicRooms({ filter: { generic_search_term: search } })).chunk.map((room) => room.name).sort();

export async function rooms() {
    await register("erin", "frank");
    const [erin, frank] = [await login("erin"), await login("frank")];
    const roomId = await directory(erin, frank);
    await doors(erin, frank, roomId);
    await past(erin, frank);
    await goodbye(erin, frank);
}

async function directory(erin, frank) {
    const roomId = await check("a room is published, found by a search, and joined by its alias", async () => {
        const { room_id } = await erin.createRoom({
            preset: "public_chat", visibility: "public", room_alias_name: "greenhouse",
            name: "The greenhouse", topic: "Orchids and other worries",
        });
        const { chunk: [listed, ...others] } = await frank.publicRooms({ filter: { generic_search_term: "orchids" } });
        equal(others, []);
        equal(
            [listed.room_id, listed.name, listed.topic, listed.canonical_alias, listed.num_joined_members],
            [room_id, "The greenhouse", "Orchids and other worries", "#greenhouse:localhost", 1],
        );
        const { room_id: named, servers } = await frank.getRoomIdForAlias("#greenhouse:localhost");
        equal([named, servers], [room_id, ["localhost"]], "the alias");
        await frank.joinRoom("#greenhouse:localhost");
        await until(frank, "the room", () => frank.getRoom(room_id)?.getMyMembership() === "join");
        equal(frank.getRoom(room_id).getCanonicalAlias(), "#greenhouse:localhost");
        return room_id;
    });
    await check("a second alias comes and goes", async () => {
        await erin.createAlias("#hothouse:localhost", roomId);
        equal((await erin.getLocalAliases(roomId)).aliases.sort(), ["#greenhouse:localhost", "#hothouse:localhost"]);
        const taken = await erin.createRoom({ room_alias_name: "hothouse" }).then(() => null, (error) => error);
        equal([taken?.httpStatus, taken?.errcode], [400, "M_ROOM_IN_USE"], "a taken alias");
        equal(await refusal(frank.deleteAlias("#hothouse:localhost")), "M_FORBIDDEN", "somebody else's alias");
        await erin.deleteAlias("#hothouse:localhost");
        equal(await refusal(frank.getRoomIdForAlias("#hothouse:localhost")), "M_NOT_FOUND");
        equal((await erin.getLocalAliases(roomId)).aliases, ["#greenhouse:localhost"]);
    });
    await check("the directory comes in pages, the largest room first", async () => {
        for (const number of [1, 2, 3]) {
            await erin.createRoom({ preset: "public_chat", visibility: "public", name: `Greenhouse annex ${number}` });
        }
        const found = [];
        for (let since, pages = 1; ; pages++) {
            const page = await frank.publicRooms({ limit: 2, since, filter: { generic_search_term: "greenhouse" } });
            found.push(...page.chunk.map((room) => room.name));
            since = page.next_batch;
            if (!since) {
                equal(pages, 2, "pages");
                break;
            }
        }
        equal(found[0], "The greenhouse", "the largest");
        equal(found.sort(), ["Greenhouse annex 1", "Greenhouse annex 2", "Greenhouse annex 3", "The greenhouse"]);
    });
    await check("a room leaves the directory", async () => {
        equal((await frank.getRoomDirectoryVisibility(roomId)).visibility, "public");
        equal(await refusal(frank.setRoomDirectoryVisibility(roomId, "private")), "M_FORBIDDEN", "by a mere member");
        await erin.setRoomDirectoryVisibility(roomId, "private");
        equal(await names(frank, "orchids"), []);
    });
    return roomId;
}

async function doors(erin, frank, roomId) {
    const [erinId, frankId] = [erin.getUserId(), frank.getUserId()];
    await check("who has no power sends nobody out", async () => {
        equal(await refusal(frank.kick(roomId, erinId)), "M_FORBIDDEN", "kick");
        equal(await refusal(frank.ban(roomId, erinId)), "M_FORBIDDEN", "ban");
    });
    await check("who is kicked sees by whom and why, and may come again", async () => {
        await erin.kick(roomId, frankId, "muddy boots");
        await until(frank, "that he is out", () => frank.getRoom(roomId).getMyMembership() === "leave");
        const { member } = frank.getRoom(roomId).getMember(frankId).events;
        equal([member.getSender(), member.getContent().reason], [erinId, "muddy boots"]);
        await until(erin, "that he is out", () => membership(erin, roomId, frankId) === "leave");
        equal(await refusal(frank.sendTextMessage(roomId, "but")), "M_FORBIDDEN", "his message");
        await frank.joinRoom(roomId);
        await until(erin, "that he is back", () => membership(erin, roomId, frankId) === "join");
        await until(frank, "that he is back", () => frank.getRoom(roomId).getMyMembership() === "join");
    });
    await check("who is banned stays out until the ban is lifted", async () => {
        await erin.ban(roomId, frankId, "again");
        await until(frank, "the ban", () => frank.getRoom(roomId).getMyMembership() === "ban");
        await until(erin, "the ban", () => membership(erin, roomId, frankId) === "ban");
        equal(await refusal(frank.joinRoom(roomId)), "M_FORBIDDEN", "his join");
        equal(await refusal(erin.invite(roomId, frankId)), "M_FORBIDDEN", "an invite");
        await erin.unban(roomId, frankId);
        await until(erin, "that it is lifted", () => membership(erin, roomId, frankId) === "leave");
        await frank.joinRoom(roomId);
        await until(frank, "the room", () => frank.getRoom(roomId).getMyMembership() === "join");
        await until(erin, "that he is back", () => membership(erin, roomId, frankId) === "join");
    });
    await check("a room that is left can be forgotten", async () => {
        await frank.leave(roomId);
        await until(frank, "that he left", () => frank.getRoom(roomId)?.getMyMembership() === "leave");
        await frank.forget(roomId);
        equal(await refusal(history(frank, roomId)), "M_FORBIDDEN");
    });
}

async function past(erin, frank) {
    const [stranger] = await register("niaj");
    const all = ["before the invite", "after the invite", "after the join"];
    const shown = { joined: all.slice(2), invited: all.slice(1), shared: all, world_readable: all };
    for (const [visibility, expected] of Object.entries(shown)) {
        await check(`where history is '${visibility}', a newcomer sees ${expected.length} of 3 messages`, async () => {
            const { room_id: roomId } = await erin.createRoom({
                preset: "private_chat",
                initial_state: [{
                    type: "m.room.history_visibility", state_key: "", content: { history_visibility: visibility },
                }],
            });
            await erin.sendTextMessage(roomId, all[0]);
            await erin.invite(roomId, frank.getUserId());
            await erin.sendTextMessage(roomId, all[1]);
            await frank.joinRoom(roomId);
            await erin.sendTextMessage(roomId, all[2]);
            await until(frank, "the last message", () => frank.getRoom(roomId)?.getLiveTimeline().getEvents()
                .some((event) => event.getContent().body === all[2]));
            equal(await history(frank, roomId), expected, "paging back");
            const again = await login("frank");
            const timeline = again.getRoom(roomId).getLiveTimeline();
            while (await again.paginateEventTimeline(timeline, { backwards: true, limit: 5 }));
            const seen = timeline.getEvents().filter((event) => event.getType() === "m.room.message");
            equal(seen.map((event) => event.getContent().body), expected, "a new login");
            await goodbye(again);

            const outside = visibility === "world_readable" ? all : "M_FORBIDDEN";
            equal(await history(stranger, roomId).catch((error) => error.errcode), outside, "a stranger");

            await frank.leave(roomId);
            await erin.sendTextMessage(roomId, "after the leave");
            // Who has left sees the room as it was, except where anybody sees it as it is.
            const later = visibility === "world_readable" ? [...all, "after the leave"] : expected;
            equal(await history(frank, roomId), later, "who has left");
        });
    }
}
