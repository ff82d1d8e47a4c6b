//! Who may come in with a certificate: whom the authority vouches for, also for a while after the end of the certificate. What an
//! expired one is still good for is decided by who is asked.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use crate::authority::Authority;
use crate::identity::end;
use crate::{Error, provider};

/// Takes certificates of the authority, and callers without one.
#[derive(Debug)]
pub(crate) struct Graceful {
    inner: Arc<dyn ClientCertVerifier>,
    /// For how long after its end a certificate is taken.
    grace: Duration,
}

impl Graceful {
    pub(crate) fn new(authority: &Authority, grace: Duration) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone())?;
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).allow_unauthenticated();
        let inner = inner.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        Ok(Self { inner, grace })
    }
}

impl ClientCertVerifier for Graceful {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let end = end(end_entity).map(Duration::from_secs);
        let since = Duration::from_secs(now.as_secs());
        let at = match end {
            Some(end) if end < since && since <= end + self.grace => UnixTime::since_unix_epoch(end),
            Some(_) | None => now,
        };
        self.inner.verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
