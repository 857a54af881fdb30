//! Messages from device to device, past all rooms: mostly the keys of encrypted ones.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging>

use std::{collections::BTreeMap, sync::Arc};

use hearth_core::{
    Error, Result,
    clock::Clock,
    ids,
    limits::{MAX_CONTENT_DEPTH, MAX_ID_BYTES, MAX_PDU_BYTES, nests_at_most},
};
use hearth_storage::{
    Storage, Transaction,
    to_device::{Addressed, Bounds, Sending, Sent, Waiting},
};
use ruma::{
    OwnedServerName, api::client::to_device::send_event_to_device::v3::Messages, events::AnyToDeviceEvent, serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use serde::Serialize;
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::session::Session;
use crate::telemetry::name;

/// One message is no larger than an event of a room.
const MAX_CONTENT_BYTES: usize = MAX_PDU_BYTES;
const BOUNDS: Bounds = Bounds {
    // Clients send hundreds at once.
    messages: 2_000,
    // What is for all devices of somebody becomes as many messages.
    bytes: 16 << 20,
    // The keys of months, of a kilobyte or two each.
    waiting: 10_000,
    waiting_bytes: 64 << 20,
};

/// Sends messages to devices.
pub struct ToDevice {
    server_name: OwnedServerName,
    storage: Arc<dyn Storage>,
    clock: Arc<dyn Clock>,
}

impl ToDevice {
    pub fn new(server_name: OwnedServerName, storage: Arc<dyn Storage>, clock: Arc<dyn Clock>) -> Self {
        Self { server_name, storage, clock }
    }

    /// Sends to those of the devices that there are. A repeat of the transaction sends nothing.
    pub async fn send(&self, session: &Session, kind: &str, txn_id: &str, messages: &Messages) -> Result<()> {
        ids::check_transaction_id(txn_id)?;
        if kind.len() > MAX_ID_BYTES || kind.contains('\0') {
            return Err(Error::invalid_param(format!("A type has at most {MAX_ID_BYTES} bytes")));
        }
        if messages.values().map(BTreeMap::len).sum::<usize>() > BOUNDS.messages {
            return Err(too_much());
        }
        // Users of other servers are not reached yet; their messages would go to a queue for their server, here.
        let ours = messages.iter().filter(|(user, _)| user.server_name() == self.server_name);
        let mut addressed = Vec::new();
        for (user, devices) in ours.filter(|(user, _)| !user.as_str().contains('\0')) {
            for (device, content) in devices {
                let device_id = match device {
                    DeviceIdOrAllDevices::AllDevices => None,
                    // No device has such an id.
                    DeviceIdOrAllDevices::DeviceId(id) if ids::check_device_id(id.as_str()).is_err() => continue,
                    DeviceIdOrAllDevices::DeviceId(id) => Some(id.to_string()),
                };
                let content = checked(content.json().get())?.into();
                addressed.push(Addressed { user_id: user.to_string(), device_id, content });
            }
        }
        let transaction = Transaction {
            user_id: session.user_id.to_string(),
            device_id: session.device_id.to_string(),
            txn_id: txn_id.to_owned(),
            scope: format!("sendToDevice {kind}"),
            result: String::new(),
        };
        let now_ms = self.clock.now_ms();
        let sending = Sending { transaction, kind: kind.to_owned(), messages: addressed, bounds: BOUNDS, now_ms };
        match self.storage.send_to_device(sending).await? {
            Sent::Done { dropped } => {
                if dropped > 0 {
                    metrics::counter!(name::TO_DEVICE_DROPPED).increment(dropped);
                }
                Ok(())
            }
            Sent::Again => Ok(()),
            Sent::TooMuch => Err(too_much()),
        }
    }
}

/// What waits for a device, as it is told.
pub fn events(waiting: Vec<Waiting>) -> Result<Vec<Raw<AnyToDeviceEvent>>> {
    #[derive(Serialize)]
    struct Event<'a> {
        sender: &'a str,
        #[serde(rename = "type")]
        kind: &'a str,
        content: Box<RawValue>,
    }
    let event = |Waiting { sender, kind, content, .. }: Waiting| {
        let content = RawValue::from_string(content).map_err(Error::internal)?;
        let event = Event { sender: &sender, kind: &kind, content };
        Ok(Raw::from_json(to_raw_value(&event).map_err(Error::internal)?))
    };
    waiting.into_iter().map(event).collect()
}

fn too_much() -> Error {
    let Bounds { messages, bytes, .. } = BOUNDS;
    Error::too_large(format!("One request is for at most {messages} devices, and for {bytes} bytes in all of them"))
}

/// Written anew, so that what we serve later has no key twice and is no deeper than clients can read.
fn checked(content: &str) -> Result<String> {
    if content.len() > MAX_CONTENT_BYTES {
        return Err(Error::too_large(format!("A message has at most {MAX_CONTENT_BYTES} bytes")));
    }
    match serde_json::from_str::<Value>(content) {
        Ok(value @ Value::Object(_)) if nests_at_most(&value, MAX_CONTENT_DEPTH) => Ok(value.to_string()),
        Ok(Value::Object(_)) => Err(Error::bad_json(format!("A message has at most {MAX_CONTENT_DEPTH} levels"))),
        _ => Err(Error::bad_json("A message is a JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_an_object_of_some_size_and_depth() {
        let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert_eq!(checked("{ \"a\": 1.5, \"a\": [] }").expect("allowed"), "{\"a\":[]}");
        assert!(checked(&nested(MAX_CONTENT_DEPTH)).is_ok());
        for bad in ["[]", "1", "{", &nested(MAX_CONTENT_DEPTH + 1), &nested(1_000)] {
            assert!(checked(bad).is_err(), "{bad}");
        }
        let sized = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n - 8));
        assert!(checked(&sized(MAX_CONTENT_BYTES)).is_ok());
        assert!(checked(&sized(MAX_CONTENT_BYTES + 1)).is_err());
    }
}
