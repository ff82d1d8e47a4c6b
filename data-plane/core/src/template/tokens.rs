//! The inside of one `{{ … }}` or `{% … %}` into tokens. Hides numbers, string escapes and identifiers.

use std::borrow::Cow;

use super::ast::Span;
use super::error::{ErrorCode, Problems};
use super::limits;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'s> {
    Word(&'s str),
    Int(i64),
    Float(f64),
    Text(Cow<'s, str>),
    Symbol(&'static str),
}

/// Longer ones first: the first that fits is taken.
const SYMBOLS: &[&str] = &[
    "**", "//", "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "~", "|", "!", "?", ":", ",",
    ".", "(", ")", "[", "]", "{", "}", "=",
];

/// Reads all tokens of `span`, or reports the first that cannot be read.
pub(super) fn tokenize<'s>(source: &'s str, span: Span, problems: &mut Problems) -> Option<Vec<(Token<'s>, Span)>> {
    let mut reader = Reader { source, at: span.start as usize, end: span.end as usize };
    let mut tokens = Vec::new();
    loop {
        reader.skip_whitespace();
        if reader.rest().is_empty() {
            return Some(tokens);
        }
        if tokens.len() == limits::EXPRESSION_TOKENS {
            let message = format!("more than {} tokens in one expression", limits::EXPRESSION_TOKENS);
            problems.add(ErrorCode::Limit, span, message);
            return None;
        }
        let start = reader.at;
        match reader.token() {
            Ok(token) => tokens.push((token, Span::new(start, reader.at))),
            Err(message) => {
                problems.add(ErrorCode::Syntax, Span::new(start, reader.at), message);
                return None;
            }
        }
    }
}

struct Reader<'s> {
    source: &'s str,
    at: usize,
    end: usize,
}

impl<'s> Reader<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..self.end]
    }

    fn skip_whitespace(&mut self) {
        self.at = self.end - self.rest().trim_start().len();
    }

    fn token(&mut self) -> Result<Token<'s>, String> {
        let Some(first) = self.rest().chars().next() else { return Err("an expression is missing".into()) };
        if first == '"' || first == '\'' {
            return self.text(first);
        }
        if first.is_ascii_digit() || first == '.' && self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_digit) {
            return self.number();
        }
        if starts_word(first) {
            return Ok(Token::Word(self.word()));
        }
        let symbol = SYMBOLS.iter().find(|symbol| self.rest().starts_with(**symbol));
        match symbol {
            Some(symbol) => {
                self.at += symbol.len();
                Ok(Token::Symbol(symbol))
            }
            None => Err(format!("'{first}' has no meaning here")),
        }
    }

    fn word(&mut self) -> &'s str {
        let start = self.at;
        let length = self.rest().find(|c: char| !continues_word(c)).unwrap_or(self.rest().len());
        self.at += length;
        &self.source[start..start + length]
    }

    fn digits(&mut self) -> usize {
        let length = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        self.at += length;
        length
    }

    fn number(&mut self) -> Result<Token<'s>, String> {
        let start = self.at;
        let mut float = false;
        self.digits();
        if self.rest().starts_with('.') && self.rest().as_bytes().get(1).is_some_and(u8::is_ascii_digit) {
            float = true;
            self.at += 1;
            self.digits();
        }
        let before = self.at;
        if self.rest().starts_with(['e', 'E']) {
            self.at += 1;
            if self.rest().starts_with(['+', '-']) {
                self.at += 1;
            }
            if self.digits() == 0 {
                self.at = before;
            } else {
                float = true;
            }
        }
        let text = &self.source[start..self.at];
        if self.rest().starts_with(starts_word) {
            return Err("a name cannot start with a digit".into());
        }
        if float {
            return match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Token::Float(number)),
                _ => Err("this number is out of range".into()),
            };
        }
        text.parse().map(Token::Int).map_err(|_| "this number is out of range: whole numbers have 64 bits".into())
    }

    fn text(&mut self, quote: char) -> Result<Token<'s>, String> {
        self.at += 1;
        let rest = self.rest();
        let plain = rest.split([quote, '\\']).next().unwrap_or_default();
        if rest[plain.len()..].starts_with(quote) {
            self.at += plain.len() + quote.len_utf8();
            return Ok(Token::Text(plain.into()));
        }
        let mut text = String::new();
        loop {
            let Some(c) = self.rest().chars().next() else { return Err("this text is never closed".into()) };
            self.at += c.len_utf8();
            if c == quote {
                return Ok(Token::Text(text.into()));
            }
            text.push(if c == '\\' { self.escape()? } else { c });
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let Some(c) = self.rest().chars().next() else { return Err("this text is never closed".into()) };
        self.at += c.len_utf8();
        match c {
            'n' => Ok('\n'),
            't' => Ok('\t'),
            'r' => Ok('\r'),
            'b' => Ok('\u{8}'),
            'f' => Ok('\u{c}'),
            '\\' | '\'' | '"' => Ok(c),
            'u' => self.unicode().ok_or_else(|| "'\\u' needs four hexadecimal digits that name a character".into()),
            _ => Err(format!("'\\{c}' is not an escape; write '\\\\' for a backslash")),
        }
    }

    /// `XXXX`, or a pair `XXXX\uXXXX` for characters beyond the basic plane.
    fn unicode(&mut self) -> Option<char> {
        let high = self.hex()?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high);
        }
        if !self.rest().starts_with("\\u") {
            return None;
        }
        self.at += 2;
        let low = self.hex().filter(|low| (0xdc00..0xe000).contains(low))?;
        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let number = u32::from_str_radix(digits, 16).ok()?;
        self.at += 4;
        Some(number)
    }
}

fn starts_word(c: char) -> bool {
    c == '_' || c == '$' || c.is_alphabetic()
}

fn continues_word(c: char) -> bool {
    c == '_' || c == '$' || c.is_alphanumeric()
}
