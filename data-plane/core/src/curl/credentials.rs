//! What in a request is a secret, and the connection it belongs in (R020). Hides how credentials are recognised.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{PLACEHOLDER, markup};
pub use crate::redact::MASK;
use crate::redact::is_secret_name;
use crate::seal::Secret;

/// The connection that a command's credentials suggest. Nothing is stored until somebody accepts it.
#[derive(Clone, Debug)]
pub enum Suggestion {
    /// Login and password (R023).
    LoginPassword {
        /// Never empty, without `:`.
        login: String,
        /// May be empty.
        password: Secret,
    },
    /// A secret in a header (R034).
    ApiKey {
        /// The header's name.
        header: String,
        /// The header's value, a template with `{{secret}}`.
        value: String,
        /// Empty when it is still to be entered.
        secret: Secret,
    },
}

/// The kind and where the secret goes, never the secret.
impl fmt::Display for Suggestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoginPassword { login, .. } => write!(f, "Login & Password: {login}, {MASK}"),
            Self::ApiKey { header, value, .. } => {
                write!(f, "API Key: {header}: {}", value.replace("{{secret}}", MASK))
            }
        }
    }
}

impl Suggestion {
    /// For HTTP basic authentication with `login:password`.
    pub(super) fn basic(pair: &str) -> Self {
        Self::basic_pair(pair).unwrap_or_else(|| Self::ApiKey {
            header: "Authorization".to_owned(),
            value: "Basic {{secret}}".to_owned(),
            secret: Secret::new(STANDARD.encode(pair)),
        })
    }

    fn basic_pair(pair: &str) -> Option<Self> {
        let (login, password) = pair.split_once(':')?;
        // The rules of such a connection; what breaks them is kept as the encoded pair.
        let fits = !login.is_empty() && !pair.chars().any(char::is_control);
        fits.then(|| Self::LoginPassword { login: login.to_owned(), password: Secret::new(password) })
    }

    /// For a bearer token.
    pub(super) fn bearer(token: &str) -> Self {
        Self::ApiKey {
            header: "Authorization".to_owned(),
            value: "Bearer {{secret}}".to_owned(),
            secret: Secret::new(token),
        }
    }

    /// For the value of an `Authorization` header.
    pub(super) fn authorization(header: &str, value: &str) -> Self {
        let key = |template: String, secret: &str| Self::ApiKey {
            header: header.to_owned(),
            value: template,
            secret: Secret::new(secret),
        };
        // A scheme with a brace could not stand beside an insert.
        let blank =
            value.find([' ', '\t', '{']).filter(|at| !value.get(*at..).is_some_and(|rest| rest.starts_with('{')));
        let Some(blank) = blank else { return key("{{secret}}".to_owned(), value) };
        let (scheme, rest) = value.split_at(blank);
        let secret = rest.trim_start_matches([' ', '\t']);
        if scheme.eq_ignore_ascii_case("basic") {
            let decoded = STANDARD.decode(secret).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let decoded = Secret::new(decoded.unwrap_or_default());
            // Encoded again it must be the same text, else something else would be sent.
            let is_same = value == format!("Basic {}", STANDARD.encode(decoded.expose()));
            if let Some(pair) = Self::basic_pair(decoded.expose()).filter(|_| is_same) {
                return pair;
            }
        }
        let blanks = rest.get(..rest.len() - secret.len()).unwrap_or(" ");
        key(format!("{scheme}{blanks}{{{{secret}}}}"), secret)
    }

    /// Whether the secret is one that a manual leaves to be filled in, such as `<YOUR-TOKEN>` or `{JWT}`.
    pub(super) fn is_to_be_filled_in(&self) -> bool {
        let (Self::LoginPassword { password: secret, .. } | Self::ApiKey { secret, .. }) = self;
        let text = secret.expose();
        let is_between = |open: char, close: char| text.starts_with(open) && text.ends_with(close);
        let crossed_out = !text.is_empty() && text.chars().all(|c| matches!(c, 'x' | 'X' | '*' | '.' | '…'));
        let fits = matches!(self, Self::ApiKey { .. }) && text.is_empty();
        fits || crossed_out
            || is_between('<', '>')
            || is_between('{', '}')
            || is_between('[', ']')
            || is_placeholder(text)
    }
}

/// Whether `value` of a header or parameter `name` is a secret: text under such a name. An insert is the author's.
pub(super) fn is_secret(name: &str, value: &str) -> bool {
    !value.is_empty() && is_secret_name(name) && !markup::is_in(value)
}

/// What stands for the secret in an export: a shell variable that names it.
pub(super) fn placeholder(name: &str, number: usize) -> String {
    let plain = name.trim().chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let number = if number == 1 { String::new() } else { format!("_{number}") };
    format!("{PLACEHOLDER}{}{number}", plain.collect::<String>())
}

/// Whether `text` is what [`placeholder`] writes.
pub(super) fn is_placeholder(text: &str) -> bool {
    text.strip_prefix(PLACEHOLDER)
        .is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}
