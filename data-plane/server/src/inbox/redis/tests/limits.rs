//! Limits that all planes keep together: what they take of one is exactly what it has.

use sluice_core::model::RateLimit;

use super::*;
use crate::inbox::{Given, Ledger, Short, Unused, Wanted};

fn exact(server: &Server, plane: &str) -> RedisSettings {
    RedisSettings { exact_limits: true, ..settings(server, plane) }
}

/// So many planes on one server, and the time.
async fn planes<const N: usize>(server: &Server) -> ([Ledger; N], Clock) {
    let clock = Clock::manual(START);
    let mut all = Vec::new();
    for n in 0..N {
        let inbox = Redis::open(exact(server, &format!("p{n}")), clock.clone()).await.unwrap();
        all.push(inbox.ledger().unwrap());
    }
    (all.try_into().unwrap(), clock)
}

fn rate(requests_per_second: u32, burst: u32) -> RateLimit {
    RateLimit { requests_per_second, burst }
}

fn of_rate(requests_per_second: u32, burst: u32, count: u32) -> Wanted {
    Wanted { count, ..Wanted::request("r".to_owned(), rate(requests_per_second, burst)) }
}

fn at_once(most: u32, in_use: u32, count: u32) -> Wanted {
    let name = "c".to_owned();
    Wanted { name, rate: None, concurrency_max: Some(most), in_use, unused: Unused::default(), count }
}

async fn take(ledger: &Ledger, wanted: &Wanted) -> Given {
    ledger.take(vec![wanted.clone()]).await.unwrap()[0]
}

#[tokio::test]
async fn without_being_asked_for_nothing_is_kept_together() {
    let server = Server::start().await;
    assert!(open(settings(&server, "a")).await.ledger().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planes_take_of_a_rate_together_exactly_what_it_has() {
    let server = Server::start().await;
    let (planes, clock) = planes::<3>(&server).await;
    for (per_second, burst, step, name) in [(7, 10, 13, "a"), (3, 2, 250, "b"), (1_000, 40, 1, "c"), (1, 5, 999, "d")] {
        let began = clock.now();
        let (mut taken, mut greedy) = (0, 0);
        while clock.now() - began < 30 * step {
            let wanted = |count| Wanted { name: name.to_owned(), ..of_rate(per_second, burst, count) };
            for (n, plane) in planes.iter().enumerate() {
                // One wants more than there is.
                let count = if n == 1 { 1_000 } else { 1 };
                let given = take(plane, &wanted(count)).await;
                taken += u64::from(given.count);
                greedy += u64::from(n == 1) * u64::from(given.count);
            }
            // To the last one: nobody else has anything left.
            let millionths =
                u64::from(burst) * 1_000_000 + (clock.now() - began) as u64 * 1_000 * u64::from(per_second);
            assert_eq!(taken, millionths / 1_000_000, "{per_second}/s, {burst} at {} ms", clock.now() - began);
            clock.advance(step);
        }
        assert!(greedy > 0);
    }
}

#[tokio::test]
async fn one_plane_that_is_asked_alone_has_all_of_it() {
    let server = Server::start().await;
    let (planes, clock) = planes::<3>(&server).await;
    let all = of_rate(10, 60, 100);
    let given = take(&planes[2], &all).await;
    assert_eq!((given.count, given.left), (60, 0));
    assert_eq!(given.short(&all), Some(Short::Rate(Duration::from_millis(100))));
    assert_eq!(take(&planes[0], &all).await.count, 0);
    // What it did not use is anybody's.
    let unused = |count| Wanted { unused: Unused { count, since: given.at }, count: 0, ..all.clone() };
    take(&planes[2], &unused(4)).await;
    assert_eq!(take(&planes[0], &all).await.count, 4);
    clock.advance(350);
    let later = take(&planes[1], &all).await;
    assert_eq!((later.count, later.left), (3, 500_000));
    assert_eq!(later.short(&all), Some(Short::Rate(Duration::from_millis(50))));
    clock.advance(DAY);
    assert_eq!(take(&planes[1], &all).await.count, 60, "no more than its burst is saved up");
    take(&planes[2], &unused(4)).await;
    assert_eq!(take(&planes[0], &all).await.count, 0, "the time has brought back what is given back late");
    clock.advance(-DAY);
    assert_eq!(take(&planes[1], &all).await.count, 0, "a clock that is set back brings nothing");
    clock.advance(100);
    assert_eq!(take(&planes[1], &all).await.count, 1, "and holds nothing up");
}

#[tokio::test]
async fn planes_have_no_more_requests_at_once_than_there_may_be() {
    let server = Server::start().await;
    let (planes, clock) = planes::<3>(&server).await;
    assert_eq!(take(&planes[0], &at_once(5, 0, 3)).await.count, 3);
    assert_eq!(take(&planes[1], &at_once(5, 0, 9)).await.count, 2);
    let none = take(&planes[2], &at_once(5, 0, 1)).await;
    assert_eq!((none.count, none.short(&at_once(5, 0, 1)).is_some()), (0, true));
    // What a plane says replaces what it said before: one of its three has ended.
    assert_eq!(take(&planes[0], &at_once(5, 2, 0)).await.count, 0);
    assert_eq!(take(&planes[2], &at_once(5, 0, 4)).await.count, 1);
    assert_eq!(take(&planes[0], &at_once(5, 2, 1)).await.count, 0);
    // A lower limit takes nothing away and gives nothing more; a higher one does.
    assert_eq!(take(&planes[1], &at_once(2, 2, 1)).await.count, 0);
    assert_eq!(take(&planes[1], &at_once(7, 2, 9)).await.count, 2);
    // Who says no more is believed for the time of a lease.
    clock.advance(MINUTE - 1);
    assert_eq!(take(&planes[0], &at_once(7, 2, 1)).await.count, 0);
    clock.advance(1);
    assert_eq!(take(&planes[0], &at_once(7, 2, 9)).await.count, 5, "the others are gone");
}

#[tokio::test]
async fn of_a_rate_and_requests_at_once_the_smaller_counts() {
    let server = Server::start().await;
    let (planes, _) = planes::<2>(&server).await;
    let both = |in_use, count| Wanted { concurrency_max: Some(4), in_use, ..of_rate(1, 6, count) };
    let given = take(&planes[0], &both(0, 9)).await;
    assert_eq!((given.count, given.left), (4, 2_000_000), "only what is given is taken");
    assert_eq!(take(&planes[1], &both(0, 9)).await.count, 0);
    assert_eq!(take(&planes[0], &both(0, 0)).await.count, 0);
    assert_eq!(take(&planes[1], &both(0, 9)).await.count, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_spread_over_the_shards_and_forgotten_when_they_bind_nobody() {
    let server = Server::start().await;
    let inbox = open(RedisSettings { shards: 3, lease: Duration::from_millis(50), ..exact(&server, "a") }).await;
    let ledger = inbox.ledger().unwrap();
    let wanted: Vec<Wanted> = (1..=30)
        .map(|n| Wanted { name: format!("l{n}"), concurrency_max: Some(9), ..of_rate(1_000, n, n / 2) })
        .collect();
    let given = ledger.take(wanted.clone()).await.unwrap();
    let counts = |of: &[Given]| of.iter().map(|given| given.count).collect::<Vec<u32>>();
    assert_eq!(counts(&given), wanted.iter().map(|wanted| wanted.count.min(9)).collect::<Vec<u32>>(), "in order");
    let used: HashSet<usize> = wanted.iter().map(|wanted| inbox.shard_of_limit(&wanted.name)).collect();
    assert_eq!(used.len(), 3);
    let forgotten = async {
        let mut client = server.client();
        while !::redis::cmd("KEYS").arg("*l:*").query::<Vec<String>>(&mut client).unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(forgotten).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_is_away_nothing_is_given_and_everybody_is_told_at_once() {
    let mut server = Server::start().await;
    let inbox = open(exact(&server, "a")).await;
    let ledger = inbox.ledger().unwrap();
    take(&ledger, &of_rate(1, 1, 1)).await;
    server.kill();
    assert_eq!(soon(ledger.take(vec![of_rate(1, 1, 1)])).await, Err(Unavailable));
    server.restart().await;
    back(|| ledger.take(vec![of_rate(1, 1, 1)])).await;
}
