// What the stories share: people who are logged in, and waiting for what they are to see.
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { equal } from "../telling.mjs";

export * from "../telling.mjs";

logger.setLevel?.("silent");
export const baseUrl = process.env.BASE_URL;
export const gatewayUrl = process.env.GATEWAY_URL;
export const password = "a password that is long enough";
export const LIMIT = 30_000;
// The SDK asks a lost server again every 5 to 10 seconds.
export const RECONNECT_LIMIT = 60_000;

/** Resolves once `probe` gives something truthy: looks now and after each of the client's events. */
export function until(client, what, probe, limit = LIMIT) {
    const names = [
        sdk.ClientEvent.Sync, sdk.ClientEvent.Room, sdk.RoomEvent.Timeline, sdk.RoomEvent.MyMembership,
        sdk.RoomEvent.Receipt, sdk.RoomMemberEvent.Membership, sdk.RoomMemberEvent.Name, sdk.RoomMemberEvent.Typing,
        sdk.RoomStateEvent.Events, sdk.RoomEvent.Redaction, sdk.MatrixEventEvent.Replaced,
        sdk.RoomEvent.UnreadNotifications, sdk.RoomEvent.Name, sdk.MatrixEventEvent.Decrypted,
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

export const bodies = (client, roomId) =>
    client.getRoom(roomId)?.getLiveTimeline().getEvents()
        .filter((event) => event.getType() === "m.room.message" && !event.status)
        .map((event) => event.getContent().body) ?? [];
export const sees = (client, roomId, body, limit) =>
    until(client, `'${body}'`, () => bodies(client, roomId).includes(body), limit);

/** What the push gateway was told for a pushkey, once it was told so often. */
export async function told(pushkey, times) {
    for (let tries = 0; tries < LIMIT / 100; tries++) {
        const notes = await (await fetch(`${gatewayUrl}/told/${pushkey}`)).json();
        if (notes.length >= times) return notes;
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`the gateway was not told ${times} times within ${LIMIT / 1000} s`);
}

/** Registers people and gives each a client that need not sync, in the order of their names. */
export async function register(...names) {
    return Promise.all(names.map(async (name) => {
        const bare = sdk.createClient({ baseUrl });
        const reply = await bare.registerRequest({ username: name, password, auth: { type: "m.login.dummy" } });
        equal(reply.user_id, `@${name}:localhost`, "user id");
        return clientOf(reply);
    }));
}

const clientOf = (reply) => sdk.createClient({
    baseUrl, userId: reply.user_id, accessToken: reply.access_token, deviceId: reply.device_id, timelineSupport: true,
});

/** What the server says to a login by password. */
export const loginReply = (name, more = {}) => sdk.createClient({ baseUrl }).loginRequest({
    type: "m.login.password", identifier: { type: "m.id.user", user: name }, password,
    initial_device_display_name: "story", ...more,
});

/** A new session that follows what happens; `how` are options of the SDK's sync. */
export async function login(name, how = {}, more = {}) {
    return follow(clientOf(await loginReply(name, more)), how);
}

export async function follow(client, how = {}) {
    await client.startClient({ initialSyncLimit: 10, pollTimeout: 20_000, ...how });
    await until(client, "the first sync", () => client.isInitialSyncComplete());
    return client;
}

/** Logs a session out, whatever it was doing. */
export async function goodbye(...clients) {
    for (const client of clients) {
        client.stopClient();
        await client.logout();
    }
}

/** All messages of a room, oldest first, as somebody finds them who pages back from its end. */
export async function history(client, roomId) {
    const found = [];
    for (let from = null, pages = 0; pages < 50; pages++) {
        const page = await client.createMessagesRequest(roomId, from, 20, sdk.Direction.Backward);
        found.push(...page.chunk.filter((event) => event.type === "m.room.message").map((event) => event.content.body));
        if (!page.end || page.chunk.length === 0) return found.reverse();
        from = page.end;
    }
    throw new Error("no end of pages");
}
