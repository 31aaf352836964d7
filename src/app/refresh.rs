//! Secrets are kept fresh while the gateway serves.
//!
//! Each document of a server or a command is read by a task of its own, at its source's interval, and sooner after a
//! failure. So one that hangs holds up itself only, and a reload in between breaks nothing off. Files and the embedded
//! vault are noticed when they look different (`files.rs`); here they are read now and then although they do not.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{interval, sleep},
};

use super::loader::Loader;
use crate::tree::tree;
use crate::vault::{
    keeper::Keeper,
    reference::DocumentAt,
    source::{Reason, Source},
};

/// How soon a document is tried again after a failure; twice as late after each further one, up to its interval.
const RETRY: Duration = Duration::from_secs(1);

/// How late the log may be with the end of a grace.
const TELL: Duration = Duration::from_secs(1);

/// Goes on until it is dropped.
pub(super) async fn run(loader: Arc<Loader>) {
    let keeper = loader.keeper();
    tokio::join!(
        keep_all(&keeper),
        renew(&loader, &keeper),
        look_again(&loader, &keeper),
        tell_ends(&keeper)
    );
}

/// A document's task. Dropped, it ends, and so does what it waits for.
struct Task {
    source: Arc<dyn Source>,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// One task for each document.
async fn keep_all(keeper: &Arc<Keeper>) {
    let mut documents = keeper.watch_documents();
    let mut tasks = BTreeMap::<DocumentAt, Task>::new();
    loop {
        documents.mark_unchanged();
        let wanted: BTreeMap<_, _> = tree(keeper.documents());
        tasks.retain(|document, task| wanted.get(document).is_some_and(|one| Arc::ptr_eq(one, &task.source)));
        for (document, source) in wanted {
            tasks.entry(document).or_insert_with_key(|document| Task {
                handle: tokio::spawn(keep(keeper.clone(), document.clone(), source.clone())),
                source,
            });
        }
        // The keeper lives as long as this.
        if documents.changed().await.is_err() {
            return;
        }
    }
}

async fn keep(keeper: Arc<Keeper>, document: DocumentAt, source: Arc<dyn Source>) {
    let mut failures: u32 = 0;
    loop {
        let interval = match keeper.read(&document, &*source).await {
            Ok(()) | Err(Reason::Absent) => {
                failures = 0;
                keeper.interval(&document)
            }
            Err(_) => {
                let wait = RETRY.saturating_mul(1 << failures.min(12));
                failures = failures.saturating_add(1);
                keeper.interval(&document).min(wait)
            }
        };
        sleep(interval).await;
    }
}

async fn renew(loader: &Arc<Loader>, keeper: &Keeper) {
    let mut changes = keeper.watch_changes();
    while changes.changed().await.is_ok() {
        loader.renew().await;
    }
}

async fn look_again(loader: &Arc<Loader>, keeper: &Keeper) {
    let mut documents = keeper.watch_documents();
    loop {
        tokio::select! {
            () = sleep(keeper.local_interval()) => loader.look_again().await,
            // Another interval, perhaps.
            _ = documents.changed() => {}
        }
    }
}

async fn tell_ends(keeper: &Keeper) {
    let mut ticks = interval(TELL);
    loop {
        ticks.tick().await;
        keeper.tell_ends();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    use tokio::time::{Instant, sleep_until};
    use zeroize::Zeroizing;

    use super::*;
    use crate::{
        config::Config,
        vault::{
            Resolved,
            keeper::tests::{config, document, paused},
            source::{Document, Error, Reading},
        },
    };

    const INTERVAL: Duration = Duration::from_secs(10);
    const GRACE: Duration = Duration::from_secs(60);
    const MS: Duration = Duration::from_millis(1);
    const KEYS: &str = "refresh_ms = 10000\ngrace_ms = 60000";

    /// What a source says.
    #[derive(Debug, Clone, Copy)]
    enum Says {
        Value(&'static str),
        Absent,
        Fails,
        Nothing,
    }

    #[derive(Debug)]
    struct Fake {
        says: Mutex<Says>,
        asked: AtomicU32,
    }

    impl Fake {
        fn new(says: Says) -> Arc<Self> {
            Arc::new(Self { says: Mutex::new(says), asked: AtomicU32::new(0) })
        }

        fn say(&self, says: Says) {
            *self.says.lock().unwrap() = says;
        }
    }

    impl Source for Fake {
        fn read<'a>(&'a self, _: &'a str) -> Reading<'a, Document> {
            Box::pin(async {
                self.asked.fetch_add(1, Relaxed);
                let says = *self.says.lock().unwrap();
                match says {
                    Says::Value(text) => {
                        Ok(Document { bytes: Zeroizing::new(text.into()), version: None, written: None })
                    }
                    Says::Absent => Err(Error::Absent),
                    Says::Fails => Err(Error::unreachable(Reason::Unreachable, "it is down")),
                    Says::Nothing => std::future::pending().await,
                }
            })
        }
    }

    struct Kept {
        keeper: Arc<Keeper>,
        config: Config,
        begun: Instant,
    }

    impl Kept {
        fn new() -> Self {
            let keeper = Arc::new(Keeper::with_clock(paused));
            let config = config("/bin/one", KEYS);
            keeper.adopt(&config);
            Self { keeper, config, begun: Instant::now() }
        }

        async fn keep(&self, place: &str, source: &Arc<Fake>) {
            tokio::spawn(keep(self.keeper.clone(), document(place), source.clone()));
            tokio::task::yield_now().await;
        }

        fn found(&self, place: &str) -> Option<Resolved> {
            let reference = format!("exec:{place}").parse().unwrap();
            self.keeper.gathered(&self.config).resolve(&reference).ok()
        }

        fn usable(&self, place: &str) -> bool {
            self.found(place).is_some_and(|found| !found.deadline.has_passed(paused))
        }

        /// Goes on until so long after the start.
        async fn at(&self, after: Duration) {
            sleep_until(self.begun + after).await;
            // Whoever wakes at the same time is done first.
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_down_is_asked_soon_and_its_secret_ends_with_its_grace_to_the_millisecond() {
        let (kept, source) = (Kept::new(), Fake::new(Says::Value("k3y-number-1")));
        kept.keep("key", &source).await;
        let deadline = kept.found("key").unwrap().deadline;
        kept.at(INTERVAL + MS).await;
        assert_eq!(source.asked.load(Relaxed), 2, "once at first, and once an interval");
        source.say(Says::Fails);
        kept.at(2 * INTERVAL).await;
        let asked = source.asked.load(Relaxed);
        assert_eq!(asked, 3);
        // After 1, 2, 4 and 8 seconds, then at its interval.
        kept.at(2 * INTERVAL + Duration::from_secs(15)).await;
        assert_eq!(source.asked.load(Relaxed), asked + 4);
        kept.at(2 * INTERVAL + Duration::from_secs(25)).await;
        assert_eq!(source.asked.load(Relaxed), asked + 5);
        // It was last confirmed after one interval.
        kept.at(INTERVAL + GRACE - MS).await;
        assert!(kept.usable("key"));
        kept.at(INTERVAL + GRACE).await;
        assert!(!kept.usable("key"));
        source.say(Says::Value("k3y-number-1"));
        kept.at(INTERVAL + GRACE + INTERVAL).await;
        assert!(kept.usable("key"), "it recovers by itself");
        assert!(Arc::ptr_eq(&deadline, &kept.found("key").unwrap().deadline), "and no snapshot is needed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoked_secret_is_not_used_one_millisecond_longer() {
        let (kept, source) = (Kept::new(), Fake::new(Says::Value("k3y-number-1")));
        kept.keep("key", &source).await;
        source.say(Says::Absent);
        kept.at(INTERVAL - MS).await;
        assert!(kept.usable("key"), "nobody knows yet");
        kept.at(INTERVAL).await;
        assert!(!kept.usable("key"));
        let mut changes = kept.keeper.watch_changes();
        source.say(Says::Value("k3y-number-2"));
        kept.at(2 * INTERVAL).await;
        assert!(kept.usable("key") && changes.has_changed().unwrap());
        changes.mark_unchanged();
        kept.at(4 * INTERVAL).await;
        assert!(!changes.has_changed().unwrap(), "what is confirmed is no change");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_hangs_holds_up_no_other_and_its_secret_ends_all_the_same() {
        let kept = Kept::new();
        let (stuck, other) = (Fake::new(Says::Value("k3y-number-1")), Fake::new(Says::Value("k3y-number-2")));
        kept.keep("key", &stuck).await;
        kept.keep("other", &other).await;
        stuck.say(Says::Nothing);
        kept.at(GRACE - MS).await;
        assert!(kept.usable("key") && kept.usable("other"));
        kept.at(GRACE).await;
        assert!(!kept.usable("key") && kept.usable("other"));
        assert_eq!((stuck.asked.load(Relaxed), other.asked.load(Relaxed)), (2, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_waits_for_the_first_answer_only_and_only_for_a_time() {
        let kept = Kept::new();
        let (source, stuck) = (Fake::new(Says::Value("k3y-number-1")), Fake::new(Says::Nothing));
        kept.keep("key", &source).await;
        kept.keep("other", &stuck).await;
        kept.keeper.attempted(GRACE).await;
        assert_eq!(kept.begun.elapsed(), GRACE);
        assert!(kept.found("other").is_none() && kept.found("key").is_some());
    }
}
