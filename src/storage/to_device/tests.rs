use super::*;
use crate::{
    accounts::{Accounts as _, NewUser},
    follow::Follow as _,
    sessions::{Ending, Sessions as _, tests::session},
    stream::Stream as _,
    testing::{Store, each_backend},
    tx::Query,
};

const BOUNDS: Bounds = Bounds { messages: 300, bytes: 10_000, waiting: 100, waiting_bytes: 1_000_000 };

/// Reads as a sync does.
struct Read(&'static str, &'static str, i64, u32);

impl Query for Read {
    const NAME: &'static str = "test_waiting";
    type Out = Vec<Waiting>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Vec<Waiting>> {
        waiting(tx, self.0, self.1, self.2, self.3).await
    }
}

/// What waits for a device.
async fn contents(store: &Store, user: &'static str, device: &'static str) -> Vec<String> {
    store.read(Read(user, device, 0, 1_000)).await.unwrap().into_iter().map(|w| w.content).collect()
}

fn to(user: &str, device: &str, content: &str) -> Addressed {
    let device_id = (device != "*").then(|| device.to_owned());
    Addressed { user_id: user.to_owned(), device_id, content: content.into() }
}

fn sending(txn: &str, messages: Vec<Addressed>) -> Sending {
    let transaction = Transaction {
        user_id: "@a:x".to_owned(),
        device_id: "A".to_owned(),
        txn_id: txn.to_owned(),
        scope: "sendToDevice k".to_owned(),
        result: String::new(),
    };
    Sending { transaction, kind: "k".to_owned(), messages, bounds: BOUNDS, now_ms: 1 }
}

async fn send(store: &Store, txn: &str, messages: Vec<Addressed>) -> Sent {
    store.send_to_device(sending(txn, messages)).await.unwrap()
}

const DONE: Sent = Sent::Done { dropped: 0 };

/// Bob has two devices, Carol one.
async fn people(store: &Store) {
    for (user, devices) in [("@b:x", vec!["B1", "B2"]), ("@c:x", vec!["C"])] {
        let new =
            NewUser { user_id: user.to_owned(), password_hash: Some("hash".to_owned()), admin: false, created_ms: 1 };
        store.register(new, None, None).await.unwrap();
        for device in devices {
            let token = u8::try_from(device.bytes().map(u32::from).sum::<u32>() % 250).unwrap();
            store.login(user, Some("hash"), session(device, token)).await.unwrap();
        }
    }
}

#[test]
fn messages_wait_in_order_until_their_device_has_them() {
    each_backend(|store| async move {
        people(&store).await;
        store.sink.take();
        let head = store.head().await.unwrap();
        let both = vec![to("@b:x", "B1", "1"), to("@c:x", "C", "1"), to("@b:x", "gone", "0"), to("@d:x", "*", "0")];
        assert_eq!(send(&store, "t1", both).await, DONE);
        assert_eq!(store.sink.take()[0].wakes, [Wake::User("@b:x".into()), Wake::User("@c:x".into())]);
        // All devices, but for the one that has a message of its own.
        assert_eq!(send(&store, "t2", vec![to("@b:x", "*", "2"), to("@b:x", "B2", "own")]).await, DONE);
        assert_eq!(contents(&store, "@b:x", "B1").await, ["1", "2"]);
        assert_eq!(contents(&store, "@b:x", "B2").await, ["own"]);
        assert_eq!(contents(&store, "@c:x", "C").await, ["1"]);

        let first = store.read(Read("@b:x", "B1", 0, 1)).await.unwrap();
        assert_eq!((first.len(), &*first[0].sender, &*first[0].kind), (1, "@a:x", "k"));
        let woken = store.changes_after(head, 9).await.unwrap().wakes;
        assert_eq!(woken, [Wake::User("@b:x".into()), Wake::User("@c:x".into())]);

        let now = store.head().await.unwrap();
        assert_eq!(
            store.acknowledge_to_device("@b:x", "B1", first[0].pos, now + 1).await.unwrap(),
            0,
            "from the future"
        );
        assert_eq!(store.acknowledge_to_device("@b:x", "B1", first[0].pos, now).await.unwrap(), 1);
        assert_eq!(contents(&store, "@b:x", "B1").await, ["2"]);
        assert_eq!(contents(&store, "@c:x", "C").await, ["1"], "of another");
        assert_eq!(store.read(Read("@b:x", "B1", now, 9)).await.unwrap(), []);
    });
}

#[test]
fn a_transaction_id_is_used_once() {
    each_backend(|store| async move {
        people(&store).await;
        assert_eq!(send(&store, "t", vec![to("@c:x", "C", "1")]).await, DONE);
        assert_eq!(store.beside().await.send_to_device(sending("t", vec![])).await.unwrap(), Sent::Again);
        assert_eq!(send(&store, "t", vec![to("@c:x", "C", "2")]).await, Sent::Again);
        let all = (0..8).map(|n| store.send_to_device(sending("u", vec![to("@c:x", "C", &n.to_string())])));
        let sent = futures_util::future::join_all(all).await;
        assert_eq!(sent.into_iter().filter(|sent| *sent.as_ref().unwrap() == DONE).count(), 1);
        assert_eq!(contents(&store, "@c:x", "C").await.len(), 2);
        // Even one that found nobody.
        assert_eq!(send(&store, "v", vec![to("@c:x", "not yet", "1")]).await, DONE);
        assert_eq!(send(&store, "v", vec![to("@c:x", "C", "1")]).await, Sent::Again);
    });
}

#[test]
fn what_is_beyond_the_bounds_of_a_request_is_not_sent() {
    each_backend(|store| async move {
        people(&store).await;
        let large = "x".repeat(5_001);
        let sending = |messages: usize, content: &str| Sending {
            bounds: Bounds { messages, ..BOUNDS },
            ..sending("t", vec![to("@b:x", "*", content)])
        };
        assert_eq!(store.send_to_device(sending(1, "1")).await.unwrap(), Sent::TooMuch);
        assert_eq!(store.send_to_device(sending(2, &large)).await.unwrap(), Sent::TooMuch);
        assert!(contents(&store, "@b:x", "B1").await.is_empty());
        assert_eq!(store.send_to_device(sending(2, &large[1..])).await.unwrap(), DONE, "the id is free");
    });
}

#[test]
fn of_a_full_queue_the_oldest_go() {
    each_backend(|store| async move {
        people(&store).await;
        let bounds = Bounds { waiting: 20, ..BOUNDS };
        let mut dropped = 0;
        for n in 0..50 {
            let text = n.to_string();
            let sending = Sending { bounds, ..sending(&text, vec![to("@b:x", "B1", &text)]) };
            match store.send_to_device(sending).await.unwrap() {
                Sent::Done { dropped: now } => dropped += now,
                other => panic!("{other:?}"),
            }
            let kept = contents(&store, "@b:x", "B1").await;
            assert!(kept.len() <= 20 && kept.len() >= (n + 1).min(18), "{n}: {kept:?}");
            assert_eq!(kept, (n + 1 - kept.len()..=n).map(|n| n.to_string()).collect::<Vec<_>>());
            assert_eq!(dropped, (n + 1 - kept.len()) as u64);
        }
        // An empty queue is counted anew.
        let now = store.head().await.unwrap();
        store.acknowledge_to_device("@b:x", "B1", now, now).await.unwrap();
        for n in 100..120 {
            let text = n.to_string();
            let sending = Sending { bounds, ..sending(&text, vec![to("@b:x", "*", &text)]) };
            assert_eq!(store.send_to_device(sending).await.unwrap(), DONE);
        }
    });
}

#[test]
fn of_a_queue_with_too_many_bytes_the_oldest_go() {
    each_backend(|store| async move {
        people(&store).await;
        let bounds = Bounds { waiting_bytes: 1_000, ..BOUNDS };
        let text = |n: usize| format!("{n:0100}");
        let mut dropped = 0;
        for n in 0..50 {
            let sending = Sending { bounds, ..sending(&n.to_string(), vec![to("@b:x", "B1", &text(n))]) };
            match store.send_to_device(sending).await.unwrap() {
                Sent::Done { dropped: now } => dropped += now,
                other => panic!("{other:?}"),
            }
            let kept = contents(&store, "@b:x", "B1").await;
            assert!(kept.len() <= 11 && kept.len() >= (n + 1).min(9), "{n}: {kept:?}");
            assert_eq!(kept, (n + 1 - kept.len()..=n).map(text).collect::<Vec<_>>());
            assert_eq!(dropped, (n + 1 - kept.len()) as u64);
        }
        // One that is larger than all that may wait waits alone.
        let large = "x".repeat(2_000);
        let sending = Sending { bounds, ..sending("large", vec![to("@b:x", "B1", &large)]) };
        assert!(matches!(store.send_to_device(sending).await.unwrap(), Sent::Done { dropped: 9.. }));
        assert_eq!(contents(&store, "@b:x", "B1").await, [large]);
    });
}

#[test]
fn many_targets_take_as_many_statements_as_one() {
    each_backend(|store| async move {
        people(&store).await;
        for n in 0..200u32 {
            let mut another = session(&format!("D{n}"), 0);
            another.token_hash[..4].copy_from_slice(&(1_000 + n).to_be_bytes());
            store.login("@c:x", Some("hash"), another).await.unwrap();
        }
        let statements = || store.work()["send_to_device"].statements;
        send(&store, "one", vec![to("@c:x", "C", "1")]).await;
        let one = statements();
        send(&store, "all", vec![to("@c:x", "*", "1"), to("@b:x", "*", "1")]).await;
        assert_eq!(statements(), 2 * one);
        assert_eq!(contents(&store, "@c:x", "D199").await, ["1"]);
    });
}

#[test]
fn what_waits_ends_with_its_device() {
    each_backend(|store| async move {
        people(&store).await;
        for n in 0..7 {
            send(&store, &n.to_string(), vec![to("@b:x", "*", "{}")]).await;
        }
        store.login("@b:x", Some("hash"), session("B1", 90)).await.unwrap();
        assert!(contents(&store, "@b:x", "B1").await.is_empty(), "whoever logs in with its id is another");
        assert_eq!(contents(&store, "@b:x", "B2").await.len(), 7);
        for n in 7..14 {
            send(&store, &n.to_string(), vec![to("@b:x", "*", "{}")]).await;
        }

        let ending = |job: &str| Ending { at_ms: 9, job_id: job.to_owned() };
        store.end_sessions("@b:x", vec!["B1".to_owned()], ending("j1")).await.unwrap();
        send(&store, "late", vec![to("@b:x", "*", "{}")]).await;
        assert_eq!(contents(&store, "@b:x", "B2").await.len(), 15);
        assert_eq!(store.clean_device("@b:x", "B1", 5).await.unwrap(), 5);
        assert_eq!(store.clean_device("@b:x", "B1", 5).await.unwrap(), 2);
        assert!(contents(&store, "@b:x", "B1").await.is_empty());

        // Another device gets the id before anybody has cleaned up.
        store.end_sessions("@b:x", vec!["B2".to_owned()], ending("j2")).await.unwrap();
        store.login("@b:x", Some("hash"), session("B2", 91)).await.unwrap();
        assert!(contents(&store, "@b:x", "B2").await.is_empty());
    });
}
