//! The jobs that MX runs on a member: one at a time.
//!
//! Starting one answers 202; starting the same kind again while it runs answers 202 as well; another kind 409.
//! A job is finished after a number of status reads, so that tests need no clock.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Members with a job at the same time; beyond it all are forgotten, so that a long run does not grow.
const MEMBERS_MAX: usize = 10_000;

/// The operations that start a job.
const STARTS: [&str; 7] = [
    "aggregateMember",
    "checkBalances",
    "extendHistory",
    "fetchRewards",
    "fetchStatements",
    "identifyMember",
    "verifyMember",
];

/// Jobs by member, where a member is named by the path up to its own segment and by its environment.
pub(super) struct Jobs {
    reads: u32,
    running: Mutex<HashMap<Member, Job>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Member {
    pub(super) environment: usize,
    pub(super) path: String,
}

struct Job {
    kind: &'static str,
    reads_left: u32,
}

impl Jobs {
    pub(super) fn new(reads: u32) -> Self {
        Self { reads, running: Mutex::new(HashMap::new()) }
    }

    /// The kind of job that the operation starts.
    pub(super) fn kind(operation_id: &str) -> Option<&'static str> {
        STARTS.into_iter().find(|&id| id == operation_id)
    }

    /// Whether a job of this kind now runs; not so while one of another kind does.
    pub(super) fn start(&self, member: Member, kind: &'static str) -> bool {
        if self.reads == 0 {
            return true;
        }
        let mut running = self.lock();
        if running.len() >= MEMBERS_MAX {
            running.clear();
        }
        running.entry(member).or_insert(Job { kind, reads_left: self.reads }).kind == kind
    }

    /// Whether a job was running when the status was read. Each read brings it nearer to its end.
    pub(super) fn read_status(&self, member: &Member) -> bool {
        let mut running = self.lock();
        let Some(job) = running.get_mut(member) else { return false };
        if job.reads_left == 0 {
            running.remove(member);
            return false;
        }
        job.reads_left -= 1;
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Member, Job>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &str) -> Member {
        Member { environment: 0, path: path.to_owned() }
    }

    #[test]
    fn a_running_job_keeps_other_kinds_out_until_enough_status_reads() {
        let jobs = Jobs::new(2);
        assert!(jobs.start(member("m"), "aggregateMember"));
        assert!(jobs.start(member("m"), "aggregateMember"), "the same kind is no conflict");
        assert!(!jobs.start(member("m"), "verifyMember"));
        assert!(jobs.start(member("n"), "verifyMember"), "another member has jobs of its own");
        assert!(jobs.read_status(&member("m")) && jobs.read_status(&member("m")));
        assert!(!jobs.start(member("m"), "verifyMember"), "the last read still saw it running");
        assert!(!jobs.read_status(&member("m")));
        assert!(jobs.start(member("m"), "verifyMember"));
    }

    #[test]
    fn with_no_reads_every_job_is_finished_at_once() {
        let jobs = Jobs::new(0);
        assert!(jobs.start(member("m"), "aggregateMember") && jobs.start(member("m"), "verifyMember"));
        assert!(!jobs.read_status(&member("m")));
    }

    #[test]
    fn every_kind_is_an_operation() {
        for id in STARTS {
            assert!(crate::mx::catalogue::catalogue().by_id(id).is_some(), "{id}");
        }
        assert_eq!(Jobs::kind("readMember"), None);
    }
}
