//! Filters between texts and encodings: JSON, URLs, Base64, digests. Hides which characters each lets through. What is
//! encoded says so ([`Origin`]), so that no field encodes it twice.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use md5::{Digest, Md5};
use minijinja::Value;
use sha1::Sha1;
use sha2::{Sha224, Sha256, Sha384, Sha512};

use super::super::Mode;
use super::super::error::Fault;
use super::super::json_text::{self, Refused};
use super::super::limits::{BYTES_PER_ITEM, FROMJSON_DEPTH, Meter, STRING_BYTES, over};
use super::super::traced::{Origin, Traced};
use super::super::url_sites::push_percent;
use super::super::values::{self, is_null};
use super::{Call, Done, Spec, text_of};

pub(super) const FILTERS: &[Spec] = &[
    Spec::new("b64decode", &["encoding"], 0, b64decode).also(&["base64Decode"]),
    Spec::new("b64encode", &["encoding"], 0, b64encode).also(&["base64Encode"]),
    Spec::new("escapejs", &[], 0, escapejs),
    Spec::new("escapejson", &[], 0, escapejson),
    Spec::new("fromjson", &[], 0, fromjson),
    Spec::new("hash", &["algorithm"], 0, hash),
    Spec::new("md5", &[], 0, md5),
    Spec::new("tojson", &[], 0, tojson),
    Spec::new("urldecode", &[], 0, urldecode),
    Spec::new("urlencode", &[], 0, urlencode),
];

pub(super) fn json_text(value: &Value, meter: &mut Meter) -> Result<String, Box<Fault>> {
    let text = values::to_json(value, meter.printable(STRING_BYTES));
    let text = text.map_err(|_| meter.unprintable("bytes in one string", STRING_BYTES))?;
    meter.printed(text.len())?;
    meter.string(text.len())?;
    Ok(text)
}

fn tojson(call: &mut Call<'_>) -> Done {
    let text = json_text(&call.input.value, call.meter)?;
    Ok(Traced { value: Value::from(text), origin: Origin::Json })
}

/// The document in a text (T14). What is not JSON fails the render and is never sent (T43).
fn fromjson(call: &mut Call<'_>) -> Done {
    let value = &call.input.value;
    if is_null(value) {
        return Ok(Traced::data(Value::UNDEFINED));
    }
    let Some(text) = value.as_str() else { return Err(call.needs("a text", value)) };
    call.meter.string(text.len())?;
    // What is read takes more room than its text: about one value for each comma.
    let values = 1 + text.bytes().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count();
    call.meter.spend(values * BYTES_PER_ITEM)?;
    call.meter.visiting(values)?;
    match json_text::read(text, FROMJSON_DEPTH) {
        Ok(value) => Ok(Traced::data(value)),
        Err(Refused::NotJson) => Err(call.fault("got a text that is not JSON")),
        Err(Refused::TooDeep) => Err(over("levels in the JSON given to 'fromjson'", FROMJSON_DEPTH)),
    }
}

/// Escapes as Jinjava does: also `/` and everything beyond ASCII.
fn escapejson(call: &mut Call<'_>) -> Done {
    let text = call.input_text_or_null()?;
    let escaped = escaped(call, &text, "\"\\/", 0x7e)?;
    Ok(Traced { value: Value::from(escaped), origin: Origin::JsonContent })
}

fn escapejs(call: &mut Call<'_>) -> Done {
    let text = call.input_text()?;
    let escaped = escaped(call, &text, "\"\\", 0x7f)?;
    Ok(Traced { value: Value::from(escaped), origin: call.input.origin.reshaped() })
}

/// With a backslash before the characters of `slashed`, and everything beyond `last` as `\uXXXX`.
fn escaped(call: &mut Call<'_>, text: &str, slashed: &str, last: u32) -> Result<String, Box<Fault>> {
    call.meter.spend(text.len())?;
    let mut escaped = String::with_capacity(text.len());
    let mut units = [0u16; 2];
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\u{8}' => escaped.push_str("\\b"),
            '\u{c}' => escaped.push_str("\\f"),
            _ if slashed.contains(c) => {
                escaped.push('\\');
                escaped.push(c);
            }
            _ if c >= ' ' && c as u32 <= last => escaped.push(c),
            _ => escaped.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04X}"))),
        }
        if escaped.len() > STRING_BYTES {
            break;
        }
    }
    call.meter.string(escaped.len())?;
    Ok(escaped)
}

/// Java's form encoding; in a URL a space is `%20`, which is right in path and query alike (D31, T19).
fn urlencode(call: &mut Call<'_>) -> Done {
    let mode = call.around.mode;
    let encoded = pairs_or_text(call, |text, out| {
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => out.push(char::from(byte)),
                b' ' if mode != Mode::Url => out.push('+'),
                _ => push_percent(byte, out),
            }
        }
        Some(())
    })?;
    Ok(Traced { value: Value::from(encoded), origin: Origin::UrlEncoded })
}

fn urldecode(call: &mut Call<'_>) -> Done {
    let decoded = pairs_or_text(call, |text, out| {
        let plain = text.replace('+', " ");
        let whole = plain
            .split('%')
            .skip(1)
            .all(|rest| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)));
        out.push_str(&percent_encoding::percent_decode_str(&plain).decode_utf8_lossy());
        whole.then_some(())
    })?;
    Ok(call.made(decoded, &[]))
}

/// A text changed, or a map written as `key=value&…` with both changed.
fn pairs_or_text(call: &mut Call<'_>, change: impl Fn(&str, &mut String) -> Option<()>) -> Result<String, Box<Fault>> {
    let mut out = String::new();
    let Some(entries) = values::entries(&call.input.value) else {
        let text = call.input_text()?;
        changed(call, &text, &mut out, change)?;
        return Ok(out);
    };
    call.meter.visiting(entries.len())?;
    for (position, (key, value)) in entries.iter().enumerate() {
        if position > 0 {
            out.push('&');
        }
        changed(call, key, &mut out, &change)?;
        out.push('=');
        let text = text_of(value, call.meter)?;
        changed(call, &text, &mut out, &change)?;
    }
    Ok(out)
}

fn changed(
    call: &mut Call<'_>,
    text: &str,
    out: &mut String,
    change: impl Fn(&str, &mut String) -> Option<()>,
) -> Result<(), Box<Fault>> {
    call.meter.string(text.len())?;
    // A byte becomes three at most.
    call.meter.spend(text.len() * 2)?;
    change(text, out).ok_or_else(|| call.fault("got a text with a '%' that encodes nothing"))?;
    if out.len() > STRING_BYTES { Err(over("bytes in one string", STRING_BYTES)) } else { Ok(()) }
}

// ---- Base64 ----

/// Java's decoder takes texts with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How characters are bytes.
#[derive(Clone, Copy)]
enum Charset {
    Utf8,
    Latin1 { last: u32 },
    Utf16 { big: bool, mark: bool },
}

impl Charset {
    fn asked_for(call: &mut Call<'_>) -> Result<Charset, Box<Fault>> {
        let Some(name) = call.text(0)? else { return Ok(Charset::Utf8) };
        Ok(match name.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" => Charset::Utf8,
            "us-ascii" | "ascii" => Charset::Latin1 { last: 0x7f },
            "iso-8859-1" | "latin1" => Charset::Latin1 { last: 0xff },
            "utf-16" => Charset::Utf16 { big: true, mark: true },
            "utf-16be" => Charset::Utf16 { big: true, mark: false },
            "utf-16le" => Charset::Utf16 { big: false, mark: false },
            _ => return Err(call.fault("knows the encodings UTF-8, UTF-16, UTF-16BE, UTF-16LE, ISO-8859-1, US-ASCII")),
        })
    }

    fn bytes(self, text: &str) -> Vec<u8> {
        match self {
            Charset::Utf8 => text.as_bytes().to_vec(),
            Charset::Latin1 { last } => {
                text.chars().map(|c| u8::try_from(c).ok().filter(|_| c as u32 <= last).unwrap_or(b'?')).collect()
            }
            Charset::Utf16 { big, mark } => {
                let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
                units.flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
            }
        }
    }

    /// What is no character becomes `U+FFFD`, as in Java.
    fn text(self, bytes: &[u8]) -> String {
        match self {
            Charset::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
            Charset::Latin1 { last } => {
                let read = |byte: &u8| if u32::from(*byte) <= last { char::from(*byte) } else { '\u{fffd}' };
                bytes.iter().map(read).collect()
            }
            Charset::Utf16 { mut big, mark } => {
                let mut bytes = bytes;
                if let ([0xfe, 0xff, rest @ ..] | [0xff, 0xfe, rest @ ..], true) = (bytes, mark) {
                    big = bytes.first() == Some(&0xfe);
                    bytes = rest;
                }
                let unit = |pair: &[u8]| match *pair {
                    [a, b] if big => u16::from_be_bytes([a, b]),
                    [a, b] => u16::from_le_bytes([a, b]),
                    _ => 0xfffd,
                };
                String::from_utf16_lossy(&bytes.chunks(2).map(unit).collect::<Vec<_>>())
            }
        }
    }
}

fn b64encode(call: &mut Call<'_>) -> Done {
    let charset = Charset::asked_for(call)?;
    let text = call.input_text()?;
    // Four thirds of what is at most two and a half times the text.
    call.meter.spend(text.len().saturating_mul(6))?;
    let encoded = BASE64.encode(charset.bytes(&text));
    call.made_text(encoded, &[])
}

fn b64decode(call: &mut Call<'_>) -> Done {
    let charset = Charset::asked_for(call)?;
    let Some(text) = call.input_string()? else { return Err(call.needs("a text", &call.input.value)) };
    call.meter.spend(text.len().saturating_mul(4))?;
    let Ok(bytes) = BASE64.decode(&*text) else { return Err(call.fault("got a text that is not Base64")) };
    call.made_text(charset.text(&bytes), &[])
}

// ---- digests ----

/// Null stays null; everything else is its text.
fn md5(call: &mut Call<'_>) -> Done {
    digest::<Md5>(call)
}

/// Names are Java's; `SHA-256` if none is given.
fn hash(call: &mut Call<'_>) -> Done {
    let name = call.text(0)?;
    match name.as_deref().unwrap_or("SHA-256").to_ascii_uppercase().replace('-', "").as_str() {
        "MD5" => digest::<Md5>(call),
        "SHA" | "SHA1" => digest::<Sha1>(call),
        "SHA224" => digest::<Sha224>(call),
        "SHA256" => digest::<Sha256>(call),
        "SHA384" => digest::<Sha384>(call),
        "SHA512" => digest::<Sha512>(call),
        _ => Err(call.fault("knows MD5, SHA-1, SHA-224, SHA-256, SHA-384 and SHA-512")),
    }
}

/// In lower-case hexadecimal digits.
fn digest<D: Digest>(call: &mut Call<'_>) -> Done {
    if is_null(&call.input.value) {
        return call.same();
    }
    let text = call.input_text()?;
    call.meter.steps(text.len() / 256)?;
    let digest = hex::encode(D::digest(text.as_bytes()));
    call.made_text(digest, &[])
}
