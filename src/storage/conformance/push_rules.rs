//! Push rules that somebody changed: how they count, and who has to know of them.

use hearth_core::push::{Classes, DEFAULT_CLASS};

use super::{
    rooms::{membership, message},
    unread::{USERS, counts},
    *,
};
use crate::{
    AccountDataChange, ChangedRules, Error, Notice, Scope,
    account_data::AccountDataSet,
    push_rules::PushRules as _,
    rooms::{OTHER_RULES, Rooms as _},
};

impl Store {
    /// From now on they are of these classes.
    pub(super) async fn classes(&self, user: &str, elsewhere: &str, rooms: &[(&str, &str)]) {
        let change = AccountDataChange {
            user_id: user.to_owned(),
            scope: Scope::Global,
            kind: "m.push_rules".to_owned(),
            content: Some("{}".to_owned()),
            expects: None,
            quota: None,
        };
        let rooms = rooms.iter().map(|(room, class)| ((*room).to_owned(), (*class).to_owned())).collect();
        let set = self.set_push_rules(change, Classes { elsewhere: elsewhere.to_owned(), rooms }).await.unwrap();
        assert!(matches!(set, AccountDataSet::Done(_)), "{set:?}");
    }
}

#[test]
fn each_counts_by_the_rules_they_had_then() {
    each_backend(|store| async move {
        let [alice, bob, carol, _] = USERS;
        let mut room = store.makes_room("a").await;
        let mut other = store.makes_room("b").await;
        store.says(&mut room, &[membership(bob, bob, "join"), membership(carol, carol, "join")]).await;
        store.says(&mut other, &[membership(bob, bob, "join")]).await;
        let (here, there) = (room.id.clone(), other.id.clone());
        let silent = || Notice {
            classes: vec![(DEFAULT_CLASS.to_owned(), counts(1, 0)), ("quiet".to_owned(), counts(-1, 0))],
            ..Notice::default()
        };
        let (sn, other_sn) = (room.sn, other.sn);
        let of = async |user: &str, sn: i64| store.unread_of(user).await.remove(&sn).unwrap();
        let n = async |user: &str, sn: i64| of(user, sn).await.all().notify;

        store.counts(&mut room, message(alice, "1"), silent()).await;
        store.classes(bob, "", &[(&here, "quiet")]).await;
        assert_eq!((of(bob, sn).await.class(), of(bob, other_sn).await.class()), ("quiet", ""));
        store.counts(&mut room, message(alice, "2"), silent()).await;
        store.counts(&mut room, message(carol, "3"), silent()).await;
        store.counts(&mut other, message(alice, "4"), silent()).await;
        assert_eq!((n(bob, sn).await, n(bob, other_sn).await, n(carol, sn).await), (1, 1, 2));
        store.classes(bob, "quiet", &[(&here, "")]).await;
        store.counts(&mut room, message(alice, "5"), silent()).await;
        let read = store.counts(&mut other, message(alice, "6"), silent()).await;
        assert_eq!((n(bob, sn).await, n(bob, other_sn).await), (2, 1), "here it counts again, and elsewhere no more");
        assert_eq!((of(bob, sn).await.class(), of(bob, other_sn).await.class()), ("", "quiet"));
        // A room that has had its own class is of the other one when no rule is about it any more.
        store.classes(bob, "quiet", &[]).await;
        store.counts(&mut room, message(alice, "7"), silent()).await;
        assert_eq!(n(bob, sn).await, 2);
        store.classes(bob, "", &[(&there, "quiet")]).await;
        store.counts(&mut room, message(alice, "8"), silent()).await;
        store.counts(&mut other, message(alice, "9"), silent()).await;
        assert_eq!((n(bob, sn).await, n(bob, other_sn).await), (3, 1));
        store.reads(&other, bob, ("m.read", ""), &read).await;
        assert_eq!(n(bob, other_sn).await, 0);

        // Whoever changes them again and again is not remembered for ever.
        for turn in 0..90 {
            store.classes(bob, ["quiet", ""][turn % 2], &[]).await;
        }
        assert_eq!(n(bob, sn).await, 3);
        for turn in 0..90 {
            store.classes(bob, ["quiet", ""][turn % 2], &[]).await;
        }
        assert_eq!(n(bob, sn).await, 6, "all that was ever said there");
        let last = store.counts(&mut room, message(alice, "10"), silent()).await;
        store.reads(&room, bob, ("m.read", ""), &last).await;
        store.classes(bob, "quiet", &[]).await;
        store.counts(&mut room, message(alice, "11"), silent()).await;
        assert_eq!(n(bob, sn).await, 0);
    });
}

#[test]
fn what_was_judged_by_old_rules_is_not_stored() {
    each_backend(|store| async move {
        let [alice, bob, ..] = USERS;
        let mut room = store.makes_room("a").await;
        store.says(&mut room, &[membership(bob, bob, "join")]).await;
        store.classes(bob, "quiet", &[]).await;
        let changes = store.push_rules_after(0, 10).await.unwrap();
        let at = changes.last;
        assert_eq!(changes.users, [(bob.to_owned(), at)]);
        assert!(store.push_rules_after(at, 10).await.unwrap().users.is_empty());
        assert!(store.push_rules_after(0, 1).await.unwrap().too_many);

        let (mut commit, after) = room.commit(store.numbers(1).await, &[message(alice, "hi")]);
        commit.rules_as_of = at - 1;
        let plain = store.persist(commit.clone()).await;
        assert!(matches!(plain, Err(Error::Conflict(OTHER_RULES))), "{plain:?}");
        // Of two that are stored together, this is refused, too.
        let mut good = commit.clone();
        good.rules_as_of = at;
        let (first, second) = (store.persist(good), store.persist(commit));
        let (first, second) = (first.await, second.await);
        assert!(first.is_ok(), "{first:?}");
        assert!(matches!(second, Err(Error::Conflict(_))), "{second:?}");
        room = after;

        // Who has to be known in the room: those who are there and changed their rules.
        store.classes(alice, "", &[]).await;
        store.classes(USERS[2], "loud", &[]).await;
        let last = store.push_rules_after(0, 10).await.unwrap().last;
        let all = store.push_rules_in(room.sn, "", 10).await.unwrap();
        let known = |of: &[ChangedRules]| {
            of.iter().map(|of| (of.user_id.clone(), of.class.clone(), of.joined)).collect::<Vec<_>>()
        };
        let (a, b) = ((alice.to_owned(), String::new(), true), (bob.to_owned(), "quiet".to_owned(), true));
        assert_eq!((known(&all.members), all.as_of), (vec![a.clone(), b.clone()], last));
        assert_eq!(known(&store.push_rules_in(room.sn, alice, 10).await.unwrap().members), [b.clone()]);
        assert_eq!(known(&store.push_rules_in(room.sn, "", 1).await.unwrap().members), [a]);
        let users = USERS.map(ToOwned::to_owned).to_vec();
        let mut some = known(&store.push_rules_of(room.sn, users[1..].to_vec()).await.unwrap());
        some.sort();
        assert_eq!(some, [b, (USERS[2].to_owned(), "loud".to_owned(), false)]);
    });
}
