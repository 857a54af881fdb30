//! Reports: what users want the operator to look at. They wait here until somebody has.

use std::sync::Arc;

use hearth_core::{
    Error, Result,
    clock::{Clock, Rng, random_string},
};
use hearth_storage::{
    Storage,
    reports::{About, Report},
};
use ruma::{EventId, OwnedUserId, RoomId, UserId, events::AnyTimelineEvent, serde::Raw};

use super::{shape::Reader, timeline::Timelines};

/// Of what somebody says about it.
const MAX_REASON_BYTES: usize = 4_096;
/// Of one person, while nobody has looked at them.
const MOST_OF_ONE: u32 = 1_000;
/// Reports that are read at a time.
const PAGE: u32 = 500;

/// Takes reports, and shows them to the operator.
pub struct Reports {
    storage: Arc<dyn Storage>,
    timelines: Arc<Timelines>,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

impl Reports {
    pub fn new(
        storage: Arc<dyn Storage>,
        timelines: Arc<Timelines>,
        clock: Arc<dyn Clock>,
        rng: Arc<dyn Rng>,
    ) -> Arc<Self> {
        Arc::new(Self { storage, timelines, clock, rng })
    }

    /// An event, by somebody who is in its room and may see it.
    pub async fn event(&self, reader: Reader<'_>, room_id: &RoomId, event_id: &EventId, reason: String) -> Result<()> {
        let unknown = || Error::not_found("There is no such event, or you are not in its room");
        self.timelines.joined_room(reader, room_id).await.map_err(|e| match e {
            Error::Matrix { .. } => unknown(),
            other => other,
        })?;
        let event: Raw<AnyTimelineEvent> = self.timelines.event(reader, room_id, event_id).await?;
        let sender: Option<OwnedUserId> = event.get_field("sender").map_err(Error::internal)?;
        let about = About::Event {
            room_id: room_id.to_string(),
            event_id: event_id.to_string(),
            sender: sender.ok_or_else(|| Error::internal("an event without sender"))?.to_string(),
        };
        self.keep(reader.user, about, reason).await
    }

    /// A room. Whether there is one is not looked at, so nobody learns it here.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreport>
    pub async fn room(&self, reporter: &UserId, room_id: &RoomId, reason: String) -> Result<()> {
        self.keep(reporter, About::Room(room_id.to_string()), reason).await
    }

    /// A user. Whether there is one is not looked at, so nobody learns it here.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3usersuseridreport>
    pub async fn user(&self, reporter: &UserId, user_id: &UserId, reason: String) -> Result<()> {
        self.keep(reporter, About::User(user_id.to_string()), reason).await
    }

    async fn keep(&self, reporter: &UserId, about: About, reason: String) -> Result<()> {
        if reason.len() > MAX_REASON_BYTES {
            return Err(Error::too_large(format!("A reason has at most {MAX_REASON_BYTES} bytes")));
        }
        if reason.contains('\0') {
            return Err(Error::invalid_param("A reason is a text"));
        }
        let report = Report {
            report_id: random_string(&*self.rng, 12),
            reporter: reporter.to_string(),
            about,
            reason,
            at_ms: self.clock.now_ms(),
        };
        match self.storage.keep_report(report, MOST_OF_ONE).await? {
            true => Ok(()),
            false => Err(Error::forbidden("You have reported so much that nobody has looked at yet")),
        }
    }

    /// Hands over all reports, the oldest first, some at a time.
    pub async fn each(&self, mut see: impl FnMut(Report)) -> Result<()> {
        let (mut at_ms, mut id) = (i64::MIN, String::new());
        loop {
            let page = self.storage.reports((at_ms, &id), PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            (at_ms, id) = (last.at_ms, last.report_id.clone());
            page.into_iter().for_each(&mut see);
        }
    }

    /// A report that has been dealt with.
    pub async fn delete(&self, report_id: &str) -> Result<()> {
        match self.storage.delete_report(report_id).await? {
            true => Ok(()),
            false => Err(Error::not_found("There is no such report")),
        }
    }
}
