// Every story in a browser, one after another, on one server. What goes wrong in one does not keep the next away.
import { startApp } from "./app.mjs";
import { startBrowser, stopBrowser } from "./browser.mjs";
import { files } from "./files.mjs";
import { framed } from "./framed.mjs";
import { behindFront, startFront } from "./front.mjs";
import { linked, logins, marked, strange } from "./logins.mjs";
import { startProviders } from "./providers.mjs";
import { refused, slow } from "./refused.mjs";
import { confirmed, loggedOut, restarted } from "./sessions.mjs";

await Promise.all([startProviders(), startApp(), startFront(), startBrowser()]);
// It takes half a minute of waiting, during which the others are told.
const stillSlow = await slow();
let failed = false;
const stories = [
    logins, linked, strange, marked, refused, behindFront, framed, files, loggedOut, confirmed, restarted, stillSlow,
];
for (const story of stories) {
    await story().catch((error) => {
        console.error(error);
        failed = true;
    });
}
await stopBrowser();
process.exit(failed ? 1 : 0);
