//! One binary, one file per behaviour.
#![allow(clippy::unwrap_used, reason = "tests")]

mod articles;
mod articles_outgoing;
mod attack_table;
mod capture;
mod chain;
mod connections;
mod control_numbers;
mod crash;
mod dedup;
mod deliveries;
mod dispatch;
mod endpoint;
mod enrolment;
mod events;
mod flows;
mod forms;
mod jwt;
mod lineage;
mod meta;
mod nack;
mod offline;
mod operator;
mod publish;
mod publish_crash;
mod reflection;
mod replay;
mod rotation;
mod secrets;
mod shared_inbox;
mod snippets;
mod tidy;
mod tls;
mod tokens;
mod trials;
mod trigger;
