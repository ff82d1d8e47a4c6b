//! Every option curl has, and how the words of a command become options. Hides short and long forms, glued values,
//! `--no-…` and abbreviations.
//!
//! An option that is not in the table is refused and never skipped: nobody would know whether the next word is its value.

use super::refusal::{Fault, Reason};
use super::words::Word;

/// An option of curl.
#[derive(Debug)]
pub(super) struct Known {
    /// Without dashes.
    pub(super) name: &'static str,
    short: Option<char>,
    takes: Takes,
    pub(super) class: Class,
}

/// What follows the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// A value.
    Value,
    /// Nothing; `--no-` turns it off.
    Switch,
    /// Nothing.
    Flag,
}

/// What the option means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It shapes the request.
    Sets(Setting),
    /// The request is the same without it.
    Ignored(Topic),
    /// It cannot be represented.
    Refused(Reason),
}

/// Options that shape the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[rustfmt::skip]
pub(super) enum Setting {
    Basic, Cookie, Data, DataAscii, DataBinary, DataRaw, DataUrlencode, DisallowUsernameInUrl, Form, FormEscape,
    FormString, Get, Globoff, Head, Header, Json, Oauth2Bearer, PathAsIs, ProtoDefault, Range, Referer, Request, Url,
    UrlQuery, User, UserAgent,
}

/// Why an option makes no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    AuthHelper,
    Compressed,
    CookieJar,
    Default,
    HttpVersion,
    NetworkPath,
    OtherProtocol,
    Quiet,
    Redirects,
    Retries,
    Timeouts,
    TlsPolicy,
    TurnedOff,
    WithoutCredentials,
    WithoutForm,
}

impl Topic {
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::AuthHelper => "it tunes ways to authenticate that are not used",
            Self::Compressed => "responses are asked for as they are",
            Self::CookieJar => "cookies of responses are not kept",
            Self::Default => "it is what happens anyway",
            Self::HttpVersion => "the HTTP version is negotiated",
            Self::NetworkPath => "how the destination is reached is the operator's to set",
            Self::OtherProtocol => "it has no effect on HTTP",
            Self::Quiet => "it changes what curl prints, not what it sends",
            Self::Redirects => "redirects are never followed",
            Self::Retries => "retries are settings of the integration",
            Self::Timeouts => "time and speed limits are settings of the integration",
            Self::TlsPolicy => "the TLS policy is the operator's to set",
            Self::TurnedOff => "it turns off what is off already",
            Self::WithoutCredentials => "without credentials it changes nothing",
            Self::WithoutForm => "without --form it changes nothing",
        }
    }
}

/// One option as given.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) known: &'static Known,
    /// False after `--no-`.
    pub(super) on: bool,
    /// Empty for switches and flags.
    pub(super) value: String,
    /// Where the word with its name begins, in bytes; for a URL without `--url`, the URL.
    pub(super) at: usize,
    /// Written as an unambiguous beginning of its name.
    pub(super) abbreviated: bool,
}

impl Given {
    /// As curl's manual names it.
    pub(super) fn name(&self) -> String {
        format!("--{}", self.known.name)
    }

    pub(super) fn takes_value(&self) -> bool {
        self.known.takes == Takes::Value
    }

    pub(super) fn fault(&self, reason: Reason) -> Fault {
        Fault::new(reason, self.at).of_option(self.name())
    }
}

/// Reads the words after `curl`.
pub(super) fn parse(words: Vec<Word>) -> Result<Vec<Given>, Fault> {
    let mut given = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    let mut only_urls = false;
    while let Some(word) = words.next() {
        if only_urls || !word.text.starts_with('-') {
            given.push(Given { known: &URL, on: true, value: word.text, at: word.at, abbreviated: false });
        } else if word.text == "--" {
            only_urls = true;
        } else if let Some(name) = word.text.strip_prefix("--") {
            given.push(long_option(name, word.at, &mut words)?);
        } else {
            short_options(&word, &mut words, &mut given)?;
        }
    }
    Ok(given)
}

fn long_option(written: &str, at: usize, words: &mut impl Iterator<Item = Word>) -> Result<Given, Fault> {
    let (name, glued) = match written.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (written, None),
    };
    if name.starts_with("expand-") {
        return Err(Fault::new(Reason::Variables, at).of_option("--expand-…"));
    }
    let (known, on, abbreviated) = find_long(name).ok_or_else(|| unknown(name, at))?;
    let mut given = Given { known, on, value: String::new(), at, abbreviated };
    match (known.takes, glued) {
        (Takes::Value, Some(value)) => given.value = value,
        (Takes::Value, None) => given.value = value_of(&given, words)?,
        (Takes::Switch | Takes::Flag, Some(_)) => {
            return Err(given.fault(Reason::BadOptionValue).because("it takes no value"));
        }
        (Takes::Switch | Takes::Flag, None) => {}
    }
    Ok(given)
}

/// What is refused anyway, or helps (`--help`), may go without.
fn value_of(given: &Given, words: &mut impl Iterator<Item = Word>) -> Result<String, Fault> {
    match (words.next(), given.known.class) {
        (Some(word), _) => Ok(word.text),
        (None, Class::Refused(_)) => Ok(String::new()),
        (None, _) => Err(given.fault(Reason::MissingValue)),
    }
}

fn find_long(name: &str) -> Option<(&'static Known, bool, bool)> {
    let exact = |name: &str| KNOWN.binary_search_by(|known| known.name.cmp(name)).ok().and_then(|at| KNOWN.get(at));
    if let Some(known) = exact(name) {
        return Some((known, true, false));
    }
    let switched_off = name.strip_prefix("no-").and_then(exact);
    if let Some(known) = switched_off.filter(|known| known.takes == Takes::Switch) {
        return Some((known, false, false));
    }
    // curl before 8.6 took any unambiguous beginning.
    let mut beginnings = KNOWN.iter().filter(|known| !name.is_empty() && known.name.starts_with(name));
    match (beginnings.next(), beginnings.next()) {
        (Some(known), None) => Some((known, true, true)),
        _ => None,
    }
}

fn short_options(word: &Word, words: &mut impl Iterator<Item = Word>, given: &mut Vec<Given>) -> Result<(), Fault> {
    let mut letters = word.text.chars();
    letters.next();
    if letters.as_str().is_empty() {
        return Err(Fault::new(Reason::UnknownOption, word.at));
    }
    while let Some(letter) = letters.next() {
        let known = KNOWN.iter().find(|known| known.short == Some(letter));
        let known = known.ok_or_else(|| Fault::new(Reason::UnknownOption, word.at))?;
        // `-N` and the like are the short form of `--no-…`; none of them shapes the request.
        let mut option = Given { known, on: true, value: String::new(), at: word.at, abbreviated: false };
        if known.takes != Takes::Value {
            given.push(option);
            continue;
        }
        option.value = match letters.as_str() {
            "" => value_of(&option, words)?,
            glued => glued.to_owned(),
        };
        given.push(option);
        break;
    }
    Ok(())
}

/// The written name may be a misplaced secret: only the nearest name there is gets shown.
fn unknown(name: &str, at: usize) -> Fault {
    let fault = Fault::new(Reason::UnknownOption, at);
    let lower = name.to_ascii_lowercase();
    let nearest = KNOWN
        .iter()
        .map(|known| (distance(&lower, known.name), known.name))
        .min()
        .filter(|(distance, nearest)| *distance <= 2.max(nearest.len() / 4));
    match nearest {
        Some((_, nearest)) => fault.because(format!("the nearest is --{nearest}")),
        None => fault,
    }
}

/// Edits that lead from one name to the other. Long texts are far from every name.
fn distance(written: &str, name: &str) -> usize {
    if written.len() > 40 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (i, a) in written.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(name.bytes()) {
            let best = (*cell + 1).min(left + 1).min(diagonal + usize::from(a != b));
            diagonal = *cell;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// Whether `token` is the name of an option and nothing else.
pub(super) fn is_written_option(token: &str) -> bool {
    match token.strip_prefix("--") {
        Some(name) => KNOWN.iter().any(|known| {
            name == known.name || (known.takes == Takes::Switch && name.strip_prefix("no-") == Some(known.name))
        }),
        None => {
            let mut chars = token.chars();
            let letter = (chars.next(), chars.next(), chars.next());
            matches!(letter, (Some('-'), Some(letter), None) if KNOWN.iter().any(|known| known.short == Some(letter)))
        }
    }
}

const fn long(name: &'static str, takes: Takes, class: Class) -> Known {
    Known { name, short: None, takes, class }
}

const fn short(name: &'static str, short: char, takes: Takes, class: Class) -> Known {
    Known { name, short: Some(short), takes, class }
}

/// What a word without an option is.
static URL: Known = long("url", Value, Sets(Setting::Url));

use Class::{Ignored, Refused, Sets};
use Takes::{Flag, Switch, Value};

/// By name. `tests/golden/curl/options.jsonl` holds the same list, and since when curl has each.
#[rustfmt::skip]
static KNOWN: [Known; 287] = [
    long("abstract-unix-socket", Value, Refused(Reason::ConnectTarget)),
    long("alpn", Switch, Ignored(Topic::HttpVersion)),
    long("alt-svc", Value, Ignored(Topic::HttpVersion)),
    long("anyauth", Flag, Refused(Reason::AuthScheme)),
    short("append", 'a', Switch, Ignored(Topic::OtherProtocol)),
    long("aws-sigv4", Value, Refused(Reason::AuthScheme)),
    long("basic", Switch, Sets(Setting::Basic)),
    short("buffer", 'N', Switch, Ignored(Topic::Quiet)),
    long("ca-native", Switch, Ignored(Topic::TlsPolicy)),
    long("cacert", Value, Refused(Reason::TlsTrust)),
    long("capath", Value, Refused(Reason::TlsTrust)),
    short("cert", 'E', Value, Refused(Reason::ClientCert)),
    long("cert-status", Switch, Ignored(Topic::TlsPolicy)),
    long("cert-type", Value, Refused(Reason::ClientCert)),
    long("ciphers", Value, Ignored(Topic::TlsPolicy)),
    long("clobber", Switch, Ignored(Topic::Quiet)),
    long("compressed", Switch, Ignored(Topic::Compressed)),
    long("compressed-ssh", Switch, Ignored(Topic::OtherProtocol)),
    short("config", 'K', Value, Refused(Reason::ReadsFile)),
    long("connect-timeout", Value, Ignored(Topic::Timeouts)),
    long("connect-to", Value, Refused(Reason::ConnectTarget)),
    short("continue-at", 'C', Value, Refused(Reason::ContinueOrCondition)),
    short("cookie", 'b', Value, Sets(Setting::Cookie)),
    short("cookie-jar", 'c', Value, Ignored(Topic::CookieJar)),
    long("create-dirs", Switch, Ignored(Topic::Quiet)),
    long("create-file-mode", Value, Ignored(Topic::Quiet)),
    long("crlf", Switch, Refused(Reason::BodyTransform)),
    long("crlfile", Value, Refused(Reason::TlsTrust)),
    long("curves", Value, Ignored(Topic::TlsPolicy)),
    short("data", 'd', Value, Sets(Setting::Data)),
    long("data-ascii", Value, Sets(Setting::DataAscii)),
    long("data-binary", Value, Sets(Setting::DataBinary)),
    long("data-raw", Value, Sets(Setting::DataRaw)),
    long("data-urlencode", Value, Sets(Setting::DataUrlencode)),
    long("delegation", Value, Ignored(Topic::AuthHelper)),
    long("digest", Switch, Refused(Reason::AuthScheme)),
    short("disable", 'q', Switch, Ignored(Topic::Quiet)),
    long("disable-eprt", Switch, Ignored(Topic::OtherProtocol)),
    long("disable-epsv", Switch, Ignored(Topic::OtherProtocol)),
    long("disallow-username-in-url", Switch, Sets(Setting::DisallowUsernameInUrl)),
    long("dns-interface", Value, Ignored(Topic::NetworkPath)),
    long("dns-ipv4-addr", Value, Ignored(Topic::NetworkPath)),
    long("dns-ipv6-addr", Value, Ignored(Topic::NetworkPath)),
    long("dns-servers", Value, Ignored(Topic::NetworkPath)),
    long("doh-cert-status", Switch, Ignored(Topic::NetworkPath)),
    long("doh-insecure", Switch, Ignored(Topic::NetworkPath)),
    long("doh-url", Value, Ignored(Topic::NetworkPath)),
    long("dump-ca-embed", Flag, Refused(Reason::NotARequest)),
    short("dump-header", 'D', Value, Ignored(Topic::Quiet)),
    long("ech", Value, Ignored(Topic::TlsPolicy)),
    long("egd-file", Value, Ignored(Topic::TlsPolicy)),
    long("engine", Value, Refused(Reason::ClientCert)),
    long("eprt", Switch, Ignored(Topic::OtherProtocol)),
    long("epsv", Switch, Ignored(Topic::OtherProtocol)),
    long("etag-compare", Value, Refused(Reason::ReadsFile)),
    long("etag-save", Value, Ignored(Topic::Quiet)),
    long("expect100-timeout", Value, Ignored(Topic::Timeouts)),
    short("fail", 'f', Switch, Ignored(Topic::Quiet)),
    long("fail-early", Switch, Ignored(Topic::Quiet)),
    long("fail-with-body", Switch, Ignored(Topic::Quiet)),
    long("false-start", Switch, Ignored(Topic::TlsPolicy)),
    long("follow", Switch, Ignored(Topic::Redirects)),
    short("form", 'F', Value, Sets(Setting::Form)),
    long("form-escape", Switch, Sets(Setting::FormEscape)),
    long("form-string", Value, Sets(Setting::FormString)),
    long("ftp-account", Value, Ignored(Topic::OtherProtocol)),
    long("ftp-alternative-to-user", Value, Ignored(Topic::OtherProtocol)),
    long("ftp-create-dirs", Switch, Ignored(Topic::OtherProtocol)),
    long("ftp-method", Value, Ignored(Topic::OtherProtocol)),
    long("ftp-pasv", Flag, Ignored(Topic::OtherProtocol)),
    short("ftp-port", 'P', Value, Ignored(Topic::OtherProtocol)),
    long("ftp-pret", Switch, Ignored(Topic::OtherProtocol)),
    long("ftp-skip-pasv-ip", Switch, Ignored(Topic::OtherProtocol)),
    long("ftp-ssl", Switch, Ignored(Topic::TlsPolicy)),
    long("ftp-ssl-ccc", Switch, Ignored(Topic::OtherProtocol)),
    long("ftp-ssl-ccc-mode", Value, Ignored(Topic::OtherProtocol)),
    long("ftp-ssl-control", Switch, Ignored(Topic::OtherProtocol)),
    long("ftp-ssl-reqd", Switch, Ignored(Topic::TlsPolicy)),
    short("get", 'G', Switch, Sets(Setting::Get)),
    short("globoff", 'g', Switch, Sets(Setting::Globoff)),
    long("happy-eyeballs-timeout-ms", Value, Ignored(Topic::Timeouts)),
    long("haproxy-clientip", Value, Refused(Reason::Proxy)),
    long("haproxy-protocol", Switch, Refused(Reason::Proxy)),
    short("head", 'I', Switch, Sets(Setting::Head)),
    short("header", 'H', Value, Sets(Setting::Header)),
    short("help", 'h', Value, Refused(Reason::NotARequest)),
    long("hostpubmd5", Value, Ignored(Topic::OtherProtocol)),
    long("hostpubsha256", Value, Ignored(Topic::OtherProtocol)),
    long("hsts", Value, Ignored(Topic::HttpVersion)),
    long("http0.9", Switch, Ignored(Topic::HttpVersion)),
    short("http1.0", '0', Flag, Ignored(Topic::HttpVersion)),
    long("http1.1", Flag, Ignored(Topic::HttpVersion)),
    long("http2", Flag, Ignored(Topic::HttpVersion)),
    long("http2-prior-knowledge", Flag, Ignored(Topic::HttpVersion)),
    long("http3", Flag, Ignored(Topic::HttpVersion)),
    long("http3-only", Flag, Ignored(Topic::HttpVersion)),
    long("httpsig-algo", Value, Refused(Reason::AuthScheme)),
    long("httpsig-headers", Value, Refused(Reason::AuthScheme)),
    long("httpsig-key", Value, Refused(Reason::AuthScheme)),
    long("httpsig-keyid", Value, Refused(Reason::AuthScheme)),
    long("ignore-content-length", Switch, Ignored(Topic::Quiet)),
    long("include", Switch, Ignored(Topic::Quiet)),
    short("insecure", 'k', Switch, Refused(Reason::TlsTrust)),
    long("interface", Value, Ignored(Topic::NetworkPath)),
    long("ip-tos", Value, Ignored(Topic::NetworkPath)),
    long("ipfs-gateway", Value, Ignored(Topic::Quiet)),
    short("ipv4", '4', Flag, Ignored(Topic::NetworkPath)),
    short("ipv6", '6', Flag, Ignored(Topic::NetworkPath)),
    long("json", Value, Sets(Setting::Json)),
    short("junk-session-cookies", 'j', Switch, Ignored(Topic::CookieJar)),
    long("keepalive", Switch, Ignored(Topic::Timeouts)),
    long("keepalive-cnt", Value, Ignored(Topic::Timeouts)),
    long("keepalive-time", Value, Ignored(Topic::Timeouts)),
    long("key", Value, Refused(Reason::ClientCert)),
    long("key-type", Value, Refused(Reason::ClientCert)),
    long("knownhosts", Value, Ignored(Topic::OtherProtocol)),
    long("krb", Value, Ignored(Topic::AuthHelper)),
    long("krb4", Value, Ignored(Topic::AuthHelper)),
    long("libcurl", Value, Ignored(Topic::Quiet)),
    long("limit-rate", Value, Ignored(Topic::Timeouts)),
    short("list-only", 'l', Switch, Ignored(Topic::OtherProtocol)),
    long("local-port", Value, Ignored(Topic::NetworkPath)),
    short("location", 'L', Switch, Ignored(Topic::Redirects)),
    long("location-trusted", Switch, Ignored(Topic::Redirects)),
    long("login-options", Value, Ignored(Topic::AuthHelper)),
    long("mail-auth", Value, Ignored(Topic::OtherProtocol)),
    long("mail-from", Value, Ignored(Topic::OtherProtocol)),
    long("mail-rcpt", Value, Ignored(Topic::OtherProtocol)),
    long("mail-rcpt-allowfails", Switch, Ignored(Topic::OtherProtocol)),
    short("manual", 'M', Switch, Refused(Reason::NotARequest)),
    long("max-filesize", Value, Ignored(Topic::Timeouts)),
    long("max-redirs", Value, Ignored(Topic::Redirects)),
    short("max-time", 'm', Value, Ignored(Topic::Timeouts)),
    long("metalink", Switch, Ignored(Topic::Quiet)),
    long("mptcp", Switch, Ignored(Topic::NetworkPath)),
    long("negotiate", Switch, Refused(Reason::AuthScheme)),
    short("netrc", 'n', Switch, Refused(Reason::ReadsFile)),
    long("netrc-file", Value, Refused(Reason::ReadsFile)),
    long("netrc-optional", Switch, Refused(Reason::ReadsFile)),
    short("next", ':', Flag, Refused(Reason::MultipleRequests)),
    long("noproxy", Value, Ignored(Topic::NetworkPath)),
    long("npn", Switch, Ignored(Topic::HttpVersion)),
    long("ntlm", Switch, Refused(Reason::AuthScheme)),
    long("ntlm-wb", Switch, Refused(Reason::AuthScheme)),
    long("oauth2-bearer", Value, Sets(Setting::Oauth2Bearer)),
    long("out-null", Switch, Ignored(Topic::Quiet)),
    short("output", 'o', Value, Ignored(Topic::Quiet)),
    long("output-dir", Value, Ignored(Topic::Quiet)),
    short("parallel", 'Z', Switch, Ignored(Topic::Quiet)),
    long("parallel-immediate", Switch, Ignored(Topic::Quiet)),
    long("parallel-max", Value, Ignored(Topic::Quiet)),
    long("parallel-max-host", Value, Ignored(Topic::Quiet)),
    long("pass", Value, Refused(Reason::ClientCert)),
    long("path-as-is", Switch, Sets(Setting::PathAsIs)),
    long("pinnedpubkey", Value, Refused(Reason::TlsTrust)),
    long("post301", Switch, Ignored(Topic::Redirects)),
    long("post302", Switch, Ignored(Topic::Redirects)),
    long("post303", Switch, Ignored(Topic::Redirects)),
    long("preproxy", Value, Refused(Reason::Proxy)),
    short("progress-bar", '#', Switch, Ignored(Topic::Quiet)),
    long("progress-meter", Switch, Ignored(Topic::Quiet)),
    long("proto", Value, Ignored(Topic::TlsPolicy)),
    long("proto-default", Value, Sets(Setting::ProtoDefault)),
    long("proto-redir", Value, Ignored(Topic::Redirects)),
    short("proxy", 'x', Value, Refused(Reason::Proxy)),
    long("proxy-anyauth", Switch, Refused(Reason::Proxy)),
    long("proxy-basic", Switch, Refused(Reason::Proxy)),
    long("proxy-ca-native", Switch, Refused(Reason::Proxy)),
    long("proxy-cacert", Value, Refused(Reason::Proxy)),
    long("proxy-capath", Value, Refused(Reason::Proxy)),
    long("proxy-cert", Value, Refused(Reason::Proxy)),
    long("proxy-cert-type", Value, Refused(Reason::Proxy)),
    long("proxy-ciphers", Value, Refused(Reason::Proxy)),
    long("proxy-crlfile", Value, Refused(Reason::Proxy)),
    long("proxy-digest", Switch, Refused(Reason::Proxy)),
    long("proxy-header", Value, Refused(Reason::Proxy)),
    long("proxy-http2", Switch, Refused(Reason::Proxy)),
    long("proxy-http3", Switch, Refused(Reason::Proxy)),
    long("proxy-insecure", Switch, Refused(Reason::Proxy)),
    long("proxy-key", Value, Refused(Reason::Proxy)),
    long("proxy-key-type", Value, Refused(Reason::Proxy)),
    long("proxy-negotiate", Switch, Refused(Reason::Proxy)),
    long("proxy-ntlm", Switch, Refused(Reason::Proxy)),
    long("proxy-pass", Value, Refused(Reason::Proxy)),
    long("proxy-pinnedpubkey", Value, Refused(Reason::Proxy)),
    long("proxy-service-name", Value, Refused(Reason::Proxy)),
    long("proxy-ssl-allow-beast", Switch, Refused(Reason::Proxy)),
    long("proxy-ssl-auto-client-cert", Switch, Refused(Reason::Proxy)),
    long("proxy-tls13-ciphers", Value, Refused(Reason::Proxy)),
    long("proxy-tlsauthtype", Value, Refused(Reason::Proxy)),
    long("proxy-tlspassword", Value, Refused(Reason::Proxy)),
    long("proxy-tlsuser", Value, Refused(Reason::Proxy)),
    long("proxy-tlsv1", Flag, Refused(Reason::Proxy)),
    short("proxy-user", 'U', Value, Refused(Reason::Proxy)),
    long("proxy1.0", Value, Refused(Reason::Proxy)),
    short("proxytunnel", 'p', Switch, Refused(Reason::Proxy)),
    long("pubkey", Value, Ignored(Topic::OtherProtocol)),
    short("quote", 'Q', Value, Ignored(Topic::OtherProtocol)),
    long("random-file", Value, Ignored(Topic::TlsPolicy)),
    short("range", 'r', Value, Sets(Setting::Range)),
    long("rate", Value, Ignored(Topic::Quiet)),
    long("raw", Switch, Ignored(Topic::Quiet)),
    short("referer", 'e', Value, Sets(Setting::Referer)),
    short("remote-header-name", 'J', Switch, Ignored(Topic::Quiet)),
    short("remote-name", 'O', Switch, Ignored(Topic::Quiet)),
    long("remote-name-all", Switch, Ignored(Topic::Quiet)),
    short("remote-time", 'R', Switch, Ignored(Topic::Quiet)),
    long("remove-on-error", Switch, Ignored(Topic::Quiet)),
    short("request", 'X', Value, Sets(Setting::Request)),
    long("request-target", Value, Refused(Reason::ConnectTarget)),
    long("resolve", Value, Refused(Reason::ConnectTarget)),
    long("retry", Value, Ignored(Topic::Retries)),
    long("retry-all-errors", Switch, Ignored(Topic::Retries)),
    long("retry-connrefused", Switch, Ignored(Topic::Retries)),
    long("retry-delay", Value, Ignored(Topic::Retries)),
    long("retry-max-time", Value, Ignored(Topic::Retries)),
    long("sasl-authzid", Value, Ignored(Topic::AuthHelper)),
    long("sasl-ir", Switch, Ignored(Topic::AuthHelper)),
    long("service-name", Value, Ignored(Topic::AuthHelper)),
    long("sessionid", Switch, Ignored(Topic::TlsPolicy)),
    short("show-error", 'S', Switch, Ignored(Topic::Quiet)),
    short("show-headers", 'i', Switch, Ignored(Topic::Quiet)),
    long("sigalgs", Value, Ignored(Topic::TlsPolicy)),
    short("silent", 's', Switch, Ignored(Topic::Quiet)),
    long("skip-existing", Switch, Ignored(Topic::Quiet)),
    long("socks4", Value, Refused(Reason::Proxy)),
    long("socks4a", Value, Refused(Reason::Proxy)),
    long("socks5", Value, Refused(Reason::Proxy)),
    long("socks5-basic", Switch, Refused(Reason::Proxy)),
    long("socks5-gssapi", Switch, Refused(Reason::Proxy)),
    long("socks5-gssapi-nec", Switch, Refused(Reason::Proxy)),
    long("socks5-gssapi-service", Value, Refused(Reason::Proxy)),
    long("socks5-hostname", Value, Refused(Reason::Proxy)),
    short("speed-limit", 'Y', Value, Ignored(Topic::Timeouts)),
    short("speed-time", 'y', Value, Ignored(Topic::Timeouts)),
    long("ssl", Switch, Ignored(Topic::TlsPolicy)),
    long("ssl-allow-beast", Switch, Ignored(Topic::TlsPolicy)),
    long("ssl-auto-client-cert", Switch, Ignored(Topic::TlsPolicy)),
    long("ssl-no-revoke", Switch, Ignored(Topic::TlsPolicy)),
    long("ssl-reqd", Switch, Ignored(Topic::TlsPolicy)),
    long("ssl-revoke-best-effort", Switch, Ignored(Topic::TlsPolicy)),
    long("ssl-sessions", Value, Ignored(Topic::TlsPolicy)),
    short("sslv2", '2', Flag, Ignored(Topic::TlsPolicy)),
    short("sslv3", '3', Flag, Ignored(Topic::TlsPolicy)),
    long("stderr", Value, Ignored(Topic::Quiet)),
    long("styled-output", Switch, Ignored(Topic::Quiet)),
    long("suppress-connect-headers", Switch, Ignored(Topic::Quiet)),
    long("tcp-fastopen", Switch, Ignored(Topic::Timeouts)),
    long("tcp-nodelay", Switch, Ignored(Topic::Timeouts)),
    short("telnet-option", 't', Value, Ignored(Topic::OtherProtocol)),
    long("test-duphandle", Switch, Ignored(Topic::Quiet)),
    long("test-event", Switch, Ignored(Topic::Quiet)),
    long("tftp-blksize", Value, Ignored(Topic::OtherProtocol)),
    long("tftp-no-options", Switch, Ignored(Topic::OtherProtocol)),
    short("time-cond", 'z', Value, Refused(Reason::ContinueOrCondition)),
    long("tls-earlydata", Switch, Ignored(Topic::TlsPolicy)),
    long("tls-max", Value, Ignored(Topic::TlsPolicy)),
    long("tls13-ciphers", Value, Ignored(Topic::TlsPolicy)),
    long("tlsauthtype", Value, Refused(Reason::ClientCert)),
    long("tlspassword", Value, Refused(Reason::ClientCert)),
    long("tlsuser", Value, Refused(Reason::ClientCert)),
    short("tlsv1", '1', Flag, Ignored(Topic::TlsPolicy)),
    long("tlsv1.0", Flag, Ignored(Topic::TlsPolicy)),
    long("tlsv1.1", Flag, Ignored(Topic::TlsPolicy)),
    long("tlsv1.2", Flag, Ignored(Topic::TlsPolicy)),
    long("tlsv1.3", Flag, Ignored(Topic::TlsPolicy)),
    long("tr-encoding", Switch, Ignored(Topic::Compressed)),
    long("trace", Value, Ignored(Topic::Quiet)),
    long("trace-ascii", Value, Ignored(Topic::Quiet)),
    long("trace-config", Value, Ignored(Topic::Quiet)),
    long("trace-ids", Switch, Ignored(Topic::Quiet)),
    long("trace-time", Switch, Ignored(Topic::Quiet)),
    long("unix-socket", Value, Refused(Reason::ConnectTarget)),
    short("upload-file", 'T', Value, Refused(Reason::ReadsFile)),
    long("upload-flags", Value, Ignored(Topic::OtherProtocol)),
    long("url", Value, Sets(Setting::Url)),
    long("url-query", Value, Sets(Setting::UrlQuery)),
    short("use-ascii", 'B', Switch, Ignored(Topic::Quiet)),
    short("user", 'u', Value, Sets(Setting::User)),
    short("user-agent", 'A', Value, Sets(Setting::UserAgent)),
    long("variable", Value, Refused(Reason::Variables)),
    short("verbose", 'v', Switch, Ignored(Topic::Quiet)),
    short("version", 'V', Switch, Refused(Reason::NotARequest)),
    long("vlan-priority", Value, Ignored(Topic::NetworkPath)),
    long("wdebug", Switch, Ignored(Topic::Quiet)),
    short("write-out", 'w', Value, Ignored(Topic::Quiet)),
    long("xattr", Switch, Ignored(Topic::Quiet)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_golden_list() {
        let file = format!("{}/../../tests/golden/curl/options.jsonl", env!("CARGO_MANIFEST_DIR"));
        let mut rows: Vec<serde_json::Value> =
            std::fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        rows.sort_by_key(|row| row["long"].as_str().unwrap().to_owned());
        assert_eq!(rows.len(), KNOWN.len());
        for (row, known) in rows.iter().zip(&KNOWN) {
            assert_eq!(row["long"], known.name);
            assert_eq!(row["short"].as_str(), known.short.map(String::from).as_deref(), "{row}");
            let takes = if row["arg"] == true {
                Value
            } else if row["bool"] == true {
                Switch
            } else {
                Flag
            };
            assert_eq!(known.takes, takes, "{row}");
            let class = row["class"].as_str().unwrap();
            match known.class {
                Sets(setting) => {
                    assert!(["map", "auth"].contains(&class), "{row}");
                    assert_eq!(format!("{setting:?}").to_lowercase(), known.name.replace('-', ""));
                }
                Ignored(topic) => {
                    let topic = format!("{topic:?}").to_lowercase();
                    assert_eq!(topic, class.trim_start_matches("note:").replace('_', ""), "{row}");
                }
                Refused(reason) => assert_eq!(format!("refuse:{}", reason.code()), class),
            }
        }
        // Sorted: it is searched by halves.
        assert!(KNOWN.is_sorted_by(|a, b| a.name < b.name));
    }

    #[test]
    fn short_names_are_not_given_twice() {
        let shorts: Vec<char> = KNOWN.iter().filter_map(|known| known.short).collect();
        let distinct: std::collections::BTreeSet<char> = shorts.iter().copied().collect();
        assert_eq!(shorts.len(), distinct.len());
    }

    #[test]
    fn distances() {
        assert_eq!(distance("header", "header"), 0);
        assert_eq!(distance("heder", "header"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
