//! The threads that do work which may hang.
//!
//! In: pieces of work, from any event loop. They are done in their order by at most [`AT_ONCE`] runners, each a blocking task
//! of tokio's that does one piece after the other, and stays for a moment after the last. (One blocking task for each piece
//! would have more threads: tokio starts another one whenever a piece comes before the thread of the last is idle.)
//! What must never happen: work that hangs keeps its place for good, also when whoever asked has gone.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::runtime::Handle;

use super::AT_ONCE;

/// How long a runner waits for more.
const LINGER: Duration = Duration::from_millis(50);

pub(super) static POOL: Pool = Pool { state: Mutex::new(State::new()), more: Condvar::new() };

type Work = Box<dyn FnOnce() + Send>;

pub(super) struct Pool {
    state: Mutex<State>,
    /// Something was asked for.
    more: Condvar,
}

struct State {
    last: u64,
    queue: VecDeque<(u64, Work)>,
    /// What runners are at, but for what has handed its place on.
    at_work: BTreeSet<u64>,
    /// Those that have a place.
    runners: usize,
    /// Those of them that wait.
    idle: usize,
}

/// Something that was asked for. Dropped before it has ended, it gives its place away.
pub(super) struct Asked(u64);

/// A runner's place, which is free again when this is dropped: tokio drops what it has not begun when it ends.
struct Place;

impl State {
    const fn new() -> Self {
        Self { last: 0, queue: VecDeque::new(), at_work: BTreeSet::new(), runners: 0, idle: 0 }
    }

    /// Starts another runner, if there is need of one and a place.
    fn serve_queue(&mut self) {
        // Without an event loop, whoever asks next starts it.
        if self.queue.len() > self.idle
            && self.runners < AT_ONCE
            && let Ok(runtime) = Handle::try_current()
        {
            self.runners += 1;
            let place = Place;
            runtime.spawn_blocking(move || POOL.run(place));
        }
    }
}

impl Pool {
    pub(super) fn submit(&self, work: Work) -> Asked {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.queue.push_back((number, work));
        state.serve_queue();
        drop(state);
        self.more.notify_one();
        Asked(number)
    }

    fn run(&self, place: Place) {
        let mut state = self.lock();
        loop {
            if let Some((number, work)) = state.queue.pop_front() {
                state.at_work.insert(number);
                drop(state);
                // Who asked is told by what it drops.
                let _ = catch_unwind(AssertUnwindSafe(work));
                state = self.lock();
                if !state.at_work.remove(&number) {
                    // Its place was handed on.
                    mem::forget(place);
                    return;
                }
                continue;
            }
            state.idle += 1;
            let waited = self.more.wait_timeout(state, LINGER);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                // Under the lock: nobody may count on a runner that has stopped to look.
                state.runners -= 1;
                mem::forget(place);
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// Its runner goes on with something else.
    pub(super) fn has_ended(self) {
        mem::forget(self);
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = POOL.lock();
        let waiting = state.queue.iter().position(|(number, _)| *number == self.0);
        let unwanted = waiting.and_then(|at| state.queue.remove(at));
        if state.at_work.remove(&self.0) {
            state.runners -= 1;
            state.serve_queue();
        }
        drop(state);
        // What it holds may ask for something itself.
        drop(unwanted);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        POOL.lock().runners -= 1;
    }
}
