//! Reports: what users want the operator to look at.

use crate::{
    Sql,
    error::Result,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, args, statements},
};

statements! {
    OTHERS = "SELECT COUNT(*) FROM reports WHERE reporter = $1 AND (room_id <> $2 OR event_id <> $3 OR user_id <> $4)";
    KEEP = "INSERT INTO reports (report_id, reporter, room_id, event_id, user_id, reason, at_ms) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (reporter, room_id, event_id, user_id) \
        DO UPDATE SET reason = excluded.reason, at_ms = excluded.at_ms";
    AFTER = "SELECT report_id, reporter, room_id, event_id, user_id, reason, at_ms FROM reports \
        WHERE (at_ms, report_id) > ($1, $2) ORDER BY at_ms, report_id LIMIT $3";
    DELETE = "DELETE FROM reports WHERE report_id = $1";
}

/// What somebody reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub report_id: String,
    pub reporter: String,
    pub about: About,
    pub reason: String,
    pub at_ms: i64,
}

/// What a report is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    Event { room_id: String, event_id: String, sender: String },
    Room(String),
    User(String),
}

impl About {
    /// The room, the event and the user, each empty where it is not about one.
    fn columns(&self) -> [&str; 3] {
        match self {
            Self::Event { room_id, event_id, sender } => [room_id, event_id, sender],
            Self::Room(room_id) => [room_id, "", ""],
            Self::User(user_id) => ["", "", user_id],
        }
    }

    fn of([room_id, event_id, user_id]: [String; 3]) -> Self {
        match (room_id.is_empty(), event_id.is_empty()) {
            (true, _) => Self::User(user_id),
            (false, true) => Self::Room(room_id),
            (false, false) => Self::Event { room_id, event_id, sender: user_id },
        }
    }
}

/// What waits to be looked at.
pub trait Reports: Send + Sync {
    /// Keeps a report; one of the same person about the same takes its time and its reason. False: the reporter has
    /// `most` others here already.
    fn keep_report(&self, report: Report, most: u32) -> Answer<'_, bool>;
    /// The reports after this one, by their time and id.
    fn reports(&self, after: (i64, &str), limit: u32) -> Answer<'_, Vec<Report>>;
    /// False: there is no such report.
    fn delete_report(&self, report_id: &str) -> Answer<'_, bool>;
}

impl<E: Engine> Reports for Sql<E> {
    fn keep_report(&self, report: Report, most: u32) -> Answer<'_, bool> {
        self.0.write(KeepReport { report, most })
    }

    fn reports(&self, after: (i64, &str), limit: u32) -> Answer<'_, Vec<Report>> {
        self.0.read(ReportsAfter { at_ms: after.0, report_id: after.1.to_owned(), limit })
    }

    fn delete_report(&self, report_id: &str) -> Answer<'_, bool> {
        self.0.write(DeleteReport(report_id.to_owned()))
    }
}

struct KeepReport {
    report: Report,
    most: u32,
}

impl Op for KeepReport {
    const NAME: &'static str = "keep_report";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let Report { report_id, reporter, about, reason, at_ms } = &self.report;
        let [room_id, event_id, user_id] = about.columns();
        let others: i64 = tx.query_one(OTHERS, args![reporter, room_id, event_id, user_id]).await?.get(0)?;
        if others >= i64::from(self.most) {
            return Ok(false);
        }
        tx.execute(KEEP, args![report_id, reporter, room_id, event_id, user_id, reason, *at_ms]).await?;
        Ok(true)
    }
}

struct ReportsAfter {
    at_ms: i64,
    report_id: String,
    limit: u32,
}

impl Query for ReportsAfter {
    const NAME: &'static str = "reports";
    const SINGLE: bool = true;
    type Out = Vec<Report>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<Report>> {
        let report = |mut row: Row| {
            Ok(Report {
                report_id: row.get(0)?,
                reporter: row.get(1)?,
                about: About::of([row.get(2)?, row.get(3)?, row.get(4)?]),
                reason: row.get(5)?,
                at_ms: row.get(6)?,
            })
        };
        tx.query(AFTER, args![self.at_ms, &self.report_id, i64::from(self.limit)])
            .await?
            .into_iter()
            .map(report)
            .collect()
    }
}

struct DeleteReport(String);

impl Op for DeleteReport {
    const NAME: &'static str = "delete_report";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        Ok(tx.execute(DELETE, args![&self.0]).await? == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::each_backend;

    fn report(id: &str, about: About, at_ms: i64) -> Report {
        Report { report_id: id.to_owned(), reporter: "@a:x".to_owned(), about, reason: "rude".to_owned(), at_ms }
    }

    fn event(id: &str) -> About {
        About::Event { room_id: "!r:x".to_owned(), event_id: id.to_owned(), sender: "@b:x".to_owned() }
    }

    #[test]
    fn reports_wait_until_they_are_deleted() {
        each_backend(|store| async move {
            let all = [
                report("2", event("$e"), 5),
                report("3", About::Room("!r:x".to_owned()), 5),
                report("1", About::User("@b:x".to_owned()), 6),
            ];
            for report in &all {
                assert!(store.keep_report(report.clone(), 9).await.unwrap());
            }
            assert_eq!(store.reports((i64::MIN, ""), 9).await.unwrap(), all);
            assert_eq!(store.reports((i64::MIN, ""), 1).await.unwrap(), all[..1]);
            assert_eq!(store.reports((5, "2"), 9).await.unwrap(), all[1..]);
            assert!(store.delete_report("3").await.unwrap());
            assert!(!store.delete_report("3").await.unwrap());
            assert_eq!(store.reports((5, "2"), 9).await.unwrap(), all[2..]);
        });
    }

    #[test]
    fn somebody_has_one_report_about_a_thing_and_so_many_in_all() {
        each_backend(|store| async move {
            assert!(store.keep_report(report("1", event("$e"), 1), 2).await.unwrap());
            assert!(store.keep_report(report("2", event("$f"), 2), 2).await.unwrap());
            assert!(!store.keep_report(report("3", event("$g"), 3), 2).await.unwrap());
            let again = Report { reason: "very rude".to_owned(), ..report("4", event("$e"), 4) };
            assert!(store.keep_report(again.clone(), 2).await.unwrap());
            let other = Report { reporter: "@c:x".to_owned(), ..report("5", event("$e"), 5) };
            assert!(store.keep_report(other.clone(), 2).await.unwrap());
            let kept = Report { report_id: "1".to_owned(), ..again };
            assert_eq!(store.reports((i64::MIN, ""), 9).await.unwrap(), [report("2", event("$f"), 2), kept, other]);
        });
    }
}
