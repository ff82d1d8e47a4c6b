//! Who the data planes are (A11 to A15): each joins once with a token and has a certificate of its own from then on, which says who it
//! is; what it may see is kept here.
//!
//! | Module | Answers |
//! |---|---|
//! | `authority` | who vouches for them |
//! | `join_tokens` | with what they may join |
//! | `joining` | how they get a certificate, and the next one |
//! | `rights` | what a certificate that is shown is good for |

mod authority;
mod join_tokens;
mod joining;
mod rights;

pub(crate) use authority::open as open_authority;
pub(crate) use join_tokens::{create, delete, get, list};
pub(crate) use joining::{delete_data_plane, enroll, renew, show_joined};
pub(crate) use rights::{Rights, Scope, authenticate};

/// How long a certificate of a data plane is in force, in milliseconds.
const LIFE_MILLIS: i64 = 24 * 3600 * 1000;
/// For how long after its end a certificate is still taken for renewing it, and for nothing else.
pub(crate) const GRACE: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);
/// How long join tokens are listed after their end, in milliseconds.
pub(crate) const TOKENS_KEPT_MILLIS: i64 = 24 * 3600 * 1000;
