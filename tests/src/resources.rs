//! What there is to create, in few words. Tests change the rest with struct update: `OutgoingRequest { timeout, ..post(…) }`.

use sluice_client::admin;
use sluice_client::admin::connection::Scheme;
use sluice_client::admin::incoming_integration::Authorization;
use sluice_client::admin::step::Action;

/// An endpoint that takes anyone's requests (R149), as fast as they come.
pub fn open() -> admin::IncomingIntegration {
    admin::IncomingIntegration {
        display_name: "Open".to_owned(),
        authorization: Some(Authorization::None(admin::NoAuthorization {})),
        rate_limit: Some(admin::RateLimit { requests_per_second: 10_000, burst: 20_000 }),
        ..Default::default()
    }
}

/// An endpoint for webhooks from Meta (R154, S08), as fast as they come.
pub fn meta(app_secret: &str, verify_token: &str) -> admin::IncomingIntegration {
    let meta = admin::MetaAuthorization {
        app_secret: app_secret.to_owned(),
        verify_token: verify_token.to_owned(),
        ..Default::default()
    };
    let authorization = Some(Authorization::Meta(meta));
    admin::IncomingIntegration { display_name: "Meta".to_owned(), authorization, ..open() }
}

/// A key made of these body paths, whether a sample has them or not; `header:<name>` takes a header.
pub fn dedup<const N: usize>(parameters: [&str; N]) -> Option<admin::Deduplication> {
    use admin::deduplication_parameter::Source;
    let source = |parameter: &str| match parameter.strip_prefix("header:") {
        Some(name) => Source::Header(name.to_owned()),
        None => Source::BodyPath(parameter.to_owned()),
    };
    let parameters = parameters.map(|one| admin::DeduplicationParameter { source: Some(source(one)) }).into();
    Some(admin::Deduplication { parameters, allow_unseen: true, ..Default::default() })
}

/// A `POST` of a JSON body, both templates.
pub fn post(url: &str, body: &str) -> admin::OutgoingRequest {
    admin::OutgoingRequest {
        webhook_name: "Hook".to_owned(),
        method: admin::HttpMethod::Post.into(),
        url: url.to_owned(),
        body: Some(body.to_owned()),
        ..Default::default()
    }
}

/// A request's header.
pub fn header(name: &str, value: &str) -> admin::RequestHeader {
    admin::RequestHeader { name: name.to_owned(), value: value.to_owned() }
}

/// An additional parameter of the response event.
pub fn parameter(name: &str, value: &str) -> admin::EventParameter {
    admin::EventParameter { name: name.to_owned(), value: value.to_owned() }
}

/// Basic authentication (R023).
pub fn login_password(login: &str, password: &str) -> Scheme {
    let (login, password) = (login.to_owned(), password.to_owned());
    Scheme::LoginPassword(admin::LoginPassword { login, password, ..Default::default() })
}

/// A secret in a header (R034, R036).
pub fn api_key_header(secret: &str, name: &str, value: &str) -> Scheme {
    Scheme::ApiKey(admin::ApiKey {
        secret: secret.to_owned(),
        headers: vec![placement(name, value)],
        ..Default::default()
    })
}

/// A secret in the URL (R037).
pub fn api_key_parameter(secret: &str, name: &str, value: &str) -> Scheme {
    let url_parameters = vec![placement(name, value)];
    Scheme::ApiKey(admin::ApiKey { secret: secret.to_owned(), url_parameters, ..Default::default() })
}

/// The older name of an API key (R021).
pub fn token(token: &str) -> Scheme {
    Scheme::Token(admin::Token { token: token.to_owned() })
}

/// A token got with the client-credentials grant (R031).
pub fn oauth2(token_url: &str, client_secret: &str) -> Scheme {
    Scheme::Oauth2ClientCredentials(admin::OAuth2ClientCredentials {
        token_url: token_url.to_owned(),
        client_id: "client".to_owned(),
        client_secret: client_secret.to_owned(),
        ..Default::default()
    })
}

fn placement(name: &str, value: &str) -> admin::CredentialPlacement {
    admin::CredentialPlacement { name: name.to_owned(), value: value.to_owned() }
}

/// A step with a request of its own (R004).
pub fn custom_webhook(step_name: &str, request: admin::OutgoingRequest) -> admin::Step {
    admin::Step { step_name: step_name.to_owned(), action: Some(Action::CustomWebhook(request)), ..Default::default() }
}

/// A step that refers to an outgoing integration (R003).
pub fn existing(step_name: &str, outgoing: &admin::OutgoingIntegration) -> admin::Step {
    let action = Some(Action::OutgoingIntegration(outgoing.name.clone()));
    admin::Step { step_name: step_name.to_owned(), action, ..Default::default() }
}

/// A field of a form.
pub fn field(id: &str, kind: admin::schema_field::Type) -> admin::SchemaField {
    admin::SchemaField { id: id.to_owned(), r#type: kind.into(), label: id.to_owned(), ..Default::default() }
}

/// An outgoing integration whose steps fill in the form of a schema template (R007).
pub fn with_form(schema: &admin::SchemaTemplate, request: admin::OutgoingRequest) -> admin::OutgoingIntegration {
    admin::OutgoingIntegration {
        display_name: "With a form".to_owned(),
        request: Some(request),
        schema_template: schema.name.clone(),
        ..Default::default()
    }
}

/// A step that fills in the form of an outgoing integration.
pub fn filled<const N: usize>(
    step_name: &str,
    outgoing: &admin::OutgoingIntegration,
    values: [(&str, &str); N],
) -> admin::Step {
    let form_values = values.map(|(id, value)| (id.to_owned(), value.to_owned())).into();
    admin::Step { form_values, ..existing(step_name, outgoing) }
}

/// A workflow that all requests of an incoming integration start.
pub fn workflow(incoming: &admin::IncomingIntegration, steps: impl Into<Vec<admin::Step>>) -> admin::Workflow {
    admin::Workflow {
        display_name: "Flow".to_owned(),
        triggers: vec![admin::Trigger { incoming_integration: incoming.name.clone(), ..Default::default() }],
        steps: steps.into(),
        ..Default::default()
    }
}

/// A condition of a filter; operands are JSON texts (D17).
pub fn condition<const N: usize>(path: &str, operator: admin::Operator, operands: [&str; N]) -> admin::Filter {
    let operands = operands.map(str::to_owned).into();
    let condition = admin::Condition { path: path.to_owned(), operator: operator.into(), operands };
    admin::Filter { kind: Some(admin::filter::Kind::Condition(condition)) }
}
