//! The program itself, in processes of its own.

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{Given, Http, people::LONG};

/// Runs the program to its end, on the database of the test.
pub async fn hearth(given: &Given, arguments: &[&str]) -> Output {
    on_the_database(given).args(arguments).output().await.expect("a program")
}

fn on_the_database(given: &Given) -> Command {
    let database = given.config().database;
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.current_dir(given.dir()).env_clear().args(["-O", "server_name=\"test.example\""]);
    let options = match &database.database_url {
        Some(url) => vec!["database_backend=\"postgres\"".to_owned(), format!("database_url=\"{}\"", url.expose())],
        None => vec![format!("database_path=\"{}\"", database.database_path.display())],
    };
    for option in &options {
        command.args(["-O", option]);
    }
    command
}

/// A server in another process.
pub struct Program {
    child: Child,
    pub http: Http,
}

impl Program {
    /// Starts it on the database of the test, where anybody may register.
    pub async fn start(given: &Given) -> Self {
        Self::start_with(given, &[]).await
    }

    /// The same with some settings of its own.
    pub async fn start_with(given: &Given, more: &[&str]) -> Self {
        let mut command = on_the_database(given);
        command.kill_on_drop(true).stdout(Stdio::piped());
        let options = [
            "port=0",
            "log_format=\"json\"",
            "database_pool_size=4",
            "rate_limit.enabled=false",
            "allow_registration=true",
            "yes_i_am_very_very_sure_i_want_an_open_registration_server_prone_to_abuse=true",
        ];
        for option in options.iter().chain(more) {
            command.args(["-O", option]);
        }
        let mut child = command.spawn().expect("a program");
        let mut lines = BufReader::new(child.stdout.take().expect("a log")).lines();
        let address = timeout(LONG, async {
            loop {
                let line = lines.next_line().await.expect("a line").expect("the program goes on");
                if let Some((_, url)) = line.split_once("served on http://") {
                    let address: SocketAddr = url.split('"').next().expect("an address").parse().expect("an address");
                    return address;
                }
            }
        });
        let address = address.await.expect("the program says where it is");
        // Somebody has to go on reading, or it would write into a closed pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, http: Http::to(address) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Ends it where it stands.
    pub async fn dies(mut self) {
        self.child.kill().await.expect("it was alive");
    }
}
