//! Two people talk in a room while their server is stopped, killed and started again.
//!
//! Asks the runner for "stop" and "kill", and reads "down" and "up".

use anyhow::{Context as _, Result};
use matrix_sdk::{
    RoomState,
    ruma::{EventId, RoomId, events::room::message::RoomMessageEventContent},
};
use matrix_sdk_ui::{
    sync_service::State,
    timeline::{RoomExt as _, Timeline, TimelineEventFocusThreadMode, TimelineFocus},
};

use crate::{
    kit::{RECONNECT_LIMIT, becomes, check, equal, heard, say, until, until_within},
    people::{Person, RoomList, says},
};

/// Somebody who sees the room in their list, and looks at it. They don't subscribe to it: an answer to that and what the
/// SDK's queue has sent meanwhile would be put in the wrong order by the SDK.
struct Talker {
    person: Person,
    timeline: Timeline,
}

impl Talker {
    async fn opens(person: Person, room: &RoomId) -> Result<Self> {
        let timeline = person.sees_room(room, RoomState::Joined).await?.timeline().await?;
        Ok(Self { person, timeline })
    }

    /// Past the SDK's queue: of what that sends, the SDK now and then shows two if the server's word of it comes before the
    /// answer to the request, as happens on a busy machine.
    async fn says(&self, text: &str) -> Result<()> {
        says(self.timeline.room(), text).await.map(drop)
    }

    /// By way of the SDK's queue, which sends what it has once there is a server.
    async fn queues(&self, text: &str) -> Result<()> {
        self.timeline.send(RoomMessageEventContent::text_plain(text).into()).await?;
        Ok(())
    }

    /// Waits until all has been said and seen, and looks back to the beginning of the room.
    async fn has_all(&self, said: &[String]) -> Result<()> {
        let last = said.last().context("nothing was said")?;
        let seen = async || Ok(texts(&self.timeline).await.contains(last).then_some(()));
        until_within(RECONNECT_LIMIT, &format!("'{last}' by {}", self.person.name()), seen).await?;
        becomes(self.person.name(), said.to_vec(), async || {
            while !self.timeline.paginate_backwards(20).await? {}
            Ok(texts(&self.timeline).await)
        })
        .await
    }
}

/// The messages that are shown and on the server.
async fn texts(timeline: &Timeline) -> Vec<String> {
    let items = timeline.items().await;
    let events = items.iter().filter_map(|item| item.as_event()).filter(|event| event.is_remote_event());
    events.filter_map(|event| Some(event.content().as_message()?.body().to_owned())).collect()
}

async fn outage(word: &str, name: &str, talkers: [&Talker; 2], said: &mut Vec<String>) -> Result<()> {
    say(word);
    heard("down").await?;
    for Talker { person, .. } in talkers {
        let is_lost = async || Ok(matches!(person.following.state().get(), State::Offline).then_some(()));
        until_within(RECONNECT_LIMIT, "the loss of the server", is_lost).await?;
    }
    said.push(format!("is anybody there? ({name})"));
    talkers[0].queues(&said[said.len() - 1]).await?;
    say("seen");
    heard("up").await?;
    for Talker { person, .. } in talkers {
        until_within(RECONNECT_LIMIT, "the server again", async || Ok(person.is_following()?.then_some(()))).await?;
    }
    Ok(())
}

pub async fn talk() -> Result<()> {
    let (alice, bob) = check("two people register, log in and follow", async {
        Ok((Person::following("alice").await?, Person::following("bob").await?))
    })
    .await?;
    let mut said = vec!["Good evening, Bob".to_owned(), "Good evening, Alice".to_owned()];
    let (alice, bob) = check("both see a message of each", async {
        let room = alice.makes("The parlour").await?.room_id().to_owned();
        bob.client.join_room_by_id(&room).await?;
        let (alice, bob) = (Talker::opens(alice, &room).await?, Talker::opens(bob, &room).await?);
        alice.says(&said[0]).await?;
        bob.has_all(&said[..1]).await?;
        bob.says(&said[1]).await?;
        alice.has_all(&said).await?;
        Ok((alice, bob))
    })
    .await?;
    for (word, name) in [("stop", "a stop"), ("kill", "a kill")] {
        check(&format!("both find the server again after {name}"), outage(word, name, [&alice, &bob], &mut said))
            .await?;
        check(&format!("what was said without a server is sent after {name}"), async {
            let sent = async || {
                // The queue gives up after some attempts, and goes on when it is told to.
                alice.person.client.send_queue().set_enabled(true).await;
                Ok(texts(&bob.timeline).await.contains(&said[said.len() - 1]).then_some(()))
            };
            until_within(RECONNECT_LIMIT, "what was said", sent).await
        })
        .await?;
        check(&format!("they talk on after {name}, and nothing is lost or doubled"), async {
            for talker in [&alice, &bob] {
                said.push(format!("{} is still here after {name}", talker.person.name()));
                talker.says(&said[said.len() - 1]).await?;
                for talker in [&alice, &bob] {
                    talker.has_all(&said).await?;
                }
            }
            Ok(())
        })
        .await?;
        check(&format!("a new session has all of it after {name}"), async {
            let again = Person::again("bob").await?;
            again.following.start().await;
            let again = Talker::opens(again, alice.timeline.room().room_id()).await?;
            again.has_all(&said).await?;
            again.person.goes().await
        })
        .await?;
    }
    away(&alice, &bob, said).await?;
    alice.person.goes().await?;
    bob.person.goes().await
}

/// More is said than one answer shows.
async fn away(alice: &Talker, bob: &Talker, mut said: Vec<String>) -> Result<()> {
    let mut ids = Vec::new();
    check("who did not follow for 60 messages has all of them when they do", async {
        bob.person.following.stop().await;
        alice.timeline.room().set_name("The far parlour".to_owned()).await?;
        for number in 1..=60 {
            said.push(format!("log entry {number}"));
            ids.push(says(alice.timeline.room(), &said[said.len() - 1]).await?);
        }
        bob.person.following.start().await;
        bob.has_all(&said).await?;
        let list = RoomList::of(&bob.person).await?;
        list.shows(&["The far parlour"]).await
    })
    .await?;
    linked(bob, &ids[29], &said).await?;
    pinned(alice, bob, &ids[9]).await?;
    check("who opens a room is told more of it at once, while they wait for news", async {
        let other = alice.person.makes("The cellar").await?;
        let first = says(&other, "Mind the step").await?;
        for number in 1..=10 {
            says(&other, &format!("barrel {number}")).await?;
        }
        bob.person.client.join_room_by_id(other.room_id()).await?;
        let room = bob.person.sees_room(other.room_id(), RoomState::Joined).await?;
        let timeline = room.timeline().await?;
        bob.person.opens(&[other.room_id()]).await;
        until("the first message", async || Ok(timeline.item_by_event_id(&first).await)).await?;
        Ok(())
    })
    .await
}

async fn linked(bob: &Talker, event: &EventId, said: &[String]) -> Result<()> {
    check("who comes by a link sees what is around it, and goes on from there both ways", async {
        let focus = TimelineFocus::Event {
            target: event.to_owned(),
            num_context_events: 10,
            thread_mode: TimelineEventFocusThreadMode::Automatic { hide_threaded_events: false },
        };
        let around = bob.timeline.room().timeline_builder().with_focus(focus).build().await?;
        let entries: Vec<String> = (25..=35).map(|number| format!("log entry {number}")).collect();
        becomes("what is around it", entries, async || Ok(texts(&around).await)).await?;
        while !around.paginate_forwards(20).await? {}
        while !around.paginate_backwards(20).await? {}
        becomes("all of it", said.to_vec(), async || Ok(texts(&around).await)).await
    })
    .await
}

async fn pinned(alice: &Talker, bob: &Talker, event: &EventId) -> Result<()> {
    check("what is pinned is shown, however old it is", async {
        equal(alice.timeline.room().pin_event(event).await?, true, "that it was pinned")?;
        let room = bob.timeline.room();
        bob.person.opens(&[room.room_id()]).await;
        becomes("what is pinned", Some(vec![event.to_owned()]), async || Ok(room.pinned_event_ids())).await?;
        let pins = room.timeline_builder().with_focus(TimelineFocus::PinnedEvents).build().await?;
        becomes("what it says", vec!["log entry 10".to_owned()], async || Ok(texts(&pins).await)).await
    })
    .await
}
