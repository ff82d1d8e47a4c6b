//! The certificate authority of one installation: it vouches for its control plane and its data planes, and for nobody else. What a
//! request asks for beside its key is ignored: the profile is always the same (A13).

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ED25519};
use x509_parser::prelude::FromDer as _;
use zeroize::Zeroizing;

use crate::identity::uri;

/// What the control plane is called on the line from its data planes, whatever its address is.
pub const CONTROL_PLANE: &str = "control-plane.sluice.internal";
/// Largest request for a certificate, in bytes.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// How far the clocks of two machines may be apart: a certificate is in force that long before it is made. In milliseconds.
pub const SKEW_MILLIS: i64 = 5 * 60 * 1000;
/// How long the authority's own certificate is in force, in milliseconds.
const LIFE_MILLIS: i64 = 20 * 365 * 24 * 3600 * 1000;

/// Vouches.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A certificate cannot be made; the text says nothing of keys.
#[derive(Debug, thiserror::Error)]
#[error("a certificate cannot be made: {0}")]
pub struct Unmade(String);

impl From<rcgen::Error> for Unmade {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

/// Why a request for a certificate is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequest {
    /// It is no PKCS#10 request, or larger than [`REQUEST_BYTES_MAX`].
    Unreadable,
    /// Its signature is not of its key.
    Unsigned,
    /// Its key is neither ECDSA on P-256 nor Ed25519.
    KeyKind,
}

/// The key that a request asks a certificate for. Everything else in it was ignored.
#[derive(Debug)]
pub struct Requested {
    public_key: Vec<u8>,
}

impl Requested {
    /// Reads a PKCS#10 request in DER form.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn read(request: &[u8]) -> Result<Self, BadRequest> {
        if request.len() > REQUEST_BYTES_MAX {
            return Err(BadRequest::Unreadable);
        }
        let (rest, read) = X509CertificationRequest::from_der(request).map_err(|_| BadRequest::Unreadable)?;
        if !rest.is_empty() {
            return Err(BadRequest::Unreadable);
        }
        let key = &read.certification_request_info.subject_pki;
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let kind = &key.algorithm.algorithm;
        let good = (*kind == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256)) || *kind == OID_SIG_ED25519;
        if !good {
            return Err(BadRequest::KeyKind);
        }
        read.verify_signature().map_err(|_| BadRequest::Unsigned)?;
        Ok(Self { public_key: key.raw.to_vec() })
    }

    /// A hash of the key, by which the same one is known again.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.public_key).into()
    }
}

impl Authority {
    /// Makes one, with its private key in PKCS#8 form. `now` is in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate(now: i64) -> Result<(Self, Zeroizing<Vec<u8>>), Unmade> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Sluice");
        (params.not_before, params.not_after) = life(now, LIFE_MILLIS)?;
        let certificate = params.self_signed(&key)?;
        let secret = Zeroizing::new(key.serialize_der());
        Ok((Self { issuer: Issuer::new(params, key), certificate: certificate.der().clone() }, secret))
    }

    /// Opens one that was made before.
    ///
    /// # Errors
    /// The certificate and the key cannot be read.
    pub fn open(certificate: Vec<u8>, key: &[u8]) -> Result<Self, Unmade> {
        let certificate = CertificateDer::from(certificate);
        let key = KeyPair::try_from(key)?;
        Ok(Self { issuer: Issuer::from_ca_cert_der(&certificate, key)?, certificate })
    }

    /// Its own certificate, in DER form.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Its own certificate, in PEM form.
    pub fn pem(&self) -> String {
        crate::certificate_pem(&self.certificate)
    }

    /// By which it is known to who has not seen it yet: the SHA-256 of its certificate.
    pub fn pin(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate).into()
    }

    /// Vouches for a data plane for `life` milliseconds. The serial number begins with the enrolment's own bytes.
    ///
    /// # Errors
    /// The key cannot be used.
    pub fn vouch(
        &self,
        requested: &Requested,
        id: &str,
        serial: [u8; 16],
        now: i64,
        millis: i64,
    ) -> Result<Vec<u8>, Unmade> {
        let mut params = CertificateParams::default();
        let name = uri(id).try_into()?;
        params.subject_alt_names = vec![SanType::URI(name)];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, id);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        (params.not_before, params.not_after) = life(now, millis)?;
        let key = SubjectPublicKeyInfo::from_der(&requested.public_key)?;
        Ok(params.signed_by(&key, &self.issuer)?.der().to_vec())
    }

    /// A certificate for the control plane itself, with a key that is kept nowhere: for [`CONTROL_PLANE`] and these names.
    ///
    /// # Errors
    /// One of them is no name.
    pub(crate) fn own(
        &self,
        names: &[String],
        now: i64,
        millis: i64,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Unmade> {
        let all: Vec<String> = names.iter().cloned().chain([CONTROL_PLANE.to_owned()]).collect();
        let mut params = CertificateParams::new(all)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = life(now, millis)?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok((vec![certificate, self.certificate.clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }
}

fn life(now: i64, millis: i64) -> Result<(OffsetDateTime, OffsetDateTime), Unmade> {
    let at = |millis: i64| {
        OffsetDateTime::from_unix_timestamp(millis.div_euclid(1000)).map_err(|error| Unmade(error.to_string()))
    };
    Ok((at(now.saturating_sub(SKEW_MILLIS))?, at(now.saturating_add(millis))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, NodeKey};
    use x509_parser::prelude::X509Certificate;

    const NOW: i64 = 1_800_000_000_000;
    const DAY: i64 = 24 * 3600 * 1000;

    fn serial() -> [u8; 16] {
        *b"Aaaaaaaabbbbbbbb"
    }

    #[test]
    fn a13_whatever_is_asked_for_the_profile_is_the_same() {
        let (authority, secret) = Authority::generate(NOW).unwrap();
        let opened = Authority::open(authority.certificate().to_vec(), &secret).unwrap();
        assert_eq!(opened.pin(), authority.pin());
        let key = KeyPair::generate().unwrap();
        let mut asks = CertificateParams::new(vec!["admin.example".to_owned()]).unwrap();
        asks.subject_alt_names.push(SanType::URI(uri("other-tenant").try_into().unwrap()));
        asks.distinguished_name.push(DnType::CommonName, "administrator");
        asks.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        asks.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        asks.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
        let asked = asks.serialize_request(&key).unwrap();
        for authority in [&authority, &opened] {
            let requested = Requested::read(asked.der()).unwrap();
            let made = authority.vouch(&requested, "dp-1", serial(), NOW, DAY).unwrap();
            let (_, read) = X509Certificate::from_der(&made).unwrap();
            assert!(!read.is_ca());
            assert_eq!(read.subject().to_string(), "CN=dp-1");
            let names = read.subject_alternative_name().unwrap().unwrap().value;
            assert_eq!(names.general_names.len(), 1, "{names:?}");
            let uses = read.extended_key_usage().unwrap().unwrap().value;
            assert!(uses.client_auth && !uses.server_auth && !uses.any);
            let usage = read.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && !usage.key_cert_sign());
            let life = read.validity();
            assert_eq!(life.not_after.timestamp(), (NOW + DAY) / 1000);
            assert_eq!(life.not_before.timestamp(), (NOW - SKEW_MILLIS) / 1000);
            let identity = Identity::of(&made.clone().into()).unwrap();
            assert_eq!((identity.id.as_str(), identity.end), ("dp-1", NOW + DAY));
            assert_eq!(identity.enrolment, *b"Aaaaaaaa");
        }
    }

    #[test]
    fn a13_only_small_modern_keys_are_vouched_for() {
        let good = NodeKey::generate().unwrap().request().unwrap();
        assert!(Requested::read(&good).is_ok());
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let ed25519 = CertificateParams::default().serialize_request(&ed25519).unwrap();
        assert!(Requested::read(ed25519.der()).is_ok());
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let p384 = CertificateParams::default().serialize_request(&p384).unwrap();
        assert_eq!(Requested::read(p384.der()).err(), Some(BadRequest::KeyKind));
        assert_eq!(Requested::read(RSA_1024).err(), Some(BadRequest::KeyKind));
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(Requested::read(&forged).err(), Some(BadRequest::Unsigned));
        let longer = [good.as_slice(), &[0]].concat();
        for bad in [&good[..good.len() - 1], &longer, &[], &[0x30; REQUEST_BYTES_MAX + 1]] {
            assert_eq!(Requested::read(bad).err(), Some(BadRequest::Unreadable));
        }
    }

    #[test]
    fn a11_a_certificate_of_another_role_is_no_identity() {
        let (authority, _) = Authority::generate(NOW).unwrap();
        let (chain, _) = authority.own(&["localhost".to_owned()], NOW, DAY).unwrap();
        assert!(Identity::of(&chain[0]).is_none() && Identity::of(authority.certificate()).is_none());
        let key = KeyPair::generate().unwrap();
        let named = |uris: &[&str]| {
            let mut params = CertificateParams::default();
            let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
            params.subject_alt_names = uris.collect();
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            params.serial_number = Some(SerialNumber::from_slice(&serial()));
            Identity::of(params.signed_by(&key, &authority.issuer).unwrap().der())
        };
        assert!(named(&["spiffe://sluice/data-plane/dp-1"]).is_some());
        for wrong in [
            &["spiffe://sluice/admin/dp-1"][..],
            &["spiffe://other/data-plane/dp-1"],
            &["spiffe://sluice/data-plane/"],
            &["spiffe://sluice/data-plane/dp-1/x"],
            &["spiffe://sluice/data-plane/dp-1", "spiffe://sluice/data-plane/dp-2"],
            &[],
        ] {
            assert!(named(wrong).is_none(), "{wrong:?}");
        }
    }

    /// A request with an RSA key of 1,024 bits, as openssl makes it.
    const RSA_1024: &[u8] = include_bytes!("../testdata/rsa-1024.csr");
}
