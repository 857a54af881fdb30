// One person's sessions: who may end them, what ends them, and how one goes on under a new token.
import * as sdk from "matrix-js-sdk";
import { baseUrl, check, equal, goodbye, login, loginReply, password, refusal, register } from "./kit.mjs";

const userId = "@grace:localhost";

/** Asks without a password to learn the session of the questions, then answers with one. */
async function withPassword(ask, secret = password) {
    const asked = await ask(undefined).then(() => null, (error) => error);
    equal([asked?.httpStatus, asked?.data?.flows], [401, [{ stages: ["m.login.password"] }]], "what is asked for");
    return ask({
        type: "m.login.password", identifier: { type: "m.id.user", user: userId }, password: secret,
        session: asked.data.session,
    });
}

/** The end of a session as its client hears of it. */
const ends = (client) => new Promise((resolve) => client.once(sdk.HttpApiEvent.SessionLoggedOut, resolve));
const devices = async (client) =>
    Object.fromEntries((await client.getDevices()).devices.map((device) => [device.device_id, device.display_name]));

export async function sessions() {
    await goodbye(...(await register("grace")));
    const phone = await login("grace", {}, { initial_device_display_name: "phone" });
    const [phoneId] = [phone.getDeviceId()];

    await check("devices are listed and renamed", async () => {
        const laptop = await loginReply("grace", { initial_device_display_name: "laptop" });
        equal(await devices(phone), { [phoneId]: "phone", [laptop.device_id]: "laptop" });
        await phone.setDeviceDetails(laptop.device_id, { display_name: "old laptop" });
        equal((await phone.getDevice(laptop.device_id)).display_name, "old laptop");
        equal(await refusal(phone.getDevice("NOSUCHDEVICE")), "M_NOT_FOUND");
    });
    await check("a device is deleted with the password only, and its session ends", async () => {
        const laptop = await login("grace", {}, { initial_device_display_name: "stolen laptop" });
        const ask = (auth) => phone.deleteDevice(laptop.getDeviceId(), auth);
        const wrong = await withPassword(ask, "a guess").then(() => null, (error) => error);
        equal([wrong?.httpStatus, wrong?.errcode], [401, "M_FORBIDDEN"], "a wrong password");
        await laptop.whoami();
        const ended = ends(laptop);
        await withPassword(ask);
        equal((await ended).errcode, "M_UNKNOWN_TOKEN");
        laptop.stopClient();
        equal(Object.hasOwn(await devices(phone), laptop.getDeviceId()), false, "the device is listed");
    });
    await check("several devices are deleted at once", async () => {
        const others = Object.keys(await devices(phone)).filter((device) => device !== phoneId);
        others.push((await loginReply("grace")).device_id);
        await withPassword((auth) => phone.deleteMultipleDevices(others, auth));
        equal(Object.keys(await devices(phone)), [phoneId]);
    });
    await check("a new password ends the other sessions", async () => {
        const tablet = await login("grace");
        const ended = ends(tablet);
        await withPassword((auth) => phone.setPassword(auth, "a much better password", true));
        equal((await ended).errcode, "M_UNKNOWN_TOKEN");
        tablet.stopClient();
        equal((await phone.whoami()).user_id, userId, "who changed it");
        equal(await refusal(loginReply("grace")), "M_FORBIDDEN", "the old password");
        await loginReply("grace", { password: "a much better password" });
    });
    await check("where it is asked for, a new password leaves the other sessions", async () => {
        const tablet = await login("grace", {}, { password: "a much better password" });
        await withPassword((auth) => phone.setPassword(auth, password, false), "a much better password");
        equal((await tablet.whoami()).user_id, userId);
        await goodbye(tablet);
    });
    await check("a session goes on under a new token, and the old pair ends", async () => {
        const old = await loginReply("grace", { refresh_token: true });
        equal([typeof old.refresh_token, old.expires_in_ms > 0], ["string", true], "what a login gives");
        const client = sdk.createClient({ baseUrl, userId, accessToken: old.access_token, deviceId: old.device_id });
        const renewed = await client.refreshToken(old.refresh_token);
        client.setAccessToken(renewed.access_token);
        equal((await client.whoami()).device_id, old.device_id, "the device");

        const late = sdk.createClient({ baseUrl, userId, accessToken: old.access_token, deviceId: old.device_id });
        equal(await refusal(late.whoami()), "M_UNKNOWN_TOKEN", "the old token");
        equal(await refusal(client.refreshToken(old.refresh_token)), "M_UNKNOWN_TOKEN", "the old refresh token");
        client.setAccessToken((await client.refreshToken(renewed.refresh_token)).access_token);
        await client.logout();
    });
    await check("an account is deactivated, and nobody logs in to it again", async () => {
        const ended = ends(phone);
        await withPassword((auth) => phone.deactivateAccount(auth, true));
        equal((await ended).errcode, "M_UNKNOWN_TOKEN");
        phone.stopClient();
        equal(["M_USER_DEACTIVATED", "M_FORBIDDEN"].includes(await refusal(loginReply("grace"))), true, "a login");
        equal(await refusal(register("grace")), "M_USER_IN_USE", "the name is taken for good");
    });
}
