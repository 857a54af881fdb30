//! Logins that one process begins and another ends.

use super::*;
use crate::support::each_backend;

each_backend! {
    async fn a_login_outlives_the_process_that_it_began_on(given: Given) {
        let provider = Provider::start().await;
        provider.knows(somebody("alice"));
        let server = server_of(given, &provider).await;
        let browser = Browser::of(&server);
        let back = browser.comes_back("house", APP).await;
        server.stop().await;
        let server = server_of(given, &provider).await;
        let browser = browser.turns_to(&server);
        let asked = browser.opens(&back).await;
        asked.says(200, "Do you know this app?");
        server.stop().await;
        let server = server_of(given, &provider).await;
        let browser = browser.turns_to(&server);
        let token = goes_on(&browser, asked).await.token();
        server.stop().await;
        let server = server_of(given, &provider).await;
        trade(&server, &token).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_take_turns() {
    let given = Given::postgres().await;
    let provider = Provider::start().await;
    provider.knows(somebody("alice"));
    let (one, two) = (server_of(&given, &provider).await, server_of(&given, &provider).await);
    let browser = Browser::of(&one);
    let back = browser.comes_back("house", APP).await;
    let browser = browser.turns_to(&two);
    let asked = browser.opens(&back).await;
    let browser = browser.turns_to(&one);
    browser.opens(&back).await.says(400, "took too long, or is done already");
    let token = goes_on(&browser, asked).await.token();
    let both = futures_util::future::join(trade(&one, &token), trade(&two, &token)).await;
    let mut statuses = [both.0.status, both.1.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403]);
    // A session that the provider ends is over on the other, too, once it has heard of it.
    let welcome = if both.0.status == 200 { both.0 } else { both.1 };
    let alice = Person::from(&one, &welcome.ok());
    let there = alice.turns_to(&two);
    there.get("/account/whoami").await.ok();
    let token = provider.says_logged_out(CLIENT, &json!({ "sub": "subject of alice" }));
    let url = format!("{HOME}/_hearth/sso/backchannel/house");
    let told = Browser::of(&one).asks(reqwest::Method::POST, &url, Some(&[("logout_token", &token)])).await;
    assert_eq!(told.status, 200);
    alice.get("/account/whoami").await.refused(401, "M_UNKNOWN_TOKEN");
    let gone = async { while there.get("/account/whoami").await.status == 200 {} };
    tokio::time::timeout(crate::support::people::LONG, gone).await.expect("the other process hears of it");
    one.stop().await;
    two.stop().await;
    given.clean_up().await;
}
