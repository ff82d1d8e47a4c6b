//! Deliveries: where each stands, how they are found, and what was sent and answered.
//!
//! A filter is part of every statement here, in one text ([`matching!`]); where one of its conditions selects much better than
//! time does, a statement of its own repeats that condition alone, so that its index is used ([`Driver`]).

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;

use super::many::Insert;
use super::outcomes::outcome;
use super::{OutcomeRow, Row, StoreError, Transaction, Value};
use crate::clock::UnixMillis;

/// What is stored of a delivery beside its encoded message, to find it by.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryRow {
    pub(crate) workspace: String,
    pub(crate) name: String,
    /// The encoded message.
    pub(crate) body: Vec<u8>,
    pub(crate) state: i64,
    pub(crate) reason: i64,
    pub(crate) status: i64,
    pub(crate) workflow: String,
    pub(crate) step: String,
    pub(crate) incoming: String,
    pub(crate) trigger_id: String,
    pub(crate) operation: String,
    pub(crate) accept_time: UnixMillis,
    /// Of two reports the one with the greater order counts.
    pub(crate) order: i64,
}

/// Which deliveries, as it is bound: what is empty or at its bound means any.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) name: String,
    pub(crate) trigger_id: String,
    pub(crate) workflow: String,
    pub(crate) step: String,
    pub(crate) incoming: String,
    pub(crate) operation: String,
    /// One bit for each state by its number; 0: any.
    pub(crate) states: i64,
    /// One bit for each reason by its number; 0: any.
    pub(crate) reasons: i64,
    pub(crate) status_min: i64,
    pub(crate) status_max: i64,
    pub(crate) accepted_from: UnixMillis,
    pub(crate) accepted_before: UnixMillis,
}

/// Where a page of deliveries begins or ends: newest first means descending by both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) accept_time: UnixMillis,
    pub(crate) sequence: i64,
}

impl Place {
    /// Before every page that goes down.
    pub(crate) const NEWEST: Self = Self { accept_time: UnixMillis::MAX, sequence: i64::MAX };

    /// Before every page that goes up.
    pub(crate) const OLDEST: Self = Self { accept_time: UnixMillis::MIN, sequence: i64::MIN };

    /// Reads what it is written as.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (accept_time, sequence) = text.split_once('/')?;
        Some(Self { accept_time: accept_time.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.accept_time, self.sequence)
    }
}

/// A delivery on a page.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) place: Place,
    pub(crate) body: Vec<u8>,
}

/// A delivery that may be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) workflow: String,
    pub(crate) step: String,
    pub(crate) incoming: String,
    pub(crate) trigger_id: String,
    pub(crate) state: i64,
}

/// How many deliveries of one step are in one state, with or without what led to them.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) workflow: String,
    pub(crate) step: String,
    pub(crate) state: i64,
    /// The incoming request, or the event, is kept.
    pub(crate) kept: bool,
    pub(crate) count: i64,
    pub(crate) oldest: UnixMillis,
    pub(crate) newest: UnixMillis,
}

/// The condition that finds the rows; the others are checked on what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    Name,
    Trigger,
    Operation,
    Reason,
    State,
    Workflow,
    Incoming,
    Time,
}

/// The state that most deliveries end in.
const DELIVERED: i64 = 1;

impl Selection {
    /// Itself, or one for each of several states, which no two rows share, so that each is found by its index and not by walking
    /// through all that was delivered meanwhile.
    fn parts(&self) -> Vec<Self> {
        let rest = self.states & !(1 << DELIVERED) == self.states && self.states != 0;
        match self.driver() {
            Driver::Workflow | Driver::Incoming | Driver::Time if rest => {
                let each = (0..i64::BITS - 1).map(|state| 1 << state).filter(|state| self.states & state != 0);
                each.map(|states| Self { states, ..self.clone() }).collect()
            }
            Driver::Workflow
            | Driver::Incoming
            | Driver::Time
            | Driver::Name
            | Driver::Trigger
            | Driver::Operation
            | Driver::Reason
            | Driver::State => vec![self.clone()],
        }
    }

    /// The best one that is set.
    fn driver(&self) -> Driver {
        let one = |bits: i64| bits.count_ones() == 1;
        if !self.name.is_empty() {
            Driver::Name
        } else if !self.trigger_id.is_empty() {
            Driver::Trigger
        } else if !self.operation.is_empty() {
            Driver::Operation
        } else if one(self.reasons) && self.reasons & 1 == 0 {
            Driver::Reason
        } else if one(self.states) && self.states & (1 << DELIVERED) == 0 {
            Driver::State
        } else if !self.workflow.is_empty() {
            Driver::Workflow
        } else if !self.incoming.is_empty() {
            Driver::Incoming
        } else {
            Driver::Time
        }
    }

    /// The values of [`matching!`], `$1` to `$13`, the driver's, `$14`, and `more`.
    fn values<'a>(&'a self, workspace: &'a str, more: &[i64]) -> Vec<Value<'a>> {
        let driver = match self.driver() {
            Driver::Reason => i64::from(self.reasons.trailing_zeros()),
            Driver::State => i64::from(self.states.trailing_zeros()),
            Driver::Name | Driver::Trigger | Driver::Operation | Driver::Workflow | Driver::Incoming | Driver::Time => {
                0
            }
        };
        let mut values: Vec<Value<'_>> = vec![
            workspace.into(),
            (&self.name).into(),
            (&self.trigger_id).into(),
            (&self.workflow).into(),
            (&self.step).into(),
            (&self.incoming).into(),
            self.states.into(),
            self.reasons.into(),
            self.status_min.into(),
            self.status_max.into(),
            self.accepted_from.into(),
            self.accepted_before.into(),
            (&self.operation).into(),
            driver.into(),
        ];
        values.extend(more.iter().map(|number| Value::Integer(*number)));
        values
    }
}

/// The text of a filter. `$14` is the driver's where it is no text of the filter itself.
macro_rules! matching {
    () => {
        "workspace = $1 AND ($2 = '' OR name = $2) AND ($3 = '' OR trigger_id = $3) AND ($4 = '' OR workflow = $4) \
         AND ($5 = '' OR step = $5) AND ($6 = '' OR incoming = $6) \
         AND ($7 = 0 OR (($7 >> CAST(state AS INTEGER)) & 1) = 1) \
         AND ($8 = 0 OR (($8 >> CAST(reason AS INTEGER)) & 1) = 1) \
         AND status BETWEEN $9 AND $10 AND accept_time >= $11 AND accept_time < $12 AND ($13 = '' OR operation = $13) \
         AND $14 = $14"
    };
}

/// One statement for each driver.
macro_rules! driven {
    ($driver:expr, $before:expr, $after:expr) => {
        match $driver {
            Driver::Name => concat!($before, matching!(), " AND name = $2 ", $after),
            Driver::Trigger => concat!($before, matching!(), " AND trigger_id = $3 ", $after),
            Driver::Operation => concat!($before, matching!(), " AND operation = $13 AND operation <> '' ", $after),
            Driver::Reason => concat!($before, matching!(), " AND reason = $14 AND reason <> 0 ", $after),
            Driver::State => concat!($before, matching!(), " AND state = $14 AND state <> 1 ", $after),
            Driver::Workflow => concat!($before, matching!(), " AND workflow = $4 ", $after),
            Driver::Incoming => concat!($before, matching!(), " AND incoming = $6 ", $after),
            Driver::Time => concat!($before, matching!(), " ", $after),
        }
    };
}

fn newest_first(driver: Driver) -> &'static str {
    driven!(
        driver,
        "SELECT accept_time, sequence, body FROM delivery WHERE ",
        "AND (accept_time, sequence) < ($15, $16) ORDER BY accept_time DESC, sequence DESC LIMIT $17"
    )
}

fn oldest_first(driver: Driver) -> &'static str {
    driven!(
        driver,
        "SELECT accept_time, sequence, name, workflow, step, incoming, trigger_id, state FROM delivery WHERE ",
        "AND (accept_time, sequence) > ($15, $16) AND sequence <= $17 ORDER BY accept_time, sequence LIMIT $18"
    )
}

/// Counts by what decides whether a delivery can be repeated.
fn tallied(driver: Driver) -> &'static str {
    driven!(
        driver,
        "SELECT workflow, step, state, CASE WHEN EXISTS (SELECT 1 FROM incoming_request AS r \
         WHERE r.name = 'workspaces/' || $1 || '/incomingRequests/' || delivery.trigger_id) OR EXISTS (SELECT 1 FROM event AS e \
         WHERE e.name = 'workspaces/' || $1 || '/events/' || delivery.trigger_id) THEN 1 ELSE 0 END AS kept, \
         COUNT(*), MIN(accept_time), MAX(accept_time) FROM delivery WHERE ",
        "AND sequence <= $15 GROUP BY workflow, step, state, kept"
    )
}

const CHANGED: &str = concat!(
    "SELECT change_sequence, body FROM delivery WHERE ",
    matching!(),
    " AND change_sequence > $15 AND change_sequence <= $16 ORDER BY change_sequence LIMIT $17"
);

fn placed(mut row: Row) -> Result<Placed, StoreError> {
    let place = Place { accept_time: row.integer(0)?, sequence: row.integer(1)? };
    Ok(Placed { place, body: row.blob(2)? })
}

fn selected(mut row: Row) -> Result<Selected, StoreError> {
    Ok(Selected {
        place: Place { accept_time: row.integer(0)?, sequence: row.integer(1)? },
        name: row.text(2)?,
        workflow: row.text(3)?,
        step: row.text(4)?,
        incoming: row.text(5)?,
        trigger_id: row.text(6)?,
        state: row.integer(7)?,
    })
}

fn tally(mut row: Row) -> Result<Tally, StoreError> {
    Ok(Tally {
        workflow: row.text(0)?,
        step: row.text(1)?,
        state: row.integer(2)?,
        kept: row.integer(3)? != 0,
        count: row.integer(4)?,
        oldest: row.integer(5)?,
        newest: row.integer(6)?,
    })
}

impl DeliveryRow {
    fn values(&self, sequence: i64, now: UnixMillis) -> Vec<Value<'_>> {
        vec![
            sequence.into(),
            sequence.into(),
            Value::Text(&self.workspace),
            Value::Text(&self.name),
            self.state.into(),
            Value::Blob(&self.body),
            now.into(),
            self.order.into(),
            Value::Text(&self.workflow),
            Value::Text(&self.step),
            Value::Text(&self.incoming),
            Value::Text(&self.trigger_id),
            self.reason.into(),
            self.status.into(),
            self.accept_time.into(),
            Value::Text(&self.operation),
        ]
    }
}

impl Transaction {
    /// Stores deliveries as they stand now, no two of one name, each with the sequence of this change; answers the names of those of
    /// which that was news.
    pub(crate) async fn deliveries_put(
        &mut self,
        deliveries: &[(i64, &DeliveryRow)],
        now: UnixMillis,
    ) -> Result<HashSet<String>, StoreError> {
        static INSERT: LazyLock<Insert> = LazyLock::new(|| {
            Insert::new(
                "delivery (sequence, change_sequence, workspace, name, state, body, store_time, report_order, workflow, step, \
                 incoming, trigger_id, reason, status, accept_time, operation)",
                16,
                "ON CONFLICT (name) DO UPDATE SET state = excluded.state, body = excluded.body, \
                 store_time = excluded.store_time, change_sequence = excluded.change_sequence, \
                 report_order = excluded.report_order, reason = excluded.reason, status = excluded.status \
                 WHERE delivery.report_order < excluded.report_order AND delivery.workspace = excluded.workspace \
                 RETURNING name",
            )
        });
        let rows: Vec<Vec<Value<'_>>> = deliveries.iter().map(|(sequence, row)| row.values(*sequence, now)).collect();
        self.insert(&INSERT, &rows).await?.into_iter().map(|mut row| row.text(0)).collect()
    }

    /// Stores what was sent and answered at attempts, each named by its delivery and number; the first report of one stays.
    pub(crate) async fn exchanges_put(&mut self, exchanges: &[(&str, i64, &[u8])]) -> Result<(), StoreError> {
        static INSERT: LazyLock<Insert> = LazyLock::new(|| {
            Insert::new("exchange (delivery, attempt, sealed)", 3, "ON CONFLICT (delivery, attempt) DO NOTHING")
        });
        let rows = exchanges
            .iter()
            .map(|(delivery, attempt, sealed)| vec![Value::Text(delivery), (*attempt).into(), Value::Blob(sealed)]);
        let rows: Vec<Vec<Value<'_>>> = rows.collect();
        self.insert(&INSERT, &rows).await.map(drop)
    }

    /// What was sent and answered, by attempt.
    pub(crate) async fn exchanges(&mut self, delivery: &str) -> Result<Vec<(i64, Vec<u8>)>, StoreError> {
        let sql = "SELECT attempt, sealed FROM exchange WHERE delivery = $1 ORDER BY attempt";
        let rows = self.rows(sql, &[delivery.into()]).await?;
        rows.into_iter().map(|mut row| Ok((row.integer(0)?, row.blob(1)?))).collect()
    }

    /// One delivery of the workspace.
    pub(crate) async fn delivery(&mut self, workspace: &str, name: &str) -> Result<Option<OutcomeRow>, StoreError> {
        let sql = "SELECT sequence, body FROM delivery WHERE name = $1 AND workspace = $2";
        self.row(sql, &[name.into(), workspace.into()]).await?.map(outcome).transpose()
    }

    /// Deliveries that match and come after `after`, newest first.
    pub(crate) async fn deliveries(
        &mut self,
        workspace: &str,
        selection: &Selection,
        after: Place,
        limit: i64,
    ) -> Result<Vec<Placed>, StoreError> {
        let mut found = Vec::new();
        for part in selection.parts() {
            let values = part.values(workspace, &[after.accept_time, after.sequence, limit]);
            for row in self.rows(newest_first(part.driver()), &values).await? {
                found.push(placed(row)?);
            }
        }
        found.sort_unstable_by_key(|delivery| Reverse(delivery.place));
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }

    /// Deliveries that match, come after `after` and were recorded up to the sequence `until`: oldest first.
    pub(crate) async fn deliveries_to_repeat(
        &mut self,
        workspace: &str,
        selection: &Selection,
        after: Place,
        (until, limit): (i64, i64),
    ) -> Result<Vec<Selected>, StoreError> {
        let mut found: Vec<Selected> = Vec::new();
        for part in selection.parts() {
            let values = part.values(workspace, &[after.accept_time, after.sequence, until, limit]);
            for row in self.rows(oldest_first(part.driver()), &values).await? {
                found.push(selected(row)?);
            }
        }
        found.sort_unstable_by_key(|delivery| delivery.place);
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(found)
    }

    /// Counts the deliveries that match and were recorded up to the sequence `until`.
    pub(crate) async fn deliveries_tallied(
        &mut self,
        workspace: &str,
        selection: &Selection,
        until: i64,
    ) -> Result<Vec<Tally>, StoreError> {
        let mut tallies = Vec::new();
        // The state is part of what is counted apart.
        for part in selection.parts() {
            for row in self.rows(tallied(part.driver()), &part.values(workspace, &[until])).await? {
                tallies.push(tally(row)?);
            }
        }
        Ok(tallies)
    }

    /// Deliveries that match and have changed since the sequence `since`, in the order of their last change.
    pub(crate) async fn deliveries_changed(
        &mut self,
        workspace: &str,
        selection: &Selection,
        since: i64,
        limit: i64,
    ) -> Result<Vec<OutcomeRow>, StoreError> {
        // The upper bound keeps the planner from going by time instead.
        let values = selection.values(workspace, &[since, i64::MAX, limit]);
        self.rows(CHANGED, &values).await?.into_iter().map(outcome).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn any() -> Selection {
        Selection {
            name: String::new(),
            trigger_id: String::new(),
            workflow: String::new(),
            step: String::new(),
            incoming: String::new(),
            operation: String::new(),
            states: 0,
            reasons: 0,
            status_min: 0,
            status_max: 999,
            accepted_from: 0,
            accepted_before: i64::MAX,
        }
    }

    #[tokio::test]
    async fn every_condition_that_selects_well_has_an_index_in_the_order_of_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&crate::settings::Database::Sqlite(folder.path().join("store.db"))).await.unwrap();
        let text = || "x".to_owned();
        let table = [
            (Selection { name: text(), ..any() }, "sqlite_autoindex_delivery"),
            (Selection { trigger_id: text(), ..any() }, "delivery_by_trigger"),
            (Selection { operation: text(), ..any() }, "delivery_by_operation"),
            (Selection { reasons: 1 << 4, ..any() }, "delivery_by_reason"),
            (Selection { states: 1 << 2, ..any() }, "delivery_by_state"),
            (Selection { workflow: text(), ..any() }, "delivery_by_workflow"),
            (Selection { incoming: text(), ..any() }, "delivery_by_incoming"),
            (Selection { states: 0b10100, ..any() }, "delivery_by_state"),
            (Selection { states: 0b10100, workflow: text(), ..any() }, "delivery_by_state"),
            (Selection { states: 0b10100, trigger_id: text(), ..any() }, "delivery_by_trigger"),
            (Selection { states: 0b110, ..any() }, "delivery_by_accept"),
            (Selection { states: 1 << 1, ..any() }, "delivery_by_accept"),
        ];
        let mut read = store.read().await.unwrap();
        for (selection, index) in
            table.iter().flat_map(|(selection, index)| selection.parts().into_iter().map(move |part| (part, *index)))
        {
            let sql: &'static str = format!("EXPLAIN QUERY PLAN {}", newest_first(selection.driver())).leak();
            let values = selection.values("acme", &[i64::MAX, i64::MAX, 10]);
            let mut plan = String::new();
            for mut row in read.rows(sql, &values).await.unwrap() {
                plan.push_str(&row.text(3).unwrap());
                plan.push('\n');
            }
            assert!(plan.contains(index), "{selection:?}: {plan}");
            assert!(!selection.name.is_empty() || !plan.contains("TEMP B-TREE"), "{selection:?}: {plan}");
        }
        let sql: &'static str = format!("EXPLAIN QUERY PLAN {CHANGED}").leak();
        let (any, numbers) = (any(), [0, i64::MAX, 10]);
        let values = any.values("acme", &numbers);
        let plan = read.rows(sql, &values).await.unwrap().remove(0).text(3).unwrap();
        assert!(plan.contains("delivery_by_change"), "{plan}");
    }
}
