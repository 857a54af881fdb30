//! Who is in which rooms, asked across rooms.

use crate::{
    Result, Sql,
    tx::{Answer, Engine, Query, Reads, args, statements},
};

statements! {
    IN_ANY = "SELECT m.room_sn FROM memberships m JOIN rooms r ON r.room_sn = m.room_sn
        WHERE m.user_id = $1 AND m.membership = 'join' AND r.room_id = ANY($2) LIMIT 1";
    OF_SERVER = "SELECT user_id FROM memberships
        WHERE room_sn = $1 AND membership = 'join' AND user_id LIKE $2 ORDER BY user_id LIMIT $3";
    BANS = "SELECT m.user_id, e.json FROM memberships m JOIN events e ON e.sn = m.event_sn
        WHERE m.room_sn = $1 AND m.membership = 'ban' AND m.user_id > $2 ORDER BY m.user_id LIMIT $3";
    OF_USER = "SELECT r.room_id, m.membership FROM memberships m JOIN rooms r ON r.room_sn = m.room_sn
        WHERE m.user_id = $1 AND m.membership <> 'leave'";
    SMALL_ROOMS_OF = "SELECT DISTINCT m.room_sn FROM memberships m JOIN rooms r ON r.room_sn = m.room_sn
        WHERE m.user_id = ANY($1) AND m.membership = 'join' AND r.joined <= $2";
    WHO_SHARES = "SELECT DISTINCT b.user_id FROM memberships a JOIN rooms r ON r.room_sn = a.room_sn
        JOIN memberships b ON b.user_id = ANY($2) AND b.room_sn = a.room_sn
        WHERE a.user_id = $1 AND a.membership = 'join' AND b.membership = 'join' AND r.joined <= $3";
}

/// The aggregate of memberships.
pub trait Memberships: Send + Sync {
    /// Whether the user is in one of these rooms, named by their ids.
    fn is_in_any(&self, user_id: &str, room_ids: Vec<String>) -> Answer<'_, bool>;
    /// Some of a server's users who are in the room.
    fn members_of_server(&self, room_sn: i64, server_name: &str, limit: i64) -> Answer<'_, Vec<String>>;
    /// Who is banned from the room, with the event that says so as JSON: a page, of those behind a user in their order.
    fn bans(&self, room_sn: i64, after: &str, limit: i64) -> Answer<'_, Vec<(String, String)>>;
    /// The rooms that the user has not left, by id, with what they are to each.
    fn memberships_of(&self, user_id: &str) -> Answer<'_, Vec<(String, String)>>;
    /// The rooms of at most so many members that any of the users is in.
    fn small_rooms_of(&self, users: Vec<String>, most_members: i64) -> Answer<'_, Vec<i64>>;
    /// Those among `users` who share a room of at most so many members with this one.
    fn who_shares_a_room(&self, user_id: &str, users: Vec<String>, most_members: i64) -> Answer<'_, Vec<String>>;
}

impl<E: Engine> Memberships for Sql<E> {
    fn is_in_any(&self, user_id: &str, room_ids: Vec<String>) -> Answer<'_, bool> {
        self.0.read(IsInAny { user_id: user_id.to_owned(), room_ids })
    }

    fn members_of_server(&self, room_sn: i64, server_name: &str, limit: i64) -> Answer<'_, Vec<String>> {
        // A server's name has no wildcard in it.
        self.0.read(OfServer { room_sn, pattern: format!("%:{server_name}"), limit })
    }

    fn bans(&self, room_sn: i64, after: &str, limit: i64) -> Answer<'_, Vec<(String, String)>> {
        self.0.read(Bans { room_sn, after: after.to_owned(), limit })
    }

    fn memberships_of(&self, user_id: &str) -> Answer<'_, Vec<(String, String)>> {
        self.0.read(OfUser { user_id: user_id.to_owned() })
    }

    fn small_rooms_of(&self, users: Vec<String>, most_members: i64) -> Answer<'_, Vec<i64>> {
        self.0.read(SmallRoomsOf { users, most_members })
    }

    fn who_shares_a_room(&self, user_id: &str, users: Vec<String>, most_members: i64) -> Answer<'_, Vec<String>> {
        self.0.read(WhoShares { user_id: user_id.to_owned(), users, most_members })
    }
}

struct IsInAny {
    user_id: String,
    room_ids: Vec<String>,
}

impl Query for IsInAny {
    const NAME: &'static str = "is_in_any";
    type Out = bool;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<bool> {
        Ok(tx.query_opt(IN_ANY, args![&self.user_id, self.room_ids.clone()]).await?.is_some())
    }
}

struct OfServer {
    room_sn: i64,
    pattern: String,
    limit: i64,
}

impl Query for OfServer {
    const NAME: &'static str = "members_of_server";
    type Out = Vec<String>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows = tx.query(OF_SERVER, args![self.room_sn, &self.pattern, self.limit]).await?;
        rows.into_iter().map(|mut row| row.get(0)).collect()
    }
}

struct Bans {
    room_sn: i64,
    after: String,
    limit: i64,
}

impl Query for Bans {
    const NAME: &'static str = "bans";
    type Out = Vec<(String, String)>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows = tx.query(BANS, args![self.room_sn, &self.after, self.limit]).await?;
        rows.into_iter().map(|mut row| Ok((row.get(0)?, row.get(1)?))).collect()
    }
}

struct OfUser {
    user_id: String,
}

impl Query for OfUser {
    const NAME: &'static str = "memberships_of";
    type Out = Vec<(String, String)>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows = tx.query(OF_USER, args![&self.user_id]).await?;
        rows.into_iter().map(|mut row| Ok((row.get(0)?, row.get(1)?))).collect()
    }
}

struct SmallRoomsOf {
    users: Vec<String>,
    most_members: i64,
}

impl Query for SmallRoomsOf {
    const NAME: &'static str = "small_rooms_of";
    type Out = Vec<i64>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows = tx.query(SMALL_ROOMS_OF, args![self.users.clone(), self.most_members]).await?;
        rows.into_iter().map(|mut row| row.get(0)).collect()
    }
}

struct WhoShares {
    user_id: String,
    users: Vec<String>,
    most_members: i64,
}

impl Query for WhoShares {
    const NAME: &'static str = "who_shares_a_room";
    type Out = Vec<String>;
    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows = tx.query(WHO_SHARES, args![&self.user_id, self.users.clone(), self.most_members]).await?;
        rows.into_iter().map(|mut row| row.get(0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::each_backend,
        tx::{Op, Stmt, Tx},
    };

    const ROOM: Stmt = Stmt::new(
        "room",
        "INSERT INTO rooms (room_sn, room_id, version, rev, state_root, joined, invited, tips, last_pos, touched_pos)
            VALUES ($1, $2, '12', 1, $3, $4, 0, $3, 0, 0)",
    );
    const MEMBER: Stmt = Stmt::new(
        "member",
        "INSERT INTO memberships (user_id, room_sn, membership, event_sn, pos, forgotten) VALUES ($1, $2, $3, 1, 1, 0)",
    );

    struct Rooms;

    impl Op for Rooms {
        const NAME: &'static str = "rooms";
        type Out = ();
        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            for (sn, id, joined) in [(1, "!one:x", 3), (2, "!two:x", 300)] {
                tx.execute(ROOM, args![sn, id, Vec::<u8>::new(), joined]).await?;
            }
            for (user, sn, membership) in [
                ("@a:x", 1, "join"),
                ("@b:x", 1, "join"),
                ("@c:y", 1, "join"),
                ("@d:x", 1, "ban"),
                ("@a:x", 2, "leave"),
                ("@b:x", 2, "join"),
            ] {
                tx.execute(MEMBER, args![user, sn, membership]).await?;
            }
            Ok(())
        }
    }

    #[test]
    fn who_is_in_which_room() {
        each_backend(|store| async move {
            store.write(Rooms).await.unwrap();
            let in_any = async |user: &str, rooms: &[&str]| {
                store.is_in_any(user, rooms.iter().map(|r| (*r).to_owned()).collect()).await.unwrap()
            };
            assert!(in_any("@a:x", &["!two:x", "!one:x"]).await);
            assert!(!in_any("@a:x", &["!two:x", "!none:x"]).await, "who left is not in");
            assert!(!in_any("@d:x", &["!one:x"]).await && !in_any("@a:x", &[]).await);
            assert_eq!(store.members_of_server(1, "x", 10).await.unwrap(), ["@a:x", "@b:x"]);
            let users = |users: &[&str]| users.iter().map(|u| (*u).to_owned()).collect::<Vec<_>>();
            let rooms = async |of: &[&str], most: i64| {
                let mut rooms = store.small_rooms_of(users(of), most).await.unwrap();
                rooms.sort_unstable();
                rooms
            };
            assert_eq!(rooms(&["@a:x", "@b:x", "@d:x"], 300).await, [1, 2]);
            assert_eq!(rooms(&["@a:x", "@b:x"], 299).await, [1]);
            assert!(rooms(&["@d:x"], 300).await.is_empty(), "who is banned is not in");
            let sharing = async |who: &str, among: &[&str], most: i64| {
                let mut sharing = store.who_shares_a_room(who, users(among), most).await.unwrap();
                sharing.sort();
                sharing
            };
            assert_eq!(sharing("@a:x", &["@b:x", "@c:y", "@d:x", "@e:x"], 3).await, ["@b:x", "@c:y"]);
            assert!(sharing("@a:x", &["@b:x"], 2).await.is_empty(), "the room is too large");
            assert!(sharing("@d:x", &["@b:x"], 300).await.is_empty());
            assert_eq!(store.members_of_server(1, "x", 1).await.unwrap(), ["@a:x"]);
        });
    }
}
