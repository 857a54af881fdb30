//! Whose memberships are told.

use super::*;

each_backend! {
    async fn members_are_told_of_when_they_speak(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        let carol = Person::registers(&server, "carol").await;
        let room = alice.creates(json!({ "preset": "public_chat", "name": "Kitchen" })).await;
        bob.joins(&room).await;
        carol.joins(&room).await;
        bob.says(&room, "hi").await;
        let lazily = json!([["m.room.member", "$LAZY"], ["m.room.member", "$ME"]]);
        let (slider, wish) = (Slider::of(&alice), all_rooms(1, lazily));
        let page = slider.asks(&wish).await;
        assert_eq!(members_of(&page, &room), [alice.id.clone(), bob.id.clone()]);
        // Once is enough; and a newcomer's word comes with who they are.
        bob.says(&room, "hi").await;
        let page = slider.asks(&wish).await;
        assert_eq!(members_of(&page, &room), [""; 0]);
        carol.says(&room, "hi").await;
        let page = slider.asks(&wish).await;
        assert_eq!(members_of(&page, &room), [carol.id.clone()]);
        // As does who they become.
        carol.put(&format!("/profile/{}/displayname", carol.id), json!({ "displayname": "Caro" })).await.ok();
        let changed = async {
            loop {
                let page = slider.asks(&wish).await;
                if page["rooms"].get(&room).is_some() {
                    return page;
                }
            }
        };
        let page = tokio::time::timeout(crate::support::people::LONG, changed).await.unwrap();
        assert_eq!(page["rooms"][&room]["required_state"][0]["content"]["displayname"], "Caro", "{page}");
        // A lost answer is told again, members and all.
        let dave = Person::registers(&server, "dave").await;
        dave.joins(&room).await;
        dave.says(&room, "hi").await;
        let pos = slider.pos();
        let first = slider.asks(&wish).await;
        slider.goes_back_to(pos);
        let again = slider.asks(&wish).await;
        assert_eq!(members_of(&first, &room), [dave.id.clone()]);
        assert_eq!((members_of(&again, &room), timeline_of(&again, &room)), (vec![dave.id.clone()], timeline_of(&first, &room)));

        // All of them, or these.
        let page = slider.asks(&all_rooms(1, json!([["m.room.member", "*"]]))).await;
        assert_eq!(members_of(&page, &room).len(), 4, "{page}");
        let named = json!([["m.room.member", &carol.id], ["m.room.member", "@nobody:example.org"]]);
        let page = Slider::of(&alice).asks(&all_rooms(1, named)).await;
        assert_eq!(members_of(&page, &room), [carol.id.clone()]);
        let page = Slider::of(&alice).asks(&all_rooms(1, json!([["m.room.member", "$ME"]]))).await;
        assert_eq!(members_of(&page, &room), [alice.id.clone()]);
        let page = Slider::of(&alice).asks(&all_rooms(1, json!([["*", "*"], ["m.room.member", "$LAZY"]]))).await;
        assert_eq!(members_of(&page, &room), [dave.id.clone()]);
    }

    async fn a_room_without_a_name_is_called_after_its_heroes(given: Given) {
        let server = open_server(given).await;
        let (alice, bob) = (Person::registers(&server, "alice").await, Person::registers(&server, "bob").await);
        bob.put(&format!("/profile/{}/displayname", bob.id), json!({ "displayname": "Bob" })).await.ok();
        let room = alice.opens_a_room().await;
        let (slider, wish) = (Slider::of(&alice), all_rooms(1, json!([])));
        let page = slider.asks(&wish).await;
        assert_eq!(page["rooms"][&room].get("heroes"), None);
        bob.joins(&room).await;
        let page = slider.asks(&wish).await;
        let shown = &page["rooms"][&room];
        assert_eq!(shown["heroes"], json!([{ "user_id": bob.id, "displayname": "Bob" }]));
        assert_eq!((&shown["joined_count"], &shown["invited_count"], shown.get("name")), (&json!(2), &json!(0), None));
        let carol = Person::registers(&server, "carol").await;
        alice.invites(&room, &carol).await;
        let page = slider.asks(&wish).await;
        assert_eq!(page["rooms"][&room]["invited_count"], 1);
        assert_eq!(page["rooms"][&room]["heroes"].as_array().unwrap().len(), 2);
        alice.sets(&room, "m.room.name", "", json!({ "name": "Kitchen" })).await.ok();
        let page = slider.asks(&wish).await;
        assert_eq!((&page["rooms"][&room]["name"], page["rooms"][&room].get("heroes")), (&json!("Kitchen"), None));
    }
}
