//! What a client asks first.

use serde_json::json;

use crate::support::{
    Given, each_backend,
    people::{Person, open_server},
};

each_backend! {
    async fn a_server_says_what_it_can(given: Given) {
        let server = given.server().await;
        let versions = server.get("/_matrix/client/versions").await.ok();
        assert!(versions["versions"].as_array().expect("a list").iter().any(|v| v == "v1.1"));
        server.get("/_matrix/client/v3/capabilities").await.refused(401, "M_MISSING_TOKEN");
        server.stop().await;
        let server = open_server(given).await;
        let alice = Person::registers(&server, "alice").await;
        let can = alice.get("/capabilities").await.ok()["capabilities"].clone();
        assert_eq!(can["m.change_password"]["enabled"], true);
        assert_eq!(can["m.profile_fields"]["enabled"], true);
        assert_eq!(can["m.3pid_changes"]["enabled"], false);
        let rooms = &can["m.room_versions"];
        let default = rooms["default"].as_str().expect("a version");
        assert_eq!(rooms["available"][default], "stable");
        assert!(server.stop().await);
    }

    async fn a_server_says_how_it_is(given: Given) {
        let server = given.server().await;
        assert_eq!(server.get("/health").await.ok()["status"], "ok");
        assert_eq!(server.get("/health/ready").await.ok()["status"], "ok");
    }
}

#[tokio::test]
async fn well_known_says_what_was_set() {
    let given = Given::sqlite();
    let silent = given.server().await;
    silent.get("/.well-known/matrix/client").await.refused(404, "M_NOT_FOUND");
    silent.get("/.well-known/matrix/server").await.refused(404, "M_NOT_FOUND");
    silent.get("/.well-known/matrix/support").await.refused(404, "M_NOT_FOUND");
    silent.stop().await;

    let server = given
        .server_with(|config| {
            config.server.well_known.client = Some("https://matrix.test.example".into());
            config.server.well_known.support_page = Some("https://test.example/help".into());
            config.server.well_known.support_email = Some("help@test.example".into());
            config.server.well_known.support_mxid = Some("@help:test.example".try_into().expect("an id"));
            config.server.well_known.server = Some("matrix.test.example:443".try_into().expect("a name"));
        })
        .await;
    let client = server.get("/.well-known/matrix/client").await;
    assert_eq!(client.ok()["m.homeserver"]["base_url"], "https://matrix.test.example");
    assert_eq!(client.header("access-control-allow-origin"), Some("*"), "browsers read it from other sites");
    assert_eq!(server.get("/.well-known/matrix/server").await.ok()["m.server"], "matrix.test.example:443");
    let help = server.get("/.well-known/matrix/support").await.ok();
    assert_eq!(help["support_page"], "https://test.example/help");
    let somebody =
        json!({ "role": "m.role.admin", "email_address": "help@test.example", "matrix_id": "@help:test.example" });
    assert_eq!(help["contacts"], json!([somebody]));
}

#[tokio::test]
async fn metrics_are_on_a_listener_of_their_own() {
    let given = Given::sqlite();
    let server = given.server_with(|config| config.metrics.metrics_port = Some(0)).await;
    server.get("/_matrix/client/versions").await.ok();
    server.get("/metrics").await.refused(404, "M_UNRECOGNIZED");
    let metrics = server.metrics();
    metrics.get("/_matrix/client/versions").await.refused(404, "M_UNRECOGNIZED");
    let text = metrics.get("/metrics").await.text;
    for line in [
        r#"hearth_http_requests_total{method="GET",route="/_matrix/client/versions",status="200"}"#,
        r#"hearth_http_request_duration_seconds_bucket{method="GET",route="/_matrix/client/versions",le="0.001"}"#,
        "# HELP hearth_http_panics_total",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}
