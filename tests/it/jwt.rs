//! Senders that show a JSON Web Token (R150 to R153, D14): what only whole requests can show. The tokens themselves are in
//! `golden/jwt`.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};
use sluice_client::admin;
use sluice_client::admin::incoming_integration::Authorization;
use sluice_client::admin::jwt_authorization::Source;
use sluice_client::admin::jwt_issuer::Keys;
use sluice_data_plane::clock::Clock;
use sluice_tests::resources::open;
use sluice_tests::{Request, World};

const START: i64 = 1_718_010_930_000;

/// The golden key of this name: its pair and its public PEM.
fn key(name: &str) -> (Ed25519KeyPair, String) {
    let path = format!("{}/golden/jwt/keys.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let keys = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let key = keys.into_iter().find(|key| key["key"] == name).unwrap();
    let private = STANDARD.decode(key["private"].as_str().unwrap()).unwrap();
    let pair = Ed25519KeyPair::from_seed_unchecked(&private[private.len() - 32..]).unwrap();
    (pair, key["public"].as_str().unwrap().to_owned())
}

/// A token of the golden key `ed`.
fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "EdDSA", "typ": "JWT" })), part(claims));
    let signature = key("ed").0.sign(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An endpoint for the tokens that `issuer` makes for `audience`.
fn issued(audience: &str) -> admin::IncomingIntegration {
    let issuer = admin::JwtIssuer {
        issuer: "https://issuer.example".to_owned(),
        audience: audience.to_owned(),
        keys: Some(Keys::Pem(key("ed").1)),
        ..Default::default()
    };
    jwt(Source::Issuer(issuer))
}

fn jwt(source: Source) -> admin::IncomingIntegration {
    let jwt = admin::JwtAuthorization { source: Some(source) };
    admin::IncomingIntegration { authorization: Some(Authorization::Jwt(jwt)), ..open() }
}

fn claims(audience: &str, expires: i64) -> Value {
    json!({ "iss": "https://issuer.example", "aud": audience, "exp": expires })
}

async fn still() -> (World, Clock) {
    let clock = Clock::manual(START);
    let world = World::with(|options| options.data_plane.clock = clock.clone()).await;
    (world, clock)
}

#[tokio::test]
async fn a_token_of_the_issuer_opens_its_endpoint_and_no_other_r150_j32() {
    let (world, clock) = still().await;
    let shop = world.acme.incoming("shop", issued("shop")).await.endpoint_path;
    let desk = world.acme.incoming("desk", issued("desk")).await.endpoint_path;
    world.served().await;
    let now = START / 1000;
    let of_shop = format!("Bearer {}", token(&claims("shop", now + 60)));
    let send =
        async |path: &str, value: &str| world.send(&Request::post(path, "{}").header("Authorization", value)).await;
    assert_eq!(send(&shop, &of_shop).await.status, 200);
    assert_eq!(send(&shop, &of_shop).await.status, 200, "J39: a token may be shown again");
    let refused = send(&desk, &of_shop).await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "UNAUTHORIZED"));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    assert_eq!(refused.json()["error"]["message"], "the request could not be authenticated");
    // What was verified is forgotten when it ends.
    clock.advance(89_999);
    assert_eq!(send(&shop, &of_shop).await.status, 200);
    clock.advance(1);
    assert_eq!(send(&shop, &of_shop).await.status, 401);
}

#[tokio::test]
async fn exactly_one_header_says_bearer_and_the_token_j31_j33() {
    let (world, _clock) = still().await;
    let path = world.acme.incoming("shop", issued("shop")).await.endpoint_path;
    world.served().await;
    let token = token(&claims("shop", START / 1000 + 60));
    let sent = async |request: Request| {
        let answer = world.send(&request).await;
        (answer.status, answer.code())
    };
    let post = || Request::post(&path, "{}");
    let with = |value: &str| post().header("Authorization", value);
    let unauthorized = (401, "UNAUTHORIZED".to_owned());
    assert_eq!(sent(with(&format!("bearer {token}"))).await.0, 200);
    assert_eq!(sent(post()).await, unauthorized);
    assert_eq!(sent(with(&format!("Bearer {token}")).header("Authorization", "Bearer x")).await, unauthorized);
    assert_eq!(sent(with(&format!("Bearer {token}, Bearer {token}"))).await, unauthorized);
    assert_eq!(sent(with(&format!("bearer\t{token}"))).await, unauthorized);
    assert_eq!(sent(with(&format!("Bearer  {token}"))).await, unauthorized);
    assert_eq!(sent(with(&format!("Basic {token}"))).await, unauthorized);
    assert_eq!(sent(Request::post(&format!("{path}?access_token={token}"), "{}")).await, unauthorized);
    assert_eq!(sent(with(&format!("Bearer {}", "a".repeat(9 * 1024)))).await, unauthorized);
    assert_eq!(sent(with(&format!("Bearer {}", "a".repeat(1 << 16)))).await.0, 431);
}

#[tokio::test]
async fn who_has_no_token_learns_nothing_of_the_body_h26() {
    let (world, _clock) = still().await;
    let path = world.acme.incoming("shop", issued("shop")).await.endpoint_path;
    world.served().await;
    assert_eq!(world.send(&Request::post(&path, "not json")).await.status, 401);
    assert_eq!(world.send(&Request::post(&path, "{}").with("Content-Type", "text/plain")).await.status, 401);
    assert_eq!(world.send(&Request::new("GET", &path)).await.status, 405);
    // The answer comes before the body is asked for.
    let mut connection = world.connect().await;
    let head = Request::post(&path, "").without("Content-Length").header("Content-Length", "1000");
    connection.send(&head.header("Expect", "100-continue").head()).await;
    assert_eq!(connection.answer().await.status, 401);
}

#[tokio::test]
async fn a_choice_that_cannot_work_is_refused_when_it_is_saved_j07_to_j10() {
    let world = World::start().await;
    let refused = async |incoming: admin::IncomingIntegration| {
        let request = admin::CreateIncomingIntegrationRequest {
            parent: world.acme.name.clone(),
            incoming_integration_id: "shop".to_owned(),
            incoming_integration: Some(incoming),
            ..Default::default()
        };
        world
            .client
            .incoming_integrations()
            .create_incoming_integration(request)
            .await
            .unwrap_err()
            .message()
            .to_owned()
    };
    let with_keys = |keys: Keys| {
        let mut incoming = issued("shop");
        if let Some(Authorization::Jwt(admin::JwtAuthorization { source: Some(Source::Issuer(issuer)) })) =
            &mut incoming.authorization
        {
            issuer.keys = Some(keys);
        }
        incoming
    };
    let secret = refused(with_keys(Keys::Pem("changeme".to_owned()))).await;
    assert_eq!(secret, "jwt.issuer.pem: must be PEM blocks `PUBLIC KEY` and nothing else");
    let symmetric = refused(with_keys(Keys::Jwks(r#"{"keys":[{"kty":"oct","k":"AA"}]}"#.to_owned()))).await;
    assert!(symmetric.starts_with("jwt.issuer.jwks: key 1: is symmetric"), "{symmetric}");
    let nobody = refused(admin::IncomingIntegration { authorization: None, ..open() }).await;
    assert!(nobody.starts_with("authorization: one of none, meta, jwt is required"), "{nobody}");
    let no_source = admin::JwtAuthorization::default();
    let no_source = admin::IncomingIntegration { authorization: Some(Authorization::Jwt(no_source)), ..open() };
    assert_eq!(refused(no_source).await, "jwt.source: one of api_key, issuer is required");
}

const LOGIN: &str = "/uauth/v2/auth/login/profile";

/// A key of the workspace that may trigger, as its whole text and as it is stored.
async fn api_key(world: &World, change: impl FnOnce(&mut admin::AccessKey)) -> admin::AccessKey {
    let mut key = admin::AccessKey {
        display_name: "Shop".to_owned(),
        roles: vec![format!("{}/roles/webhook-sender", world.acme.name)],
        ..Default::default()
    };
    change(&mut key);
    let request =
        admin::CreateApiKeyRequest { parent: world.acme.name.clone(), api_key: Some(key), ..Default::default() };
    world.client.api_keys().create_api_key(request).await.unwrap().into_inner()
}

async fn login(world: &World, key: &str) -> sluice_tests::Answer {
    world.send(&Request::post(LOGIN, json!({ "apiKey": key }).to_string())).await
}

async fn bearer(world: &World, key: &str) -> String {
    let answer = login(world, key).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    format!("Bearer {}", answer.json()["token"].as_str().unwrap())
}

async fn status(world: &World, path: &str, bearer: &str) -> u16 {
    world.send(&Request::post(path, "{}").header("Authorization", bearer)).await.status
}

#[tokio::test]
async fn an_api_key_gets_a_token_that_opens_the_endpoint_that_names_it_r150_to_r153() {
    let (world, clock) = still().await;
    let key = api_key(&world, |_| {}).await;
    let other = api_key(&world, |_| {}).await;
    let path = world.acme.incoming("shop", jwt(Source::ApiKey(key.name.clone()))).await.endpoint_path;
    world.served().await;
    let token = bearer(&world, &key.key).await;
    let claims: Value = {
        let part = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!((claims["iss"].as_str(), claims["aud"].as_str()), (Some("sluice"), Some("workspaces/acme")));
    assert_eq!(key.name, format!("workspaces/acme/apiKeys/{}", claims["sub"].as_str().unwrap()));
    assert_eq!(claims["permissions"], json!(["INCOMING_WEBHOOK_EXECUTE"]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert_eq!(status(&world, &path, &token).await, 200);

    // J37: a good token of another key.
    let refused =
        world.send(&Request::post(&path, "{}").header("Authorization", bearer(&world, &other.key).await)).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "FORBIDDEN"));
    // An hour and the leeway.
    clock.advance(3_629_999 - START % 1000);
    assert_eq!(status(&world, &path, &token).await, 200);
    clock.advance(1_001);
    assert_eq!(status(&world, &path, &token).await, 401);
    assert_eq!(status(&world, &path, &bearer(&world, &key.key).await).await, 200);

    // Revoked: refused with the next revision, whatever is remembered.
    let token = bearer(&world, &key.key).await;
    assert_eq!(status(&world, &path, &token).await, 200);
    let request = admin::DeleteApiKeyRequest { name: key.name.clone(), ..Default::default() };
    world.client.api_keys().delete_api_key(request).await.unwrap();
    world.served().await;
    assert_eq!(status(&world, &path, &token).await, 401);
    assert_eq!(login(&world, &key.key).await.status, 401);
}

#[tokio::test]
async fn an_endpoint_names_a_key_of_its_workspace_that_may_trigger_r152_r153_j32() {
    let world = World::start().await;
    let weak = api_key(&world, |key| key.roles = vec![format!("{}/roles/viewer", world.acme.name)]).await;
    let there = world.workspace("there").await;
    let good = api_key(&world, |_| {}).await;
    let create = async |parent: &str, key: &str| {
        let request = admin::CreateIncomingIntegrationRequest {
            parent: parent.to_owned(),
            incoming_integration_id: "shop".to_owned(),
            incoming_integration: Some(jwt(Source::ApiKey(key.to_owned()))),
            ..Default::default()
        };
        world.client.incoming_integrations().create_incoming_integration(request).await
    };
    for (parent, key) in [
        (&world.acme.name, weak.name.as_str()),
        (&world.acme.name, "workspaces/acme/apiKeys/00000000"),
        (&there.name, good.name.as_str()),
    ] {
        let refused = create(parent, key).await.unwrap_err();
        assert!(refused.message().contains("with the permission `INCOMING_WEBHOOK_EXECUTE`"), "{}", refused.message());
    }
    let draft = create(&world.acme.name, &good.name).await.unwrap().into_inner();
    // Without the permission it may not log in; the endpoint cannot be published by its name.
    let demoted = admin::AccessKey {
        name: good.name.clone(),
        display_name: "Shop".to_owned(),
        roles: vec![format!("{}/roles/viewer", world.acme.name)],
        ..Default::default()
    };
    let request = admin::UpdateApiKeyRequest { api_key: Some(demoted), ..Default::default() };
    world.client.api_keys().update_api_key(request).await.unwrap();
    world.served().await;
    assert_eq!(login(&world, &good.key).await.status, 401);
    let refused = world.acme.publish_incoming(&draft.name).await.unwrap_err();
    assert!(refused.message().contains("with the permission"), "{}", refused.message());
}

#[tokio::test]
async fn a_login_answers_by_the_table_d12_d14() {
    let (world, clock) = still().await;
    let key = api_key(&world, |_| {}).await;
    let away = api_key(&world, |key| key.allowed_networks = vec!["203.0.113.0/24".to_owned()]).await;
    let near = api_key(&world, |key| key.allowed_networks = vec!["127.0.0.0/8".to_owned()]).await;
    world.served().await;
    let of = async |request: Request| {
        let answer = world.send(&request).await;
        (answer.status, answer.code())
    };
    let post = |body: &str| Request::post(LOGIN, body);
    assert_eq!(of(Request::new("GET", LOGIN)).await, (405, "METHOD_NOT_ALLOWED".to_owned()));
    assert_eq!(of(post("{}").with("Content-Type", "text/plain")).await.0, 415);
    for unreadable in ["", "not json", "[]", "{}", r#"{"apiKey":1}"#, r#"{"apiKey":"a","apiKey":"b"}"#] {
        assert_eq!(of(post(unreadable)).await, (400, "LOGIN_INVALID".to_owned()), "{unreadable}");
    }
    let padded = |length: usize| {
        let body = json!({ "apiKey": key.key, "": "" }).to_string();
        body.replace(r#""":"""#, &format!(r#""":"{}""#, "x".repeat(length - body.len())))
    };
    assert_eq!(of(post(&padded(4096))).await.0, 200);
    assert_eq!(of(post(&padded(4097))).await, (413, "BODY_TOO_LARGE".to_owned()));
    assert_eq!(login(&world, &near.key).await.status, 200);
    let refused = login(&world, &away.key).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "NETWORK_NOT_ALLOWED"));
    let mut forged = key.key.replace(&key.name[key.name.len() - 8..], "00000000");
    let said = "the API key was not accepted";
    for wrong in ["", "x", &key.key[..30], &forged.clone(), &key.key[..56].replace("slc_", "slc_00")] {
        let answer = login(&world, wrong).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"), "{wrong}");
        assert_eq!(answer.json()["error"]["message"], said);
    }
    // The right id with another secret: the checksum may be left out.
    forged = format!("{}{}", &key.key[..13], &near.key[13..56]);
    assert_eq!(login(&world, &forged).await.json()["error"]["message"], said);
    // 20 in a minute, of which 7 are used up; then nobody is told why, and a good key still works.
    for _ in 7..20 {
        assert_eq!(login(&world, "x").await.status, 401);
    }
    let many = login(&world, "x").await;
    assert_eq!((many.status, many.code().as_str()), (429, "TOO_MANY_FAILURES"));
    assert_eq!(many.header("retry-after"), Some("60"));
    assert_eq!(login(&world, &key.key).await.status, 200);
    clock.advance(60_000);
    assert_eq!(login(&world, "x").await.status, 401);
}

#[tokio::test]
async fn a_login_is_a_use_of_the_key() {
    let world = World::start().await;
    let key = api_key(&world, |_| {}).await;
    world.served().await;
    let last_use = async || {
        let request = admin::GetApiKeyRequest { name: key.name.clone() };
        world.client.api_keys().get_api_key(request).await.unwrap().into_inner().last_use_time
    };
    assert!(last_use().await.is_none());
    assert_eq!(login(&world, &key.key).await.status, 200);
    sluice_tests::patience::eventually("the use to be known", last_use).await;
}

#[tokio::test]
async fn a_key_that_ends_takes_its_tokens_along() {
    let (world, clock) = still().await;
    // The control plane's clock is the real one; what the data plane has is compared with its own.
    let expires = 4_102_444_800;
    let at = prost_types::Timestamp { seconds: expires, nanos: 0 };
    let key = api_key(&world, |key| key.expire_time = Some(at)).await;
    let path = world.acme.incoming("shop", jwt(Source::ApiKey(key.name.clone()))).await.endpoint_path;
    world.served().await;
    clock.advance((expires - 10) * 1000 - START);
    let token = bearer(&world, &key.key).await;
    assert_eq!(status(&world, &path, &token).await, 200);
    clock.advance(10_000);
    assert_eq!(status(&world, &path, &token).await, 401);
    assert_eq!(login(&world, &key.key).await.status, 401);
}

#[tokio::test]
async fn a_pair_that_was_replaced_verifies_until_its_tokens_have_ended_j34() {
    let control = sluice_control_plane::Clock::manual(START);
    let clock = Clock::manual(START);
    let world = World::with(|options| {
        options.control_plane.clock = control.clone();
        options.data_plane.clock = clock.clone();
    })
    .await;
    let key = api_key(&world, |_| {}).await;
    let path = world.acme.incoming("shop", jwt(Source::ApiKey(key.name.clone()))).await.endpoint_path;
    world.served().await;
    let name = "workspaces/acme/tokenKeys".to_owned();
    let keys = async || {
        let request = admin::GetTokenKeysRequest { name: name.clone() };
        world.client.token_keys().get_token_keys(request).await.unwrap().into_inner().keys
    };
    let before = keys().await;
    assert_eq!(before.len(), 1);
    let old = bearer(&world, &key.key).await;
    let request = admin::RotateTokenKeyRequest { name: name.clone(), ..Default::default() };
    let rotated = world.client.token_keys().rotate_token_key(request).await.unwrap().into_inner().keys;
    assert_eq!((rotated.len(), &rotated[1].id), (2, &before[0].id));
    assert!(rotated[0].retire_time.is_none() && rotated[1].retire_time.is_some());
    world.served().await;
    let new = bearer(&world, &key.key).await;
    assert_eq!((status(&world, &path, &old).await, status(&world, &path, &new).await), (200, 200));
    clock.advance(3_600_000);
    control.advance(3_600_000);
    assert_eq!(status(&world, &path, &old).await, 200);
    let newer = bearer(&world, &key.key).await;
    clock.advance(60_000);
    control.advance(60_000);
    assert_eq!((status(&world, &path, &old).await, status(&world, &path, &newer).await), (401, 200));
    assert_eq!(keys().await.len(), 1, "what is over is not shown");
}

#[tokio::test]
async fn another_data_key_seals_what_signs_tokens() {
    let mut world = World::start().await;
    let key = api_key(&world, |_| {}).await;
    let path = world.acme.incoming("shop", jwt(Source::ApiKey(key.name.clone()))).await.endpoint_path;
    world.served().await;
    let before = bearer(&world, &key.key).await;
    let request = admin::RotateDataKeyRequest { name: world.acme.name.clone(), ..Default::default() };
    world.client.workspaces().rotate_data_key(request).await.unwrap();
    world.served().await;
    assert_eq!(status(&world, &path, &before).await, 200);
    world.restart_data_plane().await;
    assert_eq!(status(&world, &path, &bearer(&world, &key.key).await).await, 200);
    assert_eq!(status(&world, &path, &before).await, 200);
}

#[tokio::test]
async fn at_most_eight_pairs_are_accepted_at_once() {
    let control = sluice_control_plane::Clock::manual(START);
    let world = World::with(|options| options.control_plane.clock = control.clone()).await;
    api_key(&world, |_| {}).await;
    let rotate = async || {
        let request =
            admin::RotateTokenKeyRequest { name: "workspaces/acme/tokenKeys".to_owned(), ..Default::default() };
        Ok::<_, tonic::Status>(world.client.token_keys().rotate_token_key(request).await?.into_inner().keys.len())
    };
    for held in 2..=8 {
        assert_eq!(rotate().await.unwrap(), held);
    }
    let refused = rotate().await.unwrap_err();
    assert!(refused.message().contains("8 pairs"), "{}", refused.message());
    // When the tokens of the old ones have ended.
    control.advance(3_660_001);
    assert_eq!(rotate().await.unwrap(), 2);
}

#[tokio::test]
async fn tokens_are_made_without_the_control_plane_i5() {
    let mut world = World::start().await;
    let key = api_key(&world, |_| {}).await;
    let path = world.acme.incoming("shop", jwt(Source::ApiKey(key.name.clone()))).await.endpoint_path;
    world.served().await;
    let token = bearer(&world, &key.key).await;
    world.stop_control_plane().await;
    world.restart_data_plane().await;
    assert_eq!(status(&world, &path, &token).await, 200);
    assert_eq!(status(&world, &path, &bearer(&world, &key.key).await).await, 200);
}

#[tokio::test]
async fn a_workspace_without_documents_but_with_keys_can_be_deleted() {
    let world = World::start().await;
    let key = api_key(&world, |_| {}).await;
    world.served().await;
    assert_eq!(login(&world, &key.key).await.status, 200);
    let request = admin::DeleteWorkspaceRequest { name: world.acme.name.clone(), ..Default::default() };
    world.client.workspaces().delete_workspace(request).await.unwrap();
    let gone = async || (login(&world, &key.key).await.status == 401).then_some(());
    sluice_tests::patience::eventually("the key to be refused", gone).await;
}

#[tokio::test]
async fn behind_a_proxy_the_sender_is_whom_the_proxy_names() {
    let trusting = async |proxies: &[&str]| {
        let proxies = proxies.iter().map(|network| network.parse().unwrap()).collect();
        World::with(|options| options.data_plane.ingress.proxies = proxies).await
    };
    for (proxies, forwarded, expected) in [
        (&[][..], "203.0.113.7", 403),
        (&["10.0.0.0/8"], "203.0.113.7", 403),
        (&["127.0.0.0/8"], "203.0.113.7", 200),
        (&["127.0.0.0/8"], "198.51.100.1, 203.0.113.7", 200),
        // What the sender wrote itself stands left of what the proxy has added.
        (&["127.0.0.0/8"], "203.0.113.7, 198.51.100.1", 403),
        (&["127.0.0.0/8"], "203.0.113.7, nonsense", 403),
    ] {
        let world = trusting(proxies).await;
        let away = api_key(&world, |key| key.allowed_networks = vec!["203.0.113.0/24".to_owned()]).await;
        world.served().await;
        let request = Request::post(LOGIN, json!({ "apiKey": away.key }).to_string());
        let answer = world.send(&request.header("X-Forwarded-For", forwarded)).await;
        assert_eq!(answer.status, expected, "{proxies:?} {forwarded}: {}", answer.text());
        world.stop().await;
    }
}
