//! The certificates that a door shows. They are read from files, and read again when these change: connections that are open go on
//! with the one they began with. A file that cannot be used leaves the one before in use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, CONTROL_PLANE};
use crate::{Error, Event, Observer, Time, provider};

/// How long a certificate is in force that the authority makes for the control plane, in milliseconds: 90 days.
const OWN_LIFE_MILLIS: i64 = 90 * 24 * 3600 * 1000;
/// How often is looked whether half of that is over.
const OWN_LOOKED_AT_EVERY: Duration = Duration::from_secs(3600);

/// A certificate with its chain, and its key, as files in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, followed by those that lead to its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// How often both are looked at for a change: 10 s by default.
    pub read_every: Duration,
}

impl Files {
    /// These files, looked at every 10 s.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, read_every: Duration::from_secs(10) }
    }

    /// The content of both, to see a change by.
    async fn read(&self) -> Result<(Pair, [u8; 32]), Error> {
        let read = async |path: &Path| {
            tokio::fs::read(path).await.map_err(|source| Error::File { path: path.to_owned(), source })
        };
        let (certificate, key) = (read(&self.certificate).await?, read(&self.key).await?);
        let mut hash = Sha256::new();
        hash.update((certificate.len() as u64).to_be_bytes());
        hash.update(&certificate);
        hash.update(&key);
        Ok((Pair { certificate, key }, hash.finalize().into()))
    }

    fn parse(&self, pair: &Pair) -> Result<Arc<CertifiedKey>, Error> {
        let no = |path: &Path, what| Error::Pem { path: path.to_owned(), what };
        let chain = CertificateDer::pem_slice_iter(&pair.certificate).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| no(&self.certificate, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|_| no(&self.key, "private key"))?;
        certified(chain, key).map_err(|error| Error::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            problem: error.to_string(),
        })
    }
}

struct Pair {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let pair = CertifiedKey::from_der(chain, key, &provider())?;
    pair.keys_match()?;
    Ok(Arc::new(pair))
}

/// What a door shows.
#[derive(Debug, Default)]
pub struct Certificates {
    /// From files.
    shown: ArcSwapOption<CertifiedKey>,
    /// To data planes, and to everybody while there are no files.
    own: ArcSwapOption<CertifiedKey>,
}

impl Certificates {
    /// Reads the files, and reads them again whenever they change, until `stop`.
    ///
    /// # Errors
    /// They cannot be used now.
    pub async fn follow(files: Files, observer: Observer, stop: CancellationToken) -> Result<Arc<Self>, Error> {
        let (pair, seen) = files.read().await?;
        let certificates = Arc::new(Self::default());
        certificates.shown.store(Some(files.parse(&pair)?));
        tokio::spawn(keep(certificates.clone(), files, seen, observer, stop));
        Ok(certificates)
    }

    /// Shows certificates that the authority makes, for [`CONTROL_PLANE`] and for these names, each in good time before the one
    /// before ends.
    ///
    /// # Errors
    /// One of them is no name.
    pub fn vouch(
        self: &Arc<Self>,
        authority: Arc<Authority>,
        names: Vec<String>,
        time: Time,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let mut made = time.now();
        self.own.store(Some(own(&authority, &names, made)?));
        let certificates = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(OWN_LOOKED_AT_EVERY) => {}
                }
                let now = time.now();
                if now.saturating_sub(made) < OWN_LIFE_MILLIS / 2 {
                    continue;
                }
                match own(&authority, &names, now) {
                    Ok(pair) => {
                        certificates.own.store(Some(pair));
                        made = now;
                    }
                    Err(error) => tracing::error!(%error, "the control plane's own certificate cannot be renewed"),
                }
            }
        });
        Ok(())
    }
}

fn own(authority: &Authority, names: &[String], now: i64) -> Result<Arc<CertifiedKey>, Error> {
    let (chain, key) = authority.own(names, now, OWN_LIFE_MILLIS)?;
    Ok(certified(chain, key)?)
}

/// Looks at the files again and again.
async fn keep(
    certificates: Arc<Certificates>,
    files: Files,
    mut seen: [u8; 32],
    observer: Observer,
    stop: CancellationToken,
) {
    let mut unreadable = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(files.read_every) => {}
        }
        let changed = match files.read().await {
            Ok((_, fingerprint)) if fingerprint == seen => {
                unreadable = false;
                continue;
            }
            Ok((pair, fingerprint)) => {
                (seen, unreadable) = (fingerprint, false);
                files.parse(&pair)
            }
            // Said once, not at every look.
            Err(_) if unreadable => continue,
            Err(error) => {
                unreadable = true;
                Err(error)
            }
        };
        match changed {
            Ok(pair) => {
                certificates.shown.store(Some(pair));
                observer.tell(Event::Reloaded);
                tracing::info!(certificate = %files.certificate.display(), "a changed certificate is in use");
            }
            Err(error) => {
                observer.tell(Event::ReloadRefused);
                tracing::error!(%error, "a changed certificate cannot be used; the one before stays in use");
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = if hello.server_name() == Some(CONTROL_PLANE) { None } else { self.shown.load_full() };
        shown.or_else(|| self.own.load_full())
    }
}
