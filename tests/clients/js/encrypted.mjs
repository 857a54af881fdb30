// Talk that the server can't read: keys are handed out and given once, devices are verified, backed up and restored.
import * as sdk from "matrix-js-sdk";
import {
    CryptoEvent, VerificationPhase, VerificationRequestEvent, VerifierEvent,
} from "matrix-js-sdk/lib/crypto-api/index.js";
import {
    RECONNECT_LIMIT, baseUrl, check, equal, follow, gatewayUrl, goodbye, loginReply, password, register, sees, told, until,
} from "./kit.mjs";

/** A network that can be cut: what is under way fails, and what is asked then waits until it is back. */
class Line {
    #calls = new Set();
    #up = Promise.resolve();
    up = () => {};

    fetch = async (resource, options = {}) => {
        await this.#up;
        const cut = new AbortController();
        this.#calls.add(cut);
        try {
            const signals = [cut.signal, options.signal].filter(Boolean);
            return await fetch(resource, { ...options, signal: AbortSignal.any(signals) });
        } finally {
            this.#calls.delete(cut);
        }
    };

    cut() {
        this.#up = new Promise((resolve) => { this.up = resolve; });
        for (const call of this.#calls) call.abort();
    }
}

/** A new session that encrypts. `vault` holds the keys of the secret storage that its owner remembers. */
async function unlocked(name, vault = new Map(), line = new Line()) {
    const reply = await loginReply(name);
    const client = sdk.createClient({
        baseUrl, userId: reply.user_id, accessToken: reply.access_token, deviceId: reply.device_id,
        timelineSupport: true, fetchFn: line.fetch,
        cryptoCallbacks: {
            cacheSecretStorageKey: (id, _info, key) => vault.set(id, key),
            getSecretStorageKey: async ({ keys }) => {
                const id = Object.keys(keys).find((id) => vault.has(id));
                return id ? [id, vault.get(id)] : null;
            },
        },
    });
    await client.initRustCrypto({ useIndexedDB: false });
    return follow(client);
}

/** Asks again and again for what no event tells. */
async function settles(what, probe) {
    for (let tries = 0; tries < 300; tries++) {
        if (await probe()) return;
        await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(`${what} not seen within 30 s`);
}

const devicesOf = async (client, userId) =>
    [...((await client.getCrypto().getUserDeviceInfo([userId], true)).get(userId)?.keys() ?? [])].sort();
const crossSigned = async (client, userId, deviceId) =>
    Boolean((await client.getCrypto().getDeviceVerificationStatus(userId, deviceId))?.signedByOwner);
const trusts = async (client, userId) => (await client.getCrypto().getUserVerificationStatus(userId)).isVerified();

/** Uploads cross-signing keys; gives what the server asked for on the way: null, or the stages of a flow. */
async function crossSign(client) {
    const asked = [];
    await client.getCrypto().bootstrapCrossSigning({
        setupNewCrossSigning: true,
        authUploadDeviceSigningKeys: async (upload) => {
            try {
                await upload(null);
            } catch (error) {
                asked.push(...(error.data?.flows ?? []).map((flow) => flow.stages));
                await upload({
                    type: "m.login.password", password, session: error.data.session,
                    identifier: { type: "m.id.user", user: client.getUserId() },
                });
            }
        },
    });
    return asked;
}

export async function encrypted() {
    await register("judy", "kevin");
    const [vault, line] = [new Map(), new Line()];
    const [judy, kevin] = await check("two devices publish their keys", async () => {
        const both = [await unlocked("judy", vault), await unlocked("kevin", undefined, line)];
        for (const client of both) {
            await settles("its own device", async () =>
                (await devicesOf(client, client.getUserId())).includes(client.getDeviceId()));
        }
        return both;
    });
    const roomId = await talk(judy, kevin);
    await signing(judy, kevin);
    await verification(judy, kevin);
    const phone = await newDevice(judy, kevin, vault, roomId);
    await away(judy, kevin, line, roomId);
    await gone(phone, kevin);
    const woken = await asleep(judy, kevin, vault, roomId);
    await goodbye(woken, kevin);
}

async function talk(judy, kevin) {
    const { room_id: roomId } = await judy.createRoom({
        preset: "private_chat", invite: [kevin.getUserId()],
        initial_state: [{ type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } }],
    });
    await until(kevin, "the invite", () => kevin.getRoom(roomId)?.getMyMembership() === "invite");
    await kevin.joinRoom(roomId);
    await until(kevin, "the room", () => kevin.getRoom(roomId)?.getMyMembership() === "join");
    await until(judy, "that he joined", () => judy.getRoom(roomId)?.getMember(kevin.getUserId())?.membership === "join");

    await check("each reads what the other encrypted, and the server keeps nothing that can be read", async () => {
        const { event_id: eventId } = await judy.sendTextMessage(roomId, "The safe is behind the painting");
        await sees(kevin, roomId, "The safe is behind the painting");
        await kevin.sendTextMessage(roomId, "Which painting?");
        await sees(judy, roomId, "Which painting?");
        const stored = await kevin.fetchRoomEvent(roomId, eventId);
        equal([stored.type, Object.keys(stored.content).includes("body")], ["m.room.encrypted", false]);
        equal(JSON.stringify(stored).includes("painting"), false);
    });
    await check("what is said in secret is counted as unread", async () => {
        await judy.sendTextMessage(roomId, "The one of the harbour");
        await sees(kevin, roomId, "The one of the harbour");
        await until(kevin, "one unread", () => kevin.getRoom(roomId).getUnreadNotificationCount("total") > 0);
        await kevin.sendReadReceipt(kevin.getRoom(roomId).getLiveTimeline().getEvents().at(-1));
        await until(kevin, "none unread", () => kevin.getRoom(roomId).getUnreadNotificationCount("total") === 0);
    });
    await check("a name is no mention where the sender says whom they mention", async () => {
        const content = { msgtype: "m.text", body: "kevin would know", "m.mentions": {} };
        await judy.sendMessage(roomId, content);
        await sees(kevin, roomId, "kevin would know");
        await until(kevin, "one unread", () => kevin.getRoom(roomId).getUnreadNotificationCount("total") > 0);
        equal(kevin.getRoom(roomId).getUnreadNotificationCount("highlight"), 0, "highlights");
        await judy.sendMessage(roomId, { ...content, body: "you!", "m.mentions": { user_ids: [kevin.getUserId()] } });
        await until(kevin, "a mention", () => kevin.getRoom(roomId).getUnreadNotificationCount("highlight") === 1);
    });
    await check("what is read in private nobody else hears of", async () => {
        const last = kevin.getRoom(roomId).getLiveTimeline().getEvents().at(-1);
        await kevin.setRoomReadMarkers(roomId, last.getId(), undefined, last);
        await until(kevin, "none unread", () => kevin.getRoom(roomId).getUnreadNotificationCount("total") === 0);
        await kevin.sendTextMessage(roomId, "Not I");
        await sees(judy, roomId, "Not I");
        const heard = judy.getRoom(roomId).getReadReceiptForUserId(kevin.getUserId(), true)?.eventId;
        equal([heard === undefined, heard === last.getId()], [false, false], "that he has read this, of which she heard");
    });
    await check("a pusher is told where an encrypted message is and no more, and when it was read", async () => {
        const pusher = {
            kind: "http", app_id: "org.example.js", pushkey: `js-${roomId.slice(1, 9)}`, app_display_name: "Story",
            device_display_name: "Kevin's phone", lang: "en", append: false,
            data: { url: `${gatewayUrl}/_matrix/push/v1/notify`, format: "event_id_only" },
        };
        await kevin.setPusher(pusher);
        const { pushers } = await kevin.getPushers();
        equal(pushers.map((set) => [set.pushkey, set.data]), [[pusher.pushkey, pusher.data]], "what is set");
        const { event_id: eventId } = await judy.sendTextMessage(roomId, "Or was it the lighthouse?");
        const [note] = await told(pusher.pushkey, 1);
        equal([note.event_id, note.room_id, note.counts.unread, "content" in note], [eventId, roomId, 1, false], "the news");
        await sees(kevin, roomId, "Or was it the lighthouse?");
        await kevin.sendReadReceipt(kevin.getRoom(roomId).getLiveTimeline().getEvents().at(-1));
        const [, read] = await told(pusher.pushkey, 2);
        equal(["event_id" in read, read.counts.unread], [false, 0], "the badge");
        await kevin.removePusher(pusher.pushkey, pusher.app_id);
        equal((await kevin.getPushers()).pushers, [], "what is set at the end");
    });
    return roomId;
}

async function signing(judy, kevin) {
    await check("cross-signing keys are first uploaded without a password", async () => {
        equal(await crossSign(kevin), []);
        equal(await crossSign(judy), []);
        equal(await judy.getCrypto().isCrossSigningReady(), true);
        await settles("the signature of her own device", () => crossSigned(judy, judy.getUserId(), judy.getDeviceId()));
    });
    await check("they are replaced only with the password", async () => {
        equal(await crossSign(kevin), [["m.login.password"]]);
    });
    await check("others see that a device is signed by its owner", () =>
        settles("the signature", () => crossSigned(judy, kevin.getUserId(), kevin.getDeviceId())));
}

/** Follows a verification to its end by comparing emoji, on one side. */
async function compare(request) {
    const reached = (phase) => new Promise((resolve, reject) => {
        const look = () => {
            if (request.phase === VerificationPhase.Cancelled) reject(new Error(`cancelled: ${request.cancellationCode}`));
            if (request.phase >= phase) resolve();
        };
        request.on(VerificationRequestEvent.Change, look);
        look();
    });
    if (!request.initiatedByMe) await request.accept();
    await reached(VerificationPhase.Ready);
    if (request.initiatedByMe) await request.startVerification("m.sas.v1");
    await reached(VerificationPhase.Started);
    const { verifier } = request;
    const shown = new Promise((resolve) => {
        verifier.on(VerifierEvent.ShowSas, resolve);
        if (verifier.getShowSasCallbacks()) resolve(verifier.getShowSasCallbacks());
    });
    const done = verifier.verify();
    const { sas, confirm } = await Promise.race([shown, done.then(() => Promise.reject(new Error("nothing to compare")))]);
    return { emoji: sas.emoji.map(([emoji]) => emoji), confirm, done };
}

async function compareBoth(asking, asked, request) {
    const heard = new Promise((resolve) => asked.once(CryptoEvent.VerificationRequestReceived, resolve));
    const [here, there] = await Promise.all([request().then(compare), heard.then(compare)]);
    equal(here.emoji, there.emoji, "the emoji");
    equal(here.emoji.length, 7, "how many");
    await Promise.all([here.confirm(), there.confirm()]);
    await Promise.all([here.done, there.done]);
}

async function verification(judy, kevin) {
    await check("two people verify each other by emoji", async () => {
        equal([await trusts(judy, kevin.getUserId()), await trusts(kevin, judy.getUserId())], [false, false], "before");
        await compareBoth(judy, kevin, () =>
            judy.getCrypto().requestDeviceVerification(kevin.getUserId(), kevin.getDeviceId()));
        await settles("judy's trust", () => trusts(judy, kevin.getUserId()));
        await settles("kevin's trust", () => trusts(kevin, judy.getUserId()));
    });
}

async function newDevice(judy, kevin, vault, roomId) {
    await check("keys are backed up behind a recovery key", async () => {
        await judy.getCrypto().bootstrapSecretStorage({
            createSecretStorageKey: () => judy.getCrypto().createRecoveryKeyFromPassphrase(),
            setupNewSecretStorage: true, setupNewKeyBackup: true,
        });
        equal(await judy.getCrypto().isSecretStorageReady(), true, "the secret storage");
        // What the SDK says of the backup is what it was told when it looked first.
        await settles("the keys in the backup", async () =>
            (await judy.http.authedRequest(sdk.Method.Get, "/room_keys/version")).count >= 2);
    });
    const phone = await check("a new device signs itself with the recovery key, and reads the past from the backup", async () => {
        const phone = await unlocked("judy", vault);
        await settles("her identity", () => phone.getCrypto().userHasCrossSigningKeys(judy.getUserId(), true));
        await phone.getCrypto().bootstrapCrossSigning({});
        await settles("its own signature", () => crossSigned(phone, judy.getUserId(), phone.getDeviceId()));
        await settles("its signature, seen by kevin", () => crossSigned(kevin, judy.getUserId(), phone.getDeviceId()));
        equal(await trusts(phone, kevin.getUserId()), true, "kevin, whom judy verified");
        await phone.getCrypto().loadSessionBackupPrivateKeyFromSecretStorage();
        const { total, imported } = await phone.getCrypto().restoreKeyBackup();
        equal([total >= 2, imported], [true, total], "what was restored");
        for (const body of ["The safe is behind the painting", "Which painting?"]) await sees(phone, roomId, body);
        return phone;
    });
    await check("both of her devices read what comes now", async () => {
        await kevin.sendTextMessage(roomId, "And the combination?");
        await Promise.all([judy, phone].map((client) => sees(client, roomId, "And the combination?")));
        await phone.sendTextMessage(roomId, "Ask the gardener");
        await Promise.all([judy, kevin].map((client) => sees(client, roomId, "Ask the gardener")));
    });
    await check("another device of hers is verified by the one she has, and gets the secrets from it", async () => {
        const tablet = await unlocked("judy");
        await settles("the devices", async () => (await devicesOf(tablet, judy.getUserId())).length >= 3);
        await compareBoth(tablet, judy, () =>
            tablet.getCrypto().requestDeviceVerification(judy.getUserId(), judy.getDeviceId()));
        await settles("the signature", () => crossSigned(judy, judy.getUserId(), tablet.getDeviceId()));
        await settles("the secrets", () => tablet.getCrypto().isCrossSigningReady());
        await goodbye(tablet);
    });
    return phone;
}

async function away(judy, kevin, line, roomId) {
    await check("who is away gets keys by a fallback key once all others are claimed", async () => {
        line.cut();
        const [kevinId, deviceId] = [kevin.getUserId(), kevin.getDeviceId()];
        const given = [];
        for (;;) {
            const claim = await judy.claimOneTimeKeys([[kevinId, deviceId]], "signed_curve25519");
            const [[id, key]] = Object.entries(claim.one_time_keys[kevinId][deviceId]);
            if (key.fallback) break;
            given.push(id);
            if (given.length > 200) throw new Error("no end of one-time keys");
        }
        equal(given.length > 10 && new Set(given).size, given.length, "each key is given once");
        const laptop = await unlocked("judy");
        await laptop.sendTextMessage(roomId, "The gardener is gone");
        line.up();
        await sees(kevin, roomId, "The gardener is gone", RECONNECT_LIMIT);
        await settles("new one-time keys", async () => {
            const claim = await judy.claimOneTimeKeys([[kevinId, deviceId]], "signed_curve25519");
            return Object.values(claim.one_time_keys[kevinId][deviceId]).every((key) => !key.fallback);
        });
        await goodbye(laptop);
    });
}

async function gone(phone, kevin) {
    await check("a device that logs out is gone for others", async () => {
        const [userId, deviceId] = [phone.getUserId(), phone.getDeviceId()];
        equal((await devicesOf(kevin, userId)).includes(deviceId), true, "before");
        await goodbye(phone);
        await settles("that it is gone", async () => !(await devicesOf(kevin, userId)).includes(deviceId));
    });
}

async function asleep(judy, kevin, vault, roomId) {
    return check("a device without a session keeps what is said while its owner is logged out everywhere", async () => {
        equal(await judy.getCrypto().isDehydrationSupported(), true, "that the server has such devices");
        await judy.getCrypto().startDehydration({ createNewKey: true });
        const prefix = "/_matrix/client/unstable/org.matrix.msc3814.v1";
        const kept = await judy.http.authedRequest(sdk.Method.Get, "/dehydrated_device", undefined, undefined, { prefix });
        await settles("the device, signed by its owner", () => crossSigned(kevin, judy.getUserId(), kept.device_id));
        await goodbye(judy);
        await kevin.getCrypto().forceDiscardSession(roomId);
        await kevin.sendTextMessage(roomId, "Are you all asleep?");
        const woken = await unlocked("judy", vault);
        await settles("her identity", () => woken.getCrypto().userHasCrossSigningKeys(woken.getUserId(), true));
        await woken.getCrypto().bootstrapCrossSigning({});
        await woken.getCrypto().startDehydration({ rehydrate: true });
        await sees(woken, roomId, "Are you all asleep?");
        return woken;
    });
}
