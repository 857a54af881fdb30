//! What those in the room are shown of it, held against what is true.

use super::*;

/// What somebody's client knows, having laid one sync over the other.
#[derive(Default)]
pub(super) struct Watcher {
    pub(super) since: Option<String>,
    pub(super) state: State,
    pub(super) timeline: Vec<OwnedEventId>,
    /// Keys whose last event in a timeline lost against another one, or is state no more: this a sync can't tell.
    pub(super) misled: BTreeSet<Key>,
}

impl Room<'_> {
    pub(super) async fn all_watch(&self, names: &[&'static str]) {
        for name in names {
            self.watch(name).await;
        }
    }

    pub(super) async fn sync(
        &self,
        name: &str,
        since: Option<&str>,
    ) -> ruma::api::client::sync::sync_events::v3::Response {
        self.sync_at_most(MOST, name, since).await
    }

    pub(super) async fn sync_at_most(
        &self,
        limit: u64,
        name: &str,
        since: Option<&str>,
    ) -> ruma::api::client::sync::sync_events::v3::Response {
        let filter = json!({ "room": { "include_leave": true, "timeline": { "limit": limit } } });
        let wish = SyncWish {
            since: since.map(|t| t.parse().unwrap()),
            timeout: None,
            full_state: false,
            state_after: false,
            filter: serde_json::from_value(filter).unwrap(),
            session_as_of: 0,
        };
        let user = user(name);
        self.house.services.syncs.sync(Reader { user: &user, device: "D" }, &wish).await.unwrap()
    }

    /// What sliding sync tells Alice of the state, all of which she wants: in the form that was accepted, or in that which
    /// clients use.
    pub(super) async fn slides(&self, accepted: bool, pos: Option<String>) -> (String, Vec<Value>) {
        use ruma::api::client::sync::sync_events::v5::{Request, request::RoomSubscription};
        let (alice, mut request) = (user("alice"), Request::new());
        (request.conn_id, request.pos) = (Some(accepted.to_string()), pos);
        let mut wish = RoomSubscription::default();
        wish.timeline_limit = 1_u32.into();
        wish.required_state = vec![("*".into(), "*".to_owned())];
        request.room_subscriptions.insert(self.id.clone(), wish);
        let mut wish = SlidingWish::new(request, &Map::new(), &alice, 0).unwrap();
        if accepted {
            let all = StateWish { include: vec![(None, None)], exclude: Vec::new(), lazy: false };
            wish = wish.with_states(BTreeMap::new(), BTreeMap::from([(self.id.clone(), all)])).unwrap();
        }
        let slid = self.house.services.syncs.slide(Reader { user: &alice, device: "D" }, wish).await.unwrap();
        let state = slid.response.rooms.get(&self.id).map(|room| room.required_state.clone()).unwrap_or_default();
        let state = state.iter().map(|event| serde_json::from_str(event.json().get()).unwrap()).collect();
        (slid.response.pos, state)
    }

    /// Syncs, and lays what comes over what is known. What came.
    pub(super) async fn watch(&self, name: &'static str) -> (State, Vec<OwnedEventId>) {
        let since = self.watchers.lock().unwrap().entry(name).or_default().since.clone();
        let page = self.sync(name, since.as_deref()).await;
        let current = self.state().await;
        let mut watchers = self.watchers.lock().unwrap();
        let watcher = watchers.entry(name).or_default();
        watcher.since = Some(page.next_batch.clone());
        watcher.lay_over(&self.part(&page), &current)
    }

    /// The events of this room in a sync: the state, and the timeline.
    pub(super) fn part(&self, page: &ruma::api::client::sync::sync_events::v3::Response) -> Part {
        use ruma::api::client::sync::sync_events::v3::State as Section;
        let (state, timeline) = match (page.rooms.join.get(&self.id), page.rooms.leave.get(&self.id)) {
            (Some(room), None) => (&room.state, &room.timeline),
            (None, Some(room)) => (&room.state, &room.timeline),
            (None, None) => return Part::default(),
            (Some(_), Some(_)) => panic!("both joined and left"),
        };
        let Section::Before(state) = state else { panic!("state after the timeline was not asked for") };
        Part {
            state: state_of(&state.events),
            timeline: timeline.events.iter().map(|e| (id_of(e), key_of(e))).collect(),
        }
    }

    pub(super) fn timeline(&self, name: &str) -> Vec<OwnedEventId> {
        self.watchers.lock().unwrap()[name].timeline.clone()
    }

    /// Everybody who watches is shown the same state by whatever way they ask, and nobody what was refused.
    pub(super) async fn all_agree(&self, about: &Pdu) {
        let names: Vec<&'static str> = self.watchers.lock().unwrap().keys().copied().collect();
        let current = self.state().await;
        for name in names {
            self.watch(name).await;
            let fresh = {
                let page = self.sync(name, None).await;
                let mut fresh = Watcher::default();
                fresh.lay_over(&self.part(&page), &current);
                fresh
            };
            let is_in = self.is_in(name, &current).await;
            let watchers = self.watchers.lock().unwrap();
            let watcher = &watchers[name];
            for (how, watcher) in [("syncs on", watcher), ("comes anew", &fresh)] {
                for refused in self.refused.lock().unwrap().iter() {
                    assert!(!watcher.timeline.contains(refused), "{name} {how} and is shown {refused}");
                    assert!(!watcher.state.values().any(|id| id == refused), "{name} {how}: {refused} is state");
                }
                if is_in {
                    let known = |state: &State| {
                        let told = |key: &Key| !watcher.misled.contains(key) && current.contains_key(key);
                        let known = state.iter().filter(|(key, _)| told(key));
                        known.map(|(key, id)| (key.clone(), id.clone())).collect::<State>()
                    };
                    assert_eq!(known(&watcher.state), known(&current), "{name} {how} after {}", about.json);
                }
            }
        }
        self.nobody_pages_to_the_refused().await;
    }

    pub(super) async fn is_in(&self, name: &str, current: &State) -> bool {
        let (alice, services) = (user("alice"), &self.house.services);
        let reader = Reader { user: &alice, device: "D" };
        let Some(id) = current.get(&member(name)) else { return false };
        let event = services.timelines.event::<Value>(reader, &self.id, id).await.unwrap();
        event.get_field::<Value>("content").unwrap().unwrap()["membership"] == "join"
    }

    pub(super) async fn nobody_pages_to_the_refused(&self) {
        let (alice, services) = (user("alice"), &self.house.services);
        let reader = Reader { user: &alice, device: "D" };
        let mut pages = Vec::new();
        for direction in [Direction::Back, Direction::Forward] {
            let wish =
                PageWish { from: None, to: None, direction, limit: 1_000, filter: serde_json::from_str("{}").unwrap() };
            let page = services.timelines.messages::<Value, Value>(reader, &self.id, wish).await.unwrap();
            assert_eq!(page.end, None, "all of it");
            pages.push(page.chunk.iter().map(id_of).collect::<Vec<_>>());
        }
        let (mut back, forward) = (pages.remove(0), pages.remove(0));
        back.reverse();
        assert_eq!(back, forward, "the same both ways");
        assert_eq!(forward, self.timeline("alice"), "what was synced is what can be paged to");
        let refused = self.refused.lock().unwrap().clone();
        for refused in refused {
            assert!(!forward.contains(&refused), "{refused} can be paged to");
            assert!(services.timelines.event::<Value>(reader, &self.id, &refused).await.is_err(), "{refused} is shown");
        }
    }
}

#[derive(Default)]
pub(super) struct Part {
    pub(super) state: State,
    pub(super) timeline: Vec<(OwnedEventId, Option<Key>)>,
}

impl Watcher {
    pub(super) fn lay_over(&mut self, part: &Part, current: &State) -> (State, Vec<OwnedEventId>) {
        let mut timeline = Vec::new();
        let create = Some(key("m.room.create", ""));
        if part
            .state
            .keys()
            .cloned()
            .map(Some)
            .chain(part.timeline.iter().map(|(_, key)| key.clone()))
            .any(|k| k == create)
        {
            // Shown as to a newcomer: what was known before is history.
            (self.state, self.timeline, self.misled) = Default::default();
        }
        for (key, id) in &part.state {
            assert!(current.contains_key(key), "{key:?} is no state any more");
            self.state.insert(key.clone(), id.clone());
            self.misled.remove(key);
        }
        for (id, key) in &part.timeline {
            assert!(!self.timeline.contains(id), "{id} came twice");
            self.timeline.push(id.clone());
            timeline.push(id.clone());
            if let Some(key) = key {
                self.state.insert(key.clone(), id.clone());
                if current.get(key) == Some(id) {
                    self.misled.remove(key);
                } else {
                    self.misled.insert(key.clone());
                }
            }
        }
        (part.state.clone(), timeline)
    }
}
