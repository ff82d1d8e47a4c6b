//! A canary for every secret field of the contract, in connections of every kind.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sluice::destination::{Answer, Destination, Options};
use sluice_client::admin;
use sluice_client::admin::connection::Scheme;
use sluice_tests::resources;

use super::search;

pub(super) const PASSWORD: &str = "CANARY-pa$$w/rd+\"1\"-5f1c";
pub(super) const HEADER_SECRET: &str = "CANARY-h&ader=key/2-77ab";
pub(super) const URL_SECRET: &str = "CANARY-url key+%/3-e019";
pub(super) const TOKEN: &str = "CANARY-t0ken.~/4-33d0";
pub(super) const APP_SECRET: &str = "CANARY-app&secret+/5-90ef";
pub(super) const VERIFY_TOKEN: &str = "CANARY-verify t0ken/6-c2b1";
/// Never accepted, so that a refusal is what could tell them.
pub(super) const BAD_PASSWORD: &str = "CANARY-with\nbreak/7-1d44";
pub(super) const BAD_SECRET: &str = "CANARY-badly placed/8-ab10";
/// Replaces [`HEADER_SECRET`] in the end, and is replaced by [`STAGED_SECRET`].
pub(super) const NEW_SECRET: &str = "CANARY-rotated/9+key-08fa";
pub(super) const STAGED_SECRET: &str = "CANARY-staged/10+key-b2c8";
pub(super) const CLIENT_SECRET: &str = "CANARY-client s&cret/11-d1f0";
pub(super) const SYNERISE_KEY: &str = "CANARY-synerise\\key/12-94aa";
pub(super) const CUSTOM_SECRET: &str = "CANARY-custom<secret>/13-0be3";
pub(super) const HASH_SECRET: &str = "CANARY-hashed+secret/14-77d2";
pub(super) const HMAC_KEY: &str = "CANARY-hmac/key+/15-e5a9";
/// What is fetched with [`CLIENT_SECRET`] and [`CUSTOM_SECRET`].
pub(super) const OAUTH_TOKEN: &str = "CANARY-fetched/16+~token-6c1e";
pub(super) const CUSTOM_TOKEN: &str = "CANARY-fetched/17.custom-2f90";
/// In cURL commands: one is imported, one only read.
pub(super) const IMPORTED_SECRET: &str = "CANARY-imported/21-a7c3";
pub(super) const PARSED_SECRET: &str = "CANARY-parsed/22-5be8";

/// A signing key as it is written.
pub(super) fn webhooks_key() -> String {
    format!("whsec_{}", STANDARD.encode("CANARY-standard-webhooks/18-a0"))
}

/// What is fetched with [`SYNERISE_KEY`]: valid for long.
pub(super) fn synerise_token() -> String {
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    format!("{}.{}.CANARY-signature-19", part(r#"{"alg":"none"}"#), part(r#"{"exp":4102444800,"sub":"CANARY-20"}"#))
}

/// Every secret, by what it is called: a field of the contract, or something else that must not be told.
pub(super) fn secrets() -> Vec<(&'static str, String)> {
    let fixed = [
        ("sluice.admin.v1.LoginPassword.password", PASSWORD),
        ("sluice.admin.v1.ApiKey.secret", HEADER_SECRET),
        ("sluice.admin.v1.Token.token", TOKEN),
        ("sluice.admin.v1.MetaAuthorization.app_secret", APP_SECRET),
        ("sluice.admin.v1.MetaAuthorization.verify_token", VERIFY_TOKEN),
        ("sluice.admin.v1.OAuth2ClientCredentials.client_secret", CLIENT_SECRET),
        ("sluice.admin.v1.SyneriseApiKey.api_key", SYNERISE_KEY),
        ("sluice.admin.v1.CustomConnection.secret", CUSTOM_SECRET),
        ("sluice.admin.v1.Sha256Authentication.client_secret", HASH_SECRET),
        ("sluice.admin.v1.SigningSecret.key", HMAC_KEY),
        ("sluice.admin.v1.StageSecretRequest.value", STAGED_SECRET),
        ("sluice.admin.v1.ImportCurlRequest.command", IMPORTED_SECRET),
        ("sluice.admin.v1.ParseCurlRequest.command", PARSED_SECRET),
        ("another signing key", "CANARY-standard-webhooks/18-a0"),
        ("a secret in a URL", URL_SECRET),
        ("a refused password", BAD_PASSWORD),
        ("a refused secret", BAD_SECRET),
        ("a new secret", NEW_SECRET),
        ("a fetched OAuth2 token", OAUTH_TOKEN),
        ("a fetched custom token", CUSTOM_TOKEN),
    ];
    let mut secrets: Vec<_> = fixed.map(|(name, secret)| (name, secret.to_owned())).into();
    secrets.push(("another signing key, as written", webhooks_key()));
    secrets.push(("a fetched Synerise token", synerise_token()));
    secrets
}

/// How a connection is used, and what its destination gets to know of it.
pub(super) struct Kind {
    pub(super) id: &'static str,
    pub(super) scheme: Scheme,
    /// It signs, and does not authenticate.
    pub(super) signs: bool,
    pub(super) host: &'static str,
    /// Secrets that the destination is sent.
    pub(super) sent: Vec<String>,
    /// How often its endpoint is triggered.
    pub(super) tries: usize,
}

/// Connections of every kind.
pub(super) fn kinds() -> Vec<Kind> {
    let kind = |id, scheme, sent: &[&str], tries| Kind {
        id,
        scheme,
        signs: false,
        host: "api.example.com",
        sent: sent.iter().map(|secret| (*secret).to_owned()).collect(),
        tries,
    };
    let signing = |id, scheme| Kind { signs: true, ..kind(id, scheme, &[], 1) };
    let basic = STANDARD.encode(format!("login:{PASSWORD}"));
    let key = |key: String| vec![admin::SigningSecret { id: "first".to_owned(), key, key_set: false }];
    let hmac = admin::HmacSignature {
        secrets: key(HMAC_KEY.to_owned()),
        signed: vec![admin::SignedPart {
            part: Some(admin::signed_part::Part::Element(admin::SignedElement::Body.into())),
        }],
        header_name: "x-signature".to_owned(),
        ..Default::default()
    };
    let hash = admin::Sha256Authentication {
        client_id: "client".to_owned(),
        client_secret: HASH_SECRET.to_owned(),
        ..Default::default()
    };
    let url = |secret| resources::api_key_parameter(secret, "api_key", "{{secret}}");
    vec![
        kind("by-login", resources::login_password("login", PASSWORD), &[PASSWORD, &basic], 6),
        kind("by-header", resources::api_key_header(HEADER_SECRET, "x-api-key", "Key {{secret}}"), &[HEADER_SECRET], 6),
        kind("by-url", url(URL_SECRET), &[URL_SECRET], 6),
        kind("by-token", resources::token(TOKEN), &[TOKEN], 6),
        // K10: nothing is sent, and the error must not tell of the URL.
        Kind { host: "elsewhere.example.com", ..kind("elsewhere", url(URL_SECRET), &[], 2) },
        kind("by-oauth", oauth("by-oauth"), &[OAUTH_TOKEN, CLIENT_SECRET], 5),
        kind("by-synerise", synerise(), &[&synerise_token(), SYNERISE_KEY], 5),
        kind("by-custom", custom(), &[CUSTOM_TOKEN, CUSTOM_SECRET], 5),
        kind("by-hash", Scheme::Sha256(hash), &[], 1),
        signing("by-hmac", Scheme::HmacSignature(hmac)),
        signing("by-webhooks", Scheme::StandardWebhooks(admin::StandardWebhooks { secrets: key(webhooks_key()) })),
    ]
}

/// Fetches a token at `/token-{id}`.
pub(super) fn oauth(id: &str) -> Scheme {
    resources::oauth2(&format!("https://api.example.com/token-{id}"), CLIENT_SECRET)
}

fn synerise() -> Scheme {
    Scheme::SyneriseApiKey(admin::SyneriseApiKey {
        api_key: SYNERISE_KEY.to_owned(),
        login_url: "https://api.example.com/token-by-synerise".to_owned(),
        ..Default::default()
    })
}

fn custom() -> Scheme {
    let place = |name: &str, value: &str| admin::CustomPlacement { name: name.to_owned(), value: value.to_owned() };
    Scheme::Custom(admin::CustomConnection {
        secret: CUSTOM_SECRET.to_owned(),
        auth_request: Some(admin::CustomAuthRequest {
            url: "https://api.example.com/token-by-custom".to_owned(),
            headers: vec![resources::header("x-secret", "{{secret}}")],
            body: Some(r#"{"secret": "{{secret}}"}"#.to_owned()),
            ..Default::default()
        }),
        headers: vec![place("x-auth", r#"Token {{ authResponseBody|fromjson|attr("token") }}"#)],
        ..Default::default()
    })
}

/// A destination that takes, refuses, breaks off, keeps silent, and tells us what we sent it, in every form it may have; and that
/// gives tokens, but for `by-nothing`.
pub(super) async fn destination() -> Destination {
    let destination = Destination::start(Options::named(["api.example.com"])).await.unwrap();
    for kind in kinds().into_iter().filter(|kind| !kind.sent.is_empty()) {
        let mut answers = vec![
            Answer::json(200, r#"{"fine": true}"#),
            Answer::close(),
            Answer::hang(),
            echo(&kind.sent, 200),
            echo(&kind.sent, 403),
        ];
        if kind.tries == 6 {
            // Where a token is fetched, another attempt would follow.
            answers.push(Answer::json(401, r#"{"error": "who are you"}"#));
        }
        destination.script_for(&format!("/{}", kind.id), answers);
        destination.script_for(&format!("/trial-{}", kind.id), [echo(&kind.sent, 200)]);
    }
    // One for deliveries, the others for whoever tries the connection.
    let tokens = |path: &str, token: Value| {
        destination.script_for(path, std::iter::repeat_with(|| Answer::json(200, token.to_string())).take(20));
    };
    let expiring =
        json!({"access_token": OAUTH_TOKEN, "token_type": "Bearer", "expires_in": 3600, "said": CLIENT_SECRET});
    tokens("/token-by-oauth", expiring);
    tokens("/token-by-synerise", json!({"token": synerise_token(), "said": SYNERISE_KEY}));
    tokens("/token-by-custom", json!({"token": CUSTOM_TOKEN, "said": CUSTOM_SECRET}));
    let refusals = std::iter::repeat_with(|| echo(&[CLIENT_SECRET.to_owned()], 401)).take(20);
    destination.script_for("/token-by-nothing", refusals);
    destination
}

/// Tells of secrets in the body and in headers.
fn echo(secrets: &[String], status: u16) -> Answer {
    let forms: Vec<String> = secrets.iter().flat_map(|secret| search::told(secret)).collect();
    let first = &secrets[0];
    let location = format!("https://api.example.com/?key={}", search::url_encoded(first));
    let answer = if status == 200 {
        let told =
            json!({ "message": format!("we got {first}"), "headers": { "authorization": first }, "forms": forms });
        Answer::json(status, told.to_string())
    } else {
        Answer::status(status).body(format!("no: {first} {}", forms.join(" ")))
    };
    answer.header("location", &location).header("x-you-sent", &format!("Bearer {first}"))
}
