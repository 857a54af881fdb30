//! What is there, compared with what was noted.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Attempt, FILTER, World};
use crate::matrix::{User, text};

/// A message as a server tells it.
pub(super) struct Found {
    pub(super) event_id: String,
    pub(super) sender: String,
    pub(super) body: String,
}

fn messages(events: &[Value]) -> Vec<Found> {
    let field = |event: &Value, pointer| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    events
        .iter()
        .filter(|event| event.get("type").and_then(Value::as_str) == Some("m.room.message"))
        .map(|event| Found {
            event_id: field(event, "/event_id"),
            sender: field(event, "/sender"),
            body: field(event, "/content/body"),
        })
        .collect()
}

/// Compares what is found in one room, oldest first, with those of the noted attempts that belong there.
fn compare(senders: &[User], room: usize, attempts: &[Attempt], found: &[Found]) -> Vec<String> {
    let mut violations = Vec::new();
    let sent: HashMap<&str, &Attempt> = attempts
        .iter()
        .filter(|attempt| attempt.room == room)
        .map(|attempt| (attempt.body.as_str(), attempt))
        .collect();
    let mut bodies = HashSet::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    for message in found {
        let Some(attempt) = sent.get(message.body.as_str()) else {
            violations.push(format!("{} in room {room} was never sent there: {}", message.event_id, message.body));
            continue;
        };
        if !bodies.insert(message.body.as_str()) {
            violations.push(format!("{} is there twice, once as {}", attempt.txn, message.event_id));
            continue;
        }
        if attempt.event_id.as_ref().is_some_and(|known| *known != message.event_id) {
            violations.push(format!("{} was acknowledged under another id than {}", attempt.txn, message.event_id));
        }
        if message.sender != senders[attempt.sender].id {
            violations.push(format!("{} has the sender {}", attempt.txn, message.sender));
        }
        let before = last.insert(message.sender.as_str(), attempt.number);
        if before.is_some_and(|before| before > attempt.number) {
            violations.push(format!("{} comes after a later message of its sender", attempt.txn));
        }
    }
    for attempt in attempts.iter().filter(|attempt| attempt.room == room) {
        if attempt.event_id.is_some() && !bodies.contains(attempt.body.as_str()) {
            violations.push(format!("{} was acknowledged and is lost", attempt.txn));
        }
    }
    violations
}

/// Every room from its end to its beginning: its messages, oldest first, and the violations.
pub(super) async fn compare_history(world: &World) -> Result<(Vec<Vec<Found>>, Vec<String>)> {
    let attempts = world.notes().attempts.clone();
    let mut violations = Vec::new();
    let mut histories = Vec::new();
    for (number, room) in world.rooms.iter().enumerate() {
        let mut found = Vec::new();
        let began = page_back(&world.observer, room, |chunk| found.extend(messages(chunk))).await?;
        if !began {
            violations.push(format!("paging room {number} ended before its beginning"));
        }
        found.reverse();
        violations.extend(compare(&world.senders, number, &attempts, &found));
        histories.push(found);
    }
    Ok((histories, violations))
}

/// Hands over all pages of a room, newest first; whether they reached its beginning.
pub(super) async fn page_back(reader: &User, room: &str, mut take: impl FnMut(&[Value])) -> Result<bool> {
    let mut from: Option<String> = None;
    let mut began = false;
    for _ in 0..100_000 {
        let page = reader.messages(room, from.as_deref()).await?;
        let chunk = page["chunk"].as_array().context("no chunk")?;
        take(chunk);
        began |= chunk.iter().any(|event| event["type"] == "m.room.create");
        let end = page.get("end").and_then(Value::as_str).map(str::to_owned);
        // Some servers answer a last page that is empty, some leave its `end` out.
        if end.is_none() || chunk.is_empty() || end == from {
            break;
        }
        from = end;
    }
    Ok(began)
}

/// Syncs from `since` until nothing more comes, closing the gaps of limited timelines; the new token and the violations.
pub(super) async fn compare_sync(
    world: &World,
    since: &str,
    first: usize,
    seen: &mut HashSet<String>,
) -> Result<(String, Vec<String>)> {
    let attempts = world.notes().attempts[first..].to_vec();
    let mut since = since.to_owned();
    let mut violations = Vec::new();
    let mut found: Vec<Vec<Found>> = world.rooms.iter().map(|_| Vec::new()).collect();
    for _ in 0..1000 {
        let reply = world.observer.sync(Some(&since), FILTER, Duration::ZERO).await?.ok()?;
        let next = text(&reply, "next_batch")?;
        let mut news = false;
        for (number, room) in world.rooms.iter().enumerate() {
            let timeline = &reply["rooms"]["join"][room]["timeline"];
            let Some(events) = timeline["events"].as_array() else { continue };
            let mut part = messages(events);
            news |= !part.is_empty();
            if timeline["limited"] == true {
                part = fill_gap(world, room, timeline, part, seen).await?;
            }
            found[number].extend(part);
        }
        since = next;
        if !news {
            break;
        }
    }
    for (number, found) in found.iter().enumerate() {
        for message in found {
            if !seen.insert(message.event_id.clone()) {
                violations.push(format!("{} came in a sync for the second time", message.event_id));
            }
        }
        violations.extend(compare(&world.senders, number, &attempts, found));
    }
    Ok((since, violations))
}

/// Pages back from a limited timeline until something that an earlier sync has shown.
async fn fill_gap(
    world: &World,
    room: &str,
    timeline: &Value,
    part: Vec<Found>,
    seen: &HashSet<String>,
) -> Result<Vec<Found>> {
    let mut newest_first: Vec<Found> = part.into_iter().rev().collect();
    let mut from = text(timeline, "prev_batch")?;
    'pages: for _ in 0..10_000 {
        let page = world.observer.messages(room, Some(&from)).await?;
        let chunk = page["chunk"].as_array().context("no chunk")?;
        for message in messages(chunk) {
            if seen.contains(&message.event_id) {
                break 'pages;
            }
            newest_first.push(message);
        }
        match page.get("end").and_then(Value::as_str) {
            Some(end) if !chunk.is_empty() && end != from => end.clone_into(&mut from),
            _ => break,
        }
    }
    newest_first.reverse();
    Ok(newest_first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Http;

    fn attempt(number: u64, event_id: Option<&str>) -> Attempt {
        let name = format!("n{number}");
        let event_id = event_id.map(str::to_owned);
        Attempt { sender: 0, room: 0, number, txn: name.clone(), body: name, mentions: None, event_id }
    }

    fn found(number: u64) -> Found {
        Found { event_id: format!("$e{number}"), sender: "@s:localhost".into(), body: format!("n{number}") }
    }

    fn judge(attempts: &[Attempt], found: &[Found]) -> Vec<String> {
        let http = Http::new("http://127.0.0.1:1").expect("a loopback address");
        let sender = User { http, id: "@s:localhost".into(), token: String::new() };
        compare(&[sender], 0, attempts, found)
    }

    #[test]
    fn every_kind_of_damage_is_seen() {
        let sent = [attempt(1, Some("$e1")), attempt(2, Some("$e2")), attempt(3, None)];
        assert!(judge(&sent, &[found(1), found(2)]).is_empty(), "the unacknowledged one may be missing");
        assert!(judge(&sent, &[found(1), found(2), found(3)]).is_empty(), "or be there");
        let one = |violations: Vec<String>, text: &str| {
            assert_eq!(violations.len(), 1, "{violations:?}");
            assert!(violations[0].contains(text), "{violations:?}");
        };
        one(judge(&sent, &[found(1)]), "is lost");
        one(judge(&sent, &[found(1), found(2), found(3), found(3)]), "is there twice");
        one(judge(&sent, &[found(2), found(1)]), "after a later message");
        one(judge(&sent, &[found(1), found(2), found(4)]), "was never sent");
        one(judge(&sent, &[found(1), Found { event_id: "$other".into(), ..found(2) }]), "under another id");
        one(judge(&sent, &[found(1), Found { sender: "@t:localhost".into(), ..found(2) }]), "has the sender");
    }
}
