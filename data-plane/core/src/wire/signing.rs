//! Connections that sign.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sluice_proto::admin::v1 as admin;
use zeroize::Zeroizing;

use super::connection::{header_name_of, only, secret};
use super::template;
use crate::model::{HmacAlgorithm, HmacRecipe, Scheme, SignatureEncoding, SignedPart, SigningKey, TimestampUnit};
use crate::template::Mode;
use crate::validate::{Check, SECRET_CHARS_MAX, SHORT_TEMPLATE_BYTES_MAX};

/// Most secrets that sign at once.
const SECRETS_MAX: usize = 4;
/// Length of a key of Standard Webhooks, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// What it starts with.
const KEY_PREFIX: &str = "whsec_";
/// Most parts of what is signed.
const PARTS_MAX: usize = 20;
/// Longest literal part, in characters.
const LITERAL_CHARS_MAX: usize = 256;
/// Longest text before a signature, and between two.
const PREFIX_CHARS_MAX: usize = 64;
const SEPARATOR_CHARS_MAX: usize = 8;
/// What the template of the signature's header may use.
const HEADER_VARIABLES: [&str; 3] = ["signatures", "timestamp", "messageId"];

/// Takes base64 with or without padding: keys are copied both ways.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Parses a connection that signs by Standard Webhooks.
pub(super) fn standard_webhooks(check: &mut Check, wire: &admin::StandardWebhooks) -> Option<Scheme> {
    let keys = keys(check, &wire.secrets, |text| {
        let encoded = text.strip_prefix(KEY_PREFIX).ok_or("must start with `whsec_`")?;
        let bytes = BASE64.decode(encoded).map(Zeroizing::new).map_err(|_| "must be base64 after `whsec_`")?;
        if KEY_BYTES.contains(&bytes.len()) { Ok(bytes) } else { Err("must be the base64 of 24 to 64 bytes") }
    })?;
    Some(Scheme::StandardWebhooks { keys })
}

/// Parses a connection that signs by a recipe.
pub(super) fn hmac_signature(check: &mut Check, wire: &admin::HmacSignature) -> Option<Scheme> {
    use admin::{HmacAlgorithm as Algorithm, SignatureEncoding as Encoding, TimestampUnit as Unit};
    let encoding = wire.key_encoding();
    let keys = keys(check, &wire.secrets, |text| key_bytes(encoding, text));
    header_name_of(check, "header_name", &wire.header_name);
    let timestamp_header = own_header(check, "timestamp_header", &wire.timestamp_header, &wire.header_name);
    let id_header = own_header(check, "id_header", &wire.id_header, &wire.header_name);
    if !wire.id_header.is_empty() && wire.id_header.eq_ignore_ascii_case(&wire.timestamp_header) {
        check.fail("id_header", "DUPLICATE", "must be another header than timestamp_header");
    }
    let separator = if wire.separator.is_empty() { "," } else { &wire.separator };
    written(check, "signature_prefix", &wire.signature_prefix, PREFIX_CHARS_MAX);
    written(check, "separator", separator, SEPARATOR_CHARS_MAX);
    let signed = signed(check, wire);
    let source = if wire.header_value.is_empty() { "{{signatures}}" } else { &wire.header_value };
    let header_value = template(check, "header_value", source, Mode::Header, SHORT_TEMPLATE_BYTES_MAX)?;
    only(check, "header_value", &header_value, &HEADER_VARIABLES);
    if !header_value.roots().iter().any(|root| root.name == "signatures") {
        check.fail("header_value", "NO_SIGNATURE", "must use `signatures`");
    }
    Some(Scheme::HmacSignature(Box::new(HmacRecipe {
        keys: keys?,
        algorithm: match wire.algorithm() {
            Algorithm::HmacSha1 => HmacAlgorithm::Sha1,
            Algorithm::Unspecified | Algorithm::HmacSha256 => HmacAlgorithm::Sha256,
            Algorithm::HmacSha512 => HmacAlgorithm::Sha512,
        },
        signed: signed?,
        encoding: match wire.encoding() {
            Encoding::Unspecified | Encoding::SignatureHex => SignatureEncoding::Hex,
            Encoding::SignatureBase64 => SignatureEncoding::Base64,
        },
        header_name: wire.header_name.clone(),
        signature_prefix: wire.signature_prefix.clone(),
        separator: separator.to_owned(),
        header_value,
        timestamp_unit: match wire.timestamp_unit() {
            Unit::Unspecified | Unit::WholeSeconds => TimestampUnit::Seconds,
            Unit::WholeMilliseconds => TimestampUnit::Milliseconds,
        },
        timestamp_header,
        id_header,
    })))
}

/// The secrets that sign; one that is stored and was not sent again counts, though it is not here.
fn keys(
    check: &mut Check,
    wire: &[admin::SigningSecret],
    read: impl Fn(&str) -> Result<Zeroizing<Vec<u8>>, &'static str>,
) -> Option<Vec<SigningKey>> {
    if wire.is_empty() {
        check.fail("secrets", "REQUIRED", "at least one secret is required");
    }
    check.count("secrets", wire.len(), SECRETS_MAX);
    let mut keys = Vec::with_capacity(wire.len());
    for (index, one) in wire.iter().enumerate() {
        let key = check.within(format!("secrets[{index}]"), |check| {
            if !is_secret_id(&one.id) {
                let message = "must be 1 to 63 lower-case letters, digits and hyphens, not starting with a hyphen";
                check.fail("id", "ID_INVALID", message);
            } else if wire[..index].iter().any(|other| other.id == one.id) {
                check.fail("id", "DUPLICATE", format!("`{}` is there twice", one.id));
            }
            secret(check, "key", &one.key, one.key_set, SECRET_CHARS_MAX);
            if one.key.is_empty() {
                return Some(SigningKey::new(Zeroizing::default()));
            }
            match read(&one.key) {
                Ok(bytes) => Some(SigningKey::new(bytes)),
                Err(message) => {
                    check.fail("key", "KEY_INVALID", message);
                    None
                }
            }
        });
        keys.extend(key);
    }
    (keys.len() == wire.len()).then_some(keys)
}

fn is_secret_id(id: &str) -> bool {
    (1..=63).contains(&id.len())
        && !id.starts_with('-')
        && id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn key_bytes(encoding: admin::KeyEncoding, text: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    match encoding {
        admin::KeyEncoding::Unspecified | admin::KeyEncoding::KeyText => Ok(Zeroizing::new(text.as_bytes().to_vec())),
        admin::KeyEncoding::KeyHex => hex::decode(text).map(Zeroizing::new).map_err(|_| "must be hexadecimal"),
        admin::KeyEncoding::KeyBase64 => BASE64.decode(text).map(Zeroizing::new).map_err(|_| "must be base64"),
    }
}

/// A further header that the signature brings.
fn own_header(check: &mut Check, field: &str, name: &str, header_name: &str) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    header_name_of(check, field, name);
    if name.eq_ignore_ascii_case(header_name) {
        check.fail(field, "DUPLICATE", "must be another header than header_name");
    }
    Some(name.to_owned())
}

/// Requires text that stands in a header as it is.
fn written(check: &mut Check, field: &str, text: &str, chars_max: usize) {
    if text.len() > chars_max || !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        let message = format!("must be at most {chars_max} visible ASCII characters or spaces");
        check.fail(field, "CHARACTER", message);
    }
}

fn signed(check: &mut Check, wire: &admin::HmacSignature) -> Option<Vec<SignedPart>> {
    use admin::signed_part::Part;
    if wire.signed.is_empty() {
        check.fail("signed", "REQUIRED", "at least one part is required");
    }
    check.count("signed", wire.signed.len(), PARTS_MAX);
    let mut parts = Vec::with_capacity(wire.signed.len());
    for (index, part) in wire.signed.iter().enumerate() {
        let part = check.within(format!("signed[{index}]"), |check| match &part.part {
            Some(Part::Literal(text)) => {
                if text.chars().count() > LITERAL_CHARS_MAX {
                    check.fail("literal", "TOO_LONG", format!("is longer than {LITERAL_CHARS_MAX} characters"));
                }
                Some(SignedPart::Literal(text.clone()))
            }
            Some(Part::Element(element)) => self::element(check, *element),
            Some(Part::Header(name)) => {
                header_name_of(check, "header", name);
                if name.eq_ignore_ascii_case(&wire.header_name) {
                    check.fail("header", "DUPLICATE", "is the header that carries the signature");
                }
                Some(SignedPart::Header(name.clone()))
            }
            None => {
                check.fail("", "REQUIRED", "one of literal, element, header is required");
                None
            }
        });
        parts.extend(part);
    }
    (parts.len() == wire.signed.len()).then_some(parts)
}

fn element(check: &mut Check, element: i32) -> Option<SignedPart> {
    use admin::SignedElement as E;
    match E::try_from(element) {
        Ok(E::Timestamp) => Some(SignedPart::Timestamp),
        Ok(E::MessageId) => Some(SignedPart::MessageId),
        Ok(E::Method) => Some(SignedPart::Method),
        Ok(E::Url) => Some(SignedPart::Url),
        Ok(E::Host) => Some(SignedPart::Host),
        Ok(E::Path) => Some(SignedPart::Path),
        Ok(E::Query) => Some(SignedPart::Query),
        Ok(E::Target) => Some(SignedPart::Target),
        Ok(E::Body) => Some(SignedPart::Body),
        Ok(E::Unspecified) | Err(_) => {
            check.fail("element", "REQUIRED", "must be a part of the request that is known here");
            None
        }
    }
}
