//! The main job, told as it happens: configured through the gRPC API, triggered over HTTP, delivered over HTTPS.
//!
//! Every step checks what it tells; the first one that is not as it should be ends the demo with an error.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_client::{Client, admin};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Streaming;

use crate::destination::{Answer, Destination, Options as DestinationOptions, Seen};
use crate::dev::{self, Dev};
use crate::folder::Folder;

/// The name the scripted destination answers to.
const DESTINATION: &str = "crm.example";
/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The secret of the demo's connection; it must show up at the destination and nowhere else.
const SECRET: &str = "demo-secret-5f1c";

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {problem}")]
pub struct DemoError {
    step: &'static str,
    problem: String,
}

type Step<T> = Result<T, DemoError>;

/// Names the step an error came from.
trait At<T> {
    fn at(self, step: &'static str) -> Step<T>;
}

impl<T, E: Display> At<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Step<T> {
        self.map_err(|error| DemoError { step, problem: error.to_string() })
    }
}

fn expect(step: &'static str, holds: bool, problem: impl FnOnce() -> String) -> Step<()> {
    if holds { Ok(()) } else { Err(DemoError { step, problem: problem() }) }
}

/// What is running while the story is told.
struct Stage {
    dev: Dev,
    destination: Destination,
    client: Client,
    started: Instant,
    folder: Folder,
    _temporary: TemporaryFolder,
}

/// A folder that goes when the demo ends.
struct TemporaryFolder(std::path::PathBuf);

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What cannot be removed is in the system's temporary folder anyway.
        let _removed = std::fs::remove_dir_all(&self.0);
    }
}

/// Tells the story to `say`, line by line. With `keep` the planes stay up until the process is interrupted.
pub async fn run(
    started: Instant,
    keep: Option<impl Future<Output = ()>>,
    say: &mut (dyn FnMut(String) + Send),
) -> Step<()> {
    let stage = open(started, say).await?;
    let story = tell(&stage, say).await;
    if let (Ok(()), Some(interrupted)) = (&story, keep) {
        say(String::new());
        for line in commands(&stage.dev, &stage.folder.admin_key_file()) {
            say(line);
        }
        say("Everything stays up until Ctrl-C.".to_owned());
        interrupted.await;
    }
    let Stage { dev, destination, _temporary, .. } = stage;
    let stopped = dev.stop().await.at("stop");
    destination.shutdown().await;
    story.and(stopped)
}

async fn open(started: Instant, say: &mut (dyn FnMut(String) + Send)) -> Step<Stage> {
    let path = std::env::temp_dir().join(format!("sluice-demo-{}", std::process::id()));
    let folder = Folder::open(&path).at("data folder")?;
    let temporary = TemporaryFolder(path);
    let destination = Destination::start(DestinationOptions::named([DESTINATION])).await.at("destination")?;
    let port = destination.address().port();
    let mut egress = sluice_egress::Settings {
        static_addresses: destination.static_addresses(),
        extra_ca_pem: vec![destination.ca_pem().into_bytes()],
        ..sluice_egress::Settings::default()
    };
    egress.extra_networks.push("127.0.0.0/8".parse().at("settings")?);
    egress.ports.push(port);
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let options =
        dev::Options { folder: folder.clone(), grpc: any, control_health: any, ingress: any, health: any, egress };
    let dev = dev::start(options).await.at("start")?;
    let client = Client::connect(&dev.control_plane.url(), &dev.control_plane.admin_key).await.at("connect")?;
    say("Sluice demo: both planes in this process, over real sockets, on embedded storage.".to_owned());
    say(format!("  control plane   gRPC   {}", dev.control_plane.grpc));
    say(format!("  data plane      HTTP   {}", dev.data_plane.ingress));
    say(format!("  destination     HTTPS  {DESTINATION}:{port}, scripted, with a certificate authority of its own"));
    Ok(Stage { dev, destination, client, started, folder, _temporary: temporary })
}

async fn tell(stage: &Stage, say: &mut (dyn FnMut(String) + Send)) -> Step<()> {
    say("\n1. Configure, through the gRPC API".to_owned());
    let configured = configure(stage, say).await?;
    let mut events = watch(stage).await?;

    say("\n2. A trigger is kept, answered, and delivered".to_owned());
    first_trigger(stage, &configured, say).await?;
    let event = next_event(&mut events, "event").await?;

    say("\n3. The same again is a duplicate".to_owned());
    let again = trigger(stage, &configured.path, &order("A-1001", "Ewa \"Tea\" Nowak")).await?;
    say(format!("   POST the same body   -> {}", again.line));
    expect("duplicate", again.status == 204, || format!("expected 204, got {}", again.line))?;

    say("\n4. A destination that fails twice".to_owned());
    retries(stage, &configured, &mut events, say).await?;

    say("\n5. The response event of step 2".to_owned());
    tell_event(&event, say)?;

    say("\n6. A publish changes the next delivery".to_owned());
    publish(stage, configured, &mut events, say).await?;

    say(format!("\nDone in {:.1} s; every step was checked.", stage.started.elapsed().as_secs_f64()));
    Ok(())
}

struct Configured {
    outgoing: admin::OutgoingIntegration,
    path: String,
}

async fn configure(stage: &Stage, say: &mut (dyn FnMut(String) + Send)) -> Step<Configured> {
    let workspace = admin::CreateWorkspaceRequest {
        workspace_id: "demo".to_owned(),
        workspace: Some(admin::Workspace { display_name: "Demo".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let workspace = stage.client.workspaces().create_workspace(workspace).await.at("create workspace")?;
    let parent = workspace.into_inner().name;
    let connection = admin::CreateConnectionRequest {
        parent: parent.clone(),
        connection_id: "crm-key".to_owned(),
        connection: Some(connection()),
        ..Default::default()
    };
    let connection = stage.client.connections().create_connection(connection).await.at("create connection")?;
    let connection = connection.into_inner().name;
    say(format!("   {connection}   header x-api-key: {{{{secret}}}}"));
    let outgoing = create_outgoing(stage, &parent, &connection).await?;
    say(format!("   {}   version {}", outgoing.name, outgoing.published_version));
    let incoming = create_incoming(stage, &parent).await?;
    say(format!("   {}   version {}", incoming.name, incoming.published_version));
    let workflow = create_workflow(stage, &parent, &incoming.name, &outgoing.name).await?;
    say(format!("   {workflow}   for orders over 100"));
    served(stage, &parent).await?;
    Ok(Configured { outgoing, path: incoming.endpoint_path })
}

fn connection() -> admin::Connection {
    let placement = admin::CredentialPlacement { name: "x-api-key".to_owned(), value: "{{secret}}".to_owned() };
    let key = admin::ApiKey { secret: SECRET.to_owned(), headers: vec![placement], ..Default::default() };
    admin::Connection {
        display_name: "CRM".to_owned(),
        scheme: Some(admin::connection::Scheme::ApiKey(key)),
        ..Default::default()
    }
}

async fn create_outgoing(stage: &Stage, parent: &str, connection: &str) -> Step<admin::OutgoingIntegration> {
    let second = prost_types::Duration { seconds: 1, nanos: 0 };
    let parameter = |name: &str, value: &str| admin::EventParameter { name: name.to_owned(), value: value.to_owned() };
    let request = admin::OutgoingRequest {
        webhook_name: "CRM order".to_owned(),
        method: admin::HttpMethod::Post.into(),
        url: format!(
            "https://{DESTINATION}:{}/v1/orders/{{{{ request.body.order_number }}}}",
            stage.destination.address().port()
        ),
        body: Some(
            r#"{"customer":"{{ request.body.customer|trim }}","total":{{ request.body.total }},"items":[{% for item in request.body.items %}"{{ item.name }}"{% if not loop.last %},{% endif %}{% endfor %}]}"#
                .to_owned(),
        ),
        connection: connection.to_owned(),
        event_parameters: vec![parameter("crm_id", "{{ response.body.id }}")],
        retry: Some(admin::RetryPolicy {
            first_wait: Some(second),
            longest_wait: Some(second),
            ..Default::default()
        }),
        ..Default::default()
    };
    let integration = admin::OutgoingIntegration {
        display_name: "Order to CRM".to_owned(),
        request: Some(request),
        ..Default::default()
    };
    let mut client = stage.client.outgoing_integrations();
    let created = client
        .create_outgoing_integration(admin::CreateOutgoingIntegrationRequest {
            parent: parent.to_owned(),
            outgoing_integration_id: "order-to-crm".to_owned(),
            outgoing_integration: Some(integration),
            ..Default::default()
        })
        .await
        .at("create outgoing integration")?
        .into_inner();
    let publish = admin::PublishOutgoingIntegrationRequest { name: created.name, ..Default::default() };
    Ok(client.publish_outgoing_integration(publish).await.at("publish outgoing integration")?.into_inner())
}

async fn create_incoming(stage: &Stage, parent: &str) -> Step<admin::IncomingIntegration> {
    let path = admin::deduplication_parameter::Source::BodyPath("body.order_number".to_owned());
    let integration = admin::IncomingIntegration {
        display_name: "Shop orders".to_owned(),
        authorization: Some(admin::incoming_integration::Authorization::None(admin::NoAuthorization {})),
        deduplication: Some(admin::Deduplication {
            parameters: vec![admin::DeduplicationParameter { source: Some(path) }],
            // Nobody captures a sample here first.
            allow_unseen: true,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut client = stage.client.incoming_integrations();
    let created = client
        .create_incoming_integration(admin::CreateIncomingIntegrationRequest {
            parent: parent.to_owned(),
            incoming_integration_id: "shop-orders".to_owned(),
            incoming_integration: Some(integration),
            ..Default::default()
        })
        .await
        .at("create incoming integration")?
        .into_inner();
    let publish = admin::PublishIncomingIntegrationRequest { name: created.name, ..Default::default() };
    Ok(client.publish_incoming_integration(publish).await.at("publish incoming integration")?.into_inner())
}

async fn create_workflow(stage: &Stage, parent: &str, incoming: &str, outgoing: &str) -> Step<String> {
    let over_100 = admin::Condition {
        path: "body.total".to_owned(),
        operator: admin::Operator::Greater.into(),
        operands: vec!["100".to_owned()],
    };
    let filter = admin::Filter { kind: Some(admin::filter::Kind::Condition(over_100)) };
    let trigger =
        admin::Trigger { incoming_integration: incoming.to_owned(), filter: Some(filter), ..Default::default() };
    let step = admin::Step {
        step_name: "Tell the CRM".to_owned(),
        action: Some(admin::step::Action::OutgoingIntegration(outgoing.to_owned())),
        ..Default::default()
    };
    let workflow = admin::Workflow {
        display_name: "Large orders".to_owned(),
        triggers: vec![trigger],
        steps: vec![step],
        ..Default::default()
    };
    let mut client = stage.client.workflows();
    let created = client
        .create_workflow(admin::CreateWorkflowRequest {
            parent: parent.to_owned(),
            workflow_id: "large-orders".to_owned(),
            workflow: Some(workflow),
            ..Default::default()
        })
        .await
        .at("create workflow")?
        .into_inner();
    let publish = admin::PublishWorkflowRequest { name: created.name, ..Default::default() };
    Ok(client.publish_workflow(publish).await.at("publish workflow")?.into_inner().name)
}

/// Waits until the data plane serves the workspace's newest revision, as `ListDataPlanes` tells it.
async fn served(stage: &Stage, workspace: &str) -> Step<i64> {
    let get = admin::GetWorkspaceRequest { name: workspace.to_owned() };
    let revision = stage.client.workspaces().get_workspace(get).await.at("get workspace")?.into_inner().revision;
    let mut data_planes = stage.client.data_planes();
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let listed = data_planes.list_data_planes(admin::ListDataPlanesRequest::default()).await;
        let listed = listed.at("list data planes")?.into_inner().data_planes;
        let serves = |served: &admin::ServedWorkspace| served.workspace == workspace && served.revision >= revision;
        if listed.iter().any(|plane| plane.workspaces.iter().any(serves)) {
            return Ok(revision);
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    Err(DemoError { step: "publish", problem: format!("revision {revision} is not served") })
}

async fn watch(stage: &Stage) -> Step<Streaming<admin::Event>> {
    let request = admin::WatchEventsRequest { parent: "workspaces/demo".to_owned(), ..Default::default() };
    Ok(stage.client.events().watch_events(request).await.at("watch events")?.into_inner())
}

async fn next_event(events: &mut Streaming<admin::Event>, step: &'static str) -> Step<admin::Event> {
    let next = tokio::time::timeout(PATIENCE, events.message()).await.at(step)?;
    next.at(step)?.ok_or_else(|| DemoError { step, problem: "the stream of events ended".to_owned() })
}

fn order(number: &str, customer: &str) -> Value {
    json!({
        "order_number": number,
        "customer": customer,
        "total": 149.90,
        "items": [{ "name": "Mug" }, { "name": "Tea \"Earl\"" }],
    })
}

async fn first_trigger(stage: &Stage, configured: &Configured, say: &mut (dyn FnMut(String) + Send)) -> Step<()> {
    let body = order("A-1001", "Ewa \"Tea\" Nowak");
    say(format!("   POST {}", configured.path));
    say(format!("        {body}"));
    stage.destination.script([Answer::json(201, r#"{"id":"crm-77","tags":["new","vip"]}"#)]);
    let sent = Instant::now();
    let answer = trigger(stage, &configured.path, &body).await?;
    say(format!("   -> {} in {:.1} ms, on disk before the answer", answer.line, millis(sent)));
    expect("trigger", answer.status == 200 && answer.body == "OK", || format!("expected 200 OK, got {}", answer.line))?;
    let seen = stage.destination.wait_for(1).await.at("delivery")?;
    say(format!(
        "   The destination saw, {:.1} ms after the trigger and {:.0} ms after the start:",
        millis(sent),
        stage.started.elapsed().as_secs_f64() * 1000.0
    ));
    let request = &seen[0];
    tell_request(request, say);
    let expected = json!({
        "customer": "Ewa \"Tea\" Nowak", "total": 149.9, "items": ["Mug", "Tea \"Earl\""]
    });
    expect("delivery", request.json().ok().as_ref() == Some(&expected), || {
        "the body is another than configured".into()
    })?;
    expect("delivery", request.header("x-api-key") == Some(SECRET), || "the credential is missing".into())
}

fn tell_request(request: &Seen, say: &mut (dyn FnMut(String) + Send)) {
    say(format!("      {} {}", request.method, request.target));
    for name in ["content-type", "idempotency-key", "user-agent"] {
        say(format!("      {name}: {}", request.header(name).unwrap_or("-")));
    }
    let credential = request.header("x-api-key").map_or("-", |_| "********");
    say(format!("      x-api-key: {credential}"));
    say(format!("      {}", String::from_utf8_lossy(&request.body)));
}

async fn retries(
    stage: &Stage,
    configured: &Configured,
    events: &mut Streaming<admin::Event>,
    say: &mut (dyn FnMut(String) + Send),
) -> Step<()> {
    let before = stage.destination.requests().len();
    stage.destination.script([Answer::status(503), Answer::status(503), Answer::json(200, r#"{"id":"crm-78"}"#)]);
    let answer = trigger(stage, &configured.path, &order("A-1002", "Jo")).await?;
    say(format!("   POST another order   -> {}", answer.line));
    expect("retries", answer.status == 200, || format!("expected 200, got {}", answer.line))?;
    let event = next_event(events, "retries").await?;
    let name = admin::GetDeliveryRequest { name: event.delivery };
    let delivery = stage.client.deliveries().get_delivery(name).await.at("get delivery")?.into_inner();
    for attempt in &delivery.attempts {
        say(format!("   attempt {}   {}   {} ms", attempt.number, attempt.status, attempt.duration_ms));
    }
    let statuses: Vec<i32> = delivery.attempts.iter().map(|attempt| attempt.status).collect();
    expect("retries", statuses == [503, 503, 200], || format!("expected 503, 503, 200, got {statuses:?}"))?;
    let seen = stage.destination.requests().split_off(before);
    let same = |request: &Seen| {
        request.body == seen[0].body && request.header("idempotency-key") == seen[0].header("idempotency-key")
    };
    expect("retries", seen.len() == 3 && seen.iter().all(same), || "the attempts were not the same request".into())?;
    say("   the same bytes and the same idempotency-key each time".to_owned());
    Ok(())
}

fn tell_event(event: &admin::Event, say: &mut (dyn FnMut(String) + Send)) -> Step<()> {
    let params: Value = serde_json::from_str(&event.params).at("event")?;
    say(format!("   {}", event.action));
    for (name, value) in params.as_object().into_iter().flatten() {
        say(format!("      {name}: {value}"));
    }
    expect("event", event.action == "webhook.response", || format!("unexpected action {}", event.action))?;
    expect(
        "event",
        params["status"] == 201 && params["crm_id"] == "crm-77" && params["body.tags[1]"] == "vip",
        || "parameters are missing".into(),
    )?;
    expect("event", !event.params.contains(SECRET), || "the event holds the secret".into())
}

async fn publish(
    stage: &Stage,
    configured: Configured,
    events: &mut Streaming<admin::Event>,
    say: &mut (dyn FnMut(String) + Send),
) -> Step<()> {
    let mut changed = configured.outgoing;
    if let Some(request) = &mut changed.request {
        request.body = Some(r#"{"order":"{{ request.body.order_number|lower }}"}"#.to_owned());
    }
    let name = changed.name.clone();
    let mut client = stage.client.outgoing_integrations();
    let update = admin::UpdateOutgoingIntegrationRequest { outgoing_integration: Some(changed), ..Default::default() };
    client.update_outgoing_integration(update).await.at("update")?;
    let began = Instant::now();
    let publish = admin::PublishOutgoingIntegrationRequest { name: name.clone(), ..Default::default() };
    let published = client.publish_outgoing_integration(publish).await.at("publish")?.into_inner();
    let revision = served(stage, "workspaces/demo").await?;
    say(format!(
        "   {name} version {} is served as revision {revision}, {:.1} ms after the call",
        published.published_version,
        millis(began)
    ));
    let before = stage.destination.requests().len();
    trigger(stage, &configured.path, &order("A-1003", "Jo")).await?;
    next_event(events, "publish").await?;
    let seen = stage.destination.requests().split_off(before);
    let body = seen.first().map(|request| String::from_utf8_lossy(&request.body).into_owned()).unwrap_or_default();
    say(format!("   The destination saw   {body}"));
    expect("publish", body == r#"{"order":"a-1003"}"#, || "the delivery was not made with the new version".into())
}

struct Reply {
    status: u16,
    line: String,
    body: String,
}

/// Sends a trigger as an external system does.
async fn trigger(stage: &Stage, path: &str, body: &Value) -> Step<Reply> {
    let body = body.to_string();
    let host = stage.dev.data_plane.ingress;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let exchange = async {
        // The demo plays the external system here; nothing of Sluice sends this way.
        #[allow(clippy::disallowed_methods)]
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.at("trigger")?.at("trigger")?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let line = head.lines().next().unwrap_or_default().trim_start_matches("HTTP/1.1 ").to_owned();
    let status = line.get(..3).and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok(Reply { status, line, body: body.to_owned() })
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Commands that work as they are printed, for who wants to look around.
pub fn commands(dev: &Dev, key_file: &Path) -> Vec<String> {
    let grpc = dev.control_plane.grpc;
    let call = format!("grpcurl -plaintext -H \"authorization: Bearer $(cat {})\"", key_file.display());
    vec![
        "Look around (the server describes itself, so grpcurl needs no files):".to_owned(),
        format!("  {call} {grpc} list"),
        format!("  {call} {grpc} sluice.admin.v1.WorkspaceService/ListWorkspaces"),
        format!("  {call} {grpc} sluice.admin.v1.DataPlaneService/ListDataPlanes"),
        format!("  curl http://{}/readyz", dev.data_plane.health),
        format!("  curl http://{}/metrics", dev.data_plane.health),
        format!("  curl http://{}/metrics", dev.control_plane.health),
    ]
}
