//! A request as a curl command (R092–R096). Hides quoting: bash, zsh and ksh run the text to the same bytes, and what does
//! not survive a clipboard is escaped.
//!
//! Only method, URL, headers and body are written. A connection's credentials never come here; a secret that the author
//! wrote into a header or the URL is left to a shell variable that names it (C13).

use std::collections::{HashMap, HashSet};

use super::credentials::{is_secret, placeholder};
use super::headers::{self, Line};
use super::limits::COMMAND_BYTES;
use super::url::{self, Reading};
use super::{Header, Request};
use crate::redact::is_secret_name;

/// Why there is no command for a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The form is not filled in (R093).
    #[error("{0}: is not filled in; a command needs a method and a URL")]
    NotFilledIn(&'static str),
    /// No shell can pass on a NUL character.
    #[error("{0}: holds a NUL character, which no command can hold")]
    NulCharacter(String),
    /// A header that would not be sent, or as several.
    #[error("headers[{0}]: is not one well-formed header; check its name, and remove line breaks")]
    Header(usize),
    /// A URL that would not be called.
    #[error("url: {0}; {1}")]
    Url(&'static str, &'static str),
    /// Over [`COMMAND_BYTES`].
    #[error("the command would be longer than {COMMAND_BYTES} bytes")]
    TooLarge,
}

/// Writes the command.
///
/// # Errors
/// What keeps the request from being written as a command.
pub fn export(request: &Request) -> Result<String, ExportError> {
    if request.method.is_empty() {
        return Err(ExportError::NotFilledIn("method"));
    }
    let mut command = Writer { text: "curl".to_owned(), variables: HashSet::new(), numbers: HashMap::new() };
    match (&*request.method, &request.body) {
        ("GET", None) => {}
        ("HEAD", None) => command.option("--head"),
        (method, _) => command.option(&format!("--request {method}")),
    }
    write_url(&mut command, &request.url)?;
    for (index, header) in request.headers.iter().enumerate() {
        write_header(&mut command, index, header)?;
    }
    if let Some(body) = &request.body {
        // Without a type of its own a body is sent as JSON (X20); curl would declare a form.
        if !request.headers.iter().any(|header| header.is("content-type")) {
            command.option("--header 'Content-Type: application/json'");
        }
        refuse_nul("body", body)?;
        command.option("--data-raw ");
        command.quoted(body);
    }
    if command.text.len() > COMMAND_BYTES { Err(ExportError::TooLarge) } else { Ok(command.text) }
}

fn refuse_nul(field: &str, text: &str) -> Result<(), ExportError> {
    if text.contains('\0') { Err(ExportError::NulCharacter(field.to_owned())) } else { Ok(()) }
}

fn write_url(command: &mut Writer, written: &str) -> Result<(), ExportError> {
    if written.is_empty() {
        return Err(ExportError::NotFilledIn("url"));
    }
    refuse_nul("url", written)?;
    let text = url::with_plain_dots(written);
    match url::read(&text, Reading { literal_braces: true, ..Reading::default() }) {
        Ok(target) if target.user_info.is_none() => {}
        Ok(_) => return Err(ExportError::Url("it holds a login", "use a connection for credentials")),
        Err(reason) => return Err(ExportError::Url(reason.wrong(), reason.remedy())),
    }
    if text.contains(['{', '}', '[', ']']) {
        command.option("--globoff");
    }
    command.option("--url ");
    let mut done = 0;
    for (name, place) in url::values(&text) {
        if is_secret(name, text.get(place.clone()).unwrap_or_default()) {
            command.quoted(text.get(done..place.start).unwrap_or_default());
            command.variable(name);
            done = place.end;
        }
    }
    let rest = text.get(done..).unwrap_or_default();
    if !rest.is_empty() {
        command.quoted(rest);
    }
    Ok(())
}

fn write_header(command: &mut Writer, index: usize, header: &Header) -> Result<(), ExportError> {
    let blanks = [' ', '\t'];
    let (name, value) = (header.name.trim_matches(blanks), header.value.trim_matches(blanks));
    refuse_nul(&format!("headers[{index}]"), name)?;
    refuse_nul(&format!("headers[{index}]"), value)?;
    let line = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
    if headers::read(&line) != Ok(Line::Sets { name, value }) {
        return Err(ExportError::Header(index));
    }
    command.option("--header ");
    if is_secret_name(name) && is_secret(name, value) {
        command.quoted(&format!("{name}: "));
        command.variable(name);
    } else {
        command.quoted(&line);
    }
    Ok(())
}

struct Writer {
    text: String,
    /// Those written so far: a second secret of one name gets its own.
    variables: HashSet<String>,
    /// The last number taken for each name, so that many secrets of one name take no longer than their length.
    numbers: HashMap<String, usize>,
}

impl Writer {
    fn option(&mut self, text: &str) {
        self.text.push_str(" \\\n  ");
        self.text.push_str(text);
    }

    fn variable(&mut self, name: &str) {
        let last = self.numbers.entry(placeholder(name, 1)).or_default();
        *last += 1;
        let mut free = placeholder(name, *last);
        while !self.variables.insert(free.clone()) {
            *last += 1;
            free = placeholder(name, *last);
        }
        self.text.push('"');
        self.text.push_str(&free);
        self.text.push('"');
    }

    /// `'…'`; with characters that a clipboard changes or a reader cannot see, `$'…'`.
    fn quoted(&mut self, text: &str) {
        let is_hidden = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}');
        if !text.contains(is_hidden) {
            self.text.push('\'');
            self.text.push_str(&text.replace('\'', "'\\''"));
            self.text.push('\'');
            return;
        }
        self.text.push_str("$'");
        for c in text.chars() {
            match c {
                '\\' | '\'' => self.text.extend(['\\', c]),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                // Interactive shells would look for it in their history.
                '!' => self.text.push_str("\\x21"),
                c if c.is_ascii_control() => self.text.push_str(&format!("\\x{:02x}", u32::from(c))),
                c if is_hidden(c) => self.text.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => self.text.push(c),
            }
        }
        self.text.push('\'');
    }
}
