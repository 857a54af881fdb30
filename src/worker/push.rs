//! Push notifications. One task follows the stream and marks the pushers that have something to look at; another lets those
//! that are behind catch up, many at once, so that no slow gateway holds up the others.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use hearth_core::Result;
use hearth_storage::{
    Wake,
    pushers::{Held, Marks, PUSHERS_BEHIND, PUSHERS_SET, PushNews},
};
use tokio::task::JoinSet;

use super::{Workers, owner};

/// Without a wake.
const LOOK: Duration = Duration::from_secs(60);
/// More rooms or users than this are not told one by one.
const MOST: i64 = 1_000;
/// How far it may be back to where it was last written down up to where all are marked.
const FAR: i64 = 10_000;
/// How many gateways are told something at once; and how many for one user, or whoever set many that don't answer would
/// keep everybody waiting.
const AT_ONCE: usize = 64;
const AT_ONCE_OF_USER: usize = 4;
/// How often somebody looks for pushers whose time has come, or whose holder has died.
const DUE: Duration = Duration::from_secs(1);
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Whose pushers want to look at which rooms. Nobody is taken out again: whoever left a room finds nothing there.
#[derive(Default)]
struct Watched {
    rooms: HashMap<i64, BTreeSet<Arc<str>>>,
    users: BTreeSet<Arc<str>>,
}

impl Watched {
    /// What is to be listened to from now on that was not before.
    fn learn(&mut self, pairs: &[(String, Option<i64>)]) -> Vec<Wake> {
        let mut wakes = Vec::new();
        for (user, room) in pairs {
            let known = self.users.get(user.as_str()).cloned();
            let user = known.unwrap_or_else(|| {
                let user: Arc<str> = user.as_str().into();
                wakes.push(Wake::User(Arc::clone(&user)));
                self.users.insert(Arc::clone(&user));
                user
            });
            let Some(room) = room else { continue };
            let in_room = self.rooms.entry(*room).or_insert_with(|| {
                wakes.push(Wake::Room(*room));
                BTreeSet::new()
            });
            in_room.insert(user);
        }
        wakes
    }

    /// Whom the news concern.
    fn concerned(&self, news: &PushNews) -> Vec<String> {
        let in_rooms = news.rooms.iter().filter_map(|room| self.rooms.get(room)).flatten().map(|user| &**user);
        let all: BTreeSet<&str> = in_rooms.chain(news.users.iter().map(String::as_str)).collect();
        all.into_iter().map(str::to_owned).collect()
    }
}

/// Marks pushers until the server stops. A message in a room where nobody has one wakes nobody here.
pub(super) async fn mark(workers: Arc<Workers>) {
    let mut waiter = workers.notifier.subscribe([Wake::Queue(PUSHERS_SET)]);
    let (mut watched, mut since) = (Watched::default(), -1);
    loop {
        let pause = match look(&workers, &mut watched, &mut since).await {
            // What happened there before it was listened to has woken nobody.
            Ok(wakes) if !wakes.is_empty() => {
                waiter.also(wakes);
                continue;
            }
            Ok(_) => LOOK,
            Err(e) => {
                tracing::warn!(error = %e, "pushers can't be marked; it will be tried again");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = waiter.woken() => {}
            () = tokio::time::sleep(pause) => {}
            () = workers.shutdown.said() => return,
        }
    }
}

/// Marks whoever is concerned by what came after `since`. What is to be listened to beside the rest.
async fn look(workers: &Workers, watched: &mut Watched, since: &mut i64) -> Result<Vec<Wake>> {
    let news = workers.storage.push_news(*since, *since, MOST).await?;
    let wakes = watched.learn(&news.watched);
    let users = if news.too_many { None } else { Some(watched.concerned(&news)) };
    if users.as_ref().is_none_or(|users| !users.is_empty()) || news.up_to - news.marked > FAR {
        workers.storage.mark_pushers(Marks { up_to: news.up_to, users }).await?;
    }
    *since = news.up_to;
    Ok(wakes)
}

/// Lets pushers catch up until the server stops.
pub(super) async fn deliver(workers: Arc<Workers>) {
    let waiter = workers.notifier.subscribe([Wake::Queue(PUSHERS_BEHIND)]);
    let mut under_way = UnderWay::default();
    loop {
        let free = AT_ONCE - under_way.tasks.len();
        if free > 0
            && let Err(e) = under_way.take(&workers, free).await
        {
            tracing::warn!(error = %e, "pushers can't be taken; it will be tried again");
        }
        tokio::select! {
            () = waiter.woken() => {}
            () = under_way.one_ends(), if !under_way.tasks.is_empty() => {}
            () = tokio::time::sleep(DUE) => {}
            () = workers.shutdown.said() => break,
        }
    }
    while !under_way.tasks.is_empty() {
        under_way.one_ends().await;
    }
}

/// Pushers that catch up.
#[derive(Default)]
struct UnderWay {
    tasks: JoinSet<()>,
    users: HashMap<tokio::task::Id, String>,
}

impl UnderWay {
    async fn take(&mut self, workers: &Arc<Workers>, free: usize) -> Result<()> {
        let owner: Arc<str> = owner(workers).into();
        for held in workers.deliveries.take(&owner, free).await? {
            if self.users.values().filter(|user| **user == held.user_id).count() >= AT_ONCE_OF_USER {
                workers.deliveries.not_yet(&held, &owner).await?;
                continue;
            }
            let user = held.user_id.clone();
            let task = self.tasks.spawn(catch_up(Arc::clone(workers), held, Arc::clone(&owner)));
            self.users.insert(task.id(), user);
        }
        Ok(())
    }

    async fn one_ends(&mut self) {
        let ended = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            // It panicked, which was logged; its lease ends by itself.
            Some(Err(e)) => e.id(),
            None => return,
        };
        self.users.remove(&ended);
    }
}

async fn catch_up(workers: Arc<Workers>, mut held: Held, owner: Arc<str>) {
    if let Err(e) = workers.deliveries.deliver(&mut held, &owner).await {
        tracing::warn!(error = %e, "a pusher can't be told anything; it will be tried again");
        if let Err(e) = workers.deliveries.postpone(&mut held, &owner).await {
            // The lease ends by itself.
            tracing::warn!(error = %e, "a pusher can't be given back");
        }
    }
}
