//! A list of what was recorded over time: read from the store in the order of its time and filtered while it is read, so that what it
//! costs is bounded however much there is and however little matches. A page may therefore hold fewer than asked for, even none, and
//! still have a next one.

use sluice_proto::admin::v1 as admin;

use crate::error::{Failure, violation};
use crate::fields::{kind, tree};
use crate::list_filter::Filter;
use crate::paging::{List, Page};
use crate::secrets::Secrets;

/// Rows that are looked at for one page when a filter is given.
pub(crate) const ROWS_LOOKED_AT_MAX: usize = 10_000;
/// Rows that are read at once.
const READ_AT_ONCE: i64 = 500;

/// The list part of a request for what was recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) page_size: i32,
    pub(crate) page_token: &'a str,
    pub(crate) filter: &'a str,
    pub(crate) order_by: &'a str,
}

/// The list part of a request that has one.
macro_rules! asked {
    ($request:expr) => {
        $crate::scan::Asked {
            page_size: $request.page_size,
            page_token: &$request.page_token,
            filter: &$request.filter,
            order_by: &$request.order_by,
        }
    };
}
pub(crate) use asked;

/// Something that is recorded and listed.
pub(crate) trait Recorded: prost::Message + Sized {
    /// The full name of the message.
    const MESSAGE: &'static str;
    /// The field that tells when it was recorded: the only one to order by.
    const TIME: &'static str;
}

macro_rules! recorded {
    ($($message:ident $name:literal by $time:literal),* $(,)?) => {
        $(impl Recorded for admin::$message {
            const MESSAGE: &'static str = concat!("sluice.admin.v1.", $name);
            const TIME: &'static str = $time;
        })*
    };
}

recorded!(
    Event "Event" by "time",
    IncomingRequest "IncomingRequest" by "accept_time",
    Operation "Operation" by "create_time",
    AuditEntry "AuditEntry" by "time",
);

/// A page on its way: offer it row after row.
pub(crate) struct Scan<'a, M> {
    list: List<'a>,
    page: Page,
    filter: Filter,
    /// The newest come first.
    pub(crate) descending: bool,
    /// Where to read on: behind this position.
    position: Option<String>,
    found: Vec<(String, usize, M)>,
    looked_at: usize,
    at_end: bool,
}

impl<'a, M: Recorded> Scan<'a, M> {
    /// Reads the query; `scope` is what else selects what is in the list.
    ///
    /// # Errors
    /// Every broken rule of the query.
    pub(crate) fn new(secrets: &'a Secrets, scope: &[&'a str], asked: Asked<'a>) -> Result<Self, Failure> {
        let (filter, descending) =
            (Filter::parse(asked.filter, &kind(M::MESSAGE)?), newest_first(asked.order_by, M::TIME));
        let (filter, descending) = match (filter, descending) {
            (Ok(filter), Ok(descending)) => (filter, descending),
            (filter, order) => return Err(Failure::Fields(filter.err().into_iter().chain(order.err()).collect())),
        };
        let list = List::new(secrets, &[scope, &[asked.filter, if descending { "desc" } else { "asc" }]].concat());
        let page = list.page(asked.page_size, asked.page_token)?;
        let position = page.after.clone();
        Ok(Self { list, page, filter, descending, position, found: Vec::new(), looked_at: 0, at_end: false })
    }

    /// Behind which position to read, and how many rows; `None` when the page is done.
    pub(crate) fn next(&self) -> Option<(Option<&str>, i64)> {
        let missing = self.page.limit() - i64::try_from(self.found.len()).unwrap_or(i64::MAX);
        let done = self.at_end || missing <= 0 || self.looked_at >= ROWS_LOOKED_AT_MAX;
        // While everything that is read is shown, no more is read than is missing.
        let shows_all = self.filter.is_empty() && self.looked_at == self.found.len();
        let rows = if shows_all { missing } else { READ_AT_ONCE };
        (!done).then_some((self.position.as_deref(), rows))
    }

    /// A row that was read, and where it stands.
    pub(crate) fn offer(&mut self, position: String, message: M) -> Result<(), Failure> {
        self.looked_at += 1;
        self.position = Some(position.clone());
        if self.filter.is_empty() || self.filter.matches(&tree(M::MESSAGE, &message)?) {
            self.found.push((position, message.encoded_len(), message));
        }
        Ok(())
    }

    /// A row that was read and that another condition of the request leaves out.
    pub(crate) fn pass(&mut self, position: String) {
        self.looked_at += 1;
        self.position = Some(position);
    }

    /// The number that a position is; `none` at the beginning of the list.
    pub(crate) fn number(position: Option<&str>, none: i64) -> Result<i64, Failure> {
        position.map_or(Ok(none), str::parse).map_err(|_not_ours| Failure::PageToken)
    }

    /// As many rows were read as were asked for, or the list has come to its end.
    pub(crate) fn read(&mut self, rows: usize, asked: i64) {
        self.at_end = i64::try_from(rows).is_ok_and(|rows| rows < asked);
    }

    /// The page and the token of the next one.
    pub(crate) fn finish(mut self) -> (Vec<M>, String) {
        let cut = self.list.cut(&self.page, &mut self.found, |(_, size, _)| *size, |(position, ..)| position.clone());
        let next = match (cut.is_empty() && !self.at_end, &self.position) {
            (true, Some(position)) => self.list.token(position),
            (true, None) | (false, _) => cut,
        };
        (self.found.into_iter().map(|(_, _, message)| message).collect(), next)
    }
}

/// Whether the newest come first, as they do when nothing is asked for.
fn newest_first(order_by: &str, time: &str) -> Result<bool, sluice_core::validate::Violation> {
    let words: Vec<&str> = order_by.split_whitespace().collect();
    match words.as_slice() {
        [] => Ok(true),
        [field, "desc"] if *field == time => Ok(true),
        [field] | [field, "asc"] if *field == time => Ok(false),
        _ => {
            let message = format!("must be empty, `{time} desc` (the newest first) or `{time}` (the oldest first)");
            Err(violation("order_by", "ORDER_INVALID", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        for (text, descending) in [("", true), ("time desc", true), ("time", false), (" time  asc ", false)] {
            assert_eq!(newest_first(text, "time").ok(), Some(descending), "{text}");
        }
        for bad in ["name", "time up", "time desc desc", "desc"] {
            assert_eq!(newest_first(bad, "time").unwrap_err().reason, "ORDER_INVALID", "{bad}");
        }
    }
}
