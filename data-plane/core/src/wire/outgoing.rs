//! Outgoing integrations and the requests they share with custom webhooks.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use sluice_proto::admin::v1 as admin;

use super::schema::form;
use super::{Parsed, duration, icon, reference, refuse_unknown_fields, template};
use crate::address::{MAX_URL_BYTES, PublishedUrl, UrlPolicy, check_url};
use crate::model::{
    AGE_DEFAULT, ATTEMPTS_DEFAULT, Outgoing, OutgoingRequest, RateLimit, RequestTemplate, RetryPolicy, WAITS_DEFAULT,
};
use crate::request::{BodyType, body_type, check_header_name};
use crate::response_event::{DEFAULT_ACTION, MAX_PARAMETERS, check_parameter_name, check_static_value};
use crate::template::limits::SOURCE_BYTES;
use crate::template::{Context, Mode, OnMissing, Snippets, Template, Unrendered};
use crate::validate::{Check, HEADERS_MAX, NAME_CHARS_MAX, SHORT_TEMPLATE_BYTES_MAX};

/// Whole exchange (D11).
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));
/// Waits between attempts (D09).
const WAIT_LIMITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
const AGE_LIMITS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(7 * 24 * 3600));
/// Most attempts that can be set (D09).
const ATTEMPTS_MAX: i64 = 20;
/// What can be set as requests per second, and as their burst (D10).
const REQUESTS_PER_SECOND_MAX: i64 = 10_000;
const BURST_MAX: i64 = 20_000;
/// The burst that is not set, as a part of the requests per second: enough to make up for a moment's delay, too little to
/// be noticed.
const BURST_PART: i32 = 10;
/// Most requests at once that can be set (D10).
const CONCURRENCY_MAX: i64 = 1_000;
/// How each wait grows from the one before, when the first is set.
const WAIT_GROWTH: u32 = 6;

/// Parses an outgoing integration that uses no snippets.
pub fn outgoing(proto: &admin::OutgoingIntegration, urls: &UrlPolicy) -> Parsed<Outgoing> {
    outgoing_with(proto, urls, &Arc::default())
}

/// Parses an outgoing integration.
pub fn outgoing_with(
    proto: &admin::OutgoingIntegration,
    urls: &UrlPolicy,
    snippets: &Arc<Snippets>,
) -> Parsed<Outgoing> {
    let mut check = Check::with_snippets(snippets);
    check.name("display_name", &proto.display_name, NAME_CHARS_MAX);
    let request = match &proto.request {
        Some(wire) => check.within("request", |check| request(check, wire, urls)),
        None => {
            check.fail("request", "REQUIRED", "is required");
            None
        }
    };
    icon(&mut check, &proto.icon);
    // A draft whose schema template is not there is refused for that by whoever looks for it.
    let has_schema = !proto.schema_template.is_empty();
    let is_whole = !proto.schema_fields.is_empty() || proto.published_version > 0;
    let form = if has_schema && reference(&mut check, "schema_template", &proto.schema_template, "schemaTemplates") {
        is_whole.then(|| form(&mut check, "schema_fields", &proto.schema_fields)).flatten()
    } else {
        None
    };
    if let Some(request) = request.as_ref().filter(|_| form.is_some() || !has_schema) {
        check.within("request", |check| refuse_unknown_fields(check, request, form.as_ref()));
    }
    check.finish(request.map(|request| Outgoing {
        name: proto.name.as_str().into(),
        version: proto.published_version,
        request,
        form,
    }))
}

/// Parses a request.
pub(super) fn request(check: &mut Check, wire: &admin::OutgoingRequest, urls: &UrlPolicy) -> Option<OutgoingRequest> {
    check.name("webhook_name", &wire.webhook_name, NAME_CHARS_MAX);
    if !wire.event_name.is_empty() {
        check.name("event_name", &wire.event_name, NAME_CHARS_MAX);
    }
    let template = request_template(check, wire, urls);
    if !wire.connection.is_empty() {
        reference(check, "connection", &wire.connection, "connections");
    }
    if !wire.signature.is_empty() {
        reference(check, "signature", &wire.signature, "connections");
    }
    let event_parameters = event_parameters(check, &wire.event_parameters);
    let retry = check.within("retry", |check| retry(check, wire.retry.as_ref()));
    let timeout = duration(check, "timeout", wire.timeout.as_ref(), TIMEOUT_DEFAULT, TIMEOUT_LIMITS);
    let rate_limit = check.within("rate_limit", |check| rate_limit(check, wire.rate_limit.as_ref()));
    check.range("concurrency_max", wire.concurrency_max.into(), 0, CONCURRENCY_MAX, "");
    Some(OutgoingRequest {
        webhook_name: wire.webhook_name.as_str().into(),
        event_name: match wire.event_name.as_str() {
            "" => DEFAULT_ACTION.into(),
            named => named.to_owned().into(),
        },
        template: template?,
        connection: (!wire.connection.is_empty()).then(|| wire.connection.as_str().into()),
        signature: (!wire.signature.is_empty()).then(|| wire.signature.as_str().into()),
        event_parameters: event_parameters?.into(),
        retry,
        timeout,
        rate_limit,
        concurrency_max: u32::try_from(wire.concurrency_max).ok().filter(|most| *most > 0),
    })
}

/// How much is sent. Unlike that of an endpoint it must be said.
fn rate_limit(check: &mut Check, wire: Option<&admin::RateLimit>) -> Option<RateLimit> {
    let wire = wire?;
    check.range("requests_per_second", wire.requests_per_second.into(), 1, REQUESTS_PER_SECOND_MAX, "");
    let burst = if wire.burst == 0 { (wire.requests_per_second / BURST_PART).max(1) } else { wire.burst };
    check.range("burst", burst.into(), 1, BURST_MAX, "");
    let at_least_one = |value: i32| u32::try_from(value).unwrap_or(1).max(1);
    Some(RateLimit { requests_per_second: at_least_one(wire.requests_per_second), burst: at_least_one(burst) })
}

/// Parses what is sent: method, URL, headers and body.
pub(super) fn request_template(
    check: &mut Check,
    wire: &admin::OutgoingRequest,
    urls: &UrlPolicy,
) -> Option<RequestTemplate> {
    let method = method(check, wire.method());
    let url = url(check, &wire.url, urls);
    let headers = headers(check, &wire.headers);
    let exact = wire.template_mode() == admin::TemplateMode::Exact;
    let kind = body_type(wire.headers.iter().map(|header| (header.name.as_str(), header.value.as_str())));
    let mode = match kind {
        _ if exact => Mode::Exact,
        BodyType::Other => Mode::Text,
        _ => Mode::Json,
    };
    let body = body(check, wire.body.as_deref(), mode);
    let (url, published_url) = url?;
    Some(RequestTemplate {
        method: method?,
        url,
        published_url,
        headers: headers?.into(),
        default_json_type: kind == BodyType::Unset && wire.body.is_some(),
        body: body?,
        on_missing: match wire.on_missing() {
            admin::OnMissing::Unspecified | admin::OnMissing::Empty => OnMissing::Empty,
            admin::OnMissing::Null => OnMissing::Null,
            admin::OnMissing::Fail => OnMissing::Fail,
        },
    })
}

fn method(check: &mut Check, method: admin::HttpMethod) -> Option<&'static str> {
    use admin::HttpMethod as M;
    match method {
        M::Unspecified => {
            check.fail("method", "REQUIRED", "one of GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS is required");
            None
        }
        M::Get | M::Post | M::Put | M::Patch | M::Delete | M::Head | M::Options => Some(method.as_str_name()),
    }
}

/// The URL and where it leads: everything before its first insert must settle the host (R073).
fn url(check: &mut Check, source: &str, urls: &UrlPolicy) -> Option<(Template, PublishedUrl)> {
    if source.is_empty() {
        check.fail("url", "REQUIRED", "is required");
        return None;
    }
    let template = template(check, "url", source, Mode::Url, MAX_URL_BYTES)?;
    let literal = source.find("{{").into_iter().chain(source.find("{%")).chain(source.find("{#")).min();
    match check_url(&source[..literal.unwrap_or(source.len())], urls) {
        Ok(checked) => Some((template, checked.into())),
        Err(error) => {
            check.fail("url", error.code(), error.to_string());
            None
        }
    }
}

fn headers(check: &mut Check, wire: &[admin::RequestHeader]) -> Option<Vec<(Template, Template)>> {
    check.count("headers", wire.len(), HEADERS_MAX);
    let mut parsed = Vec::with_capacity(wire.len());
    for (index, header) in wire.iter().enumerate() {
        let header = check.within(format!("headers[{index}]"), |check| {
            let name = template(check, "name", &header.name, Mode::Header, SHORT_TEMPLATE_BYTES_MAX);
            let value = template(check, "value", &header.value, Mode::Header, SHORT_TEMPLATE_BYTES_MAX);
            if name.as_ref().is_some_and(Template::is_static)
                && let Err(problem) = check_header_name(header.name.trim())
            {
                check.fail("name", "HEADER_NAME", problem.to_string());
            }
            if let Some(value) = value.as_ref().filter(|value| value.is_static())
                && let Err(Unrendered::Failed(error)) = value.render(&Context::new(), OnMissing::Empty)
            {
                check.fail("value", error.kind.reason(), error.message);
            }
            name.zip(value)
        });
        parsed.extend(header);
    }
    (parsed.len() == wire.len()).then_some(parsed)
}

/// `None` when broken, `Some(None)` when there is none.
fn body(check: &mut Check, source: Option<&str>, mode: Mode) -> Option<Option<Template>> {
    let Some(source) = source else { return Some(None) };
    let template = template(check, "body", source, mode, SOURCE_BYTES)?;
    if template.is_static()
        && let Err(Unrendered::Failed(error)) = template.render(&Context::new(), OnMissing::Empty)
    {
        let message = format!("{} (line {}, column {})\n{}", error.message, error.line, error.column, error.excerpt);
        check.fail("body", error.kind.reason(), message);
    }
    Some(Some(template))
}

fn event_parameters(check: &mut Check, wire: &[admin::EventParameter]) -> Option<Vec<(Box<str>, Template)>> {
    check.count("event_parameters", wire.len(), MAX_PARAMETERS);
    let mut parsed = Vec::with_capacity(wire.len());
    for (index, parameter) in wire.iter().enumerate() {
        let value = check.within(format!("event_parameters[{index}]"), |check| {
            if let Err(problem) = check_parameter_name(&parameter.name) {
                check.fail("name", "PARAMETER_NAME", problem.to_string());
            }
            if wire[..index].iter().any(|other| other.name == parameter.name) {
                check.fail("name", "DUPLICATE", format!("`{}` is there twice", parameter.name));
            }
            let value = template(check, "value", &parameter.value, Mode::Text, SHORT_TEMPLATE_BYTES_MAX)?;
            if value.is_static()
                && let Err(problem) = check_static_value(&parameter.value)
            {
                check.fail("value", "TOO_LONG", problem.to_string());
            }
            Some(value)
        });
        parsed.extend(value.map(|value| (parameter.name.as_str().into(), value)));
    }
    (parsed.len() == wire.len()).then_some(parsed)
}

fn retry(check: &mut Check, wire: Option<&admin::RetryPolicy>) -> Arc<RetryPolicy> {
    static DEFAULT: LazyLock<Arc<RetryPolicy>> = LazyLock::new(Arc::default);
    let Some(wire) = wire else { return Arc::clone(&DEFAULT) };
    let attempts = if wire.attempts_max == 0 { i64::from(ATTEMPTS_DEFAULT) } else { i64::from(wire.attempts_max) };
    check.range("attempts_max", attempts, 1, ATTEMPTS_MAX, "");
    let longest_default = WAITS_DEFAULT[WAITS_DEFAULT.len() - 1];
    let longest = duration(check, "longest_wait", wire.longest_wait.as_ref(), longest_default, WAIT_LIMITS);
    let schedule = match &wire.first_wait {
        None => WAITS_DEFAULT.to_vec(),
        Some(_) => {
            let first = duration(check, "first_wait", wire.first_wait.as_ref(), WAITS_DEFAULT[0], WAIT_LIMITS);
            if first > longest {
                check.fail(
                    "first_wait",
                    "OUT_OF_RANGE",
                    format!("must not be longer than longest_wait, {} s", longest.as_secs()),
                );
            }
            std::iter::successors(Some(first), |wait| Some(wait.saturating_mul(WAIT_GROWTH)))
                .take_while(|wait| *wait < longest)
                .chain([longest])
                .collect()
        }
    };
    let waits = schedule.into_iter().map(|wait| wait.min(longest)).collect();
    for (index, status) in wire.retryable_statuses.iter().enumerate() {
        if !(400..=599).contains(status) || *status == 410 {
            let message =
                format!("is {status}; it must be 400 to 599 and not 410, which ends a delivery at once (D09)");
            check.fail(&format!("retryable_statuses[{index}]"), "OUT_OF_RANGE", message);
        }
    }
    check.count("retryable_statuses", wire.retryable_statuses.len(), 200);
    let statuses: Vec<u16> = wire.retryable_statuses.iter().filter_map(|status| u16::try_from(*status).ok()).collect();
    Arc::new(RetryPolicy {
        attempts_max: u32::try_from(attempts).unwrap_or(1),
        waits,
        age_max: duration(check, "age_max", wire.age_max.as_ref(), AGE_DEFAULT, AGE_LIMITS),
        statuses: (!statuses.is_empty()).then_some(statuses),
    })
}
