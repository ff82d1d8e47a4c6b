//! What a shard may be asked, as arguments of the script, and its answers as they come back.

use bytes::Bytes;
use uuid::Uuid;

use super::super::fresh::Fresh;
use super::super::{
    Accept, Accepted, Fence, Finish, Flow, FlowId, Found, Given, Grant, HEADS, Lane, Leased, MAX_LEASES, NewJob, Place,
    REQUEST_MEMORY, Steer, Waited, Wanted, bytes_of,
};
use super::SHARDS_MAX;
use super::arguments::Arguments;
use super::value::{self, int, ints, list, opaque};
use crate::clock::UnixMillis;

/// Something to ask in a step.
#[derive(Debug)]
pub(super) enum Ask {
    Accept(Accept),
    Lease {
        grants: Vec<Grant>,
        most: usize,
    },
    /// What is in the last of these jobs, all of which are leased.
    Read(Vec<Leased>, Vec<(Uuid, Fence)>),
    Renew(Vec<(Uuid, Fence)>),
    Begin {
        id: Uuid,
        fence: Fence,
        rendered: Bytes,
    },
    Postpone {
        id: Uuid,
        fence: Fence,
        due: UnixMillis,
    },
    Finish {
        id: Uuid,
        fence: Fence,
        finish: Finish,
    },
    Steer {
        id: Uuid,
        fence: Fence,
        steer: Steer,
    },
    Find(Uuid),
    Waited {
        after: i64,
        accepted_before: UnixMillis,
        max_rows: u32,
        max_bytes: usize,
    },
    /// Reports after a number of this shard.
    Reports {
        after: i64,
        max_rows: u32,
        max_bytes: usize,
    },
    Trim(i64),
    /// Of limits that all planes keep together.
    Limits(Vec<Wanted>),
    /// Every flow as it is.
    Flows,
    /// Counts, and the age of the oldest ready job in these flows of each lane.
    Counts([Vec<FlowId>; 2]),
    Here {
        away_ms: i64,
        absent_after_ms: i64,
        /// Of the master keys that the ring has by now.
        marks: Vec<String>,
    },
    Enter,
    Leave,
}

/// What a lane holds beside ready jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) leased: u64,
    pub(super) delayed: u64,
    pub(super) dead: u64,
    pub(super) oldest_ready_ms: u64,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    Accepted(Accepted),
    Leased(Vec<Leased>),
    /// Of some only that they are leased: what is in them is not known here, as the answer was lost that told their rows.
    LeasedInPart(Vec<Leased>, Vec<(Uuid, Fence)>),
    Lost(Vec<Uuid>),
    /// Whether the lease or the job was the caller's.
    Held(bool),
    Found(Option<Found>),
    Waited(Vec<Waited>),
    Reports(Vec<Bytes>),
    Counts([Counts; 2]),
    Given(Vec<Given>),
    /// Whether there is more to do.
    More(bool),
}

impl Ask {
    /// Whether it changes what a caller was promised: an answer is given when that is durable.
    pub(super) fn is_promise(&self) -> bool {
        match self {
            Self::Accept(_) | Self::Begin { .. } | Self::Postpone { .. } | Self::Finish { .. } | Self::Steer { .. } => {
                true
            }
            Self::Lease { .. }
            | Self::Read(..)
            | Self::Renew(_)
            | Self::Find(_)
            | Self::Waited { .. }
            | Self::Reports { .. }
            | Self::Trim(_)
            | Self::Limits(_)
            | Self::Flows
            | Self::Counts(_)
            | Self::Here { .. }
            | Self::Enter
            | Self::Leave => false,
        }
    }

    /// Bytes it brings along.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Accept(accept) => bytes_of(&accept.jobs),
            Self::Begin { rendered, .. } => rendered.len(),
            Self::Finish { finish, .. } => finish.bytes(),
            Self::Steer { steer, .. } => steer.report().len(),
            Self::Lease { .. }
            | Self::Read(..)
            | Self::Renew(_)
            | Self::Postpone { .. }
            | Self::Find(_)
            | Self::Waited { .. }
            | Self::Reports { .. }
            | Self::Trim(_)
            | Self::Limits(_)
            | Self::Flows
            | Self::Counts(_)
            | Self::Here { .. }
            | Self::Enter
            | Self::Leave => 0,
        }
    }

    /// The rows of jobs it is about: they are read together.
    pub(super) fn rows(&self) -> impl Iterator<Item = i64> {
        let (one, many) = match self {
            Self::Begin { fence, .. }
            | Self::Postpone { fence, .. }
            | Self::Finish { fence, .. }
            | Self::Steer { fence, .. } => (Some(fence.row), [].as_slice()),
            Self::Renew(leases) | Self::Read(_, leases) => (None, leases.as_slice()),
            Self::Accept(_)
            | Self::Lease { .. }
            | Self::Find(_)
            | Self::Waited { .. }
            | Self::Reports { .. }
            | Self::Trim(_)
            | Self::Limits(_)
            | Self::Flows
            | Self::Counts(_)
            | Self::Here { .. }
            | Self::Enter
            | Self::Leave => (None, [].as_slice()),
        };
        one.into_iter().chain(many.iter().map(|(_, fence)| fence.row))
    }

    /// The key under which the request that it brings is known.
    pub(super) fn claims(&self) -> Option<Vec<u8>> {
        match self {
            Self::Accept(accept) => Some(claim_key(accept)),
            _ => None,
        }
    }

    /// Adds it to the arguments of a step; the store's numbers of reports are less by `offset`. Rows and keys have been said before.
    pub(super) fn write(&self, to: &mut Arguments, offset: i64) {
        match self {
            Self::Accept(accept) => write_accept(accept, to),
            Self::Lease { grants, most } => write_lease(grants, *most, to),
            Self::Read(_, leases) => {
                to.word("R").number(leases.len());
                leases.iter().for_each(|(id, fence)| write_lease_of(*id, *fence, to));
            }
            Self::Renew(leases) => {
                to.word("N").number(leases.len());
                leases.iter().for_each(|(id, fence)| write_lease_of(*id, *fence, to));
            }
            Self::Begin { id, fence, rendered } => {
                to.word("B");
                write_lease_of(*id, *fence, to);
                to.value(rendered);
            }
            Self::Postpone { id, fence, due } => {
                to.word("P");
                write_lease_of(*id, *fence, to);
                to.number(*due);
            }
            Self::Finish { id, fence, finish } => write_finish(*id, *fence, finish, to),
            Self::Steer { id, fence, steer } => {
                to.word("S");
                write_lease_of(*id, *fence, to);
                to.word(match steer {
                    Steer::Retry { .. } => "R",
                    Steer::Cancel { .. } => "C",
                });
                to.value(steer.report());
            }
            Self::Find(id) => {
                to.word("I").word(id.as_bytes());
            }
            Self::Waited { after, accepted_before, max_rows, max_bytes } => {
                to.word("W").digits(*after).number(*accepted_before).number(*max_rows).number(room(*max_bytes));
            }
            Self::Reports { after, max_rows, max_bytes } => {
                to.word("O").number(after.saturating_sub(offset)).number(*max_rows).number(room(*max_bytes));
            }
            Self::Trim(up_to) => {
                to.word("T").number(up_to.saturating_sub(offset));
            }
            Self::Limits(all) => write_limits(all, to),
            Self::Flows => {
                to.word("V");
            }
            Self::Counts(flows) => {
                to.word("C");
                for flows in flows {
                    to.words(flows.iter().map(|flow| flow.0.to_string()));
                }
            }
            Self::Here { away_ms, absent_after_ms, marks } => {
                to.word("H").number(*away_ms).number(*absent_after_ms).words(marks.iter());
            }
            Self::Enter => {
                to.word("E");
            }
            Self::Leave => {
                to.word("Q");
            }
        }
    }

    /// Reads what the script answered to it at this time; nothing if it was something else.
    pub(super) fn read(&self, value: ::redis::Value, at: UnixMillis, fresh: &mut Fresh) -> Option<Answer> {
        Some(match self {
            Self::Accept(accept) => Answer::Accepted(match int(&value)? {
                1 => Accepted::Accepted,
                2 => Accepted::Duplicate,
                3 => Accepted::Full,
                first @ 4.. => {
                    remember(first, &accept.jobs, at, fresh);
                    Accepted::Accepted
                }
                _ => return None,
            }),
            Self::Lease { .. } => {
                let (mut jobs, mut unknown) = (Vec::new(), Vec::new());
                for value in list(value)? {
                    match leased(value, fresh)? {
                        Ok(job) => jobs.push(job),
                        Err(lease) => unknown.push(lease),
                    }
                }
                if unknown.is_empty() { Answer::Leased(jobs) } else { Answer::LeasedInPart(jobs, unknown) }
            }
            Self::Read(jobs, _) => {
                let read = list(value)?.into_iter().map(|value| whole(list(value)?.try_into().ok()?));
                Answer::Leased(jobs.iter().cloned().map(Some).chain(read).collect::<Option<_>>()?)
            }
            Self::Renew(_) => Answer::Lost(list(value)?.iter().map(value::uuid).collect::<Option<_>>()?),
            Self::Begin { .. } | Self::Postpone { .. } | Self::Steer { .. } => Answer::Held(int(&value)? == 1),
            Self::Finish { id, finish, .. } => {
                let held = int(&value)?;
                if held > 3 {
                    remember(held, &finish.report().jobs, at, fresh);
                }
                if held == 2 {
                    let jobs = finish.report().jobs.len();
                    tracing::error!(delivery = %id, jobs, "the inbox is full: an event starts nothing");
                }
                Answer::Held(held > 0)
            }
            Self::Find(_) => match value {
                ::redis::Value::Nil => Answer::Found(None),
                found => Answer::Found(Some(read_found(found)?)),
            },
            Self::Waited { .. } => Answer::Waited(list(value)?.into_iter().map(waited).collect::<Option<_>>()?),
            Self::Reports { .. } => Answer::Reports(list(value)?.into_iter().map(opaque).collect::<Option<_>>()?),
            Self::Counts(_) => Answer::Counts(counts(value)?),
            Self::Limits(_) => Answer::Given(given(&ints(value)?)?),
            Self::Trim(_) | Self::Flows | Self::Here { .. } | Self::Enter | Self::Leave => {
                Answer::More(int(&value)? == 1)
            }
        })
    }
}

/// The key under which a request is known: its dedup key, or its own id.
fn claim_key(accept: &Accept) -> Vec<u8> {
    match &accept.claim {
        Some(claim) => [b"d", claim.key.get(..16).unwrap_or_default()].concat(),
        None => [b"a", &accept.request.as_bytes()[..]].concat(),
    }
}

/// Sixteen bytes of a digest tell keys apart, and eight random ones of its id a request from others that carry the same key. Redis keeps
/// a value that is a number without further memory.
fn write_accept(accept: &Accept, to: &mut Arguments) {
    let window = accept.claim.as_ref().map_or(REQUEST_MEMORY, |claim| claim.window);
    let (_, random) = accept.request.as_u64_pair();
    // Redis counts no further than this when it adds the time of day: 8,000 years.
    const WINDOW_MAX: u128 = (1 << 48) - (1 << 42);
    to.word("A").digits(random.cast_signed()).digits(window.as_millis().clamp(1, WINDOW_MAX));
    write_jobs(&accept.jobs, to);
}

fn write_lease(grants: &[Grant], most: usize, to: &mut Arguments) {
    to.word("L").number(most).number(HEADS).number(grants.len());
    for grant in grants {
        to.digits(grant.flow.0).number(grant.first).number(grant.retries);
        if grant.accepted_until == UnixMillis::MAX {
            to.word("")
        } else {
            to.digits(grant.accepted_until)
        };
    }
}

fn write_limits(all: &[Wanted], to: &mut Arguments) {
    to.word("G").number(all.len());
    for Wanted { name, rate, concurrency_max, in_use, unused, count } in all {
        to.word(name);
        to.number(rate.map_or(0, |rate| rate.requests_per_second)).number(rate.map_or(0, |rate| rate.burst));
        to.number(concurrency_max.map_or(-1, i64::from)).number(*in_use);
        to.number(unused.count).number(unused.since).number(*count);
    }
}

fn write_finish(id: Uuid, fence: Fence, finish: &Finish, to: &mut Arguments) {
    let (kind, due, reason) = match finish {
        Finish::Done { .. } => ("D", 0, ""),
        Finish::Retry { due, .. } => ("R", *due, ""),
        Finish::Dead { reason, .. } => ("X", 0, reason.as_str()),
    };
    to.word("F");
    write_lease_of(id, fence, to);
    to.word(kind).number(due).word(reason);
    match finish.rendered() {
        Some(rendered) => to.number(1).value(rendered),
        None => to.number(0),
    };
    let report = finish.report();
    to.value(&report.told);
    write_jobs(&report.jobs, to);
}

fn write_lease_of(id: Uuid, fence: Fence, to: &mut Arguments) {
    to.word(id.as_bytes()).digits(fence.epoch);
}

fn write_jobs(jobs: &[NewJob], to: &mut Arguments) {
    to.number(jobs.len());
    for job in jobs {
        let Flow { workspace, destination, owner } = &*job.flow;
        let lane = lane_letter(job.lane);
        to.word(job.id.as_bytes())
            .word(lane)
            .word(format!("{lane}{workspace}\n{destination}\n{owner}"))
            .value(&job.payload);
    }
}

/// Bytes there is room for; scripts count in doubles.
fn room(bytes: usize) -> usize {
    bytes.min(1 << 52)
}

fn lane_letter(lane: Lane) -> &'static str {
    match lane {
        Lane::Realtime => "0",
        Lane::Bulk => "1",
    }
}

/// A lane and a flow as the script names them together.
pub(super) fn read_flow(name: &str) -> Option<(Lane, Flow)> {
    let (lane, rest) = name.split_at_checked(1)?;
    let lane = Lane::ALL.into_iter().find(|one| lane_letter(*one) == lane)?;
    let mut parts = rest.splitn(3, '\n').map(str::to_owned);
    Some((lane, Flow { workspace: parts.next()?, destination: parts.next()?, owner: parts.next()? }))
}

/// Jobs that were written, and the first of their rows, which follow each other.
fn remember(first: i64, jobs: &[NewJob], at: UnixMillis, fresh: &mut Fresh) {
    let rows = (first..).step_by(usize::from(SHARDS_MAX));
    // The number of their flow is told with the lease.
    rows.zip(jobs).for_each(|(row, job)| fresh.add(row, 0, job, at));
    fresh.commit();
}

/// A job that is leased; what is in one that this plane has brought is known here, or should be.
fn leased(value: ::redis::Value, fresh: &mut Fresh) -> Option<Result<Leased, (Uuid, Fence)>> {
    match <[_; 3]>::try_from(list(value)?) {
        Ok([row, id, flow]) => {
            let (fence, id) = (Fence { row: int(&row)?, epoch: 1 }, value::uuid(&id)?);
            let flow = FlowId(int(&flow)?);
            let job = fresh.take(fence.row).filter(|job| job.id == id);
            Some(job.map(|job| Leased { flow, ..job }).ok_or((id, fence)))
        }
        Err(fields) => Some(Ok(whole(fields.try_into().ok()?)?)),
    }
}

fn whole(fields: [::redis::Value; 11]) -> Option<Leased> {
    let [row, epoch, id, lane, flow, attempts, leases, ambiguous, accepted, payload, rendered] = fields;
    Some(Leased {
        fence: Fence { row: int(&row)?, epoch: int(&epoch)? },
        id: value::uuid(&id)?,
        lane: Lane::ALL.get(usize::try_from(int(&lane)?).ok()?).copied()?,
        flow: FlowId(int(&flow)?),
        attempt: u32::try_from(int(&attempts)?).ok()?,
        poisoned: int(&leases)? >= i64::from(MAX_LEASES),
        ambiguous: int(&ambiguous)? == 1,
        accepted_at: int(&accepted)?,
        payload: opaque(payload)?,
        rendered: opaque(rendered),
    })
}

fn place(value: &::redis::Value) -> Option<Place> {
    match value::text(value)? {
        "r" => Some(Place::Ready),
        "l" => Some(Place::Leased),
        "d" => Some(Place::Delayed),
        "x" => Some(Place::Dead),
        _ => None,
    }
}

fn read_found(value: ::redis::Value) -> Option<Found> {
    let [row, epoch, at, accepted, payload, rendered] = <[_; 6]>::try_from(list(value)?).ok()?;
    Some(Found {
        place: place(&at)?,
        fence: Fence { row: int(&row)?, epoch: int(&epoch)? },
        accepted_at: int(&accepted)?,
        payload: opaque(payload)?,
        rendered: opaque(rendered),
    })
}

fn waited(value: ::redis::Value) -> Option<Waited> {
    let [row, id, epoch, is_at, accepted, at, payload] = <[_; 7]>::try_from(list(value)?).ok()?;
    let (place, epoch) = (place(&is_at)?, int(&epoch)?);
    Some(Waited {
        number: int(&row)?,
        id: value::uuid(&id)?,
        payload: opaque(payload)?,
        due: if place == Place::Delayed { Some(int(&at)?) } else { None },
        // Its lease has taken the next number already.
        order: epoch - i64::from(place == Place::Leased),
        accepted_at: int(&accepted)?,
    })
}

fn given(numbers: &[i64]) -> Option<Vec<Given>> {
    let all = numbers.chunks(3).map(|given| {
        let [count, left, at] = *given else { return None };
        Some(Given { count: count.try_into().ok()?, left: left.try_into().ok()?, at: at.try_into().ok()? })
    });
    all.collect()
}

fn counts(value: ::redis::Value) -> Option<[Counts; 2]> {
    let numbers: Vec<u64> = ints(value)?.into_iter().map(|number| u64::try_from(number).unwrap_or(0)).collect();
    let of = |numbers: &[u64]| {
        let [leased, delayed, dead, oldest_ready_ms] = *numbers else { return None };
        Some(Counts { leased, delayed, dead, oldest_ready_ms })
    };
    Some([of(numbers.get(..4)?)?, of(numbers.get(4..)?)?])
}
