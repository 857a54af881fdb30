//! How a room comes into being.

use std::{collections::BTreeSet, sync::Arc};

use hearth::service::{
    rooms::{CreateRoom, Preset},
    shape::Reader,
    timeline::PageWish,
};
use hearth_storage::{Direction, StoredEvent};
use ruma::{RoomId, RoomVersionId, api::client::filter::RoomEventFilter};
use serde_json::{Map, Value, json};

use super::parsed;
use crate::model::{
    Outcome, Run, failure,
    story::{VERSIONS, VISIBILITIES},
    world::{Event, Room, State, visibility},
};

impl Run<'_> {
    pub async fn create(
        &mut self,
        by: usize,
        (seen, version): (usize, usize),
        public: bool,
        named: bool,
    ) -> Outcome<()> {
        let version = VERSIONS[version];
        let mut users = Map::new();
        users.insert(self.users[1].to_string(), 50.into());
        if version != "12" {
            users.insert(self.users[by].to_string(), 100.into());
        }
        let mut power_levels = Map::new();
        power_levels.insert("users".into(), users.into());
        let initial = json!({ "type": "m.room.history_visibility", "content": visibility(VISIBILITIES[seen]) });
        let wish = CreateRoom {
            name: named.then(|| "Kitchen".to_owned()),
            version: Some(RoomVersionId::try_from(version).expect("a version")),
            preset: Some(if public { Preset::Public } else { Preset::Private }),
            power_levels,
            initial_state: vec![serde_json::from_value(initial).expect("initial state")],
            ..CreateRoom::default()
        };
        let id = self.services().rooms.create(&self.users[by], wish).await.map_err(failure)?;
        // What a room begins with is not what is judged here: it is read past the services.
        let head = self.services().rooms.load_head(&id).await.map_err(failure)?;
        let stored = self.first_events(by, &id).await?;
        let mut room = Room {
            id,
            sn: head.sn,
            version: version.to_owned(),
            events: Vec::new(),
            refused: BTreeSet::new(),
            receipts: std::collections::BTreeMap::new(),
            forgotten: BTreeSet::new(),
        };
        let mut current = Arc::new(State::new());
        for stored in stored {
            let json = parsed(&stored);
            let text = |name: &str| json[name].as_str().map(str::to_owned);
            let event = Event {
                id: stored.event_id.clone().try_into().expect("an id"),
                kind: text("type").expect("a type"),
                state_key: text("state_key"),
                sender: text("sender").expect("a sender").try_into().expect("a user"),
                content: json["content"].clone(),
                device: None,
                time: self.world.tick(),
                depth: json["depth"].as_i64().expect("a depth"),
                graph: Arc::clone(&current),
                current: Arc::clone(&current),
                redacted_by: None,
            };
            let mut state = (*current).clone();
            state.insert(event.key().expect("state"), event.id.clone());
            current = Arc::new(state);
            room.events.push(Event { graph: Arc::clone(&current), current: Arc::clone(&current), ..event });
        }
        self.world.rooms.push(room);
        Ok(())
    }

    async fn first_events(&self, creator: usize, room_id: &RoomId) -> Outcome<Vec<StoredEvent>> {
        let wish = PageWish {
            from: None,
            to: None,
            direction: Direction::Forward,
            limit: 100,
            filter: RoomEventFilter::default(),
        };
        let reader = Reader { user: &self.users[creator], device: "D" };
        let page = self.services().timelines.messages::<Value, Value>(reader, room_id, wish).await.map_err(failure)?;
        let mut ids = Vec::with_capacity(page.chunk.len());
        for event in &page.chunk {
            ids.push(event.get_field::<String>("event_id").map_err(failure)?.ok_or_else(|| failure("no id"))?);
        }
        let mut stored = self.storage().events_by_id(ids).await.map_err(failure)?;
        stored.sort_by_key(|e| e.sn);
        Ok(stored)
    }
}
