//! Which fields of a document are secrets, and which other documents it refers to. One list each, used for sealing,
//! opening, clearing and `*_set` alike.

use sluice_proto::admin::v1 as admin;

/// One secret field of a document.
#[derive(Debug)]
pub struct SecretField<'a> {
    /// Its path, for example `api_key.secret`; bound into the seal.
    pub path: &'static str,
    /// The secret itself: filled on the way in, cleared everywhere else.
    pub value: &'a mut String,
    /// Tells readers that one is stored.
    pub is_set: &'a mut bool,
}

/// Documents that may hold secrets.
pub trait SecretFields {
    /// The secret fields of what is chosen.
    fn secret_fields(&mut self) -> Vec<SecretField<'_>>;
}

impl SecretFields for admin::Connection {
    fn secret_fields(&mut self) -> Vec<SecretField<'_>> {
        use admin::connection::Scheme;
        match &mut self.scheme {
            Some(Scheme::LoginPassword(scheme)) => vec![SecretField {
                path: "login_password.password",
                value: &mut scheme.password,
                is_set: &mut scheme.password_set,
            }],
            Some(Scheme::ApiKey(scheme)) => {
                vec![SecretField { path: "api_key.secret", value: &mut scheme.secret, is_set: &mut scheme.secret_set }]
            }
            // A token is turned into an API key before anything is stored.
            Some(Scheme::None(_) | Scheme::Token(_)) | None => Vec::new(),
        }
    }
}

impl SecretFields for admin::IncomingIntegration {
    fn secret_fields(&mut self) -> Vec<SecretField<'_>> {
        use admin::incoming_integration::Authorization;
        match &mut self.authorization {
            Some(Authorization::Meta(meta)) => vec![
                SecretField { path: "meta.app_secret", value: &mut meta.app_secret, is_set: &mut meta.app_secret_set },
                SecretField {
                    path: "meta.verify_token",
                    value: &mut meta.verify_token,
                    is_set: &mut meta.verify_token_set,
                },
            ],
            Some(Authorization::None(_)) | None => Vec::new(),
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

/// Documents that may refer to others.
pub trait References {
    /// The field and the name of each document it refers to.
    fn references(&self) -> Vec<(String, String)>;
}

impl References for admin::Connection {
    fn references(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

impl References for admin::IncomingIntegration {
    fn references(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

impl References for admin::OutgoingIntegration {
    fn references(&self) -> Vec<(String, String)> {
        self.request.iter().filter_map(|request| connection_of(request, "request")).collect()
    }
}

impl References for admin::Workflow {
    fn references(&self) -> Vec<(String, String)> {
        use admin::step::Action;
        let triggers = self.triggers.iter().enumerate().filter_map(|(index, trigger)| {
            let incoming = &trigger.incoming_integration;
            (!incoming.is_empty()).then(|| (format!("triggers[{index}].incoming_integration"), incoming.clone()))
        });
        let steps = self.steps.iter().enumerate().filter_map(|(index, step)| match &step.action {
            Some(Action::OutgoingIntegration(name)) => {
                Some((format!("steps[{index}].outgoing_integration"), name.clone()))
            }
            Some(Action::CustomWebhook(request)) => connection_of(request, &format!("steps[{index}].custom_webhook")),
            None => None,
        });
        triggers.chain(steps).collect()
    }
}

fn connection_of(request: &admin::OutgoingRequest, within: &str) -> Option<(String, String)> {
    (!request.connection.is_empty()).then(|| (format!("{within}.connection"), request.connection.clone()))
}
