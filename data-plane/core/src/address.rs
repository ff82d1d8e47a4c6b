//! May this URL and this address be called (D20, R070–R073, S26)?
//!
//! Hides the rules that keep calls out of private networks. [`check_url`] decides on the text, when it is saved and
//! again when it has been rendered; [`check_ip`] decides on each address a name resolves to, when connecting. Only
//! a [`CheckedUrl`] may be called, and requests are built from it, never from the text: two parsers that read one
//! text differently are how such checks are passed.

mod ip;

use url::{Host, Url};

pub use self::ip::{DeniedIp, IpPolicy, check_ip};

/// The longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 8 * 1024;
/// The longest host name, in bytes, without a trailing dot.
pub const MAX_HOST_BYTES: usize = 253;
/// The ports that may be called unless the operator allows more (D20).
pub const DEFAULT_PORTS: [u16; 2] = [443, 8443];

/// Names below these are never the outside world, whatever they resolve to; no setting lifts this.
const DENIED_SUFFIXES: [&str; 9] =
    ["localhost", "local", "localdomain", "internal", "intranet", "home.arpa", "svc", "cluster.local", "lan"];

/// What the operator allows; never a tenant's to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPolicy {
    /// The ports that may be called.
    pub ports: Vec<u16>,
    /// Host names under which this installation is reached from outside: calling them would be a loop.
    pub own_names: Vec<String>,
}

impl Default for UrlPolicy {
    fn default() -> Self {
        Self { ports: DEFAULT_PORTS.to_vec(), own_names: Vec::new() }
    }
}

/// Why a URL may not be called. Messages name the rule and what to do; they never repeat the URL, which may hold a
/// secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Over [`MAX_URL_BYTES`], or a host over [`MAX_HOST_BYTES`].
    #[error("the URL is too long: at most {MAX_URL_BYTES} bytes, and {MAX_HOST_BYTES} for the host name")]
    TooLong,
    /// White space, a control character or a backslash, which parsers silently drop or rewrite.
    #[error("the URL contains white space, a control character or a backslash; percent-encode it")]
    BadCharacter,
    /// No URL, or a host name that is none.
    #[error("this is not a valid URL; write https://, a domain name such as example.com, and the path")]
    Invalid,
    /// Not https (R070).
    #[error("only https:// URLs can be called")]
    Scheme,
    /// `user:password@` before the host.
    #[error("the URL must not contain a user name or password; use a connection for credentials")]
    UserInfo,
    /// An address instead of a domain (R071, R072).
    #[error("the host must be a domain name, not an IP address")]
    IpLiteral,
    /// A name that is not of the public internet.
    #[error("this host name is not a public domain; private and single-word names cannot be called")]
    DeniedName,
    /// Our own name.
    #[error("this host is this installation itself; start a workflow by its trigger instead")]
    Own,
    /// A port that the operator does not allow.
    #[error("this port cannot be called; use 443 or 8443, or ask the operator to allow it")]
    Port,
    /// A rendered URL that left the published host or port (R073).
    #[error("the rendered URL leads to another host or port than the published one; inserts belong after the domain")]
    Moved,
}

impl UrlError {
    /// The reason code, part of the contract.
    pub fn code(self) -> &'static str {
        match self {
            Self::TooLong => "url.too_long",
            Self::BadCharacter => "url.bad_char",
            Self::Invalid => "url.invalid",
            Self::Scheme => "url.scheme",
            Self::UserInfo => "url.userinfo",
            Self::IpLiteral => "egress.ip_literal",
            Self::DeniedName => "egress.denied_name",
            Self::Own => "egress.self",
            Self::Port => "egress.port",
            Self::Moved => "url.moved",
        }
    }
}

/// A URL that may be called: https, a public-looking domain name in lower-case punycode without trailing dot, an
/// allowed port, no user info, no fragment. Where it leads is known only after [`check_ip`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedUrl(Url);

impl CheckedUrl {
    /// The domain name, canonical: one name per pool, rate bucket and allow list.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The port, 443 when none was written.
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// The URL in canonical form.
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// Path and query as they go on the wire; what signatures cover (F52).
    pub fn path_and_query(&self) -> &str {
        &self.0[url::Position::BeforePath..url::Position::AfterQuery]
    }
}

/// The text of a [`CheckedUrl`], for what is kept of each published request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedUrl(Box<str>);

impl From<CheckedUrl> for PublishedUrl {
    fn from(checked: CheckedUrl) -> Self {
        Self(String::from(checked.0).into())
    }
}

impl PublishedUrl {
    /// In canonical form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host, and port unless it is 443.
    pub fn destination(&self) -> &str {
        destination_of(&self.0)
    }

    /// As [`CheckedUrl::host`].
    pub fn host(&self) -> &str {
        let destination = self.destination();
        destination.split_once(':').map_or(destination, |(host, _)| host)
    }
}

/// Host, and port unless it is 443, of a URL in canonical form.
pub fn destination_of(url: &str) -> &str {
    let rest = url.strip_prefix("https://").unwrap_or(url);
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

/// Checks a URL as written by an author, or rendered.
pub fn check_url(text: &str, policy: &UrlPolicy) -> Result<CheckedUrl, UrlError> {
    if text.len() > MAX_URL_BYTES {
        return Err(UrlError::TooLong);
    }
    let authority = literal_authority(text)?;
    // Parsers drop tabs and line ends and read `\` as `/`: what a person reads must be what is called.
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err(UrlError::BadCharacter);
    }
    if authority.contains('@') {
        return Err(UrlError::UserInfo);
    }
    // `https:///host` and the like: parsers skip the extra slashes.
    if authority.is_empty() {
        return Err(UrlError::Invalid);
    }
    let mut url = Url::parse(text).map_err(|_| UrlError::Invalid)?;
    let host = match url.host() {
        Some(Host::Domain(name)) => check_host(name, policy)?,
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => return Err(UrlError::IpLiteral),
        None => return Err(UrlError::Invalid),
    };
    let port = url.port_or_known_default().ok_or(UrlError::Invalid)?;
    if !policy.ports.contains(&port) {
        return Err(UrlError::Port);
    }
    url.set_host(Some(&host)).map_err(|_| UrlError::Invalid)?;
    url.set_fragment(None);
    Ok(CheckedUrl(url))
}

/// Checks a rendered URL and that it still leads to the published one's host and port (R073), and answers it in canonical form.
/// `published` was checked against the same policy: one that is rendered as it was published is not checked again.
pub fn check_rendered(text: &str, published: &PublishedUrl, policy: &UrlPolicy) -> Result<String, UrlError> {
    if text == published.as_str() {
        return Ok(text.to_owned());
    }
    let rendered = String::from(check_url(text, policy)?.0);
    if destination_of(&rendered) == published.destination() { Ok(rendered) } else { Err(UrlError::Moved) }
}

/// What stands between a literal `https://` and the next `/`, `?` or `#`, before any parser has edited it.
fn literal_authority(text: &str) -> Result<&str, UrlError> {
    const PREFIX: &str = "https://";
    // Leading white space is refused below, for what it is.
    let start = text.trim_start_matches(|c: char| c <= ' ');
    match start.get(..PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => {
            let rest = &start[PREFIX.len()..];
            Ok(rest.split(['/', '?', '#']).next().unwrap_or(rest))
        }
        _ => match Url::parse(text) {
            Ok(url) if url.scheme() != "https" => Err(UrlError::Scheme),
            _ => Err(UrlError::Invalid),
        },
    }
}

/// The parser's host (lower-cased, punycode) in canonical form, if it is a name that may be called.
fn check_host(parsed: &str, policy: &UrlPolicy) -> Result<String, UrlError> {
    let name = parsed.strip_suffix('.').unwrap_or(parsed);
    if name.len() > MAX_HOST_BYTES {
        return Err(UrlError::TooLong);
    }
    let labels: Vec<&str> = name.split('.').collect();
    let is_label = |label: &&str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A last label that is a number is an address to some resolver.
    let last = labels.last().copied().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    if !labels.iter().all(is_label) || is_number {
        return Err(UrlError::Invalid);
    }
    let is_below =
        |suffix: &&str| name.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if labels.len() < 2 || name.starts_with("metadata") || DENIED_SUFFIXES.iter().any(is_below) {
        return Err(UrlError::DeniedName);
    }
    let is_own = |own: &String| own.trim_end_matches('.').eq_ignore_ascii_case(name);
    if policy.own_names.iter().any(is_own) {
        return Err(UrlError::Own);
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn cases(name: &str) -> Vec<Value> {
        let file = format!("{}/../../tests/golden/address/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A run such as `{70000}` stands for that many `a`.
    fn expanded(text: &str) -> String {
        [61, 62, 63, 64, 250, 300, 8_171, 8_172, 70_000]
            .into_iter()
            .fold(text.to_owned(), |text, length| text.replace(&format!("{{{length}}}"), &"a".repeat(length)))
    }

    /// Each line: `url`, and its `code` or canonical `accepted`.
    #[test]
    fn golden_urls() {
        let policy = UrlPolicy { own_names: vec!["hooks.sluice.example".into()], ..UrlPolicy::default() };
        for case in cases("urls") {
            match check_url(&expanded(case["url"].as_str().unwrap()), &policy) {
                Ok(checked) => {
                    let accepted = case["accepted"].as_str().map(expanded);
                    assert_eq!(Some(checked.as_url().as_str()), accepted.as_deref(), "{case}");
                    assert_eq!(checked.as_url().host_str(), Some(checked.host()));
                    // What was accepted once is accepted again, unchanged.
                    assert_eq!(check_url(checked.as_url().as_str(), &policy), Ok(checked));
                }
                Err(error) => assert_eq!(Some(error.code()), case["code"].as_str(), "{case}"),
            }
        }
    }

    #[test]
    fn ports_are_the_operators() {
        let policy = UrlPolicy { ports: vec![443, 9443], own_names: vec![] };
        assert_eq!(check_url("https://good.example:9443/", &policy).unwrap().port(), 9443);
        assert_eq!(check_url("https://good.example:8443/", &policy), Err(UrlError::Port));
    }

    #[test]
    fn destinations_are_told_by_host_and_port() {
        for (url, destination) in [
            ("https://api.example.com/a?b", "api.example.com"),
            ("https://api.example.com:8443/", "api.example.com:8443"),
            ("https://api.example.com?x=/y", "api.example.com"),
        ] {
            assert_eq!(destination_of(url), destination);
        }
    }

    #[test]
    fn a_published_url_is_kept_as_its_text() {
        let policy = UrlPolicy { ports: vec![443, 8443], own_names: vec![] };
        for text in ["https://GOOD.example.:8443/x?y", "https://good.example:443", "https://good.example?x=/y:1"] {
            let checked = check_url(text, &policy).unwrap();
            let published = PublishedUrl::from(checked.clone());
            assert_eq!((published.as_str(), published.host()), (checked.as_url().as_str(), checked.host()));
            assert_eq!(published.destination().ends_with(":8443"), checked.port() == 8443, "{text}");
        }
    }

    #[test]
    fn a_rendered_url_stays_where_it_was_published() {
        let policy = UrlPolicy::default();
        let published = check_url("https://good.example/x", &policy).unwrap().into();
        let rendered = check_rendered("https://GOOD.example.:443/a/../b?q=1%26#f", &published, &policy);
        assert_eq!(rendered.as_deref(), Ok("https://good.example/b?q=1%26"));
        for moved in ["https://good.example.evil.com/x", "https://good.example:8443/x"] {
            assert_eq!(check_rendered(moved, &published, &policy), Err(UrlError::Moved));
        }
        assert_eq!(check_rendered("https://good.example@evil.com/", &published, &policy), Err(UrlError::UserInfo));
        let bare = check_url("https://good.example", &policy).unwrap();
        assert_eq!(bare.path_and_query(), "/");
    }

    /// Each line: `ip` and either `denied` (the rule) or `allowed: true`, under the operator's `extra` networks.
    #[test]
    fn golden_ips() {
        for case in cases("ips") {
            let extra = case["extra"].as_array().into_iter().flatten();
            let policy =
                IpPolicy { extra_networks: extra.map(|network| network.as_str().unwrap().parse().unwrap()).collect() };
            match check_ip(case["ip"].as_str().unwrap().parse().unwrap(), &policy) {
                Ok(()) => assert_eq!(case["allowed"], true, "{case}"),
                Err(denied) => {
                    assert_eq!(Some(denied.rule), case["denied"].as_str(), "{case}");
                    assert!(!denied.to_string().contains(case["ip"].as_str().unwrap()), "{denied}");
                }
            }
        }
    }
}
