//! Values of the `--data` family joined to one text, by curl's rules. Hides joining and encoding.

use super::markup::{self, Piece};
use super::options::{Given, Setting};
use super::refusal::{Fault, Reason};
use super::words::Word;

/// What was given with `--data` and its kin, so far.
#[derive(Debug, Default)]
pub(super) struct Data {
    /// Absent: none was given, which differs from an empty one.
    pub(super) text: Option<String>,
    /// `--json` was among them.
    pub(super) is_json: bool,
    /// An insert stands where curl would encode the text.
    pub(super) insert_not_encoded: bool,
}

impl Data {
    /// Adds one value. Pieces are joined with `&`, except those of `--json`.
    pub(super) fn add(&mut self, setting: Setting, given: &Given, stdin: &mut Option<Word>) -> Result<(), Fault> {
        let piece = match setting {
            Setting::DataRaw => given.value.clone(),
            Setting::DataUrlencode => {
                self.insert_not_encoded |= markup::is_in(&given.value);
                form_encoded(given, stdin)?
            }
            _ => match given.value.strip_prefix('@') {
                Some(file) => {
                    let content = content_of(file, given, stdin)?;
                    let keeps_line_breaks = matches!(setting, Setting::DataBinary | Setting::Json);
                    if keeps_line_breaks { content } else { content.replace(['\r', '\n'], "") }
                }
                None => given.value.clone(),
            },
        };
        self.is_json |= setting == Setting::Json;
        match &mut self.text {
            Some(text) => {
                if setting != Setting::Json {
                    text.push('&');
                }
                text.push_str(&piece);
            }
            None => self.text = Some(piece),
        }
        Ok(())
    }
}

/// One value of `--url-query`, added to the others.
pub(super) fn add_query(query: &mut Option<String>, given: &Given) -> Result<(), Fault> {
    let piece = match given.value.strip_prefix('+') {
        Some(raw) => raw.to_owned(),
        None => form_encoded(given, &mut None)?,
    };
    match query {
        Some(query) => {
            query.push('&');
            query.push_str(&piece);
        }
        None => *query = Some(piece),
    }
    Ok(())
}

/// Files are not read; standard input is, when it is part of the command.
fn content_of(file: &str, given: &Given, stdin: &mut Option<Word>) -> Result<String, Fault> {
    let document = if file == "-" { stdin.take() } else { None };
    document.map(|word| word.text).ok_or_else(|| given.fault(Reason::ReadsFile))
}

/// `content`, `=content`, `name=content`, `@file`, `name@file`: the content is encoded, the name is not.
fn form_encoded(given: &Given, stdin: &mut Option<Word>) -> Result<String, Fault> {
    let value = &given.value;
    let Some(at) = markup::find_plain(value, |c| matches!(c, '=' | '@')) else { return Ok(encoded(value)) };
    let (name, content) = value.split_at(at);
    let content = match content.strip_prefix('=') {
        Some(content) => encoded(content),
        None => encoded(&content_of(content.get(1..).unwrap_or_default(), given, stdin)?),
    };
    Ok(if name.is_empty() { content } else { format!("{name}={content}") })
}

/// Percent-encoded, with `+` for a blank. Inserts survive (S42).
fn encoded(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(text.len());
    for piece in markup::pieces(text) {
        match piece {
            Piece::Insert(insert) => out.push_str(insert),
            Piece::Plain(plain) => {
                for byte in plain.bytes() {
                    match byte {
                        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                            out.push(char::from(byte));
                        }
                        b' ' => out.push('+'),
                        _ => {
                            out.push('%');
                            out.extend([byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)])));
                        }
                    }
                }
            }
        }
    }
    out
}
