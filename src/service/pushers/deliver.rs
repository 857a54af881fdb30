//! Telling pushers what is new to their owners, one after another in the order of the stream.

use std::{sync::Arc, time::Instant};

use hearth_core::{Error, Result, clock::Clock};
use hearth_storage::{
    Storage,
    pushers::{Held, NewsOf, Step},
};
use ruma::OwnedUserId;

use super::{
    Body,
    gateway::{Notification, Sent, Told, send},
    judge::{Owner, judge},
};
use crate::{
    config::BadgeCounts,
    http_client::HttpClient,
    service::{push_rules::PushRules, rooms::Rooms},
    shutdown::Shutdown,
    telemetry::name,
};

/// How long a pusher is held without a sign of life: longer than a gateway may take.
const LEASE_MS: i64 = 60_000;
const FIRST_BACK_OFF_MS: i64 = 1_000;
const LONGEST_BACK_OFF_MS: i64 = 3_600_000;
/// What is older is no news: nobody wants to find a week's messages on their phone when its gateway is back.
const OLD_MS: i64 = 24 * 60 * 60 * 1000;

/// Does the work of pushers.
pub struct Deliveries {
    pub storage: Arc<dyn Storage>,
    pub clock: Arc<dyn Clock>,
    pub rooms: Arc<Rooms>,
    pub push_rules: Arc<PushRules>,
    pub http: HttpClient,
    pub badge_counts: BadgeCounts,
    pub shutdown: Shutdown,
}

impl Deliveries {
    /// Takes up to `limit` pushers that have something to look at. `owner` is to be a new name each time.
    pub async fn take(&self, owner: &str, limit: usize) -> Result<Vec<Held>> {
        let now = self.clock.now_ms();
        // A look costs nothing, and mostly there is nothing to take.
        if !self.storage.any_pusher_due(now).await? {
            return Ok(Vec::new());
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        Ok(self.storage.lease_pushers(owner, now, now + LEASE_MS, limit).await?)
    }

    /// Tells the pusher all that is new, until there is no more or it has to wait. `held` is where it is then.
    pub async fn deliver(&self, held: &mut Held, owner: &str) -> Result<()> {
        let user: OwnedUserId = held.user_id.as_str().try_into().map_err(Error::internal)?;
        let body = Body::parse(&held.body)?;
        let rules = self.push_rules.compiled(&user).await?;
        let them = Owner { user: &user, rules: &rules };
        loop {
            let news = self.storage.news_of(&held.user_id, held.done_pos).await?;
            if !self.tell(held, owner, &body, &them, &news).await? {
                return Ok(());
            }
            held.done_pos = news.up_to;
            if !self.step(held, owner, news.more).await? || !news.more {
                return Ok(());
            }
        }
    }

    /// Others of its user are being told: it waits a little.
    pub async fn not_yet(&self, held: &Held, owner: &str) -> Result<()> {
        self.wait(held, owner, FIRST_BACK_OFF_MS).await
    }

    /// It could not be told: it is tried again, later each time.
    pub async fn postpone(&self, held: &mut Held, owner: &str) -> Result<()> {
        let times = u32::try_from(held.failures).unwrap_or(u32::MAX).min(20);
        let wait = FIRST_BACK_OFF_MS.saturating_mul(1 << times).min(LONGEST_BACK_OFF_MS);
        held.failures = held.failures.saturating_add(1);
        self.wait(held, owner, wait).await
    }

    async fn wait(&self, held: &Held, owner: &str, wait_ms: i64) -> Result<()> {
        let due_ms = self.clock.now_ms().saturating_add(wait_ms);
        let Held { done_pos, badge, failures, .. } = *held;
        let step = Step { done_pos, badge, failures, due_ms, until_ms: 0 };
        self.storage.step_pusher(&held.pusher_id, owner, step).await?;
        Ok(())
    }

    /// False: it can't go on.
    async fn tell(&self, held: &mut Held, owner: &str, body: &Body, them: &Owner<'_>, news: &NewsOf) -> Result<bool> {
        let mut unread = None;
        let oldest = self.clock.now_ms() - OLD_MS;
        for event in &news.events {
            let Some(row) = news.rooms.get(&event.room_sn) else { continue };
            let Some(judged) = judge(&self.rooms, them, row, event, &news.state).await? else { continue };
            if i64::from(judged.pdu.origin_server_ts.0) < oldest {
                continue;
            }
            let badge = match unread {
                Some(known) => known,
                None => *unread.insert(self.unread(&held.user_id).await?),
            };
            let told = Told { judged: &judged, room_sn: row.room_sn, state: &news.state, user: them.user };
            let sent = self.send(body, Notification::of_event(held, body, badge, &told)).await?;
            if !self.settle(held, owner, sent, event.topo, badge).await? {
                return Ok(false);
            }
        }
        if held.badge > 0 {
            let badge = match unread {
                Some(known) => known,
                None => self.unread(&held.user_id).await?,
            };
            if badge < held.badge {
                let sent = self.send(body, Notification::of_badge(held, body, badge)).await?;
                return self.settle(held, owner, sent, held.done_pos, badge).await;
            }
        }
        Ok(true)
    }

    /// No gateway is waited for when the server stops; what it has taken is written down.
    async fn send(&self, body: &Body, notification: Notification<'_>) -> Result<Sent> {
        if self.shutdown.is_said() {
            return Ok(Sent::Stopped);
        }
        let start = Instant::now();
        let sent = tokio::select! {
            sent = send(&self.http, body, notification) => sent?,
            () = self.shutdown.said() => return Ok(Sent::Stopped),
        };
        metrics::histogram!(name::PUSH_DURATION).record(start.elapsed());
        metrics::counter!(name::PUSHES, "outcome" => sent.outcome()).increment(1);
        Ok(sent)
    }

    /// Writes down what became of a notification. False: the pusher can't go on.
    async fn settle(&self, held: &mut Held, owner: &str, sent: Sent, pos: i64, badge: i64) -> Result<bool> {
        match sent {
            Sent::Taken => {
                (held.done_pos, held.badge, held.failures) = (pos, badge, 0);
                self.step(held, owner, true).await
            }
            Sent::Rejected => {
                tracing::debug!(user_id = held.user_id, app_id = held.app_id, "a gateway rejects a pushkey");
                self.storage.reject_pusher(&held.pusher_id, held.set_ms).await?;
                Ok(false)
            }
            Sent::Stopped => {
                self.step(held, owner, false).await?;
                Ok(false)
            }
            Sent::Failed(why) => {
                self.postpone(held, owner).await?;
                tracing::debug!(
                    user_id = held.user_id,
                    app_id = held.app_id,
                    failures = held.failures,
                    why,
                    "a gateway fails"
                );
                Ok(false)
            }
        }
    }

    /// Writes down where the pusher is, and holds it for longer or no longer. False: it is another's by now, or gone.
    async fn step(&self, held: &Held, owner: &str, go_on: bool) -> Result<bool> {
        let until_ms = if go_on { self.clock.now_ms() + LEASE_MS } else { 0 };
        let Held { done_pos, badge, failures, .. } = *held;
        let step = Step { done_pos, badge, failures, due_ms: 0, until_ms };
        Ok(self.storage.step_pusher(&held.pusher_id, owner, step).await?)
    }

    async fn unread(&self, user_id: &str) -> Result<i64> {
        super::unread(&*self.storage, user_id, self.badge_counts).await
    }
}
