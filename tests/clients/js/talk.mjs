// Two people talk in a room while their server is stopped, killed and started again.
//
// Asks the runner for "stop" and "kill", and reads "down" and "up".
import {
    RECONNECT_LIMIT, bodies, check, equal, goodbye, heard, login, loginReply, refusal, register, say, sees, until,
} from "./kit.mjs";

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

export async function talk() {
    await check("two people register", () => register("alice", "bob"));
    await check("a name is taken only once", async () => {
        equal(await refusal(register("alice")), "M_USER_IN_USE");
    });
    await check("a wrong password is refused", async () => {
        const error = await loginReply("alice", { password: "wrong" }).then(() => null, (error) => error);
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
        equal(await refusal(bob.joinRoom(roomId)), "M_FORBIDDEN");
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
            await goodbye(again);
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
                await goodbye(fresh);
            }
        });
    }
    await check("bob leaves, and both see it", async () => {
        await bob.leave(roomId);
        await until(alice, "that he left", () => alice.getRoom(roomId).getMember(bobId).membership === "leave");
        await until(bob, "that he left", () => bob.getRoom(roomId)?.getMyMembership() === "leave");
    });
    await check("who has left may not speak", async () => {
        equal(await refusal(bob.sendTextMessage(roomId, "one more thing")), "M_FORBIDDEN");
    });
    await check("a token ends with its logout", async () => {
        await goodbye(bob);
        equal(await refusal(bob.whoami()), "M_UNKNOWN_TOKEN");
    });
    await goodbye(alice);
}
