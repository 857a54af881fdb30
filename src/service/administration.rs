//! What an operator does with accounts and registration tokens at the command line.
//!
//! Another process may be serving clients at the same time: it hears by position of what ends here.

use hearth_core::{Error, Result, clock::random_string, ids};
use hearth_storage::{accounts::UserRow, registration_tokens::RegistrationToken};
use ruma::OwnedUserId;

use super::accounts::{Accounts, Registration};

/// Rows of a list that are read at a time.
const PAGE: u32 = 500;

impl Accounts {
    /// A user of ours, by the whole id or the local part. They need not exist.
    pub fn of_name(&self, name: &str) -> Result<OwnedUserId> {
        let id = ids::existing_user_id(name, &self.server_name)?;
        if id.server_name() == self.server_name {
            return Ok(id);
        }
        Err(Error::invalid_param(format!("{id} is not a user of {}", self.server_name)))
    }

    /// Makes an account with a password that we make up, which the operator is to be shown.
    pub async fn create_with_password(&self, localpart: &str, admin: bool) -> Result<(OwnedUserId, String)> {
        let password = random_string(&*self.rng, 24);
        let wanted =
            Registration { username: Some(localpart.to_owned()), password: Some(password.clone()), device: None };
        Ok((self.create(wanted, admin).await?.user_id, password))
    }

    /// Gives the user a password that we make up, and ends their sessions unless they are to be kept.
    pub async fn reset_password(&self, user: &OwnedUserId, keep_sessions: bool) -> Result<String> {
        let password = random_string(&*self.rng, 24);
        let hash = self.hash(password.clone()).await?;
        let ending = (!keep_sessions).then(|| self.ending());
        match self.storage.set_password(user.as_str(), &hash, None, ending).await? {
            true => Ok(password),
            false => Err(nobody(user)),
        }
    }

    /// Makes the user an administrator, or no longer.
    pub async fn set_admin(&self, user: &OwnedUserId, admin: bool) -> Result<()> {
        match self.storage.set_admin(user.as_str(), admin, self.clock.now_ms()).await? {
            true => Ok(()),
            false => Err(nobody(user)),
        }
    }

    /// Hands over all users, by their ids, some at a time.
    pub async fn each_user(&self, mut see: impl FnMut(UserRow)) -> Result<()> {
        let mut after = String::new();
        loop {
            let page = self.storage.users(&after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.user_id);
            page.into_iter().for_each(&mut see);
        }
    }

    /// Hands over all registration tokens, by their texts, some at a time.
    pub async fn each_registration_token(&self, mut see: impl FnMut(RegistrationToken)) -> Result<()> {
        let mut after = String::new();
        loop {
            let page = self.storage.registration_tokens(&after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.token);
            page.into_iter().for_each(&mut see);
        }
    }

    /// Nobody registers with this token any more.
    pub async fn revoke_registration_token(&self, token: &str) -> Result<()> {
        match self.storage.delete_registration_token(token).await? {
            true => Ok(()),
            false => Err(Error::not_found("There is no such token")),
        }
    }

    /// Whether somebody could register with it now.
    pub fn is_valid(&self, token: &RegistrationToken) -> bool {
        token.is_valid(self.clock.now_ms())
    }
}

fn nobody(user: &OwnedUserId) -> Error {
    Error::not_found(format!("There is no active user {user}"))
}
