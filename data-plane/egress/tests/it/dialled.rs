//! Every address that is dialled, as the connector tells it, in order.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

/// Listens on this thread, which a test of one thread does not leave.
pub(super) struct Dialled {
    addresses: Arc<Mutex<Vec<String>>>,
    _listening: DefaultGuard,
}

impl Dialled {
    pub(super) fn listen() -> Self {
        let addresses = Arc::default();
        let _listening = tracing::subscriber::set_default(Listener(Arc::clone(&addresses)));
        Self { addresses, _listening }
    }

    /// What was dialled so far, and forgets it.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.addresses.lock().unwrap())
    }
}

struct Listener(Arc<Mutex<Vec<String>>>);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sluice_egress::guard"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        if said.message == "dialling" {
            self.0.lock().unwrap().push(said.address);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Said {
    message: String,
    address: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "address" => self.address = format!("{value:?}"),
            _ => {}
        }
    }
}
