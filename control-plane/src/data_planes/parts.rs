//! What control planes on one database tell each other of their data planes: the parts of what is known of one, each told again when it
//! changes. Hides which of two that were told counts: that of the stream with the greater number.

use std::collections::BTreeSet;
use std::time::Instant;

use prost::Message;
use sluice_proto::admin::v1::{ServedWorkspace, TokenState};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Home, Live, PLANES_MAX, Plane, Planes, Registry};
use crate::commands::{Order, Orders, WAITING_MAX};
use crate::enrolment::Scope;
use crate::levels::FIRST;

/// The part that is the stream itself; those of workspaces and tokens are called after workspaces and connections.
pub(super) const STREAM: &str = "";

/// A part of what is known of a data plane: exactly one, or nothing when it is gone.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Part {
    #[prost(message, optional, tag = "1")]
    stream: Option<Stream>,
    #[prost(message, optional, tag = "2")]
    workspace: Option<ServedWorkspace>,
    #[prost(message, optional, tag = "3")]
    token: Option<TokenState>,
}

/// A stream of a data plane.
#[derive(Clone, PartialEq, Message)]
struct Stream {
    #[prost(string, tag = "1")]
    build: String,
    #[prost(int64, tag = "2")]
    connect_time: i64,
    #[prost(bool, tag = "3")]
    connected: bool,
    #[prost(bool, tag = "4")]
    takes_commands: bool,
    /// The names of the workspaces it sees, as [`Scope::names`] says them.
    #[prost(string, repeated, tag = "5")]
    sees: Vec<String>,
    #[prost(bool, tag = "6")]
    draining: bool,
    #[prost(int64, optional, tag = "7")]
    clock_skew_ms: Option<i64>,
    /// 0: of a release that does not say.
    #[prost(int32, tag = "8")]
    config_level: i32,
}

/// A part that is told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) data_plane: String,
    /// Which part.
    pub(crate) part: String,
    /// The number of the stream it is of.
    pub(crate) session: i64,
    pub(crate) body: Part,
}

impl Told {
    /// It begins or ends a stream.
    pub(crate) fn is_stream(&self) -> bool {
        self.part == STREAM
    }
}

/// What came of what was heard.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// The ways to data planes that were not known to be there.
    pub(crate) lines: Vec<Line>,
    /// Data planes that were connected to this control plane, with the number of their stream elsewhere.
    pub(crate) left: Vec<(String, i64)>,
}

/// The way of commands to a data plane that is connected elsewhere.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) replica: String,
    pub(crate) data_plane: String,
    pub(crate) session: i64,
    pub(crate) orders: mpsc::Receiver<Order>,
}

impl Planes {
    /// Whether a stream with this number is the newest one that is known.
    pub(super) fn begins(&mut self, id: &str, session: i64) -> bool {
        if self.forgotten.get(id).is_some_and(|forgotten| *forgotten >= session) {
            return false;
        }
        self.forgotten.remove(id);
        self.by_id.get(id).is_none_or(|plane| plane.number <= session)
    }

    /// Forgets every stream of a data plane up to this number.
    pub(super) fn forget(&mut self, id: &str, session: i64) {
        if let Some(plane) = self.by_id.remove(id)
            && let Some(live) = plane.session
        {
            live.revoked.cancel();
        }
        self.forgotten.insert(id.to_owned(), session);
        if self.forgotten.len() > PLANES_MAX {
            self.forgotten.pop_first();
        }
    }
}

impl Plane {
    fn stream(&self) -> Stream {
        Stream {
            build: self.build.clone(),
            connect_time: self.connect_time,
            connected: self.session.is_some(),
            takes_commands: self.session.as_ref().is_some_and(|live| live.orders.is_some()),
            sees: self.scope.names(),
            draining: self.draining,
            clock_skew_ms: self.clock_skew_ms,
            config_level: self.config_level,
        }
    }
}

impl Registry {
    /// Something of a data plane is to be told.
    pub(super) fn tell(&self, planes: &mut Planes, id: &str, part: &str, session: i64) {
        if let Some(telling) = &self.telling {
            planes.news.insert((id.to_owned(), part.to_owned()), session);
            telling.wake();
        }
    }

    /// Everything of a data plane is to be told.
    pub(super) fn tell_all(&self, planes: &mut Planes, id: &str) {
        let Some(plane) = planes.by_id.get(id) else { return };
        let (session, mut parts) = (plane.number, vec![STREAM.to_owned()]);
        parts.extend(plane.workspaces.keys().chain(plane.tokens.keys()).cloned());
        for part in parts {
            self.tell(planes, id, &part, session);
        }
    }

    /// Everything of every data plane of this control plane is to be told: to who has forgotten it.
    pub(crate) fn tell_again(&self) {
        let mut planes = self.lock();
        let here: Vec<String> =
            planes.by_id.iter().filter(|(_, plane)| plane.home == Home::Here).map(|(id, _)| id.clone()).collect();
        for id in here {
            self.tell_all(&mut planes, &id);
        }
    }

    /// At most so many parts that are to be told now. What could not be told comes back with [`Registry::keep`].
    pub(crate) fn news(&self, limit: usize) -> Vec<Told> {
        let mut planes = self.lock();
        let mut told = Vec::new();
        while told.len() < limit
            && let Some(((data_plane, part), session)) = planes.news.pop_first()
        {
            let plane = planes.by_id.get(&data_plane);
            // What is of a stream before, or of one that has gone elsewhere, is nobody's news any more.
            if plane.is_some_and(|plane| plane.number != session || plane.home != Home::Here) {
                continue;
            }
            let body = plane.map(|plane| Part {
                stream: (part == STREAM).then(|| plane.stream()),
                workspace: plane.workspaces.get(&part).cloned(),
                token: plane.tokens.get(&part).cloned(),
            });
            let body = body.unwrap_or_default();
            told.push(Told { data_plane, part, session, body });
        }
        told
    }

    /// What was not told after all.
    pub(crate) fn keep(&self, told: &[Told]) {
        let mut planes = self.lock();
        for Told { data_plane, part, session, .. } in told {
            planes.news.entry((data_plane.clone(), part.clone())).or_insert(*session);
        }
    }

    /// Takes over what another control plane told.
    pub(crate) fn hear(&self, replica: &str, told: impl Iterator<Item = Told>) -> Taken {
        let mut taken = Taken::default();
        let mut planes = self.lock();
        for Told { data_plane, part, session, body } in told {
            if part == STREAM {
                match body.stream {
                    Some(stream) => {
                        let was_here = planes.by_id.get(&data_plane).is_some_and(|plane| plane.home == Home::Here);
                        if planes.begins(&data_plane, session) && was_here {
                            taken.left.push((data_plane.clone(), session));
                        }
                        taken.lines.extend(planes.hear_stream(replica, data_plane, session, stream));
                    }
                    None if planes.begins(&data_plane, session) => planes.forget(&data_plane, session),
                    None => {}
                }
                continue;
            }
            let Some(plane) = planes.by_id.get_mut(&data_plane) else { continue };
            if plane.number != session || plane.home == Home::Here {
                continue;
            }
            match (body.workspace, body.token) {
                (Some(workspace), _) => drop(plane.workspaces.insert(part, workspace)),
                (None, Some(token)) => drop(plane.tokens.insert(part, token)),
                (None, None) => {
                    plane.workspaces.remove(&part);
                    plane.tokens.remove(&part);
                }
            }
        }
        drop(planes);
        self.changed.send_replace(());
        taken
    }

    /// Disconnects the data planes of control planes that are gone: of all others but these.
    pub(crate) fn keep_replicas(&self, there: &BTreeSet<String>) {
        let mut planes = self.lock();
        let mut any = false;
        for plane in planes.by_id.values_mut() {
            if let Home::Elsewhere(replica) = &plane.home
                && !there.contains(replica)
                && plane.session.take().is_some()
            {
                plane.gone = Some(Instant::now());
                any = true;
            }
        }
        drop(planes);
        if any {
            self.changed.send_replace(());
        }
    }

    /// The way to the stream with this number, of a data plane that is connected to this control plane.
    pub(crate) fn orders_here(&self, id: &str, session: i64) -> Option<Orders> {
        let planes = self.lock();
        let plane = planes.by_id.get(id).filter(|plane| plane.home == Home::Here && plane.is(session))?;
        plane.session.as_ref()?.orders.clone()
    }

    /// Whether the stream with this number is, for all that is known, connected to another control plane.
    pub(crate) fn is_elsewhere(&self, id: &str, session: i64) -> bool {
        let planes = self.lock();
        planes.by_id.get(id).is_some_and(|plane| plane.home != Home::Here && plane.is(session))
    }
}

impl Planes {
    fn hear_stream(&mut self, replica: &str, id: String, session: i64, stream: Stream) -> Option<Line> {
        if !self.begins(&id, session) {
            return None;
        }
        let home = Home::Elsewhere(replica.to_owned());
        if let Some(known) = self.by_id.get_mut(&id).filter(|known| known.number == session && known.home == home) {
            if !stream.connected && known.session.take().is_some() {
                known.gone = Some(Instant::now());
            }
            known.draining = stream.draining;
            known.clock_skew_ms = stream.clock_skew_ms;
            if known.session.is_some() || !stream.connected {
                return None;
            }
        }
        let (give, orders) = mpsc::channel(WAITING_MAX);
        let live = Live {
            replaced: CancellationToken::new(),
            revoked: CancellationToken::new(),
            orders: stream.takes_commands.then_some(give),
        };
        let connected = stream.connected;
        let plane = Plane {
            build: stream.build,
            config_level: stream.config_level.max(FIRST),
            connect_time: stream.connect_time,
            gone: (!stream.connected).then(Instant::now),
            number: session,
            home,
            session: connected.then_some(live),
            scope: Scope::of_names(stream.sees),
            draining: stream.draining,
            clock_skew_ms: stream.clock_skew_ms,
            workspaces: Default::default(),
            tokens: Default::default(),
        };
        if let Some(older) = self.by_id.insert(id.clone(), plane).and_then(|old| old.session) {
            older.replaced.cancel();
        }
        connected.then(|| Line { replica: replica.to_owned(), data_plane: id, session, orders })
    }
}

#[cfg(test)]
mod tests {
    use sluice_proto::sync::v1::{Ack, Cursor, Hello, TokenChange, TokenChanges};

    use super::super::Registration;
    use super::*;

    const ACME: &str = "workspaces/acme";
    const CRM: &str = "workspaces/acme/connections/crm";

    fn registry() -> Registry {
        Registry::telling(crate::rounds::Rounds::default())
    }

    fn connect(registry: &Registry, id: &str, number: i64) -> Registration {
        let cursors = vec![Cursor { workspace: ACME.to_owned(), revision: 1, ..Cursor::default() }];
        let hello = Hello { data_plane_id: id.to_owned(), cursors, takes_commands: true, ..Hello::default() };
        registry.register(&hello, &Scope::All, number, number).unwrap()
    }

    /// What `from`, a replica of this name, has to tell.
    fn carry(from: &Registry, name: &str, to: &Registry) -> Taken {
        to.hear(name, from.news(usize::MAX).into_iter())
    }

    /// Each data plane: whether it is connected, and which revision it serves.
    fn shown(registry: &Registry) -> Vec<(String, bool, i64)> {
        let shown = registry.list("", i64::MAX).into_iter();
        let revision =
            |plane: &sluice_proto::admin::v1::DataPlane| plane.workspaces.first().map_or(0, |at| at.revision);
        shown.map(|plane| (plane.name.clone(), plane.connected, revision(&plane))).collect()
    }

    fn of(id: &str, connected: bool, revision: i64) -> (String, bool, i64) {
        (format!("dataPlanes/{id}"), connected, revision)
    }

    #[test]
    fn what_one_knows_of_its_data_planes_the_other_knows() {
        let (one, two) = (registry(), registry());
        let plane = connect(&one, "a", 1);
        let taken = carry(&one, "one", &two);
        assert_eq!(taken.lines.len(), 1);
        assert_eq!(shown(&two), [of("a", true, 1)]);
        assert_eq!(two.keeper(ACME, "x").as_deref(), Some("a"));
        assert_eq!((two.connected(), two.is_elsewhere("a", 1), one.orders_here("a", 1).is_some()), (0, true, true));
        assert!(two.orders_here("a", 1).is_none());
        assert_eq!((two.older(ACME, 2), two.older(ACME, 1)), (one.older(ACME, 2), vec![]));
        assert_eq!(two.older(ACME, 2).len(), 1);

        let serving = Cursor { workspace: ACME.to_owned(), revision: 2, ..Cursor::default() };
        plane.served(&Ack { serving: Some(serving), ..Ack::default() });
        let change = |state| TokenChanges { changes: vec![TokenChange { connection: CRM.to_owned(), state }] };
        plane.tokens_changed(change(Some(TokenState::default())));
        assert!(!two.have_answered(ACME, 2));
        assert!(carry(&one, "one", &two).lines.is_empty(), "it is the same stream");
        assert!(two.have_answered(ACME, 2));
        assert_eq!(two.token_states(CRM, "", 10).len(), 1);
        plane.tokens_changed(change(None));
        carry(&one, "one", &two);
        assert_eq!(two.token_states(CRM, "", 10).len(), 0);
        plane.dropped(ACME);
        carry(&one, "one", &two);
        assert_eq!(shown(&two), [of("a", true, 0)]);
        drop(plane);
        carry(&one, "one", &two);
        assert_eq!(shown(&two), [of("a", false, 0)]);
        assert!(one.news(10).is_empty() && two.news(10).is_empty(), "what was heard is not told again");
    }

    #[test]
    fn the_stream_with_the_greater_number_counts_whoever_tells_first() {
        let (one, two, three) = (registry(), registry(), registry());
        let old = connect(&one, "a", 1);
        let told_by_one = one.news(usize::MAX);
        let new = connect(&two, "a", 2);
        let told_by_two = two.news(usize::MAX);
        for order in [[&told_by_one, &told_by_two], [&told_by_two, &told_by_one]] {
            for told in order {
                let name = if std::ptr::eq(told, &told_by_one) { "one" } else { "two" };
                three.hear(name, told.clone().into_iter());
            }
            assert!(three.is_elsewhere("a", 2) && !three.is_elsewhere("a", 1));
        }
        let taken = one.hear("two", told_by_two.into_iter());
        assert!(old.replaced.is_cancelled());
        assert_eq!(taken.left, [("a".to_owned(), 2)]);
        drop(old);
        assert!(one.news(10).is_empty(), "its end is nobody's news any more");
        assert_eq!(shown(&one), [of("a", true, 1)]);
        assert!(two.hear("one", told_by_one.into_iter()).lines.is_empty());
        assert!(!new.replaced.is_cancelled());
        // Its number was given before that of the other, which was faster to register.
        assert!(connect(&two, "a", 1).replaced.is_cancelled());
        assert!(!new.replaced.is_cancelled());
    }

    #[test]
    fn one_that_was_let_go_is_let_go_everywhere_and_may_come_back() {
        let (one, two) = (registry(), registry());
        let plane = connect(&one, "a", 1);
        let late = one.news(usize::MAX);
        two.forget("a", 2);
        carry(&two, "two", &one);
        assert!(plane.revoked.is_cancelled());
        two.hear("one", late.into_iter());
        assert!(shown(&two).is_empty() && shown(&one).is_empty(), "what is told late does not bring it back");
        drop(plane);
        let _again = connect(&one, "a", 3);
        carry(&one, "one", &two);
        assert_eq!(shown(&two), [of("a", true, 1)]);
    }

    #[test]
    fn whose_control_plane_is_gone_is_disconnected_until_it_tells_again() {
        let (one, two) = (registry(), registry());
        let _plane = connect(&one, "a", 1);
        carry(&one, "one", &two);
        two.keep_replicas(&["one".to_owned()].into());
        assert_eq!(shown(&two), [of("a", true, 1)]);
        two.keep_replicas(&BTreeSet::new());
        assert_eq!(shown(&two), [of("a", false, 1)]);
        one.tell_again();
        assert_eq!(carry(&one, "one again", &two).lines.len(), 1);
        assert_eq!(shown(&two), [of("a", true, 1)]);
    }

    #[test]
    fn what_could_not_be_told_is_told_later_as_it_is_then() {
        let (one, two) = (registry(), registry());
        let plane = connect(&one, "a", 1);
        let told = one.news(usize::MAX);
        drop(plane);
        one.keep(&told);
        carry(&one, "one", &two);
        assert_eq!(shown(&two), [of("a", false, 1)]);
    }
}
