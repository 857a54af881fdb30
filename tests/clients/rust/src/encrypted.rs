//! Talk that the server can't read, and what becomes of it: it is edited, answered, reacted to, taken back and read.

use anyhow::{Context as _, Result, ensure};
use matrix_sdk::{
    RoomState,
    room::edit::EditedContent,
    ruma::{
        EventId, OwnedEventId, OwnedUserId, RoomId,
        api::client::{receipt::create_receipt::v3::ReceiptType, room::get_room_event, threads::subscribe_thread},
        events::room::message::{RoomMessageEventContent, RoomMessageEventContentWithoutRelation},
    },
    store::ThreadSubscriptionStatus,
};
use matrix_sdk_ui::timeline::{
    AnyOtherStateEventContentChange, EventTimelineItem, RoomExt as _, Timeline, TimelineDetails, TimelineEventItemId,
    TimelineFocus, TimelineItemContent,
};

use crate::{
    kit::{becomes, check, equal, until},
    people::Person,
};

/// Somebody with the chat open.
pub struct Talker {
    pub person: Person,
    pub timeline: Timeline,
}

impl Talker {
    pub async fn opens(person: Person, room: &RoomId) -> Result<Self> {
        let timeline = person.sees_room(room, RoomState::Joined).await?.timeline().await?;
        person.opens(&[room]).await;
        let talker = Self { person, timeline };
        // What is said before the answer to that has come, the SDK would put before what is in it.
        talker
            .sees("the beginning", |item| {
                matches!(item.content(), TimelineItemContent::OtherState(state)
            if matches!(state.content(), AnyOtherStateEventContentChange::RoomCreate(_)))
            })
            .await?;
        Ok(talker)
    }

    /// Waits until it can be read, and has come from who it says.
    pub async fn reads(&self, text: &str) -> Result<EventTimelineItem> {
        self.sees(&format!("'{text}'"), |item| body(item) == Some(text) && item.encryption_info().is_some()).await
    }

    /// Waits until the server has an event like this one.
    async fn sees(&self, what: &str, is_it: impl Fn(&EventTimelineItem) -> bool) -> Result<EventTimelineItem> {
        let what = format!("{what} by {}", self.person.name());
        let look = async || {
            let items = self.timeline.items().await;
            let mut events = items.iter().filter_map(|item| item.as_event()).filter(|item| item.is_remote_event());
            Ok(events.find(|item| is_it(item)).cloned())
        };
        until(&what, look).await
    }

    pub async fn says(&self, text: &str) -> Result<OwnedEventId> {
        self.timeline.send(RoomMessageEventContent::text_plain(text).into()).await?;
        let said = self.sees(&format!("'{text}'"), |item| body(item) == Some(text)).await?;
        id(&said)
    }
}

pub fn body(item: &EventTimelineItem) -> Option<&str> {
    Some(item.content().as_message()?.body())
}

fn id(item: &EventTimelineItem) -> Result<OwnedEventId> {
    Ok(item.event_id().context("an event without an id")?.to_owned())
}

/// Both with an identity of their own by which their device is signed.
pub async fn signed(name: &str) -> Result<Person> {
    let person = Person::following(name).await?;
    let encryption = person.client.encryption();
    let keys = async || Ok(encryption.cross_signing_status().await.is_some_and(|status| status.is_complete()));
    becomes("the cross-signing keys", true, keys).await?;
    let is_signed =
        async || Ok(encryption.get_own_device().await?.is_some_and(|device| device.is_cross_signed_by_owner()));
    becomes("the signature", true, is_signed).await?;
    Ok(person)
}

/// A chat of two that is encrypted from its beginning.
pub async fn chat(ann: Person, ben: Person) -> Result<(Talker, Talker)> {
    let room = ann.client.create_dm(&ben.id()?).await?;
    let his = ben.sees_room(room.room_id(), RoomState::Invited).await?;
    his.join().await?;
    for person in [&ann, &ben] {
        let room = person.sees_room(room.room_id(), RoomState::Joined).await?;
        becomes("that it is encrypted", true, async || Ok(room.encryption_state().is_encrypted())).await?;
        becomes("both in it", 2, async || Ok(room.joined_members_count())).await?;
    }
    let room = room.room_id();
    Ok((Talker::opens(ann, room).await?, Talker::opens(ben, room).await?))
}

pub async fn encrypted() -> Result<()> {
    let (ann, ben) = check("two people get an identity with their first session", async {
        Ok((signed("ann").await?, signed("ben").await?))
    })
    .await?;
    let (ann, ben) = check("an encrypted chat of two begins with an invite", chat(ann, ben)).await?;
    check("each reads what the other says, and the server can't", async {
        let event_id = ann.says("The key is under the mat").await?;
        ben.reads("The key is under the mat").await?;
        ben.says("Which mat?").await?;
        ann.reads("Which mat?").await?;
        let request = get_room_event::v3::Request::new(ann.timeline.room().room_id().to_owned(), event_id);
        let stored = ben.person.client.send(request).await?.event;
        equal(stored.get_field::<String>("type")?.as_deref(), Some("m.room.encrypted"), "what the server has")?;
        ensure!(!stored.json().get().contains("mat"), "the server has {}", stored.json());
        Ok(())
    })
    .await?;
    edited(&ann, &ben).await?;
    reacted(&ann, &ben).await?;
    answered(&ann, &ben).await?;
    let thread = in_thread(&ann, &ben).await?;
    followed(&ann, &thread).await?;
    taken_back(&ann, &ben).await?;
    read(&ann, &ben).await?;
    typing(&ann, &ben).await?;
    ann.person.goes().await?;
    ben.person.goes().await
}

async fn edited(ann: &Talker, ben: &Talker) -> Result<()> {
    check("an edit reaches who saw the first words", async {
        let event = ann.says("The blue mat, at teh back").await?;
        ben.reads("The blue mat, at teh back").await?;
        let said = RoomMessageEventContentWithoutRelation::text_plain("The blue mat, at the back");
        ann.timeline.edit(&TimelineEventItemId::EventId(event.clone()), EditedContent::RoomMessage(said)).await?;
        for talker in [ann, ben] {
            let item = talker.reads("The blue mat, at the back").await?;
            let is_edited = item.content().as_message().is_some_and(matrix_sdk_ui::timeline::Message::is_edited);
            equal((id(&item)?, is_edited), (event.clone(), true), "the item")?;
        }
        Ok(())
    })
    .await
}

async fn reacted(ann: &Talker, ben: &Talker) -> Result<()> {
    check("both see a reaction, and that it is withdrawn", async {
        let event = ann.says("Found it?").await?;
        ben.reads("Found it?").await?;
        let ben_id = ben.person.id()?;
        for is_there in [true, false] {
            equal(
                ben.timeline.toggle_reaction(&TimelineEventItemId::EventId(event.clone()), "👍").await?,
                is_there,
                "it",
            )?;
            for talker in [ann, ben] {
                becomes("the reaction", vec![ben_id.clone(); usize::from(is_there)], async || {
                    Ok(who_reacted(talker.timeline.item_by_event_id(&event).await.as_ref(), "👍"))
                })
                .await?;
            }
        }
        Ok(())
    })
    .await
}

fn who_reacted(item: Option<&EventTimelineItem>, key: &str) -> Vec<OwnedUserId> {
    let who = item.and_then(|item| Some(item.content().reactions()?.get(key)?.keys().cloned().collect()));
    who.unwrap_or_default()
}

async fn answered(ann: &Talker, ben: &Talker) -> Result<()> {
    check("an answer shows to what it is one", async {
        let event = ann.says("What does it open?").await?;
        ben.reads("What does it open?").await?;
        let answer = RoomMessageEventContentWithoutRelation::text_plain("A door, I suppose");
        ben.timeline.send_reply(answer, event.clone()).await?;
        let item = ann.reads("A door, I suppose").await?;
        let to = item.content().in_reply_to().context("it is no answer")?;
        equal(to.event_id, event, "to what")?;
        let TimelineDetails::Ready(question) = to.event else {
            anyhow::bail!("{:?} instead of the question", to.event)
        };
        equal(question.sender, ann.person.id()?, "who asked")
    })
    .await
}

async fn in_thread(ann: &Talker, ben: &Talker) -> Result<OwnedEventId> {
    check("a thread goes on beside the room, and its root says how long it is", async {
        let root = ann.says("On another note").await?;
        ben.reads("On another note").await?;
        let mut threads = Vec::new();
        for talker in [ann, ben] {
            let focus = TimelineFocus::Thread { root_event_id: root.clone() };
            threads.push(talker.timeline.room().timeline_builder().with_focus(focus).build().await?);
        }
        for (from, to, text) in [(1, 0, "Which note?"), (0, 1, "C sharp")] {
            threads[from].send(RoomMessageEventContent::text_plain(text).into()).await?;
            until(text, async || {
                let items = threads[to].items().await;
                Ok(items.iter().any(|item| item.as_event().and_then(body) == Some(text)).then_some(()))
            })
            .await?;
        }
        for talker in [ann, ben] {
            becomes("how many answers", Some(2), async || {
                let root = talker.timeline.item_by_event_id(&root).await;
                Ok(root.and_then(|root| Some(root.content().thread_summary()?.num_replies)))
            })
            .await?;
        }
        Ok(root)
    })
    .await
}

async fn followed(ann: &Talker, thread: &EventId) -> Result<()> {
    check("a thread that is followed in another session is so in this", async {
        let elsewhere = Person::again("ann").await?;
        let room = ann.timeline.room().room_id();
        let follow = subscribe_thread::unstable::Request::new(room.to_owned(), thread.to_owned(), None);
        elsewhere.client.send(follow).await?;
        let told = Some((ThreadSubscriptionStatus::Subscribed { automatic: false }, true));
        becomes("what is followed", told, async || {
            let stored = ann.person.client.state_store().load_thread_subscription(room, thread).await?;
            Ok(stored.map(|stored| (stored.status, stored.bump_stamp.is_some())))
        })
        .await?;
        elsewhere.goes().await
    })
    .await
}

async fn taken_back(ann: &Talker, ben: &Talker) -> Result<()> {
    check("what is taken back is gone for both", async {
        let event = ann.says("I never liked that door").await?;
        ben.reads("I never liked that door").await?;
        ann.timeline.redact(&TimelineEventItemId::EventId(event.clone()), Some("rash")).await?;
        for talker in [ann, ben] {
            becomes("that it is gone", Some(true), async || {
                Ok(talker.timeline.item_by_event_id(&event).await.map(|item| item.content().is_redacted()))
            })
            .await?;
        }
        Ok(())
    })
    .await
}

async fn read(ann: &Talker, ben: &Talker) -> Result<()> {
    check("ann sees how far ben has read, and he that nothing is unread", async {
        let event = ann.says("Read this").await?;
        ben.reads("Read this").await?;
        let room = ben.timeline.room();
        until("that it is unread", async || Ok((room.num_unread_messages() > 0).then_some(()))).await?;
        equal(ben.timeline.mark_as_read(ReceiptType::Read).await?, true, "that the receipt was sent")?;
        let ben_id = ben.person.id()?;
        becomes("ben's receipt", Some(true), async || {
            let item = ann.timeline.item_by_event_id(&event).await;
            Ok(item.map(|item| item.read_receipts().contains_key(&ben_id)))
        })
        .await?;
        becomes("nothing unread", 0, async || Ok(room.num_unread_messages())).await
    })
    .await
}

async fn typing(ann: &Talker, ben: &Talker) -> Result<()> {
    check("ann sees ben typing, and that he stopped", async {
        let (_listening, mut typing) = ann.timeline.room().subscribe_to_typing_notifications();
        for (is_typing, who) in [(true, vec![ben.person.id()?]), (false, Vec::new())] {
            ben.timeline.room().typing_notice(is_typing).await?;
            until("who types", async || Ok(typing.try_recv().ok().filter(|now| *now == who).map(|_| ()))).await?;
        }
        Ok(())
    })
    .await
}
