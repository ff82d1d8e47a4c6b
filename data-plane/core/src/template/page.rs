//! Where output goes: into the text of the field, or into a text of its own. Hides how a value is written as its place
//! asks for, and which bytes each placeholder has written.

use minijinja::Value;

use super::ast::{Site, Span};
use super::error::RenderErrorKind;
use super::evaluator::Run;
use super::filters::text_of;
use super::limits::{self, Meter};
use super::operators;
use super::traced::Origin;
use super::{Mode, OnMissing, json_sites, url_sites, values};

/// Which bytes of the output one placeholder has written, and where it begins or its expression does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) at: Span,
}

/// A text in the making.
pub(super) struct Page {
    pub(super) mode: Mode,
    pub(super) on_missing: OnMissing,
    /// Of a text of its own: whether all of it is the author's so far.
    pub(super) catching: Option<Origin>,
    pub(super) escapes_html: bool,
    pub(super) out: String,
    pub(super) written: Vec<Written>,
}

impl Page {
    /// The text of the field. Most come out about as long as their template.
    pub(super) fn new(mode: Mode, on_missing: OnMissing, length: usize) -> Page {
        let (out, written) = (String::with_capacity(length), Vec::with_capacity(16));
        Page { mode, on_missing, catching: None, escapes_html: false, out, written }
    }

    /// A text of its own, written as it prints.
    pub(super) fn inner(&self) -> Page {
        let catching = Some(Origin::Author);
        Page { catching, out: String::new(), written: Vec::new(), ..*self }
    }

    /// The author's text, as it is.
    pub(super) fn text(&mut self, text: &str, at: Span) -> Run<()> {
        if self.out.len() + text.len() > limits::OUTPUT_BYTES {
            return Err(limits::over("bytes of output", limits::OUTPUT_BYTES).or_at(at));
        }
        self.out.push_str(text);
        Ok(())
    }

    /// Writes a value as its place asks for.
    pub(super) fn print(&mut self, value: &Value, origin: Origin, site: Site, at: Span, meter: &mut Meter) -> Run<()> {
        if self.on_missing == OnMissing::Null && value.is_undefined() && origin != Origin::Author {
            return self.put(&Value::from("null"), Origin::Author, site, at, meter);
        }
        if self.escapes_html && origin != Origin::Safe {
            return self.put(&html(value, meter)?, origin.reshaped(), site, at, meter);
        }
        self.put(value, origin, site, at, meter)
    }

    /// As [`print`](Self::print), for what has been escaped inside.
    pub(super) fn put(&mut self, value: &Value, origin: Origin, site: Site, at: Span, meter: &mut Meter) -> Run<()> {
        if let Some(all) = &mut self.catching {
            *all = operators::origin_of([*all, origin].into_iter());
        }
        let start = self.out.len();
        let room = limits::OUTPUT_BYTES - start;
        let container = value.as_object().is_some();
        let cap = if container { meter.printable(room) } else { room };
        let too_long = |_| limits::over("bytes of output", limits::OUTPUT_BYTES);
        let done = match self.mode {
            _ if self.catching.is_some() => values::print(value, cap, &mut self.out).map_err(too_long),
            Mode::Text | Mode::Exact | Mode::Header => values::print(value, cap, &mut self.out).map_err(too_long),
            Mode::Json => json_sites::encode(site, value, origin, cap, &mut self.out),
            Mode::Url => url_sites::encode(value, origin, cap, &mut self.out).map_err(too_long),
        };
        let limited = done.as_ref().is_err_and(|fault| fault.kind == RenderErrorKind::Limit);
        if cap < room && (limited || self.out.len() - start > cap) {
            return Err(meter.unprintable("bytes of output", room).or_inside(at));
        }
        done.map_err(|fault| fault.or_inside(at))?;
        if self.out.len() - start > cap {
            return Err(limits::over("bytes of output", limits::OUTPUT_BYTES).or_inside(at));
        }
        if container {
            meter.printed(self.out.len() - start).map_err(|fault| fault.or_inside(at))?;
        }
        meter.reading(self.out.len() - start).map_err(|fault| fault.or_inside(at))?;
        self.written.push(Written { start, end: self.out.len(), at });
        Ok(())
    }
}

/// Inside of an `autoescape`.
#[inline(never)]
fn html(value: &Value, meter: &mut Meter) -> Run<Value> {
    let text = text_of(value, meter)?;
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
        if escaped.len() > limits::STRING_BYTES {
            return Err(limits::over("bytes in one string", limits::STRING_BYTES));
        }
    }
    meter.string(escaped.len())?;
    Ok(Value::from(escaped))
}
