//! The cURL dialect: a pasted command into a request, and a request into a command (R085–R096, S42–S44).
//!
//! Hides the shells' quoting and curl's rules. [`import`] reads, and nothing else: no file, no network, no environment, no
//! shell (C02, C03). What a stored request cannot say the same is refused with the option's name; what makes no
//! difference is listed as ignored. Credentials become a suggested connection and never a plain header (C07).
//! [`Import::changes`] says what would change before anything does (R087); [`export`] writes a command that bash runs to
//! the same bytes, with placeholders for secrets (C12, C13). Importing it again changes nothing (C14).
//!
//! | Module | Job |
//! |---|---|
//! | `words`, `posix`, `cmd` | a command into words, by the shell it was written for |
//! | `options` | words into options; every option of curl and what it means here |
//! | `import`, `data`, `headers`, `url` | options into a request, by curl's rules |
//! | `credentials` | what is a secret, and the connection it belongs in |
//! | `changes` | what an import would change |
//! | `export` | a request into a command |
//! | `markup` | inserts, which are carried through all of it |
//! | `refusal`, `notes`, [`limits`] | what is said, and what it may cost |

mod changes;
mod cmd;
mod credentials;
mod data;
mod export;
mod headers;
mod import;
pub mod limits;
mod markup;
mod notes;
mod options;
mod posix;
mod refusal;
#[cfg(test)]
mod tests;
mod url;
mod words;

use std::fmt;

pub use changes::{Change, Changes};
pub use credentials::{MASK, Suggestion};
pub use export::{ExportError, export};
pub use notes::{IgnoredOption, Note};
pub use refusal::{Reason, Refusal};

/// How the shell variables begin that stand for secrets in an export.
pub const PLACEHOLDER: &str = "$SLUICE_SECRET_";

/// The part of an outgoing request that a command can say. Texts are templates.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// An upper-case HTTP method; empty while none is chosen.
    pub method: String,
    /// Empty while there is none.
    pub url: String,
    /// In order.
    pub headers: Vec<Header>,
    /// Absent: no body is sent.
    pub body: Option<String>,
}

/// A header of a request.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// A template.
    pub name: String,
    /// A template.
    pub value: String,
}

impl Header {
    /// Names ignore case, and blanks around them.
    fn is(&self, name: &str) -> bool {
        self.name.trim_matches([' ', '\t']).eq_ignore_ascii_case(name.trim_matches([' ', '\t']))
    }

    fn is_secret(&self) -> bool {
        credentials::is_secret(&self.name, &self.value)
    }
}

/// Values that look like secrets are masked.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("url", &url::masked(&self.url))
            .field("headers", &self.headers)
            .field("body", &self.body)
            .finish()
    }
}

/// A value that looks like a secret is masked.
impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.is_secret() { MASK } else { &self.value };
        write!(f, "{:?}: {value:?}", self.name)
    }
}

impl Request {
    /// Names and values of the URL's parameters, as they are written (S43); what looks like a secret is masked. A parameter without
    /// `=` has no value.
    pub fn url_parameters(&self) -> Vec<(String, Option<String>)> {
        let shown = url::masked(&self.url);
        let owned = |(name, value): (&str, Option<&str>)| (name.to_owned(), value.map(str::to_owned));
        url::parameters(&shown).into_iter().map(owned).collect()
    }

    /// Whether there is nothing a confirmation could protect (R091).
    pub fn is_empty(&self) -> bool {
        self.url.is_empty() && self.headers.is_empty() && self.body.as_deref().unwrap_or_default().is_empty()
    }

    fn has_markup(&self) -> bool {
        let headers = self.headers.iter().flat_map(|header| [&header.name, &header.value]);
        headers.chain([&self.url]).chain(&self.body).any(|text| markup::is_in(text))
    }
}

/// What a command says.
#[derive(Clone, Debug)]
pub struct Import {
    /// The request, without credentials.
    pub request: Request,
    /// The connection its credentials suggest. None: the present connection stays.
    pub connection: Option<Suggestion>,
    /// Options that make no difference, each once.
    pub ignored: Vec<IgnoredOption>,
    /// What the author should know.
    pub notes: Vec<Note>,
}

/// Reads one curl command, written for a POSIX shell or copied by a browser for cmd.exe. Takes time in proportion to the
/// text's length.
///
/// # Errors
/// The first thing that cannot be imported, with its place and what to do.
pub fn import(command: &str) -> Result<Import, Refusal> {
    import::read(command).map_err(|fault| fault.into_refusal(command))
}
