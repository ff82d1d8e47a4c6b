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
