//! The user directory: who can be found by whom. People find those whom they share a room with, and those who are in a
//! room that shows itself to strangers.

use crate::{
    Result, Sql,
    tx::{Answer, Engine, Query, Reads, Tx, args, statements},
};

statements! {
    NOTE = "INSERT INTO user_directory (user_id, words) VALUES ($1, $2) \
        ON CONFLICT (user_id) DO UPDATE SET words = excluded.words";
    DROP = "DELETE FROM user_directory WHERE user_id = $1";
    SEARCH = "SELECT d.user_id FROM user_directory d
        WHERE d.words LIKE $2 ESCAPE '\\' AND d.user_id <> $1 AND (
            EXISTS (SELECT 1 FROM memberships a JOIN memberships b ON b.room_sn = a.room_sn
                WHERE a.user_id = $1 AND a.membership = 'join' AND b.user_id = d.user_id AND b.membership = 'join')
            OR EXISTS (SELECT 1 FROM memberships m JOIN published_rooms p ON p.room_sn = m.room_sn
                WHERE m.user_id = d.user_id AND m.membership = 'join')
        ) ORDER BY d.user_id LIMIT $3";
}

/// The directory of users.
pub trait UserDirectory: Send + Sync {
    /// Users whom this one may find and whose id or display name contains the text.
    fn search_users(&self, user_id: &str, text: &str, limit: i64) -> Answer<'_, Vec<String>>;
}

impl<E: Engine> UserDirectory for Sql<E> {
    fn search_users(&self, user_id: &str, text: &str, limit: i64) -> Answer<'_, Vec<String>> {
        self.0.read(Search { user_id: user_id.to_owned(), text: text.to_owned(), limit })
    }
}

/// For the operations that make a user or change their name, which is JSON.
pub(crate) async fn note<T: Tx>(tx: &mut T, user_id: &str, display_name: Option<&str>) -> Result<()> {
    let name = display_name.and_then(|json| serde_json::from_str::<String>(json).ok()).unwrap_or_default();
    tx.execute(NOTE, args![user_id, format!("{user_id} {name}").to_lowercase()]).await?;
    Ok(())
}

/// For the operation that ends a user's account.
pub(crate) async fn drop<T: Tx>(tx: &mut T, user_id: &str) -> Result<()> {
    tx.execute(DROP, args![user_id]).await?;
    Ok(())
}

struct Search {
    user_id: String,
    text: String,
    limit: i64,
}

impl Query for Search {
    const NAME: &'static str = "search_users";
    type Out = Vec<String>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let mut pattern = String::from("%");
        for c in self.text.to_lowercase().chars() {
            if matches!(c, '%' | '_' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('%');
        let rows = tx.query(SEARCH, args![&self.user_id, pattern, self.limit]).await?;
        rows.into_iter().map(|mut row| row.get(0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        directory::Directory as _,
        testing::each_backend,
        tx::{Op, Stmt},
    };

    const MEMBER: Stmt = Stmt::new(
        "member",
        "INSERT INTO memberships (user_id, room_sn, membership, event_sn, pos, forgotten) VALUES ($1, $2, $3, 1, 1, 0)",
    );

    struct People;

    impl Op for People {
        const NAME: &'static str = "people";
        type Out = ();
        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            for (user, name) in [("@a:x", "Ännchen"), ("@b:x", "50%_of"), ("@c:x", "50 or"), ("@d:x", "left")] {
                note(tx, user, Some(&format!("\"{name}\""))).await?;
                let membership = if user == "@d:x" { "leave" } else { "join" };
                tx.execute(MEMBER, args![user, 1, membership]).await?;
            }
            note(tx, "@e:x", None).await
        }
    }

    #[test]
    fn people_find_those_who_are_in_their_rooms() {
        each_backend(|store| async move {
            store.write(People).await.unwrap();
            let found = async |who: &str, text: &str| store.search_users(who, text, 10).await.unwrap();
            assert_eq!(found("@b:x", "äNN").await, ["@a:x"]);
            assert_eq!(found("@a:x", "50").await, ["@b:x", "@c:x"]);
            assert_eq!(found("@a:x", "50%_").await, ["@b:x"], "these are no wildcards");
            assert_eq!(found("@a:x", "left").await, <[&str; 0]>::default());
            assert_eq!(found("@e:x", "@a").await, <[&str; 0]>::default(), "they share no room");
            store.publish_room(1, true).await.unwrap();
            assert_eq!(found("@e:x", "@a").await, ["@a:x"]);
            assert_eq!(found("@a:x", "@a").await, <[&str; 0]>::default(), "nobody looks for themselves");
        });
    }
}
