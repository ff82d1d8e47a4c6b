//! Numbers for Prometheus. Labels are closed lists: nothing a sender or a tenant chooses becomes one (O17).

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use sluice_core::dedup::NotDeduplicated;
use sluice_tls::Observer;

use crate::credentials;
use crate::dispatch::Reason;
use crate::inbox::{Lane, LaneStats};
use crate::plane::Plane;

/// One label of a closed list.
pub type Label = [(&'static str, &'static str); 1];
type Labels = [(&'static str, &'static str); 2];

/// One data plane's numbers.
pub struct Metrics {
    registry: Registry,
    triggers: Family<Label, Counter>,
    trigger_seconds: Histogram,
    submitted: Family<Label, Counter>,
    not_deduplicated: Family<Label, Counter>,
    signatures: Family<Label, Counter>,
    attempts: Family<Label, Counter>,
    attempt_seconds: Histogram,
    deliveries: Family<Label, Counter>,
    test_requests: Family<Label, Counter>,
    event_values_cut: Counter,
    token_fetches: Family<Label, Counter>,
    tokens: Gauge,
    oldest_token: Gauge,
    jobs: Family<Labels, Gauge>,
    oldest_ready: Family<Label, Gauge>,
    waiting: Family<Labels, Gauge>,
    breaker_changes: Family<Label, Counter>,
    breakers_open: Gauge,
    outbox: Gauge,
    store_losses: Gauge,
    connected: Gauge,
    clock_skew: Gauge<f64, AtomicU64>,
    revisions_served: Counter,
    revisions_refused: Family<Label, Counter>,
    quarantined: Gauge,
    last_good_errors: Counter,
    messages: Family<Label, Counter>,
    tls: Family<Label, Counter>,
    renewals: Family<Label, Counter>,
    certificate_end: Gauge,
    certificate_alarm: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        // From half a millisecond to half a minute.
        let buckets = || [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let mut metrics = Self {
            registry: Registry::default(),
            triggers: Family::default(),
            trigger_seconds: Histogram::new(buckets()),
            submitted: Family::default(),
            not_deduplicated: Family::default(),
            signatures: Family::default(),
            attempts: Family::default(),
            attempt_seconds: Histogram::new(buckets()),
            deliveries: Family::default(),
            test_requests: Family::default(),
            event_values_cut: Counter::default(),
            token_fetches: Family::default(),
            tokens: Gauge::default(),
            oldest_token: Gauge::default(),
            jobs: Family::default(),
            oldest_ready: Family::default(),
            waiting: Family::default(),
            breaker_changes: Family::default(),
            breakers_open: Gauge::default(),
            outbox: Gauge::default(),
            store_losses: Gauge::default(),
            connected: Gauge::default(),
            clock_skew: Gauge::default(),
            revisions_served: Counter::default(),
            revisions_refused: Family::default(),
            quarantined: Gauge::default(),
            last_good_errors: Counter::default(),
            messages: Family::default(),
            tls: Family::default(),
            renewals: Family::default(),
            certificate_end: Gauge::default(),
            certificate_alarm: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("sluice_triggers", "Requests by how they ended", self.triggers.clone());
        registry.register_with_unit(
            "sluice_trigger",
            "From the head of a request to its answer",
            Unit::Seconds,
            self.trigger_seconds.clone(),
        );
        registry.register("sluice_tls_events", "What went wrong or changed at the TLS of triggers", self.tls.clone());
        registry.register("sluice_submitted_events", "Submitted events by how they ended", self.submitted.clone());
        registry.register(
            "sluice_triggers_not_deduplicated",
            "Requests without a deduplication key, by reason",
            self.not_deduplicated.clone(),
        );
        registry.register(
            "sluice_signatures",
            "Valid signatures of senders, by the slot of the secret that made them",
            self.signatures.clone(),
        );
        registry.register("sluice_attempts", "Attempts by result", self.attempts.clone());
        registry.register_with_unit(
            "sluice_attempt",
            "From sending a request to its whole answer",
            Unit::Seconds,
            self.attempt_seconds.clone(),
        );
        registry.register("sluice_deliveries", "Ended deliveries by state", self.deliveries.clone());
        registry.register("sluice_test_requests", "Test requests by result; no attempts", self.test_requests.clone());
        registry.register(
            "sluice_event_values_cut",
            "Additional event parameters cut at 230 characters",
            self.event_values_cut.clone(),
        );
        self.register_certificate();
        self.register_tokens();
        self.register_inbox();
    }

    fn register_certificate(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "sluice_certificate_renewals",
            "Attempts to renew the certificate for the control plane, by result",
            self.renewals.clone(),
        );
        registry.register(
            "sluice_certificate_end_timestamp_seconds",
            "When the certificate for the control plane ends; 0 when there is none",
            self.certificate_end.clone(),
        );
        registry.register(
            "sluice_certificate_alarm",
            "1 while less than 30 % of the certificate's time is left",
            self.certificate_alarm.clone(),
        );
    }

    fn register_tokens(&mut self) {
        let registry = &mut self.registry;
        registry.register("sluice_token_fetches", "Token fetches by result", self.token_fetches.clone());
        registry.register("sluice_tokens", "Tokens held that have not ended", self.tokens.clone());
        registry.register_with_unit(
            "sluice_token_oldest_age",
            "Since the oldest of them was obtained",
            Unit::Seconds,
            self.oldest_token.clone(),
        );
    }

    fn register_inbox(&mut self) {
        let registry = &mut self.registry;
        registry.register("sluice_inbox_jobs", "Jobs by lane and state", self.jobs.clone());
        registry.register(
            "sluice_inbox_oldest_ready_milliseconds",
            "How long the longest waiting job has been ready",
            self.oldest_ready.clone(),
        );
        registry.register(
            "sluice_dispatch_waiting_jobs",
            "Jobs that are ready and not being sent, by lane and what they wait for",
            self.waiting.clone(),
        );
        registry.register(
            "sluice_breaker_changes",
            "Circuit breakers of destinations that opened or closed",
            self.breaker_changes.clone(),
        );
        registry.register("sluice_breakers_open", "Destinations that are paused or probed", self.breakers_open.clone());
        registry.register("sluice_outbox_reports", "Reports not yet acknowledged", self.outbox.clone());
        registry.register(
            "sluice_inbox_store_losses",
            "How often a shared store turned out to be another one or an older state of it since the start: alarm above 0",
            self.store_losses.clone(),
        );
        registry.register("sluice_sync_connected", "1 while the control plane is connected", self.connected.clone());
        registry.register_with_unit(
            "sluice_clock_skew",
            "How far this clock was ahead of the control plane's at the last beat, negative when behind: alarm beyond 5",
            Unit::Seconds,
            self.clock_skew.clone(),
        );
        registry.register("sluice_config_revisions_served", "Revisions taken", self.revisions_served.clone());
        registry.register(
            "sluice_config_revisions_refused",
            "Revisions refused, by reason",
            self.revisions_refused.clone(),
        );
        registry.register(
            "sluice_config_quarantined_resources",
            "Resources that are left out of what is served, because they or what they need cannot be used: alarm above 0",
            self.quarantined.clone(),
        );
        registry.register(
            "sluice_last_good_errors",
            "Times that what is served could not be written to disk: after a restart without the control plane it would be missing",
            self.last_good_errors.clone(),
        );
        registry.register("sluice_sync_messages", "Configuration messages received, by kind", self.messages.clone());
    }

    /// A request ended.
    pub fn trigger(&self, result: &'static str, took: Duration) {
        self.triggers.get_or_create(&[("result", result)]).inc();
        self.trigger_seconds.observe(took.as_secs_f64());
    }

    /// An event that a caller submitted.
    pub fn submitted(&self, result: &'static str) {
        self.submitted.get_or_create(&[("result", result)]).inc();
    }

    /// A request had no key.
    pub fn not_deduplicated(&self, reason: NotDeduplicated) {
        self.not_deduplicated.get_or_create(&[("reason", reason.code())]).inc();
    }

    /// A sender signed with the secret in this slot.
    pub fn signature(&self, slot: &'static str) {
        self.signatures.get_or_create(&[("slot", slot)]).inc();
    }

    /// An attempt ended: a class of statuses such as `2xx`, or why there was no answer.
    pub fn attempt(&self, result: &'static str, took: Duration) {
        self.attempts.get_or_create(&[("result", result)]).inc();
        self.attempt_seconds.observe(took.as_secs_f64());
    }

    /// Counts what breakers changed to.
    pub fn breaker_changes(&self) -> Family<Label, Counter> {
        self.breaker_changes.clone()
    }

    /// How long the certificate for the control plane is in force, in seconds since 1970, and whether that is an alarm.
    pub fn certificate(&self, end: i64, alarm: bool) {
        self.certificate_end.set(end);
        self.certificate_alarm.set(alarm.into());
    }

    /// The certificate was renewed, or not.
    pub fn renewal(&self, done: bool) {
        self.renewals.get_or_create(&[("result", if done { "renewed" } else { "failed" })]).inc();
    }

    /// Counts what happens at the TLS of triggers.
    pub fn tls(&self) -> Observer {
        let events = self.tls.clone();
        Observer::new(move |event| {
            events.get_or_create(&[("event", event.code())]).inc();
        })
    }

    /// A delivery ended.
    pub fn delivery(&self, state: &'static str) {
        self.deliveries.get_or_create(&[("state", state)]).inc();
    }

    /// A test request was made, or why not: not counted among attempts.
    pub(crate) fn test_request(&self, result: &'static str) {
        self.test_requests.get_or_create(&[("result", result)]).inc();
    }

    /// Values of an event were cut (D24).
    pub fn event_values_cut(&self, count: usize) {
        self.event_values_cut.inc_by(count as u64);
    }

    /// A token was fetched, or why not.
    pub(crate) fn token_fetch(&self, result: &'static str) {
        self.token_fetches.get_or_create(&[("result", result)]).inc();
    }

    /// The configuration stream opened or closed.
    pub fn connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }

    /// How far the clock is ahead of the control plane's.
    #[allow(clippy::cast_precision_loss)]
    pub fn clock_skew(&self, millis: i64) {
        self.clock_skew.set(millis as f64 / 1000.0);
    }

    /// A revision was taken.
    pub fn revision_served(&self) {
        self.revisions_served.inc();
    }

    /// A revision was refused.
    pub fn revision_refused(&self, reason: &'static str) {
        self.revisions_refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// What is served cannot be written to disk.
    pub fn last_good_failed(&self) {
        self.last_good_errors.inc();
    }

    /// A configuration message came.
    pub fn message(&self, kind: &'static str) {
        self.messages.get_or_create(&[("kind", kind)]).inc();
    }

    /// Everything as text, with the inbox as it is now.
    pub async fn render(&self, plane: &Plane) -> String {
        if let Ok(stats) = plane.inbox.stats().await {
            self.lane("realtime", stats.realtime);
            self.lane("bulk", stats.bulk);
            self.outbox.set(stats.outbox.cast_signed());
            self.store_losses.set(stats.store_losses.cast_signed());
        }
        let left_out = plane.served.load().workspaces().map(|workspace| workspace.left_out.count()).sum::<usize>();
        self.quarantined.set(i64::try_from(left_out).unwrap_or(i64::MAX));
        let held = credentials::held(plane);
        self.tokens.set(held.count.cast_signed());
        self.oldest_token.set(held.oldest.as_secs().cast_signed());
        let waiting = plane.dispatch.waiting();
        for (lane, label) in [(Lane::Realtime, "realtime"), (Lane::Bulk, "bulk")] {
            for reason in Reason::ALL {
                let jobs = waiting.get(&(lane, reason)).copied().unwrap_or(0);
                let gauge = self.waiting.get_or_create(&[("lane", label), ("reason", reason.code())]);
                gauge.set(jobs.cast_signed());
            }
        }
        self.breakers_open.set(plane.dispatch.open_breakers().cast_signed());
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _written = encode(&mut text, &self.registry);
        text
    }

    fn lane(&self, lane: &'static str, stats: LaneStats) {
        let counts =
            [("ready", stats.ready), ("leased", stats.leased), ("delayed", stats.delayed), ("dead", stats.dead)];
        for (state, count) in counts {
            self.jobs.get_or_create(&[("lane", lane), ("state", state)]).set(count.cast_signed());
        }
        self.oldest_ready.get_or_create(&[("lane", lane)]).set(stats.oldest_ready_ms.cast_signed());
    }
}
