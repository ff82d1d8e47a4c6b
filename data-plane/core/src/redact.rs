//! What a destination sends back must not hold what we sent to be let in (R11, I7).
//!
//! Hides the forms a secret can come back in. A [`Redactor`] knows the secrets of one attempt and replaces each occurrence by
//! [`MASK`]:
//!
//! - as it is,
//! - in hex, all digits in lower or all in upper case,
//! - in base64, standard and URL-safe, alone or at any place within something longer; the characters at the ends that the
//!   secret shares with its neighbours are masked too,
//! - each of these percent-encoded, in whole or in part, a space as `%20` or `+`,
//! - each of these within a JSON string, whichever characters are escaped.
//!
//! Time is linear in what is searched. What is left out, knowingly: secrets shorter than [`SECRET_BYTES_MIN`], names of headers,
//! forms of forms (base64 of hex), and other codings: redaction is against a destination that repeats what it got, not
//! against one that means to give it away.
//!
//! The mask stands in place of the whole form, so a JSON string stays a JSON string. A secret of digits alone that comes back as a
//! JSON number leaves no JSON; the body is then treated as text. `Content-Length` stays as the destination sent it and
//! tells of the body before redaction.

use std::sync::{Arc, Mutex, PoisonError};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::credentials::Credential;
use crate::model::{Placement, Scheme, SigningKey};
use crate::seal::Secret;

/// What stands in place of a secret.
pub const MASK: &str = "******";
/// Shorter secrets are not looked for: they would be found by chance, in numbers, dates and words.
pub const SECRET_BYTES_MIN: usize = 6;

/// Names of headers and URL parameters that hold a secret, without `-` and `_`.
#[rustfmt::skip]
const SECRET_NAMES: [&str; 30] = [
    "accesskey", "accesstoken", "apikey", "apisecret", "apitoken", "auth", "authkey", "authorization", "authtoken",
    "clientsecret", "cookie", "key", "ocpapimsubscriptionkey", "passwd", "password", "privatetoken",
    "proxyauthorization", "pwd", "secret", "secretkey", "sessiontoken", "sig", "signature", "subscriptionkey", "token",
    "xaccesstoken", "xapikey", "xauthkey", "xauthtoken", "xgitlabtoken",
];

/// Whether a header or URL parameter of this name usually holds a secret: it is masked wherever a request is shown.
pub fn is_secret_name(name: &str) -> bool {
    let plain =
        || name.trim().bytes().filter(|byte| !matches!(byte, b'-' | b'_')).map(|byte| byte.to_ascii_lowercase());
    SECRET_NAMES.iter().any(|secret| plain().eq(secret.bytes()))
}

/// Whether a header of an incoming request holds a secret or a signature of its sender: its value is masked in samples (D23).
pub fn is_sender_secret(name: &str) -> bool {
    is_secret_name(name) || name.to_ascii_lowercase().contains("signature")
}

/// Finds the secrets of one attempt. Cheap to clone.
#[derive(Clone, Default)]
pub struct Redactor {
    /// `None`: there is nothing to look for.
    search: Option<Arc<Search>>,
}

/// The last redactor that was made, for as long as the secrets stay the same: for a token of 800 characters, making one costs more
/// than all the rest of a delivery. Of the secrets it keeps a digest only.
#[derive(Debug, Default)]
pub struct LastRedactor(Mutex<Option<([u8; 32], Redactor)>>);

impl LastRedactor {
    /// [`Redactor::of_attempt`], made anew only if the secrets are others than the last time.
    pub fn of_attempt<'a>(&self, used: impl IntoIterator<Item = (&'a Scheme, &'a Credential)>) -> Redactor {
        let secrets = secrets(used);
        if secrets.is_empty() {
            return Redactor::default();
        }
        let mut digest = Sha256::new();
        for secret in &secrets {
            digest.update(secret.len().to_be_bytes());
            digest.update(secret);
        }
        let digest = digest.finalize().into();
        let last = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, redactor)) = last().as_ref().filter(|(of, _)| *of == digest) {
            return redactor.clone();
        }
        let redactor = Redactor::new(secrets);
        *last() = Some((digest, redactor.clone()));
        redactor
    }
}

struct Search {
    automaton: AhoCorasick,
    patterns: Vec<Pattern>,
    /// One of the secrets holds a space, which a form writes as `+`.
    spaces: bool,
}

/// One form of one secret.
struct Pattern {
    bytes: Vec<u8>,
    /// Characters before and after that the secret decides in part.
    shared: (usize, usize),
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let patterns = self.search.as_ref().map_or(0, |search| search.patterns.len());
        f.debug_struct("Redactor").field("patterns", &patterns).finish()
    }
}

/// The secrets that a connection keeps.
fn kept(scheme: &Scheme) -> Vec<&[u8]> {
    match scheme {
        Scheme::None => Vec::new(),
        Scheme::LoginPassword { password: secret, .. }
        | Scheme::ApiKey { secret, .. }
        | Scheme::SyneriseApiKey { api_key: secret, .. }
        | Scheme::Sha256 { client_secret: secret, .. } => vec![secret.expose().as_bytes()],
        Scheme::OAuth2ClientCredentials(oauth2) => vec![oauth2.client_secret.expose().as_bytes()],
        Scheme::Custom(custom) => vec![custom.secret.expose().as_bytes()],
        Scheme::StandardWebhooks { keys } => keys.iter().map(SigningKey::expose).collect(),
        Scheme::HmacSignature(recipe) => recipe.keys.iter().map(SigningKey::expose).collect(),
    }
}

/// What was made of them, and of what was fetched with them: all but what the author wrote out.
fn made<'a>(scheme: &Scheme, credential: &'a Credential) -> Vec<&'a str> {
    let (headers, url_parameters): (&[Placement], &[Placement]) = match scheme {
        Scheme::ApiKey { placements, .. } => (&placements.headers, &placements.url_parameters),
        Scheme::Custom(custom) => (&custom.placements.headers, &custom.placements.url_parameters),
        Scheme::None
        | Scheme::LoginPassword { .. }
        | Scheme::OAuth2ClientCredentials(_)
        | Scheme::SyneriseApiKey { .. }
        | Scheme::Sha256 { .. }
        | Scheme::StandardWebhooks { .. }
        | Scheme::HmacSignature(_) => (&[], &[]),
    };
    let of = |credentials: &'a [(String, Secret)], placements: &[Placement]| -> Vec<&'a str> {
        let is_fixed =
            |name: &str| placements.iter().any(|placement| placement.name == name && placement.value.is_static());
        credentials.iter().filter(|(name, _)| !is_fixed(name)).map(|(_, value)| value.expose()).collect()
    };
    [of(&credential.headers, headers), of(&credential.url_parameters, url_parameters)].concat()
}

/// The secrets of one attempt, see [`Redactor::of_attempt`].
fn secrets<'a>(used: impl IntoIterator<Item = (&'a Scheme, &'a Credential)>) -> Vec<&'a [u8]> {
    let mut secrets: Vec<&[u8]> = Vec::new();
    for (scheme, credential) in used {
        secrets.extend(kept(scheme));
        for value in made(scheme, credential) {
            secrets.push(value.as_bytes());
            // Servers tell of credentials without the word before them.
            secrets.extend(value.split_once(' ').map(|(_, credentials)| credentials.as_bytes()));
        }
    }
    secrets
}

impl Redactor {
    /// Of one attempt: what each connection that it used keeps secret, and the credentials that were made of it. Signatures
    /// may come back: nothing can be done with them but what was done.
    pub fn of_attempt<'a>(used: impl IntoIterator<Item = (&'a Scheme, &'a Credential)>) -> Self {
        Self::new(secrets(used))
    }

    /// Of these secrets.
    pub fn new<'a, S: AsRef<[u8]> + ?Sized + 'a>(secrets: impl IntoIterator<Item = &'a S>) -> Self {
        let secrets = secrets.into_iter().map(AsRef::as_ref);
        let mut secrets: Vec<&[u8]> = secrets.filter(|secret| secret.len() >= SECRET_BYTES_MIN).collect();
        secrets.sort_unstable();
        secrets.dedup();
        let patterns: Vec<Pattern> = secrets.iter().flat_map(|secret| forms(secret)).collect();
        if patterns.is_empty() {
            return Self::default();
        }
        // Built whenever a token changes, and for each attempt where credentials differ: the kind that is built fast.
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .build(patterns.iter().map(|pattern| &pattern.bytes));
        // It fails for billions of states only.
        let spaces = secrets.iter().any(|secret| secret.contains(&b' '));
        Self { search: automaton.ok().map(|automaton| Arc::new(Search { automaton, patterns, spaces })) }
    }

    /// The text without secrets; `None` when there is none in it.
    pub fn text(&self, text: &str) -> Option<String> {
        self.bytes(text.as_bytes(), false).map(|redacted| String::from_utf8_lossy(&redacted).into_owned())
    }

    /// The bytes without secrets; `None` when there is none in them. Of bytes that were `cut` at a limit, the end goes too when a
    /// secret begins there with at least [`SECRET_BYTES_MIN`] bytes.
    pub fn bytes(&self, bytes: &[u8], cut: bool) -> Option<Vec<u8>> {
        let search = self.search.as_ref()?;
        let mut found = search.find(bytes, cut);
        let views = [
            bytes.contains(&b'\\').then(|| View::of_json(bytes)),
            bytes.contains(&b'%').then(|| View::of_url(bytes, false)),
            (search.spaces && bytes.contains(&b'+')).then(|| View::of_url(bytes, true)),
        ];
        for view in views.into_iter().flatten() {
            found.extend(search.find(&view.bytes, cut).into_iter().map(|(from, to)| (view.at[from], view.at[to])));
        }
        if found.is_empty() { None } else { Some(masked(bytes, found)) }
    }
}

impl Search {
    /// Where secrets are, from and to.
    fn find(&self, bytes: &[u8], cut: bool) -> Vec<(usize, usize)> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        for one in self.automaton.find_overlapping_iter(bytes) {
            let (mut from, mut to) = (one.start(), one.end());
            let (before, after) = self.patterns[one.pattern().as_usize()].shared;
            let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte);
            from -= bytes[..from].iter().rev().take(before).take_while(|byte| is_base64(byte)).count();
            to += bytes[to..].iter().take(after).take_while(|byte| is_base64(byte)).count();
            // They come in the order of their ends: what they overlap is at the end of the list.
            while let Some(last) = found.last().filter(|last| last.1 >= from) {
                (from, to) = (from.min(last.0), to.max(last.1));
                found.pop();
            }
            found.push((from, to));
        }
        if cut {
            let begun = self.patterns.iter().map(|pattern| begun(&pattern.bytes, bytes)).max().unwrap_or_default();
            if begun >= SECRET_BYTES_MIN {
                found.push((bytes.len() - begun, bytes.len()));
            }
        }
        found
    }
}

/// How many bytes of `pattern` `bytes` end with, fewer than all (Knuth, Morris and Pratt).
fn begun(pattern: &[u8], bytes: &[u8]) -> usize {
    let mut borders = vec![0; pattern.len()];
    let mut length = 0;
    for at in 1..pattern.len() {
        while length > 0 && pattern[at] != pattern[length] {
            length = borders[length - 1];
        }
        length += usize::from(pattern[at] == pattern[length]);
        borders[at] = length;
    }
    length = 0;
    for byte in &bytes[bytes.len().saturating_sub(pattern.len() - 1)..] {
        while length > 0 && *byte != pattern[length] {
            length = borders[length - 1];
        }
        length += usize::from(*byte == pattern[length]);
    }
    length
}

/// The forms a secret is looked for in; percent-encoding and JSON are undone before.
fn forms(secret: &[u8]) -> Vec<Pattern> {
    let exactly = |bytes: Vec<u8>| Pattern { bytes, shared: (0, 0) };
    let mut forms = vec![
        exactly(secret.to_vec()),
        exactly(hex::encode(secret).into_bytes()),
        exactly(hex::encode_upper(secret).into_bytes()),
    ];
    for before in 0..3 {
        // The secret decides the characters whose six bits are all its own.
        let encoded = STANDARD.encode([&[0; 2][..before], secret].concat()).into_bytes();
        let (from, to) = ((before * 8).div_ceil(6), (before + secret.len()) * 8 / 6);
        let shared_after = usize::from(!((before + secret.len()) * 8).is_multiple_of(6));
        let shared = (usize::from(before > 0), shared_after);
        let standard = encoded[from..to].to_vec();
        let url_safe: Vec<u8> = standard
            .iter()
            .map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            })
            .collect();
        if url_safe != standard {
            forms.push(Pattern { bytes: url_safe, shared });
        }
        forms.push(Pattern { bytes: standard, shared });
    }
    forms
}

/// Puts the mask in place of each of these ranges; those that touch become one.
fn masked(bytes: &[u8], mut ranges: Vec<(usize, usize)>) -> Vec<u8> {
    ranges.sort_unstable();
    let mut masked = Vec::with_capacity(bytes.len());
    let mut done = 0;
    let mut ranges = ranges.into_iter().peekable();
    while let Some((from, mut to)) = ranges.next() {
        while let Some((_, further)) = ranges.next_if(|next| next.0 <= to) {
            to = to.max(further);
        }
        masked.extend_from_slice(&bytes[done..from]);
        masked.extend_from_slice(MASK.as_bytes());
        done = to;
    }
    masked.extend_from_slice(&bytes[done..]);
    masked
}

/// Bytes with one coding undone, and where each of them comes from.
struct View {
    bytes: Vec<u8>,
    /// Where the form of each byte begins; one more, the end.
    at: Vec<usize>,
}

impl View {
    fn with_room(bytes: &[u8]) -> Self {
        Self { bytes: Vec::with_capacity(bytes.len()), at: Vec::with_capacity(bytes.len() + 1) }
    }

    fn push(&mut self, decoded: &[u8], at: usize) {
        self.bytes.extend_from_slice(decoded);
        self.at.extend(decoded.iter().map(|_| at));
    }

    /// Every `%41` undone; with `plus`, a `+` is a space.
    fn of_url(bytes: &[u8], plus: bool) -> Self {
        let mut view = Self::with_room(bytes);
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let escaped = (*byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten().and_then(hex_digits);
            match escaped.and_then(|code| u8::try_from(code).ok()) {
                Some(decoded) => view.push(&[decoded], at),
                None => view.push(&[if plus && *byte == b'+' { b' ' } else { *byte }], at),
            }
            at += if escaped.is_some() { 3 } else { 1 };
        }
        view.at.push(at);
        view
    }

    /// Every escape of a JSON string undone, wherever it stands.
    fn of_json(bytes: &[u8]) -> Self {
        let mut view = Self::with_room(bytes);
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let simple = match bytes.get(at + 1) {
                _ if *byte != b'\\' => None,
                Some(literal @ (b'"' | b'\\' | b'/')) => Some(*literal),
                Some(b'b') => Some(8),
                Some(b'f') => Some(12),
                Some(b'n') => Some(b'\n'),
                Some(b'r') => Some(b'\r'),
                Some(b't') => Some(b'\t'),
                _ => None,
            };
            let taken = match (simple, escaped_char(&bytes[at..])) {
                (Some(decoded), _) => {
                    view.push(&[decoded], at);
                    2
                }
                (None, Some((decoded, taken))) => {
                    view.push(decoded.encode_utf8(&mut [0; 4]).as_bytes(), at);
                    taken
                }
                (None, None) => {
                    view.push(&[*byte], at);
                    1
                }
            };
            at += taken;
        }
        view.at.push(at);
        view
    }
}

/// The character of a leading `\u00e4`, or of a pair of them beyond U+FFFF, and how long its form is.
fn escaped_char(bytes: &[u8]) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let escape = bytes.get(at..at + 6)?;
        if escape.starts_with(b"\\u") { hex_digits(&escape[2..]) } else { None }
    };
    let first = unit(0)?;
    if let Some(decoded) = char::from_u32(first) {
        return Some((decoded, 6));
    }
    let units = [u16::try_from(first).ok()?, u16::try_from(unit(6)?).ok()?];
    let decoded = char::decode_utf16(units).next()?.ok()?;
    Some((decoded, 12))
}

fn hex_digits(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

    const SECRET: &str = "CANARY-\"pa ss/w+rd\"-ä-\u{1f511}?>~~";

    fn redacted(text: &str) -> String {
        Redactor::new([SECRET]).text(text).unwrap_or_else(|| text.to_owned())
    }

    fn percent(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02x}")).collect()
    }

    #[test]
    fn names_of_secrets() {
        for secret in ["Authorization", "cookie", "X-Api-Key", "x_api_key", " Proxy-Authorization"] {
            assert!(is_secret_name(secret), "{secret}");
        }
        for other in ["Accept", "Content-Type", "X-Request-ID", "keyword"] {
            assert!(!is_secret_name(other), "{other}");
        }
    }

    #[test]
    fn r11_a_secret_is_found_in_every_form() {
        let json = serde_json::to_string(SECRET).unwrap();
        let json = json.trim_matches('"');
        let ascii: String = SECRET.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
        let form = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect::<String>();
        let forms = [
            SECRET.to_owned(),
            hex::encode(SECRET),
            hex::encode_upper(SECRET),
            STANDARD.encode(SECRET),
            STANDARD_NO_PAD.encode(SECRET),
            URL_SAFE.encode(SECRET),
            URL_SAFE_NO_PAD.encode(SECRET),
            percent(SECRET),
            form.clone(),
            form.replace("%2F", "/").replace("%2B", "%2b"),
            SECRET.replace('"', "%22").replace('+', "%2B"),
            json.to_owned(),
            json.replace('/', "\\/").replace('>', "\\u003e"),
            ascii,
            STANDARD.encode(SECRET).replace('/', "\\/"),
            percent(&STANDARD.encode(SECRET)),
        ];
        for form in forms {
            let masked = redacted(&format!("before {form} after"));
            assert!(masked.starts_with("before ******") && masked.ends_with(" after"), "{form}: {masked}");
            // What may be left of base64 is padding that tells nothing but a length.
            assert!(masked.trim_matches(|c| "before ******= %3d after".contains(c)).is_empty(), "{form}: {masked}");
        }
    }

    #[test]
    fn r11_within_longer_base64_no_character_of_the_secret_stays() {
        for (before, after) in [("", ""), ("l:", " tail"), ("ab:", "x"), ("abc:", "yy"), ("login:", "zzz")] {
            for secret in [SECRET, "123456", "1234567", "12345678"] {
                let whole = format!("{before}{secret}{after}");
                for encoded in [STANDARD.encode(&whole), URL_SAFE_NO_PAD.encode(&whole)] {
                    let masked = Redactor::new([secret]).text(&format!("Basic {encoded}!")).unwrap();
                    let (head, tail) = masked.split_once(MASK).unwrap();
                    let head = head.strip_prefix("Basic ").unwrap();
                    // Bits of the secret: the characters left are those of the neighbours alone.
                    assert!(head.len() * 6 <= before.len() * 8, "{masked}");
                    let left = tail.trim_end_matches('!').trim_end_matches('=');
                    assert!(left.len() * 6 <= after.len().div_ceil(1) * 8 + 5, "{masked}");
                    assert!(encoded.starts_with(head) && encoded.trim_end_matches('=').ends_with(left), "{masked}");
                }
            }
        }
    }

    #[test]
    fn an_attempt_has_the_secrets_kept_and_made() {
        use crate::credentials::credential;
        use crate::model::Placements;
        use crate::template::{Mode, Template};
        let placement = |name: &str, value: &str| Placement {
            name: name.to_owned(),
            value: Template::compile(value, Mode::Header).unwrap(),
        };
        let scheme = Scheme::ApiKey {
            secret: Secret::new("hunter22"),
            placements: Placements {
                headers: vec![
                    placement("Accept", "application/json"),
                    placement("authorization", "Key {{ secret | reverse }}"),
                    placement("x-key", "k={{ secret | md5 }}"),
                ],
                url_parameters: vec![placement("key", "{{ secret | upper }}")],
            },
        };
        let made = credential(&scheme, None).unwrap();
        let redactor = Redactor::of_attempt([(&scheme, &made)]);
        let said = "hunter22 Key 22retnuh 22retnuh HUNTER22 application/json";
        assert_eq!(redactor.text(said).unwrap(), "****** ****** ****** ****** application/json");
        let md5 = &made.headers[2].1;
        assert_eq!(redactor.text(md5.expose()).unwrap(), MASK);

        let login = Scheme::LoginPassword { login: "me".to_owned(), password: Secret::new("hunter22") };
        let made = credential(&login, None).unwrap();
        let signing = Scheme::StandardWebhooks { keys: vec![SigningKey::new(b"\x00\xffsigning key".to_vec().into())] };
        let redactor = Redactor::of_attempt([(&login, &made), (&signing, &Credential::default())]);
        assert_eq!(redactor.text("whsec_AP9zaWduaW5nIGtleQ==").unwrap(), "whsec_******==");
        let said = format!("{} me hunter22", STANDARD.encode("me:hunter22"));
        assert_eq!(redactor.text(&said).unwrap(), "****** me ******");
        assert!(Redactor::of_attempt([(&Scheme::None, &Credential::default())]).search.is_none());
    }

    #[test]
    fn a_redactor_is_remembered_for_the_same_secrets_only() {
        let login = |password: &str| Scheme::LoginPassword { login: "me".to_owned(), password: Secret::new(password) };
        let (one, other) = (login("hunter22"), login("hunter23"));
        let remembered = LastRedactor::default();
        let of = |scheme: &Scheme| {
            let made = crate::credentials::credential(scheme, None).unwrap();
            remembered.of_attempt([(scheme, &made)])
        };
        let search = |redactor: &Redactor| Arc::as_ptr(redactor.search.as_ref().unwrap());
        let first = of(&one);
        assert_eq!(search(&first), search(&of(&one)));
        assert_eq!(of(&other).text("hunter22 hunter23").unwrap(), "hunter22 ******");
        assert_eq!(of(&one).text("hunter22 hunter23").unwrap(), "****** hunter23");
        assert!(remembered.of_attempt([(&Scheme::None, &Credential::default())]).search.is_none());
    }

    #[test]
    fn json_stays_json() {
        let body = serde_json::json!({"error": format!("the key {SECRET} is unknown"), "n": [1, SECRET]}).to_string();
        let masked: serde_json::Value = serde_json::from_str(&redacted(&body)).unwrap();
        assert_eq!(masked, serde_json::json!({"error": "the key ****** is unknown", "n": [1, "******"]}));
    }

    #[test]
    fn what_holds_no_secret_is_not_touched() {
        let redactor = Redactor::new([SECRET, "short", ""]);
        for text in ["", "short", "CANARY-\"pa ss", r#"{"a":"\\ % \u00 \ud83d %zz %2"}"#, "100 %", "a+b"] {
            assert_eq!(redactor.text(text), None, "{text}");
        }
        let nothing = Redactor::new(["12345"]);
        assert!(nothing.search.is_none());
        assert_eq!(nothing.text("12345"), None);
        assert!(Redactor::new(["123456"]).text("123456").is_some());
        assert!(!format!("{:?}", Redactor::new(["hunter22"])).contains("hunter"));
    }

    #[test]
    fn occurrences_that_overlap_or_touch_go_whole() {
        let redactor = Redactor::new(["abcabc", "bcabcd", "secret-1"]);
        assert_eq!(redactor.text("x abcabcabcd y").unwrap(), "x ****** y");
        assert_eq!(redactor.text("secret-1secret-1 secret-1").unwrap(), "****** ******");
        let one_in_the_other = Redactor::new(["hunter2", "Bearer hunter2"]);
        assert_eq!(one_in_the_other.text("Bearer hunter2; hunter2").unwrap(), "******; ******");
    }

    #[test]
    fn a_secret_that_a_limit_cut_goes_too() {
        let redactor = Redactor::new(["abcabcabx-tail", "other-secret"]);
        let cut = |bytes: &[u8]| redactor.bytes(bytes, true).map(|left| String::from_utf8(left).unwrap());
        assert_eq!(cut(b"{\"key\": \"abcabcabx").unwrap(), "{\"key\": \"******");
        assert_eq!(cut(b"abcabcabcab").unwrap(), "abc******");
        assert_eq!(cut(b"... abcab"), None, "five bytes");
        assert_eq!(cut(b"other-%73ecr").unwrap(), "******");
        assert_eq!(redactor.bytes(b"... abcabcab", false), None, "nothing was cut");
    }

    #[test]
    fn any_bytes_are_searched() {
        let redactor = Redactor::new(["secret-1"]);
        assert_eq!(redactor.bytes(b"\xff\\\xfe secret-1 \x00%\\", false).unwrap(), b"\xff\\\xfe ****** \x00%\\");
    }

    #[test]
    fn repeated_secrets_take_linear_time() {
        let (secret, longer) = ("a".repeat(2048), "a".repeat(4096));
        let redactor = Redactor::new([secret.as_str(), longer.as_str()]);
        let body = format!("{}%", "a".repeat(1 << 20));
        assert_eq!(redactor.bytes(body.as_bytes(), true).unwrap(), b"******%");
    }
}
