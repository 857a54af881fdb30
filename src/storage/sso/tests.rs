use super::{
    confirmations::{Confirmations as _, MOST_CONFIRMATIONS},
    external::{ExternalId, ExternalIds as _, Joined, Linked, LinkedUser},
    logouts::{Ended, ProviderLogout, ProviderLogouts as _, Which},
    tokens::{LoginTokens as _, NewLoginToken, ProviderSession, TokenLogin},
    *,
};
use crate::{
    accounts::{Accounts as _, NewUser},
    sessions::{Ending, NewSession, Sessions as _},
    testing::{Store, each_backend},
};

fn user(name: &str) -> NewUser {
    NewUser { user_id: name.to_owned(), password_hash: None, admin: false, created_ms: 1 }
}

fn session(device: &str, token: u8) -> NewSession {
    NewSession {
        device_id: device.to_owned(),
        display_name: None,
        token_hash: [token; 32],
        created_ms: 10,
        expires_ms: None,
        refresh: None,
    }
}

fn ending(job: &str) -> Ending {
    Ending { at_ms: 20, job_id: job.to_owned() }
}

fn external(subject: &str, user: &str) -> ExternalId {
    ExternalId {
        provider: "p".to_owned(),
        subject: subject.to_owned(),
        user_id: user.to_owned(),
        email: None,
        created_ms: 1,
    }
}

fn flow(key: u8, cookie: u8, expires_ms: i64) -> NewFlow {
    NewFlow { key_hash: [key; 32], cookie_hash: [cookie; 32], step: "one", data: "{}".to_owned(), expires_ms }
}

#[test]
fn a_flow_is_taken_once_in_time_by_its_browser() {
    each_backend(|store| async move {
        store.keep_flow(flow(1, 2, 100)).await.unwrap();
        let found = store.flow([1; 32], "one", 99).await.unwrap().unwrap();
        assert_eq!(found, Flow { cookie_hash: vec![2; 32], data: "{}".to_owned() });
        assert_eq!(store.flow([1; 32], "two", 99).await.unwrap(), None);
        assert_eq!(store.flow([1; 32], "one", 100).await.unwrap(), None);
        for (cookie, step, now) in [(3, "one", 99), (2, "two", 99), (2, "one", 100)] {
            assert_eq!(store.take_flow([1; 32], [cookie; 32], step, now).await.unwrap(), None);
        }
        let all = (0..8).map(|_| store.take_flow([1; 32], [2; 32], "one", 99));
        let all = futures_util::future::join_all(all).await;
        assert_eq!(all.into_iter().filter(|taken| taken.as_ref().unwrap().is_some()).count(), 1);
        assert_eq!(store.flow([1; 32], "one", 99).await.unwrap(), None);
    });
}

#[test]
fn what_is_old_goes() {
    each_backend(|store| async move {
        for key in 0..5 {
            store.keep_flow(flow(key, 0, i64::from(key) + 1)).await.unwrap();
            let token = NewLoginToken {
                token_hash: [key; 32],
                user_id: "@a:x".to_owned(),
                from: None,
                expires_ms: i64::from(key) + 1,
            };
            store.keep_login_token(token).await.unwrap();
            store.ask_confirmation([key; 32], "@a:x", "deed", i64::from(key) + 1).await.unwrap();
        }
        assert_eq!(store.purge_sso(3, 2).await.unwrap(), 6);
        assert_eq!(store.purge_sso(3, 2).await.unwrap(), 3);
        assert_eq!(store.purge_sso(3, 2).await.unwrap(), 0);
        assert!(store.flow([3; 32], "one", 3).await.unwrap().is_some());
    });
}

#[test]
fn somebody_is_one_user() {
    each_backend(|store| async move {
        assert_eq!(store.join(user("@a:x"), external("1", "@a:x")).await.unwrap(), Joined::Done);
        let a = LinkedUser { user_id: "@a:x".to_owned(), deactivated: false };
        assert_eq!(store.linked_user("p", "1").await.unwrap(), Some(a.clone()));
        assert_eq!(store.linked_user("q", "1").await.unwrap(), None);
        assert_eq!(store.join(user("@b:x"), external("1", "@b:x")).await.unwrap(), Joined::Already(a.clone()));
        assert!(store.user("@b:x").await.unwrap().is_none());
        assert_eq!(store.join(user("@a:x"), external("2", "@a:x")).await.unwrap(), Joined::Taken);
        assert_eq!(store.linked_user("p", "2").await.unwrap(), None);

        assert_eq!(store.link(external("1", "@b:x"), false).await.unwrap(), Linked::Already(a.clone()));
        assert_eq!(store.link(external("2", "@b:x"), false).await.unwrap(), Linked::NoUser);
        assert_eq!(store.link(external("2", "@a:x"), true).await.unwrap(), Linked::Other);
        assert_eq!(store.link(external("2", "@a:x"), false).await.unwrap(), Linked::Done);
        assert_eq!(store.external_ids("@a:x").await.unwrap().len(), 2);

        store.set_external_email("p", "1", Some("a@b.c")).await.unwrap();
        assert_eq!(store.external_ids("@a:x").await.unwrap()[0].email.as_deref(), Some("a@b.c"));
        store.set_external_email("p", "1", None).await.unwrap();
        assert_eq!(store.external_ids("@a:x").await.unwrap()[0].email, None);

        store.deactivate("@a:x", false, ending("j")).await.unwrap();
        let ended = LinkedUser { deactivated: true, ..a };
        assert_eq!(store.linked_user("p", "1").await.unwrap(), Some(ended));
        assert_eq!(store.link(external("3", "@a:x"), false).await.unwrap(), Linked::NoUser);
    });
}

#[test]
fn of_many_accounts_at_once_somebody_gets_one() {
    each_backend(|store| async move {
        let names: Vec<String> = (0..8).map(|n| format!("@{n}:x")).collect();
        let all = names.iter().map(|name| store.join(user(name), external("1", name)));
        let all = futures_util::future::join_all(all).await;
        assert_eq!(all.iter().filter(|joined| matches!(joined, Ok(Joined::Done))).count(), 1, "{all:?}");
        assert_eq!(store.users("", 9).await.unwrap().len(), 1);
    });
}

async fn token(store: &Store, n: u8, subject: Option<(&str, Option<&str>)>) -> [u8; 32] {
    let from = subject.map(|(subject, sid)| ProviderSession {
        provider: "p".to_owned(),
        subject: subject.to_owned(),
        sid: sid.map(ToOwned::to_owned),
    });
    let token = NewLoginToken { token_hash: [n; 32], user_id: "@a:x".to_owned(), from, expires_ms: 100 };
    store.keep_login_token(token).await.unwrap();
    [n; 32]
}

#[test]
fn a_login_token_is_traded_once() {
    each_backend(|store| async move {
        store.register(user("@a:x"), None, None).await.unwrap();
        let one = token(&store, 1, None).await;
        let done = |ended| TokenLogin::Done { user_id: "@a:x".to_owned(), ended };
        assert_eq!(store.login_by_token([9; 32], session("D", 1)).await.unwrap(), TokenLogin::Refused);
        let late = NewSession { created_ms: 100, ..session("D", 1) };
        assert_eq!(store.login_by_token(one, late).await.unwrap(), TokenLogin::Refused);
        let all = (1..8).map(|n| store.login_by_token(one, session(&format!("D{n}"), n)));
        let all = futures_util::future::join_all(all).await;
        assert_eq!(all.iter().filter(|login| *login.as_ref().unwrap() == done(false)).count(), 1, "{all:?}");
        assert_eq!(store.devices("@a:x").await.unwrap().len(), 1);
        // On a device that is there, as by any login.
        let device = store.devices("@a:x").await.unwrap()[0].device_id.clone();
        let two = token(&store, 2, None).await;
        assert_eq!(store.login_by_token(two, session(&device, 50)).await.unwrap(), done(true));

        let three = token(&store, 3, None).await;
        store.deactivate("@a:x", false, ending("j")).await.unwrap();
        assert_eq!(store.login_by_token(three, session("E", 60)).await.unwrap(), TokenLogin::Refused);
    });
}

fn logout(id: u8, which: Which) -> ProviderLogout {
    let ending = ending(&format!("j{id}"));
    ProviderLogout { provider: "p".to_owned(), which, id_hash: [id; 32], expires_ms: 100, ending }
}

#[test]
fn a_provider_ends_what_began_by_it() {
    each_backend(|store| async move {
        store.register(user("@a:x"), Some(session("own", 100)), None).await.unwrap();
        for (n, device, from) in [
            (1, "A", Some(("1", Some("s")))),
            (2, "B", Some(("1", Some("t")))),
            (3, "C", Some(("1", None))),
            (4, "other", Some(("2", Some("u")))),
            (5, "by token", None),
        ] {
            let token = token(&store, n, from).await;
            store.login_by_token(token, session(device, n)).await.unwrap();
        }
        let left = async || -> Vec<String> {
            let mut ids: Vec<_> = store.devices("@a:x").await.unwrap().into_iter().map(|d| d.device_id).collect();
            ids.sort();
            ids
        };
        let pending = token(&store, 9, Some(("1", Some("s")))).await;
        let s = Which::Session("s".to_owned());
        let a = || Ended::Done(vec!["@a:x".to_owned()]);
        assert_eq!(store.end_provider_sessions(logout(1, s.clone())).await.unwrap(), a());
        assert_eq!(left().await, ["B", "C", "by token", "other", "own"]);
        assert_eq!(store.session_by_token([1; 32]).await.unwrap(), None);
        assert_eq!(store.login_by_token(pending, session("X", 70)).await.unwrap(), TokenLogin::Refused);
        assert_eq!(store.end_provider_sessions(logout(1, s.clone())).await.unwrap(), Ended::Again);
        assert_eq!(store.end_provider_sessions(logout(2, s)).await.unwrap(), Ended::Done(vec![]));
        let wrong = Which::SessionOf { sid: "t".to_owned(), subject: "2".to_owned() };
        assert_eq!(store.end_provider_sessions(logout(3, wrong)).await.unwrap(), Ended::Done(vec![]));
        let elsewhere = ProviderLogout { provider: "q".to_owned(), ..logout(4, Which::AllOf("1".to_owned())) };
        assert_eq!(store.end_provider_sessions(elsewhere).await.unwrap(), Ended::Done(vec![]));
        assert_eq!(store.end_provider_sessions(logout(5, Which::AllOf("1".to_owned()))).await.unwrap(), a());
        assert_eq!(left().await, ["by token", "other", "own"]);

        // Who logs in on the device by another way has nothing to do with the provider.
        let six = token(&store, 6, None).await;
        store.login_by_token(six, session("other", 80)).await.unwrap();
        assert_eq!(
            store.end_provider_sessions(logout(6, Which::AllOf("2".to_owned()))).await.unwrap(),
            Ended::Done(vec![])
        );
        assert_eq!(store.purge_sso(100, 1).await.unwrap(), 6);
    });
}

#[test]
fn a_confirmation_is_of_one_user_and_deed_and_counts_once() {
    each_backend(|store| async move {
        store.ask_confirmation([1; 32], "@a:x", "deed", 100).await.unwrap();
        store.ask_confirmation([1; 32], "@b:x", "other", 100).await.unwrap();
        let asked = store.confirmation([1; 32], 99).await.unwrap().unwrap();
        assert_eq!((asked.user_id.as_str(), asked.deed.as_str(), asked.done), ("@a:x", "deed", false));
        assert_eq!(store.confirmation([1; 32], 100).await.unwrap(), None);
        assert!(!store.use_confirmation([1; 32], "@a:x", "deed", 99).await.unwrap(), "it is not confirmed");
        assert!(!store.confirm([1; 32], "@b:x", 200, 99).await.unwrap());
        assert!(!store.confirm([1; 32], "@a:x", 200, 100).await.unwrap());
        assert!(store.confirm([1; 32], "@a:x", 200, 99).await.unwrap());
        assert!(!store.confirm([1; 32], "@a:x", 300, 99).await.unwrap());
        for (user, deed, now) in [("@b:x", "deed", 150), ("@a:x", "other", 150), ("@a:x", "deed", 200)] {
            assert!(!store.use_confirmation([1; 32], user, deed, now).await.unwrap());
        }
        let all = (0..8).map(|_| store.use_confirmation([1; 32], "@a:x", "deed", 199));
        let all = futures_util::future::join_all(all).await;
        assert_eq!(all.into_iter().filter(|used| *used.as_ref().unwrap()).count(), 1);
    });
}

#[test]
fn a_user_is_in_the_middle_of_so_much_and_no_more() {
    each_backend(|store| async move {
        let most = u8::try_from(MOST_CONFIRMATIONS).unwrap();
        for n in 0..=most {
            store.ask_confirmation([n; 32], "@a:x", "deed", 100 + i64::from(n)).await.unwrap();
        }
        assert_eq!(store.confirmation([0; 32], 1).await.unwrap(), None);
        for n in 1..=most {
            assert!(store.confirmation([n; 32], 1).await.unwrap().is_some());
        }
    });
}
