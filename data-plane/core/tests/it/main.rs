//! What core says about data, through its public API. One binary, one file per kind of claim.
#![allow(clippy::unwrap_used, reason = "tests")]

mod attacks;
mod configuration;
mod credentials;
mod forms;
mod golden;
mod hostile;
mod laws;
mod lineage;
mod requests;
mod urls;
