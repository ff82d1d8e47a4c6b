//! The line from a data plane to its control plane. It is inside the house: what goes out to others is the business of
//! `sluice-egress`. The control plane is known by its authority and by one name ([`CONTROL_PLANE`]), whatever its address is.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::CONTROL_PLANE;
use crate::{Error, Time, provider};

/// Dials with TLS.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Trusts the control plane whose authority has this pin, and shows no certificate.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn pinned(pin: [u8; 32], time: Time) -> Result<Self, Error> {
        let config = ClientConfig::builder_with_details(provider(), Arc::new(time));
        let config = config.with_safe_default_protocol_versions()?.dangerous();
        let verifier = Pinned { pin, provider: provider() };
        Ok(Self::of(config.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()))
    }

    /// Trusts the control plane of this authority, and shows this certificate.
    ///
    /// # Errors
    /// The certificate and the key, in PEM form, do not fit together, or the authority cannot be read.
    pub fn identified(authority: &[u8], certificate: &[u8], key: &str, time: Time) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.to_vec()))?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| Error::Key)?;
        let config = ClientConfig::builder_with_details(provider(), Arc::new(time));
        let config = config.with_safe_default_protocol_versions()?.with_root_certificates(roots);
        Ok(Self::of(config.with_client_auth_cert(vec![CertificateDer::from(certificate.to_vec())], key)?))
    }

    fn of(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// Dials.
    ///
    /// # Errors
    /// Nobody answers there, or somebody who is not trusted.
    #[allow(clippy::disallowed_methods, reason = "this is the one way to the control plane, which is inside the house")]
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(CONTROL_PLANE).map_err(io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

/// Whether a line could not be opened because the peer is not the one that is trusted.
pub fn is_distrust(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Trusts the one authority that has this pin, if the peer sends its certificate along.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates.iter().find(|certificate| Sha256::digest(certificate).as_slice() == self.pin);
        let pinned = pinned.ok_or(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
