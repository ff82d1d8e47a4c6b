//! Statements that write many rows. A statement costs more in crossing to the database than in running, so rows go together, in
//! a few fixed numbers of rows: each statement is still a constant, and prepared once.

use super::{Row, StoreError, Transaction, Value};

/// Rows of one statement, the largest first.
const SIZES: [usize; 3] = [64, 8, 1];

/// An `INSERT` of rows with so many columns each.
#[derive(Debug)]
pub(super) struct Insert {
    columns: usize,
    /// With `$1`, `$2` and so on, as PostgreSQL wants it.
    numbered: [String; SIZES.len()],
    /// With `?`: SQLite gives a number a name, and looks through all names for each value that is bound.
    plain: [String; SIZES.len()],
}

impl Insert {
    /// `into` names the table and its columns; `then` says what follows the values.
    pub(super) fn new(into: &str, columns: usize, then: &str) -> Self {
        let statement = |rows: usize, place: &dyn Fn(usize) -> String| {
            let row = |row: usize| {
                let places: Vec<String> = (1..=columns).map(|column| place(row * columns + column)).collect();
                format!("({})", places.join(", "))
            };
            let rows: Vec<String> = (0..rows).map(row).collect();
            format!("INSERT INTO {into} VALUES {} {then}", rows.join(", "))
        };
        Self {
            columns,
            numbered: SIZES.map(|rows| statement(rows, &|place| format!("${place}"))),
            plain: SIZES.map(|rows| statement(rows, &|_| "?".to_owned())),
        }
    }
}

impl Transaction {
    /// Writes rows, no two of which may meet in one conflict; answers what the statement returns.
    pub(super) async fn insert(
        &mut self,
        insert: &'static Insert,
        mut rows: &[Vec<Value<'_>>],
    ) -> Result<Vec<Row>, StoreError> {
        let mut returned = Vec::new();
        let statements = match self {
            Self::Sqlite(_) => &insert.plain,
            Self::Postgres(_) => &insert.numbered,
        };
        for (size, statement) in SIZES.iter().zip(statements) {
            while let Some((chunk, rest)) = rows.split_at_checked(*size) {
                let values = chunk.concat();
                debug_assert_eq!(values.len(), size * insert.columns);
                returned.extend(self.rows(statement, &values).await?);
                rows = rest;
            }
        }
        Ok(returned)
    }
}
