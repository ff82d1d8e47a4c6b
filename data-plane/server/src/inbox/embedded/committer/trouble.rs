//! Which errors of the file the inbox survives.

/// What an error of SQLite means for the inbox.
pub(super) enum Trouble {
    /// Rolled back, the inbox itself is well: no space (`SQLITE_FULL`), a foreign tool holds the file
    /// (`SQLITE_BUSY`), or more bytes than SQLite takes (`SQLITE_TOOBIG`).
    Passing,
    /// Whether data reached the disk is unknown: never acknowledge anything again.
    Fatal,
}

impl Trouble {
    pub(super) fn of(error: &sqlx::Error) -> Self {
        const SQLITE_BUSY: i32 = 5;
        const SQLITE_FULL: i32 = 13;
        const SQLITE_TOOBIG: i32 = 18;
        let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse::<i32>().ok());
        match code.map(|code| code & 0xff) {
            Some(SQLITE_BUSY | SQLITE_FULL | SQLITE_TOOBIG) => Self::Passing,
            _ => Self::Fatal,
        }
    }
}
