//! Every path that carries load, each beside its limit in the same run on the same machine, in one table.
//!
//! `cargo bench -p sluice-tests --bench paths`, with `-- triggers`, `redis`, `render`, `sending`, `whole`, `stored`, `constant`,
//! `submitted`, `publish`, `scale`, `installed`, `worst` or `idle` for parts of it; for a profiler, `-- profile` does nothing but deliver,
//! `-- profile bare` nothing but what it is compared with, `-- profile whole` (or `whole redis`) nothing but the whole way,
//! `-- profile triggers` (or `triggers token`, `triggers redis`) nothing but triggers that are kept. Rounds alternate between a path and its limit, so that a noisy machine is noisy for
//! both; a ratio is the middle one of those of each round and holds better than rates, and so does processor time, which is that of the
//! process that is measured. Planes, limits and destinations run in processes of their own, the load in this one; all share the
//! machine's cores. Everything is on: fsync before each answer, limits, metrics, reports.
//!
//! | Row | What | Its limit |
//! |---|---|---|
//! | bare server | hyper reads the body and answers 200 | |
//! | bare server, fsync | the same after the body is in a file, one fsync for all that wait | |
//! | rows | job and dedup key through the inbox, as many callers at once, no HTTP | |
//! | trigger … | 1 KB of JSON over kept connections, to endpoints of each kind; nothing is delivered | rows |
//! | duplicate | the same order again: 204 | trigger that is new |
//! | render | a body of 1 KB, JSON-safe | the stock engine, which is not |
//! | deliveries | jobs from the inbox to a TLS destination that keeps connections, until their outcomes are recorded | the same client in a loop |
//! | whole way | trigger → queue → render → HTTPS to a destination → outcome recorded, until all are over; the control plane is stopped, as elsewhere it has cores of its own | a bare server that calls the same destination with the same client and stores nothing |
//! | whole way and a control plane | the same until all outcomes are stored by a control plane in the same process | the same |
//! | constant rate | 500 triggers a second, delivered; time counts from when each was due | |
//! | events, members | submitted to the control plane by gRPC; nothing is delivered | |
//! | publish → served | from the call of Publish until the revision is served | nothing is cheaper than the flushes: one alone stands beside it |
//! | first sync, warm start | a data plane that gets, or finds on its disk, so many endpoints | decoding what it gets |
//! | installed | a control plane that holds so many endpoints, and a data plane that comes new to it |
//! | worst | memory of a data plane with all its places taken and as many triggers as may be in work, each of 1 MiB | |
//! | idle | a data plane whose control plane is there, nobody calls | |

#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use std::time::Duration;

use sluice_tests::RedisServer;

use crate::bare::Sink;
use crate::building::{Building, DOORS, Door, Wanted, body};
use crate::load::{Load, Shot};
use crate::process::{Part, Watched};
use crate::rows::Rows;
use crate::table::Target::{AtLeast, AtMost};
use crate::table::{Measured, Round, Table, median};

mod bare;
mod building;
#[path = "../engines.rs"]
mod engines;
mod installed;
mod load;
#[path = "../measure.rs"]
mod measure;
mod process;
mod publish;
mod render;
mod rows;
mod scale;
mod sending;
mod submitted;
mod table;
mod worst;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Unless `--rounds=` says otherwise.
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1200);
/// Before what counts.
const WARM_UP: Duration = Duration::from_millis(300);
const CONNECTIONS: usize = 64;
const MANY: usize = 512;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some((part, argument)) = process::asked() {
        runtime.block_on(play(&part, &argument));
        return;
    }
    // `cargo test --all-targets` builds and starts this too.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("run with: cargo bench -p sluice-tests --bench paths");
        return;
    }
    let held = runtime.block_on(run());
    std::process::exit(i32::from(!held));
}

/// This program in another part.
async fn play(part: &str, argument: &str) {
    match part {
        "bare" => bare::server().await,
        "keeping" => bare::keeping().await,
        "calling" => bare::calling(argument).await,
        "sink" => bare::sink().await,
        other => panic!("there is no part {other}"),
    }
}

async fn run() -> bool {
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| parts.is_empty() || parts.iter().any(|part| part == name);
    if parts.first().is_some_and(|part| part == "profile") {
        match parts.get(1).map(String::as_str) {
            Some("whole") => profile_whole(parts.get(2).is_some_and(|store| store == "redis")).await,
            Some("bare") => sending::profile_bare().await,
            Some("triggers") => profile_triggers(parts.get(2).map_or("", String::as_str)).await,
            _ => sending::profile().await,
        }
        return true;
    }
    let mut table = Table::default();
    if wanted("triggers") {
        triggers(&mut table).await;
    }
    if wanted("redis") {
        for connections in [CONNECTIONS, MANY] {
            shared(&mut table, connections).await;
        }
    }
    if wanted("render") {
        render::run(&mut table);
    }
    if wanted("sending") {
        sending::run(&mut table).await;
    }
    if wanted("whole") {
        whole_way(&mut table, false).await;
    }
    if wanted("stored") {
        whole_way(&mut table, true).await;
    }
    if wanted("constant") {
        constant(&mut table, false).await;
        constant(&mut table, true).await;
    }
    if wanted("submitted") {
        submitted::run(&mut table, &body()).await;
    }
    if wanted("publish") {
        publish::served(&mut table).await;
    }
    if wanted("scale") {
        scale::run(&mut table).await;
    }
    if wanted("installed") {
        installed::run(&mut table).await;
    }
    if wanted("worst") {
        worst::run(&mut table).await;
    }
    if wanted("idle") {
        idle(&mut table).await;
    }
    table.end()
}

fn rounds() -> usize {
    std::env::args().find_map(|argument| argument.strip_prefix("--rounds=")?.parse().ok()).unwrap_or(ROUNDS)
}

async fn warm(load: &Load, watched: Watched) -> Round {
    load.closed(WARM_UP, watched).await;
    load.closed(ROUND, watched).await
}

/// Endpoints of every kind, beside servers that do less and beside the store alone.
async fn triggers(table: &mut Table) {
    let body = body();
    let (bare, keeping) = (Part::start("bare", "").await, Part::start("keeping", "").await);
    let to = |part: &Part| Load {
        address: part.address(),
        shots: vec![Shot::numbered("/trigger", &body, &[])],
        connections: CONNECTIONS,
        status: 200,
    };
    let mut limits = [Measured::default(), Measured::default()];
    let (mut rows, mut again) = (Measured::default(), Measured::default());
    let mut taken: Vec<Measured> = DOORS.iter().map(|_| Measured::default()).collect();
    for round in 0..rounds() {
        for (measured, part) in limits.iter_mut().zip([&bare, &keeping]) {
            measured.add(warm(&to(part), part.watched()).await);
        }
        rows.add(Rows::embedded(&body).await.round(CONNECTIONS, ROUND).await);
        // New each round: the store does not grow from round to round.
        let building = Building::start(&DOORS, Wanted::default()).await;
        // Another one first each round: the store does grow within a round.
        for at in (round..).take(DOORS.len()).map(|at| at % DOORS.len()) {
            taken[at].add(warm(&building.load(DOORS[at], &body, CONNECTIONS), building.watched()).await);
        }
        again.add(warm(&building.duplicates(&body, CONNECTIONS).await, building.watched()).await);
        building.stop().await;
    }
    let [bare, keeping] = &mut limits;
    table.rate("bare server", bare);
    table.rate("bare server, fsync", keeping);
    table.rate("rows, SQLite, 64 callers", &mut rows);
    let [open, new, token, token_new, meta, meta_new] = &mut taken[..] else { return };
    table.against("trigger", open, &rows, None);
    table.against("trigger, dedup", new, &rows, Some(AtLeast(0.7)));
    table.figure("  CPU of it / bare server", new.cpu() / bare.cpu(), "x", Some(AtMost(5.0)));
    table.figure(
        "  CPU of it without that of the rows / bare server",
        (new.cpu() - rows.cpu()) / bare.cpu(),
        "x",
        Some(AtMost(3.0)),
    );
    table.figure("  accepted against 30,000", new.rate(), "/s", Some(AtLeast(30_000.0)));
    table.against("duplicate (against a new one)", &mut again, new, Some(AtLeast(1.0)));
    table.against("trigger, token (against none)", token, open, Some(AtLeast(0.85)));
    table.against("trigger, token, dedup (against none)", token_new, new, Some(AtLeast(0.85)));
    table.against("trigger, Meta (against none)", meta, open, None);
    table.against("trigger, Meta, dedup (against none)", meta_new, new, None);
}

/// The same on Redis, which fsyncs before it answers.
async fn shared(table: &mut Table, connections: usize) {
    let body = body();
    let (mut rows, mut new) = (Measured::default(), Measured::default());
    let mut commands = Vec::new();
    for _ in 0..rounds() {
        let server = RedisServer::start().await;
        rows.add(Rows::redis(&server, &body).await.round(connections, ROUND).await);
        let server = RedisServer::start().await;
        let doors = [Door::Open { dedup: true }];
        let building = Building::start(&doors, Wanted { redis: Some(&server.url()), ..Wanted::default() }).await;
        let before = server.commands().await;
        let load = building.load(doors[0], &body, connections);
        load.closed(WARM_UP, building.watched()).await;
        let round = load.closed(ROUND, building.watched()).await;
        let warm_up = WARM_UP.as_secs_f64() / ROUND.as_secs_f64();
        commands.push((server.commands().await - before) as f64 / (round.count as f64 * (1.0 + warm_up)));
        new.add(round);
        building.stop().await;
    }
    table.rate(&format!("rows, Redis (fsync always), {connections} callers"), &mut rows);
    table.against(&format!("trigger, dedup, Redis, {connections} connections"), &mut new, &rows, Some(AtLeast(0.8)));
    table.figure("  Redis commands for each trigger", median(&commands), "", None);
}

/// From the trigger to the recorded outcome; `stored`: until a control plane in the same process has stored it.
async fn whole_way(table: &mut Table, stored: bool) {
    let body = body();
    let sink = Part::start("sink", "").await;
    let calling = Part::start("calling", &sink.said).await;
    let there = Sink::read(&sink.said);
    let bare = Load {
        address: calling.address(),
        shots: vec![Shot::numbered("/trigger", &body, &[])],
        connections: CONNECTIONS,
        status: 200,
    };
    let (mut limit, mut embedded, mut redis) = (Measured::default(), Measured::default(), Measured::default());
    let wanted = Wanted { sink: Some(&there), alone: !stored, ..Wanted::default() };
    for _ in 0..rounds() {
        limit.add(warm(&bare, calling.watched()).await);
        embedded.add(delivered(&body, wanted).await);
        let server = RedisServer::start().await;
        redis.add(delivered(&body, Wanted { redis: Some(&server.url()), ..wanted }).await);
    }
    table.rate("bare server and bare client", &mut limit);
    if stored {
        table.against("whole way and a control plane that stores all of it, SQLite", &mut embedded, &limit, None);
        table.against("whole way and a control plane that stores all of it, Redis", &mut redis, &limit, None);
        return;
    }
    table.against("whole way, SQLite", &mut embedded, &limit, Some(AtLeast(0.35)));
    table.figure("  ten times Node-RED (1,270/s)", embedded.rate(), "/s", Some(AtLeast(12_700.0)));
    table.against("whole way, Redis (fsync always)", &mut redis, &limit, Some(AtLeast(0.4)));
}

/// Nothing but the whole way, for a profiler of the process `subject` that remains: the control plane is stopped.
async fn profile_whole(redis: bool) {
    let sink = Part::start("sink", "").await;
    let there = Sink::read(&sink.said);
    let mut taken = Measured::default();
    for _ in 0..6 {
        let server = if redis { Some(RedisServer::start().await) } else { None };
        let url = server.as_ref().map(RedisServer::url);
        let wanted = Wanted { sink: Some(&there), redis: url.as_deref(), alone: true, ..Wanted::default() };
        taken.add(delivered(&body(), wanted).await);
    }
    let mut table = Table::default();
    table.rate(if redis { "whole way, Redis" } else { "whole way, SQLite" }, &mut taken);
    table.end();
}

/// Nothing but triggers that are kept: with a token, on Redis, or neither.
async fn profile_triggers(which: &str) {
    let server = if which == "redis" { Some(RedisServer::start().await) } else { None };
    let url = server.as_ref().map(RedisServer::url);
    let door = if which == "token" { Door::Token { dedup: true } } else { Door::Open { dedup: true } };
    let building = Building::start(&[door], Wanted { redis: url.as_deref(), ..Wanted::default() }).await;
    let mut taken = Measured::default();
    for _ in 0..8 {
        taken.add(building.load(door, &body(), CONNECTIONS).closed(ROUND, building.watched()).await);
    }
    building.stop().await;
    let mut table = Table::default();
    table.rate(&format!("trigger, dedup {which}"), &mut taken);
    table.end();
}

/// Triggers for some time, until the last of them is delivered, recorded and reported.
async fn delivered(body: &str, wanted: Wanted<'_>) -> Round {
    let doors = [Door::Open { dedup: true }];
    let mut building = Building::start(&doors, wanted).await;
    let load = building.load(doors[0], body, CONNECTIONS);
    if wanted.alone {
        building.stop_control_plane().await;
    }
    load.closed(WARM_UP, building.watched()).await;
    building.drained().await;
    let (begun, cpu) = (std::time::Instant::now(), building.watched().cpu());
    let round = load.closed(ROUND, building.watched()).await;
    building.drained().await;
    let cpu = building.watched().cpu() - cpu;
    let round = Round { time: begun.elapsed(), cpu, ..round };
    building.stop().await;
    round
}

/// Times at a rate that is far from the limit, and whether publishing disturbs them; `elsewhere`: to a disk that is not the data plane's.
async fn constant(table: &mut Table, elsewhere: bool) {
    const TIME: Duration = Duration::from_secs(3);
    const ROUNDS: usize = 7;
    let body = body();
    let sink = Part::start("sink", "").await;
    let there = Sink::read(&sink.said);
    let doors = [Door::Open { dedup: true }];
    let building = Building::start(&doors, Wanted { sink: Some(&there), elsewhere, ..Wanted::default() }).await;
    let load = building.load(doors[0], &body, CONNECTIONS);
    load.constant(500, WARM_UP, building.watched()).await;
    let (mut alone, mut beside) = (Measured::default(), Measured::default());
    let mut published = 0;
    for _ in 0..ROUNDS {
        alone.add(load.constant(500, TIME, building.watched()).await);
        let (round, count) =
            tokio::join!(load.constant(500, TIME, building.watched()), publish::steadily(&building.acme, 200, TIME));
        beside.add(round);
        published += count;
    }
    building.stop().await;
    let place = if elsewhere { ", a control plane with a disk of its own" } else { "" };
    table.rate(&format!("constant rate, 500/s{place}"), &mut alone);
    table.figure("  p99", alone.p99(), "ms", (!elsewhere).then_some(AtMost(10.0)));
    table.rate("  beside publishes", &mut beside);
    table.figure("  publishes", f64::from(published) / (ROUNDS as f64 * TIME.as_secs_f64()), "/s", None);
    table.figure("  p99 beside / alone", beside.p99_against(&alone), "x", (!elsewhere).then_some(AtMost(1.1)));
}

/// What a data plane costs that nobody calls.
async fn idle(table: &mut Table) {
    const TIME: Duration = Duration::from_secs(10);
    let server = RedisServer::start().await;
    let url = server.url();
    for redis in [None, Some(url.as_str())] {
        let building = Building::start(&DOORS[..1], Wanted { redis, alone: true, ..Wanted::default() }).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (cpu, commands) = (building.watched().cpu(), server.commands().await);
        tokio::time::sleep(TIME).await;
        let share = (building.watched().cpu() - cpu).as_secs_f64() / TIME.as_secs_f64() * 100.0;
        let store = if redis.is_some() { "Redis" } else { "SQLite" };
        table.figure(&format!("idle, {store}: of a core"), share, "%", Some(AtMost(0.5)));
        table.figure("  resident", building.watched().resident(), "MB", Some(AtMost(40.0)));
        if redis.is_some() {
            let each = (server.commands().await - commands) as f64 / TIME.as_secs_f64();
            table.figure("  Redis commands", each, "/s", Some(AtMost(2.0)));
        }
        building.stop().await;
    }
}
