//! Who a data plane is: the name in its certificate, and the key that it makes by itself and never shows.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
pub use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::authority::Unmade;
use crate::certificate_pem;

/// What the name of every data plane begins with.
const PREFIX: &str = "spiffe://sluice/data-plane/";
/// Longest id of a data plane, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// The name of a data plane in certificates.
pub(crate) fn uri(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// Whether this can be the id of a data plane: letters, digits, `-`, `_` and `.`; at most 128.
pub fn is_id(id: &str) -> bool {
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    plain && !id.is_empty() && id.len() <= ID_BYTES_MAX
}

/// What a certificate says of a data plane. Whether an authority vouches for it was checked when the connection began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub id: String,
    /// Which enrolment of this id it comes from: the first bytes of its serial number.
    pub enrolment: [u8; 8],
    /// Since when it is in force, in milliseconds since the Unix epoch.
    pub begin: i64,
    /// Until when.
    pub end: i64,
}

impl Identity {
    /// Reads it; `None` for a certificate of anything else.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        let names = &read.subject_alternative_name().ok()??.value.general_names;
        let [GeneralName::URI(name)] = names.as_slice() else { return None };
        let id = name.strip_prefix(PREFIX).filter(|id| is_id(id))?;
        let client = read.extended_key_usage().ok()??.value.client_auth;
        let enrolment = read.raw_serial().first_chunk()?;
        let (begin, end) = span(&read);
        (client && !read.is_ca()).then(|| Self { id: id.to_owned(), enrolment: *enrolment, begin, end })
    }
}

/// When a certificate is in force, in milliseconds since the Unix epoch.
fn span(certificate: &X509Certificate<'_>) -> (i64, i64) {
    let millis = |seconds: i64| seconds.saturating_mul(1000);
    let life = certificate.validity();
    (millis(life.not_before.timestamp()), millis(life.not_after.timestamp()))
}

/// The end of a certificate, in seconds since the Unix epoch.
pub(crate) fn end(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    u64::try_from(read.validity().not_after.timestamp()).ok()
}

/// The private key of a data plane.
pub struct NodeKey(KeyPair);

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey([redacted])")
    }
}

impl NodeKey {
    /// Makes one, of ECDSA on P-256.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<Self, Unmade> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// Reads one in PEM form.
    ///
    /// # Errors
    /// It is none.
    pub fn from_pem(pem: &str) -> Result<Self, Unmade> {
        Ok(Self(KeyPair::from_pem(pem)?))
    }

    /// As a file holds it.
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem().replace("\r\n", "\n"))
    }

    /// Asks for a certificate for it, in DER form. It names nobody: who it is for is said beside it.
    ///
    /// # Errors
    /// It cannot sign.
    pub fn request(&self) -> Result<Vec<u8>, Unmade> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }
}

/// A private key, its certificate and that of the authority that has signed it, as one file in PEM form holds them. A key that has no
/// certificate yet is alone in it.
pub struct Bundle {
    /// In PEM form.
    pub key: Zeroizing<String>,
    /// In DER form: the certificate, then the authority's.
    pub certificates: Option<(Vec<u8>, Vec<u8>)>,
}

impl Bundle {
    /// Reads it; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        const END: &str = "-----END PRIVATE KEY-----\n";
        let (key, rest) = text.split_at_checked(text.find(END)? + END.len())?;
        let certificates = CertificateDer::pem_slice_iter(rest.as_bytes()).collect::<Result<Vec<_>, _>>().ok()?;
        let certificates = match certificates.as_slice() {
            [] => None,
            [own, authority] => Some((own.to_vec(), authority.to_vec())),
            _ => return None,
        };
        Some(Self { key: Zeroizing::new(key.to_owned()), certificates })
    }

    /// As the file holds it.
    pub fn text(&self) -> Zeroizing<String> {
        let certificates = self.certificates.iter().flat_map(|(own, authority)| [own, authority]);
        let certificates: String = certificates.map(|certificate| certificate_pem(certificate)).collect();
        Zeroizing::new(format!("{}{certificates}", *self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_as_it_was_written() {
        let key = NodeKey::generate().unwrap();
        let mut bundle = Bundle { key: Zeroizing::new(key.pem().replace("\r\n", "\n")), certificates: None };
        for certificates in [None, Some((vec![1; 100], vec![2; 10]))] {
            bundle.certificates = certificates;
            let read = Bundle::parse(&bundle.text()).unwrap();
            assert_eq!((&*read.key, &read.certificates), (&*bundle.key, &bundle.certificates));
            assert_eq!(NodeKey::from_pem(&read.key).unwrap().pem(), key.pem());
        }
        let text = bundle.text();
        for cut in [0, 10, text.len() - 20] {
            assert!(Bundle::parse(&text[..cut]).is_none(), "{cut}");
        }
    }
}
