//! The one binary, as a library so that tests start exactly what it starts.
//!
//! | Module | What |
//! |---|---|
//! | [`folder`] | a data folder: where everything is, and the master key |
//! | [`dev`] | both planes in one process, on one data folder |
//! | [`demo`] | the main job, told as it happens |
//! | [`args`] | what the planes are started with, from the command line or the environment |
//! | [`inbox_args`] | of that, which inbox a data plane has |
//! | [`hardening`] | what the process does to itself before it has secrets |
//! | [`destination`] | a scripted HTTPS destination, for the demo and for tests |

pub mod args;
pub mod demo;
pub mod destination;
pub mod dev;
pub mod folder;
pub mod hardening;
pub mod inbox_args;
