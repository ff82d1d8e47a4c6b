//! Work that takes long without waiting for anything, done where it holds up nobody else.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Bytes that are read, and text made of them, within a millisecond or two.
pub const QUICK_BYTES: usize = 128 * 1024;
/// Steps of all templates of a request that are done within a few milliseconds, whatever they do: `tests/bench/language.rs`
/// measures the longest. No other task waits for more than 10 ms.
pub const QUICK_STEPS: usize = 500;

/// Gives the other tasks of this runtime worker to another one, and does `work` here.
pub(crate) fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // One thread for all: there is nobody to give them to.
        _ => work(),
    }
}
