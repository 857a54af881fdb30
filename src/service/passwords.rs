//! Passwords: Argon2id, on two workers that keep their memory.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use hearth_core::{Error, Result, clock::Rng};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use crate::config;

/// A hash takes 15 ms and 19 MiB: this many at a time.
const WORKERS: usize = 2;
/// Who would have to wait longer than about two seconds is told to come back.
const MAX_WAITING: usize = 256;
/// A stored hash that asks for more memory than this is not ours.
const MAX_MEMORY_KIB: u32 = 256 << 10;
const MAX_PASSES: u32 = 16;
/// Longer passwords are refused: hashing them would be work for nothing.
pub const MAX_PASSWORD_BYTES: usize = 512;

/// Makes and checks password hashes.
pub struct Passwords {
    rng: Arc<dyn Rng>,
    cost: Params,
    workers: Arc<Semaphore>,
    waiting: AtomicUsize,
    memory: Arc<Mutex<Vec<Vec<Block>>>>,
    /// What a password is checked against when there is nothing to check it against, so that this takes as long.
    nobody: String,
}

impl Passwords {
    pub fn new(rng: Arc<dyn Rng>, cost: &config::Registration) -> Self {
        let (memory, passes) = (cost.password_hash_memory_kib, cost.password_hash_passes);
        let cost = Params::new(memory, passes, 1, None).expect("the configuration is checked when it is loaded");
        let mut salt = [0; 16];
        let mut output = [0; 32];
        rng.fill(&mut salt);
        rng.fill(&mut output);
        Self {
            nobody: Phc { params: cost.clone(), salt: salt.to_vec(), output: output.to_vec() }.to_string(),
            cost,
            rng,
            workers: Arc::new(Semaphore::new(WORKERS)),
            waiting: AtomicUsize::new(0),
            memory: Arc::default(),
        }
    }

    /// The hash of a new password, in the PHC string format.
    pub async fn hash(&self, password: String) -> Result<String> {
        let mut salt = [0; 16];
        self.rng.fill(&mut salt);
        let params = self.cost.clone();
        self.work(move |memory| {
            let mut output = vec![0; Params::DEFAULT_OUTPUT_LEN];
            argon2id(&params, password.as_bytes(), &salt, &mut output, memory)?;
            Ok(Phc { params, salt: salt.to_vec(), output }.to_string())
        })
        .await
    }

    /// Whether this is the password behind a stored hash. Without a hash it never is, and that takes as long.
    pub async fn verify(&self, password: String, stored: Option<&str>) -> Result<bool> {
        let known = stored.is_some();
        let phc = Phc::parse(stored.unwrap_or(&self.nobody))
            .ok_or_else(|| Error::internal("a stored password hash has a form that we don't know"))?;
        let same = self
            .work(move |memory| {
                let mut output = vec![0; phc.output.len()];
                argon2id(&phc.params, password.as_bytes(), &phc.salt, &mut output, memory)?;
                Ok(bool::from(output.ct_eq(&phc.output)))
            })
            .await?;
        Ok(known && same)
    }

    /// Whether a new hash would be made otherwise than this one, as the configuration has changed since.
    pub fn is_outdated(&self, stored: &str) -> bool {
        let cost = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
        Phc::parse(stored).is_none_or(|phc| cost(&phc.params) != cost(&self.cost))
    }

    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Vec<Block>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = {
            let _place = Place::take(&self.waiting)?;
            Arc::clone(&self.workers).acquire_owned().await.map_err(Error::internal)?
        };
        let memory = Arc::clone(&self.memory);
        let work = move || {
            let mut buffer = memory.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            let done = job(&mut buffer);
            memory.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
            drop(permit);
            done
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

/// A place in the queue, given back however the wait ends.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Result<Self> {
        let place = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            return Err(Error::unavailable("Too many logins at once"));
        }
        Ok(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn argon2id(params: &Params, password: &[u8], salt: &[u8], out: &mut [u8], memory: &mut Vec<Block>) -> Result<()> {
    let blocks = params.block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::default());
    }
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into_with_memory(password, salt, out, &mut memory[..blocks])
        .map_err(Error::internal)
}

/// A hash with everything needed to make it again: `$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>`.
struct Phc {
    params: Params,
    salt: Vec<u8>,
    output: Vec<u8>,
}

impl Phc {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
        let (costs, salt, output) = (parts.next()?, parts.next()?, parts.next()?);
        let mut costs = costs.split(',');
        let mut cost = |name: &str| costs.next()?.strip_prefix(name)?.parse::<u32>().ok();
        let (memory, passes, lanes) = (cost("m=")?, cost("t=")?, cost("p=")?);
        let output = STANDARD_NO_PAD.decode(output).ok()?;
        if parts.next().is_some() || memory > MAX_MEMORY_KIB || passes > MAX_PASSES {
            return None;
        }
        let params = Params::new(memory, passes, lanes, Some(output.len())).ok()?;
        Some(Self { params, salt: STANDARD_NO_PAD.decode(salt).ok()?, output })
    }
}

impl std::fmt::Display for Phc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { params, salt, output } = self;
        let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
        let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
        write!(f, "$argon2id$v=19$m={m},t={t},p={p}${salt}${output}")
    }
}

#[cfg(test)]
mod tests {
    use hearth_core::clock::SeededRng;

    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(Arc::new(SeededRng::new(1)), &config::Registration::default())
    }

    #[tokio::test]
    async fn only_the_same_password_fits() {
        let passwords = passwords();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(passwords.verify("correct horse".to_owned(), Some(&hash)).await.unwrap());
        assert!(!passwords.verify("correct house".to_owned(), Some(&hash)).await.unwrap());
        assert_ne!(hash, passwords.hash("correct horse".to_owned()).await.unwrap(), "every hash has a salt of its own");
    }

    #[tokio::test]
    async fn without_a_hash_nothing_fits() {
        assert!(!passwords().verify("whatever".to_owned(), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_hash_made_elsewhere_with_other_costs_can_be_checked() {
        // From the Argon2 reference implementation: echo -n password | argon2 somesalt -id -t 2 -k 256 -p 1 -e
        let hash = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        assert!(passwords().verify("password".to_owned(), Some(hash)).await.unwrap());
        assert!(!passwords().verify("Password".to_owned(), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn a_hash_costs_what_the_operator_says_and_is_checked_at_what_it_cost() {
        let cheap = config::Registration { password_hash_memory_kib: 8, password_hash_passes: 1, ..Default::default() };
        let cheap = Passwords::new(Arc::new(SeededRng::new(1)), &cheap);
        let hash = cheap.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"));
        assert!(passwords().verify("correct horse".to_owned(), Some(&hash)).await.unwrap());
        assert!(passwords().is_outdated(&hash) && !cheap.is_outdated(&hash));
    }

    #[test]
    fn a_hash_that_asks_for_too_much_is_not_ours() {
        for hash in [
            "",
            "$argon2id$v=19$m=4294967295,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2id$v=19$m=256,t=4000000,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
            "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR",
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR$more",
        ] {
            assert!(Phc::parse(hash).is_none(), "{hash}");
        }
    }

    #[tokio::test]
    async fn a_queue_that_is_full_says_so() {
        let passwords = passwords();
        passwords.waiting.store(MAX_WAITING, Ordering::Relaxed);
        assert!(passwords.hash("a".to_owned()).await.is_err());
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), MAX_WAITING, "a place that was not there is given back");
    }
}
