//! What a call carries on from the request that caused it: how many calls came before it, and whose trace it belongs to.
//!
//! Hides the form of `Sluice-Hops` (D01, S59) and of W3C Trace Context (<https://www.w3.org/TR/trace-context/>). Both are read
//! from a trigger's headers when it is accepted, kept with its jobs, and written on every call that it causes.

use crate::envelope::Headers;

/// How many calls may follow each other, each one caused by the one before (D01). A call beyond it is not sent.
pub const HOPS_MAX: u32 = 8;
/// The header that counts them. Sluice writes it on every call; an author cannot.
pub const HOPS_HEADER: &str = "Sluice-Hops";
/// The headers that say where in a trace a request stands.
pub const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];
/// Longest `tracestate` that is passed on, in bytes; a longer one is dropped whole.
pub const TRACE_STATE_BYTES_MAX: usize = 512;
/// Most entries of a `tracestate`; one with more is dropped whole.
const TRACE_STATE_ENTRIES_MAX: usize = 32;

/// How many calls of Sluice came before this request. Without the header, and with one that is not ours to read, none; of
/// several values the greatest counts, so that a proxy that joins headers hides nothing.
pub fn hops(headers: &Headers) -> u32 {
    let number = |value: &str| {
        let digits = value.trim();
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        // More digits than fit are a great number, not none.
        is_number.then(|| digits.parse().unwrap_or(u32::MAX))
    };
    headers.get(HOPS_HEADER).into_iter().flat_map(|values| values.split(',')).filter_map(number).max().unwrap_or(0)
}

/// The trace that a request belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// 32 lower-case hexadecimal digits, not all zero.
    pub id: String,
    /// Bit 0: sampled; bit 1: the id is random. Others have no meaning yet and are not passed on.
    pub flags: u8,
    /// What tracing systems say of it to each other; empty: nothing.
    pub state: String,
}

impl Trace {
    /// Reads the trace of a received request. One whose `traceparent` is not valid, or is there twice, has none; a
    /// `tracestate` that is not valid is dropped alone, as the standard asks.
    pub fn received(headers: &Headers) -> Option<Self> {
        let (id, flags) = read_parent(headers.get("traceparent")?)?;
        let state = headers.get("tracestate").filter(|state| is_state(state)).unwrap_or_default();
        Some(Self { id: id.to_owned(), flags, state: state.to_owned() })
    }

    /// The headers of the call that a delivery makes. The parent is the second half of the delivery's id: the same at every
    /// attempt (I3), another for every delivery.
    pub fn headers(&self, delivery: &[u8; 16]) -> Vec<(String, String)> {
        let [.., a, b, c, d, e, f, g, h] = *delivery;
        let parent = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let mut headers = vec![("traceparent".to_owned(), format!("00-{}-{parent:016x}-{:02x}", self.id, self.flags))];
        if !self.state.is_empty() {
            headers.push(("tracestate".to_owned(), self.state.clone()));
        }
        headers
    }
}

/// Whether a header says where in a trace a request stands. An author who sets one of them has both: what the trigger
/// brought is then not passed on.
pub fn is_trace_header(name: &str) -> bool {
    TRACE_HEADERS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Trace id and flags of a `traceparent`: `version-trace-parent-flags`. Versions after 00 may say more behind it.
fn read_parent(value: &str) -> Option<(&str, u8)> {
    let mut parts = value.trim().splitn(5, '-');
    let (version, id, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let more = parts.next();
    let is_hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_set = |part: &str| part.bytes().any(|byte| byte != b'0');
    let valid = is_hex(version, 2)
        && version != "ff"
        && (version != "00" || more.is_none())
        && is_hex(id, 32)
        && is_set(id)
        && is_hex(parent, 16)
        && is_set(parent)
        && is_hex(flags, 2);
    let flags = u8::from_str_radix(flags, 16).ok()? & 0b11;
    valid.then_some((id, flags))
}

/// Whether a `tracestate` may be passed on: entries `key=value`, some of them empty.
fn is_state(state: &str) -> bool {
    let is_key = |key: &str| {
        let (tenant, system) = key.split_once('@').map_or((None, key), |(tenant, system)| (Some(tenant), system));
        let letters = |part: &str, most: usize| {
            (1..=most).contains(&part.len())
                && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'))
        };
        match tenant {
            None => letters(system, 256) && !system.starts_with(['_', '-', '*', '/']),
            Some(tenant) => {
                letters(tenant, 241) && letters(system, 14) && system.starts_with(|c: char| c.is_ascii_lowercase())
            }
        }
    };
    // Printable, without the separators.
    let is_value = |value: &str| {
        (1..=256).contains(&value.len())
            && value.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b',' && byte != b'=')
    };
    let entries: Vec<&str> = state.split(',').map(|entry| entry.trim_matches([' ', '\t'])).collect();
    let is_entry = |entry: &&str| {
        entry.is_empty() || entry.split_once('=').is_some_and(|(key, value)| is_key(key) && is_value(value))
    };
    state.len() <= TRACE_STATE_BYTES_MAX && entries.len() <= TRACE_STATE_ENTRIES_MAX && entries.iter().all(is_entry)
}
