// How a client follows: after a long time away, with a filter, and in a large room with few members at first.
import * as sdk from "matrix-js-sdk";
import { bodies, check, equal, follow, goodbye, login, register, sees, until } from "./kit.mjs";

export async function following() {
    await register("heidi", "ivan");
    const [heidi, ivan] = [await login("heidi"), await login("ivan")];
    await gap(heidi, ivan);
    await filters(heidi, ivan);
    await members(heidi);
    await goodbye(heidi, ivan);
}

async function gap(heidi, ivan) {
    const { room_id: roomId } = await ivan.createRoom({ preset: "public_chat", name: "The docks" });
    await heidi.joinRoom(roomId);
    const said = ["Casting off"];
    await ivan.sendTextMessage(roomId, said[0]);
    await sees(heidi, roomId, said[0]);

    await check("who was away for 60 messages sees the newest, and that there is a gap", async () => {
        heidi.stopClient();
        for (let number = 1; number <= 60; number++) {
            said.push(`log entry ${number}`);
            await ivan.sendTextMessage(roomId, said.at(-1));
        }
        await ivan.setRoomName(roomId, "The far docks");
        await heidi.startClient({ initialSyncLimit: 10, pollTimeout: 20_000 });
        await sees(heidi, roomId, "log entry 60");
        // Nine messages, and the new name as the tenth event.
        equal(bodies(heidi, roomId), said.slice(-9), "the timeline after the gap");
        await until(heidi, "the new name", () => heidi.getRoom(roomId).name === "The far docks");
    });
    await check("paging back closes the gap, with nothing lost or doubled", async () => {
        const window = new sdk.TimelineWindow(heidi, heidi.getRoom(roomId).getUnfilteredTimelineSet(), { windowLimit: 1000 });
        await window.load(undefined, 10);
        while (window.canPaginate(sdk.Direction.Backward)) await window.paginate(sdk.Direction.Backward, 20);
        const seen = window.getEvents();
        equal(seen[0].getType(), "m.room.create", "the first event");
        equal(seen.filter((event) => event.getType() === "m.room.message").map((event) => event.getContent().body), said);
    });
    await check("who was away for much but no messages misses nothing", async () => {
        heidi.stopClient();
        await ivan.setRoomTopic(roomId, "Tides");
        await ivan.sendReadReceipt(ivan.getRoom(roomId).getLiveTimeline().getEvents().at(-1));
        await follow(heidi);
        await until(heidi, "the topic", () =>
            heidi.getRoom(roomId).currentState.getStateEvents("m.room.topic", "")?.getContent().topic === "Tides");
        equal(heidi.getRoom(roomId).getJoinedMemberCount(), 2);
    });
}

async function members(heidi) {
    const names = Array.from({ length: 12 }, (_, index) => `sailor${index + 1}`);
    const sailors = await register(...names);
    const { room_id: roomId } = await heidi.createRoom({ preset: "public_chat", name: "The mess" });
    for (const sailor of sailors) await sailor.joinRoom(roomId);
    // Enough words to push the joins out of a timeline of ten.
    for (let number = 1; number <= 12; number++) await heidi.sendTextMessage(roomId, `announcement ${number}`);
    await sailors[0].sendTextMessage(roomId, "aye");
    await sees(heidi, roomId, "aye");

    await check("lazy loading shows who spoke, and how many there are", async () => {
        const lazy = await login("heidi", { lazyLoadMembers: true });
        const room = lazy.getRoom(roomId);
        equal(room.getJoinedMemberCount(), 13, "how many");
        equal(room.getMembers().map((member) => member.userId).sort(), ["@heidi:localhost", "@sailor1:localhost"], "who");
        await sailors[4].sendTextMessage(roomId, "may I speak?");
        await sees(lazy, roomId, "may I speak?");
        equal(room.getMember("@sailor5:localhost")?.membership, "join", "who speaks for the first time");

        await room.loadMembersIfNeeded();
        equal(room.getJoinedMembers().map((member) => member.userId).sort(),
            ["@heidi:localhost", ...names.map((name) => `@${name}:localhost`)].sort(), "everybody");
        await sailors[11].leave(roomId);
        await until(lazy, "that one left", () => room.getMember("@sailor12:localhost").membership === "leave");
        await until(lazy, "how many are left", () => room.getJoinedMemberCount() === 12);
        await goodbye(lazy);
    });
}

async function filters(heidi, ivan) {
    await check("a stored filter leaves out what it says, and can be read again", async () => {
        const { room_id: wanted } = await heidi.createRoom({ preset: "public_chat", name: "The bridge" });
        const { room_id: unwanted } = await heidi.createRoom({ preset: "public_chat", name: "The bilge" });
        const definition = {
            room: {
                not_rooms: [unwanted],
                timeline: { limit: 5, types: ["m.room.message"], not_senders: [ivan.getUserId()] },
            },
        };
        const filter = await heidi.createFilter(definition);
        equal(await heidi.getFilter(heidi.getUserId(), filter.filterId, false).then((stored) => stored.getDefinition()), definition);

        const narrow = await login("heidi", { filter });
        for (const roomId of [wanted, unwanted]) {
            await ivan.joinRoom(roomId);
            await ivan.sendTextMessage(roomId, "not for these eyes");
            await heidi.setRoomTopic(roomId, "Course and speed");
            await heidi.sendTextMessage(roomId, "steady as she goes");
        }
        await sees(narrow, wanted, "steady as she goes");
        const seen = narrow.getRoom(wanted).getLiveTimeline().getEvents().filter((event) => event.getType() !== "m.room.member");
        equal(seen.map((event) => [event.getType(), event.getContent().body]), [["m.room.message", "steady as she goes"]]);
        // What is not in the timeline is in the state all the same.
        equal(narrow.getRoom(wanted).currentState.getStateEvents("m.room.topic", "")?.getContent().topic, "Course and speed");
        equal(narrow.getRoom(unwanted), null, "the room that is left out");
        await goodbye(narrow);
    });
}
