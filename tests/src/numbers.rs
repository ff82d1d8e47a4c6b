//! A plane's numbers, read from its `/metrics` as an operator reads them.

use std::net::SocketAddr;

use crate::raw_http::{RawHttp, Request};

/// All numbers of a plane at one moment.
#[derive(Clone, Debug)]
pub struct Numbers(String);

impl Numbers {
    /// Asks the health port.
    pub async fn of(health: SocketAddr) -> Self {
        Self(RawHttp::connect(health).await.exchange(&Request::new("GET", "/metrics")).await.text())
    }

    /// One series, for example `sluice_sync_messages_total{kind="delta"}`; one that was never counted is 0.
    pub fn get(&self, series: &str) -> f64 {
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        self.0.lines().find_map(value).unwrap_or(0.0)
    }

    /// Nothing waits, is being worked on, or is not yet reported.
    pub fn is_idle(&self) -> bool {
        let is_unreported = |line: &str| line.starts_with("sluice_outbox_reports ") && !line.ends_with(" 0");
        self.has_no_jobs() && !self.0.lines().any(is_unreported)
    }

    /// Nothing waits or is being worked on.
    pub fn has_no_jobs(&self) -> bool {
        let is_live = |line: &str| {
            line.starts_with("sluice_inbox_jobs{") && !line.contains("state=\"dead\"") && !line.ends_with(" 0")
        };
        self.0.contains("sluice_inbox_jobs{") && !self.0.lines().any(is_live)
    }

    /// All of it, as it was sent.
    pub fn text(&self) -> &str {
        &self.0
    }
}
