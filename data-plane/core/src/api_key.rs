//! The form of an API key: `slc_<id>_<secret>_<checksum>`. Hides how it is read, hashed and compared.
//!
//! The id is 8 characters by which the key is found; the secret is 32 random bytes in base64url, of which only the SHA-256 is stored
//! (K14); the checksum is the first 8 hexadecimal digits of the SHA-256 of everything before it. So a mistyped key is told from an
//! unknown one without a look into any store. Keys that were made before there was a checksum are taken without it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// What every key begins with.
const MARK: &str = "slc_";
/// Characters of an id.
const ID: usize = 8;
/// Characters of a secret: 32 bytes in base64url.
const SECRET: usize = 43;
/// Characters of a checksum.
const CHECKSUM: usize = 8;
/// Bytes of a whole key.
pub const KEY_BYTES: usize = MARK.len() + ID + 1 + SECRET + 1 + CHECKSUM;

/// An API key in memory.
pub struct ApiKey {
    /// Its public part.
    pub id: String,
    secret: Zeroizing<String>,
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoKey {
    /// It does not look like one.
    Malformed,
    /// It looks like one and its checksum is of another.
    Mistyped,
}

impl ApiKey {
    /// A key of these random bytes.
    pub fn new(id: [u8; 4], secret: &[u8; 32]) -> Self {
        Self { id: hex::encode(id), secret: Zeroizing::new(URL_SAFE_NO_PAD.encode(secret)) }
    }

    /// Reads a key.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, NoKey> {
        let parts = || {
            let (id, rest) = text.strip_prefix(MARK).filter(|rest| rest.is_ascii())?.split_at_checked(ID)?;
            let (secret, checksum) = rest.strip_prefix('_')?.split_at_checked(SECRET)?;
            let plain = id.bytes().all(|b| b.is_ascii_alphanumeric());
            (plain && (checksum.is_empty() || checksum.len() == CHECKSUM + 1)).then_some((id, secret, checksum))
        };
        let (id, secret, checksum) = parts().ok_or(NoKey::Malformed)?;
        if !checksum.is_empty() && checksum.strip_prefix('_') != Some(checksum_of(id, secret).as_str()) {
            return Err(NoKey::Mistyped);
        }
        if !URL_SAFE_NO_PAD.decode(secret).is_ok_and(|bytes| bytes.len() == 32) {
            return Err(NoKey::Malformed);
        }
        Ok(Self { id: id.to_owned(), secret: Zeroizing::new(secret.to_owned()) })
    }

    /// The whole key.
    pub fn text(&self) -> Zeroizing<String> {
        let (id, secret) = (&self.id, self.secret.as_str());
        Zeroizing::new(format!("{MARK}{id}_{secret}_{}", checksum_of(id, secret)))
    }

    /// What is stored of the secret: it is random enough that nothing slower is needed (K14).
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_str()).into()
    }

    /// Whether `stored` is of this key, in a time that does not depend on where they differ.
    pub fn is(&self, stored: &[u8]) -> bool {
        let own = self.hash();
        own.len() == stored.len() && own.iter().zip(stored).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

/// What a key with this id begins with.
pub fn prefix(id: &str) -> String {
    format!("{MARK}{id}")
}

fn checksum_of(id: &str, secret: &str) -> String {
    let mut hex = hex::encode(Sha256::digest(format!("{MARK}{id}_{secret}")));
    hex.truncate(CHECKSUM);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = ApiKey::new([1, 2, 3, 4], &[7; 32]);
        let text = key.text();
        assert_eq!(text.len(), KEY_BYTES);
        let read = ApiKey::parse(&text).unwrap();
        assert_eq!((&read.id, read.hash()), (&key.id, key.hash()));
        assert!(text.starts_with(&prefix(&key.id)));
        let without = &text[..text.len() - CHECKSUM - 1];
        assert_eq!(ApiKey::parse(without).unwrap().hash(), key.hash());
        let mistyped = text.replacen("01020304", "01020305", 1);
        assert_eq!(ApiKey::parse(&mistyped).err(), Some(NoKey::Mistyped));
        for bad in ["", "slc_", "slc_abcdefgh", &text[..text.len() - 1], &format!("{}A", *text), &text[1..], "slc_ä"] {
            assert_eq!(ApiKey::parse(bad).err(), Some(NoKey::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_mistyped_key_is_told_apart() {
        let text = ApiKey::new([1, 2, 3, 4], &[7; 32]).text();
        for at in (4..12).chain(13..56).chain(57..65) {
            let mut typed = text.as_bytes().to_vec();
            typed[at] = if typed[at] == b'7' { b'8' } else { b'7' };
            let typed = String::from_utf8(typed).unwrap();
            assert_eq!(ApiKey::parse(&typed).err(), Some(NoKey::Mistyped), "position {at}");
        }
    }

    #[test]
    fn k14_hashes_are_compared_whole() {
        let (one, other) = (ApiKey::new([0; 4], &[1; 32]), ApiKey::new([0; 4], &[2; 32]));
        assert!(one.is(&one.hash()) && !one.is(&other.hash()));
        for at in [0, 15, 31] {
            let mut changed = one.hash();
            changed[at] ^= 1;
            assert!(!one.is(&changed), "{at}");
        }
        assert!(!one.is(&one.hash()[..31]) && !one.is(&[]));
    }
}
