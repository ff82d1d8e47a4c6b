//! Words as cmd.exe and the C runtime read them: the form that browsers copy on Windows. Hides carets, and the quoting
//! that programs do for themselves there.

use super::refusal::{Fault, Reason};
use super::words::Command;

/// A character of the command line that cmd.exe passes on, and where it stands.
type Passed = (char, usize);

/// Splits the command that begins at `start`.
pub(super) fn split(text: &str, start: usize) -> Result<Command, Fault> {
    let (line, end) = command_line(text, start)?;
    if let Some(offset) = text.get(end..).and_then(|rest| rest.find(|c: char| !c.is_whitespace())) {
        return Err(Fault::new(Reason::MultipleCommands, end + offset));
    }
    let mut command = Command::default();
    arguments(&line, &mut command)?;
    Ok(command)
}

/// What cmd.exe makes of the text, up to the line break that ends the command, and where that stands.
fn command_line(text: &str, start: usize) -> Result<(Vec<Passed>, usize), Fault> {
    let mut passed = Vec::with_capacity(text.len() - start);
    let mut chars = text.char_indices().skip_while(|(at, _)| *at < start).peekable();
    let mut quoted = false;
    while let Some((at, c)) = chars.next() {
        match c {
            '^' if take_line_break(&mut chars) => {
                // The line goes on, and what comes next is literal: a second line break is data. It arrives as LF.
                if take_line_break(&mut chars) {
                    passed.push(('\n', at));
                } else if let Some((at, next)) = chars.next_if(|(_, next)| *next != '"') {
                    passed.push((next, at));
                }
            }
            '^' if !quoted => passed.extend(chars.next().map(|(at, next)| (next, at))),
            '"' => {
                quoted = !quoted;
                passed.push((c, at));
            }
            '\r' if chars.peek().is_none_or(|(_, next)| *next == '\n') => {}
            '\n' => return Ok((passed, at)),
            '&' | '|' | '<' | '>' if !quoted => return Err(Fault::new(Reason::ShellOperator, at)),
            '%' if is_variable(text.get(at + 1..).unwrap_or_default()) => {
                return Err(Fault::new(Reason::ShellExpansion, at));
            }
            _ => passed.push((c, at)),
        }
    }
    Ok((passed, text.len()))
}

fn take_line_break(chars: &mut std::iter::Peekable<impl Iterator<Item = (usize, char)> + Clone>) -> bool {
    let mut ahead = chars.clone();
    ahead.next_if(|(_, c)| *c == '\r');
    let found = ahead.next_if(|(_, c)| *c == '\n').is_some();
    if found {
        *chars = ahead;
    }
    found
}

/// Whether a `%` before `text` begins `%NAME%`. Other text between two `%` names no variable and stays.
fn is_variable(text: &str) -> bool {
    let length = text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    length > 0 && text.as_bytes().get(length) == Some(&b'%') && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// Splits as the C runtime does: blanks separate, `2n` backslashes before a quote are `n`, one more escapes it, and `""`
/// inside quotes is a quote.
fn arguments(line: &[Passed], command: &mut Command) -> Result<(), Fault> {
    let mut chars = line.iter().copied().peekable();
    loop {
        while chars.next_if(|(c, _)| matches!(c, ' ' | '\t')).is_some() {}
        let Some((_, at)) = chars.peek().copied() else { return Ok(()) };
        let mut word = String::new();
        let mut quoted = None;
        while let Some((c, at)) = chars.next_if(|(c, _)| quoted.is_some() || !matches!(c, ' ' | '\t')) {
            match c {
                '\\' => {
                    let mut count = 1;
                    while chars.next_if(|(c, _)| *c == '\\').is_some() {
                        count += 1;
                    }
                    let before_quote = chars.peek().is_some_and(|(c, _)| *c == '"');
                    word.extend(std::iter::repeat_n('\\', if before_quote { count / 2 } else { count }));
                    if before_quote && count % 2 == 1 {
                        chars.next();
                        word.push('"');
                    }
                }
                '"' if quoted.is_some() && chars.next_if(|(c, _)| *c == '"').is_some() => word.push('"'),
                '"' => quoted = if quoted.is_some() { None } else { Some(at) },
                _ => word.push(c),
            }
        }
        if let Some(opened) = quoted {
            return Err(Fault::new(Reason::UnterminatedQuote, opened));
        }
        command.push(word.into_bytes(), at)?;
    }
}
