//! Words as bash reads them. Hides quoting, comments, continued lines and here-documents; whatever would make the shell
//! put something else in place of the text, or start something else, is refused.

use super::PLACEHOLDER;
use super::refusal::{Fault, Reason};
use super::words::{Command, Word};

/// Splits the command that begins at `start`.
pub(super) fn split(text: &str, start: usize) -> Result<Command, Fault> {
    let breaks = text.matches('\n').count();
    let all_crlf = breaks > 0 && text.matches("\r\n").count() == breaks;
    let mut lexer = Lexer { text, at: start, all_crlf, command: Command::default(), document: None };
    lexer.command.line_breaks_normalised = all_crlf;
    lexer.run()?;
    Ok(lexer.command)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    /// Every line break of the text is CR LF: they came with the clipboard and stand for LF, in quotes too.
    all_crlf: bool,
    command: Command,
    /// Announced, and expected behind the next line break.
    document: Option<Document>,
}

struct Document {
    delimiter: String,
    /// Its delimiter is quoted: the text is literal.
    literal: bool,
    strip_tabs: bool,
    at: usize,
}

/// A word in the making: its bytes, and what of its unquoted braces is open.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    /// For each open `{`: whether a `,` or `..` came since.
    braces: Vec<bool>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn byte(&self, offset: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + offset).copied()
    }

    fn next_char(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn fault(&self, reason: Reason) -> Fault {
        Fault::new(reason, self.at)
    }

    /// The length of a line break `offset` bytes ahead; 0 when there is none.
    fn line_break(&self, offset: usize) -> usize {
        match (self.byte(offset), self.byte(offset + 1)) {
            (Some(b'\n'), _) => 1,
            (Some(b'\r'), Some(b'\n')) => 2,
            _ => 0,
        }
    }

    fn run(&mut self) -> Result<(), Fault> {
        loop {
            let line_break = self.line_break(0);
            match self.byte(0) {
                None => return self.end(),
                _ if line_break > 0 => {
                    self.at += line_break;
                    if let Some(document) = self.document.take() {
                        self.read_document(&document)?;
                    }
                    if !self.command.words.is_empty() {
                        return self.end();
                    }
                }
                Some(b' ' | b'\t') => self.at += 1,
                Some(b'\\') if self.line_break(1) > 0 => self.at += 1 + self.line_break(1),
                Some(b'#') => self.skip_line(),
                Some(b'<') => self.redirection()?,
                Some(b'|' | b'&' | b';' | b'>' | b'(' | b')') => return Err(self.fault(Reason::ShellOperator)),
                Some(_) => {
                    let at = self.at;
                    // A lone backslash at the end of the text is no word.
                    if self.rest() == "\\" {
                        self.at += 1;
                        continue;
                    }
                    let bytes = self.word()?;
                    self.refuse_assignment(at, &bytes)?;
                    self.command.push(bytes, at)?;
                }
            }
        }
    }

    fn skip_line(&mut self) {
        self.at += self.rest().find('\n').unwrap_or(self.rest().len());
    }

    /// Behind the command: nothing but blanks and comments may follow.
    fn end(&mut self) -> Result<(), Fault> {
        if let Some(document) = &self.document {
            return Err(Fault::new(Reason::UnterminatedQuote, document.at));
        }
        loop {
            match self.byte(0) {
                None => return Ok(()),
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                Some(b'#') => self.skip_line(),
                Some(_) => return Err(self.fault(Reason::MultipleCommands)),
            }
        }
    }

    /// `NAME=value` before the command sets a variable of its environment.
    fn refuse_assignment(&self, at: usize, word: &[u8]) -> Result<(), Fault> {
        let name = word.split(|byte| *byte == b'=').next().unwrap_or_default();
        let is_name = name.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_')
            && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        if self.command.words.is_empty() && name.len() < word.len() && is_name {
            return Err(Fault::new(Reason::ShellOperator, at).because("a variable is set before the command"));
        }
        Ok(())
    }

    fn word(&mut self) -> Result<Vec<u8>, Fault> {
        let mut word = Pending::default();
        match self.next_char() {
            Some('~') => return Err(self.fault(Reason::ShellExpansion)),
            Some('\u{2018}'..='\u{201f}' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{ab}' | '\u{bb}') => {
                return Err(self.fault(Reason::SmartQuotes));
            }
            _ => {}
        }
        while let Some(byte) = self.byte(0) {
            match byte {
                b' ' | b'\t' | b'|' | b'&' | b';' | b'<' | b'>' | b'(' | b')' => break,
                _ if self.line_break(0) > 0 => break,
                b'\'' => self.single(&mut word)?,
                b'"' => self.double(&mut word)?,
                b'\\' => self.backslash(&mut word)?,
                b'$' => self.dollar(&mut word)?,
                b'`' => return Err(self.fault(Reason::ShellExpansion)),
                _ => self.plain(&mut word)?,
            }
        }
        Ok(word.bytes)
    }

    /// One unquoted character.
    fn plain(&mut self, word: &mut Pending) -> Result<(), Fault> {
        let Some(c) = self.next_char() else { return Ok(()) };
        match c {
            '\u{a0}' | '\u{202f}' | '\u{3000}' => return Err(self.fault(Reason::SmartQuotes)),
            '{' => word.braces.push(false),
            ',' => word.braces.last_mut().into_iter().for_each(|expands| *expands = true),
            '.' if self.byte(1) == Some(b'.') => word.braces.last_mut().into_iter().for_each(|expands| *expands = true),
            '}' if word.braces.pop() == Some(true) => return Err(self.fault(Reason::ShellExpansion)),
            _ => {}
        }
        self.take(c.len_utf8(), word);
        Ok(())
    }

    /// Moves the next `length` bytes into the word.
    fn take(&mut self, length: usize, word: &mut Pending) {
        word.bytes.extend(self.text.as_bytes().iter().skip(self.at).take(length));
        self.at += length;
    }

    /// Moves quoted text into the word.
    fn take_quoted(&mut self, length: usize, word: &mut Pending) {
        if self.all_crlf {
            let text = self.rest().get(..length).unwrap_or_default().replace("\r\n", "\n");
            word.bytes.extend(text.as_bytes());
            self.at += length;
        } else {
            self.take(length, word);
        }
    }

    fn single(&mut self, word: &mut Pending) -> Result<(), Fault> {
        let opened = self.at;
        self.at += 1;
        let length = self.rest().find('\'').ok_or_else(|| Fault::new(Reason::UnterminatedQuote, opened))?;
        self.take_quoted(length, word);
        self.at += 1;
        Ok(())
    }

    fn double(&mut self, word: &mut Pending) -> Result<(), Fault> {
        let opened = self.at;
        self.at += 1;
        loop {
            let length =
                self.rest().find(['"', '\\', '$', '`']).ok_or_else(|| Fault::new(Reason::UnterminatedQuote, opened))?;
            self.take_quoted(length, word);
            match self.byte(0) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => match self.byte(1) {
                    Some(b'$' | b'`' | b'"' | b'\\') => {
                        self.at += 1;
                        self.take(1, word);
                    }
                    Some(b'\r') if !self.all_crlf => self.take(1, word),
                    _ if self.line_break(1) > 0 => self.at += 1 + self.line_break(1),
                    _ => self.take(1, word),
                },
                Some(b'$') if self.is_expansion() => self.expansion(word)?,
                Some(b'$') => self.take(1, word),
                _ => return Err(self.fault(Reason::ShellExpansion)),
            }
        }
    }

    /// Outside quotes.
    fn backslash(&mut self, word: &mut Pending) -> Result<(), Fault> {
        if self.line_break(1) > 0 {
            self.at += 1 + self.line_break(1);
            return Ok(());
        }
        let behind = self.rest().get(1..).unwrap_or_default();
        let behind_blanks = behind.trim_start_matches([' ', '\t']);
        let only_blanks = behind_blanks.is_empty() || behind_blanks.starts_with(['\n', '\r']);
        if behind.len() > behind_blanks.len() && only_blanks {
            return Err(self.fault(Reason::StrayBackslash));
        }
        self.at += 1;
        if let Some(c) = self.next_char() {
            self.take(c.len_utf8(), word);
        }
        Ok(())
    }

    /// Whether the `$` here is the beginning of something the shell replaces. A continued line may hide what follows.
    fn is_expansion(&self) -> bool {
        if self.byte(1) == Some(b'\\') && self.line_break(2) > 0 {
            return true;
        }
        self.byte(1).is_some_and(|next| next.is_ascii_alphanumeric() || b"_{([@*#?$!-".contains(&next))
    }

    /// A placeholder as our own export writes it stands for itself; all else that begins with `$` is refused.
    fn expansion(&mut self, word: &mut Pending) -> Result<(), Fault> {
        let name = self.rest().strip_prefix(PLACEHOLDER).unwrap_or_default();
        let length = name.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        if length == 0 {
            return Err(self.fault(Reason::ShellExpansion));
        }
        self.take(PLACEHOLDER.len() + length, word);
        Ok(())
    }

    /// Outside quotes.
    fn dollar(&mut self, word: &mut Pending) -> Result<(), Fault> {
        match self.byte(1) {
            Some(b'\'') => self.ansi_c(word),
            Some(b'"') => {
                self.at += 1;
                self.double(word)
            }
            _ if self.is_expansion() => self.expansion(word),
            _ => {
                self.take(1, word);
                Ok(())
            }
        }
    }

    /// `$'…'`: escapes make bytes, and a NUL ends the text.
    fn ansi_c(&mut self, word: &mut Pending) -> Result<(), Fault> {
        let opened = self.at;
        self.at += 2;
        let end = self.end_of_ansi_c().ok_or_else(|| Fault::new(Reason::UnterminatedQuote, opened))?;
        let mut piece = Pending::default();
        let mut ended = None;
        while self.at < end {
            let rest = self.text.get(self.at..end).unwrap_or_default();
            match rest.find('\\') {
                Some(length) => {
                    self.take_quoted(length, &mut piece);
                    self.at += 1;
                    if self.escape(&mut piece.bytes)?.is_break() && ended.is_none() {
                        ended = Some(piece.bytes.len());
                    }
                }
                None => self.take_quoted(rest.len(), &mut piece),
            }
        }
        self.at = end + 1;
        piece.bytes.truncate(ended.unwrap_or(usize::MAX));
        word.bytes.extend(piece.bytes);
        Ok(())
    }

    /// Where the closing quote stands: the end is looked for before escapes are read.
    fn end_of_ansi_c(&self) -> Option<usize> {
        let mut at = self.at;
        loop {
            at += self.text.get(at..)?.find(['\'', '\\'])?;
            if self.text.as_bytes().get(at) == Some(&b'\'') {
                return Some(at);
            }
            at += 1 + self.text.get(at + 1..)?.chars().next()?.len_utf8();
        }
    }

    /// What follows a backslash in `$'…'`; breaks at a NUL.
    fn escape(&mut self, out: &mut Vec<u8>) -> Result<std::ops::ControlFlow<()>, Fault> {
        use std::ops::ControlFlow::{Break, Continue};
        let at = self.at;
        let Some(escape) = self.byte(0) else { return Ok(Continue(())) };
        self.at += 1;
        let byte = match escape {
            b'a' => 7,
            b'b' => 8,
            b'e' | b'E' => 0x1b,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'\\' | b'\'' | b'"' | b'?' => escape,
            b'0'..=b'7' => {
                self.at = at;
                let (_, value) = self.digits(3, 8);
                (value & 0xff) as u8
            }
            b'x' => {
                let braced = usize::from(self.byte(0) == Some(b'{'));
                self.at += braced;
                let (count, value) = self.digits(if braced > 0 { usize::MAX } else { 2 }, 16);
                if braced > 0 {
                    self.at += usize::from(self.byte(0) == Some(b'}'));
                } else if count == 0 {
                    out.extend(b"\\x");
                    return Ok(Continue(()));
                }
                (value & 0xff) as u8
            }
            b'u' | b'U' => return self.unicode(escape, out),
            b'c' => match self.byte(0) {
                Some(b'\'') | None => {
                    out.extend(b"\\c");
                    return Ok(Continue(()));
                }
                Some(control) if !control.is_ascii() => return Err(Fault::new(Reason::NotUtf8, at)),
                Some(control) => {
                    self.at += 1;
                    self.at += usize::from(control == b'\\' && self.byte(0) == Some(b'\\'));
                    if control == b'?' { 0x7f } else { control.to_ascii_uppercase() & 0x1f }
                }
            },
            _ => {
                // No escape: both characters stand for themselves.
                self.at = at;
                out.push(b'\\');
                let length = self.next_char().map_or(0, char::len_utf8);
                out.extend(self.rest().as_bytes().iter().take(length));
                self.at += length;
                return Ok(Continue(()));
            }
        };
        if byte == 0 {
            return Ok(Break(()));
        }
        out.push(byte);
        Ok(Continue(()))
    }

    fn unicode(&mut self, escape: u8, out: &mut Vec<u8>) -> Result<std::ops::ControlFlow<()>, Fault> {
        use std::ops::ControlFlow::{Break, Continue};
        let at = self.at;
        let (count, value) = self.digits(if escape == b'u' { 4 } else { 8 }, 16);
        match char::from_u32(value) {
            _ if count == 0 => out.extend([b'\\', escape]),
            Some('\0') => return Ok(Break(())),
            Some(c) => out.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
            None => return Err(Fault::new(Reason::NotUtf8, at)),
        }
        Ok(Continue(()))
    }

    /// Up to `most` digits: how many there are, and their value modulo 2^32.
    fn digits(&mut self, most: usize, radix: u32) -> (usize, u32) {
        let mut count = 0;
        let mut value = 0u32;
        while let Some(digit) = self.byte(0).and_then(|byte| char::from(byte).to_digit(radix)) {
            if count == most {
                break;
            }
            value = value.wrapping_mul(radix).wrapping_add(digit);
            count += 1;
            self.at += 1;
        }
        (count, value)
    }

    /// `<<< word` and `<< END`; any other redirection is refused.
    fn redirection(&mut self) -> Result<(), Fault> {
        let at = self.at;
        let refused = Fault::new(Reason::ShellOperator, at);
        if self.command.stdin.is_some() || self.document.is_some() || !self.rest().starts_with("<<") {
            return Err(refused);
        }
        let is_string = self.byte(2) == Some(b'<');
        let strip_tabs = self.byte(2) == Some(b'-');
        self.at += 2 + usize::from(is_string || strip_tabs);
        while matches!(self.byte(0), Some(b' ' | b'\t')) {
            self.at += 1;
        }
        let word_at = self.at;
        let bytes = self.word()?;
        let written = self.text.get(word_at..self.at).unwrap_or_default();
        let word = String::from_utf8(bytes).map_err(|_| Fault::new(Reason::NotUtf8, word_at))?;
        if written.is_empty() {
            return Err(refused);
        }
        if is_string {
            self.command.stdin = Some(Word { text: word + "\n", at });
        } else {
            let literal = written.contains(['\'', '"', '\\']);
            self.document = Some(Document { delimiter: word, literal, strip_tabs, at });
        }
        Ok(())
    }

    fn read_document(&mut self, document: &Document) -> Result<(), Fault> {
        let mut word = Pending::default();
        loop {
            if self.rest().is_empty() {
                return Err(Fault::new(Reason::UnterminatedQuote, document.at));
            }
            if document.strip_tabs {
                self.at += self.rest().len() - self.rest().trim_start_matches('\t').len();
            }
            let length = self.rest().find('\n').map_or(self.rest().len(), |newline| newline + 1);
            let line = self.rest().get(..length).unwrap_or_default();
            let bare = line.strip_suffix('\n').unwrap_or(line);
            let bare = if self.all_crlf { bare.strip_suffix('\r').unwrap_or(bare) } else { bare };
            if bare == document.delimiter {
                self.at += length;
                break;
            }
            if document.literal {
                self.take_quoted(length, &mut word);
            } else {
                self.document_line(length, &mut word)?;
            }
        }
        let text = String::from_utf8(word.bytes).map_err(|_| Fault::new(Reason::NotUtf8, document.at))?;
        self.command.stdin = Some(Word { text, at: document.at });
        Ok(())
    }

    /// A line of a document whose delimiter is not quoted: as in double quotes, but quotes are plain.
    fn document_line(&mut self, length: usize, word: &mut Pending) -> Result<(), Fault> {
        let end = self.at + length;
        while self.at < end {
            let line = self.text.get(self.at..end).unwrap_or_default();
            let plain = line.find(['\\', '$', '`']).unwrap_or(line.len());
            self.take_quoted(plain, word);
            if self.at >= end {
                break;
            }
            match (self.byte(0), self.byte(1)) {
                (Some(b'\\'), Some(b'$' | b'`' | b'\\')) => {
                    self.at += 1;
                    self.take(1, word);
                }
                (Some(b'\\'), _) if self.line_break(1) > 0 => self.at += 1 + self.line_break(1),
                (Some(b'$'), _) if self.is_expansion() => self.expansion(word)?,
                (Some(b'`'), _) => return Err(self.fault(Reason::ShellExpansion)),
                _ => self.take(1, word),
            }
        }
        Ok(())
    }
}
