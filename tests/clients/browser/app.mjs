// An app that people log in to: a page that they are sent back to with a token, and matrix-js-sdk, which trades it for a
// session. It is also where pages are that mean no good.
import { createServer } from "node:http";
import * as sdk from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { app, server } from "./places.mjs";

logger.setLevel?.("silent");
export const password = "a password that is long enough";
export const PIXEL = Buffer.from("R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==", "base64");
/** The URLs that anybody asked of the app, without its host. */
export const visits = [];

const PAGE = `<!doctype html><title>The app</title><h1>The app</h1><script>
    // The parts of an app that a page of the server could meet: a window of its own, and what that says.
    function confirmIn(url) {
        addEventListener("message", (event) => { window.told = [event.data, event.origin]; });
        window.open(url);
    }
</script>`;

export async function startApp() {
    const web = createServer((request, response) => {
        visits.push(request.url);
        const url = new URL(request.url, app);
        response.setHeader("Content-Type", "text/html");
        if (url.pathname === "/app") response.end(PAGE);
        else if (url.pathname === "/picture") response.setHeader("Content-Type", "image/gif").end(PIXEL);
        // A page of a stranger with something of ours in it.
        else if (url.pathname === "/around") response.end(`<!doctype html><title>Hi</title>${url.searchParams.get("it")}`);
        else response.writeHead(404).end();
    });
    await new Promise((resolve) => web.listen(new URL(app).port, "127.0.0.1", resolve));
}

const clientOf = (reply, baseUrl) => sdk.createClient({
    baseUrl, userId: reply.user_id, accessToken: reply.access_token, deviceId: reply.device_id,
});

/** Where the app sends somebody who wants to log in. */
export const loginUrl = (provider, back = app, baseUrl = server) =>
    sdk.createClient({ baseUrl }).getSsoLoginUrl(back, "sso", provider);

/** The login types that the app is offered. */
export const loginFlows = async () => (await sdk.createClient({ baseUrl: server }).loginFlows()).flows;

export const tradeToken = (token, baseUrl = server) => sdk.createClient({ baseUrl }).loginRequest({
    type: "m.login.token", token, initial_device_display_name: "The app",
});

/** A session for the token that came with the page; it may be traded only once. */
export async function session(page, baseUrl = server) {
    const token = new URL(page.url()).searchParams.get("loginToken");
    return clientOf(await tradeToken(token, baseUrl), baseUrl);
}

/** Somebody with a password. */
export async function register(name) {
    const bare = sdk.createClient({ baseUrl: server });
    return clientOf(await bare.registerRequest({ username: name, password, auth: { type: "m.login.dummy" } }), server);
}

export async function loginByPassword(name) {
    const identifier = { type: "m.id.user", user: name };
    const bare = sdk.createClient({ baseUrl: server });
    return clientOf(await bare.loginRequest({ type: "m.login.password", identifier, password }), server);
}

export const myDevices = async (client) => (await client.getDevices()).devices.map((device) => device.device_id).sort();
