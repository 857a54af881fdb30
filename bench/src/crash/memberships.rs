//! Who is in the lobby: senders come and go, and after a kill nobody is where they were before.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::{World, compare::page_back, marks::Mark};
use crate::{http::Reply, matrix::segment};

/// Who is in goes, who is out comes.
pub(super) fn next(world: &World, mark: Mark) -> &'static str {
    match world.notes().marks.get(&mark).and_then(|written| written.acknowledged.as_deref()) {
        Some("join") => "leave",
        _ => "join",
    }
}

pub(super) async fn write(world: &World, sender: usize, membership: &str) -> Result<Reply> {
    let (user, lobby) = (&world.senders[sender], segment(&world.lobby));
    let reply =
        user.call(Method::POST, &format!("/_matrix/client/v3/rooms/{lobby}/{membership}"), Some(&json!({}))).await?;
    if membership != "leave" || reply.status != StatusCode::FORBIDDEN {
        return Ok(reply);
    }
    // Nobody leaves twice. If an attempt without an answer did it, the room says so to who has left.
    let path = format!("/_matrix/client/v3/rooms/{lobby}/state/m.room.member/{}", segment(&user.id));
    let state = user.call(Method::GET, &path, None).await?;
    let has_left = state.status.is_success() && state.json()?["membership"] == "leave";
    Ok(if has_left { state } else { reply })
}

/// What the lobby says of its members.
pub(super) async fn present(world: &World) -> Result<HashMap<String, String>> {
    let path = format!("/_matrix/client/v3/rooms/{}/members", segment(&world.lobby));
    let reply = world.observer.call(Method::GET, &path, None).await?.ok()?;
    let members = reply["chunk"].as_array().context("no chunk")?;
    Ok(members.iter().filter_map(change).collect())
}

/// Whose membership an event is, and what it is.
fn change(event: &Value) -> Option<(String, String)> {
    (event["type"] == "m.room.member").then_some(())?;
    Some((event["state_key"].as_str()?.to_owned(), event["content"]["membership"].as_str()?.to_owned()))
}

/// The membership of a sender; the room and the sender have to agree on it.
pub(super) async fn of(
    world: &World,
    sender: usize,
    present: &HashMap<String, String>,
) -> Result<(Option<String>, Option<String>)> {
    let user = &world.senders[sender];
    let found = present.get(&user.id).cloned();
    let joined = user.call(Method::GET, "/_matrix/client/v3/joined_rooms", None).await?.ok()?;
    let joined: HashSet<&str> =
        joined["joined_rooms"].as_array().context("no rooms")?.iter().filter_map(Value::as_str).collect();
    let is_in = joined.contains(&*world.lobby);
    let violation = (is_in != (found.as_deref() == Some("join")))
        .then(|| format!("{} is {found:?} in the lobby, and by their own account in it: {is_in}", user.id));
    Ok((found, violation))
}

/// The lobby's whole history: each sender comes and goes by turns, as often as was acknowledged or at most attempted.
pub(super) async fn compare(world: &World) -> Result<Vec<String>> {
    let mut changes: Vec<(String, String)> = Vec::new();
    page_back(&world.observer, &world.lobby, |chunk| changes.extend(chunk.iter().filter_map(change))).await?;
    changes.reverse();
    let marks = world.notes().marks.clone();
    let mut violations = Vec::new();
    for (number, sender) in world.senders.iter().enumerate() {
        let Some(written) = marks.get(&Mark::Membership { sender: number }) else { continue };
        let told: Vec<&str> =
            changes.iter().filter(|(who, _)| *who == sender.id).map(|(_, what)| what.as_str()).collect();
        violations.extend(judge(&sender.id, &told, written.acknowledgements, written.attempts));
    }
    Ok(violations)
}

fn judge(who: &str, told: &[&str], acknowledged: usize, attempted: usize) -> Vec<String> {
    let mut violations = Vec::new();
    let turns = ["join", "leave"].into_iter().cycle();
    if let Some(at) = told.iter().zip(turns).position(|(is, wants)| *is != wants) {
        violations.push(format!("{who}: change {at} of {} is a second {}", told.len(), told[at]));
    }
    if !(acknowledged..=attempted).contains(&told.len()) {
        violations.push(format!("{who}: {} changes, of {attempted} tried and {acknowledged} acknowledged", told.len()));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn what_is_lost_or_doubled_is_seen() {
        let told = ["join", "leave", "join"];
        assert!(judge("a", &told, 3, 3).is_empty());
        assert!(judge("a", &told, 2, 4).is_empty(), "one without an answer is there, one isn't");
        assert_eq!(judge("a", &told, 4, 4).len(), 1, "lost");
        assert_eq!(judge("a", &told, 2, 2).len(), 1, "nobody tried");
        assert_eq!(judge("a", &["join", "join", "leave"], 3, 3).len(), 1, "doubled");
    }
}
