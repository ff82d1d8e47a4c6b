//! The public keys that tokens are checked by: read from PEM or a JWKS document, each bound to one algorithm (J06 to J10, J35).
//!
//! Everything that is not a public key of sufficient strength is refused when it is read: a key that could never verify a token
//! would be found out too late. Symmetric keys are none of ours.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature as ring_sig;
use serde_json::Value;

use super::is_kid;
use super::members::Members;

/// Largest document of keys, in bytes.
pub const KEYS_BYTES_MAX: usize = 64 * 1024;
/// Most keys of a JWKS document.
pub const KEYS_MAX: usize = 32;
/// Most keys of a PEM document: they have no names, so a token is tried with each.
pub const PEM_KEYS_MAX: usize = 4;
/// Bits of an RSA modulus.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of RFC 7518 and RFC 8037")]
pub enum Algorithm {
    Es256,
    Es384,
    EdDsa,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
}

impl Algorithm {
    /// Every algorithm that is accepted. None is symmetric, and `none` is not one.
    pub const ALL: [Self; 9] = [
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
    ];

    /// As `alg` says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }

    fn is_rsa(self) -> bool {
        !matches!(self, Self::Es256 | Self::Es384 | Self::EdDsa)
    }
}

/// One public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    id: Option<String>,
    algorithm: Algorithm,
    until: Option<i64>,
    material: Material,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    /// Of a curve, as the algorithm writes points.
    Point(Vec<u8>),
    /// Big-endian, without leading zeros.
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
}

/// Why a document of keys is refused. Never holds any of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Over [`KEYS_BYTES_MAX`].
    #[error("has more than {KEYS_BYTES_MAX} bytes")]
    TooLong,
    /// No key at all.
    #[error("holds no key")]
    Empty,
    /// Over the limit of its form.
    #[error("holds more than {0} keys")]
    TooMany(usize),
    /// Not PEM blocks `PUBLIC KEY`.
    #[error("must be PEM blocks `PUBLIC KEY` and nothing else")]
    Pem,
    /// A private key.
    #[error("holds a private key: send the public one, and replace the key, which was shown")]
    Private,
    /// Not a JWKS document.
    #[error("must be a JWKS document: an object with a list `keys`")]
    Jwks,
    /// One key of it cannot be used.
    #[error("key {number}: {problem}")]
    Key {
        /// From 1.
        number: usize,
        /// What is wrong.
        problem: KeyProblem,
    },
}

/// Why one key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// Broken, or of a kind that is not known.
    #[error("is not a public key of P-256, P-384, Ed25519 or RSA")]
    Unreadable,
    /// A shared secret.
    #[error("is symmetric: who can check its tokens could make them")]
    Symmetric,
    /// RSA of another size.
    #[error("an RSA key must have 2048 to 8192 bits and an odd exponent of at least 3")]
    Strength,
    /// RSA without an algorithm.
    #[error("says no algorithm, and RSA keys have several: set `algorithm`")]
    AlgorithmMissing,
    /// The algorithm is not one of the key's kind.
    #[error("its algorithm is not known, is not one for its kind of key, or is not the one set")]
    Algorithm,
    /// `use` or `key_ops` says so.
    #[error("is not for signatures")]
    NotForSignatures,
    /// `kid` breaks its form.
    #[error("`kid` must be 1 to 128 letters, digits, `.`, `_`, `=` and `-`")]
    KeyId,
    /// Several keys and one has no name.
    #[error("has no `kid`, which it needs among others")]
    KeyIdMissing,
    /// The name of another.
    #[error("has the `kid` of another")]
    KeyIdTwice,
}

impl VerifyingKey {
    /// A key of Ed25519 under a name; `until` is the time from which on it is no longer accepted, in milliseconds since 1970.
    /// `None`: not 32 bytes.
    pub fn ed25519(id: &str, public: &[u8], until: Option<i64>) -> Option<Self> {
        let material = Material::Point(public.to_vec());
        let whole = public.len() == 32 && is_kid(id);
        whole.then(|| Self { id: Some(id.to_owned()), algorithm: Algorithm::EdDsa, until, material })
    }

    /// The keys of a PEM document; `wanted` is the algorithm that was set.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_pem(text: &str, wanted: Option<Algorithm>) -> Result<Vec<Self>, KeyError> {
        if text.len() > KEYS_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        if text.contains("PRIVATE KEY") {
            return Err(KeyError::Private);
        }
        let (begin, end) = ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----");
        let mut keys = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (body, after) = rest.strip_prefix(begin).and_then(|rest| rest.split_once(end)).ok_or(KeyError::Pem)?;
            let body: String = body.split_ascii_whitespace().collect();
            let der = STANDARD.decode(body).map_err(|_| KeyError::Pem)?;
            let number = keys.len() + 1;
            let of_key = |problem| KeyError::Key { number, problem };
            let (kind, material) = subject_public_key(&der).ok_or(of_key(KeyProblem::Unreadable))?;
            keys.push(Self::bound(None, kind, material, None, wanted).map_err(of_key)?);
            if keys.len() > PEM_KEYS_MAX {
                return Err(KeyError::TooMany(PEM_KEYS_MAX));
            }
            rest = after.trim();
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(keys) }
    }

    /// The keys of a JWKS document; `wanted` is the algorithm that was set.
    ///
    /// # Errors
    /// What is wrong with it. A key that could not be used is not left out in silence (I9).
    pub fn from_jwks(text: &str, wanted: Option<Algorithm>) -> Result<Vec<Self>, KeyError> {
        if text.len() > KEYS_BYTES_MAX {
            return Err(KeyError::TooLong);
        }
        #[derive(serde::Deserialize)]
        struct Document {
            keys: Vec<Members>,
        }
        let document: Document = serde_json::from_str(text).map_err(|_| KeyError::Jwks)?;
        if document.keys.len() > KEYS_MAX {
            return Err(KeyError::TooMany(KEYS_MAX));
        }
        let alone = document.keys.len() == 1;
        let mut keys: Vec<Self> = Vec::new();
        for (index, members) in document.keys.iter().enumerate() {
            if members.get("d").is_some() {
                return Err(KeyError::Private);
            }
            let of_key = |problem| KeyError::Key { number: index + 1, problem };
            let key = Self::from_jwk(members, wanted).map_err(of_key)?;
            if key.id.is_none() && !alone {
                return Err(of_key(KeyProblem::KeyIdMissing));
            }
            if key.id.is_some() && keys.iter().any(|known| known.id == key.id) {
                return Err(of_key(KeyProblem::KeyIdTwice));
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(keys) }
    }

    fn from_jwk(members: &Members, wanted: Option<Algorithm>) -> Result<Self, KeyProblem> {
        if members.get("use").is_some_and(|value| value.as_str() != Some("sig")) {
            return Err(KeyProblem::NotForSignatures);
        }
        let verifies = |list: &Value| list.as_array().is_some_and(|all| all.iter().any(|one| one == "verify"));
        if members.get("key_ops").is_some_and(|operations| !verifies(operations)) {
            return Err(KeyProblem::NotForSignatures);
        }
        let id = match members.get("kid") {
            None => None,
            Some(Value::String(id)) if is_kid(id) => Some(id.clone()),
            Some(_) => return Err(KeyProblem::KeyId),
        };
        let said = match members.get("alg") {
            None => None,
            Some(Value::String(name)) => Some(Algorithm::parse(name).ok_or(KeyProblem::Algorithm)?),
            Some(_) => return Err(KeyProblem::Algorithm),
        };
        let bytes = |name: &str| {
            let bytes = members.text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
            bytes.ok_or(KeyProblem::Unreadable)
        };
        let point = |length: usize| {
            let point = [vec![4], bytes("x")?, bytes("y")?].concat();
            if bytes("x")?.len() == length && bytes("y")?.len() == length {
                Ok(Material::Point(point))
            } else {
                Err(KeyProblem::Unreadable)
            }
        };
        let (kind, material) = match (members.text("kty"), members.text("crv")) {
            (Some("oct"), _) => return Err(KeyProblem::Symmetric),
            (Some("EC"), Some("P-256")) => (Kind::P256, point(32)?),
            (Some("EC"), Some("P-384")) => (Kind::P384, point(48)?),
            (Some("OKP"), Some("Ed25519")) if bytes("x")?.len() == 32 => (Kind::Ed25519, Material::Point(bytes("x")?)),
            (Some("RSA"), _) => (Kind::Rsa, Material::Rsa { modulus: bytes("n")?, exponent: bytes("e")? }),
            _ => return Err(KeyProblem::Unreadable),
        };
        Self::bound(id, kind, material, said, wanted)
    }

    /// Binds a key to the one algorithm it is used with.
    fn bound(
        id: Option<String>,
        kind: Kind,
        material: Material,
        said: Option<Algorithm>,
        wanted: Option<Algorithm>,
    ) -> Result<Self, KeyProblem> {
        let material = match material {
            Material::Rsa { modulus, exponent } => strong(&modulus, &exponent).ok_or(KeyProblem::Strength)?,
            point => point,
        };
        let of_kind = match kind {
            Kind::P256 => Some(Algorithm::Es256),
            Kind::P384 => Some(Algorithm::Es384),
            Kind::Ed25519 => Some(Algorithm::EdDsa),
            Kind::Rsa => None,
        };
        let algorithm = of_kind.or(said).or(wanted).ok_or(KeyProblem::AlgorithmMissing)?;
        let differs = |other: Option<Algorithm>| other.is_some_and(|other| other != algorithm);
        if differs(said) || differs(wanted) || algorithm.is_rsa() != (kind == Kind::Rsa) {
            return Err(KeyProblem::Algorithm);
        }
        Ok(Self { id, algorithm, until: None, material })
    }

    /// Its name.
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The one algorithm it is used with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// From when on it is no longer accepted.
    pub(super) fn until(&self) -> Option<i64> {
        self.until
    }

    /// Whether this key has signed the message.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Point(point) => {
                let algorithm: &dyn ring_sig::VerificationAlgorithm = match self.algorithm {
                    Algorithm::Es256 => &ring_sig::ECDSA_P256_SHA256_FIXED,
                    Algorithm::Es384 => &ring_sig::ECDSA_P384_SHA384_FIXED,
                    Algorithm::EdDsa => &ring_sig::ED25519,
                    Algorithm::Rs256
                    | Algorithm::Rs384
                    | Algorithm::Rs512
                    | Algorithm::Ps256
                    | Algorithm::Ps384
                    | Algorithm::Ps512 => return false,
                };
                ring_sig::UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
            }
            Material::Rsa { modulus, exponent } => {
                let parameters = match self.algorithm {
                    Algorithm::Rs256 => &ring_sig::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs384 => &ring_sig::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &ring_sig::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps256 => &ring_sig::RSA_PSS_2048_8192_SHA256,
                    Algorithm::Ps384 => &ring_sig::RSA_PSS_2048_8192_SHA384,
                    Algorithm::Ps512 => &ring_sig::RSA_PSS_2048_8192_SHA512,
                    Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return false,
                };
                let key = ring_sig::RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, message, signature).is_ok()
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

/// Both numbers without leading zeros, if the key is strong enough.
fn strong(modulus: &[u8], exponent: &[u8]) -> Option<Material> {
    let without_zeros = |number: &[u8]| -> Vec<u8> { number.iter().copied().skip_while(|byte| *byte == 0).collect() };
    let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
    let bits = (modulus.len() * 8).checked_sub(modulus.first()?.leading_zeros() as usize)?;
    let odd = exponent.last()? % 2 == 1 && exponent.as_slice() != [1];
    (RSA_BITS.contains(&bits) && odd && exponent.len() <= 4).then_some(Material::Rsa { modulus, exponent })
}

/// Reads a `SubjectPublicKeyInfo` (RFC 5280) in DER.
fn subject_public_key(der: &[u8]) -> Option<(Kind, Material)> {
    const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    const P384: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22";
    const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70";
    const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    let (whole, nothing) = element(0x30, der)?;
    let (algorithm, rest) = element(0x30, whole)?;
    let (bits, nothing_more) = element(0x03, rest)?;
    let key = bits.strip_prefix(&[0]).filter(|_| nothing.is_empty() && nothing_more.is_empty())?;
    let point = |kind, length| (key.len() == length).then(|| (kind, Material::Point(key.to_vec())));
    match algorithm {
        P256 => point(Kind::P256, 65).filter(|_| key.first() == Some(&4)),
        P384 => point(Kind::P384, 97).filter(|_| key.first() == Some(&4)),
        ED25519 => point(Kind::Ed25519, 32),
        RSA => {
            let (numbers, nothing) = element(0x30, key)?;
            let (modulus, rest) = element(0x02, numbers)?;
            let (exponent, nothing_more) = element(0x02, rest)?;
            let whole = nothing.is_empty() && nothing_more.is_empty();
            let material = Material::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() };
            whole.then_some((Kind::Rsa, material))
        }
        _ => None,
    }
}

/// One DER element with this tag: its content, and what follows it.
fn element(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[first, length], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // Up to 65,535 bytes: more than any key has.
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length).filter(|_| first == tag)
}
