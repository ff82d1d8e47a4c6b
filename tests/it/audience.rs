//! Members of an audience, submitted in a stream (R126): each taken once, answered by its id, and never before what is done in real time.

use std::collections::BTreeMap;

use serde_json::json;
use sluice::destination::{Answer, Gate};
use sluice_client::Client;
use sluice_client::admin::batch_item_result::State;
use sluice_client::admin::{
    self, BatchItem, BatchItemResult, DeliveryState, OutgoingRequest, SubmitBatchRequest, SubmitEventRequest,
};
use sluice_tests::resources::{condition, custom_webhook, oauth2, post};
use sluice_tests::{Workspace, World, eventually, reason, within};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::rotation::House;

const CRM: &str = "https://api.example.com/segments";

/// A workflow that audiences start.
fn of_audience(request: OutgoingRequest) -> admin::Workflow {
    admin::Workflow {
        display_name: "Segment".to_owned(),
        triggers: vec![admin::Trigger { audience: Some(admin::AudienceTrigger {}), ..Default::default() }],
        steps: vec![custom_webhook("Send", request)],
        ..Default::default()
    }
}

fn member(id: impl ToString, customer: &serde_json::Value) -> BatchItem {
    BatchItem { id: id.to_string(), customer: customer.to_string(), params: String::new() }
}

/// A stream that is open.
struct Open {
    items: mpsc::Sender<SubmitBatchRequest>,
    answers: Streaming<admin::SubmitBatchResponse>,
}

impl Open {
    async fn of(client: &Client, workflow: &str, first: SubmitBatchRequest) -> Result<Self, Status> {
        let (items, rest) = mpsc::channel(4);
        items.send(SubmitBatchRequest { name: workflow.to_owned(), ..first }).await.unwrap();
        let answers = client.events().submit_batch(ReceiverStream::new(rest)).await?.into_inner();
        Ok(Self { items, answers })
    }

    async fn send(&self, items: Vec<BatchItem>) {
        // The server may have ended the stream.
        let _ = self.items.send(SubmitBatchRequest { items, ..Default::default() }).await;
    }

    /// The next answers.
    async fn next(&mut self) -> Result<Vec<BatchItemResult>, Status> {
        Ok(within("an answer", self.answers.message()).await?.map(|answer| answer.results).unwrap_or_default())
    }

    /// All answers that are left, by id.
    async fn end(mut self) -> Result<BTreeMap<String, State>, Status> {
        drop(self.items);
        let mut all = BTreeMap::new();
        while let Some(answer) = within("an answer", self.answers.message()).await? {
            for result in answer.results {
                assert_eq!(all.insert(result.id.clone(), result.state()), None, "{} is answered twice", result.id);
            }
        }
        Ok(all)
    }
}

/// P5: the customer in the body, credentials fetched with OAuth 2.
#[tokio::test]
async fn members_are_sent_to_a_segment_p5() {
    let world = World::start().await;
    let connection = world.acme.connection("ads", oauth2("https://api.example.com/token", "s3cr3t")).await;
    let body = r#"{% set ids = customer.adFormID|split('|') %}{"segment":"seg-{{ 40 + 2 }}","users":[{% for id in ids %}{"id":"{{ id|trim }}"}{% if not loop.last %},{% endif %}{% endfor %}]}"#;
    let request = OutgoingRequest { connection: connection.name, ..post(CRM, body) };
    let mut workflow = of_audience(request);
    workflow.triggers[0].filter = Some(condition("customer.adFormID", admin::Operator::Exists, []));
    let workflow = world.acme.workflow("segment", workflow).await.name;
    world.acme.ready().await;
    world.destination.script_for("/token", [Answer::json(200, r#"{"access_token": "t1", "expires_in": 3600}"#)]);
    let ewa = json!({"adFormID": "2122903280729231000|2122903280729231001"});
    let mut open = Open::of(&world.client, &workflow, SubmitBatchRequest::default()).await.unwrap();
    open.send(vec![member("ewa", &ewa)]).await;
    let first = open.next().await.unwrap().remove(0);
    assert_eq!((first.id.as_str(), first.state(), first.deliveries), ("ewa", State::Accepted, 1));
    let broken = BatchItem { customer: r#"["CANARY"]"#.to_owned(), ..member("jan", &json!({})) };
    open.send(vec![member("ewa", &ewa), broken, member("ann", &json!({}))]).await;
    let mut told = BTreeMap::new();
    while told.len() < 3 {
        told.extend(open.next().await.unwrap().into_iter().map(|result| (result.id.clone(), result)));
    }
    let states: Vec<_> = told.values().map(|result| (result.id.as_str(), result.state())).collect();
    assert_eq!(states, [("ann", State::FilteredOut), ("ewa", State::Duplicate), ("jan", State::Refused)]);
    let jan = &told["jan"];
    assert_eq!((jan.field.as_str(), jan.reason.as_str(), jan.deliveries), ("customer", "TYPE", 0));
    assert!(!format!("{jan:?}").contains("CANARY"));
    assert_eq!(open.end().await.unwrap(), BTreeMap::new());
    assert_eq!(world.acme.deliveries(1).await.len(), 1);
    let seen = world.destination.requests();
    let sent: Vec<_> = seen.iter().filter(|seen| seen.target == "/segments").collect();
    assert_eq!((sent.len(), sent[0].header("authorization")), (1, Some("Bearer t1")));
    let users = json!([{"id": "2122903280729231000"}, {"id": "2122903280729231001"}]);
    assert_eq!(sent[0].json().unwrap(), json!({"segment": "seg-42", "users": users}));
    world.stop().await;
}

#[tokio::test]
async fn what_is_no_audience_is_refused_at_once() {
    let world = World::start().await;
    let draft = world.acme.draft_workflow("draft", of_audience(post(CRM, "{}"))).await.name;
    let event = Some(admin::EventTrigger { action: "a".to_owned() });
    let other = admin::Workflow {
        triggers: vec![admin::Trigger { event, ..Default::default() }],
        ..of_audience(post(CRM, "{}"))
    };
    let other = world.acme.workflow("other", other).await.name;
    let globex = world.workspace("globex").await;
    world.acme.ready().await;
    let key = |parent: String, role: &str| {
        let roles = vec![format!("{parent}/roles/{role}")];
        let api_key = Some(admin::AccessKey { display_name: "k".to_owned(), roles, ..Default::default() });
        admin::CreateApiKeyRequest { parent, api_key, ..Default::default() }
    };
    let make = async |request: admin::CreateApiKeyRequest| {
        world.client.api_keys().create_api_key(request).await.unwrap().into_inner().key
    };
    let refused = async |client: &Client, name: &str| {
        let status = Open::of(client, name, SubmitBatchRequest::default()).await.err().unwrap();
        (status.code(), reason(&status))
    };
    let says = |code, reason: &str| (code, reason.to_owned());
    assert_eq!(refused(&world.client, &draft).await, says(Code::FailedPrecondition, "NOT_PUBLISHED"));
    assert_eq!(refused(&world.client, &other).await, says(Code::InvalidArgument, "FIELDS_INVALID"));
    assert_eq!(refused(&world.client, "").await, says(Code::InvalidArgument, "FIELDS_INVALID"));
    let absent = format!("{}/workflows/absent", world.acme.name);
    assert_eq!(refused(&world.client, &absent).await, says(Code::NotFound, "RESOURCE_NOT_FOUND"));

    // I10, A02: the first message says whose it is, and a key of another workspace finds nothing there.
    world.acme.publish_workflow(&draft).await.unwrap();
    world.acme.ready().await;
    let stranger = make(key(globex.name.clone(), "event-sender")).await;
    let stranger = Client::connect(&world.grpc_url(), &stranger).await.unwrap();
    assert_eq!(refused(&stranger, &draft).await, says(Code::NotFound, "RESOURCE_NOT_FOUND"));
    let viewer = Client::connect(&world.grpc_url(), &make(key(world.acme.name.clone(), "viewer")).await).await.unwrap();
    assert_eq!(refused(&viewer, &draft).await, says(Code::PermissionDenied, "PERMISSION_MISSING"));
    let sender = make(key(world.acme.name.clone(), "event-sender")).await;
    let sender = Client::connect(&world.grpc_url(), &sender).await.unwrap();
    let tried = SubmitBatchRequest { validate_only: true, items: vec![member("a", &json!({}))], ..Default::default() };
    let open = Open::of(&sender, &draft, tried).await.unwrap();
    assert_eq!(open.end().await.unwrap(), BTreeMap::from([("a".to_owned(), State::Valid)]));
    let open = Open::of(&sender, &draft, SubmitBatchRequest::default()).await.unwrap();
    open.send(vec![member("a", &json!({}))]).await;
    assert_eq!(open.end().await.unwrap(), BTreeMap::from([("a".to_owned(), State::Accepted)]), "trying took nothing");
    let mut open = Open::of(&sender, &draft, SubmitBatchRequest::default()).await.unwrap();
    let elsewhere = SubmitBatchRequest { name: other, ..Default::default() };
    open.items.send(elsewhere).await.unwrap();
    assert_eq!(reason(&open.next().await.unwrap_err()), "FIELDS_INVALID", "one workflow each");
    world.stop().await;
}

/// R125, R126, S45: an event passes an audience that nobody answers. And the stream waits while the queue is full.
#[tokio::test]
async fn an_audience_never_holds_up_an_event() {
    const MEMBERS: usize = 1_000;
    // Three quarters: 300.
    let world = World::with(|options| *options.data_plane.inbox.max_jobs_mut() = 400).await;
    let workflow = world.acme.workflow("segment", of_audience(post(CRM, r#"{"id": {{ customer.id }}}"#))).await.name;
    let event = Some(admin::EventTrigger { action: "order.paid".to_owned() });
    let paid = admin::Workflow {
        triggers: vec![admin::Trigger { event, ..Default::default() }],
        ..of_audience(post("https://api.example.com/paid", "{}"))
    };
    world.acme.workflow("paid", paid).await;
    world.acme.ready().await;
    let gate = Gate::new();
    world.destination.script_for("/segments", (0..MEMBERS).map(|_| Answer::status(200).after(&gate)));
    let open = Open::of(&world.client, &workflow, SubmitBatchRequest::default()).await.unwrap();
    let items = open.items.clone();
    let sending = tokio::spawn(async move {
        for part in (0..MEMBERS).collect::<Vec<_>>().chunks(50) {
            let items_of = part.iter().map(|id| member(id, &json!({"id": id}))).collect();
            items.send(SubmitBatchRequest { items: items_of, ..Default::default() }).await.unwrap();
        }
    });
    let bulk = || async { world.plane().inbox.stats().await.unwrap().bulk };
    eventually("the queue's share to be full", || async {
        let bulk = bulk().await;
        (bulk.ready + bulk.leased + bulk.delayed == 300).then_some(())
    })
    .await;
    let request =
        SubmitEventRequest { parent: world.acme.name.clone(), action: "order.paid".to_owned(), ..Default::default() };
    let answer = world.client.events().submit_event(request).await.unwrap().into_inner();
    assert_eq!((answer.duplicate, answer.deliveries), (false, 1), "there is room");
    let paid = world.acme.deliveries_in(1, &[DeliveryState::Delivered]).await;
    assert_eq!((paid.len(), &paid[0].trigger_id), (1, &answer.trigger_id), "before any member was answered");
    gate.open();
    let states = open.end().await.unwrap();
    sending.await.unwrap();
    assert_eq!(states.len(), MEMBERS);
    assert!(states.values().all(|state| *state == State::Accepted), "the stream waits, nothing is refused");
    eventually("every member to be delivered", || async {
        let bulk = bulk().await;
        (bulk.ready + bulk.leased + bulk.delayed == 0).then_some(())
    })
    .await;
    let seen = world.destination.requests();
    let mut ids: Vec<_> = seen.iter().filter_map(|seen| seen.json().unwrap()["id"].as_u64()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..MEMBERS as u64).collect::<Vec<_>>());
    world.stop().await;
}

/// I1, I2: killed in the middle of a stream; whoever resumes it has every member taken exactly once.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_is_resumed_and_takes_each_member_once() {
    const MEMBERS: usize = 2_000;
    let house = House::new().await;
    let (mut subject, mut stage) = house.start().await;
    let acme = Workspace::create(&stage.client, "acme").await;
    let body = r#"{"id": {{ customer.id }}}"#;
    let workflow = acme.workflow("segment", of_audience(post(CRM, body))).await.name;
    acme.ready().await;
    let mut answered: BTreeMap<String, State> = BTreeMap::new();
    for life in 0.. {
        let mut open = Open::of(&stage.client, &workflow, SubmitBatchRequest::default()).await.unwrap();
        let left: Vec<usize> = (0..MEMBERS).filter(|id| !answered.contains_key(&id.to_string())).collect();
        let items = open.items.clone();
        let sending = tokio::spawn(async move {
            for part in left.chunks(20) {
                let items_of = part.iter().map(|id| member(id, &json!({"id": id}))).collect();
                if items.send(SubmitBatchRequest { items: items_of, ..Default::default() }).await.is_err() {
                    return;
                }
            }
        });
        let enough = MEMBERS * (life + 1) / 4;
        while answered.len() < if life < 3 { enough } else { MEMBERS } {
            for result in open.next().await.unwrap() {
                assert!(matches!(result.state(), State::Accepted | State::Duplicate), "{result:?}");
                assert_eq!(answered.insert(result.id.clone(), result.state()), None, "{} is answered twice", result.id);
            }
        }
        if life == 3 {
            sending.await.unwrap();
            assert_eq!(open.end().await.unwrap(), BTreeMap::new());
            break;
        }
        subject.kill().await.unwrap();
        sending.abort();
        (subject, stage) = house.start().await;
        Workspace { client: stage.client.clone(), ..acme.clone() }.ready().await;
    }
    assert_eq!(answered.len(), MEMBERS);
    // Each has one delivery: what was sent twice was sent again under the same key, because nobody knew how it had ended (I3).
    let by_key = eventually("every member to arrive", || async {
        let seen = house.destination.requests();
        let mut by_key: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for seen in &seen {
            let key = seen.header("idempotency-key").unwrap().to_owned();
            by_key.entry(seen.json().unwrap()["id"].as_u64().unwrap()).or_default().push(key);
        }
        (by_key.len() == MEMBERS).then_some(by_key)
    })
    .await;
    for (id, keys) in by_key {
        assert!(keys.iter().all(|key| *key == keys[0]), "{id} has more than one delivery: {keys:?}");
    }
    assert!(subject.stop().await.unwrap().success());
}
