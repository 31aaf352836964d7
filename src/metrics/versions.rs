//! Which callers still use what MX leaves behind.
//!
//! In: each request that policy allowed. Out: by caller, how many named no `Accept-Version`, and how many used each
//! operation that MX deprecates. Bounded by the configuration's callers and the catalogue's deprecated operations, and a
//! caller that uses none of it costs nothing but a pointer.
//!
//! A worker writes counters of its own, as in the rest of [`metrics`](super). A reload hands a caller's counters on by
//! its name; one that is gone takes its counts along.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, OnceLock},
};

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

use super::cells::Count;
use crate::{
    mx::catalogue::{Operation, catalogue},
    worker::view::Place,
};

static ACCEPT_VERSION: HeaderName = HeaderName::from_static("accept-version");

/// The operations that MX deprecates; counters are arrays over it.
static DEPRECATED: LazyLock<Vec<&'static Operation>> =
    LazyLock::new(|| catalogue().operations().iter().filter(|one| one.deprecated_in.is_some()).collect());

/// One caller's counters.
#[derive(Debug)]
pub(crate) struct CallerVersions {
    name: Arc<str>,
    /// By worker, made when the first of them has something to count.
    workers: OnceLock<Box<[OnceLock<Box<Counts>>]>>,
}

/// One worker's share. Aligned so that two workers' shares lie on no common cache line.
#[derive(Debug)]
#[repr(align(128))]
struct Counts {
    unversioned: Count,
    /// By place in [`DEPRECATED`].
    deprecated: Vec<Count>,
}

/// What one caller uses of it, since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// The caller's name.
    pub caller: String,
    /// Requests without `Accept-Version`, for which the environment's version was sent.
    pub unversioned: u64,
    /// Operations that MX deprecates, those that were used.
    pub deprecated: Vec<DeprecatedUse>,
}

/// How much a deprecated operation was used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeprecatedUse {
    /// MX's id.
    pub operation: String,
    /// The version since which MX calls it deprecated.
    pub deprecated_in: String,
    /// Requests.
    pub requests: u64,
}

/// One for each of `names`, with the counts that `previous` has for it.
pub(crate) fn of_callers<'n>(
    names: impl Iterator<Item = &'n str>,
    previous: &[Arc<CallerVersions>],
) -> Vec<Arc<CallerVersions>> {
    let known: HashMap<&str, &Arc<CallerVersions>> =
        previous.iter().map(|caller| (&*caller.name, caller)).collect();
    let new = |name: &str| Arc::new(CallerVersions { name: name.into(), workers: OnceLock::new() });
    names.map(|name| known.get(name).map_or_else(|| new(name), |caller| Arc::clone(caller))).collect()
}

impl CallerVersions {
    /// Counts a request of this caller that policy allowed. `place` is the worker's that it is called on.
    pub(crate) fn note(&self, place: &Place, operation: &Operation, headers: &HeaderMap) {
        let is_unversioned = headers.get(&ACCEPT_VERSION).is_none_or(|version| version.is_empty());
        if !is_unversioned && operation.deprecated_in.is_none() {
            return;
        }
        let workers = self.workers.get_or_init(|| (0..place.workers).map(|_| OnceLock::new()).collect());
        let Some(own) = workers.get(place.index) else { return };
        let counts = own.get_or_init(Box::default);
        if is_unversioned {
            counts.unversioned.add(1);
        }
        if operation.deprecated_in.is_some()
            && let Some(at) = DEPRECATED.iter().position(|one| one.index == operation.index)
            && let Some(count) = counts.deprecated.get(at)
        {
            count.add(1);
        }
    }

    /// All workers' counts; `None` when there is nothing to tell.
    pub(super) fn read(&self) -> Option<Use> {
        let shares: Vec<&Counts> =
            self.workers.get()?.iter().filter_map(OnceLock::get).map(Box::as_ref).collect();
        let deprecated = DEPRECATED.iter().enumerate().map(|(at, operation)| DeprecatedUse {
            operation: operation.id.into(),
            deprecated_in: operation.deprecated_in.map_or("", |version| version.as_str()).into(),
            requests: shares.iter().filter_map(|share| share.deprecated.get(at)).map(Count::get).sum(),
        });
        Some(Use {
            caller: self.name.as_ref().into(),
            unversioned: shares.iter().map(|share| share.unversioned.get()).sum(),
            deprecated: deprecated.filter(|used| used.requests > 0).collect(),
        })
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            unversioned: Count::default(),
            deprecated: DEPRECATED.iter().map(|_| Count::default()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use http::HeaderValue;

    use super::*;
    use crate::metrics::Metrics;

    fn note(caller: &CallerVersions, worker: usize, id: &str, version: Option<&'static str>) {
        let (_, mut metrics) = Metrics::new(1, ["x"], Arc::default());
        let place = Place { index: worker, workers: 2, metrics: Rc::new(metrics.pop().unwrap()) };
        let mut headers = HeaderMap::new();
        if let Some(version) = version {
            headers.insert(&ACCEPT_VERSION, HeaderValue::from_static(version));
        }
        caller.note(&place, catalogue().by_id(id).unwrap(), &headers);
    }

    #[test]
    fn what_is_left_behind_is_counted_and_the_rest_is_not() {
        let callers = of_callers(["old", "new"].into_iter(), &[]);
        note(&callers[1], 0, "listUsers", Some("v20250224"));
        assert_eq!(callers[1].read(), None);
        note(&callers[0], 0, "listUsers", None);
        note(&callers[0], 1, "listUsers", Some(""));
        note(&callers[0], 1, "listManagedMembers", Some("v20250224"));
        note(&callers[0], 0, "listManagedMembers", None);
        let used = callers[0].read().unwrap();
        assert_eq!((used.caller.as_str(), used.unversioned), ("old", 3));
        let deprecated = DeprecatedUse {
            operation: "listManagedMembers".into(),
            deprecated_in: "v20250224".into(),
            requests: 2,
        };
        assert_eq!(used.deprecated, [deprecated]);
        note(&callers[0], 7, "listUsers", None);
        assert_eq!(callers[0].read().unwrap().unversioned, 3, "there is no eighth worker");
    }

    #[test]
    fn a_caller_keeps_its_counts_over_a_reload_by_its_name() {
        let before = of_callers(["a", "b"].into_iter(), &[]);
        note(&before[0], 0, "listUsers", None);
        let after = of_callers(["c", "a"].into_iter(), &before);
        assert_eq!(after[1].read().unwrap().unversioned, 1);
        assert_eq!(after[0].read(), None);
    }
}
