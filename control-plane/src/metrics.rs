//! Numbers for Prometheus. Labels are closed lists of the contract and of this program: no name of a tenant, and nothing that a caller
//! chooses, becomes one (O17).

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use sluice_proto::admin::v1::AuditOutcome;
use tonic::Code;

use crate::error::KeyProblem;
use crate::shared::Shared;

/// What is called when it is no method of the contract.
const OTHER_METHOD: &str = "other";

type Label = [(&'static str, &'static str); 1];
type Labels = [(&'static str, &'static str); 2];

/// One control plane's numbers.
pub(crate) struct Metrics {
    registry: Registry,
    calls: Family<Labels, Counter>,
    call_seconds: Family<Label, Histogram>,
    failed_keys: Family<Label, Counter>,
    revisions: Counter,
    ack_seconds: Histogram,
    data_planes: Gauge,
    streams: Gauge,
    streams_ended: Family<Label, Counter>,
    drifts_repaired: Counter,
    captures: Gauge,
    regressed: Gauge,
    audit_entries: Family<Label, Counter>,
    store_errors: Family<Label, Counter>,
}

/// Why a stream of a data plane was ended by the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// It took nothing for too long.
    TooSlow,
    /// Another stream of the same data plane took over.
    Replaced,
    /// It was not begun: a limit was reached.
    TurnedAway,
    /// It was as old as it may get, or the store has begun a new epoch: the data plane connects again.
    Renewed,
}

/// Where the store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreUse {
    /// A call of the contract.
    Call,
    /// A report of a data plane.
    Report,
    /// What is too old was to be deleted.
    Sweep,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// From a millisecond to half a minute.
fn histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            calls: Family::default(),
            call_seconds: Family::new_with_constructor(histogram),
            failed_keys: Family::default(),
            revisions: Counter::default(),
            ack_seconds: histogram(),
            data_planes: Gauge::default(),
            streams: Gauge::default(),
            streams_ended: Family::default(),
            drifts_repaired: Counter::default(),
            captures: Gauge::default(),
            regressed: Gauge::default(),
            audit_entries: Family::default(),
            store_errors: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("sluice_control_calls", "Calls by method and gRPC code", self.calls.clone());
        registry.register_with_unit(
            "sluice_control_call",
            "From the head of a call to the head of its answer, by method",
            Unit::Seconds,
            self.call_seconds.clone(),
        );
        registry.register("sluice_control_failed_keys", "Wrong API keys by what is wrong", self.failed_keys.clone());
        registry.register("sluice_control_revisions", "Revisions seen in the store", self.revisions.clone());
        registry.register_with_unit(
            "sluice_control_revision_acknowledged",
            "From a revision in the store to its acknowledgement, for each data plane that was up to date before",
            Unit::Seconds,
            self.ack_seconds.clone(),
        );
        registry.register("sluice_control_data_planes", "Data planes that are connected", self.data_planes.clone());
        registry.register("sluice_control_streams", "Streams of data planes and watchers", self.streams.clone());
        registry.register(
            "sluice_control_streams_ended",
            "Configuration streams that the control plane ended or did not begin, by reason",
            self.streams_ended.clone(),
        );
        registry.register(
            "sluice_control_drifts_repaired",
            "Workspaces that a data plane served otherwise than it had acknowledged, and that were sent again: alarm above 0",
            self.drifts_repaired.clone(),
        );
        registry.register("sluice_control_captures_open", "Captures that wait for a request", self.captures.clone());
        registry.register(
            "sluice_control_workspaces_regressed",
            "Workspaces that do not publish because data planes have served later revisions than the store holds",
            self.regressed.clone(),
        );
        registry.register("sluice_control_audit_entries", "Audit entries by outcome", self.audit_entries.clone());
        registry.register("sluice_control_store_errors", "Times the store failed, by use", self.store_errors.clone());
    }

    /// A call was answered, a stream begun.
    pub(crate) fn call(&self, method: Option<&'static str>, code: Code, took: Duration) {
        let method = method.unwrap_or(OTHER_METHOD);
        self.calls.get_or_create(&[("method", method), ("code", code_name(code))]).inc();
        self.call_seconds.get_or_create(&[("method", method)]).observe(took.as_secs_f64());
    }

    /// Somebody showed a wrong key.
    pub(crate) fn failed_key(&self, problem: KeyProblem) {
        self.failed_keys.get_or_create(&[("reason", problem.code())]).inc();
    }

    /// A workspace has a new revision.
    pub(crate) fn revision(&self) {
        self.revisions.inc();
    }

    /// A data plane serves a revision so long after it was published.
    pub(crate) fn acknowledged(&self, after: Duration) {
        self.ack_seconds.observe(after.as_secs_f64());
    }

    /// A configuration stream was ended.
    pub(crate) fn stream_ended(&self, end: StreamEnd) {
        let reason = match end {
            StreamEnd::TooSlow => "too_slow",
            StreamEnd::Replaced => "replaced",
            StreamEnd::TurnedAway => "turned_away",
            StreamEnd::Renewed => "renewed",
        };
        self.streams_ended.get_or_create(&[("reason", reason)]).inc();
    }

    /// A data plane had come to serve something else than it had acknowledged, and is right again.
    pub(crate) fn drift_repaired(&self) {
        self.drifts_repaired.inc();
    }

    /// An entry was added to an audit log.
    pub(crate) fn audit_entry(&self, outcome: AuditOutcome) {
        let outcome = match outcome {
            AuditOutcome::Unspecified => "unspecified",
            AuditOutcome::Done => "done",
            AuditOutcome::Refused => "refused",
            AuditOutcome::NewNetwork => "new_network",
        };
        self.audit_entries.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// The store failed.
    pub(crate) fn store_failed(&self, used: StoreUse) {
        let used = match used {
            StoreUse::Call => "call",
            StoreUse::Report => "report",
            StoreUse::Sweep => "sweep",
        };
        self.store_errors.get_or_create(&[("use", used)]).inc();
    }

    /// Everything as text, with what is connected and open as it is now.
    pub(crate) async fn render(&self, shared: &Shared) -> String {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.data_planes.set(gauge(shared.data_planes.connected()));
        self.streams.set(gauge(shared.streams_taken()));
        // Without the store there is no number; the one before stays.
        if let Ok(open) = shared.captures_open().await {
            self.captures.set(open);
        }
        if let Ok(regressed) = shared.workspaces_regressed().await {
            self.regressed.set(regressed);
        }
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _written = encode(&mut text, &self.registry);
        text
    }
}

/// As gRPC calls it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
