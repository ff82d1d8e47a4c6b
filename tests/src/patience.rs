//! Waiting for conditions, never for time.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it. Only a test that fails ever waits this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition that cannot be watched is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits for a future that must end by itself.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("gave up waiting: {what}"),
    }
}

/// Waits until `look` finds something, and returns it.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn eventually<T, F>(what: &str, look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    eventually_within(PATIENCE, what, look).await
}

/// The same, of what may take longer than anything else.
///
/// # Panics
/// After `patience`.
pub async fn eventually_within<T, F>(patience: Duration, what: &str, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < patience, "gave up waiting: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
