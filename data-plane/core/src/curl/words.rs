//! A pasted command into the words that curl would get. Hides which shell it was written for.

use super::limits::{COMMAND_BYTES, WORDS};
use super::refusal::{Fault, Reason};
use super::{cmd, posix};

/// One argument, after the shell has taken its quotes away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// Where it begins in the command, in bytes.
    pub(super) at: usize,
}

/// One command.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// The first one is curl itself.
    pub(super) words: Vec<Word>,
    /// What the shell would pass on standard input: a here-document or here-string, and where it is announced.
    pub(super) stdin: Option<Word>,
    /// Line breaks of the clipboard (CR LF) were read as LF.
    pub(super) line_breaks_normalised: bool,
}

impl Command {
    /// Adds a word; the first one must be curl.
    pub(super) fn push(&mut self, text: Vec<u8>, at: usize) -> Result<(), Fault> {
        let text = String::from_utf8(text).map_err(|_| Fault::new(Reason::NotUtf8, at))?;
        if self.words.is_empty() && !is_curl(&text) {
            return Err(Fault::new(Reason::NotCurl, at));
        }
        if self.words.len() >= WORDS {
            return Err(Fault::new(Reason::TooLarge, at).because(format!("the limit is {WORDS} words")));
        }
        self.words.push(Word { text, at });
        Ok(())
    }
}

fn is_curl(word: &str) -> bool {
    let name = word.rsplit(['/', '\\']).next().unwrap_or(word);
    name == "curl" || name.eq_ignore_ascii_case("curl.exe")
}

/// Splits the text of one command.
pub(super) fn split(text: &str) -> Result<Command, Fault> {
    if text.len() > COMMAND_BYTES {
        return Err(Fault::new(Reason::TooLarge, 0).because(format!("the limit is {COMMAND_BYTES} bytes")));
    }
    if let Some(at) = text.find('\0') {
        return Err(Fault::new(Reason::NulCharacter, at));
    }
    let start = start(text);
    let body = text.get(start..).unwrap_or_default();
    if let Some(at) = power_shell(body) {
        return Err(Fault::new(Reason::PowerShell, start + at));
    }
    let command = if is_cmd(body) { cmd::split(text, start)? } else { posix::split(text, start)? };
    if command.words.is_empty() { Err(Fault::new(Reason::NotCurl, start)) } else { Ok(command) }
}

/// Behind what is pasted along: a byte order mark, blank lines, a prompt.
fn start(text: &str) -> usize {
    let rest = text.strip_prefix('\u{feff}').unwrap_or(text).trim_start_matches([' ', '\t', '\r', '\n']);
    let rest = match rest.strip_prefix(['$', '%', '>']) {
        Some(behind) if behind.starts_with([' ', '\t']) || behind.starts_with("curl") => behind,
        _ => rest,
    };
    text.len() - rest.len()
}

/// Where a text shows that it is for PowerShell.
fn power_shell(text: &str) -> Option<usize> {
    let first = text.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default().to_ascii_lowercase();
    let starts = ["invoke-webrequest", "invoke-restmethod", "iwr", "irm", "$session", "$headers", "$response"];
    if starts.contains(&&*first) {
        return Some(0);
    }
    // A line that goes on ends in a backtick. Only the first line is looked at: later ones may be data.
    let line = text.lines().next().unwrap_or_default();
    line.trim_end_matches([' ', '\t', '\r']).ends_with(" `").then(|| line.trim_end().len().saturating_sub(1))
}

/// Browsers copy for cmd.exe with `^"` around values, older ones with plain quotes and `^` at the end of lines.
fn is_cmd(text: &str) -> bool {
    let mut quote = None;
    let mut previous = 0u8;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'\n') => return text.get(..at).unwrap_or_default().trim_end_matches('\r').ends_with('^'),
            (None, b'"') if previous == b'^' => return true,
            (None, b'\'' | b'"') => quote = Some(byte),
            (Some(open), byte) if open == byte && previous != b'\\' => quote = None,
            _ => {}
        }
        previous = byte;
    }
    false
}
