//! All of the four history visibilities, changed half-way or not, for readers who came and went in all the ways there are:
//! what each of them is shown by every way to read a room.

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::{
    Ground, Outcome, Run,
    client::Device,
    ensure, failure,
    story::{NAMES, VISIBILITIES},
    world::visibility,
};
use crate::support::each_backend;

/// Readers who share a room.
const TOGETHER: usize = 8;
const AT_A_TIME: usize = 8;

/// What somebody's membership becomes, one after the other.
type Way = Vec<&'static str>;

/// All ways of at most so many steps.
fn ways(longest: usize) -> Vec<Way> {
    let mut all: Vec<Way> = vec![vec![]];
    let mut newest = all.clone();
    for _ in 0..longest {
        let further = |way: &Way| {
            let next: &[&str] = match way.last().copied().unwrap_or("leave") {
                "leave" => &["invite", "join", "knock", "ban"],
                "invite" => &["join", "leave", "ban"],
                "join" => &["leave", "ban"],
                "knock" => &["invite", "leave", "ban"],
                _ => &["leave"],
            };
            next.iter().map(|to| [&way[..], &[to]].concat()).collect::<Vec<Way>>()
        };
        newest = newest.iter().flat_map(further).collect();
        all.extend(newest.iter().cloned());
    }
    all
}

struct Case {
    /// The history is seen so at first, and so from the middle on.
    seen: (usize, usize),
    ways: Vec<Way>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for first in 0..VISIBILITIES.len() {
        for then in 0..VISIBILITIES.len() {
            // Where nothing is switched, everything else is tried the more.
            let all = ways(if first == then { 4 } else { 3 });
            cases.extend(all.chunks(TOGETHER).map(|ways| Case { seen: (first, then), ways: ways.to_vec() }));
        }
    }
    cases
}

impl Run<'_> {
    async fn live(&mut self, case: &Case) -> Outcome<()> {
        self.create(0, (case.seen.0, 1), true, false).await?;
        let longest = case.ways.iter().map(Vec::len).max().unwrap_or(0);
        let (mut joinable, mut root) = ("public", None);
        for step in 0..=longest {
            let mut words = json!({ "msgtype": "m.text", "body": format!("before step {step}") });
            if let Some(root) = &root {
                words["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": root });
            }
            self.say(0, 0, 0, words).await?;
            root = root.or_else(|| self.nth_back(0, 0));
            if step == longest.div_ceil(2) && case.seen.0 != case.seen.1 {
                let to = visibility(VISIBILITIES[case.seen.1]);
                self.set_state(0, 0, "m.room.history_visibility", "", to).await?;
            }
            // Who knocks goes first, for as long as one has to knock.
            for knocks in [true, false] {
                for (n, way) in case.ways.iter().enumerate() {
                    let Some(to) = way.get(step).copied().filter(|to| (*to == "knock") == knocks) else { continue };
                    let rule = if knocks { "knock" } else { "public" };
                    if joinable != rule {
                        self.set_state(0, 0, "m.room.join_rules", "", json!({ "join_rule": rule })).await?;
                        joinable = rule;
                    }
                    self.becomes(n + 1, to).await?;
                }
            }
            for reader in 1..=case.ways.len() {
                self.sync(reader, 0, 3, false).await?;
            }
        }
        for reader in 1..=case.ways.len() {
            let way = case.ways[reader - 1].join(", ");
            self.end_for(reader).await.map_err(|e| failure(format!("for whom it was [{way}]: {e}")))?;
        }
        Ok(())
    }

    async fn becomes(&mut self, who: usize, to: &'static str) -> Outcome<()> {
        let was_banned = self.world.rooms[0].membership(&self.users[who]) == "ban";
        match to {
            "join" => self.join(who, 0).await?,
            "leave" if was_banned => self.unban(0, who, 0).await?,
            "leave" | "knock" => self.membership(who, who, 0, to).await?,
            _ => self.membership(0, who, 0, to).await?,
        }
        let is = self.world.rooms[0].membership(&self.users[who]);
        ensure!(is == to, "it was to become {to}, and is {is}");
        Ok(())
    }
}

#[test]
fn all_ways_are_tried() {
    let ways = ways(4);
    for way in
        [&[][..], &["ban", "leave", "join", "ban"], &["knock", "invite", "join", "leave"], &["join", "leave", "join"]]
    {
        assert!(ways.iter().any(|w| w == way), "{way:?}");
    }
    assert!(cases().len() > 100, "{}", cases().len());
}

each_backend! {
    async fn everybody_sees_what_they_may_and_nothing_else(given: Given) {
        let ground = &Ground::new(given).await;
        let names: Vec<String> = (1..=TOGETHER).map(|n| format!("reader{n}x")).collect();
        let names: Vec<&str> = [NAMES[0]].into_iter().chain(names.iter().map(String::as_str)).collect();
        let one = |name: &str| vec![Device { name: name.to_owned(), ..Device::default() }];
        let live = async |case: Case| {
            let mut run = ground.begin(&names, |users| users.iter().map(|_| one("D0")).collect()).await;
            let outcome = run.live(&case).await;
            run.services().shutdown.say();
            let (first, then) = (VISIBILITIES[case.seen.0], VISIBILITIES[case.seen.1]);
            outcome.map_err(|e| format!("{first}, then {then}, {e}"))
        };
        let all = futures_util::stream::iter(cases()).map(live).buffer_unordered(AT_A_TIME);
        let outcome: Result<(), String> = all.try_collect().await;
        ground.opened.storage.close().await.unwrap();
        outcome.unwrap_or_else(|why| panic!("{why}"));
    }
}
