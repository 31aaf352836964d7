//! What happened to connections, counted for metrics and the status.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::Broker;
use crate::{
    oauth::{
        connect::{Event, Logged, Witness},
        connection::State,
        handle,
        refresh::{Later, Outcome},
    },
    status::ConnectionsStatus,
};

/// What happened since the start.
#[derive(Default)]
pub(crate) struct Counts {
    logged: Logged,
    /// By what came of it.
    refreshes: Mutex<BTreeMap<&'static str, u64>>,
    /// By kind, and what a visitor was turned away for.
    events: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
}

impl Counts {
    pub(super) fn refreshed(&self, outcome: &Outcome) {
        let word = match outcome {
            Outcome::Fresh(_) => "fresh",
            Outcome::Gone | Outcome::Cannot => "gone",
            Outcome::Absent => "absent",
            // Nothing was tried.
            Outcome::Later(Later::Resting(_)) => return,
            Outcome::Later(_) => "failed",
        };
        let mut refreshes = self.refreshes.lock().unwrap_or_else(PoisonError::into_inner);
        *refreshes.entry(word).or_default() += 1;
    }

    /// Refreshes, by what came of them.
    pub(crate) fn refreshes(&self) -> Vec<(&'static str, u64)> {
        let refreshes = self.refreshes.lock().unwrap_or_else(PoisonError::into_inner);
        refreshes.iter().map(|(word, count)| (*word, *count)).collect()
    }

    /// What happened on the way to connections, by kind and code.
    pub(crate) fn events(&self) -> Vec<(&'static str, &'static str, u64)> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().map(|((kind, code), count)| (*kind, *code, *count)).collect()
    }
}

impl Witness for Counts {
    fn saw(&self, event: &Event<'_>) {
        let (kind, code) = match event {
            Event::TicketMade(_) => ("ticket_made", ""),
            Event::TicketOpened(_) => ("ticket_opened", ""),
            Event::TicketUsed(_) => ("ticket_used", ""),
            Event::Connected { renewed: false, .. } => ("connected", ""),
            Event::Connected { renewed: true, .. } => ("renewed", ""),
            Event::Refused(_) => ("refused", ""),
            Event::Failed { failure, .. } => ("failed", failure.code()),
            Event::TurnedAway(visit) => ("turned_away", visit.code()),
            Event::StoreFailed(_) => ("store_failed", ""),
            Event::Imported { .. } => ("imported", ""),
            Event::Disconnected { revocation, .. } => ("ended", revocation.word()),
        };
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        *events.entry((kind, code)).or_default() += 1;
        drop(events);
        self.logged.saw(event);
    }
}

impl Broker {
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many connections there are, as of the last look.
    pub(crate) fn status(&self, now: u64) -> ConnectionsStatus {
        let index = self.index.load();
        let mut status = ConnectionsStatus { open: self.is_open(), ..ConnectionsStatus::default() };
        for one in index.all.values() {
            let is_live = one.state.over(now).is_none();
            let ends = match one.state {
                State::Live { can_refresh: false, ends, .. } => ends,
                _ => None,
            };
            let ending = usize::from(ends.is_some_and(|ends| super::upkeep::ends_soon(ends, now)));
            match (is_live, one.purpose.provider == handle::PROVIDER) {
                (true, false) => {
                    status.live += 1;
                    status.ending += ending;
                }
                (true, true) => {
                    status.kept += 1;
                    status.kept_ending += ending;
                }
                (false, false) => status.gone += 1,
                // Its caller asks for another one; no user has to do anything.
                (false, true) => {}
            }
        }
        status
    }
}
