//! Who may change a connection, as a store keeps it. Pure: no clock, no input, no output.
//!
//! In: what is kept, who asks, and the time. Out: what is to be kept, or who has it.
//!
//! What must never happen: a fence is given twice; a lease that was taken over, or given back, counts.

use serde::{Deserialize, Serialize};

use super::Holder;

/// What is kept of one connection's leases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Row {
    /// Of the last lease; rises with each.
    pub(super) fence: u64,
    /// Who has it; `None`: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) held: Option<Held>,
}

/// A lease that was neither given back nor taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    owner: String,
    until: u64,
    /// Which opening of the store it was given in. Nobody of an earlier one is alive.
    opening: u64,
}

impl Held {
    fn holder(&self) -> Holder {
        Holder { owner: self.owner.clone(), until: self.until }
    }
}

/// What [`Row::take`] makes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// To be kept; and who had it before.
    Row(Row, Option<Holder>),
    /// Somebody has it.
    Held(Holder),
}

impl Row {
    /// A lease for `owner` from `now` to `until`.
    pub(super) fn take(&self, owner: &str, now: u64, until: u64, opening: u64) -> Take {
        match &self.held {
            Some(held) if held.opening == opening && now < held.until => Take::Held(held.holder()),
            before => {
                let held = Held { owner: owner.to_owned(), until, opening };
                let row = Self { fence: self.fence.saturating_add(1), held: Some(held) };
                Take::Row(row, before.as_ref().map(Held::holder))
            }
        }
    }

    /// Whether the lease of this fence may still write.
    pub(super) fn is_of(&self, fence: u64) -> bool {
        self.fence == fence && self.held.is_some()
    }

    /// With another end.
    pub(super) fn renewed(&self, until: u64, opening: u64) -> Self {
        Self { held: self.held.clone().map(|held| Held { until, opening, ..held }), ..self.clone() }
    }

    /// Given back.
    pub(super) fn free(&self) -> Self {
        Self { held: None, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(row: &Row, owner: &str, now: u64, opening: u64) -> (Row, Option<Holder>) {
        match row.take(owner, now, now + 10, opening) {
            Take::Row(row, before) => (row, before),
            Take::Held(holder) => panic!("{holder:?} has it"),
        }
    }

    #[test]
    fn it_lasts_until_its_end_and_is_taken_over_then() {
        let (row, before) = taken(&Row::default(), "a", 100, 1);
        assert_eq!(before, None);
        let holder = Holder { owner: "a".into(), until: 110 };
        assert_eq!(row.take("b", 109, 119, 1), Take::Held(holder.clone()));
        assert_eq!(row.take("a", 109, 119, 1), Take::Held(holder.clone()), "not its owner either");
        let (over, before) = taken(&row, "b", 110, 1);
        assert_eq!(before, Some(holder));
        assert!(over.is_of(2) && !over.is_of(1) && row.is_of(1));
    }

    #[test]
    fn it_is_renewed_and_given_back() {
        let (row, _) = taken(&Row::default(), "a", 100, 1);
        assert!(matches!(row.renewed(120, 1).take("b", 110, 120, 1), Take::Held(_)));
        let free = row.free();
        assert!(!free.is_of(1), "what was given back writes nothing");
        let (next, before) = taken(&free, "b", 101, 1);
        assert!(before.is_none() && next.is_of(2));
    }

    #[test]
    fn nobody_of_an_earlier_opening_is_waited_for() {
        let (row, _) = taken(&Row::default(), "a", 100, 1);
        let (next, before) = taken(&row, "b", 101, 2);
        assert_eq!(before.map(|holder| holder.owner).as_deref(), Some("a"));
        assert!(!next.is_of(1));
        assert!(matches!(row.renewed(110, 2).take("b", 101, 111, 2), Take::Held(_)), "alive after all");
    }
}
