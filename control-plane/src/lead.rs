//! What one control plane does for all of a database: retention, operations, the keys that wrap keys. Hides which one it is. When it
//! ends, another one goes on; what it was at is repeated, which does no harm.

use std::time::Duration;

use sluice_core::seal::Secret;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::chain;
use crate::store::Claim;

/// How soon a server that is away is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether this control plane is the one.
#[derive(Clone, Debug)]
pub(crate) struct Lead(watch::Sender<bool>);

impl Lead {
    /// Of a database that nobody else works on.
    pub(crate) fn always() -> Self {
        Self(watch::Sender::new(true))
    }

    /// Of a PostgreSQL database: it is claimed in a task until `stop`.
    pub(crate) fn claim(url: Secret, stop: CancellationToken) -> Self {
        let lead = Self(watch::Sender::new(false));
        let claiming = lead.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                never = claiming.keep(&url) => match never {},
            }
            claiming.0.send_replace(false);
        });
        lead
    }

    async fn keep(&self, url: &Secret) -> std::convert::Infallible {
        loop {
            match Claim::take(url).await {
                Ok(claim) => {
                    tracing::info!("this control plane does what one does for all of its database");
                    self.0.send_replace(true);
                    claim.lost().await;
                    self.0.send_replace(false);
                    tracing::info!("another control plane does what one does for all of the database");
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "cannot claim what one control plane does for all; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Whether it is this one now.
    pub(crate) fn is_ours(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when it is this one.
    pub(crate) async fn ours(&self) {
        // The sender is here.
        let _ = self.0.subscribe().wait_for(|is_ours| *is_ours).await;
    }
}
