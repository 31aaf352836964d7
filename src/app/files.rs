//! Changed files, debounced.
//!
//! Directories are watched, not files: an editor's rename, Kubernetes' `..data` swap and a file that
//! appears late are all events of the directory.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

/// Events within this time of each other are one change.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// A file that never stops changing is taken up all the same after this many quiet times.
const DEBOUNCES_MAX: usize = 10;

/// Tells when one of the watched files may have changed.
pub(super) struct Changes {
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    files: Arc<Mutex<BTreeSet<PathBuf>>>,
    changed: Arc<Notify>,
}

impl Changes {
    pub(super) fn new() -> Self {
        let files: Arc<Mutex<BTreeSet<PathBuf>>> = Arc::default();
        let changed = Arc::new(Notify::new());
        let (seen, tell) = (files.clone(), changed.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            let files = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if event.is_ok_and(|event| concerns(&event, &files)) {
                tell.notify_one();
            }
        })
        .inspect_err(|error| tracing::warn!(%error, "files are not watched; reload with SIGHUP"))
        .ok();
        Self { watcher, directories: BTreeSet::new(), files, changed }
    }

    /// From now on these files, and no others.
    pub(super) fn watch(&mut self, files: &BTreeSet<PathBuf>) {
        let wanted: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.parent()).map(absolute).collect();
        if let Some(watcher) = &mut self.watcher {
            for gone in self.directories.difference(&wanted) {
                // It may have been removed, and its watch with it.
                let _ = watcher.unwatch(gone);
            }
            for new in wanted.difference(&self.directories) {
                if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                    tracing::warn!(directory = %new.display(), %error, "not watched");
                }
            }
        }
        self.directories = wanted;
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) =
            files.iter().map(|file| absolute(file)).collect();
    }

    /// Ends when something has changed and been quiet for a moment.
    pub(super) async fn next(&self) {
        self.changed.notified().await;
        for _ in 0..DEBOUNCES_MAX {
            if timeout(DEBOUNCE, self.changed.notified()).await.is_err() {
                return;
            }
        }
        sleep(DEBOUNCE).await;
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn concerns(event: &Event, files: &BTreeSet<PathBuf>) -> bool {
    let is_change = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    };
    // Kubernetes swaps the symlink `..data` beside the files.
    let is_swap =
        |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
    is_change && event.paths.iter().any(|path| files.contains(path) || is_swap(path))
}
