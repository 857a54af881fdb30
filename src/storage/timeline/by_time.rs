//! Finding a moment in a room's timeline.

use serde::Deserialize;

use super::paging::{Boundary, Direction};
use crate::{
    Result,
    error::corrupt,
    tx::{Query, Reads, args, statements},
};

statements! {
    LAST = "SELECT last_pos FROM rooms WHERE room_sn = $1";
    FIRST_FROM = "SELECT json FROM events WHERE room_sn = $1 AND status = 0 AND topo >= $2
        ORDER BY topo, topo_minor LIMIT 1";
}

/// Where a room's timeline passes a moment.
pub(super) struct ByTime {
    pub(super) room_sn: i64,
    pub(super) ts: i64,
    pub(super) direction: Direction,
}

impl Query for ByTime {
    const NAME: &'static str = "by_time";
    type Out = Boundary;

    /// Halves the timeline until the place is found: times grow along it, but for clocks that were set back.
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Boundary> {
        let last: i64 = match tx.query_opt(LAST, args![self.room_sn]).await? {
            Some(mut row) => row.get(0)?,
            None => 0,
        };
        let (mut low, mut high) = (0, last.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            let is_later = match tx.query_opt(FIRST_FROM, args![self.room_sn, middle]).await? {
                None => true,
                Some(mut row) => {
                    let sent = sent_at(&row.get::<String>(0)?)?;
                    if self.direction == Direction::Forward { sent >= self.ts } else { sent > self.ts }
                }
            };
            if is_later {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok((low, i64::MIN))
    }
}

fn sent_at(json: &str) -> Result<i64> {
    #[derive(Deserialize)]
    struct Event {
        origin_server_ts: i64,
    }
    Ok(serde_json::from_str::<Event>(json).map_err(corrupt)?.origin_server_ts)
}
