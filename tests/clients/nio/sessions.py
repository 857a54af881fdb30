"""One person's sessions: who lists, renames and ends them."""

from nio import DeleteDevicesAuthResponse

from kit import PASSWORD, check, equal, good, refusal, register, session


async def devices(client):
    # nio's own `devices` wants fields that the specification lets a server leave out.
    reply = await client.send("GET", "/_matrix/client/v3/devices", headers={"Authorization": f"Bearer {client.access_token}"})
    return {device["device_id"]: device.get("display_name") for device in (await reply.json())["devices"]}


def proof(asked, password):
    return {
        "type": "m.login.password", "identifier": {"type": "m.id.user", "user": "grace_n"}, "password": password,
        "session": asked.session,
    }


async def sessions():
    await register("grace_n")
    async with session("grace_n", device_name="phone") as phone, session("grace_n", device_name="laptop") as laptop:
        # What registered is a device too.
        others = [device for device in await devices(phone) if device != phone.device_id]
        async with check("devices are listed and renamed"):
            listed = await devices(phone)
            equal((listed[phone.device_id], listed[laptop.device_id], len(listed)), ("phone", "laptop", 3))
            good(await phone.update_device(laptop.device_id, {"display_name": "old laptop"}))
            equal((await devices(laptop))[laptop.device_id], "old laptop")
            equal(refusal(await phone.update_device("NOSUCHDEVICE", {"display_name": "x"})), "M_NOT_FOUND")
        async with check("devices are deleted with the password only"):
            asked = await phone.delete_devices(others)
            equal((type(asked), asked.flows), (DeleteDevicesAuthResponse, [{"stages": ["m.login.password"]}]))
            # A wrong password is asked for again.
            again = await phone.delete_devices(others, proof(asked, "a guess"))
            equal(type(again), DeleteDevicesAuthResponse)
            equal(len(await devices(phone)), 3)
            good(await phone.delete_devices(others, proof(asked, PASSWORD)))
            equal(list(await devices(phone)), [phone.device_id])
        async with check("a deleted device is logged out, and a logout deletes its device"):
            equal(refusal(await laptop.whoami()), "M_UNKNOWN_TOKEN")
            good(await phone.logout())
            async with session("grace_n") as again:
                equal(list(await devices(again)), [again.device_id])
        async with check("a logout of all sessions ends them all"):
            async with session("grace_n") as one, session("grace_n") as other:
                good(await one.logout(all_devices=True))
                equal(refusal(await other.whoami()), "M_UNKNOWN_TOKEN")
