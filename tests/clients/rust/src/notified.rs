//! What a notification says: a pusher tells no more than where an event is, and the client fetches it by itself.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use matrix_sdk::{
    Room, RoomState,
    deserialized_responses::TimelineEvent,
    notification_settings::RoomNotificationMode,
    room::MessagesOptions,
    ruma::{
        EventId, OwnedEventId, RoomId,
        api::client::{
            push::{Pusher, PusherIds, PusherInit, PusherKind, get_pushers},
            receipt::create_receipt::v3::ReceiptType,
            room::create_room::v3::{Request as NewRoom, RoomPreset},
        },
        assign,
        events::{
            AnySyncMessageLikeEvent, AnySyncTimelineEvent, Mentions, receipt::ReceiptThread,
            room::message::RoomMessageEventContent,
        },
        push::{HttpPusherData, PushFormat},
    },
};
use matrix_sdk_ui::notification_client::{
    NotificationClient, NotificationEvent, NotificationItem, NotificationProcessSetup, NotificationStatus,
};

use crate::{
    encrypted::{Talker, chat, signed},
    kit::{becomes, check, equal, gateway_url, told as pushed_to},
    people::{Person, says},
};

/// What fetches what somebody is to be notified of.
async fn bell(person: &Person) -> Result<NotificationClient> {
    let sync_service = Arc::clone(&person.following);
    let setup = NotificationProcessSetup::SingleProcess { sync_service };
    Ok(NotificationClient::new(person.client.clone(), setup).await?)
}

fn shown(status: NotificationStatus) -> Result<Box<NotificationItem>> {
    match status {
        NotificationStatus::Event(item) => Ok(item),
        other => bail!("{other:?} instead of an event"),
    }
}

fn text(item: &NotificationItem) -> Option<&str> {
    let NotificationEvent::Timeline(event) = &item.event else { return None };
    let AnySyncTimelineEvent::MessageLike(AnySyncMessageLikeEvent::RoomMessage(message)) = &**event else {
        return None;
    };
    Some(message.as_original()?.content.body())
}

/// Name of the room and of who spoke, what was said, and whether it rings and is meant for the user.
fn told(item: &NotificationItem) -> (&str, Option<&str>, Option<&str>, Option<bool>, Option<bool>) {
    (&item.room_computed_display_name, item.sender_display_name.as_deref(), text(item), item.is_noisy, item.has_mention)
}

pub async fn notified() -> Result<()> {
    let (nina, omar) = (signed("nina").await?, signed("omar").await?);
    nina.client.account().set_display_name(Some("Nina")).await?;
    let pablo = Person::new("pablo").await?;
    plain(&nina, &omar, &pablo).await?;
    invite(&nina, &omar).await?;
    let (nina, omar) = chat(nina, omar).await?;
    secret(&nina, &omar).await?;
    pushed(&nina, &omar).await?;
    nina.person.goes().await?;
    omar.person.goes().await?;
    pablo.goes().await
}

async fn plain(nina: &Person, omar: &Person, pablo: &Person) -> Result<()> {
    let room = nina.makes("The lobby").await?;
    for guest in [omar, pablo] {
        guest.client.join_room_by_id(room.room_id()).await?;
    }
    let id = room.room_id();
    omar.sees_room(id, RoomState::Joined).await?;
    let bell = bell(omar).await?;
    let early = says(&room, "Good morning, all").await?;
    check("a notification is fetched by sliding sync, with what the rules say", async {
        let item = shown(bell.get_notification_with_sliding_sync(id, &early).await?)?;
        equal(told(&item), ("The lobby", Some("Nina"), Some("Good morning, all"), Some(false), Some(false)), "it")?;
        equal(item.joined_members_count, 3, "how many are there")?;
        let call = call(&room, omar, "Telephone!").await?;
        let item = shown(bell.get_notification_with_sliding_sync(id, &call).await?)?;
        equal(told(&item), ("The lobby", Some("Nina"), Some("Telephone!"), Some(true), Some(true)), "the call")
    })
    .await?;
    check("what is too old for it is fetched with its context", async {
        for number in 1..=20 {
            says(&room, &format!("guest {number} arrives")).await?;
        }
        let by_sync = bell.get_notification_with_sliding_sync(id, &early).await?;
        ensure!(matches!(by_sync, NotificationStatus::EventNotFound), "{by_sync:?} by sliding sync");
        for item in [bell.get_notification_with_context(id, &early).await?, bell.get_notification(id, &early).await?] {
            let item = shown(item)?;
            equal(told(&item), ("The lobby", Some("Nina"), Some("Good morning, all"), Some(false), Some(false)), "it")?;
        }
        Ok(())
    })
    .await?;
    check("what was taken back is not shown", async {
        let slip = says(&room, "I should not have said").await?;
        room.redact(&slip, None, None).await?;
        for status in both(&bell, id, &slip).await? {
            ensure!(matches!(status, NotificationStatus::EventRedacted), "{status:?}");
        }
        Ok(())
    })
    .await?;
    check("a room that is muted is silent, and counts nothing", async {
        let his = omar.room(id)?;
        let before = his.unread_notification_counts().notification_count;
        let settings = omar.client.notification_settings().await;
        settings.set_room_notification_mode(id, RoomNotificationMode::Mute).await?;
        becomes("the mode", Some(RoomNotificationMode::Mute), async || Ok(his.cached_user_defined_notification_mode()))
            .await?;
        let gossip = says(&room, "Did you hear?").await?;
        for status in both(&bell, id, &gossip).await? {
            ensure!(matches!(status, NotificationStatus::EventFilteredOut), "{status:?}");
        }
        // The count is told with the message.
        becomes("the newest", true, async || Ok(his.latest_event().event_id().as_ref() == Some(&gossip))).await?;
        equal(his.unread_notification_counts().notification_count, before, "what is counted")
    })
    .await
}

async fn both(bell: &NotificationClient, room: &RoomId, event: &EventId) -> Result<[NotificationStatus; 2]> {
    let by_sync = bell.get_notification_with_sliding_sync(room, event).await?;
    Ok([by_sync, bell.get_notification_with_context(room, event).await?])
}

async fn call(room: &Room, who: &Person, text: &str) -> Result<OwnedEventId> {
    let call = RoomMessageEventContent::text_plain(text).add_mentions(Mentions::with_user_ids([who.id()?]));
    Ok(room.send(call).await?.response.event_id)
}

async fn invite(nina: &Person, omar: &Person) -> Result<()> {
    check("an invite rings", async {
        let new = assign!(NewRoom::new(), {
            preset: Some(RoomPreset::PrivateChat), name: Some("The back room".to_owned()), invite: vec![omar.id()?],
        });
        let room = nina.client.create_room(new).await?;
        let his = omar.sees_room(room.room_id(), RoomState::Invited).await?;
        let event = invite_in(&room, omar).await?;
        let item = shown(bell(omar).await?.get_notification(room.room_id(), &event).await?)?;
        ensure!(matches!(item.event, NotificationEvent::Invite(_)), "{:?}", item.event);
        equal(told(&item), ("The back room", Some("Nina"), None, Some(true), Some(false)), "it")?;
        Ok(his.leave().await?)
    })
    .await
}

/// The event that invites somebody, of which a pusher would tell them.
async fn invite_in(room: &Room, who: &Person) -> Result<OwnedEventId> {
    let who = who.id()?;
    let is_it = |event: &&TimelineEvent| event.raw().get_field("state_key").ok().flatten().as_ref() == Some(&who);
    let events = room.messages(MessagesOptions::backward()).await?.chunk;
    events.iter().find(is_it).and_then(TimelineEvent::event_id).context("there is no invite")
}

async fn secret(nina: &Talker, omar: &Talker) -> Result<()> {
    let room = omar.timeline.room().room_id();
    check("what the server can't read is decrypted for its notification", async {
        let event = nina.says("Nobody must know").await?;
        let bell = bell(&omar.person).await?;
        for status in both(&bell, room, &event).await? {
            let item = shown(status)?;
            equal(
                (text(&item), item.is_noisy, item.is_room_encrypted),
                (Some("Nobody must know"), Some(true), Some(true)),
                "it",
            )?;
        }
        Ok(())
    })
    .await?;
    check("who does not follow gets the keys with the notification, and follows on", async {
        omar.person.following.stop().await;
        nina.timeline.room().discard_room_key().await?;
        let event = nina.says("Except you").await?;
        let item = shown(bell(&omar.person).await?.get_notification(room, &event).await?)?;
        equal(text(&item), Some("Except you"), "it")?;
        omar.person.following.start().await;
        omar.reads("Except you").await?;
        nina.timeline.room().discard_room_key().await?;
        nina.says("And now her").await?;
        omar.reads("And now her").await?;
        Ok(())
    })
    .await
}

/// What a pusher of omar's app tells of.
fn pusher(pushkey: &str) -> Result<Pusher> {
    let data = assign!(HttpPusherData::new(format!("{}/_matrix/push/v1/notify", gateway_url()?)), {
        format: Some(PushFormat::EventIdOnly),
    });
    Ok(PusherInit {
        ids: PusherIds::new(pushkey.to_owned(), "org.example.rust".to_owned()),
        kind: PusherKind::Http(data),
        app_display_name: "Story".to_owned(),
        device_display_name: "Omar's phone".to_owned(),
        profile_tag: None,
        lang: "en".to_owned(),
    }
    .into())
}

async fn pushed(nina: &Talker, omar: &Talker) -> Result<()> {
    let (room, app) = (omar.timeline.room(), &omar.person);
    check("a pusher tells an app that is closed where to look, and when all was read", async {
        let pusher = pusher(&format!("rust-{}", &room.room_id().as_str()[1..9]))?;
        let pushkey = pusher.ids.pushkey.clone();
        app.following.stop().await;
        app.client.pusher().set(pusher.clone(), false).await?;
        let event = nina.says("Are you asleep?").await?;
        let note = pushed_to(&pushkey, 1).await?.remove(0);
        let place = (note["event_id"].as_str(), note["room_id"].as_str());
        equal(place, (Some(event.as_str()), Some(room.room_id().as_str())), "the news")?;
        // In other rooms there is something unread, too.
        let unread = note["counts"]["unread"].as_u64().context("no count")?;
        ensure!(note.get("content").is_none(), "{note}");
        let item = shown(bell(app).await?.get_notification(room.room_id(), &event).await?)?;
        equal(text(&item), Some("Are you asleep?"), "what was fetched")?;
        app.following.start().await;
        omar.reads("Are you asleep?").await?;
        room.send_single_receipt(ReceiptType::Read, ReceiptThread::Unthreaded, event).await?;
        let read = pushed_to(&pushkey, 2).await?.remove(1);
        equal((read.get("event_id"), read["counts"]["unread"].as_u64()), (None, Some(unread - 1)), "the badge")?;
        app.client.pusher().delete(pusher.ids).await?;
        equal(app.client.send(get_pushers::v3::Request::new()).await?.pushers.len(), 0, "what is set at the end")
    })
    .await
}
