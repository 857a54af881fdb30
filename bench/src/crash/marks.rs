//! What is no message and has to last all the same: how far somebody has read, what an account keeps, who is in a room.
//!
//! Each is a place where the last write wins. After a kill, a place has to hold what was acknowledged last, or what was
//! sent after that and not answered.

use anyhow::Result;
use hyper::Method;
use serde_json::{Value, json};

use super::{World, memberships};
use crate::{
    http::Reply,
    matrix::{segment, text},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mark {
    Receipt {
        sender: usize,
        room: usize,
    },
    AccountData {
        sender: usize,
    },
    /// In the lobby.
    Membership {
        sender: usize,
    },
}

#[derive(Default, Clone)]
pub(super) struct Written {
    pub(super) attempted: Option<String>,
    pub(super) acknowledged: Option<String>,
    pub(super) attempts: usize,
    pub(super) acknowledgements: usize,
}

const KIND: &str = "org.example.bench";
const RECEIPTS: &str =
    r#"{"presence":{"types":[]},"room":{"timeline":{"limit":1},"ephemeral":{"types":["m.receipt"]}}}"#;

impl Mark {
    pub(super) async fn write(self, world: &World, value: &str) -> Result<Reply> {
        match self {
            Self::Receipt { sender, room } => {
                let room = segment(&world.rooms[room]);
                let path = format!("/_matrix/client/v3/rooms/{room}/receipt/m.read/{}", segment(value));
                world.senders[sender].call(Method::POST, &path, Some(&json!({}))).await
            }
            Self::AccountData { sender } => {
                world.senders[sender]
                    .call(Method::PUT, &account_data(world, sender), Some(&json!({"value": value})))
                    .await
            }
            Self::Membership { sender } => memberships::write(world, sender, value).await,
        }
    }
}

fn account_data(world: &World, sender: usize) -> String {
    format!("/_matrix/client/v3/user/{}/account_data/{KIND}", segment(&world.senders[sender].id))
}

/// Looks at every place that was written to.
pub(super) async fn compare(world: &World) -> Result<Vec<String>> {
    let marks = world.notes().marks.clone();
    let sync = receipts(world).await?;
    let present = memberships::present(world).await?;
    let mut violations = Vec::new();
    for (mark, written) in marks {
        let found = match mark {
            Mark::Receipt { sender, room } => receipt(&sync, &world.rooms[room], &world.senders[sender].id),
            Mark::AccountData { sender } => {
                let reply = world.senders[sender].call(Method::GET, &account_data(world, sender), None).await?;
                // Not found is an answer too, and right before the first write that was acknowledged.
                if reply.status.is_success() { Some(text(&reply.json()?, "value")?) } else { None }
            }
            Mark::Membership { sender } => {
                let (found, violation) = memberships::of(world, sender, &present).await?;
                violations.extend(violation);
                found
            }
        };
        if found != written.acknowledged && found != written.attempted {
            violations.push(format!("{mark:?} is {found:?}, acknowledged was {:?}", written.acknowledged));
        }
        // What was not acknowledged and is there has to stay, as has what is not there.
        let settled = Written { attempted: found.clone(), acknowledged: found, ..written };
        world.notes().marks.insert(mark, settled);
    }
    Ok(violations)
}

/// What shows the receipts of all.
pub(super) async fn receipts(world: &World) -> Result<Value> {
    world.observer.sync(None, RECEIPTS, std::time::Duration::ZERO).await?.ok()
}

/// The event up to which the user has read, in a sync of somebody else.
pub(super) fn receipt(sync: &Value, room: &str, user: &str) -> Option<String> {
    sync["rooms"]["join"][room]["ephemeral"]["events"]
        .as_array()?
        .iter()
        .filter(|event| event["type"] == "m.receipt")
        .flat_map(|event| event["content"].as_object().into_iter().flatten())
        .find(|(_, kinds)| kinds["m.read"].get(user).is_some())
        .map(|(event_id, _)| event_id.clone())
}
