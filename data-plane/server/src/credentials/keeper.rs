//! One token for many deliveries: asks its [`Life`] what to do, and does it. However many deliveries wait, one fetch is under way;
//! it goes on when those who wait are gone, and its end wakes all of them.
//!
//! A delivery holds its place only for a short fetch. While an endpoint is slow or failing, deliveries go back into the inbox
//! without using an attempt, so that a token endpoint that hangs takes no places from others.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::error::FetchError;
use super::life::{Fetched, Life, Moment, Serial, State, Told};
use crate::clock::Clock;
use crate::link::dice;

/// How long a fetch may last with deliveries waiting in their places.
const PATIENCE: Duration = Duration::from_secs(2);
/// The shortest time after which a delivery that went back comes again while a fetch is under way.
const COME_BACK: Duration = Duration::from_secs(1);

/// Keeps the token of one version of one connection.
pub(crate) struct Keeper<T> {
    life: Mutex<Life<T>>,
    /// A fetch has ended.
    ended: Notify,
    clock: Clock,
    /// Moves when what is shown has changed.
    changes: watch::Sender<()>,
}

/// A token, and which one it is, to be shown when it is refused.
#[derive(Clone, Debug)]
pub(crate) struct Lent<T> {
    pub(crate) token: T,
    pub(crate) serial: Serial,
}

/// There is no token now; come back after this time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ComeBack {
    pub(crate) after: Duration,
    /// Why the last fetch failed; `None`: one has been under way for long.
    pub(crate) error: Option<FetchError>,
}

impl<T> Keeper<T> {
    /// Keeps nothing yet.
    pub(crate) fn new(clock: Clock, changes: watch::Sender<()>) -> Self {
        Self { life: Mutex::default(), ended: Notify::new(), clock, changes }
    }

    fn life(&self) -> MutexGuard<'_, Life<T>> {
        // Nothing panics while it is held; if something did, what is in it is still whole.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Send + 'static> Keeper<T> {
    /// The token; fetched now if there is none and nobody else does.
    ///
    /// # Errors
    /// There is none, and waiting for one here would hold up others.
    pub(crate) async fn lend<F>(self: &Arc<Self>, fetch: impl Fn() -> F) -> Result<Lent<T>, ComeBack>
    where
        F: Future<Output = Fetched<T>> + Send + 'static,
    {
        loop {
            // Listens before it asks: an end in between is not missed.
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            let now = self.clock.monotonic();
            let (told, begin, troubled) = {
                let mut life = self.life();
                let (told, begin) = life.ask(now);
                (told, begin, life.is_troubled())
            };
            if begin {
                let flight = Flight { keeper: self.clone(), ended: None };
                tokio::spawn(flight.fly(fetch()));
            }
            let since = match told {
                Told::Use { token, serial } => return Ok(Lent { token, serial }),
                Told::Rest(failure) => {
                    let after = failure.rests_until.saturating_sub(now);
                    return Err(ComeBack { after, error: Some(failure.error) });
                }
                Told::Wait { since } => since,
            };
            let patience = if troubled { Duration::ZERO } else { PATIENCE };
            let left = patience.saturating_sub(now.saturating_sub(since));
            if left.is_zero() || tokio::time::timeout(left, ended).await.is_err() {
                return Err(self.come_back(since));
            }
        }
    }

    /// As late again as the fetch has lasted: who waits comes rarely, and not long after its end.
    fn come_back(&self, since: Moment) -> ComeBack {
        let after = self.clock.monotonic().saturating_sub(since).max(COME_BACK);
        ComeBack { after, error: self.life().state().failure.map(|failure| failure.error) }
    }

    /// The destination answered 401 to a request with this token. Whether it is worth asking for another one.
    pub(crate) fn refused(&self, serial: Serial) -> bool {
        let again = self.life().refused(serial, self.clock.monotonic());
        self.changes.send_replace(());
        again
    }

    /// What may be shown.
    pub(crate) fn state(&self) -> State {
        self.life().state()
    }
}

/// The token stays out.
impl<T> fmt::Debug for Keeper<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

/// A fetch under way. It ends in any case: one that is torn down ends as failed.
struct Flight<T> {
    keeper: Arc<Keeper<T>>,
    ended: Option<Fetched<T>>,
}

impl<T> Flight<T> {
    async fn fly(mut self, fetch: impl Future<Output = Fetched<T>>) {
        self.ended = Some(fetch.await);
    }
}

impl<T> Drop for Flight<T> {
    fn drop(&mut self) {
        let ended = self.ended.take().unwrap_or(Err(FetchError::Internal));
        self.keeper.life().fetched(self.keeper.clock.monotonic(), ended, dice());
        self.keeper.ended.notify_waiters();
        self.keeper.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::life::Obtained;
    use super::*;

    type Text = &'static str;

    fn keeper() -> Arc<Keeper<Text>> {
        Arc::new(Keeper::new(Clock::system(), watch::Sender::new(())))
    }

    /// A token endpoint that takes `takes`, answers with `answer`, and counts.
    fn obtained(token: Text, lifetime: Duration) -> Fetched<Text> {
        Ok(Obtained { token, lifetime, refresh_after: lifetime - lifetime / 10 })
    }

    const FAILED: FetchError = FetchError::Internal;

    #[derive(Clone)]
    struct Endpoint {
        takes: Duration,
        answer: Fetched<Text>,
        calls: Arc<AtomicU32>,
    }

    impl Endpoint {
        fn new(takes_ms: u64, answer: Fetched<Text>) -> Self {
            Self { takes: Duration::from_millis(takes_ms), answer, calls: Arc::default() }
        }

        fn calls(&self) -> u32 {
            self.calls.load(Ordering::SeqCst)
        }

        fn call(&self) -> impl Future<Output = Fetched<Text>> + Send + 'static {
            let Self { takes, answer, calls } = self.clone();
            async move {
                calls.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(takes).await;
                answer
            }
        }
    }

    async fn lend(keeper: &Arc<Keeper<Text>>, endpoint: &Endpoint) -> Result<Text, ComeBack> {
        keeper.lend(|| endpoint.call()).await.map(|lent| lent.token)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_wait_for_one_fetch() {
        let (keeper, endpoint) = (keeper(), Endpoint::new(500, obtained("a", HOUR)));
        let waiting: Vec<_> = (0..10_000)
            .map(|_| {
                let (keeper, endpoint) = (keeper.clone(), endpoint.clone());
                tokio::spawn(async move { lend(&keeper, &endpoint).await })
            })
            .collect();
        for one in waiting {
            assert_eq!(one.await.unwrap(), Ok("a"));
        }
        assert_eq!(endpoint.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_endpoint_holds_no_places() {
        let (keeper, endpoint) = (keeper(), Endpoint::new(9_000, obtained("a", HOUR)));
        let begun = tokio::time::Instant::now();
        let after = Duration::from_secs(2);
        assert_eq!(lend(&keeper, &endpoint).await, Err(ComeBack { after, error: None }));
        assert_eq!(begun.elapsed(), PATIENCE);
        // Who comes later does not wait at all, and comes back when twice the time is over.
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(lend(&keeper, &endpoint).await, Err(ComeBack { after: Duration::from_secs(3), error: None }));
        assert_eq!(begun.elapsed(), Duration::from_secs(3));
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(lend(&keeper, &endpoint).await, Ok("a"));
        assert_eq!(endpoint.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_endpoint_is_asked_rarely_and_waited_for_no_more() {
        let (keeper, endpoint) = (keeper(), Endpoint::new(1_000, Err(FAILED)));
        let failed = lend(&keeper, &endpoint).await.unwrap_err();
        assert_eq!(failed.error, Some(FAILED));
        assert!((5..=10).contains(&failed.after.as_secs()), "{failed:?}");
        for _ in 0..100 {
            assert!(lend(&keeper, &endpoint).await.is_err());
        }
        assert_eq!(endpoint.calls(), 1);
        tokio::time::sleep(failed.after).await;
        let begun = tokio::time::Instant::now();
        assert_eq!(lend(&keeper, &endpoint).await.unwrap_err().after, COME_BACK, "the next try runs beside");
        assert_eq!(begun.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(endpoint.calls(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_goes_on_when_who_began_it_is_gone() {
        let (keeper, endpoint) = (keeper(), Endpoint::new(500, obtained("a", HOUR)));
        let first = tokio::spawn({
            let (keeper, endpoint) = (keeper.clone(), endpoint.clone());
            async move { lend(&keeper, &endpoint).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        first.abort();
        assert_eq!(lend(&keeper, &endpoint).await, Ok("a"));
        assert_eq!(endpoint.calls(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_panics_has_failed() {
        let keeper = keeper();
        let failed = keeper.lend(|| async { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(failed.error, Some(FetchError::Internal));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refresh_runs_beside_and_tells_that_something_changed() {
        let changes = watch::Sender::new(());
        let mut seen = changes.subscribe();
        let keeper = Arc::new(Keeper::new(Clock::system(), changes));
        let first = Endpoint::new(100, obtained("a", Duration::from_secs(100)));
        assert_eq!(lend(&keeper, &first).await, Ok("a"));
        assert!(seen.has_changed().unwrap());
        seen.mark_unchanged();
        tokio::time::sleep(Duration::from_secs(95)).await;
        let second = Endpoint::new(100, obtained("b", HOUR));
        let begun = tokio::time::Instant::now();
        assert_eq!(lend(&keeper, &second).await, Ok("a"));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        seen.changed().await.unwrap();
        assert_eq!(lend(&keeper, &second).await, Ok("b"));
        assert_eq!((first.calls(), second.calls()), (1, 1));
    }
}
