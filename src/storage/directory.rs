//! The directory: the names of rooms, and the rooms that show themselves to strangers.

use crate::{
    Result, Sql,
    timeline::Direction,
    tx::{Answer, Engine, Op, Query, Reads, Row, Tx, args, statements},
};

statements! {
    ADD_ALIAS = "INSERT INTO aliases (alias, room_sn, creator) VALUES ($1, $2, $3) ON CONFLICT (alias) DO NOTHING";
    ALIAS = "SELECT r.room_sn, r.room_id, a.creator FROM aliases a JOIN rooms r ON r.room_sn = a.room_sn WHERE a.alias = $1";
    ALIASES_OF = "SELECT alias FROM aliases WHERE room_sn = $1 ORDER BY alias";
    DELETE_ALIAS = "DELETE FROM aliases WHERE alias = $1";
    MOVE_ALIASES = "UPDATE aliases SET room_sn = $2 WHERE room_sn = $1";
    PUBLISH = "INSERT INTO published_rooms (room_sn) VALUES ($1) ON CONFLICT (room_sn) DO NOTHING";
    UNPUBLISH = "DELETE FROM published_rooms WHERE room_sn = $1";
    IS_PUBLISHED = "SELECT p.room_sn FROM rooms r LEFT JOIN published_rooms p ON p.room_sn = r.room_sn WHERE r.room_id = $1";
    COUNT = "SELECT COUNT(*) FROM published_rooms";
    PUBLISHED = "SELECT r.room_sn, r.room_id, r.joined, r.version FROM published_rooms p JOIN rooms r ON r.room_sn = p.room_sn
        WHERE (r.joined, r.room_sn) < ($1, $2) ORDER BY r.joined DESC, r.room_sn DESC LIMIT $3";
    PUBLISHED_BACK = "SELECT r.room_sn, r.room_id, r.joined, r.version FROM published_rooms p
        JOIN rooms r ON r.room_sn = p.room_sn
        WHERE (r.joined, r.room_sn) > ($1, $2) ORDER BY r.joined, r.room_sn LIMIT $3";
    SHOWN = "SELECT room_sn, room_id, joined, version FROM rooms WHERE room_id = ANY($1)";
    CHILDREN = "SELECT c.room_sn, e.json FROM current_state c JOIN events e ON e.sn = c.event_sn
        WHERE c.room_sn = ANY($1) AND c.type = 'm.space.child' ORDER BY c.event_sn LIMIT $2";
    SHOWN_STATE = "SELECT c.room_sn, c.type, e.json FROM current_state c JOIN events e ON e.sn = c.event_sn
        WHERE c.room_sn = ANY($1) AND c.state_key = '' AND c.type = ANY($2)";
}

/// What strangers see of a room.
const SHOWN_TYPES: [&str; 9] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.encryption",
];

/// Links of spaces that are read at once.
const MOST_LINKS: i64 = 10_000;

/// A name of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    pub room_sn: i64,
    pub room_id: String,
    pub creator: String,
}

/// A room as the directory lists it.
#[derive(Clone, Debug)]
pub struct ListedRoom {
    pub room_sn: i64,
    pub room_id: String,
    pub joined: i64,
    pub version: String,
    /// The events of its state that strangers may see, by type, as JSON.
    pub state: Vec<(String, String)>,
}

/// The directory of rooms.
pub trait Directory: Send + Sync {
    /// False: the alias is taken.
    fn add_alias(&self, alias: &str, room_sn: i64, creator: &str) -> Answer<'_, bool>;
    fn alias(&self, alias: &str) -> Answer<'_, Option<Alias>>;
    /// False: there was none.
    fn delete_alias(&self, alias: &str) -> Answer<'_, bool>;
    fn aliases_of(&self, room_sn: i64) -> Answer<'_, Vec<String>>;
    fn publish_room(&self, room_sn: i64, published: bool) -> Answer<'_, ()>;
    /// None: no such room.
    fn is_published(&self, room_id: &str) -> Answer<'_, Option<bool>>;
    fn published_rooms_count(&self) -> Answer<'_, i64>;
    /// Published rooms, the largest first, behind the one with so many members and this number; or back from it.
    fn published_rooms(&self, from: (i64, i64), direction: Direction, limit: i64) -> Answer<'_, Vec<ListedRoom>>;
    /// These rooms, by id, as the directory would show them; in no order.
    fn rooms_shown(&self, room_ids: Vec<String>) -> Answer<'_, Vec<ListedRoom>>;
    /// The links from spaces to their rooms: the space, and the event as JSON.
    fn space_children(&self, room_sns: Vec<i64>) -> Answer<'_, Vec<(i64, String)>>;
}

impl<E: Engine> Directory for Sql<E> {
    fn add_alias(&self, alias: &str, room_sn: i64, creator: &str) -> Answer<'_, bool> {
        self.0.write(AddAlias { alias: alias.to_owned(), room_sn, creator: creator.to_owned() })
    }

    fn alias(&self, alias: &str) -> Answer<'_, Option<Alias>> {
        self.0.read(GetAlias { alias: alias.to_owned() })
    }

    fn delete_alias(&self, alias: &str) -> Answer<'_, bool> {
        self.0.write(DeleteAlias { alias: alias.to_owned() })
    }

    fn aliases_of(&self, room_sn: i64) -> Answer<'_, Vec<String>> {
        self.0.read(AliasesOf { room_sn })
    }

    fn publish_room(&self, room_sn: i64, published: bool) -> Answer<'_, ()> {
        self.0.write(PublishRoom { room_sn, published })
    }

    fn is_published(&self, room_id: &str) -> Answer<'_, Option<bool>> {
        self.0.read(IsPublished { room_id: room_id.to_owned() })
    }

    fn published_rooms_count(&self) -> Answer<'_, i64> {
        self.0.read(Count)
    }

    fn published_rooms(&self, from: (i64, i64), direction: Direction, limit: i64) -> Answer<'_, Vec<ListedRoom>> {
        self.0.read(Published { from, direction, limit })
    }

    fn rooms_shown(&self, room_ids: Vec<String>) -> Answer<'_, Vec<ListedRoom>> {
        self.0.read(Shown { room_ids })
    }

    fn space_children(&self, room_sns: Vec<i64>) -> Answer<'_, Vec<(i64, String)>> {
        self.0.read(Children { room_sns })
    }
}

/// For an operation that makes a room.
pub(crate) async fn publish<T: Tx>(tx: &mut T, room_sn: i64) -> Result<()> {
    tx.execute(PUBLISH, args![room_sn]).await?;
    Ok(())
}

/// For the operation that closes a room: another one has its names from now on, and is listed where it was.
pub(crate) async fn hand_over<T: Tx>(tx: &mut T, room_sn: i64, successor: i64) -> Result<()> {
    tx.execute(MOVE_ALIASES, args![room_sn, successor]).await?;
    if tx.execute(UNPUBLISH, args![room_sn]).await? > 0 {
        publish(tx, successor).await?;
    }
    Ok(())
}

struct AddAlias {
    alias: String,
    room_sn: i64,
    creator: String,
}

impl Op for AddAlias {
    const NAME: &'static str = "add_alias";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        Ok(tx.execute(ADD_ALIAS, args![&self.alias, self.room_sn, &self.creator]).await? > 0)
    }
}

struct GetAlias {
    alias: String,
}

impl Query for GetAlias {
    const NAME: &'static str = "alias";
    type Out = Option<Alias>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let Some(mut row) = tx.query_opt(ALIAS, args![&self.alias]).await? else { return Ok(None) };
        Ok(Some(Alias { room_sn: row.get(0)?, room_id: row.get(1)?, creator: row.get(2)? }))
    }
}

struct DeleteAlias {
    alias: String,
}

impl Op for DeleteAlias {
    const NAME: &'static str = "delete_alias";
    type Out = bool;

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        Ok(tx.execute(DELETE_ALIAS, args![&self.alias]).await? > 0)
    }
}

struct AliasesOf {
    room_sn: i64,
}

impl Query for AliasesOf {
    const NAME: &'static str = "aliases_of";
    type Out = Vec<String>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        tx.query(ALIASES_OF, args![self.room_sn]).await?.into_iter().map(|mut row| row.get(0)).collect()
    }
}

struct PublishRoom {
    room_sn: i64,
    published: bool,
}

impl Op for PublishRoom {
    const NAME: &'static str = "publish_room";
    type Out = ();

    fn positions(&self) -> u32 {
        0
    }

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let stmt = if self.published { PUBLISH } else { UNPUBLISH };
        tx.execute(stmt, args![self.room_sn]).await?;
        Ok(())
    }
}

struct IsPublished {
    room_id: String,
}

impl Query for IsPublished {
    const NAME: &'static str = "is_published";
    type Out = Option<bool>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        match tx.query_opt(IS_PUBLISHED, args![&self.room_id]).await? {
            Some(mut row) => Ok(Some(row.get::<Option<i64>>(0)?.is_some())),
            None => Ok(None),
        }
    }
}

struct Count;

impl Query for Count {
    const NAME: &'static str = "published_rooms_count";
    type Out = i64;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<i64> {
        tx.query_one(COUNT, args![]).await?.get(0)
    }
}

struct Published {
    from: (i64, i64),
    direction: Direction,
    limit: i64,
}

impl Query for Published {
    const NAME: &'static str = "published_rooms";
    type Out = Vec<ListedRoom>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let stmt = match self.direction {
            Direction::Forward => PUBLISHED,
            Direction::Back => PUBLISHED_BACK,
        };
        let rows = tx.query(stmt, args![self.from.0, self.from.1, self.limit]).await?;
        with_state(tx, rows).await
    }
}

struct Shown {
    room_ids: Vec<String>,
}

impl Query for Shown {
    const NAME: &'static str = "rooms_shown";
    type Out = Vec<ListedRoom>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows = tx.query(SHOWN, args![self.room_ids.clone()]).await?;
        with_state(tx, rows).await
    }
}

/// Rooms, with what strangers may know of them.
async fn with_state<R: Reads>(tx: &mut R, rows: Vec<Row>) -> Result<Vec<ListedRoom>> {
    let mut rooms = Vec::with_capacity(rows.len());
    for mut row in rows {
        let (room_sn, room_id, joined, version) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
        rooms.push(ListedRoom { room_sn, room_id, joined, version, state: Vec::new() });
    }
    let sns: Vec<i64> = rooms.iter().map(|room| room.room_sn).collect();
    let types: Vec<String> = SHOWN_TYPES.map(str::to_owned).to_vec();
    let mut state = std::collections::HashMap::<i64, Vec<(String, String)>>::new();
    for mut row in tx.query(SHOWN_STATE, args![sns, types]).await? {
        state.entry(row.get(0)?).or_default().push((row.get(1)?, row.get(2)?));
    }
    for room in &mut rooms {
        room.state = state.remove(&room.room_sn).unwrap_or_default();
    }
    Ok(rooms)
}

struct Children {
    room_sns: Vec<i64>,
}

impl Query for Children {
    const NAME: &'static str = "space_children";
    type Out = Vec<(i64, String)>;

    async fn run<R: Reads>(&self, tx: &mut R) -> Result<Self::Out> {
        let rows = tx.query(CHILDREN, args![self.room_sns.clone(), MOST_LINKS]).await?;
        rows.into_iter().map(|mut row| Ok((row.get(0)?, row.get(1)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        testing::{Store, each_backend},
        tx::Stmt,
    };

    const ROOM: Stmt = Stmt::new(
        "room",
        "INSERT INTO rooms (room_sn, room_id, version, rev, state_root, joined, invited, tips, last_pos, touched_pos) \
            VALUES ($1, $2, '12', 1, $3, $4, 0, $3, 0, 0)",
    );

    struct MakeRoom(i64, &'static str, i64);

    impl Op for MakeRoom {
        const NAME: &'static str = "make_room";
        type Out = ();
        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            tx.execute(ROOM, args![self.0, self.1, Vec::<u8>::new(), self.2]).await?;
            Ok(())
        }
    }

    async fn rooms(store: &Store) {
        for (sn, id, joined) in [(7, "!a:x", 3), (8, "!b:x", 5), (9, "!c:x", 3)] {
            store.write(MakeRoom(sn, id, joined)).await.unwrap();
        }
    }

    #[test]
    fn an_alias_names_one_room_until_it_is_deleted() {
        each_backend(|store| async move {
            rooms(&store).await;
            assert!(store.add_alias("#one:x", 7, "@a:x").await.unwrap());
            assert!(!store.add_alias("#one:x", 8, "@b:x").await.unwrap(), "it is taken");
            assert!(store.add_alias("#und:x", 7, "@b:x").await.unwrap());
            let alias = store.alias("#one:x").await.unwrap().unwrap();
            assert_eq!(alias, Alias { room_sn: 7, room_id: "!a:x".into(), creator: "@a:x".into() });
            assert_eq!(store.aliases_of(7).await.unwrap(), ["#one:x", "#und:x"]);
            assert!(store.delete_alias("#one:x").await.unwrap());
            assert!(!store.delete_alias("#one:x").await.unwrap());
            assert_eq!(store.alias("#one:x").await.unwrap(), None);
            assert!(store.add_alias("#one:x", 8, "@b:x").await.unwrap());
        });
    }

    #[test]
    fn published_rooms_are_listed_the_largest_first() {
        each_backend(|store| async move {
            rooms(&store).await;
            assert_eq!(store.is_published("!a:x").await.unwrap(), Some(false));
            assert_eq!(store.is_published("!z:x").await.unwrap(), None);
            for sn in [7, 8, 9, 9] {
                store.publish_room(sn, true).await.unwrap();
            }
            assert_eq!(store.is_published("!a:x").await.unwrap(), Some(true));
            let page = store.published_rooms((i64::MAX, i64::MAX), Direction::Forward, 2).await.unwrap();
            assert_eq!(page.iter().map(|r| r.room_sn).collect::<Vec<_>>(), [8, 9]);
            let page = store.published_rooms((3, 9), Direction::Forward, 2).await.unwrap();
            assert_eq!(page.iter().map(|r| r.room_sn).collect::<Vec<_>>(), [7]);
            let page = store.published_rooms((3, 7), Direction::Back, 1).await.unwrap();
            assert_eq!(page.iter().map(|r| r.room_sn).collect::<Vec<_>>(), [9]);
            assert_eq!(store.rooms_shown(vec!["!c:x".into(), "!z:x".into()]).await.unwrap().len(), 1);
            store.publish_room(8, false).await.unwrap();
            assert_eq!(store.published_rooms_count().await.unwrap(), 2);
        });
    }
}
