//! Connections and those who use them: what a connection is named for (R027), where its secrets may go, and secrets that are
//! several.

use sluice_proto::admin::v1 as admin;
use sluice_proto::admin::v1::connection::Scheme;
use sluice_proto::admin::v1::step::Action;
use tonic::Status;

use crate::sync::{DataPlane, resources};
use crate::world::{ACME, World, api_key, outgoing, violations, workflow};

const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn signing(secrets: &[(&str, &str)]) -> admin::Connection {
    let secret = |(id, key): &(&str, &str)| admin::SigningSecret {
        id: (*id).to_owned(),
        key: (*key).to_owned(),
        ..Default::default()
    };
    let scheme = admin::StandardWebhooks { secrets: secrets.iter().map(secret).collect() };
    admin::Connection {
        display_name: "Signs".to_owned(),
        scheme: Some(Scheme::StandardWebhooks(scheme)),
        ..Default::default()
    }
}

fn bound(hosts: &[&str]) -> admin::Connection {
    admin::Connection { allowed_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(), ..api_key("k") }
}

/// What this file asks of the world.
impl World {
    async fn connect(&self, id: &str, connection: admin::Connection) -> String {
        let request = admin::CreateConnectionRequest {
            parent: ACME.to_owned(),
            connection_id: id.to_owned(),
            connection: Some(connection),
            ..Default::default()
        };
        self.connections().create_connection(request).await.unwrap().into_inner().name
    }

    async fn reconnect(&self, name: &str, connection: admin::Connection) -> Result<admin::Connection, Status> {
        let connection = Some(admin::Connection { name: name.to_owned(), ..connection });
        let request = admin::UpdateConnectionRequest { connection, ..Default::default() };
        self.connections().update_connection(request).await.map(tonic::Response::into_inner)
    }

    async fn draft(&self, id: &str, document: admin::OutgoingIntegration) -> Result<String, Status> {
        let request = admin::CreateOutgoingIntegrationRequest {
            parent: ACME.to_owned(),
            outgoing_integration_id: id.to_owned(),
            outgoing_integration: Some(document),
            ..Default::default()
        };
        self.outgoing().create_outgoing_integration(request).await.map(|made| made.into_inner().name)
    }

    /// A workflow's draft with a request of its own.
    async fn custom_webhook(&self, id: &str, request: Option<admin::OutgoingRequest>) -> Result<String, Status> {
        let incoming = format!("{ACME}/incomingIntegrations/orders");
        let mut document = workflow(&incoming, "");
        document.steps[0].action = request.map(Action::CustomWebhook);
        let request = admin::CreateWorkflowRequest {
            parent: ACME.to_owned(),
            workflow_id: id.to_owned(),
            workflow: Some(document),
            ..Default::default()
        };
        self.workflows().create_workflow(request).await.map(|made| made.into_inner().name)
    }
}

fn named(connection: &str, signature: &str) -> admin::OutgoingIntegration {
    let mut document = outgoing(connection);
    if let Some(request) = &mut document.request {
        signature.clone_into(&mut request.signature);
    }
    document
}

fn told(status: &Status) -> Vec<(String, String)> {
    violations(status)
}

fn pair(field: &str, reason: &str) -> (String, String) {
    (field.to_owned(), reason.to_owned())
}

#[tokio::test]
async fn a_connection_is_named_for_what_it_does() {
    let world = World::new().await;
    world.incoming_integration("orders").await;
    let key = world.connect("key", api_key("k")).await;
    let signs = world.connect("signs", signing(&[("a", KEY)])).await;
    let wrong = [pair("request.connection", "CONNECTION_PURPOSE"), pair("request.signature", "CONNECTION_PURPOSE")];
    assert_eq!(told(&world.draft("wrong", named(&signs, &key)).await.unwrap_err()), wrong);
    let refused = world.custom_webhook("wrong", named(&signs, &key).request).await.unwrap_err();
    let within = "steps[0].custom_webhook";
    let wrong = ["connection", "signature"].map(|field| pair(&format!("{within}.{field}"), "CONNECTION_PURPOSE"));
    assert_eq!(told(&refused), wrong);
    let gone = world.draft("gone", named("", &format!("{ACME}/connections/none"))).await.unwrap_err();
    assert_eq!(told(&gone), [pair("request.signature", "RESOURCE_NOT_FOUND")]);

    let name = world.draft("both", named(&key, &signs)).await.unwrap();
    world.publish_outgoing(&name).await.unwrap();
    let delete = admin::DeleteConnectionRequest { name: signs, ..Default::default() };
    let refused = world.connections().delete_connection(delete).await.unwrap_err();
    assert!(refused.message().contains(&name), "what signs is in use too: {refused:?}");
}

#[tokio::test]
async fn a_secret_goes_only_where_its_connection_says() {
    let world = World::new().await;
    let incoming = world.incoming_integration("orders").await;
    world.publish_incoming(&incoming.name).await.unwrap();
    let elsewhere = world.connect("elsewhere", bound(&["api.example.com", "*.crm.example.com"])).await;
    let here = world.connect("here", bound(&["*.example.com"])).await;
    let signs = world
        .connect("signs", admin::Connection { allowed_hosts: vec!["a.example".to_owned()], ..signing(&[("a", KEY)]) });
    let signs = signs.await;

    // A draft may be on its way; what is published may not.
    let draft = world.draft("send", named(&elsewhere, &signs)).await.unwrap();
    let refused = world.publish_outgoing(&draft).await.unwrap_err();
    let wrong = [pair("request.connection", "HOST_NOT_ALLOWED"), pair("request.signature", "HOST_NOT_ALLOWED")];
    assert_eq!(told(&refused), wrong);
    let flow = world.custom_webhook("flow", named(&elsewhere, "").request).await.unwrap();
    let refused = world.publish_workflow(&flow).await.unwrap_err();
    assert_eq!(told(&refused), [pair("steps[0].custom_webhook.connection", "HOST_NOT_ALLOWED")]);

    let good = world.draft("good", named(&here, "")).await.unwrap();
    world.publish_outgoing(&good).await.unwrap();
    let flow = world.custom_webhook("fine", named(&here, "").request).await.unwrap();
    world.publish_workflow(&flow).await.unwrap();
}

#[tokio::test]
async fn a_connection_does_not_change_under_those_who_use_it() {
    let world = World::new().await;
    let incoming = world.incoming_integration("orders").await;
    world.publish_incoming(&incoming.name).await.unwrap();
    let key = world.connect("key", api_key("k")).await;
    let draft = world.draft("draft", named(&key, "")).await.unwrap();
    world.reconnect(&key, bound(&["api.example.com"])).await.expect("a draft is nobody in force");
    world.reconnect(&key, bound(&[])).await.unwrap();
    world.publish_outgoing(&draft).await.unwrap();
    let flow = world.custom_webhook("flow", named(&key, "").request).await.unwrap();
    world.publish_workflow(&flow).await.unwrap();
    let revision = world.revision("acme").await;

    let refused = world.reconnect(&key, bound(&["api.example.com"])).await.unwrap_err();
    assert_eq!(told(&refused), [pair("allowed_hosts", "HOST_NOT_ALLOWED"), pair("allowed_hosts", "HOST_NOT_ALLOWED")]);
    let described = format!("{:?}", crate::world::details(&refused));
    assert!(described.contains(&draft) && described.contains(&flow), "{described}");
    let refused = world.reconnect(&key, signing(&[("a", KEY)])).await.unwrap_err();
    assert_eq!(told(&refused), [pair("scheme", "CONNECTION_PURPOSE"), pair("scheme", "CONNECTION_PURPOSE")]);
    assert_eq!(world.revision("acme").await, revision);

    world.reconnect(&key, bound(&["crm.example.com"])).await.unwrap();
}

#[tokio::test]
async fn a_secret_stays_with_its_id() {
    let world = World::new().await;
    let mut plane = DataPlane::connect(&world, "dp-1", "", &[]).await;
    let name = world.connect("signs", signing(&[("old", KEY), ("new", KEY)])).await;
    let field = |id: &str| format!("standard_webhooks.secrets[{id}].key");
    let fields = |plane: &DataPlane| -> Vec<(String, i64)> {
        let sealed = resources(plane, ACME)[&name].secrets.iter();
        sealed.map(|sealed| (sealed.field.clone(), sealed.version)).collect()
    };
    plane.until(ACME, 1).await;
    assert_eq!(fields(&plane), [(field("new"), 1), (field("old"), 1)]);

    let kept = world.reconnect(&name, signing(&[("new", ""), ("next", KEY)])).await.unwrap();
    let Some(Scheme::StandardWebhooks(scheme)) = kept.scheme else { panic!("another scheme") };
    assert!(scheme.secrets.iter().all(|secret| secret.key_set && secret.key.is_empty()), "{scheme:?}");
    plane.until(ACME, 2).await;
    assert_eq!(fields(&plane), [(field("new"), 1), (field("next"), 2)]);

    let refused = world.reconnect(&name, signing(&[("old", "")])).await.unwrap_err();
    assert_eq!(told(&refused), [pair("standard_webhooks.secrets[0].key", "REQUIRED")], "it was dropped");
}
