//! Unread counts, against those of a program that simply counts: messages of others after one's receipt, and those of
//! them that mention one.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    World,
    compare::Found,
    marks::{receipt, receipts},
};

const COUNTS: &str =
    r#"{"presence":{"types":[]},"room":{"timeline":{"limit":1},"ephemeral":{"types":[]},"state":{"types":[]}}}"#;

/// Compares the counts of everybody in every room; `histories` are the rooms' messages, oldest first.
pub(super) async fn compare(world: &World, histories: &[Vec<Found>]) -> Result<Vec<String>> {
    let receipts = receipts(world).await?;
    let mentioned: HashMap<String, usize> = {
        let notes = world.notes();
        notes.attempts.iter().filter_map(|attempt| Some((attempt.body.clone(), attempt.mentions?))).collect()
    };
    let mut violations = Vec::new();
    let everybody = world.senders.iter().enumerate().map(|(number, user)| (Some(number), user));
    for (number, user) in everybody.chain([(None, &world.observer)]) {
        let sync = user.sync(None, COUNTS, Duration::ZERO).await?.ok()?;
        for (room, history) in world.rooms.iter().zip(histories) {
            let shown = &sync["rooms"]["join"][room]["unread_notifications"];
            let shown = (count(shown, "notification_count")?, count(shown, "highlight_count")?);
            let read = receipt(&receipts, room, &user.id);
            let counted = naive(&user.id, number, read.as_deref(), history, &mentioned);
            if shown != counted {
                violations
                    .push(format!("{} in {room}, read up to {read:?}: {shown:?} instead of {counted:?}", user.id));
            }
        }
    }
    Ok(violations)
}

fn count(counts: &Value, key: &str) -> Result<usize> {
    let count = counts[key].as_u64().with_context(|| format!("no {key} in {counts}"))?;
    Ok(usize::try_from(count)?)
}

/// Everybody came before the first message, so who has read nothing has all of them to read.
fn naive(
    user: &str,
    number: Option<usize>,
    read: Option<&str>,
    history: &[Found],
    mentioned: &HashMap<String, usize>,
) -> (usize, usize) {
    let unread = history
        .iter()
        .rev()
        .take_while(|message| read.is_none_or(|read| message.event_id != read))
        .filter(|message| message.sender != user);
    unread.fold((0, 0), |(all, mentions), message| {
        let mentions_me = number.is_some() && mentioned.get(&message.body).copied() == number;
        (all + 1, mentions + usize::from(mentions_me))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_is_simple() {
        let message = |number: u32, sender: &str| Found {
            event_id: format!("${number}"),
            sender: sender.into(),
            body: format!("body {number}"),
        };
        let history = [message(1, "b"), message(2, "a"), message(3, "b"), message(4, "b"), message(5, "a")];
        let mentioned = HashMap::from([("body 1".to_owned(), 0), ("body 4".to_owned(), 0), ("body 3".to_owned(), 1)]);
        assert_eq!(naive("a", Some(0), None, &history, &mentioned), (3, 2));
        assert_eq!(naive("a", Some(0), Some("$2"), &history, &mentioned), (2, 1));
        assert_eq!(naive("a", Some(0), Some("$5"), &history, &mentioned), (0, 0));
        assert_eq!(naive("c", None, Some("$4"), &history, &mentioned), (1, 0));
    }
}
