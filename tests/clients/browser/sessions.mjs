// What becomes of sessions that began at a provider: they end with that of the provider, and go on past a restart of the
// server; and what takes a proof of who one is, is proved there.
import { check, equal, heard, refusal, say } from "../telling.mjs";
import { loginUrl, myDevices, session } from "./app.mjs";
import { inBrowser, isBack, logInThere, logOutThere, says, text } from "./browser.mjs";
import { logIn } from "./logins.mjs";
import { app, server, sun } from "./places.mjs";

export async function loggedOut() {
    await check("who logs out at the provider is logged out of what began there", () => inBrowser(async (page) => {
        const ended = await logIn(page, "sun", "alice");
        const elsewhere = await inBrowser((other) => logIn(other, "sun", "alice"));
        const somebodyElse = await inBrowser((other) => logIn(other, "moon", "bob"));
        await logOutThere(page, sun);
        equal(await refusal(ended.whoami()), "M_UNKNOWN_TOKEN", "the session");
        equal((await elsewhere.whoami()).device_id, elsewhere.getDeviceId(), "what began in another browser");
        equal((await somebodyElse.whoami()).user_id, "@bob:localhost", "somebody else");
        equal((await myDevices(elsewhere)).includes(ended.getDeviceId()), false, "the device is listed");
    }));
}

export async function confirmed() {
    const deletes = (client, device, auth) => client.deleteDevice(device, auth).then(() => null, (error) => error);
    /** Opens the page of the server in a window of its own, as an app does, and logs in there. */
    const confirms = async (page, client, asked, name) => {
        const url = client.getFallbackAuthUrl("m.login.sso", asked.data.session);
        const opened = page.waitForEvent("popup");
        await page.evaluate((url) => window.confirmIn(url), url);
        const popup = await opened;
        await says(popup, "Confirm that it is you");
        equal((await text(popup)).includes("log out devices"), true, "the page says what is about to happen");
        await popup.getByRole("link", { name: "Confirm with Sun & Sons" }).click();
        await logInThere(popup, name);
        return popup;
    };
    await check("a device is deleted once its owner has confirmed that at the provider", () => inBrowser(async (page) => {
        const lost = await inBrowser((other) => logIn(other, "sun", "alice"));
        const alice = await logIn(page, "sun", "alice");
        const asked = await deletes(alice, lost.getDeviceId());
        equal([asked.httpStatus, asked.data.flows], [401, [{ stages: ["m.login.sso"] }]], "what is asked for");
        const auth = { session: asked.data.session };
        equal((await deletes(alice, lost.getDeviceId(), auth)).httpStatus, 401, "what nobody has confirmed");

        const popup = await confirms(page, alice, asked, "alice");
        const told = await page.waitForFunction(() => window.told);
        equal(await told.jsonValue(), ["authDone", server], "what the app is told");
        await says(popup, "Thank you");
        equal((await lost.whoami()).device_id, lost.getDeviceId(), "the device until the app asks again");
        equal(await deletes(alice, lost.getDeviceId(), auth), null);
        equal(await refusal(lost.whoami()), "M_UNKNOWN_TOKEN", "the deleted one");
        equal((await deletes(alice, alice.getDeviceId(), auth)).httpStatus, 401, "what was confirmed before");
    }));
    await check("nobody else confirms it", () => inBrowser(async (page) => {
        const alice = await inBrowser((other) => logIn(other, "sun", "alice"));
        await page.goto(app);
        const asked = await deletes(alice, alice.getDeviceId());
        const popup = await confirms(page, alice, asked, "mallory");
        await says(popup, "This is not @alice:localhost");
        equal((await deletes(alice, alice.getDeviceId(), { session: asked.data.session })).httpStatus, 401);
        equal((await alice.whoami()).device_id, alice.getDeviceId());
    }));
}

export async function restarted() {
    await check("a login goes on where the server was started anew meanwhile", () => inBrowser(async (page) => {
        await page.goto(loginUrl("moon"));
        say("stop");
        await heard("down");
        equal(await fetch(server).then(() => "an answer", () => "none"), "none", "from the server");
        say("seen");
        await heard("up");
        await logInThere(page, "dora");
        await isBack(page);
        const dora = await session(page);
        equal(dora.getUserId(), "@dora:localhost");
    }));
}
