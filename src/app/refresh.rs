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
        let wanted: BTreeMap<_, _> = keeper.documents().into_iter().collect();
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
