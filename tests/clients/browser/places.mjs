// Where everybody is: the runner says which ports are theirs.
export const server = process.env.BASE_URL;
const port = (name) => process.env[`${name}_PORT`] ?? (() => { throw new Error(`the runner names no port for ${name}`); })();

/** Another site than the server is, for the browser. */
export const sun = `http://localhost:${port("SUN")}`;
export const moon = `http://localhost:${port("MOON")}`;
/** A proxy with TLS before the server, which is what the server calls itself. */
export const front = `https://127.0.0.1:${port("FRONT")}`;
/** An app that the server knows, and the same by a name that it doesn't. */
export const app = `http://127.0.0.1:${port("APP")}/app`;
export const stranger = `http://localhost:${port("APP")}/app`;
