// Two identity providers, with pages and people of their own.
import { generateKeyPairSync } from "node:crypto";
import Provider from "oidc-provider";
import { app, front, moon, server, sun } from "./places.mjs";

export const MARKUP = `<script>window.ran = 1</script>"'><img src=x onerror="window.ran = 1">{{ 7 * 7 }}`;

/** Everybody is called what they type when they log in, at both of them; one person means harm by what they say. */
const about = (login, where) => ({
    sub: login,
    name: login === "mallory" ? MARKUP : `${login} of the ${where}`,
    preferred_username: login === "mallory" ? `"><script>window.ran = 1</script>` : login,
    picture: login === "mallory" ? app : `${new URL("/picture", app)}`,
    email: `${login}@${where}.example`, email_verified: true,
});

const client = (where, id, host, provider, more) => ({
    client_id: id, client_secret: `between the ${where} and us`,
    redirect_uris: [`${host}/_hearth/sso/callback/${provider}`],
    backchannel_logout_uri: `${host}/_hearth/sso/backchannel/${provider}`,
    ...more,
});

async function start(where, issuer, key, clients, more = {}) {
    const provider = new Provider(issuer, {
        clients,
        jwks: { keys: [{ ...key.privateKey.export({ format: "jwk" }), use: "sig", kid: where }] },
        claims: {
            openid: ["sub"], profile: ["name", "preferred_username", "picture"], email: ["email", "email_verified"],
        },
        findAccount: (_, login) => ({ accountId: login, claims: () => about(login, where) }),
        features: { backchannelLogout: { enabled: true } },
        // Cookies know nothing of ports.
        cookies: {
            keys: [where],
            names: Object.fromEntries(["session", "interaction", "resume"].map((name) => [name, `${where}_${name}`])),
        },
        // By itself it speaks to nobody on its own machine.
        fetch: (url, { dispatcher, ...options }) => fetch(url, options),
        ...more,
    });
    for (const trouble of ["server_error", "backchannel.error"]) {
        provider.on(trouble, (_, error) => console.error(where, error));
    }
    await new Promise((resolve) => provider.listen(new URL(issuer).port, "127.0.0.1", resolve));
}

/** They differ where providers do: in what they sign with, how they take a secret, and where they tell of people. */
export async function startProviders() {
    const ofSession = { backchannel_logout_session_required: true };
    await start("sun", sun, generateKeyPairSync("rsa", { modulusLength: 2048 }), [
        client("sun", "plain", server, "sun", ofSession),
        client("sun", "front", front, "front", ofSession),
    ]);
    const how = { token_endpoint_auth_method: "client_secret_post", id_token_signed_response_alg: "ES256" };
    await start("moon", moon, generateKeyPairSync("ec", { namedCurve: "P-256" }), [
        client("moon", "plain", server, "moon", how),
        client("moon", "hasty", server, "hasty", how),
    ], { clientAuthMethods: ["client_secret_post"], conformIdTokenClaims: false });
}
