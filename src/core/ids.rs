//! Identifiers that clients choose, and those that we make.
//!
//! <https://spec.matrix.org/v1.19/appendices/#identifier-grammar>

use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};

use crate::{
    Error, Kind, Result,
    clock::{Rng, random_string},
    limits::{MAX_DEVICE_ID_BYTES, MAX_ID_BYTES, MAX_TRANSACTION_ID_BYTES},
};

/// The id of a new user of this server. Capitals are made small, since a user will not remember which they chose; all else
/// must fit the grammar as it stands today.
///
/// <https://spec.matrix.org/v1.19/appendices/#user-identifiers>
pub fn new_user_id(localpart: &str, server_name: &ServerName) -> Result<OwnedUserId> {
    let invalid = |why: &'static str| Error::new(Kind::InvalidUsername, why);
    let localpart = localpart.to_ascii_lowercase();
    let fits = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'=' | b'-' | b'/' | b'+');
    if localpart.is_empty() {
        return Err(invalid("A user name can't be empty"));
    }
    if !localpart.bytes().all(fits) {
        return Err(invalid("A user name consists of the letters a to z, digits and ._=-/+"));
    }
    let user_id = format!("@{localpart}:{server_name}");
    if user_id.len() > MAX_ID_BYTES {
        return Err(invalid("The user name is too long"));
    }
    UserId::parse(user_id).map_err(|_| invalid("This is not a valid user name"))
}

/// The id of a user who is said to exist, from either the localpart or the whole id. Names of older servers, with other
/// characters than are allowed today, are accepted.
///
/// <https://spec.matrix.org/v1.19/appendices/#historical-user-ids>
pub fn existing_user_id(user: &str, server_name: &ServerName) -> Result<OwnedUserId> {
    let parsed =
        if user.starts_with('@') { UserId::parse(user) } else { UserId::parse(format!("@{user}:{server_name}")) };
    let user_id = parsed.ok().filter(|id| id.as_str().len() <= MAX_ID_BYTES);
    user_id.ok_or_else(|| Error::invalid_param("This is not a user id"))
}

/// The id of a new room whose version doesn't name it after its create event.
///
/// <https://spec.matrix.org/v1.19/appendices/#room-ids>
pub fn new_room_id(rng: &dyn Rng, server_name: &ServerName) -> Result<OwnedRoomId> {
    RoomId::parse(format!("!{}:{server_name}", random_string(rng, 18))).map_err(Error::internal)
}

/// The id of a device for a client that doesn't choose one.
pub fn new_device_id(rng: &dyn Rng) -> OwnedDeviceId {
    random_string(rng, 10).to_ascii_uppercase().into()
}

/// A device id that a client chose.
pub fn check_device_id(device_id: &str) -> Result<()> {
    check("device id", device_id, MAX_DEVICE_ID_BYTES)
}

/// A transaction id that a client chose.
pub fn check_transaction_id(txn_id: &str) -> Result<()> {
    check("transaction id", txn_id, MAX_TRANSACTION_ID_BYTES)
}

fn check(what: &str, value: &str, max: usize) -> Result<()> {
    if value.is_empty() || value.len() > max || value.chars().any(char::is_control) {
        return Err(Error::invalid_param(format!("A {what} has 1 to {max} bytes and no control characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ruma::server_name;

    use super::*;
    use crate::clock::SeededRng;

    #[test]
    fn names_of_new_users() {
        let server = server_name!("example.org");
        for (name, id) in [
            ("alice", "@alice:example.org"),
            ("Alice-UPPER", "@alice-upper:example.org"),
            ("a.b_c=d-e/f+0", "@a.b_c=d-e/f+0:example.org"),
            ("_bridge_1", "@_bridge_1:example.org"),
        ] {
            assert_eq!(new_user_id(name, server).expect(name), id);
        }
        let longest = "a".repeat(255 - "@:example.org".len());
        assert_eq!(new_user_id(&longest, server).expect("fits").as_str().len(), 255);
        let too_long = format!("{longest}a");
        for name in ["", "al ice", "alice!", "älice", "a:b", "@alice", "a\0", &too_long] {
            match new_user_id(name, server) {
                Err(Error::Matrix { kind: Kind::InvalidUsername, .. }) => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn names_of_users_who_exist() {
        let server = server_name!("example.org");
        for (name, id) in [
            ("alice", "@alice:example.org"),
            ("Alice!", "@Alice!:example.org"),
            ("@Bob:elsewhere.org", "@Bob:elsewhere.org"),
        ] {
            assert_eq!(existing_user_id(name, server).expect(name), id);
        }
        for name in ["@alice", "a b:c", "@a:b c", &"a".repeat(250)] {
            match existing_user_id(name, server) {
                Err(Error::Matrix { kind: Kind::InvalidParam, .. }) => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn ids_that_we_make() {
        let rng = SeededRng::new(1);
        let server = server_name!("example.org");
        let room = new_room_id(&rng, server).expect("a room id");
        let localpart = room.as_str().strip_prefix('!').and_then(|id| id.strip_suffix(":example.org")).expect("parts");
        assert!(localpart.len() == 18 && localpart.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(new_room_id(&rng, server).expect("a room id"), room);
        let device = new_device_id(&rng);
        assert!(device.as_str().len() == 10 && check_device_id(device.as_str()).is_ok());
        assert!(device.as_str().bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
    }

    #[test]
    fn ids_that_clients_choose() {
        assert!(check_transaction_id("m1234.5").is_ok() && check_device_id("Mein Gerät").is_ok());
        assert!(check_transaction_id(&"a".repeat(255)).is_ok());
        for id in ["", "a\0", "a\n", &"a".repeat(256)] {
            assert!(check_transaction_id(id).is_err() && check_device_id(id).is_err(), "{id:?}");
        }
    }
}
