//! A request that waits in the stand-in until it is let on, so that a test can look at, or end, whoever sent it.
//!
//! In go the operation and whether the request waits before its deed or after it, its answer unsent; out comes a
//! [`Held`]. A client that leaves meanwhile takes a request along that waits before its deed: it is never done.

use std::{
    sync::{Mutex, PoisonError, mpsc},
    time::Duration,
};

use tokio::sync::watch;

/// Where a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// It was read, and nothing was done.
    Before,
    /// It was done, and nothing was answered.
    After,
}

/// One request that waits, or is to.
#[derive(Debug)]
pub struct Held {
    reached: mpsc::Receiver<()>,
    /// Dropped, it lets the request on.
    _go_on: watch::Sender<()>,
}

impl Held {
    /// Waits until the request has come to its point, at most so long; whether it has. It blocks its thread, and says so
    /// once.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        self.reached.recv_timeout(patience).is_ok()
    }
}

/// What is to wait.
#[derive(Default)]
pub(super) struct Holds(Mutex<Vec<Hold>>);

struct Hold {
    operation: String,
    point: Point,
    /// Requests that pass before.
    passing: usize,
    reached: mpsc::SyncSender<()>,
    go_on: watch::Receiver<()>,
}

impl Holds {
    pub(super) fn add(&self, operation: &str, point: Point, passing: usize) -> Held {
        let (reached, is_reached) = mpsc::sync_channel(1);
        let (go_on, waits) = watch::channel(());
        let hold = Hold { operation: operation.to_owned(), point, passing, reached, go_on: waits };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(hold);
        Held { reached: is_reached, _go_on: go_on }
    }

    /// Waits, if a request for `operation` is to.
    pub(super) async fn wait(&self, operation: Option<&str>, point: Point) {
        if let Some(mut hold) = self.take(operation, point) {
            // Nobody may be interested any more.
            let _ = hold.reached.try_send(());
            // It ends when the other end is dropped.
            while hold.go_on.changed().await.is_ok() {}
        }
    }

    fn take(&self, operation: Option<&str>, point: Point) -> Option<Hold> {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |hold: &&mut Hold| hold.point == point && Some(hold.operation.as_str()) == operation;
        let mut due = None;
        for (at, hold) in holds.iter_mut().enumerate() {
            if !fits(&hold) {
                continue;
            }
            match hold.passing {
                0 => due = due.or(Some(at)),
                _ => hold.passing -= 1,
            }
        }
        due.map(|at| holds.remove(at))
    }
}
