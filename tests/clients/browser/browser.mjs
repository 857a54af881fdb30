// A browser, and the ways that people go in it.
import { chromium } from "playwright-core";
import { equal } from "../telling.mjs";
import { app, front, server } from "./places.mjs";

const LIMIT = 20_000;
let browser;

export async function startBrowser() {
    browser = await chromium.launch({
        executablePath: "/usr/bin/chromium",
        args: [
            // As root it has no sandbox, and runs only without.
            ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
            // The pages of the providers would have a font from elsewhere.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
        ],
    });
}

export const stopBrowser = () => browser.close();

/** Somebody's browser, in which nothing is open or remembered: as narrow as a small phone. */
export async function inBrowser(what) {
    const context = await browser.newContext({
        viewport: { width: 360, height: 640 }, ignoreHTTPSErrors: true,
    });
    context.setDefaultTimeout(LIMIT);
    const troubles = [];
    const isOurs = (url) => [server, front].some((place) => url.startsWith(place));
    // A page that a policy keeps from something says so there; not trouble is that a page is an error by its status, nor
    // that policies have words in them for other browsers.
    const isKnown = /^Failed to load resource|has been removed from the specification/;
    context.on("console", (message) => {
        const { url } = message.location();
        if (message.type() === "error" && isOurs(url) && !isKnown.test(message.text())) {
            troubles.push(`${url}: ${message.text()}`);
        }
    });
    context.on("weberror", (error) => troubles.push(String(error.error())));
    context.on("dialog", (dialog) => {
        troubles.push(`a dialog: ${dialog.message()}`);
        dialog.dismiss();
    });
    try {
        const result = await what(await context.newPage(), context);
        equal(troubles, [], "what went wrong in the browser");
        return result;
    } finally {
        await context.close();
    }
}

/** The page of the server with this heading; everybody can use it. */
export async function says(page, heading) {
    await page.getByRole("heading", { level: 1, name: heading, exact: true }).waitFor();
    const seen = await page.evaluate(() => {
        const inputs = [...document.querySelectorAll("input:not([type=hidden])")];
        return {
            width: document.scrollingElement.scrollWidth,
            unnamed: inputs.filter((input) => !input.labels.length).map((input) => input.name),
            language: document.documentElement.lang,
            title: document.title.length > 0,
            ran: window.ran ?? null,
        };
    });
    equal({ ...seen, width: seen.width <= 360 }, { width: true, unnamed: [], language: "en", title: true, ran: null }, heading);
}

export const text = (page) => page.locator("main").innerText();

/** Logs in at a provider, whose pages are in the window, and agrees to what it asks. */
export async function logInThere(page, name) {
    await page.getByPlaceholder("Enter any login").fill(name);
    await page.getByPlaceholder("and password").fill("anything");
    await leaves(page, () => page.getByRole("button", { name: "Sign-in" }).click());
    if (new URL(page.url()).pathname.startsWith("/interaction/")) {
        await leaves(page, () => page.getByRole("button", { name: "Continue" }).click());
    }
}

export async function logOutThere(page, provider) {
    await page.goto(`${provider}/session/end`);
    await page.getByRole("button", { name: "Yes, sign me out" }).click();
    await page.waitForURL(/session\/end\/success/);
}

/** Waits until the window shows another page. */
async function leaves(page, action) {
    const before = page.url();
    await Promise.all([page.waitForURL((url) => url.href !== before), action()]);
}

/** The app is in the window again, with a token. */
export const isBack = (page, to = app) =>
    page.waitForURL((url) => url.href.startsWith(`${to}?`) && url.searchParams.has("loginToken"));

/** Presses keys, as somebody does who uses no mouse. */
export async function press(page, ...keys) {
    for (const key of keys) await page.keyboard.press(key);
}
