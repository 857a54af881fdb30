// Logins that lead nowhere: refused, replayed, taken elsewhere, or too slow.
import { check, equal } from "../telling.mjs";
import { loginUrl, session, visits } from "./app.mjs";
import { inBrowser, isBack, logInThere, says } from "./browser.mjs";
import { moon, server, sun } from "./places.mjs";

/** Keeps a login from going back to the server, and tells by which URL it would have. */
async function caught(page, context, login) {
    // Routes of the driver are not asked about where a page is sent on to.
    const network = await context.newCDPSession(page);
    await network.send("Fetch.enable", { patterns: [{ urlPattern: `${server}/_hearth/sso/callback/*` }] });
    const held = new Promise((resolve) => network.once("Fetch.requestPaused", resolve));
    const went = login().catch(() => {});
    const { requestId, request } = await held;
    await network.send("Fetch.failRequest", { requestId, errorReason: "Aborted" });
    await network.detach();
    await went;
    return request.url;
}

const begin = async (page) => {
    await page.goto(loginUrl("sun"));
    await logInThere(page, "alice");
};

export async function refused() {
    await check("who says no at the provider is told so, and the app hears nothing", () => inBrowser(async (page) => {
        const before = visits.length;
        await page.goto(loginUrl("sun"));
        await page.getByRole("link", { name: "Cancel" }).click();
        await says(page, "Sun & Sons did not log you in");
        equal([page.url().includes("loginToken"), visits.length - before], [false, 0]);
    }));
    await check("a way back is good for once", () => inBrowser(async (page, context) => {
        const callback = await caught(page, context, () => begin(page));
        await page.goto(callback);
        await isBack(page);
        const alice = await session(page);
        equal((await page.goto(callback)).status(), 400);
        await says(page, "This took too long, or is done already");
        equal((await alice.whoami()).user_id, "@alice:localhost", "the session that began by it");
    }));
    await check("nobody goes on with another's login", () => inBrowser(async (page, context) => {
        const callback = await caught(page, context, () => begin(page));
        await inBrowser(async (other) => {
            equal((await other.goto(callback)).status(), 403);
            await says(other, "This began in another browser");
        });
        await page.goto(callback);
        await isBack(page);
    }));
    await check("the answer to one provider's login is not taken for another's", () => inBrowser(async (page, context) => {
        const callback = await caught(page, context, () => begin(page));
        equal((await page.goto(callback.replace("/callback/sun", "/callback/moon"))).status(), 403);
        await says(page, "The answer of Moon is not believed");
        // The provider knows them by now, and asks nothing.
        const again = await caught(page, context, () => page.goto(loginUrl("sun")));
        equal((await page.goto(again.replace(encodeURIComponent(sun), encodeURIComponent(moon)))).status(), 403);
        await says(page, "The answer of Sun & Sons is not believed");
    }));
}

/** Begins a login that is gone on with only once nothing waits for it any more; tells how to see that. */
export async function slow() {
    let told;
    const waited = new Promise((resolve) => { told = resolve; });
    const began = inBrowser(async (page) => {
        await page.goto(loginUrl("hasty"));
        told(Date.now());
        await new Promise((resolve) => setTimeout(resolve, 31_000));
        await logInThere(page, "carol");
        await says(page, "This took too long, or is done already");
    });
    began.catch(() => {});
    await Promise.race([waited, began]);
    return () => check("who takes too long begins again", () => began);
}
