//! The part of an outgoing request that a cURL command can say.

use sluice_proto::admin::v1 as admin;

use crate::curl::{Header, Request};

impl From<&admin::OutgoingRequest> for Request {
    fn from(wire: &admin::OutgoingRequest) -> Self {
        let method = match wire.method() {
            admin::HttpMethod::Unspecified => "",
            method => method.as_str_name(),
        };
        let header = |header: &admin::RequestHeader| Header { name: header.name.clone(), value: header.value.clone() };
        Self {
            method: method.to_owned(),
            url: wire.url.clone(),
            headers: wire.headers.iter().map(header).collect(),
            body: wire.body.clone(),
        }
    }
}

impl Request {
    /// Puts it into the draft; names, event parameters, retry settings and the connection stay (R086).
    pub fn put_into(self, wire: &mut admin::OutgoingRequest) {
        let method = admin::HttpMethod::from_str_name(&self.method).unwrap_or(admin::HttpMethod::Unspecified);
        wire.set_method(method);
        wire.url = self.url;
        let header = |header: Header| admin::RequestHeader { name: header.name, value: header.value };
        wire.headers = self.headers.into_iter().map(header).collect();
        wire.body = self.body;
    }
}
