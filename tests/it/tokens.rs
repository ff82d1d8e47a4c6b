//! Tokens look after themselves (D21): one fetch however many deliveries wait, deliveries that wait and do not fail, a 401 that
//! leads to one new token, and never a token of another version or workspace.

use std::cell::Cell;
use std::time::Duration;

use serde_json::{Value, json};
use sluice::destination::{Answer, Gate, Seen};
use sluice_client::admin::connection::Scheme;
use sluice_client::admin::failure::Reason;
use sluice_client::admin::{self, DeliveryState, OutgoingRequest, RetryPolicy, TokenError, TokenState};
use sluice_data_plane::clock::Clock;
use sluice_data_plane::dispatch::DispatchSettings;
use sluice_data_plane::settings::WorkerSettings;
use sluice_tests::resources::{custom_webhook, oauth2, open, post, workflow};
use sluice_tests::{Numbers, Workspace, World, eventually, long, reason};

const START: i64 = 1_718_010_930_000;
const MINUTE: i64 = 60_000;

/// Fetches its token at `/token` of the scripted destination.
fn oauth(secret: &str) -> Scheme {
    oauth2("https://api.example.com/token", secret)
}

/// An answer with this token, good for an hour.
fn grants(token: &str) -> Answer {
    Answer::json(200, json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}).to_string())
}

/// A request to `/orders` with this connection.
fn orders(connection: &admin::Connection) -> OutgoingRequest {
    OutgoingRequest {
        connection: connection.name.clone(),
        ..post("https://api.example.com/orders", r#"{"id": {{ request.body.id }}}"#)
    }
}

/// A workspace that sends to `/orders` with a token.
async fn flow(workspace: &Workspace) -> (admin::Connection, admin::IncomingIntegration) {
    let connection = workspace.connection("crm", oauth("s3cr3t")).await;
    let incoming = workspace.flow("orders", orders(&connection)).await;
    (connection, incoming)
}

struct Stage {
    world: World,
    clock: Clock,
    connection: admin::Connection,
    incoming: admin::IncomingIntegration,
}

impl Stage {
    /// A world whose time stands still until it is moved.
    async fn start() -> Self {
        let clock = Clock::manual(START);
        let world = World::with(|options| {
            options.data_plane.clock = clock.clone();
            // Time moves in steps as long as a lease, while work goes on: nobody has died.
            *options.data_plane.inbox.lease_mut() = Duration::from_secs(24 * 3_600);
        })
        .await;
        let (connection, incoming) = flow(&world.acme).await;
        world.served().await;
        Self { world, clock, connection, incoming }
    }

    async fn trigger(&self, id: u32) {
        assert_eq!(self.world.trigger(&self.incoming, &json!({ "id": id })).await.status, 200);
    }

    /// Moves the time, and wakes who waits for it with another delivery.
    async fn later(&self, millis: i64, id: u32) {
        self.clock.advance(millis);
        self.trigger(id).await;
    }

    /// Requests to this path so far.
    fn seen(&self, path: &str) -> Vec<Seen> {
        seen(&self.world, path)
    }

    /// Waits until all that was triggered has gone back to wait for a token.
    async fn all_wait(&self, count: f64) {
        eventually("all deliveries to wait", || async {
            let numbers = Numbers::of(self.world.health()).await;
            let held = numbers.get("sluice_dispatch_waiting_jobs{lane=\"realtime\",reason=\"hold\"}");
            (jobs(&numbers, "delayed") + held == count && jobs(&numbers, "leased") == 0.0).then_some(())
        })
        .await;
    }

    async fn state(&self) -> Option<TokenState> {
        states(&self.world, &self.connection.name).await.pop()
    }
}

fn seen(world: &World, path: &str) -> Vec<Seen> {
    world.destination.requests().into_iter().filter(|seen| seen.target == path).collect()
}

fn bearers(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.header("authorization").unwrap_or_default()).collect()
}

fn jobs(numbers: &Numbers, state: &str) -> f64 {
    numbers.get(&format!("sluice_inbox_jobs{{lane=\"realtime\",state=\"{state}\"}}"))
}

async fn states(world: &World, connection: &str) -> Vec<TokenState> {
    let request = admin::ListTokenStatesRequest { parent: connection.to_owned(), ..Default::default() };
    world.client.connections().list_token_states(request).await.unwrap().into_inner().token_states
}

/// Waits until the control plane was told of this.
async fn told(world: &World, connection: &str, what: impl Fn(&TokenState) -> bool) -> TokenState {
    eventually("the state of the token to be told", || async {
        states(world, connection).await.pop().filter(|state| what(state))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn very_many_deliveries_wait_for_one_fetch() {
    const STEPS: u32 = 20;
    let triggers: u32 = long::either(500, 5_000);
    let nobody = WorkerSettings { realtime: 0, bulk: 0 };
    let mut world = World::with(|options| {
        options.data_plane.workers = nobody;
        options.destination.patience = Duration::from_secs(long::either(120, 1_200));
    })
    .await;
    let connection = world.acme.connection("crm", oauth("s3cr3t")).await;
    let incoming = world.acme.incoming("orders", open()).await;
    let steps: Vec<_> = (0..STEPS).map(|step| custom_webhook(&format!("Step {step}"), orders(&connection))).collect();
    world.acme.workflow("orders", workflow(&incoming, steps)).await;
    world.served().await;
    for id in 0..triggers {
        assert_eq!(world.trigger(&incoming, &json!({ "id": id })).await.status, 200);
    }
    let waiting = f64::from(STEPS * triggers);
    assert_eq!(jobs(&Numbers::of(world.health()).await, "ready"), waiting);

    let gate = Gate::new();
    world.destination.script_for("/token", [grants("t1").after(&gate)]);
    world.settings.data_plane.workers = WorkerSettings::default();
    world.restart_data_plane().await;
    world.destination.wait_for(1).await.unwrap();
    eventually("every place to be taken", || async {
        let share = usize::from(DispatchSettings::default().destination_share);
        let places = WorkerSettings::default().realtime * share / 100;
        (jobs(&Numbers::of(world.health()).await, "leased") >= places as f64).then_some(())
    })
    .await;
    assert_eq!(seen(&world, "/orders").len(), 0, "nothing is sent without its token");
    gate.open();
    let all = usize::try_from(STEPS * triggers).unwrap() + 1;
    let seen = world.destination.wait_for(all).await.unwrap();
    assert_eq!(seen.len(), all);
    assert_eq!(seen.iter().filter(|seen| seen.target == "/token").count(), 1, "one fetch");
    let sent = || seen.iter().filter(|seen| seen.target == "/orders");
    assert!(sent().all(|seen| seen.header("authorization") == Some("Bearer t1")));
    let keys: std::collections::BTreeSet<_> = sent().map(|seen| seen.header("idempotency-key")).collect();
    assert_eq!(keys.len(), all - 1, "each delivery once");
    let numbers = Numbers::of(world.health()).await;
    assert_eq!(numbers.get("sluice_token_fetches_total{result=\"obtained\"}"), 1.0);
    assert_eq!(numbers.get("sluice_tokens"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_token_endpoint_is_down_deliveries_wait_and_none_is_lost() {
    let stage = Stage::start().await;
    // What is not scripted is answered 200 without a token, so the endpoint is down in more than one way.
    stage.world.destination.script_for("/token", [Answer::status(503), Answer::close(), Answer::status(500)]);
    for id in 0..50 {
        stage.trigger(id).await;
    }
    let mut triggered = 50;
    stage.all_wait(50.0).await;
    assert_eq!(stage.seen("/token").len(), 1, "a failed fetch is remembered");
    for _ in 0..8 {
        stage.later(10_000, triggered).await;
        triggered += 1;
        stage.all_wait(triggered.into()).await;
    }
    let fetches = stage.seen("/token").len();
    assert!((3..=8).contains(&fetches), "{fetches} fetches within 80 s");
    assert_eq!(stage.seen("/orders").len(), 0);
    let numbers = Numbers::of(stage.world.health()).await;
    assert_eq!(numbers.get("sluice_token_fetches_total{result=\"server\"}"), 2.0, "{}", numbers.text());
    assert_eq!(jobs(&numbers, "dead"), 0.0);

    stage.world.destination.script_for("/token", [grants("t1")]);
    let triggered = Cell::new(triggered);
    eventually("everything to be delivered", || async {
        stage.later(MINUTE, triggered.get()).await;
        triggered.set(triggered.get() + 1);
        (stage.seen("/orders").len() >= 50).then_some(())
    })
    .await;
    let count = usize::try_from(triggered.get()).unwrap();
    let deliveries = stage.world.acme.deliveries(count).await;
    assert_eq!(deliveries.len(), count);
    for delivery in deliveries {
        assert_eq!((delivery.state(), delivery.attempts.len()), (DeliveryState::Delivered, 1), "no attempt was used");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_waited_too_long_ends_as_an_authentication_error() {
    let clock = Clock::manual(START);
    let world = World::with(|options| options.data_plane.clock = clock.clone()).await;
    let connection = world.acme.connection("crm", oauth("s3cr3t")).await;
    let age_max = Some(Duration::from_secs(300).try_into().unwrap());
    let request = OutgoingRequest { retry: Some(RetryPolicy { age_max, ..Default::default() }), ..orders(&connection) };
    let incoming = world.acme.flow("orders", request).await;
    world.served().await;
    world.destination.script_for("/token", [Answer::status(401)]);
    let stage = Stage { world, clock, connection, incoming };
    stage.trigger(0).await;
    stage.all_wait(1.0).await;
    stage.later(299_999, 1).await;
    stage.all_wait(2.0).await;
    stage.later(MINUTE, 2).await;
    let dead = &stage.world.acme.deliveries(1).await[0];
    assert_eq!((dead.state(), dead.reason()), (DeliveryState::Dead, Reason::AuthError));
    assert_eq!(dead.attempts.len(), 0);
    assert!(dead.message.contains("workspaces/acme/connections/crm"), "{}", dead.message);
    assert_eq!(stage.world.acme.events(1).await[0].params["statusDescription"], json!("AUTH_ERROR"));
    assert_eq!(stage.seen("/orders").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_leads_to_one_new_token_and_one_repetition() {
    let stage = Stage::start().await;
    stage.world.destination.script_for("/token", [grants("t1"), grants("t2")]);
    let unauthorised = || Answer::status(401);
    let ok = || Answer::status(200);
    stage.world.destination.script_for("/orders", [ok(), unauthorised(), ok()]);
    stage.trigger(1).await;
    stage.world.acme.deliveries(1).await;
    stage.trigger(2).await;
    let deliveries = stage.world.acme.deliveries(2).await;
    assert!(deliveries.iter().all(|delivery| delivery.state() == DeliveryState::Delivered));
    let sent = stage.seen("/orders");
    assert_eq!(bearers(&sent), ["Bearer t1", "Bearer t1", "Bearer t2"]);
    assert_eq!(sent[1].header("idempotency-key"), sent[2].header("idempotency-key"));
    assert_eq!(sent[1].body, sent[2].body);
    let renewed =
        |delivery: &admin::Delivery| delivery.attempts.iter().map(|one| one.token_renewed).collect::<Vec<_>>();
    assert_eq!((renewed(&deliveries[0]), renewed(&deliveries[1])), (vec![false], vec![true]), "the same attempt");
    assert_eq!(stage.seen("/token").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_refuses_every_token_is_no_loop() {
    let stage = Stage::start().await;
    stage.world.destination.script_for("/token", [grants("t1"), grants("t2"), grants("t3")]);
    stage.world.destination.script_for("/orders", vec![Answer::status(401); 5]);
    stage.trigger(1).await;
    let dead = stage.world.acme.deliveries(1).await;
    assert_eq!((dead[0].state(), dead[0].reason()), (DeliveryState::Dead, Reason::Status));
    assert_eq!(dead[0].attempts.len(), 1);
    assert_eq!(bearers(&stage.seen("/orders")), ["Bearer t1", "Bearer t2"]);
    // The new token was refused as well: another one a moment later would be too.
    stage.trigger(2).await;
    stage.world.acme.deliveries(2).await;
    assert_eq!(bearers(&stage.seen("/orders"))[2..], ["Bearer t2"]);
    stage.clock.advance(5_000);
    stage.trigger(3).await;
    stage.world.acme.deliveries(3).await;
    assert_eq!(bearers(&stage.seen("/orders"))[3..], ["Bearer t2", "Bearer t3"]);
    assert_eq!(stage.seen("/token").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_401_the_delivery_waits_for_the_new_token_however_long_it_takes() {
    let stage = Stage::start().await;
    stage.world.destination.script_for("/token", [grants("t1"), Answer::status(503), grants("t2")]);
    stage.world.destination.script_for("/orders", [Answer::status(401), Answer::status(200)]);
    stage.trigger(1).await;
    stage.all_wait(1.0).await;
    assert_eq!(bearers(&stage.seen("/orders")), ["Bearer t1"]);
    eventually("the delivery to go out", || async {
        stage.later(MINUTE, 2).await;
        (stage.seen("/orders").len() > 1).then_some(())
    })
    .await;
    let deliveries = stage.world.acme.deliveries(2).await;
    assert!(deliveries.iter().all(|delivery| delivery.state() == DeliveryState::Delivered));
    assert!(bearers(&stage.seen("/orders"))[1..].iter().all(|bearer| *bearer == "Bearer t2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_without_the_control_plane() {
    let mut world = World::start().await;
    let (_, incoming) = flow(&world.acme).await;
    world.served().await;
    world.destination.script_for("/token", [grants("t1")]);
    world.stop_control_plane().await;
    world.restart_data_plane().await;
    assert_eq!(world.trigger(&incoming, &json!({"id": 1})).await.status, 200);
    world.destination.wait_for(2).await.unwrap();
    assert_eq!(bearers(&seen(&world, "/orders")), ["Bearer t1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_401s_at_once_lead_to_one_fetch() {
    let stage = Stage::start().await;
    let gate = Gate::new();
    stage.world.destination.script_for("/token", [grants("t1"), grants("t2"), grants("t3")]);
    stage.world.destination.script_for("/orders", vec![Answer::status(401).after(&gate); 20]);
    for id in 0..20 {
        stage.trigger(id).await;
    }
    stage.world.destination.wait_for(21).await.unwrap();
    gate.open();
    let deliveries = stage.world.acme.deliveries(20).await;
    assert!(deliveries.iter().all(|delivery| delivery.state() == DeliveryState::Delivered));
    assert_eq!(stage.seen("/token").len(), 2);
    assert_eq!(bearers(&stage.seen("/orders")).iter().filter(|bearer| **bearer == "Bearer t2").count(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_fetched_again_when_it_ends_and_before_while_it_is_used() {
    let stage = Stage::start().await;
    stage.world.destination.script_for("/token", [grants("t1"), grants("t2"), grants("t3")]);
    let mut count = 0;
    let mut deliver = async |minutes: i64| {
        stage.clock.advance(minutes * MINUTE);
        count += 1;
        stage.trigger(u32::try_from(count).unwrap()).await;
        stage.world.acme.deliveries(count).await;
        stage.seen("/orders").pop().unwrap().header("authorization").unwrap_or_default().to_owned()
    };
    assert_eq!(deliver(0).await, "Bearer t1");
    assert_eq!(deliver(40).await, "Bearer t1");
    assert_eq!(stage.seen("/token").len(), 1);
    // Late in its life: the delivery goes with the old one and does not wait for the new one.
    assert_eq!(deliver(10).await, "Bearer t1");
    eventually("the refresh", || async { (stage.seen("/token").len() == 2).then_some(()) }).await;
    told(&stage.world, &stage.connection.name, |state| {
        state.obtain_time.is_some_and(|time| time.seconds == START / 1000 + 50 * 60)
    })
    .await;
    assert_eq!(deliver(20).await, "Bearer t2");
    // Nobody used it for long: it was not refreshed in vain.
    assert_eq!(deliver(600).await, "Bearer t3");
    assert_eq!(stage.seen("/token").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_drops_the_token_at_once() {
    let stage = Stage::start().await;
    stage.world.destination.script_for("/token", [grants("t1"), grants("t2")]);
    stage.trigger(1).await;
    stage.world.acme.deliveries(1).await;
    change_secret(&stage, "n3w").await;
    stage.trigger(2).await;
    stage.world.acme.deliveries(2).await;
    assert_eq!(bearers(&stage.seen("/orders")), ["Bearer t1", "Bearer t2"]);
    let asked: Vec<_> =
        stage.seen("/token").iter().map(|seen| String::from_utf8_lossy(&seen.body).into_owned()).collect();
    assert!(asked[0].contains("s3cr3t") && asked[1].contains("n3w"), "{asked:?}");
}

async fn change_secret(stage: &Stage, secret: &str) {
    let connection = admin::Connection {
        name: stage.connection.name.clone(),
        display_name: "crm".to_owned(),
        scheme: Some(oauth(secret)),
        ..Default::default()
    };
    let request = admin::UpdateConnectionRequest { connection: Some(connection), ..Default::default() };
    stage.world.client.connections().update_connection(request).await.unwrap();
    stage.world.served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_fetch_with_the_old_secret_brings_is_not_used() {
    let stage = Stage::start().await;
    let gate = Gate::new();
    stage.world.destination.script_for("/token", [grants("t1").after(&gate), grants("t2")]);
    stage.trigger(1).await;
    stage.world.destination.wait_for(1).await.unwrap();
    change_secret(&stage, "n3w").await;
    gate.open();
    eventually("the delivery to go out", || async {
        // If the gate opened after the delivery's patience, it comes back at another time.
        stage.clock.advance(1_000);
        (!stage.seen("/orders").is_empty()).then_some(())
    })
    .await;
    assert_eq!(bearers(&stage.seen("/orders")), ["Bearer t2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_hangs_slows_nobody_and_is_given_up_after_its_own_time() {
    let world = World::start().await;
    let (connection, incoming) = flow(&world.acme).await;
    let free = world.acme.flow("free", post("https://api.example.com/free", "{}")).await;
    world.served().await;
    world.destination.script_for("/token", [Answer::hang(), grants("t1")]);
    for id in 0..300 {
        assert_eq!(world.trigger(&incoming, &json!({ "id": id })).await.status, 200);
    }
    // More deliveries wait than there are places, and others go out before the fetch is given up.
    for id in 0..50 {
        assert_eq!(world.trigger(&free, &json!({ "id": id })).await.status, 200);
    }
    eventually("the others to go out", || async { (seen(&world, "/free").len() == 50).then_some(()) }).await;
    assert_eq!(seen(&world, "/orders").len(), 0);
    assert_eq!(Numbers::of(world.health()).await.get("sluice_token_fetches_total{result=\"timeout\"}"), 0.0);
    let state = told(&world, &connection.name, |state| state.last_error() == TokenError::Timeout).await;
    assert!(state.next_fetch_time.is_some() && state.obtain_time.is_none());
    // All come back by themselves.
    let deliveries = world.acme.deliveries(350).await;
    assert!(deliveries.iter().all(|delivery| delivery.state() == DeliveryState::Delivered));
    assert_eq!(seen(&world, "/token").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_redirects_is_not_followed() {
    let stage = Stage::start().await;
    let elsewhere = Answer::status(302).header("location", "https://api.example.com/elsewhere");
    stage.world.destination.script_for("/token", [elsewhere, grants("t1")]);
    stage.trigger(1).await;
    stage.all_wait(1.0).await;
    let state = told(&stage.world, &stage.connection.name, |_| true).await;
    assert_eq!((state.last_error(), state.last_error_status), (TokenError::Redirected, 302));
    stage.later(MINUTE, 2).await;
    eventually("both to be delivered", || async {
        stage.clock.advance(1_000);
        (stage.seen("/orders").len() == 2).then_some(())
    })
    .await;
    assert_eq!(stage.seen("/elsewhere").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn workspaces_with_the_same_client_never_share_a_token() {
    let world = World::start().await;
    let other = world.workspace("other").await;
    let (_, one) = flow(&world.acme).await;
    let (_, two) = flow(&other).await;
    world.served().await;
    world.destination.script_for("/token", [grants("t1"), grants("t2")]);
    assert_eq!(world.trigger(&one, &json!({"id": 1})).await.status, 200);
    world.acme.deliveries(1).await;
    for _ in 0..3 {
        assert_eq!(world.trigger(&two, &json!({"id": 2})).await.status, 200);
    }
    other.deliveries(3).await;
    assert_eq!(world.trigger(&one, &json!({"id": 1})).await.status, 200);
    world.acme.deliveries(2).await;
    let of = |id: Value| {
        let sent = seen(&world, "/orders");
        let sent: Vec<_> = sent.into_iter().filter(|seen| seen.json().unwrap()["id"] == id).collect();
        bearers(&sent).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of(json!(1)), ["Bearer t1", "Bearer t1"]);
    assert_eq!(of(json!(2)), ["Bearer t2", "Bearer t2", "Bearer t2"]);
    assert_eq!(seen(&world, "/token").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_a_token_can_be_read_and_never_the_token() {
    let mut stage = Stage::start().await;
    assert_eq!(states(&stage.world, &stage.connection.name).await, [], "nothing was fetched yet");
    stage.world.destination.script_for("/token", [Answer::status(401), grants("t0k3n")]);
    stage.trigger(1).await;
    stage.all_wait(1.0).await;
    let failed = told(&stage.world, &stage.connection.name, |_| true).await;
    let seconds = |time: Option<prost_types::Timestamp>| time.map(|time| time.seconds - START / 1000);
    assert_eq!((failed.data_plane.as_str(), failed.connected, failed.connection_version), ("dataPlanes/test", true, 1));
    assert_eq!((failed.last_error(), failed.last_error_status), (TokenError::Refused, 401));
    assert_eq!(seconds(failed.last_error_time), Some(0));
    assert!((5..=10).contains(&seconds(failed.next_fetch_time).unwrap()), "{failed:?}");
    assert_eq!((failed.obtain_time, failed.expire_time), (None, None));

    stage.later(MINUTE, 2).await;
    let holds = |state: &TokenState| state.obtain_time.is_some();
    let held = told(&stage.world, &stage.connection.name, holds).await;
    assert_eq!(held.last_error(), TokenError::Unspecified);
    assert_eq!((seconds(held.obtain_time), held.next_fetch_time), (Some(60), None));
    assert!((60 + 3000..=60 + 3600).contains(&seconds(held.expire_time).unwrap()), "{held:?}");
    assert!(!format!("{held:?}").contains("t0k3n"));

    // All of it is told again to a control plane that has forgotten it.
    stage.world.stop_control_plane().await;
    stage.world.start_control_plane().await;
    assert_eq!(told(&stage.world, &stage.connection.name, |_| true).await, held);
    // And to one that lost its data plane: what was said last.
    stage.world.stop_data_plane().await;
    let last = told(&stage.world, &stage.connection.name, |state| !state.connected).await;
    assert_eq!(TokenState { connected: true, ..last }, held);

    let missing =
        admin::ListTokenStatesRequest { parent: "workspaces/acme/connections/other".to_owned(), ..Default::default() };
    let refused = stage.world.client.connections().list_token_states(missing).await.unwrap_err();
    assert_eq!(reason(&refused), "RESOURCE_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_changed_connection_is_no_longer_told_of() {
    let stage = Stage::start().await;
    stage.world.destination.script_for("/token", [grants("t1")]);
    stage.trigger(1).await;
    told(&stage.world, &stage.connection.name, |state| state.obtain_time.is_some()).await;
    change_secret(&stage, "n3w").await;
    eventually("the old token to be forgotten", || async { stage.state().await.is_none().then_some(()) }).await;
}
