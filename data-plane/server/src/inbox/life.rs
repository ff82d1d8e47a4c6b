//! Whether a backend works, and why not.

use tokio::sync::watch;

/// Whether it works. Gone without having ended one way or the other means that it panicked.
#[derive(Clone, Debug)]
pub(super) enum Life {
    Working,
    Closed,
    /// Why, for the log.
    Failed(String),
}

/// Resolves with the reason when it failed, and never otherwise.
pub(super) async fn failed(mut life: watch::Receiver<Life>) -> String {
    loop {
        match &*life.borrow_and_update() {
            Life::Failed(reason) => return reason.clone(),
            Life::Closed => break,
            Life::Working => {}
        }
        if life.changed().await.is_err() {
            return match &*life.borrow() {
                Life::Failed(reason) => reason.clone(),
                Life::Closed => break,
                Life::Working => "a part of the inbox panicked".to_owned(),
            };
        }
    }
    std::future::pending().await
}
