// Files that mean harm, opened in a browser as themselves: nothing in them runs.
import { check, equal } from "../telling.mjs";
import { PIXEL, register, visits } from "./app.mjs";
import { inBrowser } from "./browser.mjs";
import { around } from "./framed.mjs";
import { app, server, stranger } from "./places.mjs";

/** Says that it ran, in each way that somebody could hear. */
const RUN = `window.ran = 1; alert(1); fetch("${app}?ran"); new Image().src = "${app}?ran"; top.location = "${app}?ran";`;
const PDF = `%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R/OpenAction<</S/JavaScript/JS(app.alert\\(1\\); this.submitForm\\("${app}?ran"\\))>>>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj
trailer<</Root 1 0 R>>`;
const HTML = `<!doctype html><script>${RUN}</script>`;
const XHTML = `<html xmlns="http://www.w3.org/1999/xhtml"><script>${RUN}</script></html>`;
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" onload="${RUN.replaceAll(`"`, "'")}"><script>${RUN}</script></svg>`;
// A picture for who looks at its first bytes, and an assignment for who runs it.
const POLYGLOT = `GIF89a/*\x01\x00\x01\x00*/=1;${RUN}`;

const HOSTILE = [
    ["an SVG with a script", "image/svg+xml", SVG],
    ["a page", "text/html", HTML],
    ["an XHTML page", "application/xhtml+xml", XHTML],
    ["a PDF", "application/pdf", PDF],
    ["a page that calls itself a picture", "image/png", HTML],
    ["a picture that is a script, too", "image/gif", POLYGLOT],
    ["a page of no type", "application/octet-stream", HTML],
];

export async function files() {
    const owner = await register("otto");
    const upload = async (type, content) => {
        const blob = new Blob([content], { type });
        return (await owner.uploadContent(blob, { type, name: "a\"<script>.html" })).content_uri;
    };
    const authorization = `Bearer ${owner.getAccessToken()}`;
    const ways = (uri) => [
        ["as clients do", owner.mxcUrlToHttp(uri, undefined, undefined, undefined, false, true, true)],
        ["by the path of old", owner.mxcUrlToHttp(uri)],
    ];
    /** Opens something in its own window, with the token of its owner where that is asked for. */
    const open = async (page, url) => {
        await page.route(`${server}/_matrix/client/v1/media/**`, (route) =>
            route.continue({ headers: { ...route.request().headers(), authorization } }));
        const answer = page.waitForResponse(url);
        // What is for download opens no page.
        await page.goto(url).catch((error) => {
            if (!/Download is starting|ERR_ABORTED/.test(error.message)) throw error;
        });
        return answer;
    };
    for (const [what, type, content] of HOSTILE) {
        await check(`nothing runs in ${what}`, () => inBrowser(async (page) => {
            for (const [way, url] of ways(await upload(type, content))) {
                const answer = await open(page, url);
                equal(answer.status(), 200, way);
                const headers = answer.headers();
                const policy = headers["content-security-policy"]?.split("; ") ?? [];
                equal(["sandbox", "default-src 'none'"].filter((part) => !policy.includes(part)), [], `${way}: no policy`);
                equal(headers["x-content-type-options"], "nosniff", way);
                const src = url.replaceAll("&", "&amp;");
                await around(page, `<iframe src="${src}"></iframe><embed src="${src}"><object data="${src}"></object>
                    <img src="${src}"><script src="${src}"></script>`);
                await page.waitForTimeout(100);
                equal(page.url().startsWith(new URL("/around", stranger).href), true, `${way}: the page is still there`);
                equal(await page.evaluate(() => window.ran ?? null), null, `${way}: in the page of a stranger`);
            }
            equal(visits.filter((url) => url.includes("?ran")), [], "what was sent from there");
        }));
    }
    await check("a picture is shown", () => inBrowser(async (page) => {
        for (const [way, url] of ways(await upload("image/gif", PIXEL))) {
            await open(page, url);
            equal(await page.evaluate(() => [document.contentType, document.images[0].naturalWidth]), ["image/gif", 1], way);
        }
    }));
    await check("an app on another site fetches a picture with its token, and shows it", () => inBrowser(async (page) => {
        await page.goto(stranger);
        const [[, url]] = ways(await upload("image/gif", PIXEL));
        const width = await page.evaluate(async ([url, authorization]) => {
            const picture = new Image();
            picture.src = URL.createObjectURL(await (await fetch(url, { headers: { authorization } })).blob());
            await picture.decode();
            return picture.naturalWidth;
        }, [url, authorization]);
        equal(width, 1);
    }));
}
