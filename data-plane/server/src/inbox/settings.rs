//! Which backend an inbox has, and how it is opened.

use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;

use super::{Embedded, EmbeddedSettings, Inbox, OpenError, Redis, RedisOpenError, RedisSettings};
use crate::clock::Clock;

/// Where accepted work is kept.
#[derive(Clone, Debug)]
pub enum InboxSettings {
    /// In a file of this plane's own.
    Embedded(EmbeddedSettings),
    /// In a store that several planes share.
    Redis(RedisSettings),
}

impl InboxSettings {
    /// A bug to have.
    #[cfg(feature = "fault-injection")]
    pub fn fault(&self) -> Option<super::Fault> {
        match self {
            Self::Embedded(settings) => settings.fault,
            Self::Redis(settings) => settings.fault,
        }
    }

    /// The same, to be changed.
    #[cfg(feature = "fault-injection")]
    pub fn fault_mut(&mut self) -> &mut Option<super::Fault> {
        match self {
            Self::Embedded(settings) => &mut settings.fault,
            Self::Redis(settings) => &mut settings.fault,
        }
    }

    /// The same, for the installation whose master keys have these marks ([`RedisSettings::marks`]); a file is nobody else's anyway.
    #[must_use]
    pub fn of_installation(mut self, marks: watch::Receiver<Vec<String>>) -> Self {
        if let Self::Redis(settings) = &mut self {
            settings.marks = marks;
        }
        self
    }

    /// How long a lease lasts unless renewed.
    pub fn lease(&self) -> Duration {
        match self {
            Self::Embedded(settings) => settings.lease,
            Self::Redis(settings) => settings.lease,
        }
    }

    /// The same, to be changed.
    pub fn lease_mut(&mut self) -> &mut Duration {
        match self {
            Self::Embedded(settings) => &mut settings.lease,
            Self::Redis(settings) => &mut settings.lease,
        }
    }

    /// Jobs that may be ready, leased or delayed at once, to be changed.
    pub fn max_jobs_mut(&mut self) -> &mut u64 {
        match self {
            Self::Embedded(settings) => &mut settings.max_jobs,
            Self::Redis(settings) => &mut settings.max_jobs,
        }
    }
}

/// Why an inbox could not be opened.
#[derive(Debug, Error)]
pub enum NotOpened {
    /// The embedded one.
    #[error(transparent)]
    Embedded(#[from] OpenError),
    /// The shared one.
    #[error(transparent)]
    Redis(#[from] RedisOpenError),
}

impl Inbox {
    /// Opens the inbox that the settings name.
    ///
    /// # Errors
    /// [`NotOpened`]; nothing was changed, the operator has to act.
    pub async fn open(settings: InboxSettings, clock: Clock) -> Result<Self, NotOpened> {
        Ok(match settings {
            InboxSettings::Embedded(settings) => Self::Embedded(Embedded::open(settings, clock).await?),
            InboxSettings::Redis(settings) => Self::Redis(Redis::open(settings, clock).await?),
        })
    }
}
