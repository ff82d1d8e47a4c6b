//! The building under test: real planes over real sockets on real storage; only the destination is scripted.
//!
//! | Module | What |
//! |---|---|
//! | [`world`] | both planes and a destination, started as the binary starts them |
//! | [`workspace`] | a tenant: what it creates, publishes and reads, each in one call |
//! | [`resources`] | what there is to create, in few words |
//! | [`fleet`] | many data planes without insides |
//! | [`balancer`] | what an operator puts before planes that are several |
//! | [`authority`] | certificates of a test's own |
//! | [`raw_http`] | a client that sends the very bytes it is given, and reads what comes back |
//! | [`subject`] | both planes in a process of their own, to be killed, listened to and measured |
//! | [`numbers`] | a data plane's numbers |
//! | [`postgres`] | a PostgreSQL server for the tests of one process |
//! | [`redis_server`] | a Redis server of a test's own, to be killed |
//! | [`chaos`] | a line between two that misbehaves as told |
//! | [`patience`] | waiting for conditions, never for time |
//! | [`long`] | what the long mode is |
#![allow(clippy::unwrap_used, reason = "what the harness cannot do fails the test, and says where")]

pub mod authority;
pub mod balancer;
pub mod chaos;
pub mod fleet;
pub mod long;
pub mod numbers;
pub mod patience;
pub mod postgres;
pub mod raw_http;
pub mod redis_server;
pub mod resources;
pub mod subject;
pub mod workspace;
pub mod world;

pub use authority::Authority;
pub use balancer::Balancer;
pub use chaos::{Callee, Line, Mood};
pub use numbers::Numbers;
pub use patience::{PATIENCE, eventually, eventually_within, within};
pub use raw_http::{Answer, RawHttp, Request};
pub use redis_server::RedisServer;
pub use workspace::{Event, Workspace};
pub use world::{Options, World};

/// What a refused call says of its fields: `(field, reason, description)`, all of them.
///
/// # Panics
/// If the status carries no `google.rpc.BadRequest`.
pub fn violations(status: &tonic::Status) -> Vec<(String, String, String)> {
    use tonic_types::StatusExt as _;
    let details = status.get_error_details();
    let bad_request = details.bad_request().unwrap_or_else(|| panic!("no field violations: {status:?}"));
    let violation =
        |one: &tonic_types::FieldViolation| (one.field.clone(), one.reason.clone(), one.description.clone());
    bad_request.field_violations.iter().map(violation).collect()
}

/// The reason a refused call names (`google.rpc.ErrorInfo`).
///
/// # Panics
/// If the status carries none.
pub fn reason(status: &tonic::Status) -> String {
    use tonic_types::StatusExt as _;
    let details = status.get_error_details();
    details.error_info().unwrap_or_else(|| panic!("no reason: {status:?}")).reason.clone()
}
