//! People with a client each, that follows by sliding sync or doesn't, and what it shows them.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use futures_util::{StreamExt as _, pin_mut};
use matrix_sdk::{
    Client, Room, RoomState, ThreadingSupport,
    config::StoreConfig,
    cross_process_lock::CrossProcessLockConfig,
    encryption::{BackupDownloadStrategy, EncryptionSettings},
    ruma::{
        OwnedEventId, OwnedUserId, RoomId, UserId,
        api::client::{
            account::register,
            room::create_room::v3::{Request as NewRoom, RoomPreset},
            uiaa::{AuthData, Dummy},
        },
        assign,
        events::room::message::RoomMessageEventContent,
    },
    sliding_sync::VersionBuilder,
};
use matrix_sdk_ui::{
    eyeball_im::Vector,
    room_list_service::{RoomListItem, filters},
    sync_service::{State, SyncService},
};
use tokio::task::JoinHandle;

use crate::kit::{PASSWORD, base_url, becomes, equal, until};

/// Somebody's session.
pub struct Person {
    pub client: Client,
    pub following: Arc<SyncService>,
}

async fn client() -> Result<Client> {
    let encryption = EncryptionSettings {
        auto_enable_cross_signing: true,
        backup_download_strategy: BackupDownloadStrategy::AfterDecryptionFailure,
        ..EncryptionSettings::default()
    };
    let client = Client::builder()
        .homeserver_url(base_url()?)
        // That there is sliding sync, the server has to say.
        .sliding_sync_version_builder(VersionBuilder::DiscoverNative)
        // Nobody else has these stores, and a lock for others would be lost where the machine is busy.
        .store_config(StoreConfig::new(CrossProcessLockConfig::SingleProcess))
        .cross_process_store_config(CrossProcessLockConfig::SingleProcess)
        .with_encryption_settings(encryption)
        .with_threading_support(ThreadingSupport::Enabled { with_subscriptions: true });
    Ok(client.build().await?)
}

impl Person {
    /// Somebody new, who does not follow yet.
    pub async fn new(name: &str) -> Result<Self> {
        let request = assign!(register::v3::Request::new(), {
            username: Some(name.to_owned()),
            password: Some(PASSWORD.to_owned()),
            auth: Some(AuthData::Dummy(Dummy::new())),
            inhibit_login: true,
        });
        let registered = client().await?.matrix_auth().register(request).await?;
        equal(registered.user_id.as_str(), &format!("@{name}:localhost"), "user id")?;
        Self::again(name).await
    }

    /// A new session of somebody, who does not follow yet.
    pub async fn again(name: &str) -> Result<Self> {
        let client = client().await?;
        client.matrix_auth().login_username(name, PASSWORD).initial_device_display_name("story").send().await?;
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        let following = SyncService::builder(client.clone()).with_offline_mode().build().await?;
        Ok(Self { client, following: Arc::new(following) })
    }

    /// Somebody new who follows what happens.
    pub async fn following(name: &str) -> Result<Self> {
        let person = Self::new(name).await?;
        person.following.start().await;
        Ok(person)
    }

    pub fn id(&self) -> Result<OwnedUserId> {
        Ok(self.client.user_id().context("nobody is logged in")?.to_owned())
    }

    pub fn room(&self, id: &RoomId) -> Result<Room> {
        self.client.get_room(id).with_context(|| format!("{} knows nothing of {id}", self.name()))
    }

    pub fn name(&self) -> &str {
        self.client.user_id().map_or("nobody", UserId::localpart)
    }

    /// A room that everybody may join, of which its maker need not be told by a sync.
    pub async fn makes(&self, name: &str) -> Result<Room> {
        let new = assign!(NewRoom::new(), { preset: Some(RoomPreset::PublicChat), name: Some(name.to_owned()) });
        Ok(self.client.create_room(new).await?)
    }

    pub async fn says(&self, room: &RoomId, text: &str) -> Result<OwnedEventId> {
        says(&self.room(room)?, text).await
    }

    /// Waits until the room is there, in this state.
    pub async fn sees_room(&self, id: &RoomId, state: RoomState) -> Result<Room> {
        let what = format!("{}'s room as {state:?}", self.name());
        until(&what, async || Ok(self.client.get_room(id).filter(|room| room.state() == state))).await
    }

    /// Looks at the rooms closely, as if they were opened.
    pub async fn opens(&self, rooms: &[&RoomId]) {
        self.following.room_list_service().subscribe_to_rooms(rooms).await;
    }

    pub fn is_following(&self) -> Result<bool> {
        match self.following.state().get() {
            State::Running => Ok(true),
            State::Error(error) => bail!("{} does not follow any more: {error}", self.name()),
            _ => Ok(false),
        }
    }

    /// Ends the session, whatever it was doing.
    pub async fn goes(self) -> Result<()> {
        self.following.stop().await;
        Ok(self.client.logout().await?)
    }
}

pub async fn says(room: &Room, text: &str) -> Result<OwnedEventId> {
    Ok(room.send(RoomMessageEventContent::text_plain(text)).await?.response.event_id)
}

/// The list of rooms that somebody has before them, kept as the SDK tells it to change.
pub struct RoomList {
    shown: Arc<Mutex<Vector<RoomListItem>>>,
    telling: JoinHandle<()>,
}

impl RoomList {
    pub async fn of(person: &Person) -> Result<Self> {
        let list = person.following.room_list_service().all_rooms().await?;
        let shown: Arc<Mutex<Vector<RoomListItem>>> = Arc::default();
        let kept = Arc::clone(&shown);
        let telling = tokio::spawn(async move {
            let (changes, view) = list.entries_with_dynamic_adapters(100);
            view.set_filter(Box::new(filters::new_filter_non_left()));
            pin_mut!(changes);
            while let Some(changes) = changes.next().await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                for change in changes {
                    change.apply(&mut kept);
                }
            }
        });
        Ok(Self { shown, telling })
    }

    pub fn names(&self) -> Vec<String> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |room: &RoomListItem| room.cached_display_name().map(|name| name.to_string());
        shown.iter().map(|room| name(room).unwrap_or_default()).collect()
    }

    /// Waits until it shows just these, in this order.
    pub async fn shows(&self, names: &[&str]) -> Result<()> {
        becomes("the list", names.iter().map(|name| (*name).to_owned()).collect(), async || Ok(self.names())).await
    }
}

impl Drop for RoomList {
    fn drop(&mut self) {
        self.telling.abort();
    }
}
