// Every story in a browser, one after another, on one server. What goes wrong in one does not keep the next away.
import { startApp } from "./app.mjs";
import { startBrowser, stopBrowser } from "./browser.mjs";
import { files } from "./files.mjs";
import { framed } from "./framed.mjs";
import { behindFront, startFront } from "./front.mjs";
import { logins } from "./logins.mjs";
import { startProviders } from "./providers.mjs";
import { refused, slow } from "./refused.mjs";
import { sessions } from "./sessions.mjs";

await Promise.all([startProviders(), startApp(), startFront(), startBrowser()]);
// It takes half a minute of waiting, during which the others are told.
const stillSlow = await slow();
let failed = false;
for (const story of [logins, refused, behindFront, framed, files, sessions, stillSlow]) {
    await story().catch((error) => {
        console.error(error);
        failed = true;
    });
}
await stopBrowser();
process.exit(failed ? 1 : 0);
