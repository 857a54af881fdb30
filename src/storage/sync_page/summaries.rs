//! What a client needs to call a room something: how many are in it, and if it has no name, some of them.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use crate::{
    Result,
    error::corrupt,
    tx::{Reads, args, statements},
};

statements! {
    NAMES = "SELECT c.room_sn, e.json FROM current_state c JOIN events e ON e.sn = c.event_sn
        WHERE c.room_sn = ANY($1) AND c.state_key = '' AND c.type = ANY($2)";
    // Those who came first, by the first changes of memberships in each room: however many are in it, few are looked at.
    FIRST_MEMBERS = "WITH w AS MATERIALIZED (
            SELECT r.room_sn, COALESCE((
                SELECT b.pos FROM current_state_delta b WHERE b.room_sn = r.room_sn AND b.type = 'm.room.member'
                ORDER BY b.pos LIMIT 1 OFFSET 63
            ), $2) AS top
            FROM rooms r WHERE r.room_sn = ANY($1)
        )
        SELECT m.room_sn, m.user_id, m.membership, m.event_sn, MIN(d.pos)
        FROM w JOIN current_state_delta d ON d.room_sn = w.room_sn AND d.pos <= w.top AND d.type = 'm.room.member'
            JOIN memberships m ON m.user_id = d.state_key AND m.room_sn = d.room_sn
        GROUP BY m.room_sn, m.user_id, m.membership, m.event_sn ORDER BY MIN(d.pos)";
    SOME_MEMBERS = "SELECT room_sn, user_id, event_sn FROM memberships WHERE room_sn = $1 AND membership = $2 LIMIT 6";
}

/// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary>
const HEROES: usize = 5;

/// Some other members of a room, with their membership events.
pub(super) type Heroes = Vec<(String, i64)>;

/// Those whom a client may call each of these rooms after (by number, and how many are in it or invited), if it has no
/// name. Never the user.
pub(super) async fn read_heroes<R: Reads>(
    tx: &mut R,
    rooms: &[(i64, i64)],
    user_id: &str,
) -> Result<HashMap<i64, Heroes>> {
    let mut heroes: HashMap<i64, Heroes> = rooms.iter().map(|(sn, _)| (*sn, Heroes::new())).collect();
    if rooms.is_empty() {
        return Ok(heroes);
    }
    let all: Vec<i64> = rooms.iter().map(|(sn, _)| *sn).collect();
    let types = ["m.room.name", "m.room.canonical_alias"].map(str::to_owned).to_vec();
    let mut named = HashSet::new();
    for mut row in tx.query(NAMES, args![all, types]).await? {
        if has_name(&row.get::<String>(1)?)? {
            named.insert(row.get::<i64>(0)?);
        }
    }
    let unnamed: Vec<(i64, i64)> = rooms.iter().filter(|(sn, _)| !named.contains(sn)).copied().collect();
    if unnamed.is_empty() {
        return Ok(heroes);
    }
    let sns: Vec<i64> = unnamed.iter().map(|(sn, _)| *sn).collect();
    let mut gone = HashMap::<i64, Heroes>::new();
    for mut row in tx.query(FIRST_MEMBERS, args![sns, i64::MAX]).await? {
        let room_sn: i64 = row.get(0)?;
        let (user, membership, event_sn): (String, String, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
        if user == user_id {
            continue;
        }
        let list = match membership.as_str() {
            "join" | "invite" => heroes.entry(room_sn).or_default(),
            "leave" | "ban" => gone.entry(room_sn).or_default(),
            _ => continue,
        };
        if list.len() < HEROES {
            list.push((user, event_sn));
        }
    }
    // Where most of those who came first are gone.
    let lacking = |(sn, members): &&(i64, i64)| {
        let others = usize::try_from(members - 1).unwrap_or_default();
        heroes.get(sn).map_or(0, Vec::len) < others.min(HEROES)
    };
    let some = |(sn, _): &(i64, i64)| ["join", "invite"].map(|membership| args![*sn, membership].to_vec());
    let asked: Vec<_> = unnamed.iter().filter(lacking).flat_map(some).collect();
    for mut row in tx.query_each(SOME_MEMBERS, &asked).await?.into_iter().flatten() {
        let (room_sn, user, event_sn): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let list = heroes.entry(room_sn).or_default();
        if list.len() < HEROES && user != user_id && list.iter().all(|(hero, _)| *hero != user) {
            list.push((user, event_sn));
        }
    }
    for (sn, gone) in gone {
        let list = heroes.entry(sn).or_default();
        if list.is_empty() {
            *list = gone;
        }
    }
    Ok(heroes)
}

/// Whether an `m.room.name` or `m.room.canonical_alias` event gives a name.
fn has_name(json: &str) -> Result<bool> {
    #[derive(Deserialize)]
    struct Event {
        content: serde_json::Value,
    }
    let event: Event = serde_json::from_str(json).map_err(corrupt)?;
    let says = |key: &str| event.content.get(key).and_then(|v| v.as_str()).is_some_and(|name| !name.is_empty());
    Ok(says("name") || says("alias"))
}
