//! What the stories share: waiting for what somebody is to see, and saying how it went.
//!
//! A story says one check a line on stdout ("@ ok …" or "@ failed …").

use std::{env, fmt::Debug, io, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use matrix_sdk::{
    reqwest,
    ruma::exports::serde_json::{self, Value},
};

pub const PASSWORD: &str = "a password that is long enough";
/// The SDK asks a lost server again less and less often.
pub const RECONNECT_LIMIT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(30);

pub fn base_url() -> Result<String> {
    env::var("BASE_URL").context("BASE_URL")
}

/// Where the push gateway is.
pub fn gateway_url() -> Result<String> {
    env::var("GATEWAY_URL").context("GATEWAY_URL")
}

/// What the push gateway was told for a pushkey, once it was told so often.
pub async fn told(pushkey: &str, times: usize) -> Result<Vec<Value>> {
    let url = format!("{}/told/{pushkey}", gateway_url()?);
    until(&format!("{times} notifications"), async || {
        let notes = reqwest::get(&url).await?.error_for_status()?.bytes().await?;
        let notes: Vec<Value> = serde_json::from_slice(&notes)?;
        Ok(Some(notes).filter(|notes| notes.len() >= times))
    })
    .await
}

pub fn say(line: &str) {
    println!("@ {line}");
}

/// Waits for what the runner says next, which is to be this.
pub async fn heard(word: &str) -> Result<()> {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let line = line.await??;
    ensure!(line.trim() == word, "expected '{word}' from the runner, got '{}'", line.trim());
    Ok(())
}

pub async fn check<T>(what: &str, story: impl Future<Output = Result<T>>) -> Result<T> {
    let told = story.await;
    match &told {
        Ok(_) => say(&format!("ok {what}")),
        Err(error) => say(&format!("failed {what}: {error:#}").replace('\n', " ")),
    }
    told
}

#[allow(clippy::needless_pass_by_value, reason = "values read better where two are compared")]
pub fn equal<T: PartialEq + Debug>(actual: T, expected: T, what: &str) -> Result<()> {
    ensure!(actual == expected, "{what}: {actual:?} instead of {expected:?}");
    Ok(())
}

/// Looks again and again until there is something to see.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    until_within(LIMIT, what, look).await
}

pub async fn until_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = tokio::time::Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if began.elapsed() > limit {
            bail!("{what} not seen within {} s", limit.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until something is as it is to be; if it never is, says how it was last.
pub async fn becomes<T: PartialEq + Debug>(
    what: &str,
    expected: T,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<()> {
    let mut last = None;
    let seen = until(what, async || {
        let now = look().await?;
        let is_so = now == expected;
        last = Some(now);
        Ok(is_so.then_some(()))
    });
    let seen = seen.await;
    match (seen, last) {
        (Err(error), Some(last)) => Err(error.context(format!("{what}: {last:?} instead of {expected:?}"))),
        (seen, _) => seen,
    }
}
