//! From options to one request. Hides curl's rules: which method is implied, which headers it adds, what wins over what.

use sluice_proto::admin::v1::HttpMethod;

use super::credentials::{Suggestion, is_placeholder, is_secret};
use super::data::{self, Data};
use super::headers::{self, Line};
use super::notes::{IgnoredOption, Note};
use super::options::{self, Class, Given, Setting, Topic};
use super::refusal::{Fault, Reason};
use super::url::{self, Reading, Target};
use super::words::{self, Word};
use super::{Header, Import, Request, markup};
use crate::request::{HeaderProblem, check_header_name, is_token};
use crate::seal::Secret;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// Reads a whole command.
pub(super) fn read(text: &str) -> Result<Import, Fault> {
    let mut command = words::split(text)?;
    let mut gathered = Gathered::default();
    if command.line_breaks_normalised {
        gathered.notes.push(Note::LineBreaksNormalised);
    }
    command.words.remove(0);
    for given in options::parse(command.words)? {
        gathered.take(given, &mut command.stdin)?;
    }
    if let Some(unread) = command.stdin {
        return Err(Fault::new(Reason::ShellOperator, unread.at).because("no option reads this input"));
    }
    gathered.build()
}

/// All that the options say; where one value counts, the last.
#[derive(Default)]
struct Gathered {
    urls: Vec<Given>,
    method: Option<Given>,
    head: Option<Given>,
    form: Option<Given>,
    data: Data,
    query: Option<String>,
    headers: Vec<Given>,
    cookies: Option<String>,
    user_agent: Option<Given>,
    referer: Option<Given>,
    range: Option<Given>,
    user: Option<Given>,
    bearer: Option<Given>,
    /// `--digest` and the like, which matter only with credentials.
    handshake: Option<Given>,
    basic: Option<Given>,
    default_scheme: Option<String>,
    data_to_query: bool,
    literal_braces: bool,
    path_as_is: bool,
    refuse_user_info: Option<Given>,
    ignored: Vec<IgnoredOption>,
    notes: Vec<Note>,
}

impl Gathered {
    fn take(&mut self, given: Given, stdin: &mut Option<Word>) -> Result<(), Fault> {
        if given.abbreviated {
            self.note(Note::AbbreviatedOption(given.name()));
        }
        match given.known.class {
            Class::Sets(setting) => self.set(setting, given, stdin)?,
            Class::Ignored(topic) => {
                check_number(&given)?;
                self.ignore(&given, topic);
            }
            Class::Refused(_) if !given.on => {
                self.handshake = self.handshake.take().filter(|on| on.known.name != given.known.name);
                self.ignore(&given, Topic::TurnedOff);
            }
            Class::Refused(Reason::AuthScheme) if !given.takes_value() => self.handshake = Some(given),
            Class::Refused(reason) => return Err(given.fault(reason)),
        }
        Ok(())
    }

    fn set(&mut self, setting: Setting, given: Given, stdin: &mut Option<Word>) -> Result<(), Fault> {
        match setting {
            Setting::Url if given.value.starts_with('@') => return Err(given.fault(Reason::ReadsFile)),
            Setting::Url => self.urls.push(given),
            Setting::Request => self.method = Some(given),
            Setting::Head => self.head = given.on.then_some(given),
            Setting::Get => self.data_to_query = given.on,
            Setting::Data
            | Setting::DataAscii
            | Setting::DataBinary
            | Setting::DataRaw
            | Setting::DataUrlencode
            | Setting::Json => self.data.add(setting, &given, stdin)?,
            Setting::UrlQuery => data::add_query(&mut self.query, &given)?,
            Setting::Form if form_reads_file(&given.value) => return Err(given.fault(Reason::ReadsFile)),
            Setting::Form | Setting::FormString => self.form = Some(given),
            Setting::Header => self.headers.push(given),
            Setting::Cookie => self.add_cookies(&given)?,
            Setting::UserAgent => self.user_agent = Some(given),
            Setting::Referer => self.referer = Some(given),
            Setting::Range => self.range = Some(given),
            Setting::User => self.user = Some(given),
            Setting::Oauth2Bearer => self.bearer = Some(given),
            Setting::Globoff => self.literal_braces = given.on,
            Setting::PathAsIs => self.path_as_is = given.on,
            Setting::ProtoDefault => self.default_scheme = Some(given.value),
            Setting::DisallowUsernameInUrl => self.refuse_user_info = given.on.then_some(given),
            Setting::Basic => {
                self.ignore(&given, Topic::Default);
                self.basic = given.on.then_some(given);
            }
            Setting::FormEscape => self.ignore(&given, Topic::WithoutForm),
        }
        Ok(())
    }

    /// Text without `=` names a file; several texts are joined.
    fn add_cookies(&mut self, given: &Given) -> Result<(), Fault> {
        if given.value.is_empty() {
            self.note(Note::CookieEngine);
        } else if !given.value.contains('=') {
            return Err(given.fault(Reason::ReadsFile));
        } else if headers::has_control(&given.value) {
            return Err(given.fault(Reason::HeaderControl));
        } else {
            match &mut self.cookies {
                Some(cookies) => {
                    cookies.push(';');
                    cookies.push_str(&given.value);
                }
                None => self.cookies = Some(given.value.clone()),
            }
        }
        Ok(())
    }

    fn note(&mut self, note: Note) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    fn ignore(&mut self, given: &Given, topic: Topic) {
        let option = given.name();
        if !self.ignored.iter().any(|ignored| ignored.option == option) {
            self.ignored.push(IgnoredOption { option, why: topic.why() });
        }
    }

    fn build(mut self) -> Result<Import, Fault> {
        self.refuse_conflicts()?;
        let method = self.method()?;
        let target = self.target()?;
        self.refuse_handshake(target.user_info.is_some())?;
        let is_body = !self.data_to_query;
        let body = self.data.text.as_ref().filter(|_| is_body).cloned();
        let mut headers = self.headers(&target, body.as_deref().unwrap_or_default())?;
        let connection = self.connection(&mut headers, target.user_info)?;
        let is_typed = headers.iter().any(|header| header.is("content-type"));
        // An empty body without type is no body.
        let body = body.filter(|body| is_typed || !body.is_empty());
        if let Some(given) = self.headers.iter().find(|given| takes_the_place_of(given, "content-type"))
            && body.is_some()
            && !is_typed
        {
            return Err(given.fault(Reason::NoContentType));
        }
        let request = Request { method: method.to_owned(), url: target.url, headers, body };
        self.notes_about(&request, connection.as_ref());
        Ok(Import { request, connection, ignored: self.ignored, notes: self.notes })
    }

    /// Where curl would have to be asked first how to authenticate.
    fn refuse_handshake(&mut self, has_user_info: bool) -> Result<(), Fault> {
        if let Some(handshake) = self.handshake.take() {
            if self.user.is_some() || self.bearer.is_some() || has_user_info {
                return Err(handshake.fault(Reason::AuthScheme));
            }
            self.ignore(&handshake, Topic::WithoutCredentials);
        }
        match &self.basic {
            Some(basic) if self.bearer.is_some() => {
                Err(basic.fault(Reason::AuthScheme).because("with --oauth2-bearer it leaves the choice open"))
            }
            _ => Ok(()),
        }
    }

    fn refuse_conflicts(&self) -> Result<(), Fault> {
        let has_data = self.data.text.is_some();
        if let Some(form) = &self.form {
            let conflicts = has_data || self.head.is_some();
            return Err(form.fault(if conflicts { Reason::Conflict } else { Reason::MultipartFeature }));
        }
        // With --range, curl would send a Content-Range of its own making.
        match self.head.as_ref().or(self.range.as_ref()) {
            Some(given) if has_data && !self.data_to_query => {
                Err(given.fault(Reason::Conflict).because("there is data as well; with --get it goes to the URL"))
            }
            _ => Ok(()),
        }
    }

    fn method(&self) -> Result<&'static str, Fault> {
        let implied = match &self.head {
            Some(_) => HttpMethod::Head,
            None if self.data.text.is_some() && !self.data_to_query => HttpMethod::Post,
            None => HttpMethod::Get,
        };
        let Some(given) = &self.method else { return Ok(implied.as_str_name()) };
        if !is_token(&given.value) {
            return Err(given.fault(Reason::BadOptionValue));
        }
        match HttpMethod::from_str_name(&given.value) {
            Some(method) if method != HttpMethod::Unspecified => Ok(method.as_str_name()),
            _ => Err(given.fault(Reason::MethodNotOffered)),
        }
    }

    fn target(&mut self) -> Result<Target, Fault> {
        let given = match self.urls.as_slice() {
            [] => return Err(Fault::new(Reason::NoUrl, 0)),
            [given] => given,
            [_, second, ..] => return Err(Fault::new(Reason::MultipleRequests, second.at)),
        };
        let query = if self.data_to_query && self.data.text.is_some() { &self.data.text } else { &self.query };
        let reading = Reading {
            literal_braces: self.literal_braces,
            path_as_is: self.path_as_is,
            default_scheme: self.default_scheme.as_deref(),
            query: query.as_deref(),
        };
        let target = url::read(&given.value, reading).map_err(|reason| given.fault(reason))?;
        if let Some(refuse) = self.refuse_user_info.as_ref().filter(|_| target.user_info.is_some()) {
            return Err(refuse.fault(Reason::UrlUserinfoDenied));
        }
        if target.had_fragment {
            self.note(Note::FragmentDropped);
        }
        Ok(target)
    }

    /// In the order in which curl sends them. `-H` wins over what other options would add, also when it only removes.
    fn headers(&mut self, target: &Target, body: &str) -> Result<Vec<Header>, Fault> {
        let header = |name: &str, value: &str| Header { name: name.to_owned(), value: value.to_owned() };
        let is_free = |(name, _): &(&str, String)| !self.headers.iter().any(|given| takes_the_place_of(given, name));
        let early = self.implied_headers()?.into_iter().filter(is_free);
        let mut headers: Vec<Header> =
            early.map(|(name, value)| header(name, value.trim_matches([' ', '\t']))).collect();
        let mut late = self.implied_types();
        late.retain(is_free);
        let mut notes = Vec::new();
        if late.iter().any(|(_, value)| value == FORM) && looks_like_json(body) {
            notes.push(Note::JsonWithoutContentType);
        }
        for given in &self.headers {
            match headers::read(&given.value).map_err(|reason| given.fault(reason))? {
                Line::Sets { name, value } => match owned(name, value, target, body) {
                    Owned::No => headers.push(header(name, value)),
                    Owned::LeftOut => notes.push(Note::OwnedHeader(name.to_owned())),
                    Owned::Refused(reason) => return Err(given.fault(reason)),
                },
                Line::Removes { .. } => {}
                Line::Nothing => notes.push(Note::HeaderWithoutColon),
            }
        }
        headers.extend(late.iter().map(|(name, value)| header(name, value)));
        notes.into_iter().for_each(|note| self.note(note));
        Ok(headers)
    }

    /// What curl puts before the headers of `-H`.
    fn implied_headers(&self) -> Result<Vec<(&'static str, String)>, Fault> {
        let mut implied = Vec::new();
        let mut add = |name, given: &Option<Given>, read: fn(&str) -> Option<String>| {
            let Some(given) = given else { return Ok(()) };
            if headers::has_control(&given.value) {
                return Err(given.fault(Reason::HeaderControl));
            }
            implied.extend(read(&given.value).map(|value| (name, value)));
            Ok(())
        };
        add("Range", &self.range, |range| {
            let open = if range.contains('-') { "" } else { "-" };
            Some(format!("bytes={range}{open}"))
        })?;
        add("User-Agent", &self.user_agent, |agent| (!agent.is_empty()).then(|| agent.to_owned()))?;
        add("Referer", &self.referer, |referer| {
            let referer = referer.strip_suffix(";auto").unwrap_or(referer);
            (!referer.is_empty()).then(|| referer.to_owned())
        })?;
        // An insert is the author's own way to authenticate: it stays a header.
        add("Authorization", &self.bearer, |token| markup::is_in(token).then(|| format!("Bearer {token}")))?;
        implied.extend(self.cookies.iter().map(|cookies| ("Cookie", cookies.clone())));
        Ok(implied)
    }

    /// What curl puts behind the headers of `-H`.
    fn implied_types(&self) -> Vec<(&'static str, String)> {
        if self.data.is_json {
            vec![("Content-Type", JSON.to_owned()), ("Accept", JSON.to_owned())]
        } else if self.data.text.is_some() && !self.data_to_query {
            vec![("Content-Type", FORM.to_owned())]
        } else {
            Vec::new()
        }
    }

    /// Takes the credentials out: an `Authorization` header wins over `--oauth2-bearer`, that over `-u`, that over the URL.
    fn connection(
        &mut self,
        headers: &mut Vec<Header>,
        user_info: Option<Secret>,
    ) -> Result<Option<Suggestion>, Fault> {
        if let Some(user) = self.user.as_ref().filter(|user| !user.value.contains(':')) {
            return Err(user.fault(Reason::PasswordPrompt));
        }
        if user_info.is_some() {
            self.note(Note::UrlUserInfo);
        }
        let pairs = [
            self.bearer
                .as_ref()
                .filter(|given| !markup::is_in(&given.value))
                .map(|given| Suggestion::bearer(&given.value)),
            self.user.as_ref().map(|given| Suggestion::basic(&given.value)),
            user_info.map(|pair| Suggestion::basic(pair.expose())),
        ];
        let mut suggestions = pairs.into_iter().flatten();
        let by_hand: Vec<&Given> =
            self.headers.iter().filter(|given| takes_the_place_of(given, "authorization")).collect();
        let is_given = !by_hand.is_empty() || headers.iter().any(|header| header.is("authorization"));
        let first = if is_given { None } else { suggestions.next() };
        let some_unused = suggestions.next().is_some();
        let is_credential = |header: &Header| {
            header.is("authorization") && is_secret(&header.name, &header.value) && !is_placeholder(&header.value)
        };
        let several = headers.iter().filter(|header| header.is("authorization")).count() > 1;
        let taken = headers.iter().position(is_credential).map(|at| headers.remove(at));
        if let Some(given) = by_hand.get(1).filter(|_| taken.is_some() && several) {
            return Err(given.fault(Reason::DuplicateHeader));
        }
        if some_unused {
            self.note(Note::CredentialsUnused);
        }
        Ok(first.or_else(|| taken.map(|header| Suggestion::authorization(&header.name, &header.value))))
    }

    fn notes_about(&mut self, request: &Request, connection: Option<&Suggestion>) {
        if connection.is_some_and(Suggestion::is_to_be_filled_in) {
            self.note(Note::EnterSecret);
        }
        if self.data.insert_not_encoded {
            self.note(Note::InsertNotEncoded);
        }
        if request.has_markup() {
            self.note(Note::TemplateMarkup);
        }
        for header in &request.headers {
            if header.is("accept-encoding") {
                self.note(Note::AcceptEncoding);
            }
            if header.is_secret() && !is_placeholder(&header.value) {
                self.note(Note::SecretInHeader(header.name.clone()));
            }
        }
        for (name, value) in url::parameters(&request.url) {
            if value.is_some_and(|value| is_secret(name, value) && !is_placeholder(value)) {
                self.note(Note::SecretInQuery(name.to_owned()));
            }
        }
    }
}

fn takes_the_place_of(given: &Given, name: &str) -> bool {
    headers::takes_the_place_of(&given.value).eq_ignore_ascii_case(name)
}

/// Of `-F`: the content behind the name is a file's.
fn form_reads_file(value: &str) -> bool {
    value.split_once('=').is_some_and(|(_, content)| content.starts_with(['@', '<']))
}

fn looks_like_json(body: &str) -> bool {
    markup::literal_start(body).trim_start().starts_with(['{', '['])
}

/// Options without effect here whose value curl reads as a number.
const NUMBERS: [&str; 11] = [
    "connect-timeout",
    "expect100-timeout",
    "happy-eyeballs-timeout-ms",
    "keepalive-time",
    "max-redirs",
    "max-time",
    "retry",
    "retry-delay",
    "retry-max-time",
    "speed-limit",
    "speed-time",
];

fn check_number(given: &Given) -> Result<(), Fault> {
    let is_number = given.value.parse::<f64>().is_ok_and(f64::is_finite);
    if given.on && NUMBERS.contains(&given.known.name) && !is_number {
        return Err(given.fault(Reason::BadOptionValue).because("it must be a number"));
    }
    Ok(())
}

/// Whether the gateway sets this header itself.
enum Owned {
    No,
    LeftOut,
    Refused(Reason),
}

fn owned(name: &str, value: &str, target: &Target, body: &str) -> Owned {
    match &*name.to_ascii_lowercase() {
        "host" if is_host_of(value, &target.url) => Owned::LeftOut,
        "host" => Owned::Refused(Reason::HostHeader),
        "content-length" if value.parse() == Ok(body.len()) => Owned::LeftOut,
        "content-length" | "content-encoding" | "http2-settings" | "te" | "trailer" | "transfer-encoding"
        | "upgrade" => Owned::Refused(Reason::FramingHeader),
        "proxy-authenticate" | "proxy-authorization" => Owned::Refused(Reason::Proxy),
        _ if check_header_name(name) == Err(HeaderProblem::Reserved) => Owned::LeftOut,
        _ => Owned::No,
    }
}

fn is_host_of(value: &str, url: &str) -> bool {
    let authority = url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    let without_port = |host: &str| host.strip_suffix(":443").unwrap_or(host).to_ascii_lowercase();
    without_port(value) == without_port(authority)
}
