//! Work that may hang: files on volumes that do not answer.
//!
//! It runs on a thread of its own, and whoever asks waits only for a time. What hangs is not asked again until it has
//! come back, so that it holds one thread and not one more at each attempt. Of one folder's files, which are most likely on
//! one volume, at most [`PER_FOLDER`] are read at the same time; the others wait, and give up when none of them comes back.
//!
//! At most [`AT_ONCE`] threads do it ([`pool`]), however much is asked for. Work that has not ended after [`SOON`] hands its
//! place on and goes on. So a thousand reads of good volumes take sixteen threads. With H folders of which every file
//! hangs, the first good file after them begins at most `H * PER_FOLDER / AT_ONCE` times [`SOON`] later.

mod pool;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout, timeout_at},
};

use self::pool::POOL;

/// How much is at work at the same time.
const AT_ONCE: usize = 16;

/// What has not ended by then is on a slow volume.
const SOON: Duration = Duration::from_millis(500);

/// How many files of one folder are read at the same time. Several, so that one that hangs by itself holds up no other.
const PER_FOLDER: usize = 8;

static TURNS: LazyLock<Mutex<HashMap<String, Arc<Turns>>>> = LazyLock::new(Mutex::default);

/// Those who do work of one name at the same time.
struct Turns {
    free: Arc<Semaphore>,
    /// When one of them came to an end last.
    ended: Mutex<Instant>,
}

/// Held by whoever does the work.
struct Turn {
    turns: Arc<Turns>,
    _permit: OwnedSemaphorePermit,
}

/// What `work` gives; `None` when it takes longer than `patience`, also because what was asked before under the same name
/// still hangs, and when it has panicked. The wait for a place does not count.
pub(crate) async fn in_time<T: Send + 'static>(
    name: String,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let begun = Instant::now();
    let turn = timeout(patience, turn(&turns(name, 1))).await.ok()?;
    in_place(turn, patience.saturating_sub(begun.elapsed()), work).await
}

/// The same for work on a file. The wait for others of its folder does not count either, as long as some of them end.
pub(crate) async fn on_file<T: Send + 'static>(
    file: &Path,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let own = turns(format!("file {}", file.display()), 1);
    let own = timeout(patience, turn(&own)).await.ok()?;
    let folder = turns(format!("folder {}", file.parent().unwrap_or(file).display()), PER_FOLDER);
    let shared = turn_while_some_end(&folder, patience).await?;
    in_place((own, shared), patience, work).await
}

/// Does the work when there is a place, and gives the turns back when it has ended.
async fn in_place<T: Send + 'static>(
    turns: impl Send + 'static,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell_begin, begun) = oneshot::channel();
    let (tell_end, mut ended) = oneshot::channel();
    let asked = POOL.submit(Box::new(move || {
        let _turns = turns;
        // Whoever asked may have gone.
        let _ = tell_begin.send(());
        let _ = tell_end.send(work());
    }));
    begun.await.ok()?;
    let now = Instant::now();
    let until = now + patience;
    if let Ok(done) = timeout_at(until.min(now + SOON), &mut ended).await {
        asked.has_ended();
        return done.ok();
    }
    drop(asked);
    timeout_at(until, ended).await.ok()?.ok()
}

async fn turn(turns: &Arc<Turns>) -> Option<Turn> {
    // It is never closed.
    let permit = turns.free.clone().acquire_owned().await.ok()?;
    Some(Turn { turns: turns.clone(), _permit: permit })
}

/// `None` when for as long as `patience` nobody has come to an end.
async fn turn_while_some_end(turns: &Arc<Turns>, patience: Duration) -> Option<Turn> {
    let mut until = Instant::now() + patience;
    loop {
        if let Ok(turn) = timeout_at(until, turn(turns)).await {
            return turn;
        }
        let later = turns.ended() + patience;
        if later <= until {
            return None;
        }
        until = later;
    }
}

fn turns(name: String, most: usize) -> Arc<Turns> {
    let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(turns) = turns.get(&name) {
        return turns.clone();
    }
    // Those that nobody waits for.
    turns.retain(|_, turns| Arc::strong_count(turns) > 1);
    let new = || Arc::new(Turns { free: Arc::new(Semaphore::new(most)), ended: Mutex::new(Instant::now()) });
    turns.entry(name).or_insert_with(new).clone()
}

impl Turns {
    fn ended(&self) -> Instant {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.turns.ended.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Condvar,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    };

    use tokio::task::JoinSet;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(300);

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

    /// Work that ends when it may, and how much of it there is.
    #[derive(Default)]
    struct Stuck {
        at_work: AtomicUsize,
        most: AtomicUsize,
        may_end: Mutex<bool>,
        changed: Condvar,
    }

    impl Stuck {
        fn work(self: &Arc<Self>) -> impl FnOnce() + Send + 'static {
            let this = self.clone();
            move || {
                let now = this.at_work.fetch_add(1, SeqCst) + 1;
                this.most.fetch_max(now, SeqCst);
                drop(this.changed.wait_while(this.may_end.lock().unwrap(), |may| !*may).unwrap());
                this.at_work.fetch_sub(1, SeqCst);
            }
        }

        fn let_end(&self) {
            *self.may_end.lock().unwrap() = true;
            self.changed.notify_all();
        }
    }

    /// Time stands still while something is at work, so that none of it is slow.
    #[tokio::test(start_paused = true)]
    async fn a_thousand_good_files_take_a_few_threads() {
        let counted = Arc::<Stuck>::default();
        let mut reads = JoinSet::new();
        for number in 0..1000 {
            let work = counted.work();
            // Ten folders.
            let file = format!("/good-{}/{number}", number % 10);
            reads.spawn(async move { on_file(Path::new(&file), PATIENCE, work).await });
        }
        while counted.at_work.load(SeqCst) < AT_ONCE {
            tokio::task::yield_now().await;
        }
        // Whoever else could begin has had every chance to.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        counted.let_end();
        assert!(reads.join_all().await.iter().all(Option::is_some));
        assert_eq!(counted.most.load(SeqCst), AT_ONCE);
    }

    #[tokio::test]
    async fn folders_whose_files_all_hang_hold_a_few_threads_and_no_other_folder_up() {
        let counted = Arc::<Stuck>::default();
        let mut stuck = JoinSet::new();
        // More than there are places.
        for number in 0..300 {
            let work = counted.work();
            let file = format!("/stuck-{}/{number}", number % 3);
            stuck.spawn(async move { on_file(Path::new(&file), SHORT, work).await });
        }
        let good = tokio::spawn(on_file(Path::new("/well/0"), PATIENCE, || 1));
        assert_eq!(good.await.unwrap(), Some(1));
        let gave_up = stuck.join_all().await.iter().all(Option::is_none);
        let next = on_file(Path::new("/stuck-0/new"), SHORT, || 2).await;
        counted.let_end();
        assert!(gave_up && next.is_none(), "nothing of it has come back");
        assert_eq!(counted.most.load(SeqCst), 3 * PER_FOLDER);
        assert_eq!(on_file(Path::new("/stuck-0/new"), PATIENCE, || 3).await, Some(3));
    }

    #[tokio::test]
    async fn one_file_that_hangs_does_not_hold_up_its_folder() {
        // Less than all of the others take together: those who wait see that some end.
        const PATIENCE: Duration = Duration::from_secs(1);
        let counted = Arc::<Stuck>::default();
        let mut reads = JoinSet::new();
        reads.spawn(on_file(Path::new("/mixed/stuck"), PATIENCE, counted.work()));
        for number in 0..400 {
            let file = format!("/mixed/{number}");
            let work = || thread_rests(Duration::from_millis(20));
            reads.spawn(async move { on_file(Path::new(&file), PATIENCE, work).await });
        }
        let done = reads.join_all().await.into_iter().flatten().count();
        counted.let_end();
        assert_eq!(done, 400);
    }

    #[tokio::test]
    async fn whoever_goes_gives_the_place_away() {
        let counted = Arc::<Stuck>::default();
        let mut stuck = JoinSet::new();
        for number in 0..AT_ONCE {
            let (name, work) = (format!("stuck {number}"), counted.work());
            stuck.spawn(async move { in_time(name, PATIENCE, work).await });
        }
        while counted.at_work.load(SeqCst) < AT_ONCE {
            tokio::task::yield_now().await;
        }
        stuck.shutdown().await;
        let good = timeout(PATIENCE, in_time("well".into(), PATIENCE, || 1)).await;
        counted.let_end();
        assert_eq!(good, Ok(Some(1)));
    }

    #[tokio::test]
    async fn a_panic_is_no_answer_and_takes_no_place() {
        for number in 0..2 * AT_ONCE {
            let done = in_time::<()>(format!("panics {number}"), PATIENCE, || panic!("a test")).await;
            assert!(done.is_none());
        }
        assert_eq!(in_time("well".into(), PATIENCE, || 1).await, Some(1));
    }

    fn thread_rests(time: Duration) {
        let (_keep, nobody) = mpsc::channel::<()>();
        let _ = nobody.recv_timeout(time);
    }
}
