// Two people, each with matrix-js-sdk, talk in a room while their server is stopped, killed and started again.
//
// Says one check a line on stdout ("@ ok …" or "@ failed …"); asks the runner for "stop" and "kill", and reads "down" and "up".
import { createInterface } from "node:readline";
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";

logger.setLevel?.("silent");
const baseUrl = process.env.BASE_URL;
const password = "a password that is long enough";
const LIMIT = 30_000;
// The SDK asks a lost server again every 5 to 10 seconds.
const RECONNECT_LIMIT = 60_000;

const say = (line) => process.stdout.write(`@ ${line}\n`);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const heard = async (word) => {
    const { value } = await lines.next();
    if (value !== word) throw new Error(`expected '${word}' from the runner, got '${value}'`);
};

async function check(what, action) {
    try {
        const result = await action();
        say(`ok ${what}`);
        return result;
    } catch (error) {
        say(`failed ${what}: ${String(error?.message ?? error).replaceAll("\n", " ")}`);
        throw error;
    }
}

function equal(actual, expected, what = "value") {
    const [a, b] = [JSON.stringify(actual), JSON.stringify(expected)];
    if (a !== b) throw new Error(`${what}: ${a} instead of ${b}`);
}

/** Resolves once `probe` gives something truthy: looks now and after each of the client's events. */
function until(client, what, probe, limit = LIMIT) {
    const names = [
        sdk.ClientEvent.Sync, sdk.ClientEvent.Room, sdk.RoomEvent.Timeline, sdk.RoomEvent.MyMembership,
        sdk.RoomEvent.Receipt, sdk.RoomMemberEvent.Membership, sdk.RoomMemberEvent.Name, sdk.RoomMemberEvent.Typing,
        sdk.RoomStateEvent.Events,
    ];
    return new Promise((resolve, reject) => {
        const done = (settle, value) => {
            clearTimeout(timer);
            for (const name of names) client.off(name, look);
            settle(value);
        };
        const look = () => {
            try {
                const found = probe();
                if (found) done(resolve, found);
            } catch (error) {
                done(reject, error);
            }
        };
        const timer = setTimeout(() => done(reject, new Error(`${what} not seen within ${limit / 1000} s`)), limit);
        for (const name of names) client.on(name, look);
        look();
    });
}

const bodies = (client, roomId) =>
    client.getRoom(roomId)?.getLiveTimeline().getEvents()
        .filter((event) => event.getType() === "m.room.message" && !event.status)
        .map((event) => event.getContent().body) ?? [];
const sees = (client, roomId, body, limit) =>
    until(client, `'${body}'`, () => bodies(client, roomId).includes(body), limit);

async function register(name) {
    const bare = sdk.createClient({ baseUrl });
    const reply = await bare.registerRequest({ username: name, password, auth: { type: "m.login.dummy" } });
    equal(reply.user_id, `@${name}:localhost`, "user id");
}

async function login(name) {
    const bare = sdk.createClient({ baseUrl });
    const reply = await bare.loginRequest({
        type: "m.login.password", identifier: { type: "m.id.user", user: name }, password,
        initial_device_display_name: "story",
    });
    const client = sdk.createClient({
        baseUrl, userId: reply.user_id, accessToken: reply.access_token, deviceId: reply.device_id,
        timelineSupport: true,
    });
    await client.startClient({ initialSyncLimit: 10, pollTimeout: 20_000 });
    await until(client, "the first sync", () => client.isInitialSyncComplete());
    return client;
}

async function outage(word, clients) {
    say(word);
    await heard("down");
    const lost = clients.map((client) =>
        until(client, "the loss of the server", () => ["RECONNECTING", "ERROR"].includes(client.getSyncState()), RECONNECT_LIMIT));
    await Promise.all(lost);
    say("seen");
    await heard("up");
    await Promise.all(clients.map((client) =>
        until(client, "the server again", () => client.getSyncState() === "SYNCING", RECONNECT_LIMIT)));
}

async function story() {
    await check("two people register", () => Promise.all([register("alice"), register("bob")]));
    await check("a name is taken only once", async () => {
        const error = await register("alice").then(() => null, (error) => error);
        equal(error?.errcode, "M_USER_IN_USE");
    });
    await check("a wrong password is refused", async () => {
        const bare = sdk.createClient({ baseUrl });
        const error = await bare.loginRequest({
            type: "m.login.password", identifier: { type: "m.id.user", user: "alice" }, password: "wrong",
        }).then(() => null, (error) => error);
        equal([error?.httpStatus, error?.errcode], [403, "M_FORBIDDEN"]);
    });
    const [alice, bob] = await check("both log in by password and sync", () => Promise.all([login("alice"), login("bob")]));
    const [aliceId, bobId] = [alice.getUserId(), bob.getUserId()];

    await check("a display name is set and read", async () => {
        await alice.setDisplayName("Alice in Chains");
        equal((await bob.getProfileInfo(aliceId)).displayname, "Alice in Chains");
    });
    const roomId = await check("alice creates a room", async () => {
        const { room_id } = await alice.createRoom({ name: "The parlour", topic: "Tea", preset: "private_chat" });
        await until(alice, "the room", () => alice.getRoom(room_id)?.name === "The parlour");
        return room_id;
    });
    await check("who is not invited may not join", async () => {
        const error = await bob.joinRoom(roomId).then(() => null, (error) => error);
        equal(error?.errcode, "M_FORBIDDEN");
    });
    await check("bob sees alice's invite", async () => {
        await alice.invite(roomId, bobId);
        await until(bob, "the invite", () => bob.getRoom(roomId)?.getMyMembership() === "invite");
        equal(bob.getRoom(roomId).getMember(bobId).events.member.getSender(), aliceId, "the inviter");
    });
    await check("bob joins, and both see it", async () => {
        await bob.joinRoom(roomId);
        await until(bob, "his membership", () => bob.getRoom(roomId)?.getMyMembership() === "join");
        await until(alice, "his membership", () => alice.getRoom(roomId).getMember(bobId)?.membership === "join");
        await until(bob, "alice's name", () => bob.getRoom(roomId).getMember(aliceId)?.name === "Alice in Chains");
    });
    await check("both see a message of each", async () => {
        await alice.sendTextMessage(roomId, "Good evening, Bob");
        await Promise.all([alice, bob].map((client) => sees(client, roomId, "Good evening, Bob")));
        await bob.sendTextMessage(roomId, "Good evening, Alice");
        await Promise.all([alice, bob].map((client) => sees(client, roomId, "Good evening, Alice")));
    });
    await check("a new name shows in the room", async () => {
        await alice.setDisplayName("Alice");
        await until(bob, "the new name", () => bob.getRoom(roomId).getMember(aliceId)?.name === "Alice");
    });
    await check("alice sees bob typing, and that he stopped", async () => {
        const typing = () => Boolean(alice.getRoom(roomId).getMember(bobId)?.typing);
        await bob.sendTyping(roomId, true, 20_000);
        await until(alice, "bob typing", typing);
        await bob.sendTyping(roomId, false, 0);
        await until(alice, "that bob stopped", () => !typing());
    });
    await check("alice sees how far bob has read", async () => {
        const last = bob.getRoom(roomId).getLiveTimeline().getEvents().findLast((event) => event.getType() === "m.room.message");
        await bob.sendReadReceipt(last);
        await until(alice, "the receipt", () => alice.getRoom(roomId).getEventReadUpTo(bobId, true) === last.getId());
    });
    const numbered = Array.from({ length: 60 }, (_, index) => `message ${index + 1}`);
    await check("60 messages arrive in order", async () => {
        for (const body of numbered) await alice.sendTextMessage(roomId, body);
        await sees(bob, roomId, "message 60");
        equal(bodies(bob, roomId).filter((body) => body.startsWith("message ")), numbered);
    });
    const pageBack = async (client) => {
        const timeline = client.getRoom(roomId).getLiveTimeline();
        let pages = 0;
        while (await client.paginateEventTimeline(timeline, { backwards: true, limit: 20 })) {
            if (++pages > 50) throw new Error("no end of pages");
        }
        return pages;
    };
    await check("a new login pages back to the beginning, over several pages", async () => {
        const again = await login("bob");
        try {
            const pages = await pageBack(again);
            if (pages < 3) throw new Error(`${pages} pages`);
            equal(bodies(again, roomId), ["Good evening, Bob", "Good evening, Alice", ...numbered]);
            equal(again.getRoom(roomId).getLiveTimeline().getEvents()[0].getType(), "m.room.create", "the first event");
        } finally {
            again.stopClient();
            await again.logout();
        }
    });

    const said = ["Good evening, Bob", "Good evening, Alice", ...numbered];
    for (const [word, name] of [["stop", "a stop"], ["kill", "a kill"]]) {
        await check(`both find the server again after ${name}`, () => outage(word, [alice, bob]));
        await check(`they talk on after ${name}`, async () => {
            for (const [from, body] of [[alice, `still here after ${name}?`], [bob, `still here after ${name}!`]]) {
                await from.sendTextMessage(roomId, body);
                await Promise.all([alice, bob].map((client) => sees(client, roomId, body)));
                said.push(body);
            }
        });
        await check(`nothing is lost or doubled by ${name}`, async () => {
            for (const client of [alice, bob]) {
                equal(bodies(client, roomId), said, client.getUserId());
            }
            const fresh = await login("alice");
            try {
                await pageBack(fresh);
                equal(bodies(fresh, roomId), said, "a new login");
                equal(fresh.getRoom(roomId).getMember(bobId).membership, "join");
                equal((await fresh.getProfileInfo(aliceId)).displayname, "Alice");
            } finally {
                fresh.stopClient();
                await fresh.logout();
            }
        });
    }
    await check("bob leaves, and both see it", async () => {
        await bob.leave(roomId);
        await until(alice, "that he left", () => alice.getRoom(roomId).getMember(bobId).membership === "leave");
        await until(bob, "that he left", () => bob.getRoom(roomId)?.getMyMembership() === "leave");
    });
    await check("who has left may not speak", async () => {
        const error = await bob.sendTextMessage(roomId, "one more thing").then(() => null, (error) => error);
        equal(error?.errcode, "M_FORBIDDEN");
    });
    await check("a token ends with its logout", async () => {
        bob.stopClient();
        await bob.logout();
        const error = await bob.whoami().then(() => null, (error) => error);
        equal(error?.errcode, "M_UNKNOWN_TOKEN");
    });
    alice.stopClient();
}

story().then(() => process.exit(0), (error) => {
    console.error(error);
    process.exit(1);
});
