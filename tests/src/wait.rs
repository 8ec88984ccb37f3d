//! Waiting for what must come to pass, with a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// Longest wait for anything: far above what a busy machine needs, and an end to every hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at that nothing announces.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks again and again until `look` gives a value, and panics with `what` after [`PATIENCE`].
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "within {PATIENCE:?} not seen: {what}"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits for `future`, and panics with `what` after [`PATIENCE`].
pub async fn within_patience<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, future).await;
    done.unwrap_or_else(|_| panic!("within {PATIENCE:?} not done: {what}"))
}
