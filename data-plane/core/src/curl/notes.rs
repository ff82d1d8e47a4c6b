//! What an import tells besides its result: nothing here stops it.

use std::fmt;

/// Something the author should know. Notes name headers, parameters and options, and never show a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// An option was written as the beginning of its name.
    AbbreviatedOption(String),
    /// The response may come compressed.
    AcceptEncoding,
    /// Credentials that an `Authorization` header replaces.
    CredentialsUnused,
    /// `-b` without cookies.
    CookieEngine,
    /// The suggested connection's secret looks like one that a manual leaves open.
    EnterSecret,
    /// A part of the URL that is never sent.
    FragmentDropped,
    /// A value of `-H` that curl ignores.
    HeaderWithoutColon,
    /// An insert in text that curl would have encoded.
    InsertNotEncoded,
    /// JSON under the type of a form.
    JsonWithoutContentType,
    /// CR LF was read as LF.
    LineBreaksNormalised,
    /// A header that the gateway sets itself was left out.
    OwnedHeader(String),
    /// A header that looks like a secret stays a header.
    SecretInHeader(String),
    /// A URL parameter that looks like a secret stays in the URL.
    SecretInQuery(String),
    /// `{{ … }}`, `{% … %}` or `{# … #}` will be filled in.
    TemplateMarkup,
    /// A login was taken out of the URL.
    UrlUserInfo,
}

impl Note {
    /// Part of the contract.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AbbreviatedOption(_) => "abbreviated_option",
            Self::AcceptEncoding => "accept_encoding",
            Self::CredentialsUnused => "credentials_unused",
            Self::CookieEngine => "cookie_jar",
            Self::EnterSecret => "enter_secret",
            Self::FragmentDropped => "fragment_dropped",
            Self::HeaderWithoutColon => "header_without_colon",
            Self::InsertNotEncoded => "insert_not_encoded",
            Self::JsonWithoutContentType => "json_without_content_type",
            Self::LineBreaksNormalised => "crlf_normalised",
            Self::OwnedHeader(_) => "owned_header",
            Self::SecretInHeader(_) => "secret_in_header",
            Self::SecretInQuery(_) => "secret_in_query",
            Self::TemplateMarkup => "template_markup",
            Self::UrlUserInfo => "url_userinfo",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AbbreviatedOption(name) => write!(f, "an abbreviation was read as {name}; newer curl refuses it"),
            Self::AcceptEncoding => {
                f.write_str("with Accept-Encoding the response may come compressed; it is kept as it comes")
            }
            Self::CredentialsUnused => {
                f.write_str("some credentials were left out: curl would send another Authorization instead of them")
            }
            Self::CookieEngine => f.write_str("-b without cookies changes nothing: cookies of responses are not kept"),
            Self::EnterSecret => f.write_str("the secret looks like an example; enter your own in the connection"),
            Self::FragmentDropped => f.write_str("the part of the URL behind `#` was left out: it is never sent"),
            Self::HeaderWithoutColon => f.write_str("a header without colon was left out: curl ignores it"),
            Self::InsertNotEncoded => {
                f.write_str("curl would encode this value; an insert in it needs the filter `urlencode` for that")
            }
            Self::JsonWithoutContentType => f.write_str(
                "the body looks like JSON but is declared as a form, as curl does; set Content-Type to application/json",
            ),
            Self::LineBreaksNormalised => f.write_str("line breaks of the form CR LF were read as LF"),
            Self::OwnedHeader(name) => write!(f, "header {name} was left out: Sluice sets it itself"),
            Self::SecretInHeader(name) => {
                write!(f, "header {name} looks like a secret; it is safer in a connection")
            }
            Self::SecretInQuery(name) => {
                write!(f, "URL parameter {name} looks like a secret; it is safer in a connection")
            }
            Self::TemplateMarkup => f.write_str("the text between {{ }} or {% %} is filled in when a request is made"),
            Self::UrlUserInfo => f.write_str("the login in the URL was moved to the suggested connection"),
        }
    }
}

/// An option that makes no difference here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredOption {
    /// As curl's manual names it.
    pub option: String,
    /// Why it makes no difference.
    pub why: &'static str,
}
