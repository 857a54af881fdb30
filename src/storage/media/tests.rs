//! What the repository promises, on both engines.

use futures_util::future::join_all;

use super::*;
use crate::testing::{Store, each_backend};

const DAY: i64 = 24 * 60 * 60 * 1000;

fn hash(content: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..content.len()].copy_from_slice(content.as_bytes());
    hash
}

/// What is ten bytes long and was just written, under a key of its own.
fn written(content: &str, key: &str) -> Content {
    let file = NewFile { key: key.to_owned(), sniffed: "image/png".to_owned() };
    Content { sha256: hash(content), bytes: 10, written: Some(file) }
}

fn known(content: &str) -> Content {
    Content { sha256: hash(content), bytes: 10, written: None }
}

fn alice() -> Named {
    Named::New { user_id: "@a:x".to_owned() }
}

fn attach(media_id: &str, named: Named, content: Content, at_ms: i64) -> Attach {
    Attach {
        server_name: "x".to_owned(),
        media_id: media_id.to_owned(),
        named,
        content,
        content_type: "image/png".to_owned(),
        file_name: Some("cat.png".to_owned()),
        at_ms,
        quota: None,
    }
}

/// Somebody uploads something that was not there.
async fn uploads(store: &Store, media_id: &str, content: &str, key: &str, at_ms: i64) -> Attached {
    store.expect_file(key, at_ms + DAY).await.unwrap();
    store.attach_media(attach(media_id, alice(), written(content, key), at_ms)).await.unwrap()
}

async fn file_of(store: &Store, media_id: &str) -> Option<String> {
    store.media("x", media_id).await.unwrap()?.file.map(|file| file.key)
}

async fn to_be_removed(store: &Store) -> Vec<String> {
    let mut keys = store.unaccounted_files(i64::MAX, 9).await.unwrap();
    keys.sort();
    keys
}

fn reservation(media_id: &str) -> Reservation {
    Reservation {
        server_name: "x".to_owned(),
        media_id: media_id.to_owned(),
        user_id: "@a:x".to_owned(),
        created_ms: 0,
        expires_ms: DAY,
    }
}

fn reserved(user_id: &str) -> Named {
    Named::Reserved { user_id: user_id.to_owned() }
}

#[test]
fn the_same_content_is_one_file() {
    each_backend(|store| async move {
        assert_eq!(uploads(&store, "1", "cat", "k1", 1).await, Attached::Done);
        assert!(store.has_content(hash("cat")).await.unwrap() && !store.has_content(hash("dog")).await.unwrap());
        assert_eq!(store.attach_media(attach("2", alice(), known("cat"), 2)).await.unwrap(), Attached::Done);
        // Written by somebody who did not know of the other.
        assert_eq!(uploads(&store, "3", "cat", "k3", 3).await, Attached::Done);
        for media_id in ["1", "2", "3"] {
            assert_eq!(file_of(&store, media_id).await.as_deref(), Some("k1"));
        }
        assert_eq!(to_be_removed(&store).await, ["k3"]);
        assert_eq!(store.unaccounted_files(3, 9).await.unwrap(), ["k3"], "it is due at once");
        let total = store.media_total("@a:x").await.unwrap();
        assert_eq!(total, MediaTotal { files: 3, bytes: 30, waiting: 0 });
        let media = store.media("x", "1").await.unwrap().unwrap();
        let file =
            File { key: "k1".to_owned(), sha256: hash("cat").to_vec(), bytes: 10, sniffed: "image/png".to_owned() };
        assert_eq!((media.file.as_ref(), media.file_name.as_deref()), (Some(&file), Some("cat.png")));
        assert_eq!(store.files_after("", 9).await.unwrap(), [file]);
        assert_eq!(store.files_after("k1", 9).await.unwrap(), []);
    });
}

#[test]
fn what_is_not_in_the_store_stands_for_nothing() {
    each_backend(|store| async move {
        assert_eq!(store.attach_media(attach("1", alice(), known("cat"), 1)).await.unwrap(), Attached::NotStored);
        // It took so long that what was written has been removed.
        let late = store.attach_media(attach("1", alice(), written("cat", "k1"), 1)).await.unwrap();
        assert_eq!(late, Attached::NotStored);
        assert_eq!(store.media("x", "1").await.unwrap(), None);
        assert_eq!(store.media_total("@a:x").await.unwrap(), MediaTotal::default());
    });
}

#[test]
fn what_is_written_and_stands_for_nothing_is_removed() {
    each_backend(|store| async move {
        store.expect_file("k1", 100).await.unwrap();
        assert_eq!(store.unaccounted_files(99, 9).await.unwrap(), [""; 0]);
        assert_eq!(store.unaccounted_files(100, 9).await.unwrap(), ["k1"]);
        store.files_gone(vec!["k1".to_owned()]).await.unwrap();
        assert_eq!(store.unaccounted_files(100, 9).await.unwrap(), [""; 0]);
    });
}

#[test]
fn a_reserved_uri_is_filled_once_by_its_owner() {
    each_backend(|store| async move {
        assert!(store.reserve_media(reservation("1"), 2).await.unwrap());
        assert!(store.reserve_media(reservation("2"), 2).await.unwrap());
        assert!(!store.reserve_media(reservation("3"), 2).await.unwrap(), "two may wait");
        assert_eq!(store.media("x", "1").await.unwrap().unwrap().file, None);
        uploads(&store, "0", "cat", "k1", 1).await;
        let fills = async |media_id: &str, who: &str, at_ms: i64| {
            store.attach_media(attach(media_id, reserved(who), known("cat"), at_ms)).await.unwrap()
        };
        assert_eq!(fills("1", "@b:x", 2).await, Attached::NotYours);
        assert_eq!(fills("3", "@a:x", 2).await, Attached::NotReserved);
        assert_eq!(fills("1", "@a:x", DAY).await, Attached::NotReserved, "too late");
        assert_eq!(fills("1", "@a:x", 2).await, Attached::Done);
        assert_eq!(fills("1", "@a:x", 2).await, Attached::Taken);
        assert_eq!(file_of(&store, "1").await.as_deref(), Some("k1"));
        assert_eq!(store.media_total("@a:x").await.unwrap(), MediaTotal { files: 2, bytes: 20, waiting: 1 });
        assert!(store.reserve_media(reservation("3"), 2).await.unwrap(), "one has been filled");
        // What nobody filled in time is forgotten, and does not wait any more.
        assert_eq!(store.forget_old_media(Old::Reserved { now_ms: DAY }, 9).await.unwrap(), 2);
        assert_eq!(store.media_total("@a:x").await.unwrap(), MediaTotal { files: 2, bytes: 20, waiting: 0 });
        assert_eq!(store.media("x", "2").await.unwrap(), None);
        assert!(store.media("x", "1").await.unwrap().is_some());
    });
}

#[test]
fn a_user_has_so_many_bytes() {
    each_backend(|store| async move {
        uploads(&store, "1", "cat", "k1", 1).await;
        let with = async |quota| {
            let attach = Attach { quota: Some(quota), ..attach("2", alice(), known("cat"), 2) };
            store.attach_media(attach).await.unwrap()
        };
        assert_eq!(with(19).await, Attached::OverQuota);
        assert_eq!(with(20).await, Attached::Done);
        assert_eq!(with(20).await, Attached::OverQuota);
    });
}

#[test]
fn a_file_goes_with_the_last_that_stands_for_it() {
    each_backend(|store| async move {
        uploads(&store, "1", "cat", "k1", 1).await;
        store.attach_media(attach("2", alice(), known("cat"), 5)).await.unwrap();
        uploads(&store, "3", "dog", "k3", 3).await;
        let old = |before| Old::Of { kind: "local", since: Since::CreatedBefore(before) };
        assert_eq!(store.forget_old_media(old(1), 9).await.unwrap(), 0);
        assert_eq!(store.forget_old_media(old(4), 1).await.unwrap(), 1, "a piece");
        assert_eq!(store.forget_old_media(old(4), 9).await.unwrap(), 1);
        assert_eq!(to_be_removed(&store).await, ["k3"]);
        assert_eq!(store.media_total("@a:x").await.unwrap(), MediaTotal { files: 1, bytes: 10, waiting: 0 });
        let preview = Old::Of { kind: "preview", since: Since::CreatedBefore(i64::MAX) };
        assert_eq!(store.forget_old_media(preview, 9).await.unwrap(), 0);
        // Somebody has looked at it since.
        store.media_used("x", vec!["2".to_owned()], 7).await.unwrap();
        let unused = |before| Old::Of { kind: "local", since: Since::UsedBefore(before) };
        assert_eq!(store.forget_old_media(unused(7), 9).await.unwrap(), 0);
        assert_eq!(store.forget_old_media(unused(8), 9).await.unwrap(), 1);
        assert_eq!(to_be_removed(&store).await, ["k1", "k3"]);
        assert_eq!(store.files_after("", 9).await.unwrap(), []);
        assert_eq!(store.media_total("@a:x").await.unwrap(), MediaTotal::default());
    });
}

fn thumbnail(of: &str, variant: &str, content: Content) -> NewThumbnail {
    NewThumbnail {
        file_key: of.to_owned(),
        variant: variant.to_owned(),
        content,
        content_type: "image/jpeg".to_owned(),
        at_ms: 9,
    }
}

#[test]
fn thumbnails_go_with_their_picture() {
    each_backend(|store| async move {
        uploads(&store, "1", "cat", "k1", 1).await;
        let keeps = async |variant: &str, content: &str, key: &str| {
            store.expect_file(key, DAY).await.unwrap();
            store.keep_thumbnail(thumbnail("k1", variant, written(content, key))).await.unwrap()
        };
        assert_eq!(keeps("32x32", "small", "t1").await.unwrap().file.key, "t1");
        assert_eq!(keeps("96x96", "small", "t2").await.unwrap().file.key, "t1", "the same picture twice");
        assert_eq!(keeps("32x32", "other", "t3").await.unwrap().file.key, "t1", "the first is kept");
        assert_eq!(to_be_removed(&store).await, ["t2", "t3"]);
        let found = store.thumbnail("k1", "96x96").await.unwrap().unwrap();
        assert_eq!((found.file.key.as_str(), found.content_type.as_str()), ("t1", "image/jpeg"));
        assert_eq!(store.thumbnail("k1", "320x240").await.unwrap(), None);

        let all = Old::Of { kind: "local", since: Since::CreatedBefore(i64::MAX) };
        store.forget_old_media(all, 9).await.unwrap();
        assert_eq!(to_be_removed(&store).await, ["k1", "t1", "t2", "t3"]);
        assert_eq!(store.thumbnail("k1", "32x32").await.unwrap(), None);
        assert_eq!(keeps("32x32", "small", "t4").await, None, "there is no picture");
    });
}

#[test]
fn what_is_uploaded_while_it_is_forgotten_is_there_or_is_written_anew() {
    each_backend(|store| async move {
        let store = &store;
        for round in 0..20i64 {
            let key = format!("k{round}");
            uploads(store, &format!("old{round}"), "cat", &key, 1).await;
            let forget = async {
                let all = Old::Of { kind: "local", since: Since::CreatedBefore(2) };
                store.forget_old_media(all, 9).await.unwrap();
            };
            let upload = async |n: i64| {
                let media_id = format!("new{round}-{n}");
                let done = store.attach_media(attach(&media_id, alice(), known("cat"), 3)).await.unwrap();
                (media_id, done)
            };
            let (uploaded, ()) = futures_util::future::join(join_all((0..4).map(upload)), forget).await;
            for (media_id, done) in uploaded {
                let there = file_of(store, &media_id).await;
                assert_eq!(there.is_some(), done == Attached::Done, "{media_id} {done:?}");
            }
            let rest = Old::Of { kind: "local", since: Since::CreatedBefore(i64::MAX) };
            store.forget_old_media(rest, 9).await.unwrap();
            assert_eq!(store.files_after("", 9).await.unwrap(), []);
        }
    });
}
