//! Secrets that are read again, between loads and in them: all that is on this machine as of one moment.

use std::sync::Arc;

use super::{super::files::Stamps, Cause, Loader};

impl Loader {
    /// Whether the load that went on meanwhile has done what this one was to do.
    pub(super) async fn is_done(&self, cause: Cause) -> bool {
        match cause {
            Cause::File => {
                let mut read = self.stamps();
                !read.again().await
            }
            Cause::Secret => {
                let state = self.state();
                let gathered = self.keeper.gathered(&state.config);
                // Not when the last load failed: it may have lacked what was found.
                let used = self.snapshot.load();
                let in_use = used.as_ref().is_some_and(|used| !used.is_outdated(&state.config, &gathered));
                in_use && state.fault.is_none()
            }
            Cause::Start | Cause::NotReady | Cause::Hangup | Cause::ControlSocket => false,
        }
    }

    /// Secrets were found that may be others than those in use.
    pub(in crate::app) async fn renew(self: &Arc<Self>) {
        // Its outcome is in the log, the metric and the status.
        let _ = self.reload(Cause::Secret).await;
    }

    /// Reads files and the embedded vault though they look unchanged.
    pub(in crate::app) async fn look_again(self: &Arc<Self>) {
        let mut stamps = Stamps::default();
        if self.look(&mut stamps).await {
            self.renew().await;
        }
    }

    /// Reads the secrets that are in files as of one moment, and leaves what the files looked like before.
    pub(super) async fn look(&self, stamps: &mut Stamps) -> bool {
        const READS_MAX: usize = 5;
        let files = self.keeper.files();
        let mut before = stamps.only(&files);
        before.add(files).await;
        let mut look = self.keeper.look().await;
        for _ in 0..READS_MAX {
            look.read().await;
            if !before.again().await {
                break;
            }
        }
        let changed = look.take_in();
        stamps.extend(before);
        changed
    }
}
