//! The control plane as its callers see it: a real server on a free port, spoken to with the generated clients.

// Everything here is a test, helpers included: an `unwrap` that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod access;
mod any_call;
mod api_keys;
mod attacks;
mod audit;
mod authors;
mod beats;
mod commands;
mod connections;
mod contract;
mod curl;
mod data_keys;
mod declared;
mod deleted;
mod deliveries;
mod documents;
mod elsewhere;
mod icons;
mod json;
mod levels;
mod limits;
mod lists;
mod matrix;
mod migrate;
mod outcomes;
mod outsider;
#[expect(unreachable_pub, reason = "the end-to-end tests use it too")]
#[path = "../../../tests/src/postgres.rs"]
mod postgres;
mod publishing;
mod quarantine;
mod replay;
mod replicas;
mod restart;
mod rotation;
mod schema_templates;
mod secrets;
mod set_back;
mod snippets;
mod sync;
mod versions;
mod world;
