// People log in: for the first time and again, at two providers, and to the account that they had.
import { check, equal, refusal } from "../telling.mjs";
import {
    PIXEL, loginByPassword, loginFlows, loginUrl, myDevices, password, register, session, tradeToken, visits,
} from "./app.mjs";
import { inBrowser, isBack, logInThere, logOutThere, press, says, text } from "./browser.mjs";
import { app, moon, stranger } from "./places.mjs";
import { MARKUP } from "./providers.mjs";

/** Goes to a provider from the app, logs in there, and comes back to the app. */
export async function logIn(page, provider, name, back = app) {
    await page.goto(loginUrl(provider, back));
    await logInThere(page, name);
    await isBack(page, back);
    return session(page);
}

/** What a file has in it, for who is logged in. */
async function content(client, uri) {
    const url = client.mxcUrlToHttp(uri, undefined, undefined, undefined, false, true, true);
    const answer = await fetch(url, { headers: { authorization: `Bearer ${client.getAccessToken()}` } });
    return Buffer.from(await answer.arrayBuffer()).toString("base64");
}

export async function logins() {
    const first = await check("somebody logs in, and chooses a name by the keyboard", () => inBrowser(async (page) => {
        await page.goto(loginUrl("sun"));
        await logInThere(page, "alice");
        await says(page, "Choose your name");
        const name = page.getByLabel("User name").first();
        equal(await name.inputValue(), "alice", "the name that is proposed");
        equal((await text(page)).includes("Sun & Sons"), true, "the page names the provider");
        await press(page, "Control+A");
        await page.keyboard.type("Not a name!");
        await press(page, "Enter");
        await page.getByRole("alert").waitFor();
        await says(page, "Choose your name");
        await press(page, "Control+A");
        await page.keyboard.type("alice");
        await press(page, "Tab", "Enter");
        await isBack(page);
        return session(page);
    }));
    await check("their name and picture are what the provider says, and they can talk", async () => {
        const { displayname, avatar_url: avatar } = await first.getProfileInfo(first.getUserId());
        equal(displayname, "alice of the sun");
        equal(await content(first, avatar), PIXEL.toString("base64"), "the picture");
        const { room_id: roomId } = await first.createRoom({ preset: "private_chat" });
        await first.sendTextMessage(roomId, "Here I am");
        const { chunk } = await first.createMessagesRequest(roomId, null, 1, "b");
        equal(chunk[0].content.body, "Here I am");
    });
    await check("next time they are asked nothing, and have one device more", () => inBrowser(async (page) => {
        const again = await logIn(page, "sun", "alice");
        equal([first.getUserId(), again.getUserId()], ["@alice:localhost", "@alice:localhost"]);
        equal(await myDevices(first), [first.getDeviceId(), again.getDeviceId()].sort(), "the devices");
    }));
    await check("a login token is good for one session", () => inBrowser(async (page) => {
        await (await logIn(page, "sun", "alice")).logout();
        const token = new URL(page.url()).searchParams.get("loginToken");
        equal((await tradeToken(token).catch((error) => error)).errcode, "M_FORBIDDEN");
    }));
    await check("an app is told of all providers", async () => {
        const sso = (await loginFlows()).find((flow) => flow.type === "m.login.sso");
        equal(sso.identity_providers.map((one) => one.name), ["Sun & Sons", "Moon", "Sun behind a proxy", "Moon, quickly"]);
    });
    await check("who names no provider is asked, and is somebody else at each", () => inBrowser(async (page) => {
        await page.goto(loginUrl());
        await says(page, "How do you want to log in?");
        await page.getByRole("link", { name: "Continue with Moon", exact: true }).click();
        await logInThere(page, "bob");
        await isBack(page);
        equal((await session(page)).getUserId(), "@bob:localhost", "who has a name of their own");

        await page.goto(loginUrl());
        await page.getByRole("link", { name: "Continue with Sun & Sons", exact: true }).click();
        await logInThere(page, "alice");
        await isBack(page);
        equal((await session(page)).getUserId(), "@alice:localhost", "who was there");
    }));
    await check("where a name is taken, its namesake chooses another", () => inBrowser(async (page) => {
        await page.goto(loginUrl("moon"));
        await logInThere(page, "alice");
        await says(page, "Choose your name");
        await page.getByRole("button", { name: "Make my account" }).click();
        equal(await page.getByRole("alert").innerText(), "This user name is taken");
        await page.getByLabel("User name").first().fill("alice.moon");
        await page.getByRole("button", { name: "Make my account" }).click();
        await isBack(page);
        equal((await session(page)).getUserId(), "@alice.moon:localhost");
    }));
}

export async function linked() {
    const lena = await register("lena");
    await check("somebody links the account that they had by its password", () => inBrowser(async (page) => {
        await page.goto(loginUrl("moon"));
        await logInThere(page, "lena");
        await says(page, "Choose your name");
        for (const secret of ["a guess", password]) {
            await page.getByLabel("User name").last().fill("lena");
            await page.getByLabel("Password").fill(secret);
            await page.getByRole("button", { name: "Link my account" }).click();
            if (secret === password) break;
            await page.getByRole("alert").waitFor();
            await says(page, "Choose your name");
            equal(await page.getByLabel("Password").inputValue(), "", "the password is not shown again");
        }
        await isBack(page);
        equal((await session(page)).getUserId(), lena.getUserId());
    }));
    await check("from then on both ways lead there", () => inBrowser(async (page) => {
        const [byMoon, byPassword] = [await logIn(page, "moon", "lena"), await loginByPassword("lena")];
        equal([byMoon, byPassword].map((client) => client.getUserId()), [lena.getUserId(), lena.getUserId()]);
        equal((await myDevices(lena)).includes(byMoon.getDeviceId()), true, "the device");
    }));
    await check("a provider that names no session ends all that began there", () => inBrowser(async (page) => {
        const ended = [await inBrowser((other) => logIn(other, "moon", "lena")), await logIn(page, "moon", "lena")];
        await logOutThere(page, moon);
        equal(await Promise.all(ended.map((client) => refusal(client.whoami()))), ["M_UNKNOWN_TOKEN", "M_UNKNOWN_TOKEN"]);
        equal((await lena.whoami()).user_id, lena.getUserId(), "what began by the password");
    }));
}

/** An app that the operator does not know. */
export async function strange() {
    const came = () => visits.filter((url) => url.startsWith("/app")).length;
    await check("who comes from an app that nobody knows may say no to it", () => inBrowser(async (page) => {
        const before = came();
        await page.goto(loginUrl("sun", stranger));
        await logInThere(page, "alice");
        await says(page, "Do you know this app?");
        const shown = await text(page);
        equal([new URL(stranger).host, "@alice:localhost"].every((said) => shown.includes(said)), true, shown);
        await page.getByRole("button", { name: "Cancel" }).click();
        await says(page, "You were not logged in");
        equal([page.url().includes("loginToken"), came() - before], [false, 0], "what the app hears");
        await page.goBack();
        await says(page, "This took too long, or is done already");
    }));
    await check("who says yes comes to it", () => inBrowser(async (page) => {
        await page.goto(loginUrl("sun", `${stranger}?room=1`));
        await logInThere(page, "alice");
        await says(page, "Do you know this app?");
        await page.getByRole("button", { name: "Continue" }).click();
        await isBack(page, stranger);
        equal(new URL(page.url()).searchParams.get("room"), "1", "what was in the URL");
        equal((await session(page)).getUserId(), "@alice:localhost");
    }));
    await check("who says yes comes to an app on the same machine", () => inBrowser(async (page) => {
        await page.goto(loginUrl("sun", "element://vector/"));
        await logInThere(page, "alice");
        await says(page, "Do you know this app?");
        equal((await text(page)).includes("element:"), true, "how it is called");
        const sent = page.waitForRequest((request) => request.url().startsWith("element:"));
        await page.getByRole("button", { name: "Continue" }).click();
        equal((await sent).url().startsWith("element://vector/?loginToken="), true, "where to");
    }));
    await check("nobody is sent to what is no place", () => inBrowser(async (page) => {
        const lie = app.replace("//", "//who:what@");
        for (const bad of ["javascript:alert(1)//", "data:text/html,<script>alert(1)</script>", "", lie]) {
            const answer = await page.goto(loginUrl("sun", bad));
            equal(answer.status(), 400, bad);
            await says(page, "Nobody is sent there from here");
        }
    }));
}

export async function marked() {
    await check("what a provider says of people is text, and nothing runs", () => inBrowser(async (page) => {
        await page.goto(loginUrl("sun", stranger));
        await logInThere(page, "mallory");
        await says(page, "Choose your name");
        equal((await text(page)).includes(`Welcome, ${MARKUP}.`), true, "the name is shown as it is");
        equal(await page.locator("script, img").count(), 0, "elements that are none of ours");
        const name = page.getByLabel("User name").first();
        await name.fill(`"><img src=x onerror="window.ran = 1">`);
        await name.press("Enter");
        await page.getByRole("alert").waitFor();
        await says(page, "Choose your name");
        equal(await name.inputValue(), `"><img src=x onerror="window.ran = 1">`, "what was typed");
        equal(await page.locator("script, img").count(), 0, "elements that are none of ours");
        await name.fill("mallory");
        await name.press("Enter");
        await says(page, "Do you know this app?");
        await page.getByRole("button", { name: "Continue" }).click();
        await isBack(page, stranger);
        const mallory = await session(page);
        const { displayname, avatar_url: avatar } = await mallory.getProfileInfo(mallory.getUserId());
        equal([displayname, avatar], [MARKUP, undefined], "name, and a picture that is none");
    }));
}
