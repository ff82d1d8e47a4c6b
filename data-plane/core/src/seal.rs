//! How a secret rests (design 5, I7).
//!
//! Hides envelope encryption: every workspace has a [`DataKey`], stored wrapped by a master key; every secret field
//! is sealed under its workspace's data key. XChaCha20-Poly1305 throughout. What a ciphertext belongs to
//! ([`Aad`]) is authenticated with it, so that one copied to another workspace, object, field or version does not
//! open (K02). Every ciphertext starts with a format version. Nonces come from the caller, who has randomness; they
//! must never repeat under one key, which 24 random bytes guarantee in practice.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

/// The length of a nonce, in bytes.
pub const NONCE_BYTES: usize = 24;
/// The length of master and data keys, in bytes.
pub const KEY_BYTES: usize = 32;
/// The longest name of a master key, in bytes.
pub const MAX_KEY_ID_BYTES: usize = 64;

/// The length of a key's mark, in bytes.
const MARK_BYTES: usize = 16;

/// The format written today: this byte, the nonce, the ciphertext with its 16-byte tag.
const FORMAT: u8 = 1;

/// A text that must not be shown: printing it gives `[redacted]`, dropping it clears the memory. It cannot be
/// serialised; [`Secret::expose`] marks each place that really needs it.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Takes the text over.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A place of a secret in a rotation (S16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// In force.
    Active,
    /// To be activated.
    Staged,
    /// Active before.
    Previous,
}

impl Slot {
    /// As metrics name it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Staged => "staged",
            Self::Previous => "previous",
        }
    }
}

/// Why something does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Shorter than any ciphertext.
    #[error("the sealed value is cut short")]
    Truncated,
    /// A format of another release.
    #[error("the sealed value has format {0}; this release reads format {FORMAT}")]
    UnknownFormat(u8),
    /// Another key, another place than it was sealed for, or changed bytes: the cipher cannot tell which.
    #[error("the sealed value does not open here: it was sealed with another key or for another place, or changed")]
    Mismatch,
    /// The master key that wrapped it is not in the ring.
    #[error("the master key {key_id} is not in the key ring; add it back to read what it wrapped")]
    UnknownKey {
        /// Its id.
        key_id: String,
    },
    /// What opened is not a key, or not text.
    #[error("the sealed value opened, but holds something else than expected")]
    Contents,
}

impl SealError {
    /// The reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Truncated => "secret.truncated",
            Self::UnknownFormat(_) => "secret.format",
            Self::Mismatch => "secret.aad",
            Self::UnknownKey { .. } => "secret.unknown_key",
            Self::Contents => "secret.contents",
        }
    }
}

/// A 256-bit key, cleared when dropped.
#[derive(Clone)]
struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl Key {
    fn seal(&self, aad: &[u8], plaintext: &[u8], nonce: &[u8; NONCE_BYTES]) -> Vec<u8> {
        let payload = Payload { msg: plaintext, aad };
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        let ciphertext = cipher
            .encrypt(&XNonce::from(*nonce), payload)
            .expect("XChaCha20-Poly1305 takes messages up to 256 GiB and nothing here is near that");
        let mut bytes = Vec::with_capacity(1 + NONCE_BYTES + ciphertext.len());
        bytes.push(FORMAT);
        bytes.extend_from_slice(nonce);
        bytes.extend_from_slice(&ciphertext);
        bytes
    }

    fn open(&self, aad: &[u8], bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (format, rest) = bytes.split_first().ok_or(SealError::Truncated)?;
        if *format != FORMAT {
            return Err(SealError::UnknownFormat(*format));
        }
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Truncated)?;
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        let plaintext = cipher.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad });
        plaintext.map(Zeroizing::new).map_err(|_| SealError::Mismatch)
    }

    /// As [`MasterKeys::marks`] has it.
    fn mark(&self) -> String {
        let mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&*self.0).expect("HMAC takes keys of any length");
        let mac = mac.chain_update(b"sluice.mark").finalize().into_bytes();
        mac.iter().take(MARK_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Joins parts with their lengths, so that no two lists of parts give the same bytes.
fn length_prefixed(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes
}

/// What a sealed value belongs to. It is not stored with the value: opening takes it from where the value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aad<'a> {
    /// The workspace.
    pub workspace: &'a str,
    /// The object the field is part of, for example a connection's id.
    pub object: &'a str,
    /// The field.
    pub field: &'a str,
    /// The object's version.
    pub version: u64,
}

impl Aad<'_> {
    fn bytes(&self) -> Vec<u8> {
        let version = self.version.to_be_bytes();
        let texts = [self.workspace, self.object, self.field].map(str::as_bytes);
        length_prefixed(&[b"sluice.secret", texts[0], texts[1], texts[2], &version])
    }
}

/// A sealed value as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Takes stored bytes; whether they open is seen when they are opened.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The format version, if there are any bytes.
    pub fn version(&self) -> Option<u8> {
        self.0.first().copied()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// A workspace's key. It exists unwrapped only in memory.
#[derive(Clone)]
pub struct DataKey(Key);

impl DataKey {
    /// Makes a key of 32 bytes that the caller took from a cryptographic random source.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Key(Zeroizing::new(bytes)))
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey([redacted])")
    }
}

/// Seals a value for the place `aad` names. `nonce` is 24 fresh random bytes.
pub fn seal(data_key: &DataKey, aad: Aad<'_>, plaintext: &[u8], nonce: &[u8; NONCE_BYTES]) -> Sealed {
    Sealed(data_key.0.seal(&aad.bytes(), plaintext, nonce))
}

/// Opens what [`seal`] made for the same place.
pub fn open(data_key: &DataKey, aad: Aad<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
    data_key.0.open(&aad.bytes(), &sealed.0)
}

/// Opens a value that is a text.
pub fn open_text(data_key: &DataKey, aad: Aad<'_>, sealed: &Sealed) -> Result<Secret, SealError> {
    let bytes = open(data_key, aad, sealed)?;
    std::str::from_utf8(&bytes).map(Secret::new).map_err(|_| SealError::Contents)
}

/// A data key as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrappedKey {
    /// Which master key wrapped it.
    pub key_id: String,
    /// The ciphertext.
    pub bytes: Vec<u8>,
}

/// The master keys: the first wraps, all unwrap.
#[derive(Clone)]
pub struct MasterKeys(Vec<(String, Key)>);

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

/// Why a key ring is refused. Messages name the line, never what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// No key at all: the server does not start (K04).
    #[error("the key ring has no key; write one line `id:base64 of 32 random bytes`")]
    Empty,
    /// A line of another form.
    #[error("key ring, line {line}: expected `id:base64`, the id of letters, digits, `_`, `-`, `.` (at most 64)")]
    Form {
        /// From 1.
        line: usize,
    },
    /// Not the base64 of 32 bytes.
    #[error("key ring, line {line}: the key is not the base64 of exactly 32 bytes")]
    Key {
        /// From 1.
        line: usize,
    },
    /// An id that was there before.
    #[error("key ring, line {line}: this id is already taken by a line above")]
    Twice {
        /// From 1.
        line: usize,
    },
}

impl MasterKeys {
    /// Reads a key ring: one `id:base64(32 bytes)` per line, the first one is primary; empty lines and lines that
    /// start with `#` are skipped.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut keys: Vec<(String, Key)> = Vec::new();
        for (index, content) in text.lines().map(str::trim).enumerate() {
            let line = index + 1;
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let (id, encoded) = content.split_once(':').ok_or(KeyRingError::Form { line })?;
            let is_id_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
            if !(1..=MAX_KEY_ID_BYTES).contains(&id.len()) || !id.bytes().all(is_id_byte) {
                return Err(KeyRingError::Form { line });
            }
            if keys.iter().any(|(known, _)| known == id) {
                return Err(KeyRingError::Twice { line });
            }
            let decoded =
                STANDARD.decode(encoded.trim()).map(Zeroizing::new).map_err(|_| KeyRingError::Key { line })?;
            keys.push((id.to_owned(), key_of(&decoded).ok_or(KeyRingError::Key { line })?));
        }
        if keys.is_empty() { Err(KeyRingError::Empty) } else { Ok(Self(keys)) }
    }

    /// The id of the key that wraps.
    pub fn primary(&self) -> &str {
        self.0.first().map_or("", |(id, _)| id)
    }

    /// The ids of all keys, the primary one first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(id, _)| id.as_str())
    }

    /// By what an installation is known to those who share a store with it: one mark for each key, the same wherever the key is, whatever
    /// it is called there. A mark tells nothing of its key (a MAC under it), and no two keys have one.
    pub fn marks(&self) -> Vec<String> {
        self.0.iter().map(|(_, key)| key.mark()).collect()
    }

    /// Wraps a workspace's data key with the primary key. `nonce` is 24 fresh random bytes.
    pub fn wrap(&self, data_key: &DataKey, workspace: &str, nonce: &[u8; NONCE_BYTES]) -> WrappedKey {
        let (id, key) = self.0.first().expect("a key ring has at least one key");
        WrappedKey { key_id: id.clone(), bytes: key.seal(&wrap_aad(id, workspace), &*data_key.0.0, nonce) }
    }

    /// Unwraps a workspace's data key with whichever master key wrapped it.
    pub fn unwrap(&self, wrapped: &WrappedKey, workspace: &str) -> Result<DataKey, SealError> {
        let (id, key) = self
            .0
            .iter()
            .find(|(id, _)| *id == wrapped.key_id)
            .ok_or_else(|| SealError::UnknownKey { key_id: wrapped.key_id.clone() })?;
        let bytes = key.open(&wrap_aad(id, workspace), &wrapped.bytes)?;
        key_of(&bytes).map(DataKey).ok_or(SealError::Contents)
    }
}

fn wrap_aad(key_id: &str, workspace: &str) -> Vec<u8> {
    length_prefixed(&[b"sluice.key", key_id.as_bytes(), workspace.as_bytes()])
}

fn key_of(bytes: &[u8]) -> Option<Key> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if bytes.len() != KEY_BYTES {
        return None;
    }
    key.copy_from_slice(bytes);
    Some(Key(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; NONCE_BYTES] = [9; NONCE_BYTES];
    const AAD: Aad<'_> = Aad { workspace: "7", object: "connections/c1", field: "secret", version: 3 };

    fn ring(lines: &[(&str, u8)]) -> MasterKeys {
        let line = |(id, fill): &(&str, u8)| format!("{id}:{}\n", STANDARD.encode([*fill; KEY_BYTES]));
        MasterKeys::parse(&lines.iter().map(line).collect::<String>()).unwrap()
    }

    #[test]
    fn k02_opens_only_where_it_was_sealed() {
        let key = DataKey::new([1; KEY_BYTES]);
        let sealed = seal(&key, AAD, b"hunter2", &NONCE);
        assert_eq!(open_text(&key, AAD, &sealed).unwrap().expose(), "hunter2");
        for elsewhere in [
            Aad { workspace: "8", ..AAD },
            Aad { object: "connections/c2", ..AAD },
            Aad { field: "secret2", ..AAD },
            Aad { version: 4, ..AAD },
            // The same letters, cut elsewhere.
            Aad { workspace: "7c", object: "onnections/c1", ..AAD },
            Aad { object: "connections/c1s", field: "ecret", ..AAD },
        ] {
            assert_eq!(open(&key, elsewhere, &sealed).unwrap_err(), SealError::Mismatch);
        }
        assert_eq!(open(&DataKey::new([2; KEY_BYTES]), AAD, &sealed).unwrap_err().code(), "secret.aad");
    }

    #[test]
    fn k03_changed_or_cut_bytes_are_an_error() {
        let key = DataKey::new([1; KEY_BYTES]);
        let sealed = seal(&key, AAD, b"hunter2", &NONCE);
        assert_eq!(sealed.version(), Some(1));
        for at in 0..sealed.as_bytes().len() {
            for bit in 0..8 {
                let mut bytes = sealed.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                let error = open(&key, AAD, &Sealed::from_bytes(bytes)).unwrap_err();
                assert_eq!(matches!(error, SealError::UnknownFormat(_)), at == 0);
            }
            let cut = Sealed::from_bytes(sealed.as_bytes()[..at].to_vec());
            let expected = if at < 1 + NONCE_BYTES { SealError::Truncated } else { SealError::Mismatch };
            assert_eq!(open(&key, AAD, &cut).unwrap_err(), expected, "{at}");
        }
        let longer = Sealed::from_bytes([sealed.as_bytes(), b"x"].concat());
        assert_eq!(open(&key, AAD, &longer).unwrap_err(), SealError::Mismatch);
        let binary = seal(&key, AAD, &[0xff], &NONCE);
        assert_eq!(open_text(&key, AAD, &binary).unwrap_err(), SealError::Contents);
        assert!(open_text(&key, AAD, &seal(&key, AAD, b"", &NONCE)).unwrap().is_empty());
    }

    #[test]
    fn the_format_is_pinned() {
        // Computed by another implementation too. Changing a byte of this makes every stored secret unreadable.
        let sealed = seal(&DataKey::new([1; KEY_BYTES]), AAD, b"hunter2", &NONCE);
        let expected = concat!(
            "01",
            "090909090909090909090909090909090909090909090909",
            "9b98d1e23bb40ac8137bcdbd0290352fc3650d72de2043"
        );
        assert_eq!(hex::encode(sealed.as_bytes()), expected);
    }

    #[test]
    fn a_rotated_ring_reads_what_older_keys_wrapped() {
        let key = DataKey::new([5; KEY_BYTES]);
        let (old, new) = (ring(&[("k1", 1)]), ring(&[("k2", 2), ("k1", 1)]));
        let wrapped = old.wrap(&key, "7", &NONCE);
        assert_eq!(wrapped.key_id, "k1");
        assert!(new.primary() != wrapped.key_id && new.ids().any(|id| id == wrapped.key_id));
        let unwrapped = new.unwrap(&wrapped, "7").unwrap();
        let sealed = seal(&key, AAD, b"x", &NONCE);
        assert!(open(&unwrapped, AAD, &sealed).is_ok());
        let rewrapped = new.wrap(&unwrapped, "7", &NONCE);
        assert_eq!(rewrapped.key_id, "k2");
        assert_eq!(old.unwrap(&rewrapped, "7").unwrap_err(), SealError::UnknownKey { key_id: "k2".into() });
        assert_eq!(new.unwrap(&wrapped, "8").unwrap_err(), SealError::Mismatch);
        let relabelled = WrappedKey { key_id: "k2".into(), ..wrapped.clone() };
        assert_eq!(new.unwrap(&relabelled, "7").unwrap_err(), SealError::Mismatch);
        for end in 0..wrapped.bytes.len() {
            let cut = WrappedKey { bytes: wrapped.bytes[..end].to_vec(), ..wrapped.clone() };
            assert!(new.unwrap(&cut, "7").is_err());
        }
    }

    #[test]
    fn a_key_has_one_mark_whatever_it_is_called() {
        let marks = ring(&[("first", 1), ("second", 2)]).marks();
        assert_eq!(marks, ring(&[("k1", 1), ("k2", 2)]).marks());
        assert_ne!(marks[0], marks[1]);
        // Pinned: stores are known by it.
        assert_eq!(marks[0], "1e0c15d024187682774d5a2ca92aeb62");
    }

    #[test]
    fn key_rings_are_read_strictly() {
        let good = STANDARD.encode([7; KEY_BYTES]);
        let ring = MasterKeys::parse(&format!("# ours\n\n 2026-11.a_b:{good} \r\nold:{good}\n")).unwrap();
        assert_eq!(ring.primary(), "2026-11.a_b");
        assert_eq!(format!("{ring:?}"), r#"["2026-11.a_b", "old"]"#);
        for (text, error) in [
            (String::new(), KeyRingError::Empty),
            ("# nothing\n\n".into(), KeyRingError::Empty),
            (format!("# x\n{good}"), KeyRingError::Form { line: 2 }),
            (format!(":{good}"), KeyRingError::Form { line: 1 }),
            (format!("a b:{good}"), KeyRingError::Form { line: 1 }),
            (format!("{}:{good}", "a".repeat(65)), KeyRingError::Form { line: 1 }),
            ("a:".into(), KeyRingError::Key { line: 1 }),
            ("a:AAAA".into(), KeyRingError::Key { line: 1 }),
            (format!("a:{}", STANDARD.encode([7; 33])), KeyRingError::Key { line: 1 }),
            (format!("a:{good}!"), KeyRingError::Key { line: 1 }),
            (format!("a:{good}\na:{good}"), KeyRingError::Twice { line: 2 }),
        ] {
            let refused = MasterKeys::parse(&text).unwrap_err();
            assert_eq!(refused, error, "{text}");
            assert!(!refused.to_string().contains(&good));
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("CANARY-9f3c");
        let key = DataKey::new(*b"CANARY-9f3c-CANARY-9f3c-CANARY-9");
        let shown = format!("{secret} {secret:?} {key:?} {:?}", Some(secret.clone()));
        assert!(!shown.contains("CANARY"), "{shown}");
        assert!(!shown.contains("67, 65"), "{shown}");
        assert_eq!(secret.expose(), "CANARY-9f3c");
    }
}
