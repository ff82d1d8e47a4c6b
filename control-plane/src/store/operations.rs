//! Operations: how far each has come, so that it goes on after a restart.

use super::{Place, Row, StoreError, Transaction};
use crate::clock::UnixMillis;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperationKind {
    /// Delivers again.
    Replay,
    /// Seals with another data key what is kept of traffic.
    DataKeyRotation,
}

impl OperationKind {
    fn number(self) -> i64 {
        match self {
            Self::Replay => 0,
            Self::DataKeyRotation => 1,
        }
    }

    fn of(number: i64) -> Result<Self, StoreError> {
        match number {
            0 => Ok(Self::Replay),
            1 => Ok(Self::DataKeyRotation),
            other => Err(StoreError::Corrupt(format!("an operation of kind {other}"))),
        }
    }
}

/// An operation as stored.
#[derive(Clone, Debug)]
pub(crate) struct OperationRow {
    pub(crate) sequence: i64,
    /// The id of the workspace.
    pub(crate) workspace: String,
    pub(crate) name: String,
    pub(crate) kind: OperationKind,
    pub(crate) state: i64,
    pub(crate) message: String,
    /// An encoded filter.
    pub(crate) filter: Vec<u8>,
    /// An encoded plan.
    pub(crate) plan: Vec<u8>,
    pub(crate) done: i64,
    pub(crate) failed: i64,
    /// Which list the position is in, for a kind with several.
    pub(crate) phase: i64,
    /// What comes after it is still to be done.
    pub(crate) position: Place,
    /// Deliveries that were recorded later are not its business.
    pub(crate) until: i64,
    /// Who may have done the step after the position already; empty: nobody.
    pub(crate) data_plane: String,
    pub(crate) create_time: UnixMillis,
    pub(crate) update_time: UnixMillis,
    /// 0 while it runs.
    pub(crate) end_time: UnixMillis,
    /// How often it has moved.
    pub(crate) moves: i64,
}

macro_rules! select_operation {
    ($tail:literal) => {
        concat!(
            "SELECT sequence, workspace, name, state, message, filter, plan, done, failed, position_time, ",
            "position_sequence, until_sequence, data_plane, create_time, update_time, end_time, kind, phase, moves ",
            "FROM operation ",
            $tail
        )
    };
}

fn operation(mut row: Row) -> Result<OperationRow, StoreError> {
    Ok(OperationRow {
        sequence: row.integer(0)?,
        workspace: row.text(1)?,
        name: row.text(2)?,
        kind: OperationKind::of(row.integer(16)?)?,
        state: row.integer(3)?,
        message: row.text(4)?,
        filter: row.blob(5)?,
        plan: row.blob(6)?,
        done: row.integer(7)?,
        failed: row.integer(8)?,
        phase: row.integer(17)?,
        position: Place { accept_time: row.integer(9)?, sequence: row.integer(10)? },
        until: row.integer(11)?,
        data_plane: row.text(12)?,
        create_time: row.integer(13)?,
        update_time: row.integer(14)?,
        end_time: row.integer(15)?,
        moves: row.integer(18)?,
    })
}

impl Transaction {
    /// Adds an operation.
    pub(crate) async fn operation_insert(&mut self, row: &OperationRow) -> Result<(), StoreError> {
        let sql = "INSERT INTO operation (sequence, workspace, name, state, message, filter, plan, done, failed, \
                   position_time, position_sequence, until_sequence, data_plane, create_time, update_time, end_time, \
                   kind, phase) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
        let values = [
            row.sequence.into(),
            (&row.workspace).into(),
            (&row.name).into(),
            row.state.into(),
            (&row.message).into(),
            (&row.filter).into(),
            (&row.plan).into(),
            row.done.into(),
            row.failed.into(),
            row.position.accept_time.into(),
            row.position.sequence.into(),
            row.until.into(),
            (&row.data_plane).into(),
            row.create_time.into(),
            row.update_time.into(),
            row.end_time.into(),
            row.kind.number().into(),
            row.phase.into(),
        ];
        self.run(sql, &values).await.map(drop)
    }

    /// Writes back how far it came and what it waits for; its state is [`Transaction::operation_state`]'s. `false`: another control plane
    /// has moved it since it was read, or it has ended, and nothing is changed. It happens when the database was away and two of them
    /// carry out operations for a moment.
    pub(crate) async fn operation_moved(&mut self, row: &mut OperationRow) -> Result<bool, StoreError> {
        let sql = "UPDATE operation SET message = $1, done = $2, failed = $3, position_time = $4, position_sequence = $5, \
                   data_plane = $6, update_time = $7, phase = $8, moves = moves + 1 \
                   WHERE name = $9 AND moves = $10 AND end_time = 0";
        let values = [
            (&row.message).into(),
            row.done.into(),
            row.failed.into(),
            row.position.accept_time.into(),
            row.position.sequence.into(),
            (&row.data_plane).into(),
            row.update_time.into(),
            row.phase.into(),
            (&row.name).into(),
            row.moves.into(),
        ];
        let moved = self.run(sql, &values).await? > 0;
        row.moves += i64::from(moved);
        Ok(moved)
    }

    /// Brings an operation from one state to another; an `end_time` above 0 ends it. Whether it was in that state.
    pub(crate) async fn operation_state(
        &mut self,
        name: &str,
        (from, to): (i64, i64),
        now: UnixMillis,
        end_time: UnixMillis,
    ) -> Result<bool, StoreError> {
        let sql = "UPDATE operation SET state = $1, update_time = $2, end_time = $3, message = '' \
                   WHERE name = $4 AND state = $5";
        let values = [to.into(), now.into(), end_time.into(), name.into(), from.into()];
        Ok(self.run(sql, &values).await? > 0)
    }

    /// One operation of the workspace.
    pub(crate) async fn operation(&mut self, workspace: &str, name: &str) -> Result<Option<OperationRow>, StoreError> {
        let sql = select_operation!("WHERE name = $1 AND workspace = $2");
        self.row(sql, &[name.into(), workspace.into()]).await?.map(operation).transpose()
    }

    /// Operations beyond the sequence `position`: older ones, the newest first, if `descending`; else newer ones, the oldest first.
    pub(crate) async fn operations(
        &mut self,
        workspace: &str,
        (position, descending): (i64, bool),
        limit: i64,
    ) -> Result<Vec<OperationRow>, StoreError> {
        let sql = match descending {
            true => select_operation!("WHERE workspace = $1 AND sequence < $2 ORDER BY sequence DESC LIMIT $3"),
            false => select_operation!("WHERE workspace = $1 AND sequence > $2 ORDER BY sequence LIMIT $3"),
        };
        self.rows(sql, &[workspace.into(), position.into(), limit.into()]).await?.into_iter().map(operation).collect()
    }

    /// The rotation of the workspace's data key that has not ended.
    pub(crate) async fn data_key_rotation(&mut self, workspace: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT name FROM operation WHERE workspace = $1 AND kind = $2 AND end_time = 0";
        let values = [workspace.into(), OperationKind::DataKeyRotation.number().into()];
        self.row(sql, &values).await?.map(|mut row| row.text(0)).transpose()
    }

    /// How many operations of the workspace have not ended.
    pub(crate) async fn operations_running(&mut self, workspace: &str) -> Result<i64, StoreError> {
        let sql = "SELECT COUNT(*) FROM operation WHERE workspace = $1 AND end_time = 0";
        self.row(sql, &[workspace.into()]).await?.map_or(Ok(0), |mut row| row.integer(0))
    }

    /// Operations of all workspaces in one of two states, oldest first.
    pub(crate) async fn operations_in(
        &mut self,
        states: [i64; 2],
        limit: i64,
    ) -> Result<Vec<OperationRow>, StoreError> {
        let sql = select_operation!("WHERE state IN ($1, $2) ORDER BY sequence LIMIT $3");
        self.rows(sql, &[states[0].into(), states[1].into(), limit.into()]).await?.into_iter().map(operation).collect()
    }
}
