//! Secrets outlive a session: they are stored encrypted, and a new device that is given the key reads what was said before.

use anyhow::Result;
use matrix_sdk::encryption::{VerificationState, backups::BackupState, recovery::RecoveryState};
use matrix_sdk_ui::timeline::EventTimelineItem;

use crate::{
    encrypted::{Talker, body, chat, signed},
    kit::{becomes, check, equal, until},
    people::Person,
};

pub async fn recovery() -> Result<()> {
    let (judy, kevin) = chat(signed("judy").await?, signed("kevin").await?).await?;
    let mut said = vec!["The safe is behind the painting".to_owned(), "Which painting?".to_owned()];
    judy.says(&said[0]).await?;
    kevin.reads(&said[0]).await?;
    kevin.says(&said[1]).await?;
    judy.reads(&said[1]).await?;
    let key = check("secrets and keys of rooms are stored", async {
        let recovery = judy.person.client.encryption().recovery();
        becomes("recovery", RecoveryState::Disabled, async || Ok(recovery.state())).await?;
        let key = recovery.enable().wait_for_backups_to_upload().await?;
        becomes("recovery", RecoveryState::Enabled, async || Ok(recovery.state())).await?;
        equal(judy.person.client.encryption().backups().state(), BackupState::Enabled, "the backup")?;
        Ok(key)
    })
    .await?;
    let room = judy.timeline.room().room_id().to_owned();
    let phone = check("a new device knows that it can be recovered, and can't read yet", async {
        let phone = Person::again("judy").await?;
        phone.following.start().await;
        let encryption = phone.client.encryption();
        becomes("recovery", RecoveryState::Incomplete, async || Ok(encryption.recovery().state())).await?;
        becomes("the device", VerificationState::Unverified, async || Ok(encryption.verification_state().get()))
            .await?;
        let phone = Talker::opens(phone, &room).await?;
        becomes("what can't be read", 2, async || {
            while !phone.timeline.paginate_backwards(20).await? {}
            let items = phone.timeline.items().await;
            Ok(items.iter().filter(|item| item.as_event().is_some_and(|e| e.content().is_unable_to_decrypt())).count())
        })
        .await?;
        Ok(phone)
    })
    .await?;
    check("with the key it is verified, and reads all", async {
        let encryption = phone.person.client.encryption();
        encryption.recovery().recover(&key).await?;
        becomes("recovery", RecoveryState::Enabled, async || Ok(encryption.recovery().state())).await?;
        becomes("the device", VerificationState::Verified, async || Ok(encryption.verification_state().get())).await?;
        reads_all(&phone, &said).await
    })
    .await?;
    check("both of her devices read what comes now", async {
        for (from, text) in [(&kevin, "And the combination?"), (&phone, "Ask the gardener")] {
            from.says(text).await?;
            said.push(text.to_owned());
            for talker in [&judy, &phone, &kevin] {
                reads_all(talker, &said).await?;
            }
        }
        Ok(())
    })
    .await?;
    check("what was said since is in the backup, too", async {
        phone.person.client.encryption().backups().wait_for_steady_state().await?;
        let laptop = Person::again("judy").await?;
        laptop.following.start().await;
        laptop.client.encryption().recovery().recover(&key).await?;
        let laptop = Talker::opens(laptop, &room).await?;
        // Asked for one by one, a key that did not come is not asked for again for long.
        laptop.person.client.encryption().backups().download_room_keys_for_room(&room).await?;
        reads_all(&laptop, &said).await?;
        laptop.person.goes().await
    })
    .await?;
    check("a device that logs out is gone for others", async {
        let (user, device) = (phone.person.id()?, phone.person.client.device_id().map(ToOwned::to_owned));
        let seen = async || {
            let devices = kevin.person.client.encryption().get_user_devices(&user).await?;
            Ok(devices.keys().any(|known| Some(known) == device.as_deref()))
        };
        equal(seen().await?, true, "before")?;
        phone.person.goes().await?;
        becomes("the device", false, seen).await
    })
    .await?;
    judy.person.goes().await?;
    kevin.person.goes().await
}

async fn reads_all(talker: &Talker, said: &[String]) -> Result<()> {
    becomes(talker.person.name(), said.to_vec(), async || {
        while !talker.timeline.paginate_backwards(20).await? {}
        let items = talker.timeline.items().await;
        Ok(items.iter().filter_map(|item| Some(body(item.as_event()?)?.to_owned())).collect())
    })
    .await?;
    until("all from the server", async || {
        let items = talker.timeline.items().await;
        Ok(items.iter().filter_map(|item| item.as_event()).all(EventTimelineItem::is_remote_event).then_some(()))
    })
    .await
}
