//! What data planes are sent, played by a scripted one that checks every digest.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message as _;
use sluice_control_plane::{Clock, Limits, Settings};
use sluice_core::level::CONFIG_LEVEL;
use sluice_core::snapshot::{content_hash, digest};
use sluice_proto::admin::v1 as admin;
use sluice_proto::sync::v1::sync_request::Kind as Say;
use sluice_proto::sync::v1::sync_response::Kind as Hear;
use sluice_proto::sync::v1::{
    Ack, Cursor, Hello, Nack, Resource, SyncRequest, SyncResponse, WorkspaceBody, WrappedKey,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::world::{ACME, RING, START, World, api_key, refusal, settings, within};

/// By name.
pub(crate) type Resources = BTreeMap<String, Resource>;

#[derive(Clone, Default)]
pub(crate) struct Workspace {
    pub(crate) revision: i64,
    pub(crate) resources: Resources,
    pub(crate) data_key: WrappedKey,
}

pub(crate) struct DataPlane {
    pub(crate) say: mpsc::Sender<SyncRequest>,
    pub(crate) hear: Streaming<SyncResponse>,
    pub(crate) epoch: String,
    pub(crate) held: BTreeMap<String, Workspace>,
    pub(crate) chunks: Vec<u8>,
}

pub(crate) fn resources<'a>(plane: &'a DataPlane, workspace: &str) -> &'a Resources {
    &plane.held[workspace].resources
}

fn digest_of(resources: &Resources) -> Vec<u8> {
    let hashes: Vec<_> = resources.values().map(|one| (one.name.as_str(), content_hash(one))).collect();
    digest(hashes.iter().map(|(name, hash)| (*name, hash))).to_vec()
}

impl DataPlane {
    /// Says hello and hears welcome.
    pub(crate) async fn connect(world: &World, id: &str, epoch: &str, cursors: &[Cursor]) -> Self {
        let hello = Hello {
            data_plane_id: id.to_owned(),
            build: "test".to_owned(),
            store_epoch: epoch.to_owned(),
            cursors: cursors.to_vec(),
            takes_commands: id != "old",
            config_level: CONFIG_LEVEL,
            ..Hello::default()
        };
        Self::greet(world, hello).await
    }

    /// Says this hello and hears welcome.
    pub(crate) async fn greet(world: &World, hello: Hello) -> Self {
        let (say, said) = mpsc::channel(64);
        say.send(SyncRequest { kind: Some(Say::Hello(hello)) }).await.unwrap();
        let hear = within(world.sync().sync(ReceiverStream::new(said))).await.unwrap().into_inner();
        let mut plane = Self { say, hear, epoch: String::new(), held: BTreeMap::new(), chunks: Vec::new() };
        let Hear::Welcome(welcome) = plane.hear().await else { panic!("no welcome") };
        plane.epoch = welcome.store_epoch;
        plane
    }

    /// The same data plane again, with what it held.
    pub(crate) async fn reconnect(self, world: &World) -> Self {
        let (held, epoch, cursors) = (self.held.clone(), self.epoch.clone(), self.cursors());
        drop(self);
        Self { held, ..Self::connect(world, "dp-1", &epoch, &cursors).await }
    }

    pub(crate) fn cursors(&self) -> Vec<Cursor> {
        self.held.keys().map(|name| self.cursor(name)).collect()
    }

    pub(crate) fn cursor(&self, workspace: &str) -> Cursor {
        let held = &self.held[workspace];
        Cursor { workspace: workspace.to_owned(), revision: held.revision, digest: digest_of(&held.resources).into() }
    }

    pub(crate) fn data_key(&self, workspace: &str) -> WrappedKey {
        self.held[workspace].data_key.clone()
    }

    pub(crate) async fn hear(&mut self) -> Hear {
        within(self.hear.message()).await.unwrap().expect("the stream goes on").kind.unwrap()
    }

    pub(crate) async fn say(&self, kind: Say) {
        self.say.send(SyncRequest { kind: Some(kind) }).await.unwrap();
    }

    /// Takes what was heard over; `true` when a workspace came to a new revision.
    pub(crate) fn take(&mut self, heard: &Hear) -> Option<String> {
        let (cursor, base, body) = match heard {
            Hear::Delta(delta) => (delta.cursor.clone().unwrap(), Some(delta.base_revision), delta.body.to_vec()),
            Hear::Snapshot(chunk) => {
                self.chunks.extend_from_slice(&chunk.body);
                if chunk.index + 1 < chunk.count {
                    return None;
                }
                (chunk.cursor.clone().unwrap(), None, std::mem::take(&mut self.chunks))
            }
            Hear::Drop(drop) => {
                self.held.remove(&drop.workspace);
                return None;
            }
            Hear::Welcome(_) | Hear::Synced(_) | Hear::Command(_) | Hear::Fleet(_) | Hear::BeatHeard(_) => return None,
        };
        let body = WorkspaceBody::decode(body.as_slice()).unwrap();
        let held = self.held.entry(cursor.workspace.clone()).or_default();
        let before = match base {
            Some(base) => {
                assert_eq!(base, held.revision, "a delta fits what is held");
                std::mem::take(&mut held.resources)
            }
            None => Resources::new(),
        };
        held.revision = cursor.revision;
        held.data_key = body.data_key.clone().unwrap();
        held.resources = before;
        held.resources.retain(|name, _| !body.deletes.contains(name));
        held.resources.extend(body.upserts.into_iter().map(|resource| (resource.name.clone(), resource)));
        assert_eq!(digest_of(&held.resources), cursor.digest, "the digest is that of the content");
        Some(cursor.workspace)
    }

    pub(crate) async fn ack(&self, workspace: &str) {
        self.say(Say::Ack(Ack { serving: Some(self.cursor(workspace)), apply_micros: 7, ..Ack::default() })).await;
    }

    /// Takes and acknowledges what comes until `synced`.
    pub(crate) async fn sync(&mut self) -> Vec<Hear> {
        let mut all = Vec::new();
        loop {
            let heard = self.hear().await;
            if matches!(heard, Hear::Synced(_)) {
                return all;
            }
            if let Some(workspace) = self.take(&heard) {
                self.ack(&workspace).await;
            }
            all.push(heard);
        }
    }

    /// Takes and acknowledges what comes until the workspace is at `revision`.
    pub(crate) async fn until(&mut self, workspace: &str, revision: i64) -> Resources {
        while self.held.get(workspace).is_none_or(|held| held.revision < revision) {
            let heard = self.hear().await;
            if let Some(workspace) = self.take(&heard) {
                self.ack(&workspace).await;
            }
        }
        self.held[workspace].resources.clone()
    }

    pub(crate) async fn end(mut self) -> Option<Status> {
        loop {
            match within(self.hear.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }
}

async fn rename(world: &World, connection: &str, to: &str) {
    let changed = admin::Connection {
        name: format!("{ACME}/connections/{connection}"),
        display_name: to.to_owned(),
        ..api_key("")
    };
    let request = admin::UpdateConnectionRequest { connection: Some(changed), ..Default::default() };
    world.connections().update_connection(request).await.unwrap();
}

async fn delete(world: &World, connection: &str) {
    let name = format!("{ACME}/connections/{connection}");
    let request = admin::DeleteConnectionRequest { name, ..Default::default() };
    world.connections().delete_connection(request).await.unwrap();
}

async fn delete_workspace(world: &World, id: &str) {
    let request = admin::DeleteWorkspaceRequest { name: format!("workspaces/{id}"), ..Default::default() };
    world.workspaces().delete_workspace(request).await.unwrap();
}

async fn planes(world: &World) -> Vec<admin::DataPlane> {
    let request = admin::ListDataPlanesRequest::default();
    world.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes
}

/// Asks until `is` holds of the first data plane.
async fn until_shown(world: &World, is: impl Fn(&admin::DataPlane) -> bool) -> admin::DataPlane {
    within(async {
        loop {
            if let Some(plane) = planes(world).await.into_iter().find(&is) {
                return plane;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test]
async fn who_holds_nothing_gets_everything_and_who_is_current_gets_nothing() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    world.connection("two", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let heard = plane.sync().await;
    assert!(matches!(heard.as_slice(), [Hear::Snapshot(_)]), "{heard:?}");
    assert_eq!(resources(&plane, ACME).len(), 2);

    let mut plane = plane.reconnect(&world).await;
    assert!(plane.sync().await.is_empty(), "nothing differs, nothing moves");
}

#[tokio::test]
async fn a_publish_reaches_every_data_plane_as_the_same_delta() {
    let world = World::new().await;
    let mut one = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let mut two = DataPlane::connect(&world, "dp-2", "", &[]).await;
    one.sync().await;
    two.sync().await;
    world.connection("crm", "s3cret").await;
    // The first revision comes whole: nothing was held.
    one.until(ACME, 1).await;
    two.until(ACME, 1).await;
    let outgoing = world.outgoing_integration("send", "").await.name;
    world.publish_outgoing(&outgoing).await.unwrap();
    let (to_one, to_two) = (one.hear().await, two.hear().await);
    let (Hear::Delta(first), Hear::Delta(second)) = (&to_one, &to_two) else { panic!("{to_one:?}") };
    assert_eq!(first.body, second.body);
    assert_eq!(first.base_revision, 1);
    one.take(&to_one);
    assert!(resources(&one, ACME).contains_key(&outgoing));

    let request = admin::UnpublishOutgoingIntegrationRequest { name: outgoing.clone(), ..Default::default() };
    two.take(&to_two);
    two.ack(ACME).await;
    world.outgoing().unpublish_outgoing_integration(request).await.unwrap();
    let held = two.until(ACME, 3).await;
    assert!(!held.contains_key(&outgoing), "what is unpublished is gone");
}

#[tokio::test]
async fn what_was_missed_comes_as_one_merged_delta() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    world.connection("two", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    let (held, epoch, cursors) = (plane.held.clone(), plane.epoch.clone(), plane.cursors());
    drop(plane);
    rename(&world, "one", "First").await;
    world.connection("three", "s3cret").await;
    rename(&world, "one", "Second").await;
    delete(&world, "two").await;
    delete(&world, "three").await;
    let mut plane = DataPlane { held, ..DataPlane::connect(&world, "dp-1", &epoch, &cursors).await };
    let heard = plane.sync().await;
    let [Hear::Delta(delta)] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((delta.base_revision, delta.cursor.as_ref().unwrap().revision), (2, 7));
    let body = WorkspaceBody::decode(delta.body.clone()).unwrap();
    assert_eq!((body.upserts.len(), body.deletes.len()), (1, 2));
    assert_eq!(resources(&plane, ACME).len(), 1);
}

#[tokio::test]
async fn while_one_is_not_answered_the_newest_alone_follows() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    rename(&world, "one", "r2").await;
    let second = plane.hear().await;
    for revision in 3..=9 {
        rename(&world, "one", &format!("r{revision}")).await;
    }
    plane.take(&second);
    plane.ack(ACME).await;
    let Hear::Delta(next) = plane.hear().await else { panic!("no delta") };
    let cursor = next.cursor.clone().unwrap();
    assert_eq!(next.base_revision, 2);
    assert!(cursor.revision > 3, "several in one: {cursor:?}");
    plane.take(&Hear::Delta(next));
    plane.ack(ACME).await;
    plane.until(ACME, 9).await;
}

#[tokio::test]
async fn a_refused_revision_is_not_sent_again_but_the_next_one_is() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    rename(&world, "one", "bad").await;
    let Hear::Delta(bad) = plane.hear().await else { panic!("no delta") };
    let problem = admin::Problem { reason: "UNKNOWN_FILTER".to_owned(), line: 3, ..Default::default() };
    let serving = Some(plane.cursor(ACME));
    let nack =
        Nack { workspace: ACME.to_owned(), revision: 2, serving, problems: vec![problem], needs_snapshot: false };
    plane.say(Say::Nack(nack)).await;
    let shown = until_shown(&world, |plane| plane.workspaces.iter().any(|one| one.refusal.is_some())).await;
    let refusal = shown.workspaces[0].refusal.clone().unwrap();
    assert_eq!((shown.workspaces[0].revision, refusal.revision, shown.workspaces[0].lag_revisions), (1, 2, 1));
    assert_eq!(refusal.problems[0].reason, "UNKNOWN_FILTER");

    // Another workspace's publish makes everything be looked at again; the refused revision stays away.
    world.workspace("other").await;
    let request = admin::CreateConnectionRequest {
        parent: "workspaces/other".to_owned(),
        connection: Some(api_key("s3cret")),
        ..Default::default()
    };
    world.connections().create_connection(request).await.unwrap();
    let heard = plane.hear().await;
    assert_eq!(plane.take(&heard).unwrap(), "workspaces/other");
    plane.ack("workspaces/other").await;
    rename(&world, "one", "good").await;
    let Hear::Delta(good) = plane.hear().await else { panic!("no delta") };
    assert_eq!((good.base_revision, good.cursor.as_ref().unwrap().revision), (1, 3), "from what is served");
    assert_eq!(bad.cursor.unwrap().revision, 2);
    plane.take(&Hear::Delta(good));
    plane.ack(ACME).await;
    until_shown(&world, |plane| plane.workspaces.iter().all(|one| one.refusal.is_none())).await;
}

#[tokio::test]
async fn a_delta_that_does_not_fit_is_followed_by_a_snapshot() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    rename(&world, "one", "new").await;
    assert!(matches!(plane.hear().await, Hear::Delta(_)));
    let nack = Nack { workspace: ACME.to_owned(), revision: 2, needs_snapshot: true, ..Default::default() };
    plane.say(Say::Nack(nack)).await;
    let heard = plane.hear().await;
    assert!(matches!(heard, Hear::Snapshot(_)), "{heard:?}");
    plane.take(&heard);
    assert_eq!(plane.held[ACME].revision, 2);
}

#[tokio::test]
async fn only_a_tombstone_drops_a_workspace() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    delete(&world, "one").await;
    plane.until(ACME, 2).await;
    delete_workspace(&world, "acme").await;
    let Hear::Drop(dropped) = plane.hear().await else { panic!("no drop") };
    assert_eq!(dropped.workspace, ACME);

    let cursors = ["workspaces/acme", "workspaces/never"].map(|name| Cursor {
        workspace: name.to_owned(),
        revision: 2,
        digest: vec![1; 32].into(),
    });
    for epoch in [plane.epoch.clone(), "another".to_owned()] {
        let mut late = DataPlane::connect(&world, "dp-2", &epoch, &cursors).await;
        let heard = late.sync().await;
        let [Hear::Drop(dropped)] = heard.as_slice() else { panic!("{heard:?}") };
        assert_eq!(dropped.workspace, ACME, "one that is merely unknown stays");
    }
}

#[tokio::test]
async fn a_workspace_made_again_goes_on_from_its_tombstone() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    let (held, epoch, cursors) = (plane.held.clone(), plane.epoch.clone(), plane.cursors());
    drop(plane);
    delete(&world, "one").await;
    delete_workspace(&world, "acme").await;
    let world = world.purged(ACME).await;
    world.workspace("acme").await;
    world.connection("two", "s3cret").await;
    let mut plane = DataPlane { held, ..DataPlane::connect(&world, "dp-1", &epoch, &cursors).await };
    let heard = plane.sync().await;
    assert!(matches!(heard.as_slice(), [Hear::Snapshot(_)]), "{heard:?}");
    assert_eq!(resources(&plane, ACME).keys().collect::<Vec<_>>(), ["workspaces/acme/connections/two"]);
    assert!(plane.held[ACME].revision > 2);
}

#[tokio::test]
async fn another_store_is_compared_by_content() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    let current = plane.cursor(ACME);
    let mut same = DataPlane::connect(&world, "dp-2", "another", std::slice::from_ref(&current)).await;
    assert!(same.sync().await.is_empty());

    let ahead = Cursor { revision: 40, ..current.clone() };
    let mut same = DataPlane::connect(&world, "dp-3", "another", &[ahead]).await;
    let (resources, data_key) = (resources(&plane, ACME).clone(), plane.data_key(ACME));
    same.held.insert(ACME.to_owned(), Workspace { revision: 40, resources, data_key });
    let heard = same.sync().await;
    let [Hear::Delta(delta)] = heard.as_slice() else { panic!("{heard:?}") };
    assert!(WorkspaceBody::decode(delta.body.clone()).unwrap().upserts.is_empty(), "only the number moves");
    assert_eq!(same.held[ACME].revision, 1);

    let other = Cursor { digest: vec![9; 32].into(), ..current };
    let mut other = DataPlane::connect(&world, "dp-4", "another", &[other]).await;
    assert!(matches!(other.sync().await.as_slice(), [Hear::Snapshot(_)]));
}

#[tokio::test]
async fn who_is_ahead_of_a_store_that_was_set_back_may_refuse() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    let first = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let ahead = Cursor { workspace: ACME.to_owned(), revision: 9, digest: vec![9; 32].into() };
    let mut plane = DataPlane::connect(&world, "dp-1", &first.epoch, std::slice::from_ref(&ahead)).await;
    assert!(matches!(plane.hear().await, Hear::Snapshot(_)));
    let problem = admin::Problem { reason: "REVISION_BACKWARDS".to_owned(), ..Default::default() };
    let (serving, problems) = (Some(ahead), vec![problem]);
    let nack = Nack { workspace: ACME.to_owned(), revision: 1, serving, problems, needs_snapshot: false };
    plane.say(Say::Nack(nack)).await;
    assert!(plane.sync().await.is_empty(), "it is not sent again");
    let shown = until_shown(&world, |plane| plane.workspaces.iter().any(|one| one.refusal.is_some())).await;
    assert_eq!(shown.workspaces[0].revision, 9);
}

#[tokio::test]
async fn a_large_workspace_comes_in_parts() {
    let world = World::new().await;
    for index in 0..24 {
        let name = {
            let mut document = crate::world::outgoing("");
            if let Some(request) = &mut document.request {
                request.template_mode = admin::TemplateMode::Exact.into();
                request.body = Some("x".repeat(60_000));
            }
            let request = admin::CreateOutgoingIntegrationRequest {
                parent: ACME.to_owned(),
                outgoing_integration_id: format!("out-{index}"),
                outgoing_integration: Some(document),
                ..Default::default()
            };
            world.outgoing().create_outgoing_integration(request).await.unwrap().into_inner().name
        };
        world.publish_outgoing(&name).await.unwrap();
    }
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let heard = plane.sync().await;
    assert_eq!(heard.len(), 2, "1.4 MB in parts of at most 1 MiB");
    assert_eq!(resources(&plane, ACME).len(), 24);
}

#[tokio::test]
async fn a_later_stream_of_a_data_plane_ends_the_older() {
    let world = World::new().await;
    let first = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let _second = DataPlane::connect(&world, "dp-1", "", &[]).await;
    assert_eq!(first.end().await.unwrap().code(), Code::Aborted);
    let shown = until_shown(&world, |plane| plane.connected).await;
    assert_eq!((shown.name.as_str(), shown.build.as_str()), ("dataPlanes/dp-1", "test"));
    assert_eq!(planes(&world).await.len(), 1);
}

#[tokio::test]
async fn a_stream_that_is_old_ends_and_its_data_plane_connects_again() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("master.key"), RING).unwrap();
    let settings = settings(folder.path(), &Clock::manual(START));
    let limits = Limits { stream_age: Duration::from_millis(50), ..Limits::default() };
    let world = World::start_with(folder, Settings { limits, ..settings }).await;
    world.workspace("acme").await;
    world.connection("one", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    for _ in 0..3 {
        let (held, epoch, cursors) = (plane.held.clone(), plane.epoch.clone(), plane.cursors());
        let ended = plane.end().await.unwrap();
        assert_eq!(refusal(&ended), (Code::Unavailable, "STREAM_RENEWED".to_owned()));
        plane = DataPlane { held, ..DataPlane::connect(&world, "dp-1", &epoch, &cursors).await };
        assert!(plane.sync().await.is_empty(), "nothing moves");
    }
}

#[tokio::test]
async fn what_is_served_is_shown() {
    let world = World::new().await;
    world.connection("one", "s3cret").await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.sync().await;
    let shown = until_shown(&world, |plane| plane.workspaces.iter().any(|one| one.revision == 1)).await;
    assert_eq!((shown.workspaces[0].apply_micros, shown.workspaces[0].lag_revisions), (7, 0));
    drop(plane);
    let shown = until_shown(&world, |plane| !plane.connected).await;
    assert_eq!(shown.workspaces[0].workspace, ACME);
}

#[tokio::test]
async fn streams_must_begin_well_and_end_with_the_server() {
    let world = World::new().await;
    let ack = Say::Ack(Ack::default());
    let hello = |id: &str| Say::Hello(Hello { data_plane_id: id.to_owned(), ..Default::default() });
    for first in [None, Some(ack.clone()), Some(hello("")), Some(hello("a b")), Some(hello(&"x".repeat(200)))] {
        let said = tokio_stream::iter([SyncRequest { kind: first }]);
        let mut answers = world.sync().sync(said).await.unwrap().into_inner();
        assert_eq!(within(answers.message()).await.unwrap_err().code(), Code::InvalidArgument);
    }
    let plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    plane.say(hello("dp-1")).await;
    assert_eq!(plane.end().await.unwrap().code(), Code::InvalidArgument, "hello is said once");

    let plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let ended = tokio::spawn(plane.end());
    world.end().await;
    assert_eq!(ended.await.unwrap().unwrap().code(), Code::Unavailable);
}
