//! The program as an operator runs it.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::support::{Given, Http};

const LONG: Duration = Duration::from_secs(20);

fn hearth(given: &Given, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    // A bare environment: nothing of the machine's is a setting here.
    command.current_dir(given.dir()).env_clear().args(arguments).kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> Output {
    timeout(LONG, command.output()).await.expect("an end").expect("a program")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test]
async fn config_check_fails_on_what_is_unknown_or_wrong() {
    let given = Given::sqlite();
    let good = output(hearth(&given, &["config", "check"])).await;
    assert!(good.status.success(), "{}", text(&good));
    let known_elsewhere = output(hearth(&given, &["config", "check", "-O", "rocksdb_x=1"])).await;
    assert!(known_elsewhere.status.success() && text(&known_elsewhere).contains("no effect"));
    for bad in ["portt=1", "port=x", "database_backend=rocksdb"] {
        let output = output(hearth(&given, &["-O", bad, "config", "check"])).await;
        assert!(!output.status.success(), "{bad}: {}", text(&output));
    }
    let mut variable = hearth(&given, &["config", "check"]);
    variable.env("CONDUIT_PROT", "1");
    let output = output(variable).await;
    assert!(!output.status.success() && text(&output).contains("did you mean `port`?"), "{}", text(&output));
}

#[tokio::test]
async fn a_bad_configuration_does_not_start() {
    let given = Given::sqlite();
    let output = output(hearth(&given, &["-O", "database_backend=rocksdb"])).await;
    assert!(!output.status.success());
    assert!(text(&output).contains("database_backend"), "{}", text(&output));
}

/// To let anybody in takes two keys. One alone lets in those to whom the operator gave a token.
#[tokio::test]
async fn registration_is_not_opened_by_one_key() {
    let given = Given::sqlite();
    let mut child = hearth(&given, &["-O", "port=0", "-O", "allow_registration=true"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a program");
    let http = Http::to(address(&mut child).await);
    let wish =
        serde_json::json!({ "username": "eve", "password": "a long password", "auth": { "type": "m.login.dummy" } });
    let reply = http.post("/_matrix/client/v3/register", &wish).await;
    assert_eq!(reply.status, 401, "{}", reply.text);
    assert_eq!(reply.json()["flows"], serde_json::json!([{ "stages": ["m.login.registration_token"] }]));
    send("-TERM", &child);
    assert!(timeout(LONG, child.wait()).await.expect("an end").expect("a status").success());
}

/// Reads the log until the server says where it is.
async fn address(child: &mut Child) -> std::net::SocketAddr {
    let mut lines = BufReader::new(child.stdout.take().expect("a log")).lines();
    let found = timeout(LONG, async {
        while let Some(line) = lines.next_line().await.expect("a line") {
            if let Some((_, url)) = line.split_once("served on http://") {
                // Somebody has to go on reading, or the server would write into a closed pipe.
                let address = url.split(['"', '\u{1b}']).next().expect("an address").parse();
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return address.expect("an address");
            }
        }
        panic!("the server ended without saying where it is");
    });
    found.await.expect("the server starts")
}

fn send(signal: &str, child: &Child) {
    let pid = child.id().expect("a process").to_string();
    let sent = std::process::Command::new("kill").args([signal, &pid]).status().expect("kill");
    assert!(sent.success());
}

#[tokio::test]
async fn the_bare_program_serves_and_stops() {
    let given = Given::sqlite();
    for (signal, format) in [("-TERM", "log_format=text"), ("-INT", "log_format=json")] {
        let mut child =
            hearth(&given, &["-O", "port=0", "-O", format]).stdout(Stdio::piped()).spawn().expect("a program");
        let http = Http::to(address(&mut child).await);
        http.get("/_matrix/client/versions").await.ok();
        send(signal, &child);
        let status = timeout(LONG, child.wait()).await.expect("an end").expect("a status");
        assert!(status.success(), "{signal}: {status}");
    }
}
