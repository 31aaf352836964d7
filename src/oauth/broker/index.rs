//! Which connections there are, without their tokens: by user, and for whoever asks for a list.

use std::collections::HashMap;

use crate::oauth::connection::{ConnectionId, Summary};

/// All connections of a store, as of one look.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) all: HashMap<ConnectionId, Summary>,
    /// By environment and user, the newest first, and those that are gone last.
    by_user: HashMap<(String, String), Vec<ConnectionId>>,
}

impl Index {
    pub(super) fn new(all: Vec<Summary>, now: u64) -> Self {
        let mut by_user: HashMap<_, Vec<&Summary>> = HashMap::new();
        for one in &all {
            if let Some(user) = &one.purpose.user_guid {
                by_user.entry((one.purpose.environment.clone(), user.clone())).or_default().push(one);
            }
        }
        let by_user = by_user.into_iter().map(|(user, mut connections)| {
            let is_gone = |one: &Summary| one.state.over(now).is_some();
            connections.sort_by_key(|one| (is_gone(one), std::cmp::Reverse(one.created), one.id));
            (user, connections.into_iter().map(|one| one.id).collect())
        });
        let by_user = by_user.collect();
        Self { by_user, all: all.into_iter().map(|one| (one.id, one)).collect() }
    }

    /// The newest first, and those that are gone last.
    pub(super) fn of_user(&self, environment: &str, user: &str) -> Vec<Summary> {
        let found = self.by_user.get(&(environment.to_owned(), user.to_owned()));
        found.into_iter().flatten().filter_map(|id| self.all.get(id)).cloned().collect()
    }
}
