//! What is unread, counted one event after the other, each by the push rules that its reader had when it came.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications>

use std::collections::{BTreeMap, BTreeSet};

use ruma::OwnedUserId;
use serde_json::{Value, json};

use super::{
    Outcome, ensure,
    story::{NAMES, RULES, WORDS, Wished},
    watch::Eyes,
    world::Event,
};

/// How often it rings, and how often loudly.
type Counts = (u64, u64);

impl Eyes<'_> {
    /// By thread, what others have sent since the reader came in and read last: in that thread, or everywhere. What was
    /// redacted rings no bell, nor does anybody who is ignored.
    fn unread(&self, ignored: &BTreeSet<OwnedUserId>) -> BTreeMap<&str, Counts> {
        let came =
            self.memberships.windows(2).rposition(|pair| pair[0] != "join" && pair[1] == "join").map(|at| at + 1);
        let mut unread = BTreeMap::new();
        for (at, event) in self.room.events.iter().enumerate() {
            let thread = self.room.thread_of(event).map_or("main", |root| root.as_str());
            let read = came.max(self.read_up_to("")).max(self.read_up_to(thread));
            let silent = event.redacted_by.is_some() || event.sender == *self.user || ignored.contains(&event.sender);
            if silent || read.is_some_and(|read| at <= read) {
                continue;
            }
            if let Some(loudly) = self.rings(event) {
                let counts: &mut Counts = unread.entry(thread).or_default();
                *counts = (counts.0 + 1, counts.1 + u64::from(loudly));
            }
        }
        unread
    }

    /// By the later of the two kinds of receipt.
    fn read_up_to(&self, thread: &str) -> Option<usize> {
        let own = self.room.receipts.iter().filter(|((of, _, in_thread), _)| of == self.user && in_thread == thread);
        own.filter_map(|(_, (_, event))| self.room.find(event.as_str()).map(|(at, _)| at)).max()
    }

    /// The first rule that fits decides whether an event rings, and if it does, whether it does so loudly.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#predefined-rules>
    fn rings(&self, event: &Event) -> Option<bool> {
        let then = self.wishes.iter().rev().find(|(since, _)| *since < event.time).map(|(_, wishes)| wishes);
        let wished = |what, room| then.is_some_and(|wishes| wishes.contains(&(what, room)));
        let turned =
            |rule: &str| RULES.iter().position(|id| *id == rule).is_some_and(|n| wished(Wished::Turned(n), None));
        let content = &event.content;
        if turned(".m.rule.master") || wished(Wished::Silence, Some(self.at)) {
            return None;
        }
        if content["msgtype"] == "m.notice" && !turned(".m.rule.suppress_notices") || event.kind == "m.room.member" {
            return None;
        }
        let mentions = &content["m.mentions"];
        let mentioned = mentions["user_ids"].as_array().is_some_and(|users| users.contains(&json!(self.user)));
        let all = mentions["room"] == true && self.room.may_mean_everybody(event);
        if mentioned && !turned(".m.rule.is_user_mention") || all && !turned(".m.rule.is_room_mention") {
            return Some(true);
        }
        if content["m.relates_to"]["rel_type"] == "m.replace" && !turned(".m.rule.suppress_edits") {
            return None;
        }
        let mut words = content["body"].as_str().unwrap_or_default().split(' ');
        if words.any(|word| WORDS.iter().position(|w| *w == word).is_some_and(|n| wished(Wished::Word(n), None))) {
            return Some(true);
        }
        let from = |whom| wished(Wished::Less(whom), None) && self.is_said_by(event, whom);
        if wished(Wished::Mentions, Some(self.at)) || (0..NAMES.len()).any(from) {
            return None;
        }
        match (event.kind.as_str(), self.room.members_at(event)) {
            ("m.room.message", 2) => Some(false),
            ("m.room.message", _) => (!turned(".m.rule.message")).then_some(wished(Wished::Loud, None)),
            _ => None,
        }
    }

    fn is_said_by(&self, event: &Event, whom: usize) -> bool {
        let name = event.sender.localpart().trim_end_matches(|c: char| c.is_ascii_digit());
        name == NAMES[whom]
    }

    /// The counts in a room that the reader is in, as a sync shows them: the threads apart, or all in one sum.
    pub fn judge_unread(&self, part: &Value, threads: bool, ignored: &BTreeSet<OwnedUserId>) -> Outcome<()> {
        let mut unread = self.unread(ignored);
        let shown = counts(&part["unread_notifications"]);
        let none = serde_json::Map::new();
        let apart = part["unread_thread_notifications"].as_object().unwrap_or(&none);
        if !threads {
            let all = unread.values().fold((0, 0), |sum: Counts, of| (sum.0 + of.0, sum.1 + of.1));
            ensure!(shown == Some(all), "{all:?} are unread, not {shown:?}");
            ensure!(apart.is_empty(), "threads were not asked for: {apart:?}");
            return Ok(());
        }
        let main = unread.remove("main").unwrap_or_default();
        ensure!(shown == Some(main), "{main:?} are unread in the main timeline, not {shown:?}");
        let apart = apart.iter().filter_map(|(root, of)| Some((root.as_str(), counts(of)?)));
        let apart: BTreeMap<&str, Counts> = apart.filter(|(_, of)| *of != (0, 0)).collect();
        ensure!(apart == unread, "in threads, {unread:?} are unread, not {apart:?}");
        Ok(())
    }
}

fn counts(shown: &Value) -> Option<Counts> {
    Some((shown["notification_count"].as_u64()?, shown["highlight_count"].as_u64()?))
}
