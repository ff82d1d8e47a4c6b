//! Which fields of a document are secrets, and which other documents it refers to. One list each, used for sealing,
//! opening, clearing and `*_set` alike.

use std::borrow::Cow;

use sluice_proto::admin::v1 as admin;
use sluice_proto::sync::v1::SealedSecret;

use crate::seal::Slot;
use crate::template::snippets_named;

/// One secret field of a document.
#[derive(Debug)]
pub struct SecretField<'a> {
    /// Its path, for example `api_key.secret`; bound into the seal. In a list, the entry's own id stands for its place, so that
    /// a secret stays with its entry: `standard_webhooks.secrets[2026-11].key`.
    pub path: Cow<'static, str>,
    /// The secret itself: filled on the way in, cleared everywhere else.
    pub value: &'a mut String,
    /// Tells readers that one is stored.
    pub is_set: &'a mut bool,
    /// Sluice checks with it what a sender knows: in a rotation all slots are accepted. With others Sluice logs in, by the active
    /// one (S16).
    pub overlaps: bool,
}

/// The slot a sealed secret is in; one that says nothing is active.
pub fn slot_of(sealed: &SealedSecret) -> Slot {
    match sealed.slot() {
        admin::SecretSlot::Unspecified | admin::SecretSlot::Active => Slot::Active,
        admin::SecretSlot::Staged => Slot::Staged,
        admin::SecretSlot::Previous => Slot::Previous,
    }
}

impl From<Slot> for admin::SecretSlot {
    fn from(slot: Slot) -> Self {
        match slot {
            Slot::Active => Self::Active,
            Slot::Staged => Self::Staged,
            Slot::Previous => Self::Previous,
        }
    }
}

/// Documents that may hold secrets.
pub trait SecretFields {
    /// The secret fields of what is chosen.
    fn secret_fields(&mut self) -> Vec<SecretField<'_>>;
}

impl<'a> SecretField<'a> {
    fn new(path: impl Into<Cow<'static, str>>, value: &'a mut String, is_set: &'a mut bool) -> Self {
        Self { path: path.into(), value, is_set, overlaps: false }
    }

    fn overlapping(self) -> Self {
        Self { overlaps: true, ..self }
    }
}

impl SecretFields for admin::Connection {
    fn secret_fields(&mut self) -> Vec<SecretField<'_>> {
        use admin::connection::Scheme;
        match &mut self.scheme {
            Some(Scheme::LoginPassword(scheme)) => {
                vec![SecretField::new("login_password.password", &mut scheme.password, &mut scheme.password_set)]
            }
            Some(Scheme::ApiKey(scheme)) => {
                vec![SecretField::new("api_key.secret", &mut scheme.secret, &mut scheme.secret_set)]
            }
            Some(Scheme::Oauth2ClientCredentials(scheme)) => {
                let (value, is_set) = (&mut scheme.client_secret, &mut scheme.client_secret_set);
                vec![SecretField::new("oauth2_client_credentials.client_secret", value, is_set)]
            }
            Some(Scheme::SyneriseApiKey(scheme)) => {
                vec![SecretField::new("synerise_api_key.api_key", &mut scheme.api_key, &mut scheme.api_key_set)]
            }
            Some(Scheme::Custom(scheme)) => {
                vec![SecretField::new("custom.secret", &mut scheme.secret, &mut scheme.secret_set)]
            }
            Some(Scheme::Sha256(scheme)) => {
                let (value, is_set) = (&mut scheme.client_secret, &mut scheme.client_secret_set);
                vec![SecretField::new("sha256.client_secret", value, is_set)]
            }
            Some(Scheme::StandardWebhooks(scheme)) => signing_secrets("standard_webhooks", &mut scheme.secrets),
            Some(Scheme::HmacSignature(scheme)) => signing_secrets("hmac_signature", &mut scheme.secrets),
            // A token is turned into an API key before anything is stored.
            Some(Scheme::None(_) | Scheme::Token(_)) | None => Vec::new(),
        }
    }
}

fn signing_secrets<'a>(within: &str, secrets: &'a mut [admin::SigningSecret]) -> Vec<SecretField<'a>> {
    let field = |secret: &'a mut admin::SigningSecret| {
        let path = format!("{within}.secrets[{}].key", secret.id);
        SecretField::new(path, &mut secret.key, &mut secret.key_set)
    };
    secrets.iter_mut().map(field).collect()
}

impl SecretFields for admin::IncomingIntegration {
    fn secret_fields(&mut self) -> Vec<SecretField<'_>> {
        use admin::incoming_integration::Authorization;
        match &mut self.authorization {
            Some(Authorization::Meta(meta)) => vec![
                SecretField::new("meta.app_secret", &mut meta.app_secret, &mut meta.app_secret_set).overlapping(),
                SecretField::new("meta.verify_token", &mut meta.verify_token, &mut meta.verify_token_set).overlapping(),
            ],
            Some(Authorization::None(_) | Authorization::Jwt(_)) | None => Vec::new(),
        }
    }
}

impl SecretFields for admin::OutgoingIntegration {
    fn secret_fields(&mut self) -> Vec<SecretField<'_>> {
        Vec::new()
    }
}

impl SecretFields for admin::Workflow {
    fn secret_fields(&mut self) -> Vec<SecretField<'_>> {
        Vec::new()
    }
}

macro_rules! no_secrets {
    ($($kind:ident),*) => {
        $(impl SecretFields for admin::$kind {
            fn secret_fields(&mut self) -> Vec<SecretField<'_>> {
                Vec::new()
            }
        })*
    };
}

no_secrets!(Snippet, SchemaTemplate, EventDefinition, TestProfile);

/// Documents that may refer to others.
pub trait References {
    /// The field and the name of each document it refers to.
    fn references(&self) -> Vec<(String, String)>;

    /// The ids of the snippets that its templates name themselves.
    fn snippets(&self) -> Vec<String> {
        Vec::new()
    }
}

macro_rules! no_references {
    ($($kind:ident),*) => {
        $(impl References for admin::$kind {
            fn references(&self) -> Vec<(String, String)> {
                Vec::new()
            }
        })*
    };
}

no_references!(SchemaTemplate, EventDefinition, TestProfile);

impl References for admin::Snippet {
    fn references(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    fn snippets(&self) -> Vec<String> {
        snippets_named(&self.text)
    }
}

impl References for admin::Connection {
    fn references(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

impl References for admin::IncomingIntegration {
    fn references(&self) -> Vec<(String, String)> {
        use admin::incoming_integration::Authorization;
        use admin::jwt_authorization::Source;
        match &self.authorization {
            Some(Authorization::Jwt(admin::JwtAuthorization { source: Some(Source::ApiKey(name)) })) => {
                vec![("jwt.api_key".to_owned(), name.clone())]
            }
            Some(Authorization::Jwt(_) | Authorization::None(_) | Authorization::Meta(_)) | None => Vec::new(),
        }
    }
}

impl References for admin::OutgoingIntegration {
    fn references(&self) -> Vec<(String, String)> {
        let schema = Some(&self.schema_template).filter(|name| !name.is_empty());
        let schema = schema.map(|name| ("schema_template".to_owned(), name.clone()));
        self.request.iter().flat_map(|request| connections_of(request, "request")).chain(schema).collect()
    }

    fn snippets(&self) -> Vec<String> {
        self.request.iter().flat_map(snippets_of).collect()
    }
}

impl References for admin::Workflow {
    fn references(&self) -> Vec<(String, String)> {
        use admin::step::Action;
        let triggers = self.triggers.iter().enumerate().filter_map(|(index, trigger)| {
            let incoming = &trigger.incoming_integration;
            (!incoming.is_empty()).then(|| (format!("triggers[{index}].incoming_integration"), incoming.clone()))
        });
        let steps = self.steps.iter().enumerate().flat_map(|(index, step)| match &step.action {
            Some(Action::OutgoingIntegration(name)) => {
                vec![(format!("steps[{index}].outgoing_integration"), name.clone())]
            }
            Some(Action::CustomWebhook(request)) => connections_of(request, &format!("steps[{index}].custom_webhook")),
            None => Vec::new(),
        });
        triggers.chain(steps).collect()
    }

    fn snippets(&self) -> Vec<String> {
        let requests = self.steps.iter().filter_map(|step| match &step.action {
            Some(admin::step::Action::CustomWebhook(request)) => Some(request),
            Some(admin::step::Action::OutgoingIntegration(_)) | None => None,
        });
        let values = self.steps.iter().flat_map(|step| step.form_values.values());
        requests.flat_map(snippets_of).chain(values.flat_map(|text| snippets_named(text))).collect()
    }
}

/// What the templates of a request name.
fn snippets_of(request: &admin::OutgoingRequest) -> Vec<String> {
    let headers = request.headers.iter().flat_map(|header| [&header.name, &header.value]);
    let parameters = request.event_parameters.iter().map(|parameter| &parameter.value);
    let texts = [&request.url].into_iter().chain(headers).chain(&request.body).chain(parameters);
    texts.flat_map(|text| snippets_named(text)).collect()
}

fn connections_of(request: &admin::OutgoingRequest, within: &str) -> Vec<(String, String)> {
    let named = [("connection", &request.connection), ("signature", &request.signature)];
    let named = named.into_iter().filter(|(_, name)| !name.is_empty());
    named.map(|(field, name)| (format!("{within}.{field}"), name.clone())).collect()
}
