//! The list of rooms: which there are, in which order, and what it says of each.

use anyhow::Result;
use matrix_sdk::{
    Room, RoomState,
    ruma::{
        RoomId,
        api::client::{
            receipt::create_receipt::v3::ReceiptType,
            room::create_room::v3::{Request as NewRoom, RoomPreset},
        },
        assign,
        events::{Mentions, room::message::RoomMessageEventContent},
    },
};
use matrix_sdk_ui::timeline::RoomExt as _;

use crate::{
    kit::{becomes, check, equal},
    people::{Person, RoomList, says},
};

/// More than the SDK asks for at first.
const MADE: usize = 25;

pub async fn rooms() -> Result<()> {
    let (rosa, elsewhere) = (Person::new("rosa").await?, Person::new("sven").await?);
    let sven = Person::again("sven").await?;
    let mut made = Vec::new();
    for number in 1..=MADE {
        let room = rosa.makes(&format!("Ward {number:02}")).await?;
        elsewhere.client.join_room_by_id(room.room_id()).await?;
        says(&room, "Good morning").await?;
        made.push(room);
    }
    let mut names: Vec<String> = (1..=MADE).rev().map(|number| format!("Ward {number:02}")).collect();
    let list = check("all rooms are listed by name, the newest first", async {
        sven.following.start().await;
        let list = RoomList::of(&sven).await?;
        shows(&list, &names).await?;
        Ok(list)
    })
    .await?;
    check("a new message moves its room up", async {
        says(&made[0], "Good afternoon").await?;
        let room = names.remove(MADE - 1);
        names.insert(0, room);
        shows(&list, &names).await
    })
    .await?;
    check("a new name is shown", async {
        made[0].set_name("Theatre".to_owned()).await?;
        names[0] = "Theatre".to_owned();
        shows(&list, &names).await
    })
    .await?;
    unread(&rosa, &sven, &made[1]).await?;
    personal(&elsewhere, &sven, &made[1], &rosa).await?;
    nameless(&rosa, &sven, &list).await?;
    invited(&rosa, &sven, &list).await?;
    left(&rosa, &elsewhere, &list, &made).await?;
    for person in [rosa, elsewhere, sven] {
        person.goes().await?;
    }
    Ok(())
}

async fn shows(list: &RoomList, names: &[String]) -> Result<()> {
    list.shows(&names.iter().map(String::as_str).collect::<Vec<_>>()).await
}

async fn unread(rosa: &Person, sven: &Person, room: &Room) -> Result<()> {
    let his = sven.room(room.room_id())?;
    let counts = async || {
        let counts = his.unread_notification_counts();
        Ok((counts.notification_count, counts.highlight_count))
    };
    check("what is unread is counted until it is read", async {
        becomes("the greeting", (1, 0), counts).await?;
        let sven_id = sven.id()?;
        let call =
            RoomMessageEventContent::text_plain("You are wanted").add_mentions(Mentions::with_user_ids([sven_id]));
        let call = room.send(call).await?.response.event_id;
        becomes("the call", (2, 1), counts).await?;
        let timeline = his.timeline().await?;
        sven.opens(&[room.room_id()]).await;
        becomes("what is shown last", Some(call), async || Ok(timeline.latest_event_id().await)).await?;
        // As the SDK counts it by itself.
        becomes("what the SDK counts", (2, 1), async || Ok((his.num_unread_messages(), his.num_unread_mentions())))
            .await?;
        equal(timeline.mark_as_read(ReceiptType::Read).await?, true, "that the receipt was sent")?;
        becomes("nothing", (0, 0), counts).await?;
        becomes("what the SDK counts", 0, async || Ok(his.num_unread_messages())).await?;
        rosa.says(room.room_id(), "Never mind").await?;
        becomes("one more", (1, 0), counts).await
    })
    .await
}

/// What somebody keeps for themselves, from their other session.
async fn personal(elsewhere: &Person, sven: &Person, room: &Room, rosa: &Person) -> Result<()> {
    check("what is kept in another session shows in this", async {
        let (there, here) = (elsewhere.room(room.room_id())?, sven.room(room.room_id())?);
        there.set_is_favourite(true, Some(0.5)).await?;
        becomes("the favourite", true, async || Ok(here.is_favourite())).await?;
        there.set_unread_flag(true).await?;
        becomes("the flag", true, async || Ok(here.is_marked_unread())).await?;
        elsewhere.client.account().mark_as_dm(room.room_id(), &[rosa.id()?]).await?;
        becomes("the chat", 1, async || Ok(here.direct_targets_length())).await
    })
    .await
}

async fn nameless(rosa: &Person, sven: &Person, list: &RoomList) -> Result<()> {
    check("a room without a name is called after who is in it", async {
        let tilda = Person::new("tilda").await?;
        for (person, name) in [(rosa, "Rosa"), (&tilda, "Tilda")] {
            person.client.account().set_display_name(Some(name)).await?;
        }
        let new = assign!(NewRoom::new(), {
            preset: Some(RoomPreset::PrivateChat), invite: vec![sven.id()?, tilda.id()?],
        });
        let room = rosa.client.create_room(new).await?;
        tilda.client.join_room_by_id(room.room_id()).await?;
        sven.client.join_room_by_id(room.room_id()).await?;
        says(&room, "No name yet").await?;
        let his = sven.sees_room(room.room_id(), RoomState::Joined).await?;
        let both = vec![(rosa.id()?, Some("Rosa".to_owned())), (tilda.id()?, Some("Tilda".to_owned()))];
        becomes("the heroes", both, async || {
            let mut heroes: Vec<_> = his.heroes().into_iter().map(|hero| (hero.user_id, hero.display_name)).collect();
            heroes.sort();
            Ok(heroes)
        })
        .await?;
        first(list, "Rosa, Tilda").await?;
        becomes("how many", 3, async || Ok(his.joined_members_count())).await?;
        room.kick_user(&tilda.id()?, None).await?;
        first(list, "Rosa").await?;
        tilda.goes().await
    })
    .await
}

async fn first(list: &RoomList, name: &str) -> Result<()> {
    becomes("the first room", Some(name.to_owned()), async || Ok(list.names().into_iter().next())).await
}

async fn has(list: &RoomList, name: &str, is_there: bool) -> Result<()> {
    becomes(&format!("'{name}' in the list"), is_there, async || Ok(list.names().iter().any(|n| n == name))).await
}

async fn invites(rosa: &Person, sven: &Person, name: &str) -> Result<Room> {
    let new = assign!(NewRoom::new(), {
        preset: Some(RoomPreset::PrivateChat), name: Some(name.to_owned()), topic: Some(format!("All about {name}")),
        invite: vec![sven.id()?],
    });
    Ok(rosa.client.create_room(new).await?)
}

async fn invited(rosa: &Person, sven: &Person, list: &RoomList) -> Result<()> {
    check("an invite is listed, with who sent it, and accepted", async {
        let room = invites(rosa, sven, "The ball").await?;
        let his = sven.sees_room(room.room_id(), RoomState::Invited).await?;
        has(list, "The ball", true).await?;
        equal(his.invite_details().await?.inviter_id, rosa.id()?, "who invites")?;
        his.join().await?;
        says(&room, "There you are").await?;
        first(list, "The ball").await?;
        equal(his.state(), RoomState::Joined, "the room")?;
        becomes("the topic", Some("All about The ball".to_owned()), async || Ok(his.topic())).await
    })
    .await?;
    check("an invite that is declined goes", async {
        let room = invites(rosa, sven, "The trial").await?;
        let his = sven.sees_room(room.room_id(), RoomState::Invited).await?;
        has(list, "The trial", true).await?;
        his.leave().await?;
        has(list, "The trial", false).await?;
        // What comes after does not bring it back.
        rosa.says(room.room_id(), "Nobody there?").await?;
        invite_comes_and_is_taken_back(rosa, sven, list, "The voyage").await?;
        equal(list.names().contains(&"The trial".to_owned()), false, "that it is back")
    })
    .await?;
    check("an invite that is taken back goes", invite_comes_and_is_taken_back(rosa, sven, list, "The prize")).await
}

async fn invite_comes_and_is_taken_back(rosa: &Person, sven: &Person, list: &RoomList, name: &str) -> Result<()> {
    let room = invites(rosa, sven, name).await?;
    sven.sees_room(room.room_id(), RoomState::Invited).await?;
    has(list, name, true).await?;
    room.kick_user(&sven.id()?, None).await?;
    has(list, name, false).await
}

async fn left(rosa: &Person, elsewhere: &Person, list: &RoomList, made: &[Room]) -> Result<()> {
    let ward = |number: usize| format!("Ward {number:02}");
    check("a room that is left in another session goes, and comes back when it is joined again", async {
        elsewhere.room(made[4].room_id())?.leave().await?;
        has(list, &ward(5), false).await?;
        elsewhere.client.join_room_by_id(made[4].room_id()).await?;
        has(list, &ward(5), true).await
    })
    .await?;
    check("a room from which one is removed goes", async {
        let sven_id = elsewhere.id()?;
        let gone: [&RoomId; 2] = [made[5].room_id(), made[6].room_id()];
        rosa.room(gone[0])?.kick_user(&sven_id, Some("visiting hours are over")).await?;
        rosa.room(gone[1])?.ban_user(&sven_id, None).await?;
        has(list, &ward(6), false).await?;
        has(list, &ward(7), false).await
    })
    .await
}
