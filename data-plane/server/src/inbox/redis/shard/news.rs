//! What a step, of this plane or of another, has changed for those who look at a shard.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::super::super::{Flow, FlowId, Lane, Waiting};
use super::super::ask::read_flow;
use super::{SLEEP_MAX, Shard, Shown};

/// News, as scripts write them.
#[derive(Debug, Deserialize)]
struct News {
    version: i64,
    next_at: i64,
    #[serde(default)]
    flows: Vec<(i64, u64, u64, String)>,
}

/// A flow of the store.
pub(super) struct Known {
    version: i64,
    lane: Lane,
    flow: Arc<Flow>,
}

impl Shard {
    /// What another plane did.
    pub(super) fn hear(&mut self, news: &[u8]) {
        self.take_news(news, false);
    }

    pub(super) fn take_news(&mut self, news: &[u8], mine: bool) {
        let News { version, next_at, flows } = match serde_json::from_slice(news) {
            Ok(news) => news,
            Err(error) => {
                tracing::error!(shard = self.number, %error, "news of the store cannot be read");
                return;
            }
        };
        let mut changed = Vec::new();
        for (number, first, retries, name) in flows {
            let (lane, flow) = match self.known.get(&number) {
                // Its own answer told the same, or something newer.
                Some(known) if known.version > version || (known.version == version && !mine) => continue,
                Some(known) => (known.lane, known.flow.clone()),
                None => match read_flow(&name) {
                    Some((lane, flow)) => (lane, Arc::new(flow)),
                    // It was forgotten, and nothing is in it.
                    None => continue,
                },
            };
            self.known.insert(number, Known { version, lane, flow: flow.clone() });
            changed.push((lane, Waiting { id: FlowId(number), flow, first, retries }));
        }
        self.board.show(changed);
        if !mine && next_at > 0 {
            let now = self.clock.now();
            let at = Instant::now()
                + Duration::from_millis(next_at.saturating_sub(now).max(0).unsigned_abs()).min(SLEEP_MAX);
            self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
        }
    }

    pub(super) fn show_reports(&mut self, trimmed: i64, last: i64) {
        let (offset, is_back) = (&mut self.offset, std::mem::take(&mut self.is_back));
        self.board.shards.send_if_modified(|all| {
            let Some(shown) = all.get_mut(usize::from(self.number)) else { return false };
            // One that took over may lack the last of them, which nobody was promised.
            let is_behind = offset.checked_add(last).is_none_or(|last| last < shown.last);
            if *offset == i64::MIN || (is_behind && is_back) {
                *offset = shown.last - trimmed;
            }
            // The answer to an earlier step may be heard after that to a later one.
            let (last, trimmed) = ((last + *offset).max(shown.last), (trimmed + *offset).max(shown.trimmed));
            let new = Shown { last, trimmed, away_since: None };
            let news = *shown != new;
            *shown = new;
            news
        });
    }

    /// Until the store has told of them anew: one that took over may have numbered the latest of them otherwise.
    pub(super) fn forget_flows(&mut self) {
        self.is_back = true;
        let gone: Vec<(i64, Known)> = self.known.drain().collect();
        let gone = gone.into_iter().map(|(number, known)| {
            (known.lane, Waiting { id: FlowId(number), flow: known.flow, first: 0, retries: 0 })
        });
        self.board.show(gone.collect());
    }
}
