//! The form of an API key: `slc_<id>_<secret>_<checksum>`. Hides how it is made, read and hashed.
//!
//! The id is 8 characters by which the key is found; the secret is 32 random bytes in base64url, of which only the SHA-256 is
//! stored (K14); the checksum is the first 8 hexadecimal digits of the SHA-256 of everything before it. So a mistyped key is told
//! from an unknown one without a look into the store, and scanners that look for leaked keys find no wrong ones. Keys that were made
//! before there was a checksum are taken without it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::secrets::random;

/// What every key begins with.
const MARK: &str = "slc_";
/// Characters of an id.
const ID: usize = 8;
/// Characters of a secret: 32 bytes in base64url.
const SECRET: usize = 43;
/// Bytes of a whole key.
pub(super) const KEY_BYTES: usize = MARK.len() + ID + 1 + SECRET + 1 + CHECKSUM;
/// Characters of a checksum.
const CHECKSUM: usize = 8;

/// An API key in memory.
pub(crate) struct Key {
    /// Its public part.
    pub(crate) id: String,
    secret: Zeroizing<String>,
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoKey {
    /// It does not look like one.
    Malformed,
    /// It looks like one and its checksum is of another.
    Mistyped,
}

impl Key {
    pub(crate) fn parse(text: &str) -> Result<Self, NoKey> {
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

    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        let id = hex::encode(random::<4>()?);
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(Zeroizing::new(random::<32>()?)));
        Ok(Self { id, secret })
    }

    /// The whole key.
    pub(crate) fn text(&self) -> Zeroizing<String> {
        let (id, secret) = (&self.id, self.secret.as_str());
        Zeroizing::new(format!("{MARK}{id}_{secret}_{}", checksum_of(id, secret)))
    }

    /// What is stored of the secret: it is random enough that nothing slower is needed (K14).
    pub(crate) fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_str()).into()
    }
}

/// What a key with this id begins with.
pub(crate) fn prefix(id: &str) -> String {
    format!("{MARK}{id}")
}

fn checksum_of(id: &str, secret: &str) -> String {
    let digest = Sha256::new().chain_update(MARK).chain_update(id).chain_update("_").chain_update(secret).finalize();
    hex::encode(&digest[..CHECKSUM / 2])
}

/// Compares in a time that does not depend on where they differ.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k14_secrets_are_random_and_compared_whole() {
        let (one, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        assert_eq!(URL_SAFE_NO_PAD.decode(one.secret.as_str()).unwrap().len() * 8, 256, "bits; at least 128");
        assert!(!same(&one.hash(), &other.hash()) && same(&one.hash(), &one.hash()));
        for at in [0, 15, 31] {
            let mut changed = one.hash();
            changed[at] ^= 1;
            assert!(!same(&one.hash(), &changed), "{at}");
        }
        assert!(!same(&one.hash(), &one.hash()[..31]) && !same(&one.hash(), &[]));
    }

    #[test]
    fn key_form() {
        let key = Key::generate().unwrap();
        let text = key.text();
        assert_eq!(text.len(), KEY_BYTES);
        assert_eq!(Key::parse(&text).unwrap().hash(), key.hash());
        let older = &text[..KEY_BYTES - CHECKSUM - 1];
        assert_eq!(Key::parse(older).unwrap().hash(), key.hash());
        let (cut, long, other) = (&older[..55], format!("{}A", *text), text.replacen("slc", "abc", 1));
        for bad in ["", "slc_", "slc_abcdefgh", cut, &long, &other, "slc_ä", &text.replacen('_', "-", 2)] {
            assert_eq!(Key::parse(bad).err(), Some(NoKey::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_mistyped_key_is_told_apart() {
        let text = Key::generate().unwrap().text();
        for at in (4..12).chain(13..56).chain(57..65) {
            let mut typed = text.as_bytes().to_vec();
            typed[at] = if typed[at] == b'7' { b'8' } else { b'7' };
            let typed = String::from_utf8(typed).unwrap();
            assert_eq!(Key::parse(&typed).err(), Some(NoKey::Mistyped), "position {at}");
        }
    }
}
