// Every story with matrix-js-sdk, one after another, on one server. What goes wrong in one does not keep the next away.
import { encrypted } from "./encrypted.mjs";
import { following } from "./following.mjs";
import { rooms } from "./rooms.mjs";
import { sessions } from "./sessions.mjs";
import { talk } from "./talk.mjs";
import { words } from "./words.mjs";

let failed = false;
for (const story of [talk, words, rooms, following, sessions, encrypted]) {
    await story().catch((error) => {
        console.error(error);
        failed = true;
    });
}
process.exit(failed ? 1 : 0);
