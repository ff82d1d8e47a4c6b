//! Who waits for something is woken here. A wake-up carries nothing: whoever is woken reads the truth again, and looks by himself now and
//! then, so that one that is lost costs a moment and nothing else.

use tokio::sync::watch;

use crate::rounds::Rounds;

/// What may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// What is published.
    Revisions,
    /// Outcomes were stored.
    Outcomes,
    /// An operation was started, cancelled or has moved on.
    Operations,
    /// A capture was started, taken or cancelled.
    Captures,
    /// What other control planes tell.
    Replicas,
}

impl Topic {
    const ALL: [Self; 5] = [Self::Revisions, Self::Outcomes, Self::Operations, Self::Captures, Self::Replicas];

    /// As it is called among control planes.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Revisions => "revisions",
            Self::Outcomes => "outcomes",
            Self::Operations => "operations",
            Self::Captures => "captures",
            Self::Replicas => "replicas",
        }
    }

    /// The other way round; `None`: a newer control plane says more.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.word() == word)
    }
}

/// Wakes whoever waits in this process.
#[derive(Clone, Debug)]
pub(crate) struct Wakes {
    revisions: Rounds,
    pub(crate) replicas: Rounds,
    outcomes: watch::Sender<()>,
    operations: watch::Sender<()>,
    captures: watch::Sender<()>,
}

impl Wakes {
    /// `revisions` wakes who reads what is published.
    pub(crate) fn new(revisions: Rounds) -> Self {
        let sender = || watch::Sender::new(());
        Self { revisions, replicas: Rounds::default(), outcomes: sender(), operations: sender(), captures: sender() }
    }

    pub(crate) fn wake(&self, topic: Topic) {
        match topic {
            Topic::Revisions => self.revisions.wake(),
            Topic::Replicas => self.replicas.wake(),
            Topic::Outcomes => self.outcomes.send_replace(()),
            Topic::Operations => self.operations.send_replace(()),
            Topic::Captures => self.captures.send_replace(()),
        }
    }

    /// Anything may have changed.
    pub(crate) fn wake_all(&self) {
        Topic::ALL.into_iter().for_each(|topic| self.wake(topic));
    }

    pub(crate) fn outcomes(&self) -> watch::Receiver<()> {
        self.outcomes.subscribe()
    }

    pub(crate) fn operations(&self) -> watch::Receiver<()> {
        self.operations.subscribe()
    }

    pub(crate) fn captures(&self) -> watch::Receiver<()> {
        self.captures.subscribe()
    }
}
