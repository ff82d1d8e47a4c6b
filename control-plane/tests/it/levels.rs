//! Data planes that are too old for what is published: the publisher learns it before anything is kept, and nobody gets half of it (row 19).

use sluice_core::level::CONFIG_LEVEL;
use sluice_proto::admin::v1 as admin;
use sluice_proto::sync::v1::sync_request::Kind as Say;
use sluice_proto::sync::v1::sync_response::Kind as Hear;
use sluice_proto::sync::v1::{Hello, Nack};
use tonic::{Code, Status};

use crate::replicas::{beside, first};
use crate::sync::DataPlane;
use crate::world::{ACME, World, api_key, details, refusal, within, workflow};

const FLOW: &str = "workspaces/acme/workflows/flow";
const REASON: &str = "CONFIG_LEVEL_UNSUPPORTED";

/// Of a build that says no level.
fn old(id: &str) -> Hello {
    Hello { data_plane_id: id.to_owned(), build: "0.0.9".to_owned(), takes_commands: true, ..Hello::default() }
}

fn new(id: &str) -> Hello {
    Hello { config_level: CONFIG_LEVEL, ..old(id) }
}

/// What all builds understand.
fn everyday() -> admin::Trigger {
    let event = admin::EventTrigger { action: "form.sent".to_owned() };
    admin::Trigger { event: Some(event), ..Default::default() }
}

/// What came with level 2.
fn newer() -> admin::Trigger {
    admin::Trigger { audience: Some(admin::AudienceTrigger {}), ..Default::default() }
}

/// The draft of a workflow with these triggers, and all it uses published.
async fn drafted(world: &World, triggers: Vec<admin::Trigger>) -> admin::Workflow {
    let outgoing = world.outgoing_integration("send", "").await.name;
    world.publish_outgoing(&outgoing).await.unwrap();
    let workflow = admin::Workflow { triggers, ..workflow("", &outgoing) };
    let request = admin::CreateWorkflowRequest {
        parent: ACME.to_owned(),
        workflow_id: "flow".to_owned(),
        workflow: Some(workflow),
        ..Default::default()
    };
    world.workflows().create_workflow(request).await.unwrap().into_inner()
}

async fn read(world: &World) -> admin::Workflow {
    let request = admin::GetWorkflowRequest { name: FLOW.to_owned() };
    world.workflows().get_workflow(request).await.unwrap().into_inner()
}

async fn publish(world: &World, allow_partial_rollout: bool) -> Result<admin::Workflow, Status> {
    let request = admin::PublishWorkflowRequest { name: FLOW.to_owned(), allow_partial_rollout, ..Default::default() };
    world.workflows().publish_workflow(request).await.map(tonic::Response::into_inner)
}

async fn wait(world: &World) -> admin::WaitServedResponse {
    let request = admin::WaitServedRequest { parent: ACME.to_owned(), ..Default::default() };
    within(world.configuration().wait_served(request)).await.unwrap().into_inner()
}

async fn shown(world: &World, id: &str) -> admin::DataPlane {
    let request = admin::ListDataPlanesRequest::default();
    let planes = world.data_planes().list_data_planes(request).await.unwrap().into_inner().data_planes;
    planes.into_iter().find(|plane| plane.name == format!("dataPlanes/{id}")).unwrap()
}

async fn versions(world: &World) -> usize {
    let request = admin::ListVersionsRequest { parent: FLOW.to_owned(), ..Default::default() };
    world.versions().list_versions(request).await.unwrap().into_inner().versions.len()
}

/// A refusal that names the data plane, what needs what, and what to do.
fn is_told(refused: &Status, id: &str) {
    assert_eq!(refusal(refused), (Code::FailedPrecondition, REASON.to_owned()));
    for part in [&format!("`{id}` (level 1)"), "`workspaces/acme/workflows/flow` (triggers[1].audience) needs 2"] {
        assert!(refused.message().contains(part), "{}", refused.message());
    }
    assert!(refused.message().contains("allow_partial_rollout"), "{}", refused.message());
    let violations = details(refused).precondition_failure().unwrap().violations.clone();
    let [one] = violations.as_slice() else { panic!("{violations:?}") };
    assert_eq!((one.r#type.as_str(), one.subject.as_str()), (REASON, format!("dataPlanes/{id}").as_str()));
}

#[tokio::test]
async fn what_a_connected_data_plane_would_not_understand_is_refused_before_anything_is_kept() {
    let world = World::new().await;
    let draft = drafted(&world, vec![everyday(), newer()]).await;
    let mut able = DataPlane::greet(&world, new("dp-new")).await;
    able.sync().await;
    assert_eq!(shown(&world, "dp-new").await.config_level, CONFIG_LEVEL);
    let mut plane = DataPlane::greet(&world, old("dp-old")).await;
    plane.sync().await;
    assert_eq!(shown(&world, "dp-old").await.config_level, 1);

    let revision = world.revision("acme").await;
    is_told(&publish(&world, false).await.unwrap_err(), "dp-old");
    let together = admin::PublishDraftsRequest {
        parent: ACME.to_owned(),
        drafts: vec![admin::DraftToPublish { name: FLOW.to_owned(), ..Default::default() }],
        ..Default::default()
    };
    is_told(&world.configuration().publish_drafts(together.clone()).await.unwrap_err(), "dp-old");
    let tried = admin::PublishDraftsRequest { validate_only: true, ..together };
    is_told(&world.configuration().publish_drafts(tried).await.unwrap_err(), "dp-old");
    assert_eq!((read(&world).await, versions(&world).await, world.revision("acme").await), (draft, 0, revision));

    // What it understands is put in force as before.
    world.connection("crm", "s3cret").await;
    able.until(ACME, revision + 1).await;
    plane.until(ACME, revision + 1).await;

    // It is gone: nobody is left behind.
    drop(plane);
    within(async {
        while shown(&world, "dp-old").await.connected {
            tokio::task::yield_now().await;
        }
    })
    .await;
    publish(&world, false).await.unwrap();
    able.until(ACME, revision + 2).await;
}

#[tokio::test]
async fn who_is_left_behind_keeps_what_it_serves_until_it_understands_all_of_it() {
    let world = World::new().await;
    drafted(&world, vec![everyday(), newer()]).await;
    let mut plane = DataPlane::greet(&world, old("dp-old")).await;
    plane.sync().await;
    assert_eq!(plane.held[ACME].revision, 1);
    publish(&world, true).await.unwrap();

    // Nobody waits for it, and it is told why.
    let told = wait(&world).await;
    let [behind] = told.not_serving.as_slice() else { panic!("{told:?}") };
    assert_eq!((told.served, behind.revision), (false, 1));
    let refused = behind.refusal.clone().unwrap();
    assert_eq!(refused.revision, 2);
    let problem = &refused.problems[0];
    assert_eq!((problem.resource.as_str(), problem.field.as_str()), (FLOW, "triggers[1].audience"));
    assert!(problem.reason == REASON && problem.message.contains("understands 1"), "{problem:?}");

    // What would be served beside it by nobody but the new is refused as well; what takes away or rotates is not.
    let connection = |allow_partial_rollout| admin::CreateConnectionRequest {
        parent: ACME.to_owned(),
        connection_id: "crm".to_owned(),
        connection: Some(api_key("s3cret")),
        allow_partial_rollout,
        ..Default::default()
    };
    is_told(&world.connections().create_connection(connection(false)).await.unwrap_err(), "dp-old");
    let crm = world.connections().create_connection(connection(true)).await.unwrap().into_inner().name;
    let secret = admin::StageSecretRequest {
        name: crm,
        field: "api_key.secret".to_owned(),
        value: "an0ther".to_owned(),
        ..Default::default()
    };
    world.secrets().stage_secret(secret).await.unwrap();
    let unpublished = admin::UnpublishWorkflowRequest { name: FLOW.to_owned(), ..Default::default() };
    world.workflows().unpublish_workflow(unpublished).await.unwrap();

    // It comes to that from where it is: nothing was sent to it in between.
    let Hear::Delta(delta) = plane.hear().await else { panic!("no delta") };
    assert_eq!((delta.base_revision, delta.cursor.as_ref().unwrap().revision), (1, 5));
    plane.take(&Hear::Delta(delta)).unwrap();
    plane.ack(ACME).await;
    assert!(wait(&world).await.served);
    // A version that needs more is not brought back either, and not even the draft is another then.
    let before = read(&world).await;
    let back =
        |publish| admin::RollbackVersionRequest { name: format!("{FLOW}/versions/1"), publish, ..Default::default() };
    is_told(&world.versions().rollback_version(back(true)).await.unwrap_err(), "dp-old");
    assert_eq!(read(&world).await, before);
    world.versions().rollback_version(back(false)).await.unwrap();
    assert_eq!(world.revision("acme").await, 5);
}

#[tokio::test]
async fn one_that_is_too_old_when_it_comes_denies_nothing_and_is_shown() {
    let world = World::new().await;
    drafted(&world, vec![everyday(), newer()]).await;
    publish(&world, false).await.unwrap();
    let mut plane = DataPlane::greet(&world, old("dp-old")).await;
    // That there is something, and nothing of it.
    let Hear::Snapshot(part) = plane.hear().await else { panic!("no part") };
    assert!(part.body.is_empty() && (part.index, part.count) == (0, 1));
    let cursor = part.cursor.unwrap();
    let problems = vec![admin::Problem { reason: "DIGEST_MISMATCH".to_owned(), ..Default::default() }];
    let nack = Nack { workspace: ACME.to_owned(), revision: cursor.revision, problems, ..Nack::default() };
    plane.say(Say::Nack(nack)).await;
    assert!(matches!(plane.hear().await, Hear::Synced(_)));
    let told = wait(&world).await;
    assert_eq!(told.not_serving[0].refusal.as_ref().unwrap().problems[0].resource, FLOW);
    let of_acme = &shown(&world, "dp-old").await.workspaces[0];
    assert_eq!((of_acme.revision, of_acme.refusal.as_ref().unwrap().problems[0].reason.as_str()), (0, REASON));

    // Updated, it gets all of it.
    drop(plane);
    let mut plane = DataPlane::greet(&world, new("dp-old")).await;
    plane.sync().await;
    assert!(wait(&world).await.served);
}

#[tokio::test]
async fn those_of_other_control_planes_count() {
    let one = first().await;
    let two = beside(&one).await;
    drafted(&one, vec![everyday(), newer()]).await;
    let mut plane = DataPlane::greet(&two, old("dp-old")).await;
    plane.sync().await;
    is_told(&publish(&one, false).await.unwrap_err(), "dp-old");
    is_told(&publish(&two, false).await.unwrap_err(), "dp-old");
    assert_eq!((one.revision("acme").await, read(&one).await.published_version), (1, 0));
    publish(&one, true).await.unwrap();
    assert_eq!(wait(&one).await.not_serving[0].refusal.as_ref().unwrap().problems[0].resource, FLOW);
}
