//! Work that may hang: files on volumes that do not answer.
//!
//! It runs on a thread of its own, and whoever asks waits only for a time. What hangs is not asked again until it has
//! come back, so that it holds one thread and not one more at each attempt.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};

/// Held by whoever does the work of that name.
type Turn = Arc<tokio::sync::Mutex<()>>;

static TURNS: LazyLock<Mutex<HashMap<String, Turn>>> = LazyLock::new(Mutex::default);

/// What `work` gives; `None` when it takes longer than `patience`, also because what was asked before under the same name
/// still hangs, and when it has panicked.
pub(crate) async fn in_time<T: Send + 'static>(
    name: String,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let turn = turn(name);
    let done = async {
        let turn = turn.lock_owned().await;
        let work = move || {
            let _turn = turn;
            work()
        };
        spawn_blocking(work).await.ok()
    };
    timeout(patience, done).await.ok()?
}

fn turn(name: String) -> Turn {
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(turn) = turns.get(&name) {
        return turn.clone();
    }
    // Those that nobody waits for.
    turns.retain(|_, turn| Arc::strong_count(turn) > 1);
    turns.entry(name).or_default().clone()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_hangs_is_not_asked_again_and_holds_up_nothing_else() {
        let (go, wait) = mpsc::channel::<()>();
        let hang = move || wait.recv().is_err();
        assert_eq!(in_time("hangs".into(), Duration::from_millis(10), hang).await, None);
        assert_eq!(in_time("hangs".into(), Duration::from_millis(10), || 1).await, None);
        assert_eq!(in_time("other".into(), PATIENCE, || 2).await, Some(2));
        let next = tokio::spawn(in_time("hangs".into(), PATIENCE, || 3));
        drop(go);
        assert_eq!(next.await.unwrap(), Some(3), "it has come back");
    }
}
