//! Any filter as it comes over the wire, on any request: it is refused, or it answers. Two bytes give the length of the
//! encoded filter (big endian); the body follows it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use sluice_core::address::UrlPolicy;
use sluice_core::envelope::{Envelope, Headers};
use sluice_core::flatten::{Limits, parse_body};
use sluice_core::wire;
use sluice_proto::admin::v1 as admin;

fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let Some((filter, body)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { return };
    let Ok(filter) = admin::Filter::decode(filter) else { return };
    let body = parse_body(body, &Limits::default()).unwrap_or_default();
    let step = admin::Step {
        step_name: "s".into(),
        action: Some(admin::step::Action::OutgoingIntegration("workspaces/w/outgoingIntegrations/o".into())),
        ..Default::default()
    };
    let workflow = admin::Workflow {
        display_name: "w".into(),
        triggers: vec![admin::Trigger {
            incoming_integration: "workspaces/w/incomingIntegrations/i".into(),
            filter: Some(filter),
            ..Default::default()
        }],
        steps: vec![step],
        ..Default::default()
    };
    let Ok(workflow) = wire::workflow(&workflow, &UrlPolicy::default()) else { return };
    let filter = workflow.triggers[0].filter.as_ref().expect("it was taken");
    let envelope = Envelope {
        body: body.into(),
        business_profile_id: 7,
        endpoint_id: "ep".into(),
        event_id: "ev".into(),
        headers: Headers::from_iter([("X-Id", "1"), ("Content-Type", "application/json")]),
        method: "POST".into(),
        time: 1_718_010_931_000,
    };
    assert_eq!(filter.matches(&envelope), filter.matches(&envelope));
});
