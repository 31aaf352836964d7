//! Changed files, found by looking.
//!
//! In: the files that a load reads, with what they looked like before it read them ([`Stamps`]). Out: the moment
//! when one of them looks different ([`changed`]), debounced.
//! A look costs microseconds and sees what the kernel's notifications do not: a symbolic link that is swapped
//! anywhere on the path (Kubernetes' `..data`), a directory that is replaced or appears later, a network volume.
//! What must never happen: a change between reading a file and waiting for its next one is missed, which is why
//! stamps are taken first; the event loop that accepts connections waits for a disk; a volume that hangs keeps a change
//! elsewhere from being seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{task::JoinSet, time::sleep};

use crate::blocking::in_time;

/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What has not changed for this long is taken up: writers are done, and several files change together.
const QUIET: Duration = Duration::from_millis(200);

/// A file that never stops changing is taken up all the same after this many quiet times.
const QUIETS_MAX: usize = 10;

/// How long a folder may take. One that takes longer looks as it did before.
const PATIENCE: Duration = Duration::from_secs(2);

/// What files looked like at one moment, by the folder they are in; `None` for one that was not there.
#[derive(Debug, Clone, Default)]
pub(super) struct Stamps(BTreeMap<PathBuf, Arc<Files>>);

type Files = BTreeMap<PathBuf, Option<Stamp>>;

/// Tells one content at a path from another: a write changes the times, a rename or a swapped link the inode, `chmod`
/// the time of the last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamps {
    /// Looks at `files`, except those that were looked at before.
    pub(super) async fn add(&mut self, files: BTreeSet<PathBuf>) {
        let mut fresh = Self::default();
        for file in files.into_iter().filter(|file| self.of(file).is_none()) {
            fresh.insert(file, None);
        }
        fresh.again().await;
        self.extend(fresh);
    }

    /// The same files, and what the others' looked like in `later`.
    pub(super) fn extend(&mut self, later: Self) {
        for (folder, files) in later.0 {
            Arc::make_mut(self.0.entry(folder).or_default()).extend(Arc::unwrap_or_clone(files));
        }
    }

    /// What those of `files` looked like that were looked at.
    pub(super) fn only(&self, files: &BTreeSet<PathBuf>) -> Self {
        let mut only = Self::default();
        for file in files {
            if let Some(stamp) = self.of(file) {
                only.insert(file.clone(), stamp);
            }
        }
        only
    }

    fn of(&self, file: &Path) -> Option<Option<Stamp>> {
        self.0.get(folder(file))?.get(file).copied()
    }

    fn insert(&mut self, file: PathBuf, stamp: Option<Stamp>) {
        Arc::make_mut(self.0.entry(folder(&file).to_owned()).or_default()).insert(file, stamp);
    }

    /// Looks at the same files again, and tells whether one of them looks different. Each folder on a thread of its own,
    /// since a volume that hangs must hold up nothing else. Thousands of files are looked at twice a second: while they look
    /// the same, no path is copied or compared with another.
    pub(super) async fn again(&mut self) -> bool {
        let mut looks = JoinSet::new();
        for (place, (folder, files)) in self.0.iter().enumerate() {
            let (name, files) = (format!("stamps of {}", folder.display()), files.clone());
            looks.spawn(in_time(name, PATIENCE, move || Some((place, different(&files)?))));
        }
        let mut is_changed = false;
        for (place, now) in looks.join_all().await.into_iter().flatten().flatten() {
            if let Some(files) = self.0.values_mut().nth(place) {
                *files = Arc::new(now);
                is_changed = true;
            }
        }
        is_changed
    }
}

/// A path without a parent is its own folder.
fn folder(file: &Path) -> &Path {
    file.parent().unwrap_or(file)
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = path.metadata().ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// The same files now, if one of them looks different.
fn different(files: &Files) -> Option<Files> {
    let now: Vec<_> = files.keys().map(|file| Stamp::of(file)).collect();
    if files.values().eq(&now) {
        return None;
    }
    let mut files = files.clone();
    files.values_mut().zip(now).for_each(|(stamp, now)| *stamp = now);
    Some(files)
}

/// Ends when one of the files differs from `stamps` and all have been quiet for a moment.
pub(super) async fn changed(mut stamps: Stamps) {
    while !stamps.again().await {
        sleep(LOOK).await;
    }
    for _ in 0..QUIETS_MAX {
        sleep(QUIET).await;
        if !stamps.again().await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    /// A folder, a file's path in it, and the stamps of that file before `change`.
    async fn stamps(folder: &TempDir, file: &str) -> Stamps {
        let mut stamps = Stamps::default();
        stamps.add(BTreeSet::from([folder.path().join(file)])).await;
        stamps
    }

    async fn is_seen(stamps: Stamps) -> bool {
        timeout(Duration::from_secs(5), changed(stamps)).await.is_ok()
    }

    /// Whether a change of `folder` is seen by somebody who read `file` before it.
    async fn sees(file: &str, prepare: impl FnOnce(&Path), change: impl FnOnce(&Path)) -> bool {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let mut before = stamps(&folder, file).await;
        change(folder.path());
        let seen = before.again().await;
        assert!(!before.again().await, "seen twice");
        seen
    }

    #[tokio::test]
    async fn whatever_changes_what_a_path_leads_to_is_seen() {
        let write = |at: &Path| fs::write(at.join("key"), "one").unwrap();
        assert!(sees("key", write, |at| fs::write(at.join("key"), "longer").unwrap()).await);
        assert!(sees("key", write, |at| fs::remove_file(at.join("key")).unwrap()).await);
        let chmod =
            |at: &Path| fs::set_permissions(at.join("key"), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(sees("key", write, chmod).await);
        let rename = |at: &Path| {
            fs::write(at.join("new"), "two").unwrap();
            fs::rename(at.join("new"), at.join("key")).unwrap();
        };
        assert!(sees("key", write, rename).await);
        let appear = |at: &Path| {
            fs::create_dir_all(at.join("a/b")).unwrap();
            fs::write(at.join("a/b/key"), "one").unwrap();
        };
        assert!(sees("a/b/key", |_| (), appear).await);
        let replace_folder = |at: &Path| {
            fs::rename(at.join("a"), at.join("old")).unwrap();
            appear(at);
        };
        assert!(sees("a/b/key", appear, replace_folder).await);
        let releases = |at: &Path| {
            for release in ["1", "2"] {
                fs::create_dir(at.join(release)).unwrap();
                fs::write(at.join(release).join("key"), release).unwrap();
            }
            symlink("1", at.join("current")).unwrap();
        };
        let swap = |at: &Path| {
            symlink("2", at.join("next")).unwrap();
            fs::rename(at.join("next"), at.join("current")).unwrap();
        };
        assert!(sees("current/key", releases, swap).await);
    }

    #[tokio::test]
    async fn what_happens_beside_a_file_is_not_seen() {
        let write = |at: &Path| fs::write(at.join("key"), "one").unwrap();
        assert!(!sees("key", write, |at| fs::write(at.join("key.generation"), "2").unwrap()).await);
        assert!(!sees("key", write, |at| drop(fs::read(at.join("key")).unwrap())).await);
        assert!(!sees("key", |_| (), |at| fs::write(at.join("other"), "2").unwrap()).await);
    }

    #[tokio::test]
    async fn the_first_stamp_of_a_file_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut stamps = stamps(&folder, "key").await;
        fs::write(folder.path().join("key"), "one").unwrap();
        stamps.add(BTreeSet::from([folder.path().join("key")])).await;
        assert!(is_seen(stamps).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_never_rests_is_taken_up_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "").unwrap();
        let stamps = stamps(&folder, "key").await;
        let restless = async {
            let mut text = String::new();
            loop {
                text.push('x');
                fs::write(&path, &text).unwrap();
                sleep(QUIET / 2).await;
            }
        };
        tokio::select! {
            never = restless => never,
            seen = is_seen(stamps) => assert!(seen),
        }
    }
}
