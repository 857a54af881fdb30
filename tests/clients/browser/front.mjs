// The server behind a proxy that ends TLS, as it is run: what it calls itself is the proxy's URL.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import tls from "node:tls";
import { check, equal, refusal } from "../telling.mjs";
import { loginUrl, session, tradeToken } from "./app.mjs";
import { inBrowser, isBack, logInThere, logOutThere, says } from "./browser.mjs";
import { front, server, sun } from "./places.mjs";

/** A certificate that only this process believes, and a browser that is told to. */
function certificate() {
    const folder = mkdtempSync(join(tmpdir(), "front-"));
    const [key, cert] = ["key.pem", "cert.pem"].map((name) => join(folder, name));
    try {
        execFileSync("openssl", [
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=front", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert,
        ], { stdio: ["ignore", "ignore", "inherit"] });
        return { key: readFileSync(key), cert: readFileSync(cert) };
    } finally {
        rmSync(folder, { recursive: true });
    }
}

export async function startFront() {
    const { key, cert } = certificate();
    tls.setDefaultCACertificates([...tls.getCACertificates(), cert.toString()]);
    const { hostname, port } = new URL(server);
    const proxy = createServer({ key, cert }, (incoming, outgoing) => {
        const headers = {
            ...incoming.headers, "x-forwarded-for": incoming.socket.remoteAddress, "x-forwarded-proto": "https",
        };
        const onward = request({ hostname, port, path: incoming.url, method: incoming.method, headers }, (answer) => {
            outgoing.writeHead(answer.statusCode, answer.headers);
            answer.pipe(outgoing);
        });
        onward.on("error", () => outgoing.writeHead(502).end());
        incoming.pipe(onward);
    });
    await new Promise((resolve) => proxy.listen(new URL(front).port, "127.0.0.1", resolve));
}

export async function behindFront() {
    const atServer = (cookies) => cookies.filter((cookie) => cookie.name.includes("hearth"));
    const first = await check("somebody comes by the proxy for the first time", () => inBrowser(async (page, context) => {
        await page.goto(loginUrl("front", undefined, front));
        const [cookie, ...more] = atServer(await context.cookies(front));
        const { secure, httpOnly, sameSite, path } = cookie;
        equal({ secure, httpOnly, sameSite, path }, { secure: true, httpOnly: true, sameSite: "Lax", path: "/" }, "the cookie");
        equal([cookie.name.startsWith("__Host-"), more], [true, []], "its name, and others");
        await logInThere(page, "frank");
        await says(page, "Choose your name");
        equal(page.url().startsWith(front), true, "by the proxy");
        await page.getByRole("button", { name: "Make my account" }).click();
        await isBack(page);
        return session(page, front);
    }));
    await check("the app hears that the server is at the proxy, and talks to it there", () => inBrowser(async (page) => {
        await page.goto(loginUrl("front", undefined, front));
        await logInThere(page, "frank");
        await isBack(page);
        const reply = await tradeToken(new URL(page.url()).searchParams.get("loginToken"), front);
        equal([reply.user_id, reply.well_known["m.homeserver"].base_url], ["@frank:localhost", front]);
        equal((await first.getDevices()).devices.length, 2, "devices");
    }));
    await check("a provider that is told apart knows the same people as somebody else's", () => inBrowser(async (page) => {
        await page.goto(loginUrl("sun"));
        await logInThere(page, "frank");
        await says(page, "Choose your name");
    }));
    await check("the end of a session at the provider comes through the proxy", () => inBrowser(async (page) => {
        await page.goto(loginUrl("front", undefined, front));
        await logInThere(page, "frank");
        await isBack(page);
        const ended = await session(page, front);
        await logOutThere(page, sun);
        equal(await refusal(ended.whoami()), "M_UNKNOWN_TOKEN");
    }));
}
