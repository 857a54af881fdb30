//! `hearth admin …`

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use clap::Subcommand;
use hearth_core::{Error, Result};
use hearth_storage::reports::{self, About};

use crate::{
    app::{self, Deps, Offline},
    config::{Config, Sources},
    service::{accounts::Accounts, reports::Reports},
};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Users
    #[command(subcommand)]
    User(User),
    /// Tokens that let somebody register
    #[command(subcommand)]
    Token(Token),
    /// What users have reported
    #[command(subcommand)]
    Report(Report),
}

#[derive(Subcommand)]
pub(super) enum User {
    /// Make an account and print its password, which is made up
    Create {
        /// The name before the colon
        localpart: String,
        /// May use the administration API
        #[arg(long)]
        admin: bool,
    },
    /// Give a user a new password, which is made up, print it, and log the user out everywhere
    Password {
        /// The name before the colon, or the whole id
        user: String,
        /// Let the user stay logged in
        #[arg(long)]
        keep_sessions: bool,
    },
    /// Make a user an administrator
    Promote { user: String },
    /// Make an administrator an ordinary user
    Demote { user: String },
    /// End an account for good; the name stays taken
    Deactivate {
        user: String,
        /// Remove the profile, too
        #[arg(long)]
        erase: bool,
    },
    /// Print all users: id, and whether they are `admin` or `deactivated`
    List,
}

#[derive(Subcommand)]
pub(super) enum Token {
    /// Make a token and print it
    Create {
        /// The token itself; made up if it isn't given
        token: Option<String>,
        /// How many accounts can be made with it; as many as they like if not given
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        uses: Option<u32>,
        /// For how many days it is valid; for ever if not given
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        days: Option<u32>,
        /// Who registers with it is an administrator
        #[arg(long)]
        admin: bool,
    },
    /// Print all tokens: text, uses and how many are allowed, and whether they are `valid`, and make an `admin`
    List,
    /// Let nobody register with this token any more
    Revoke { token: String },
}

#[derive(Subcommand)]
pub(super) enum Report {
    /// Print all reports, the oldest first: id, time, who reports, then the user, room and event that it is about (or -),
    /// and the reason in quotes. The user of an event is who sent it
    List,
    /// Remove a report that has been dealt with
    Delete {
        /// The id that the list shows
        id: String,
    },
}

pub(super) fn run(command: &Command, sources: &Sources) -> ExitCode {
    super::do_once(sources, async |config| administer(command, &config).await)
}

async fn administer(command: &Command, config: &Arc<Config>) -> Result<String, String> {
    let Offline { accounts, reports, storage } =
        app::offline(config, &Deps::default()).await.map_err(|e| e.to_string())?;
    let said = match command {
        Command::User(user) => of_user(&accounts, user).await,
        Command::Token(token) => of_token(&accounts, token).await,
        Command::Report(report) => of_report(&reports, report).await,
    };
    storage.close().await.map_err(|e| e.to_string())?;
    said.map_err(|e| match e {
        Error::Matrix { message, .. } => message.into_owned(),
        other => other.to_string(),
    })
}

async fn of_user(accounts: &Accounts, command: &User) -> Result<String> {
    match command {
        User::Create { localpart, admin } => {
            let (user, password) = accounts.create_with_password(localpart, *admin).await?;
            Ok(format!("{user} can log in with the password {password}"))
        }
        User::Password { user, keep_sessions } => {
            let user = accounts.of_name(user)?;
            let password = accounts.reset_password(&user, *keep_sessions).await?;
            Ok(format!("{user} can log in with the password {password}"))
        }
        User::Promote { user } => {
            let user = accounts.of_name(user)?;
            accounts.set_admin(&user, true).await?;
            Ok(format!("{user} is an administrator"))
        }
        User::Demote { user } => {
            let user = accounts.of_name(user)?;
            accounts.set_admin(&user, false).await?;
            Ok(format!("{user} is an ordinary user"))
        }
        User::Deactivate { user, erase } => {
            let user = accounts.of_name(user)?;
            accounts.deactivate(&user, *erase).await?;
            Ok(format!("{user} is deactivated; the server makes them leave their rooms when it runs"))
        }
        User::List => {
            let mut lines = Vec::new();
            accounts
                .each_user(|row| {
                    let admin = row.admin.then_some("admin");
                    let over = row.deactivated.then_some("deactivated");
                    let words: Vec<&str> = [Some(row.user_id.as_str()), admin, over].into_iter().flatten().collect();
                    lines.push(words.join("\t"));
                })
                .await?;
            Ok(lines.join("\n"))
        }
    }
}

async fn of_token(accounts: &Accounts, command: &Token) -> Result<String> {
    match command {
        Token::Create { token, uses, days, admin } => {
            let life = days.map(|days| Duration::from_secs(u64::from(days) * 24 * 60 * 60));
            Ok(accounts.create_registration_token(token.clone(), *uses, life, *admin).await?.token)
        }
        Token::List => {
            let mut lines = Vec::new();
            accounts
                .each_registration_token(|token| {
                    let uses = match token.uses_allowed {
                        Some(allowed) => format!("{}/{allowed}", token.uses),
                        None => token.uses.to_string(),
                    };
                    let valid = if accounts.is_valid(&token) { "valid" } else { "spent" };
                    let admin = if token.makes_admin { "\tadmin" } else { "" };
                    lines.push(format!("{}\t{uses}\t{valid}{admin}", token.token));
                })
                .await?;
            Ok(lines.join("\n"))
        }
        Token::Revoke { token } => {
            accounts.revoke_registration_token(token).await?;
            Ok("Nobody can register with it any more".to_owned())
        }
    }
}

async fn of_report(reports: &Reports, command: &Report) -> Result<String> {
    match command {
        Report::List => {
            let mut lines = Vec::new();
            reports.each(|report| lines.push(line(&report))).await?;
            Ok(lines.join("\n"))
        }
        Report::Delete { id } => {
            reports.delete(id).await?;
            Ok("The report is gone".to_owned())
        }
    }
}

/// A report in a line. Escaped, what people write does nothing to a terminal: ids are nearly any text, too.
fn line(report: &reports::Report) -> String {
    let reports::Report { report_id, reporter, about, reason, at_ms } = report;
    let when = UNIX_EPOCH + Duration::from_millis(u64::try_from(*at_ms).unwrap_or(0));
    let when = httpdate::fmt_http_date(when);
    let (user, room, event) = match about {
        About::Event { room_id, event_id, sender } => (sender.as_str(), room_id.as_str(), event_id.as_str()),
        About::Room(room_id) => ("-", room_id.as_str(), "-"),
        About::User(user_id) => (user_id.as_str(), "-", "-"),
    };
    let [reporter, user, room, event] = [reporter.as_str(), user, room, event].map(str::escape_debug);
    format!("{report_id}\t{when}\t{reporter}\t{user}\t{room}\t{event}\t{reason:?}")
}
