// Pages of strangers with something of the server in them: none of its pages is shown there, and no file runs.
import { check, equal } from "../telling.mjs";
import { loginUrl } from "./app.mjs";
import { inBrowser } from "./browser.mjs";
import { logIn } from "./logins.mjs";
import { server, stranger } from "./places.mjs";

/** The page of a stranger with this in it. */
export const around = (page, html) => page.goto(`${new URL("/around", stranger)}?it=${encodeURIComponent(html)}`);

export async function framed() {
    await check("no page of a login is shown within another", () => inBrowser(async (page) => {
        const alice = await logIn(page, "sun", "alice");
        const asked = await alice.deleteDevice("NONE").catch((error) => error);
        const pages = [
            loginUrl(), loginUrl("nobody"), loginUrl("sun", "javascript:alert(1)"),
            alice.getFallbackAuthUrl("m.login.sso", asked.data.session), `${server}/_hearth/sso/callback/sun`,
        ];
        await around(page, pages.map((url) => `<iframe src="${url.replaceAll("&", "&amp;")}"></iframe>`).join(""));
        const within = page.frames().slice(1);
        equal(within.length, pages.length, "frames");
        const isEmpty = (frame) => ["", "about:blank"].includes(frame.url());
        for (let tries = 0; tries < 200 && within.some(isEmpty); tries++) await page.waitForTimeout(50);
        equal(within.map((frame) => frame.url()), pages.map(() => "chrome-error://chromewebdata/"), "what they show");
    }));
}
