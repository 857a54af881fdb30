// What becomes of words once they are said: they are edited, taken back, reacted to, and counted until they are read.
import { check, equal, goodbye, login, register, sees, until } from "./kit.mjs";

const inRoom = (client, roomId, eventId) => client.getRoom(roomId).findEventById(eventId);

/** Who reacted how: `{ "👍": ["@dave:localhost"] }`. */
function reactions(client, roomId, eventId) {
    const all = client.getRoom(roomId).relations.getChildEventsForEvent(eventId, "m.annotation", "m.reaction");
    const sorted = all?.getSortedAnnotationsByKey() ?? [];
    return Object.fromEntries(sorted.map(([key, events]) => [key, [...events].map((event) => event.getSender()).sort()]));
}
const react = (client, roomId, eventId, key) =>
    client.sendEvent(roomId, "m.reaction", { "m.relates_to": { rel_type: "m.annotation", event_id: eventId, key } });

export async function words() {
    await register("carol", "dave");
    const [carol, dave] = [await login("carol"), await login("dave")];
    const [carolId, daveId] = [carol.getUserId(), dave.getUserId()];
    const { room_id: roomId } = await carol.createRoom({ preset: "public_chat", name: "The study" });
    await dave.joinRoom(roomId);
    await until(dave, "his membership", () => dave.getRoom(roomId)?.getMyMembership() === "join");

    await check("an edit shows the new words", async () => {
        const { event_id: eventId } = await carol.sendTextMessage(roomId, "Breakfast at teh usual time");
        await sees(dave, roomId, "Breakfast at teh usual time");
        const said = "Breakfast at the usual time";
        await carol.sendMessage(roomId, {
            msgtype: "m.text", body: `* ${said}`, "m.new_content": { msgtype: "m.text", body: said },
            "m.relates_to": { rel_type: "m.replace", event_id: eventId },
        });
        await until(dave, "the edit", () => inRoom(dave, roomId, eventId).getContent().body === said);
        const again = await login("dave");
        equal(inRoom(again, roomId, eventId).getContent().body, said, "a new login");
        await goodbye(again);
    });
    await check("what is taken back is gone, and the reason is there", async () => {
        const { event_id: eventId } = await carol.sendTextMessage(roomId, "I never liked the wallpaper");
        await sees(dave, roomId, "I never liked the wallpaper");
        await carol.redactEvent(roomId, eventId, undefined, { reason: "rash" });
        await until(dave, "that it is gone", () => inRoom(dave, roomId, eventId).isRedacted());
        const again = await login("dave");
        for (const client of [dave, again]) {
            const event = inRoom(client, roomId, eventId);
            equal([event.isRedacted(), event.getContent()], [true, {}], "the event");
            equal(event.getRedactionEvent().content.reason, "rash", "the reason");
        }
        await goodbye(again);
    });
    await check("who may not take back the words of others is told so", async () => {
        const { event_id: eventId } = await carol.sendTextMessage(roomId, "This stays");
        await sees(dave, roomId, "This stays");
        const error = await dave.redactEvent(roomId, eventId).then(() => null, (error) => error);
        equal(error?.errcode, "M_FORBIDDEN");
    });
    await check("both see reactions, and that one is withdrawn", async () => {
        const { event_id: eventId } = await carol.sendTextMessage(roomId, "Cake?");
        await sees(dave, roomId, "Cake?");
        const { event_id: mine } = await react(dave, roomId, eventId, "👍");
        await react(carol, roomId, eventId, "👍");
        await react(carol, roomId, eventId, "🍰");
        const both = { "👍": [carolId, daveId], "🍰": [carolId] };
        const same = (client, expected) => () =>
            JSON.stringify(reactions(client, roomId, eventId)) === JSON.stringify(expected);
        await Promise.all([carol, dave].map((client) => until(client, "all three", same(client, both))));
        await dave.redactEvent(roomId, mine);
        const left = { "👍": [carolId], "🍰": [carolId] };
        await Promise.all([carol, dave].map((client) => until(client, "that one is gone", same(client, left))));
    });
    await unread(carol, dave, roomId);
    await goodbye(carol, dave);
}

async function unread(carol, dave, roomId) {
    const counts = (client) => ["total", "highlight"].map((kind) => client.getRoom(roomId).getUnreadNotificationCount(kind));
    const counted = (client, total, highlight) => until(client, `${total} unread, ${highlight} of them for him`, () =>
        counts(client)[0] === total && counts(client)[1] === highlight);
    const say = (client, body, mentions = {}) =>
        client.sendMessage(roomId, { msgtype: "m.text", body, "m.mentions": mentions });
    const laptop = await login("dave");

    await check("what is unread is counted, and what mentions one", async () => {
        await dave.sendReadReceipt(dave.getRoom(roomId).getLiveTimeline().getEvents().at(-1));
        await Promise.all([dave, laptop].map((client) => counted(client, 0, 0)));
        await say(carol, "Tea is served");
        await say(carol, "Dave, yours is getting cold", { user_ids: [dave.getUserId()] });
        await say(carol, "Very cold");
        await Promise.all([dave, laptop].map((client) => counted(client, 3, 1)));
        const again = await login("dave");
        equal(counts(again), [3, 1], "a new login");
        await goodbye(again);
    });
    await check("what is read on one device is read on the other", async () => {
        await dave.sendReadReceipt(dave.getRoom(roomId).getLiveTimeline().getEvents().at(-2));
        await counted(laptop, 1, 0);
        await dave.sendReadReceipt(dave.getRoom(roomId).getLiveTimeline().getEvents().at(-1));
        await Promise.all([dave, laptop].map((client) => counted(client, 0, 0)));
    });
    await check("one's own words are not unread", async () => {
        await say(dave, "On my way");
        await sees(laptop, roomId, "On my way");
        equal(counts(laptop), [0, 0]);
        await counted(carol, 1, 0);
    });
    await goodbye(laptop);
}
