//! The one way out: a guarded HTTPS client.
//!
//! Everything Sluice ever asks of another system (a delivery, a token, a test request, a response event) goes
//! through [`Egress::send`]. What this package hides: how a name becomes an address, which addresses may be dialled,
//! how connections are made, kept and thrown away, and what a failure on the wire means for a retry. A caller sees a
//! request, an [`Exchange`], or a closed [`SendError`].
//!
//! The guard has three layers, because each one alone is bypassed by an old trick (S26, D20):
//! the URL is parsed and checked (HTTPS, a domain, an allowed port), the name is resolved once and **every** answer
//! is checked, and the connector dials exactly the checked addresses and refuses IP literals whatever the URL check
//! said. Redirects are not followed (S25), proxies in the environment are ignored (an operator may set one), nothing is decompressed, no cookie
//! is kept.

mod client;
mod credentials;
mod error;
mod guard;
mod proxy;
mod resolver;

pub use client::{Egress, Exchange, Request, Settings, limits};
pub use credentials::apply;
pub use error::{Phase, RequestError, SendError, SettingsError};
pub use proxy::Proxy;
