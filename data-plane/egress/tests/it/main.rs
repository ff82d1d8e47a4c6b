//! The client against real sockets, real TLS and a real name server, all of them scripted.
#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod answers;
mod dialled;
mod dns;
mod exchange;
mod golden;
mod http2;
mod names;
mod server;
