//! The rules of leases and versions, against a model that is simpler than the store: for each connection what is
//! stored, and which of all leases ever given may write.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const CONNECTIONS: u8 = 2;

/// [`Kind::lasts`] in units.
const LASTS: u64 = 10;

#[derive(Debug, Clone)]
pub(in crate::oauth::store) enum Step {
    Insert(u8),
    Take(u8, u8),
    /// By one of all leases ever given, on a version that is right or not.
    Commit(usize, bool),
    Renew(usize),
    GiveBack(usize),
    Remove(usize),
    /// Time goes on, in [`Kind::unit`]s.
    Wait(u64),
    Reseal,
    /// Another process, perhaps with a new key.
    Reopen(bool),
}

pub(in crate::oauth::store) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (connection, lease) = (0..CONNECTIONS, 0..64_usize);
    let step = prop_oneof![
        2 => connection.clone().prop_map(Step::Insert),
        6 => (connection, 0..3_u8).prop_map(|(connection, owner)| Step::Take(connection, owner)),
        6 => (lease.clone(), prop::bool::weighted(0.8)).prop_map(|(lease, right)| Step::Commit(lease, right)),
        2 => lease.clone().prop_map(Step::Renew),
        2 => lease.clone().prop_map(Step::GiveBack),
        1 => lease.prop_map(Step::Remove),
        4 => (1..12_u64).prop_map(Step::Wait),
        1 => Just(Step::Reseal),
        1 => any::<bool>().prop_map(Step::Reopen),
    ];
    prop::collection::vec(step, 1..50)
}

#[derive(Default)]
struct Model {
    connections: BTreeMap<u8, Known>,
    now: u64,
    generation: u64,
}

struct Known {
    version: u64,
    generation: u64,
    /// Which lease may write, by its place in the list of all; and until when nobody else gets one.
    holder: Option<(usize, u64)>,
}

/// A store, all leases that it ever gave, and what the model says of it.
struct World {
    kind: Box<dyn Kind>,
    store: Option<Arc<dyn Opened>>,
    leases: Vec<(u8, Lease)>,
    keys: usize,
    model: Model,
}

impl World {
    async fn new(kind: Box<dyn Kind>) -> Self {
        let store = Some(kind.open(keys(KEY)).await);
        Self { kind, store, leases: Vec::new(), keys: 0, model: Model::default() }
    }

    fn store(&self) -> Arc<dyn Opened> {
        self.store.clone().unwrap()
    }

    /// The connection of lease `place`, if that lease may write.
    fn held(&mut self, place: usize) -> Option<&mut Known> {
        let known = self.model.connections.get_mut(&self.leases[place].0)?;
        known.holder.is_some_and(|(holder, _)| holder == place).then_some(known)
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Insert(n) => self.insert(n).await,
            Step::Take(n, owner) => self.take(n, owner).await,
            Step::Wait(units) => {
                self.model.now += units;
                let time = self.kind.unit() * u32::try_from(units).unwrap();
                self.kind.pass(time).await;
            }
            Step::Reseal => {
                self.store().reseal().await.unwrap();
            }
            Step::Reopen(new_key) => self.reopen(new_key).await,
            Step::Commit(lease, _) | Step::Renew(lease) | Step::GiveBack(lease) | Step::Remove(lease) => {
                if !self.leases.is_empty() {
                    self.by_lease(step, lease % self.leases.len()).await;
                }
            }
        }
    }

    async fn insert(&mut self, n: u8) {
        self.model.generation += 1;
        let generation = self.model.generation;
        let done = self.store().insert(&connection(id(n), generation)).await;
        assert_eq!(done.is_ok(), !self.model.connections.contains_key(&n));
        self.model.connections.entry(n).or_insert(Known { version: 1, generation, holder: None });
    }

    async fn take(&mut self, n: u8, owner: u8) {
        let now = self.model.now;
        let (time, lasts) = (self.kind.now(), self.kind.lasts());
        let taken = self.store().take_lease(id(n), &owner.to_string(), time, lasts).await.unwrap();
        match (taken, self.model.connections.get_mut(&n)) {
            (Taken::Absent, None) => {}
            (Taken::Held(holder), Some(known)) => {
                let until = known.holder.map(|(_, until)| until).unwrap();
                assert!(now < until);
                if !self.kind.is_shared() {
                    let left = self.kind.unit().as_secs() * (until - now);
                    assert_eq!(holder.until, time + left);
                }
            }
            (Taken::Lease(lease), Some(known)) => {
                assert!(known.holder.is_none_or(|(_, until)| until <= now), "two holders");
                assert_eq!(lease.abandoned_by.is_some(), known.holder.is_some());
                let earlier = self.leases.iter().filter(|(of, _)| *of == n).map(|(_, lease)| lease);
                assert!(earlier.max_by_key(|lease| lease.fence).is_none_or(|last| last.fence < lease.fence));
                known.holder = Some((self.leases.len(), now + LASTS));
                self.leases.push((n, lease));
            }
            (taken, known) => panic!("{taken:?}, and known: {}", known.is_some()),
        }
    }

    async fn by_lease(&mut self, step: &Step, place: usize) {
        let (store, now) = (self.store(), self.model.now);
        let (time, lasts) = (self.kind.now(), self.kind.lasts());
        let n = self.leases[place].0;
        let lost = self.held(place).is_none();
        match step {
            Step::Commit(_, right) => {
                self.model.generation += 1;
                let next = connection(id(n), self.model.generation);
                let version = self.model.connections.get(&n).map_or(1, |known| known.version);
                let expected = Version(if *right { version } else { version + 1 });
                let done = store.commit(&self.leases[place].1, expected, &next).await.unwrap();
                if lost || !right {
                    assert_eq!(done, Committed::Lost);
                } else {
                    assert_eq!(done, Committed::Stored(Version(version + 1)));
                    let generation = self.model.generation;
                    self.model
                        .connections
                        .insert(n, Known { version: version + 1, generation, holder: None });
                }
            }
            Step::Renew(_) => {
                assert_eq!(
                    store.renew(&self.leases[place].1, time, lasts).await.unwrap() == Kept::Lost,
                    lost
                );
                if let Some(known) = self.held(place) {
                    known.holder = Some((place, now + LASTS));
                }
            }
            Step::GiveBack(_) => {
                store.give_back(&self.leases[place].1).await.unwrap();
                if let Some(known) = self.held(place) {
                    known.holder = None;
                }
            }
            _ => {
                assert_eq!(store.remove(&self.leases[place].1).await.unwrap() == Kept::Lost, lost);
                if !lost {
                    self.model.connections.remove(&n);
                    // An id is random and does not come again, nor does its fence count on.
                    self.leases.retain(|(of, _)| *of != n);
                    self.renumber();
                }
            }
        }
    }

    /// Holders by their new places, after leases were removed.
    fn renumber(&mut self) {
        for (n, known) in &mut self.model.connections {
            let last = self.leases.iter().rposition(|(of, _)| of == n);
            known.holder = known.holder.and_then(|(_, until)| last.map(|place| (place, until)));
        }
    }

    async fn reopen(&mut self, new_key: bool) {
        self.store = None;
        self.keys += usize::from(new_key);
        let all: Vec<_> = (0..=self.keys)
            .map(|n| match n {
                0 => secret(KEY),
                n => secret(&format!("{n:032}")),
            })
            .collect();
        let keys = Keys::new(&all[self.keys], &all[..self.keys]).unwrap();
        self.store = Some(self.kind.open(keys).await);
        if self.kind.is_shared() {
            return;
        }
        // Whoever had a lease is dead: it is waited for no longer, and may write until somebody takes over.
        for known in self.model.connections.values_mut() {
            known.holder = known.holder.map(|(place, _)| (place, 0));
        }
    }

    /// What was committed is what is loaded and listed.
    async fn check(&self) {
        let store = self.store();
        for n in 0..CONNECTIONS {
            let known = self.model.connections.get(&n);
            let stored = store.load(id(n)).await.unwrap();
            let should = known.map(|known| Stored {
                connection: connection(id(n), known.generation),
                version: Version(known.version),
            });
            assert_eq!(stored, should);
        }
        let known = self.model.connections.iter();
        let should: Vec<_> = known.map(|(n, known)| connection(id(*n), known.generation).summary()).collect();
        assert_eq!(store.list().await.unwrap(), should);
    }
}

/// Does all of `steps` with a new store, and compares after each.
pub(in crate::oauth::store) async fn keeps_to_the_model(kind: Box<dyn Kind>, steps: &[Step]) {
    let mut world = World::new(kind).await;
    for step in steps {
        world.step(step).await;
        world.check().await;
    }
}
