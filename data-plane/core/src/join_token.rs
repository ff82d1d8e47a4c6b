//! The form of a join token: `slj_<id>_<secret>_<pin>_<checksum>`. Hides how it is read, hashed and compared.
//!
//! The id is 8 characters by which the token is found; the secret is 32 random bytes in base64url, of which only the SHA-256 is stored;
//! the pin is the SHA-256 of the control plane's certificate authority in base64url, by which a data plane knows the control plane
//! before it tells it the secret (A12); the checksum is the first 8 hexadecimal digits of the SHA-256 of everything before it, so that a
//! cut or mistyped token is told from an unknown one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// What every token begins with.
const MARK: &str = "slj_";
/// Characters of an id.
const ID: usize = 8;
/// Characters of 32 bytes in base64url.
const BYTES_32: usize = 43;
/// Characters of a checksum.
const CHECKSUM: usize = 8;

/// A join token in memory.
pub struct JoinToken {
    /// Its public part.
    pub id: String,
    /// The SHA-256 of the authority's certificate.
    pub pin: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
}

impl JoinToken {
    /// A token of these random bytes, for the authority with this pin.
    pub fn new(id: [u8; 4], secret: Zeroizing<[u8; 32]>, pin: [u8; 32]) -> Self {
        Self { id: hex::encode(id), pin, secret }
    }

    /// Reads a token; `None` when it is none, cut or mistyped.
    pub fn parse(text: &str) -> Option<Self> {
        let (body, checksum) = text.trim().rsplit_once('_')?;
        let rest = body.strip_prefix(MARK).filter(|rest| rest.is_ascii())?;
        let (id, rest) = rest.split_at_checked(ID)?;
        let (secret, rest) = rest.strip_prefix('_')?.split_at_checked(BYTES_32)?;
        let pin = rest.strip_prefix('_')?;
        let plain = id.bytes().all(|b| b.is_ascii_alphanumeric());
        if !plain || checksum != checksum_of(body) {
            return None;
        }
        let read = |text: &str| <[u8; 32]>::try_from(URL_SAFE_NO_PAD.decode(text).ok()?).ok();
        Some(Self { id: id.to_owned(), pin: read(pin)?, secret: Zeroizing::new(read(secret)?) })
    }

    /// The whole token.
    pub fn text(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret.as_slice()));
        let body = Zeroizing::new(format!("{MARK}{}_{}_{}", self.id, *secret, URL_SAFE_NO_PAD.encode(self.pin)));
        Zeroizing::new(format!("{}_{}", *body, checksum_of(&body)))
    }

    /// What is stored of the secret: it is random enough that nothing slower is needed.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret.as_slice()).into()
    }

    /// Whether `stored` is of this token, in a time that does not depend on where they differ.
    pub fn is(&self, stored: &[u8]) -> bool {
        let own = self.hash();
        own.len() == stored.len() && own.iter().zip(stored).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

fn checksum_of(body: &str) -> String {
    let mut hex = hex::encode(Sha256::digest(body));
    hex.truncate(CHECKSUM);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a12_a_token_is_read_as_it_was_written_and_a_cut_one_is_not() {
        let token = JoinToken::new([1, 2, 3, 4], Zeroizing::new([7; 32]), [9; 32]);
        let text = token.text();
        let read = JoinToken::parse(&format!("{}\n", *text)).unwrap();
        assert_eq!((read.id.as_str(), read.pin, read.hash()), ("01020304", [9; 32], token.hash()));
        assert!(read.is(&token.hash()) && !read.is(&token.hash()[..31]) && !read.is(&[0; 32]));
        for length in 0..text.len() {
            assert!(JoinToken::parse(&text[..length]).is_none(), "{length}");
        }
        for at in 4..text.len() {
            let mut typed = text.as_bytes().to_vec();
            typed[at] = if typed[at] == b'7' { b'8' } else { b'7' };
            assert!(JoinToken::parse(&String::from_utf8(typed).unwrap()).is_none(), "position {at}");
        }
    }
}
