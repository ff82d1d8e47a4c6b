//! One exchange with a destination: a request is rendered, given its credentials and sent, and once more with another token when the
//! first is refused. The same for deliveries and for tests (D22); what comes before and follows is theirs.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use sluice_core::lineage::{Trace, is_trace_header};
use sluice_core::model::OutgoingRequest;
use sluice_core::redact::Redactor;
use sluice_core::request::{self, Unmade};
use sluice_core::response_event::FailureReason;
use sluice_core::template::Context;
use sluice_egress::{Exchange, Request, SendError};
use sluice_proto::admin::v1::RequestHeader;
use sluice_proto::admin::v1::failure::Reason;
use sluice_proto::sync::v1::{self as sync, RenderedRequest};
use uuid::Uuid;

use crate::aside::{QUICK_BYTES, QUICK_STEPS, aside};
use crate::credentials::{self, Given, Withheld};
use crate::plane::Plane;
use crate::runtime::{Target, Workspace};

/// Whom a request is for, under one configuration.
pub(crate) struct Call<'a> {
    pub(crate) plane: &'a Plane,
    pub(crate) workspace: &'a Workspace,
    pub(crate) target: &'a Target,
    /// Its request.
    pub(crate) request: &'a OutgoingRequest,
    /// Its `Idempotency-Key`.
    pub(crate) id: Uuid,
    /// How many calls came before, each caused by the one before.
    pub(crate) hops: u32,
    /// The trace it is a part of.
    pub(crate) trace: Option<&'a sync::Trace>,
}

/// What came of a call.
pub(crate) struct Sent {
    /// The answer, without what the call was let in with (R11, I7).
    pub(crate) result: Result<Exchange, SendError>,
    /// It is the repetition that is told of.
    pub(crate) token_renewed: bool,
}

impl Call<'_> {
    /// Renders the request. `context` is asked for once more where rendering takes long, and is `quick` to make otherwise.
    pub(crate) fn render(
        &self,
        quick: bool,
        context: impl Fn() -> Result<Context, Unmade>,
    ) -> Result<RenderedRequest, Unmade> {
        let print = |steps: Option<usize>| {
            let mut context = context()?;
            if let Some(steps) = steps {
                context.limit_steps(steps);
            }
            let missing = self.target.fill(&mut context)?;
            let mut rendered = request::render(&self.request.template, &context, &self.plane.urls)?;
            rendered.add_missing(missing);
            Ok(rendered)
        };
        let rendered = match quick.then(|| print(Some(QUICK_STEPS))) {
            Some(quick @ (Ok(_) | Err(Unmade::Skipped(_)))) => quick,
            // It takes longer, or is wrong and will be again.
            _ => aside(|| print(None)),
        }?;
        let header = |(name, value)| RequestHeader { name, value };
        Ok(RenderedRequest {
            method: rendered.method,
            url: rendered.url,
            headers: rendered.headers.into_iter().map(header).collect(),
            body: rendered.body.map(Bytes::from),
            missing_paths: rendered.missing,
            revision: self.workspace.revision,
            attempts: Vec::new(),
        })
    }

    /// The request as rendered, with the headers that Sluice itself adds to every delivery; credentials follow.
    pub(crate) fn plain(&self, kept: &RenderedRequest) -> Result<Request, Withheld> {
        let method = Method::from_bytes(kept.method.as_bytes()).map_err(|_invalid| Withheld::Refused {
            reason: FailureReason::RequestInvalid,
            message: "the method cannot be sent".to_owned(),
        })?;
        let mut headers: Vec<(String, String)> =
            kept.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect();
        headers.push(("Idempotency-Key".to_owned(), self.id.to_string()));
        headers.extend(self.trace(&headers));
        let body = kept.body.clone().unwrap_or_default();
        Ok(Request { method, url: kept.url.clone(), headers, body, hops: self.hops })
    }

    /// The trigger's trace goes on, unless the author says where the request stands.
    fn trace(&self, headers: &[(String, String)]) -> Vec<(String, String)> {
        match self.trace {
            Some(trace) if !headers.iter().any(|(name, _)| is_trace_header(name)) => {
                let flags = u8::try_from(trace.flags).unwrap_or_default();
                let trace = Trace { id: trace.id.clone(), flags, state: trace.state.clone() };
                trace.headers(self.id.as_bytes())
            }
            Some(_) | None => Vec::new(),
        }
    }

    /// The request with the credentials in force now (D08), and signed.
    pub(crate) async fn authorised(&self, kept: &RenderedRequest) -> Result<(Request, Given), Withheld> {
        let mut request = self.plain(kept)?;
        let id = self.id.to_string();
        let given = credentials::put(self.plane, self.workspace, self.request, &mut request, &id).await?;
        Ok((request, given))
    }

    /// Sends the request; and once more, with another token, when the destination answers 401 to a fetched one (S21, R14).
    pub(crate) async fn send(&self, kept: &RenderedRequest, request: Request, given: Given) -> Result<Sent, Withheld> {
        let result = self.plane.egress.send(request, self.timeout()).await;
        let unauthorised = matches!(&result, Ok(exchange) if exchange.status == 401);
        if !(unauthorised && given.token.is_some_and(|token| token.refused())) {
            let result = result.map(|exchange| redacted(exchange, &given.redactor));
            return Ok(Sent { result, token_renewed: false });
        }
        let (request, given) = self.authorised(kept).await?;
        let result = self.plane.egress.send(request, self.timeout()).await;
        Ok(Sent { result: result.map(|exchange| redacted(exchange, &given.redactor)), token_renewed: true })
    }

    fn timeout(&self) -> Duration {
        self.request.timeout
    }
}

/// The answer without what the attempt was let in with.
pub(crate) fn redacted(mut exchange: Exchange, redactor: &Redactor) -> Exchange {
    if exchange.body.len() <= QUICK_BYTES {
        exchange.redact(redactor)
    } else {
        aside(|| exchange.redact(redactor))
    }
    exchange
}

/// What went wrong, if anything did.
pub(crate) fn reason(sent: &Result<Exchange, SendError>) -> Reason {
    match sent {
        Ok(exchange) if (200..300).contains(&exchange.status) => Reason::Unspecified,
        Ok(_) => Reason::Status,
        Err(error) => failure(error).into(),
    }
}

/// What the response event says when there was no response (S20, D18).
pub(crate) fn failure(error: &SendError) -> FailureReason {
    match error {
        SendError::UrlDenied(_) | SendError::AddressDenied | SendError::ProxyDenied => FailureReason::EgressDenied,
        SendError::LoopDetected => FailureReason::LoopDetected,
        SendError::BadRequest(_) => FailureReason::RequestInvalid,
        SendError::Dns | SendError::DnsTimeout => FailureReason::DnsError,
        SendError::Connect => FailureReason::ConnectError,
        SendError::TlsHandshake | SendError::CertificateInvalid => FailureReason::TlsError,
        SendError::Timeout { .. } => FailureReason::Timeout,
        SendError::ConnectionClosed { .. } => FailureReason::ConnectionReset,
        SendError::ResponseInvalid => FailureReason::ResponseInvalid,
    }
}

/// How an exchange counts in the numbers: a class of statuses, or why there was no answer.
pub(crate) fn result_label(sent: &Result<Exchange, SendError>) -> &'static str {
    match sent {
        Ok(exchange) => match exchange.status / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            5 => "5xx",
            _ => "other",
        },
        Err(error) => failure(error).description(),
    }
}
