//! Every kind of connection from a trigger to the destination (R020 to R060, S24, F52, R12 to R17): what arrives to the byte,
//! and what happens when a credential is wrong, expired, slow, huge or malformed. Case by case in
//! `tests/golden/credentials/deliveries.jsonl`. How long tokens live is in `tokens.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use sluice::destination::{Answer, Manner, Seen};
use sluice_client::admin::failure::Reason;
use sluice_client::admin::{self, DeliveryState, OutgoingRequest, RetryPolicy, TokenError};
use sluice_data_plane::clock::Clock;
use sluice_tests::resources::{header, post};
use sluice_tests::{World, eventually, violations};

const START: i64 = 1_718_010_930_000;
const MINUTE: i64 = 60_000;
/// What can be wrong with a credential.
const TROUBLES: [&str; 5] = ["wrong", "expired", "slow", "huge", "malformed"];
/// Kinds that ask somebody for a token: nothing is slow of the others.
const FETCHED: [&str; 3] = ["oauth2_client_credentials", "synerise_api_key", "custom"];
/// What every call carries, and what is checked elsewhere.
const COMMON: [&str; 5] = ["content-length", "idempotency-key", "sluice-hops", "traceparent", "user-agent"];

fn cases() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/credentials/deliveries.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A text, or a list of parts: a text, or `[text, times]`.
fn text(json: &Value) -> String {
    let part = |part: &Value| match part {
        Value::Array(pair) => pair[0].as_str().unwrap().repeat(pair[1].as_u64().unwrap().try_into().unwrap()),
        part => part.as_str().unwrap().to_owned(),
    };
    match json {
        Value::Array(parts) => parts.iter().map(part).collect(),
        Value::Null => String::new(),
        json => json.as_str().unwrap().to_owned(),
    }
}

fn pairs(json: &Value) -> Vec<(String, String)> {
    json.as_array().into_iter().flatten().map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

fn count(json: &Value) -> usize {
    json.as_u64().unwrap_or(1).try_into().unwrap()
}

/// What answers an authorization request.
fn answer(json: &Value) -> Answer {
    let status = json["status"].as_u64().unwrap_or(200).try_into().unwrap();
    let manner = match json["manner"].as_str() {
        None => Manner::Whole,
        Some("cut") => Manner::Cut,
        Some("close") => Manner::Close,
        Some("endless") => Manner::Endless,
        Some("hang") => Manner::Hang,
        Some("trickle") => Manner::Slow(Duration::from_secs(3)),
        Some(other) => panic!("{other} is no manner"),
    };
    let headers = pairs(&json["headers"]);
    let answer = Answer::status(status).body(text(&json["body"])).manner(manner);
    headers.iter().fold(answer, |answer, (name, value)| answer.header(name, value))
}

fn request(json: &Value) -> OutgoingRequest {
    let method = json["method"].as_str().unwrap_or("POST");
    OutgoingRequest {
        method: admin::HttpMethod::from_str_name(method).unwrap().into(),
        headers: pairs(&json["headers"]).iter().map(|(name, value)| header(name, value)).collect(),
        body: json["body"].as_str().map(str::to_owned),
        ..post(json["url"].as_str().unwrap(), "")
    }
}

/// One case on its way: a workspace's flow of its own, and what has been seen before it.
struct Run<'a> {
    world: &'a World,
    clock: &'a Clock,
    case: &'a Value,
    what: String,
    connection: String,
    incoming: admin::IncomingIntegration,
    seen_before: usize,
    ended_before: usize,
}

impl<'a> Run<'a> {
    async fn start(world: &'a World, clock: &'a Clock, number: usize, case: &'a Value) -> Self {
        let what = format!("{} {}", case["row"], case["case"]);
        let connection = connect(world, &format!("connection-{number}"), &case["connection"]).await.unwrap();
        let signature = connect(world, &format!("signature-{number}"), &case["signature"]).await.unwrap();
        let request = OutgoingRequest { connection: connection.clone(), signature, ..request(&case["request"]) };
        let incoming = world.acme.flow(&format!("flow-{number}"), request).await;
        world.served().await;
        if let Some(path) = case["path"].as_str() {
            world.destination.script_for(path, case["answers"].as_array().unwrap().iter().map(answer));
        }
        let statuses = case["main"].as_array().into_iter().flatten();
        let statuses = statuses.map(|status| Answer::status(status.as_u64().unwrap().try_into().unwrap()));
        if case["main"].is_array() {
            let url = case["request"]["url"].as_str().unwrap();
            let path = url.strip_prefix("https://api.example.com").unwrap().split('?').next().unwrap();
            world.destination.script_for(path, statuses);
        }
        let seen_before = world.destination.requests().len();
        let ended_before = world.acme.deliveries(0).await.len();
        Self { world, clock, case, what, connection, incoming, seen_before, ended_before }
    }

    async fn trigger(&self) {
        let default = json!({"id": "1", "evil": "Basic ZXZpbDpldmls"});
        let body = if self.case["trigger"].is_object() { &self.case["trigger"] } else { &default };
        assert_eq!(self.world.trigger(&self.incoming, body).await.status, 200, "{}", self.what);
    }

    /// The requests of this case: to get a token, and all others.
    fn seen(&self) -> (Vec<Seen>, Vec<Seen>) {
        let seen = self.world.destination.requests().split_off(self.seen_before);
        let path = self.case["path"].as_str();
        seen.into_iter().partition(|seen| path == seen.target.split('?').next())
    }

    async fn goes_out(&self) {
        let triggers = count(&self.case["triggers"]);
        for already in 0..triggers {
            self.trigger().await;
            // One after the other, so that the order is known.
            self.world.acme.deliveries(self.ended_before + already + 1).await;
        }
        let (fetched, sent) = self.seen();
        self.check("fetched", &fetched);
        self.check("sent", &sent);
        let ended = self.world.acme.deliveries(self.ended_before + triggers).await.split_off(self.ended_before);
        assert_eq!(ended.len(), triggers, "{}", self.what);
        for (number, delivery) in ended.iter().enumerate() {
            let ends = self.case["ends"].as_array().map_or(&self.case["ends"], |each| &each[number]);
            let reason = ends.as_str().map(|name| Reason::from_str_name(name).unwrap());
            let state = if reason.is_some() { DeliveryState::Dead } else { DeliveryState::Delivered };
            let expected = (state, reason.unwrap_or(Reason::Unspecified));
            assert_eq!((delivery.state(), delivery.reason()), expected, "{}: {}", self.what, delivery.message);
            // What was sent is shown as one attempt, a repetition with another token as well.
            let sent = !self.case["sent"].as_array().is_none_or(Vec::is_empty);
            let attempts = if self.case["attempts"].is_null() { sent.into() } else { count(&self.case["attempts"]) };
            assert_eq!(delivery.attempts.len(), attempts, "{}: {delivery:?}", self.what);
            let status = delivery.attempts.last().map_or(0, |last| last.status);
            let refused = delivery.reason() == Reason::Status;
            assert!((400..500).contains(&status) == refused, "{}: {delivery:?}", self.what);
        }
    }

    fn check(&self, list: &str, seen: &[Seen]) {
        let expected: Vec<&Value> = self.case[list].as_array().into_iter().flatten().collect();
        assert_eq!(seen.len(), expected.len(), "{}: {list}: {seen:#?}", self.what);
        for (seen, expected) in seen.iter().zip(expected) {
            self.check_one(seen, expected);
        }
    }

    fn check_one(&self, seen: &Seen, expected: &Value) {
        let what = &self.what;
        assert_eq!(Some(seen.method.as_str()), expected["method"].as_str(), "{what}");
        assert_eq!(Some(seen.target.as_str()), expected["target"].as_str(), "{what}");
        assert_eq!(String::from_utf8_lossy(&seen.body), text(&expected["body"]), "{what}");
        let known = self.known(seen);
        let put = |value: String| known.iter().fold(value, |value, (name, known)| value.replace(name, known));
        let mut wanted = pairs(&expected["headers"]);
        wanted.iter_mut().for_each(|(_, value)| *value = put(std::mem::take(value)));
        let mut headers = seen.headers.clone();
        headers.retain(|(name, _)| !COMMON.contains(&name.as_str()));
        // The order of different headers means nothing (RFC 9110, 5.3).
        wanted.sort();
        headers.sort();
        assert_eq!(headers, wanted, "{what}");
    }

    /// What stands for the delivery's id, the time, and the signatures, which are made here a second time.
    fn known(&self, seen: &Seen) -> BTreeMap<&'static str, String> {
        let id = seen.header("idempotency-key").unwrap_or_default().to_owned();
        let timestamp = (self.clock.now() / 1000).to_string();
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        let signed = self.case["signed"].as_array().into_iter().flatten().map(|entry| {
            let text = entry["text"].as_str().unwrap();
            let text = text.replace("{id}", &id).replace("{timestamp}", &timestamp).replace("{body}", &body);
            let key = hex::decode(entry["key"].as_str().unwrap()).unwrap();
            let mac = match entry["hash"].as_str().unwrap() {
                "sha256" => mac::<Hmac<sha2::Sha256>>(&key, &text),
                "sha512" => mac::<Hmac<sha2::Sha512>>(&key, &text),
                other => panic!("{other} is no hash"),
            };
            let written = match entry["encoding"].as_str().unwrap() {
                "hex" => hex::encode(mac),
                "base64" => STANDARD.encode(mac),
                other => panic!("{other} is no encoding"),
            };
            format!("{}{written}", entry["prefix"].as_str().unwrap())
        });
        let signatures = signed.collect::<Vec<_>>().join(self.case["separator"].as_str().unwrap_or(","));
        BTreeMap::from([("{id}", id), ("{timestamp}", timestamp), ("{signatures}", signatures)])
    }

    /// The state of the token is told, as the case says, and nothing of the secret with it.
    async fn told(&self) {
        let told = TokenError::from_str_name(self.case["told"].as_str().unwrap()).unwrap();
        let state = eventually(&self.what, || async {
            let request = admin::ListTokenStatesRequest { parent: self.connection.clone(), ..Default::default() };
            let states = self.world.client.connections().list_token_states(request).await.unwrap().into_inner();
            states.token_states.into_iter().next().filter(|state| state.last_error() != TokenError::Unspecified)
        })
        .await;
        assert_eq!(state.last_error(), told, "{}: {}", self.what, state.last_error_message);
        assert!(!state.last_error_message.contains("k-1"), "{}: {}", self.what, state.last_error_message);
    }

    /// Nothing is sent without its credentials; when they come, all of it is.
    async fn waits(&self) {
        let waiting = self.jobs("delayed").await;
        self.trigger().await;
        self.told().await;
        assert!(self.seen().1.is_empty(), "{}: it was sent without its credentials", self.what);
        if self.case["heals"].is_null() {
            return;
        }
        eventually("the delivery to wait", || async {
            (self.jobs("delayed").await == waiting + 1.0 && self.jobs("leased").await == 0.0).then_some(())
        })
        .await;
        // Time passes in steps that no token outlives, each until nothing moves any more; a further delivery wakes who waits.
        for _ in 0..12 {
            self.clock.advance(MINUTE / 6);
            self.trigger().await;
            self.rests().await;
            if !self.seen().1.is_empty() {
                break;
            }
        }
        let (fetched, sent) = self.seen();
        assert!(!sent.is_empty(), "{}: {}", self.what, sluice_tests::Numbers::of(self.world.health()).await.text());
        self.check_one(&sent[0], &self.case["heals"]);
        assert_eq!(fetched.len(), 2, "{}: one failed fetch, one good one", self.what);
        for _ in 0..30 {
            if self.jobs("delayed").await == waiting {
                return;
            }
            self.clock.advance(1_000);
            self.trigger().await;
            self.rests().await;
        }
        panic!("{}: the first delivery was lost", self.what);
    }

    async fn rests(&self) {
        eventually("all to rest", || async {
            (self.jobs("ready").await == 0.0 && self.jobs("leased").await == 0.0).then_some(())
        })
        .await;
    }

    async fn jobs(&self, state: &str) -> f64 {
        let numbers = sluice_tests::Numbers::of(self.world.health()).await;
        numbers.get(&format!("sluice_inbox_jobs{{lane=\"realtime\",state=\"{state}\"}}"))
    }
}

/// A connection in the contract's JSON form, in which `<a*9>` is nine times `a`; its name, empty when there is none.
async fn connect(world: &World, id: &str, json: &Value) -> Result<String, tonic::Status> {
    if json.is_null() {
        return Ok(String::new());
    }
    let wire = from_json(json.clone());
    let request = admin::CreateConnectionRequest {
        parent: world.acme.name.clone(),
        connection_id: id.to_owned(),
        connection: Some(admin::Connection { display_name: id.to_owned(), ..wire }),
        ..Default::default()
    };
    Ok(world.client.connections().create_connection(request).await?.into_inner().name)
}

fn from_json(json: Value) -> admin::Connection {
    let pool = DescriptorPool::decode(sluice_proto::DESCRIPTORS).unwrap();
    let message = pool.get_message_by_name("sluice.admin.v1.Connection").unwrap();
    DynamicMessage::deserialize(message, long(json)).unwrap().transcode_to().unwrap()
}

/// Writes `<a*9>` out.
fn long(json: Value) -> Value {
    match json {
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, long(value))).collect(),
        Value::Array(items) => items.into_iter().map(long).collect(),
        Value::String(text) => match text.strip_prefix("<a*").and_then(|rest| rest.strip_suffix('>')) {
            Some(times) => "a".repeat(times.parse().unwrap()).into(),
            None => text.into(),
        },
        other => other,
    }
}

/// A connection that is not saved: all that is wrong with it, and nothing of what it holds.
async fn is_refused(world: &World, number: usize, case: &Value) {
    let what = format!("{} {}", case["row"], case["case"]);
    let json = if case["connection"].is_null() { &case["signature"] } else { &case["connection"] };
    let status = connect(world, &format!("refused-{number}"), json).await.expect_err(&what);
    let broken = violations(&status);
    assert!(broken.iter().all(|(.., description)| !description.contains("s3cr3t")), "{what}: {broken:?}");
    let told: Vec<String> = broken.iter().map(|(field, reason, _)| format!("{field}: {reason}")).collect();
    let wanted: Vec<&str> = case["refused"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(told, wanted, "{what}");
}

/// The kind of connection a case is about.
fn kind(case: &Value) -> Option<&str> {
    let of = |field: &str| Some(case[field].as_object()?.keys().next()?.as_str());
    of("connection").or_else(|| of("signature"))
}

fn mac<M: Mac + KeyInit>(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_connection_arrives_as_it_should_or_not_at_all() {
    let clock = Clock::manual(START);
    let world = World::with(|options| options.data_plane.clock = clock.clone()).await;
    for (number, case) in cases().iter().enumerate().filter(|(_, case)| case["trouble"] != "slow") {
        if case["refused"].is_array() {
            is_refused(&world, number, case).await;
            continue;
        }
        let run = Run::start(&world, &clock, number, case).await;
        if case["told"].is_string() {
            run.waits().await;
        } else {
            run.goes_out().await;
        }
        assert_eq!(world.destination.unused(), 0, "{}: an answer that nobody took", run.what);
    }
}

/// A fetch that is given up takes its time by the wall clock, so all of them are under way together.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_token_endpoint_is_given_up_and_asked_again_whatever_the_kind() {
    let clock = Clock::manual(START);
    let world = World::with(|options| options.data_plane.clock = clock.clone()).await;
    let cases = cases();
    let mut runs = Vec::new();
    for (number, case) in cases.iter().enumerate().filter(|(_, case)| case["trouble"] == "slow") {
        runs.push(Run::start(&world, &clock, number, case).await);
    }
    for run in &runs {
        run.trigger().await;
    }
    for run in &runs {
        run.told().await;
    }
    let seen = |target: &Value| {
        let mut seen = world.destination.requests();
        seen.retain(|seen| Some(seen.target.as_str()) == target.as_str());
        seen
    };
    let triggered = std::cell::Cell::new(1);
    for run in &runs {
        assert!(seen(&run.case["heals"]["target"]).is_empty(), "{}: it was sent without its credentials", run.what);
    }
    eventually("everything to be delivered", || async {
        clock.advance(MINUTE / 6);
        for run in &runs {
            run.trigger().await;
            run.rests().await;
        }
        triggered.set(triggered.get() + 1);
        runs.iter().all(|run| seen(&run.case["heals"]["target"]).len() == triggered.get()).then_some(())
    })
    .await;
    for run in &runs {
        run.check_one(&seen(&run.case["heals"]["target"])[0], &run.case["heals"]);
        assert_eq!(seen(&run.case["path"]).len(), 2, "{}: one failed fetch, one good one", run.what);
    }
    for delivery in world.acme.deliveries(runs.len() * triggered.get()).await {
        assert_eq!((delivery.state(), delivery.attempts.len()), (DeliveryState::Delivered, 1), "no attempt was used");
    }
    assert_eq!(world.destination.unused(), 0);
}

#[test]
fn every_kind_has_a_case_of_every_trouble() {
    let pool = DescriptorPool::decode(sluice_proto::DESCRIPTORS).unwrap();
    let connection = pool.get_message_by_name("sluice.admin.v1.Connection").unwrap();
    let scheme = connection.oneofs().find(|oneof| oneof.name() == "scheme").unwrap();
    let cases = cases();
    for field in scheme.fields().filter(|field| field.name() != "none") {
        for trouble in TROUBLES.iter().filter(|trouble| **trouble != "slow" || FETCHED.contains(&field.name())) {
            let covers = |case: &&Value| kind(case) == Some(field.name()) && case["trouble"].as_str() == Some(trouble);
            assert!(cases.iter().any(|case| covers(&case)), "{} has no case of {trouble}", field.name());
        }
    }
    let known = |case: &&Value| case["trouble"].as_str().is_none_or(|trouble| TROUBLES.contains(&trouble));
    assert!(cases.iter().all(|case| known(&case)), "a trouble of another name");
}

/// P7: the TTL counts from the answer; nothing is asked for ahead of its end (R042 to R044).
#[tokio::test(flavor = "multi_thread")]
async fn a_custom_connection_asks_once_in_its_ttl() {
    let clock = Clock::manual(START);
    let world = World::with(|options| options.data_plane.clock = clock.clone()).await;
    let case = json!({
        "row": "P7", "case": "TTL", "path": "/login",
        "connection": {"custom": {
            "secret": "k-1",
            "auth_request": {"url": "https://api.example.com/login", "body": "{ \"api-key\": \"{{secret}}\" }"},
            "headers": [{"name": "Authorization", "value": "Bearer {{ authResponseBody|fromjson|attr(\"token\") }}"}],
        }},
        "answers": [{"body": "{\"token\":\"T1\"}"}, {"body": "{\"token\":\"T2\"}"}],
        "request": {"url": "https://api.example.com/orders", "body": "{}"},
    });
    let run = Run::start(&world, &clock, 0, &case).await;
    let bearer = async |ended: usize| {
        run.trigger().await;
        world.acme.deliveries(ended).await;
        let (fetched, sent) = run.seen();
        (fetched.len(), sent.last().unwrap().header("authorization").unwrap_or_default().to_owned())
    };
    for ended in 1..=5 {
        assert_eq!(bearer(ended).await, (1, "Bearer T1".to_owned()));
        clock.advance(if ended == 5 { 1 } else { 14_999 });
    }
    // 59,997 ms have passed.
    clock.advance(2);
    assert_eq!(bearer(6).await, (1, "Bearer T1".to_owned()));
    clock.advance(1);
    assert_eq!(bearer(7).await, (2, "Bearer T2".to_owned()), "60 s have passed");
}

/// O08: the author's headers, those of both connections, and Sluice's own. What is saved can be sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_the_most_headers_is_sent_and_one_with_more_is_not_saved() {
    let world = World::start().await;
    let placed = |count: usize| {
        let headers: Vec<Value> =
            (0..count).map(|n| json!({"name": format!("x-key-{n}"), "value": "{{secret}}"})).collect();
        json!({"api_key": {"secret": "s3cr3t", "headers": headers}})
    };
    let key = connect(&world, "key", &placed(10)).await.unwrap();
    let secrets = json!([{"id": "a", "key": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}]);
    let signs = connect(&world, "signs", &json!({"standard_webhooks": {"secrets": secrets}})).await.unwrap();
    // With `Content-Type`, `Idempotency-Key` and the trace's two that makes 64. The connection's take the place of the author's.
    let request = |own: usize| OutgoingRequest {
        connection: key.clone(),
        signature: signs.clone(),
        headers: (0..own).map(|n| header(&format!("x-own-{n}"), "1")).chain([header("X-KEY-9", "mine")]).collect(),
        ..post("https://api.example.com/orders", "{}")
    };
    let draft = async |own: usize| {
        let outgoing = admin::OutgoingIntegration {
            display_name: "most".to_owned(),
            request: Some(request(own)),
            ..Default::default()
        };
        let request = admin::CreateOutgoingIntegrationRequest {
            parent: world.acme.name.clone(),
            outgoing_integration: Some(outgoing),
            validate_only: true,
            ..Default::default()
        };
        world.client.outgoing_integrations().create_outgoing_integration(request).await
    };
    draft(47).await.unwrap();
    let broken = violations(&draft(48).await.unwrap_err());
    let [(field, reason, description)] = broken.as_slice() else { panic!("{broken:?}") };
    assert_eq!((field.as_str(), reason.as_str()), ("request.headers", "HEADERS_TOO_MANY"));
    for part in ["65 headers", "49 of its own", "4 of Sluice", "10 of", "3 of", "limit is 64", "remove 1"] {
        assert!(description.contains(part), "{part}: {description}");
    }

    let incoming = world.acme.flow("most", request(47)).await;
    world.served().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trigger = sluice_tests::Request::post(&incoming.endpoint_path, "{}");
    let trigger = trigger.header("traceparent", parent).header("tracestate", "a=b");
    assert_eq!(world.send(&trigger).await.status, 200);
    let delivery = &world.acme.deliveries(1).await[0];
    assert_eq!(delivery.state(), DeliveryState::Delivered, "{delivery:?}");
    let seen = world.destination.requests().remove(0);
    let added_on_the_way = ["content-length", "sluice-hops", "user-agent"];
    let sent = seen.headers.iter().filter(|(name, _)| !added_on_the_way.contains(&name.as_str())).count();
    assert_eq!(sent, 64, "{:?}", seen.headers);

    // A connection does not change so that a request in force could not be sent any more.
    let mut moved = placed(10);
    moved["api_key"]["headers"][9]["name"] = json!("x-another");
    let connection = admin::Connection { name: key, display_name: "key".to_owned(), ..from_json(moved) };
    let request = admin::UpdateConnectionRequest { connection: Some(connection), ..Default::default() };
    let broken = violations(&world.client.connections().update_connection(request).await.unwrap_err());
    let told: Vec<_> = broken.iter().map(|(field, reason, _)| (field.as_str(), reason.as_str())).collect();
    assert_eq!(told, [("scheme", "HEADERS_TOO_MANY")], "{broken:?}");
}

/// The bytes of a delivery are kept (D08), its connection's hosts are not: they are those in force when it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_delivery_goes_to_no_host_that_is_not_allowed_any_more() {
    let clock = Clock::manual(START);
    let world = World::with(|options| options.data_plane.clock = clock.clone()).await;
    let key = json!({"api_key": {"secret": "s3cr3t", "headers": [{"name": "x-api-key", "value": "{{secret}}"}]}});
    let connection = connect(&world, "key", &key).await.unwrap();
    let wait = Duration::from_secs(60).try_into().ok();
    let retry = Some(RetryPolicy { first_wait: wait, longest_wait: wait, ..Default::default() });
    let send = |url: &str| OutgoingRequest { connection: connection.clone(), retry: retry.clone(), ..post(url, "{}") };
    let outgoing = world.acme.outgoing("send", send("https://api.example.com/orders")).await;
    let incoming = world.acme.incoming("orders", sluice_tests::resources::open()).await;
    let step = sluice_tests::resources::existing("Send", &outgoing);
    world.acme.workflow("flow", sluice_tests::resources::workflow(&incoming, [step])).await;
    world.served().await;
    world.destination.script_for("/orders", [Answer::status(503)]);
    assert_eq!(world.trigger(&incoming, &json!({})).await.status, 200);
    world.destination.wait_for(1).await.unwrap();
    eventually("the delivery to wait", || async {
        let numbers = sluice_tests::Numbers::of(world.health()).await;
        (numbers.get("sluice_inbox_jobs{lane=\"realtime\",state=\"delayed\"}") == 1.0).then_some(())
    })
    .await;

    // The integration moves to another host, and then the connection is bound to that.
    let moved = admin::OutgoingIntegration { request: Some(send("https://desk.example/orders")), ..outgoing };
    world.acme.update_outgoing(moved.clone()).await;
    world.acme.publish_outgoing(&moved.name).await.unwrap();
    let bound =
        admin::Connection { name: connection, allowed_hosts: vec!["desk.example".to_owned()], ..Default::default() };
    let request = admin::UpdateConnectionRequest {
        connection: Some(bound),
        update_mask: Some(prost_types::FieldMask { paths: vec!["allowed_hosts".to_owned()] }),
        ..Default::default()
    };
    world.client.connections().update_connection(request).await.unwrap();
    world.served().await;
    clock.advance(2 * MINUTE);
    assert_eq!(world.trigger(&incoming, &json!({})).await.status, 200);
    let ended = world.acme.deliveries(2).await;
    let dead = ended.iter().find(|delivery| delivery.state() == DeliveryState::Dead).unwrap();
    assert_eq!((dead.reason(), dead.attempts.len()), (Reason::HostNotAllowed, 1), "the first attempt only");
    let hosts: Vec<_> = world.destination.requests().iter().map(|seen| seen.host.clone()).collect();
    assert!(hosts[0].starts_with("api.example.com") && hosts[1].starts_with("desk.example"), "{hosts:?}");
    assert_eq!(hosts.len(), 2);
}
