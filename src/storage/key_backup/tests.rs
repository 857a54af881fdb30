use futures_util::future::join_all;

use super::*;
use crate::{
    accounts::{Accounts as _, NewUser},
    outbox::Outbox as _,
    sessions::Ending,
    testing::{Store, each_backend},
};

const ALICE: &str = "@a:x";

async fn create(store: &Store, user: &str) -> i64 {
    let new = NewBackup { user_id: user.to_owned(), algorithm: "m".to_owned(), auth_data: "{}".to_owned(), most: 5 };
    store.create_backup(new).await.unwrap().unwrap()
}

fn key(room: &str, session: &str, first_message_index: i64) -> BackedUpKey {
    BackedUpKey {
        room_id: room.to_owned(),
        session_id: session.to_owned(),
        quality: Quality { is_verified: false, first_message_index, forwarded_count: 0 },
        session_data: format!("{{\"first\":{first_message_index}}}"),
    }
}

async fn put(store: &Store, version: i64, keys: Vec<BackedUpKey>) -> KeysPut {
    let upload = KeyUpload { user_id: ALICE.to_owned(), version, keys, most: 1_000 };
    store.put_backup_keys(upload).await.unwrap()
}

/// Rooms and sessions of all keys.
async fn all(store: &Store, version: i64) -> Vec<(String, String)> {
    let keys = store.backup_keys(ALICE, version, None, None, 10_000).await.unwrap().unwrap();
    keys.into_iter().map(|key| (key.room_id, key.session_id)).collect()
}

fn named(names: &[(&str, &str)]) -> Vec<(String, String)> {
    names.iter().map(|(room, session)| ((*room).to_owned(), (*session).to_owned())).collect()
}

#[test]
fn the_newest_version_is_the_one_and_no_number_comes_twice() {
    each_backend(|store| async move {
        assert_eq!(store.backup(ALICE, None).await.unwrap(), None);
        assert!(!store.delete_backup(ALICE, 1, "j".to_owned(), 1).await.unwrap());
        assert_eq!((create(&store, ALICE).await, create(&store, "@b:x").await), (1, 1));
        assert_eq!(create(&store, ALICE).await, 2);
        assert_eq!(store.backup(ALICE, None).await.unwrap().unwrap().version, 2);
        assert_eq!(store.backup(ALICE, Some(1)).await.unwrap().unwrap().version, 1);
        assert!(store.delete_backup(ALICE, 2, "j2".to_owned(), 1).await.unwrap());
        assert!(store.delete_backup(ALICE, 2, "j3".to_owned(), 1).await.unwrap(), "it is gone, as was wished");
        for never in [0, -1, 3] {
            assert!(!store.delete_backup(ALICE, never, "j4".to_owned(), 1).await.unwrap());
        }
        assert_eq!(store.backup(ALICE, None).await.unwrap().unwrap().version, 1);
        assert_eq!(create(&store, ALICE).await, 3);
        assert_eq!(store.backup("@b:x", None).await.unwrap().unwrap().version, 1);

        let update = |version, algorithm: &'static str| store.update_backup(ALICE, version, algorithm, "{\"new\":1}");
        assert_eq!(update(2, "m").await.unwrap(), BackupUpdated::Unknown);
        assert_eq!(update(3, "n").await.unwrap(), BackupUpdated::OtherAlgorithm);
        assert_eq!(update(3, "m").await.unwrap(), BackupUpdated::Done);
        assert_eq!(store.backup(ALICE, None).await.unwrap().unwrap().auth_data, "{\"new\":1}");
        for _ in 0..3 {
            create(&store, ALICE).await;
        }
        let one_more =
            NewBackup { user_id: ALICE.to_owned(), algorithm: "m".to_owned(), auth_data: "{}".to_owned(), most: 5 };
        assert_eq!(store.create_backup(one_more).await.unwrap(), None);
    });
}

#[test]
fn keys_go_into_the_newest_where_they_are_better() {
    each_backend(|store| async move {
        assert_eq!(put(&store, 1, vec![key("!r", "s", 1)]).await, KeysPut::Unknown);
        create(&store, ALICE).await;
        assert_eq!(put(&store, 1, vec![]).await, KeysPut::Done { count: 0, etag: 0 });
        let two = vec![key("!r", "s", 5), key("!q", "s", 5)];
        assert_eq!(put(&store, 1, two).await, KeysPut::Done { count: 2, etag: 1 });
        assert_eq!(put(&store, 1, vec![key("!r", "s", 6)]).await, KeysPut::Done { count: 2, etag: 1 }, "worse");
        let some = vec![key("!r", "s", 4), key("!r", "t", 9), key("!q", "s", 5)];
        assert_eq!(put(&store, 1, some).await, KeysPut::Done { count: 3, etag: 2 });
        let better = store.backup_key(ALICE, 1, "!r", "s").await.unwrap().unwrap();
        assert_eq!(better, key("!r", "s", 4));
        assert_eq!(store.backup_key("@b:x", 1, "!r", "s").await.unwrap(), None);
        let backup = store.backup(ALICE, None).await.unwrap().unwrap();
        assert_eq!((backup.count, backup.etag), (3, 2));

        create(&store, ALICE).await;
        assert_eq!(put(&store, 1, vec![key("!r", "u", 1)]).await, KeysPut::WrongVersion { current: 2 });
        assert_eq!(put(&store, 3, vec![key("!r", "u", 1)]).await, KeysPut::Unknown);
        assert_eq!(all(&store, 1).await.len(), 3);
        let full = |keys| store.put_backup_keys(KeyUpload { user_id: ALICE.to_owned(), version: 2, keys, most: 2 });
        full(vec![key("!r", "s", 5), key("!r", "t", 5)]).await.unwrap();
        assert_eq!(full(vec![key("!r", "s", 4), key("!r", "u", 1)]).await.unwrap(), KeysPut::Full);
        assert_eq!(full(vec![key("!r", "s", 4)]).await.unwrap(), KeysPut::Done { count: 2, etag: 2 });
    });
}

#[test]
fn keys_are_read_page_by_page_and_deleted_in_pieces() {
    each_backend(|store| async move {
        create(&store, ALICE).await;
        // Bytes order them, whatever a language says.
        let names = [("!B", "z"), ("!a", "S"), ("!a", "s"), ("!a", "t"), ("!b", "a"), ("!\u{e4}", "a")];
        put(&store, 1, names.iter().rev().map(|(room, session)| key(room, session, 1)).collect()).await;
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.backup_keys(ALICE, 1, None, after, 2).await.unwrap().unwrap();
            let Some(last) = page.last() else { break };
            after = Some((last.room_id.clone(), last.session_id.clone()));
            seen.extend(page.into_iter().map(|key| (key.room_id, key.session_id)));
        }
        assert_eq!(seen, named(&names));
        let of_room = store.backup_keys(ALICE, 1, Some("!a"), None, 2).await.unwrap().unwrap();
        assert_eq!(of_room, [key("!a", "S", 1), key("!a", "s", 1)]);
        let after = Some(("!a".to_owned(), "s".to_owned()));
        assert_eq!(store.backup_keys(ALICE, 1, Some("!a"), after, 2).await.unwrap().unwrap(), [key("!a", "t", 1)]);
        assert_eq!(store.backup_keys(ALICE, 2, None, None, 2).await.unwrap(), None);

        let delete = |which, limit| store.delete_backup_keys(ALICE, 1, which, limit);
        let room = || Which::Room("!a".to_owned());
        let one = Which::One("!b".to_owned(), "a".to_owned());
        assert_eq!(delete(one.clone(), 9).await.unwrap(), Some(DeletedKeys { gone: 1, count: 5, etag: 2 }));
        assert_eq!(delete(one, 9).await.unwrap(), Some(DeletedKeys { gone: 0, count: 5, etag: 2 }));
        assert_eq!(delete(room(), 2).await.unwrap(), Some(DeletedKeys { gone: 2, count: 3, etag: 3 }));
        assert_eq!(delete(room(), 2).await.unwrap(), Some(DeletedKeys { gone: 1, count: 2, etag: 4 }));
        assert_eq!(all(&store, 1).await, named(&[("!B", "z"), ("!\u{e4}", "a")]));
        assert_eq!(delete(Which::All, 9).await.unwrap(), Some(DeletedKeys { gone: 2, count: 0, etag: 5 }));
        assert_eq!(store.delete_backup_keys(ALICE, 2, Which::All, 9).await.unwrap(), None);
    });
}

#[test]
fn a_deleted_backup_is_gone_at_once_and_its_keys_soon() {
    each_backend(|store| async move {
        create(&store, ALICE).await;
        put(&store, 1, (0..5).map(|n| key("!r", &n.to_string(), 1)).collect()).await;
        assert_eq!(store.clean_backup(ALICE, 1, 9).await.unwrap(), 0, "it is not deleted");
        store.delete_backup(ALICE, 1, "j".to_owned(), 7).await.unwrap();
        assert_eq!(store.backup_key(ALICE, 1, "!r", "0").await.unwrap(), None);
        assert_eq!(store.backup_keys(ALICE, 1, None, None, 9).await.unwrap(), None);
        assert_eq!(put(&store, 1, vec![key("!r", "6", 1)]).await, KeysPut::Unknown);
        let items = store.lease(BACKUP_CLEANUP, "w", 10, 10, 9).await.unwrap();
        let jobs: Vec<DeletedBackup> = items.iter().map(|i| serde_json::from_str(&i.payload).unwrap()).collect();
        assert_eq!(jobs, [DeletedBackup { user_id: ALICE.to_owned(), version: 1 }]);
        assert_eq!(store.clean_backup(ALICE, 1, 3).await.unwrap(), 3);
        assert_eq!(store.clean_backup(ALICE, 1, 3).await.unwrap(), 2);
        assert_eq!(store.clean_backup(ALICE, 1, 3).await.unwrap(), 0);
    });
}

#[test]
fn backups_end_with_their_owner() {
    each_backend(|store| async move {
        let user = NewUser { user_id: ALICE.to_owned(), password_hash: None, admin: false, created_ms: 1 };
        store.register(user, None, None).await.unwrap();
        create(&store, ALICE).await;
        put(&store, 1, (0..5).map(|n| key("!r", &n.to_string(), 1)).collect()).await;
        create(&store, ALICE).await;
        create(&store, "@b:x").await;
        assert_eq!(store.clean_account(ALICE, 3).await.unwrap(), 0, "she is still here");
        store.deactivate(ALICE, false, Ending { at_ms: 9, job_id: "j".to_owned() }).await.unwrap();
        let mut gone = 0;
        loop {
            let batch = store.clean_account(ALICE, 3).await.unwrap();
            gone += batch;
            if batch == 0 {
                break;
            }
        }
        assert_eq!(gone, 5 + 2 + 1);
        assert_eq!(store.backup(ALICE, None).await.unwrap(), None);
        assert!(store.backup("@b:x", None).await.unwrap().is_some());
    });
}

#[test]
fn what_is_counted_is_there_however_many_write() {
    each_backend(|store| async move {
        create(&store, ALICE).await;
        let other = store.beside().await;
        // The same few sessions from two processes, better and worse, and some deleted between.
        let writes = (0..40i64).map(|n| {
            let store = if n % 2 == 0 { &store } else { &other };
            async move {
                if n % 10 == 9 {
                    let which = Which::One("!r".to_owned(), (n % 7).to_string());
                    store.delete_backup_keys(ALICE, 1, which, 1).await.unwrap().unwrap();
                } else {
                    let keys = (0..3).map(|i| key("!r", &((n + i) % 7).to_string(), 40 - n)).collect();
                    assert!(matches!(put(store, 1, keys).await, KeysPut::Done { .. }));
                }
            }
        });
        join_all(writes).await;
        let backup = store.backup(ALICE, None).await.unwrap().unwrap();
        assert_eq!(backup.count, all(&store, 1).await.len() as i64);
        // Two at once are told apart: each change has a number of its own.
        let changes = join_all((0..8).map(|n| put(&store, 1, vec![key("!new", &n.to_string(), 1)]))).await;
        let etags: std::collections::BTreeSet<i64> = changes
            .iter()
            .map(|put| match put {
                KeysPut::Done { etag, .. } => *etag,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(etags.len(), 8);
        // A new backup comes in between: what was told to be in the old one is there, and nothing else.
        let puts = (0..20).map(|n| put(&store, 1, vec![key("!late", &n.to_string(), 1)]));
        let (puts, _) = futures_util::future::join(join_all(puts), create(&other, ALICE)).await;
        let done = puts.iter().filter(|put| matches!(put, KeysPut::Done { .. })).count();
        assert!(puts.iter().all(|p| matches!(p, KeysPut::Done { .. } | KeysPut::WrongVersion { current: 2 })));
        assert_eq!(all(&store, 1).await.iter().filter(|(room, _)| room == "!late").count(), done);
    });
}
