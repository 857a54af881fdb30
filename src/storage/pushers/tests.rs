use super::*;
use crate::{
    accounts::{Accounts as _, NewUser},
    sessions::{Ending, Sessions as _, tests::session},
    stream::Stream as _,
    testing::{Store, each_backend},
};

fn pusher(app: &str, key: &str) -> PusherRow {
    PusherRow { app_id: app.to_owned(), pushkey: key.to_owned(), body: "{}".to_owned() }
}

fn new(user: &str, device: &str, key: &str) -> NewPusher {
    NewPusher {
        pusher_id: format!("{user} {key}"),
        user_id: user.to_owned(),
        device_id: device.to_owned(),
        pusher: pusher("app", key),
        set_ms: 5,
        append: false,
        most: 3,
        badge: 0,
    }
}

async fn register(store: &Store, user: &str, device: &str, token: u8) {
    let user = NewUser { user_id: user.to_owned(), password_hash: None, admin: false, created_ms: 1 };
    store.register(user, Some(session(device, token)), None).await.unwrap();
}

async fn keys(store: &Store, user: &str) -> Vec<String> {
    store.pushers(user).await.unwrap().into_iter().map(|p| p.pushkey).collect()
}

fn step(done_pos: i64, until_ms: i64) -> Step {
    Step { done_pos, badge: 0, failures: 0, due_ms: 0, until_ms }
}

#[test]
fn a_pusher_is_set_replaced_and_removed() {
    each_backend(|store| async move {
        register(&store, "@a:x", "D", 1).await;
        register(&store, "@b:x", "D", 2).await;
        assert_eq!(store.set_pusher(new("@a:x", "D", "1")).await.unwrap(), PusherSet::Done);
        let changed = NewPusher {
            pusher: PusherRow { body: r#"{"lang":"eo"}"#.to_owned(), ..pusher("app", "1") },
            pusher_id: "other".to_owned(),
            ..new("@a:x", "D", "1")
        };
        assert_eq!(store.set_pusher(changed.clone()).await.unwrap(), PusherSet::Done);
        assert_eq!(store.pushers("@a:x").await.unwrap(), [changed.pusher]);
        for key in ["2", "3"] {
            store.set_pusher(new("@a:x", "D", key)).await.unwrap();
        }
        assert_eq!(store.set_pusher(new("@a:x", "D", "4")).await.unwrap(), PusherSet::TooMany);
        assert_eq!(store.set_pusher(new("@a:x", "D", "3")).await.unwrap(), PusherSet::Done, "it is there already");
        assert_eq!(store.set_pusher(new("@a:x", "E", "1")).await.unwrap(), PusherSet::NoDevice);
        // Another user of the same phone.
        let beside = NewPusher { append: true, ..new("@b:x", "D", "1") };
        assert_eq!(store.set_pusher(beside).await.unwrap(), PusherSet::Done);
        assert_eq!(keys(&store, "@a:x").await, ["1", "2", "3"]);
        assert_eq!(store.set_pusher(new("@b:x", "D", "1")).await.unwrap(), PusherSet::Done);
        assert_eq!(
            (keys(&store, "@a:x").await, keys(&store, "@b:x").await),
            (vec!["2".into(), "3".into()], vec!["1".into()])
        );
        assert!(store.remove_pusher("@a:x", "app", "2").await.unwrap());
        assert!(!store.remove_pusher("@a:x", "app", "2").await.unwrap());
        assert!(!store.remove_pusher("@a:x", "app", "1").await.unwrap(), "it is somebody else's");
        assert_eq!(keys(&store, "@a:x").await, ["3"]);
    });
}

#[test]
fn a_pusher_ends_with_its_session() {
    each_backend(|store| async move {
        register(&store, "@a:x", "D", 1).await;
        for (device, token) in [("E", 2), ("F", 3)] {
            store.login("@a:x", None, session(device, token)).await.unwrap();
        }
        for (device, key) in [("D", "1"), ("E", "2"), ("F", "3")] {
            store.set_pusher(new("@a:x", device, key)).await.unwrap();
        }
        let ending = |job: &str| Ending { at_ms: 1, job_id: job.to_owned() };
        store.end_sessions("@a:x", vec!["D".to_owned()], ending("j1")).await.unwrap();
        assert_eq!(keys(&store, "@a:x").await, ["2", "3"]);
        // Whoever logs in with the id of a device is not told what was meant for who had it before.
        store.login("@a:x", None, session("E", 4)).await.unwrap();
        assert_eq!(keys(&store, "@a:x").await, ["3"]);
        // The device that set it last is the one that it belongs to.
        store.set_pusher(new("@a:x", "E", "3")).await.unwrap();
        store.end_sessions("@a:x", vec!["F".to_owned()], ending("j2")).await.unwrap();
        assert_eq!(keys(&store, "@a:x").await, ["3"]);
        store.end_all_sessions("@a:x", ending("j3")).await.unwrap();
        assert!(keys(&store, "@a:x").await.is_empty());
    });
}

#[test]
fn one_at_a_time_holds_a_pusher() {
    each_backend(|store| async move {
        register(&store, "@a:x", "D", 1).await;
        register(&store, "@b:x", "D", 2).await;
        store.set_pusher(new("@a:x", "D", "1")).await.unwrap();
        store.set_pusher(new("@b:x", "D", "2")).await.unwrap();
        let at = store.head().await.unwrap();
        assert!(!store.any_pusher_due(10).await.unwrap());
        assert!(store.lease_pushers("one", 10, 20, 9).await.unwrap().is_empty(), "nobody is behind");
        let of = |user: &str| Some(vec![user.to_owned()]);
        store.mark_pushers(Marks { up_to: at + 2, users: of("@a:x") }).await.unwrap();
        // Others have come further already, and marked whom they found.
        store.mark_pushers(Marks { up_to: at + 1, users: of("@b:x") }).await.unwrap();
        assert!(store.any_pusher_due(10).await.unwrap());
        let held = store.lease_pushers("one", 10, 20, 9).await.unwrap();
        assert_eq!(held.iter().map(|h| h.user_id.as_str()).collect::<Vec<_>>(), ["@a:x"]);
        let id = held[0].pusher_id.as_str();
        assert!(!store.any_pusher_due(19).await.unwrap());
        assert!(store.lease_pushers("two", 19, 29, 9).await.unwrap().is_empty());
        assert!(!store.step_pusher(id, "two", step(at + 1, 30)).await.unwrap());
        assert!(store.step_pusher(id, "one", step(at + 1, 30)).await.unwrap());
        assert!(!store.any_pusher_due(29).await.unwrap(), "it is held for longer");
        // Who held it has died.
        let held = store.lease_pushers("two", 30, 40, 9).await.unwrap();
        assert_eq!((held.len(), held[0].done_pos), (1, at + 1));
        assert!(!store.step_pusher(id, "one", step(at + 2, 50)).await.unwrap(), "it is another's by now");
        let later = Step { badge: 3, failures: 1, due_ms: 100, ..step(at + 1, 0) };
        assert!(store.step_pusher(id, "two", later).await.unwrap());
        assert!(!store.any_pusher_due(99).await.unwrap());
        let held = store.lease_pushers("three", 100, 110, 9).await.unwrap();
        assert_eq!((held[0].badge, held[0].failures), (3, 1));
        assert!(store.step_pusher(id, "three", step(at + 2, 0)).await.unwrap());
        assert!(!store.step_pusher(id, "three", step(at + 1, 0)).await.unwrap(), "it was given back");
        assert!(!store.any_pusher_due(1_000).await.unwrap());
        store.mark_pushers(Marks { up_to: at + 3, users: None }).await.unwrap();
        assert_eq!(store.lease_pushers("four", 1_000, 1_010, 9).await.unwrap().len(), 2);
    });
}

#[test]
fn a_key_that_was_set_again_is_not_the_one_that_was_rejected() {
    each_backend(|store| async move {
        register(&store, "@a:x", "D", 1).await;
        store.set_pusher(new("@a:x", "D", "1")).await.unwrap();
        store.set_pusher(NewPusher { set_ms: 6, ..new("@a:x", "D", "1") }).await.unwrap();
        store.reject_pusher("@a:x 1", 5).await.unwrap();
        assert_eq!(keys(&store, "@a:x").await, ["1"]);
        store.reject_pusher("@a:x 1", 6).await.unwrap();
        assert!(keys(&store, "@a:x").await.is_empty());
    });
}

#[test]
fn what_was_told_before_a_pusher_was_set_anew_is_not_told_again() {
    each_backend(|store| async move {
        register(&store, "@a:x", "D", 1).await;
        store.set_pusher(new("@a:x", "D", "1")).await.unwrap();
        let at = store.head().await.unwrap();
        store.mark_pushers(Marks { up_to: at + 3, users: None }).await.unwrap();
        let id = store.lease_pushers("one", 10, 20, 9).await.unwrap()[0].pusher_id.clone();
        store.set_pusher(new("@a:x", "D", "1")).await.unwrap();
        assert!(!store.step_pusher(&id, "one", step(at + 2, 20)).await.unwrap(), "it tells what is no longer so");
        assert!(!store.step_pusher(&id, "one", step(at + 1, 20)).await.unwrap(), "and does not go back");
        let held = store.lease_pushers("two", 10, 20, 9).await.unwrap();
        assert_eq!(held[0].done_pos, at + 2);
        let failed = Step { failures: 1, due_ms: 1_000, ..step(at + 3, 0) };
        assert!(!store.step_pusher(&id, "one", failed).await.unwrap());
        assert!(store.step_pusher(&id, "two", step(at + 2, 0)).await.unwrap());
        assert!(store.any_pusher_due(10).await.unwrap(), "what another has come to is not theirs to say");
    });
}
