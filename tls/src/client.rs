//! The line from a data plane to its control plane. It is inside the house: what goes out to others is the business of
//! `sluice-egress`.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{Error, Time, provider};

/// Dials with TLS.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    /// What the peer must be called; `None`: as it is dialled.
    name: Option<ServerName<'static>>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Connector {
    /// Trusts the certificate authorities in `pem`, and nobody else.
    ///
    /// # Errors
    /// There is none in it, or one cannot be used.
    pub fn trusting(pem: &[u8], time: Time) -> Result<Self, Error> {
        let trust = |problem: String| Error::Trust(problem);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| trust(error.to_string()))?;
            roots.add(certificate).map_err(|error| trust(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(trust("there is no certificate in PEM form".to_owned()));
        }
        let config = ClientConfig::builder_with_details(provider(), Arc::new(time));
        let config = config.with_safe_default_protocol_versions()?;
        Ok(Self::of(config.with_root_certificates(roots).with_no_client_auth(), None))
    }

    fn of(mut config: ClientConfig, name: Option<ServerName<'static>>) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self { tls: TlsConnector::from(Arc::new(config)), name }
    }

    /// Dials.
    ///
    /// # Errors
    /// Nobody answers there, or somebody who is not trusted.
    #[allow(clippy::disallowed_methods, reason = "this is the one way to the control plane, which is inside the house")]
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TlsStream<TcpStream>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        self.tls.connect(name, stream).await
    }
}
