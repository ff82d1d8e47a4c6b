//! What every part of a running data plane shares.

use std::sync::Arc;

use sluice_core::address::UrlPolicy;
use sluice_core::failed_keys::FailedKeys;
use sluice_egress::Egress;

use crate::applying::Applying;
use crate::captures::Captures;
use crate::clock::Clock;
use crate::compiling::Compilations;
use crate::credentials::Tokens;
use crate::dispatch::Dispatch;
use crate::drain::Drain;
use crate::fleet::Fleet;
use crate::inbox::Inbox;
use crate::key_uses::KeyUses;
use crate::last_good::LastGoodStore;
use crate::metrics::Metrics;
use crate::requests_told::RequestsTold;
use crate::ring::Ring;
use crate::runtime::Served;
use crate::settings::Settings;
use crate::sync::Asked;
use crate::trial::Tests;

/// A handle on the shared parts; cheap to clone.
#[derive(Clone, Debug)]
pub struct Plane(Arc<Parts>);

/// The shared parts.
#[derive(Debug)]
pub struct Parts {
    /// As started with.
    pub settings: Settings,
    /// The time of day.
    pub clock: Clock,
    /// Opens the workspaces' data keys.
    pub ring: Ring,
    /// Which URLs may be called.
    pub urls: UrlPolicy,
    /// What is served.
    pub served: Served,
    /// Logins with keys that were not accepted.
    pub failed_logins: FailedKeys,
    /// Logins with keys that were.
    pub key_uses: KeyUses,
    /// Requests that are waited for while integrations are built.
    pub captures: Captures,
    /// Places for requests that are tried out.
    pub tests: Tests,
    /// Whether the control plane has been asked once.
    pub asked: Asked,
    /// The last configuration that was served, on disk.
    pub last_good: LastGoodStore,
    /// What is being applied right now, on disk.
    pub applying: Applying,
    /// Places for what is being compiled.
    pub compilations: Compilations,
    /// The durable heart.
    pub inbox: Inbox,
    /// How many planes keep limits together.
    pub fleet: Fleet,
    /// Which jobs are sent next.
    pub dispatch: Dispatch,
    /// Whether it is being drained.
    pub drain: Drain,
    /// The one way out.
    pub egress: Egress,
    /// What tokens share.
    pub tokens: Tokens,
    /// Which requests are told of already.
    pub requests_told: RequestsTold,
    /// Numbers.
    pub metrics: Metrics,
}

impl Plane {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for Plane {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
