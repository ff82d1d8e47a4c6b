//! Incoming integrations.

use sluice_proto::admin::v1 as admin;

use super::sender::authorization;
use super::{Parsed, duration, icon};
use crate::dedup;
use crate::model::{Incoming, RateLimit};
use crate::path::{Path, Root};
use crate::request::is_token;
use crate::sample::Seen;
use crate::validate::{Check, NAME_CHARS_MAX};

/// Requests per second when the integration says nothing (F01).
const REQUESTS_PER_SECOND_DEFAULT: i32 = 50;
/// Most requests per second that can be set (D10).
const REQUESTS_PER_SECOND_MAX: i64 = 10_000;
/// Largest burst that can be set.
const BURST_MAX: i64 = 20_000;

/// The path of an endpoint (R142).
pub fn endpoint_path(endpoint_id: &str) -> String {
    format!("/automation-endpoint/endpoints/authorized/{endpoint_id}/trigger")
}

/// Parses an incoming integration.
pub fn incoming(proto: &admin::IncomingIntegration) -> Parsed<Incoming> {
    let mut check = Check::default();
    check.name("display_name", &proto.display_name, NAME_CHARS_MAX);
    icon(&mut check, &proto.icon);
    let authorization = authorization(&mut check, proto.authorization.as_ref());
    let sample = proto.sample.as_ref().map(Seen::of);
    let dedup = check.within("deduplication", |check| rule(check, proto.deduplication.as_ref(), sample.as_ref()));
    let rate_limit = check.within("rate_limit", |check| rate_limit(check, proto.rate_limit.as_ref()));
    let parsed = authorization.zip(dedup).map(|(authorization, dedup)| Incoming {
        name: proto.name.as_str().into(),
        endpoint_id: proto.endpoint_id.as_str().into(),
        authorization,
        dedup,
        rate_limit,
        paused: proto.paused,
    });
    check.finish(parsed)
}

fn rule(check: &mut Check, wire: Option<&admin::Deduplication>, sample: Option<&Seen>) -> Option<dedup::Rule> {
    let none = admin::Deduplication::default();
    let wire = wire.unwrap_or(&none);
    let mut parameters = Vec::new();
    for (index, parameter) in wire.parameters.iter().enumerate() {
        parameters.extend(check.within(format!("parameters[{index}]"), |check| {
            let parsed = dedup_parameter(check, parameter)?;
            if !wire.allow_unseen {
                check_seen(check, &parsed, sample);
            }
            Some(parsed)
        }));
    }
    let limits = (dedup::MIN_WINDOW, dedup::MAX_WINDOW);
    let window = duration(check, "window", wire.window.as_ref(), dedup::DEFAULT_WINDOW, limits);
    if parameters.len() < wire.parameters.len() {
        return None;
    }
    match dedup::Rule::new(parameters, window, !wire.ignore_deduplication_header) {
        Ok(rule) => Some(rule),
        Err(error) => {
            check.fail("parameters", "DEDUPLICATION_INVALID", error.to_string());
            None
        }
    }
}

/// Parameters are chosen from what was seen (R159).
fn check_seen(check: &mut Check, parameter: &dedup::Parameter, sample: Option<&Seen>) {
    let (field, seen) = match parameter {
        dedup::Parameter::Body(path) => ("body_path", sample.map(|sample| sample.has(path))),
        dedup::Parameter::Header(name) if name.eq_ignore_ascii_case(dedup::HASH_HEADER) => return,
        dedup::Parameter::Header(name) => ("header", sample.map(|sample| sample.has_header(name))),
    };
    match seen {
        Some(true) => {}
        Some(false) => {
            let message = "is not in the confirmed sample: capture a request that has it, or set `allow_unseen` (R159)";
            check.fail(field, "NOT_SEEN", message);
        }
        None => {
            let message = "parameters are chosen from a sample: capture a request first, or set `allow_unseen` (R159)";
            check.fail(field, "NOT_SEEN", message);
        }
    }
}

fn dedup_parameter(check: &mut Check, wire: &admin::DeduplicationParameter) -> Option<dedup::Parameter> {
    use admin::deduplication_parameter::Source;
    match &wire.source {
        Some(Source::BodyPath(text)) => match text.parse::<Path>() {
            Ok(path) if path.root() != Root::Body => {
                check.fail("body_path", "PATH_INVALID", "must begin with `body`; a header is chosen with `header`");
                None
            }
            Ok(path) if path.has_any() => {
                check.fail("body_path", "PATH_INVALID", "must name one value; `[*]` names many");
                None
            }
            Ok(path) => Some(dedup::Parameter::Body(path)),
            Err(error) => {
                check.fail("body_path", "PATH_INVALID", error.to_string());
                None
            }
        },
        Some(Source::Header(name)) if is_token(name) => Some(dedup::Parameter::Header(name.clone())),
        Some(Source::Header(_)) => {
            check.fail("header", "HEADER_NAME", "must be an HTTP header name");
            None
        }
        None => {
            check.fail("source", "REQUIRED", "one of body_path, header is required");
            None
        }
    }
}

fn rate_limit(check: &mut Check, wire: Option<&admin::RateLimit>) -> RateLimit {
    let none = admin::RateLimit::default();
    let wire = wire.unwrap_or(&none);
    let rate = if wire.requests_per_second == 0 { REQUESTS_PER_SECOND_DEFAULT } else { wire.requests_per_second };
    check.range("requests_per_second", rate.into(), 1, REQUESTS_PER_SECOND_MAX, "");
    let burst = if wire.burst == 0 { rate.saturating_mul(2) } else { wire.burst };
    check.range("burst", burst.into(), 1, BURST_MAX, "");
    let at_least_one = |value: i32| u32::try_from(value).unwrap_or(1).max(1);
    RateLimit { requests_per_second: at_least_one(rate), burst: at_least_one(burst) }
}
