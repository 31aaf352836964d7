//! A model of MX's keys and of a vault, in which every effect has an edge before and after it.
//!
//! At the edge with a chosen number a run stops for ever ([`World::run_until`]), as a killed process does, or until it is
//! let on, as a stopped one. The model keeps the promise that tests hold the real code to: at every edge the vault's
//! primary key works, or, where that is said, one of its two.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    rotation::{
        Clock, Doing, Order, Settings,
        mx::{Asked, Mx, Retired, Taken},
        readers::Readers,
        run::Run,
        state::{OVERLAP_S, Record, State},
        store::{Contents, Error as StoreError, Store, Written},
        words::{Error, Outcome},
    },
    vault::secret::Secret,
};

/// The key that a world begins with.
pub(super) const FIRST: &str = "key-number-0000";

/// Any time: the model's clock begins here.
const BEGINNING: u64 = 1_800_000_000;

pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) order: Order,
    begun: Instant,
    state: Mutex<Model>,
    /// Edges so far, of all runs.
    edges: watch::Sender<usize>,
}

struct Model {
    keys: Vec<Key>,
    made: usize,
    calls: HashMap<&'static str, usize>,
    contents: Contents,
    version: usize,
    rescued: Option<String>,
    rescue_broken: bool,
    /// Added to the clock.
    passed: Duration,
    answers: Vec<&'static str>,
    delay: Duration,
    behind: usize,
    fail_after_rotate: bool,
    writes_fail: bool,
    /// Of the writes to come: what becomes of each.
    writes: Vec<Fate>,
    /// Whether an edge checks that the primary key works, or only that one of two does.
    pub(super) strict: bool,
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Fine,
    /// An error, and nothing was written.
    Lost,
    /// An error, although it was written.
    Unacknowledged,
    /// Somebody else was faster, and changed nothing that matters.
    Raced,
}

struct Key {
    value: String,
    from: u64,
    until: Option<u64>,
}

fn secret(text: &str) -> Arc<Secret> {
    Arc::new(Secret::new(text.into()).unwrap())
}

#[expect(clippy::disallowed_methods, reason = "the model's keys are made up")]
fn text(key: &Secret) -> String {
    String::from_utf8(key.expose().to_vec()).unwrap()
}

impl World {
    pub(super) fn new() -> Self {
        let contents = Contents {
            version: "0".into(),
            primary: Some(secret(FIRST)),
            secondary: None,
            record: Record::default(),
            primary_since: None,
        };
        let model = Model {
            keys: vec![Key { value: FIRST.into(), from: 0, until: None }],
            made: 0,
            calls: HashMap::new(),
            contents,
            version: 0,
            rescued: None,
            rescue_broken: false,
            passed: Duration::ZERO,
            answers: Vec::new(),
            delay: Duration::ZERO,
            behind: 0,
            fail_after_rotate: false,
            writes_fail: false,
            writes: Vec::new(),
            strict: true,
        };
        Self {
            settings: Settings {
                environment: "test".into(),
                lease: Duration::from_secs(60),
                wait: Duration::from_secs(10),
                wait_least: Duration::from_secs(4),
                keep_old: false,
            },
            order: order("first"),
            begun: Instant::now(),
            state: Mutex::new(model),
            edges: watch::Sender::new(0),
        }
    }

    /// A whole run.
    pub(super) async fn run(&self) -> Result<Outcome, Error> {
        self.run_as(&self.order).await
    }

    pub(super) async fn run_as(&self, order: &Order) -> Result<Outcome, Error> {
        let parts = Parts {
            world: self,
            stop_at: usize::MAX,
            mine: Mutex::new(0),
            stopped: watch::Sender::new(false),
            go_on: watch::Sender::new(true),
        };
        parts.run(order).await
    }

    /// A run that is killed at its edge number `edge`, from 1; its result when it ends before.
    pub(super) async fn run_until(&self, edge: usize, order: &Order) -> Option<Result<Outcome, Error>> {
        let parts = self.stopping_at(edge);
        let mut stopped = parts.stopped.subscribe();
        tokio::select! {
            biased;
            done = parts.run(order) => Some(done),
            _ = stopped.wait_for(|stopped| *stopped) => None,
        }
    }

    /// The parts of a run that stops at an edge until `go_on` is true.
    pub(super) fn stopping_at(&self, edge: usize) -> Parts<'_> {
        Parts {
            world: self,
            stop_at: edge,
            mine: Mutex::new(0),
            stopped: watch::Sender::new(false),
            go_on: watch::Sender::new(false),
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        BEGINNING + (self.begun.elapsed() + self.model().passed).as_secs()
    }

    pub(super) fn works(&self, value: &str) -> bool {
        let now = self.now();
        self.model().works(value, now)
    }

    pub(super) fn primary(&self) -> String {
        text(self.model().contents.primary.as_ref().expect("a primary key"))
    }

    pub(super) fn secondary(&self) -> Option<String> {
        self.model().contents.secondary.as_deref().map(text)
    }

    pub(super) fn state(&self) -> State {
        self.model().contents.record.state.clone()
    }

    pub(super) fn calls(&self, name: &'static str) -> usize {
        self.model().calls.get(name).copied().unwrap_or_default()
    }

    pub(super) fn rescued(&self) -> Option<String> {
        self.model().rescued.clone()
    }

    /// One key is left, at MX and in the vault, and nobody holds the lock.
    #[track_caller]
    pub(super) fn assert_over(&self) {
        let primary = self.primary();
        assert!(self.works(&primary));
        let now = self.now();
        let model = self.model();
        let alive: Vec<_> = model.keys.iter().filter(|key| key.works(now)).map(|key| &key.value).collect();
        assert_eq!(alive, [&primary]);
        assert!(model.contents.secondary.is_none());
        assert_eq!((&model.contents.record.state, &model.contents.record.lock), (&State::Idle, &None));
    }

    /// At least one key of the vault works, or the primary one, when that is asked for.
    #[track_caller]
    fn check(&self) {
        let now = self.now();
        let model = self.model();
        let works = |key: &Option<Arc<Secret>>| key.as_ref().is_some_and(|key| model.works(&text(key), now));
        let (primary, secondary) = (works(&model.contents.primary), works(&model.contents.secondary));
        assert!(primary || (!model.strict && secondary), "no working key: {:?}", model.contents.record);
    }

    pub(super) fn pass(&self, time: Duration) {
        self.model().passed += time;
    }

    pub(super) fn readers_behind(&self, times: usize) {
        self.model().behind = times;
    }

    /// What the next call of rotate gets: `lost` or `no`.
    pub(super) fn answer_rotate(&self, answer: &'static str) {
        self.model().answers.push(answer);
    }

    pub(super) fn forget_answers(&self) {
        self.model().answers.clear();
    }

    pub(super) fn delay_new_keys(&self, delay: Duration) {
        self.model().delay = delay;
    }

    pub(super) fn fail_writes_after_rotate(&self) {
        self.model().fail_after_rotate = true;
    }

    pub(super) fn repair(&self) {
        let mut model = self.model();
        (model.fail_after_rotate, model.writes_fail, model.rescue_broken) = (false, false, false);
    }

    pub(super) fn break_rescue(&self) {
        self.model().rescue_broken = true;
    }

    pub(super) fn set_strict(&self, strict: bool) {
        self.model().strict = strict;
    }

    pub(super) fn set_writes(&self, writes: Vec<Fate>) {
        self.model().writes = writes;
    }

    /// A rotation in MX's dashboard: a key that the vault does not have, and no other.
    pub(super) fn dashboard(&self) {
        let mut model = self.model();
        model.keys = vec![Key { value: "key-of-the-dashboard".into(), from: 0, until: None }];
        model.strict = false;
    }

    pub(super) fn set_primary(&self, value: &str) {
        let mut model = self.model();
        model.contents.primary = Some(secret(value));
        model.touch();
    }

    pub(super) fn set_secondary(&self, value: Option<&str>) {
        let mut model = self.model();
        model.contents.secondary = value.map(secret);
        model.touch();
    }
}

pub(super) fn order(owner: &str) -> Order {
    Order {
        owner: owner.into(),
        keep_old: None,
        retire_after: None,
        replace_unknown: false,
        wait: true,
        client_guid: None,
    }
}

impl Model {
    fn works(&self, value: &str, now: u64) -> bool {
        self.keys.iter().any(|key| key.value == value && key.works(now))
    }

    fn touch(&mut self) {
        self.version += 1;
        self.contents.version = self.version.to_string();
    }

    fn count(&mut self, name: &'static str) {
        *self.calls.entry(name).or_default() += 1;
    }
}

impl Key {
    fn works(&self, now: u64) -> bool {
        self.from <= now && self.until.is_none_or(|until| now < until)
    }
}

/// One run's view of the world.
pub(super) struct Parts<'w> {
    world: &'w World,
    stop_at: usize,
    mine: Mutex<usize>,
    pub(super) stopped: watch::Sender<bool>,
    pub(super) go_on: watch::Sender<bool>,
}

impl Parts<'_> {
    pub(super) async fn run(&self, order: &Order) -> Result<Outcome, Error> {
        let run = Run {
            store: self,
            mx: self,
            readers: self,
            clock: self,
            settings: &self.world.settings,
            order,
            say: &|_| (),
        };
        run.run().await
    }

    async fn edge(&self) {
        self.world.edges.send_modify(|edges| *edges += 1);
        if !self.world.model().keys.iter().any(|key| key.value == "key-of-the-dashboard") {
            self.world.check();
        }
        let mine = {
            let mut mine = self.mine.lock().unwrap();
            *mine += 1;
            *mine
        };
        if mine == self.stop_at {
            self.stopped.send_replace(true);
            let _ = self.go_on.subscribe().wait_for(|go_on| *go_on).await;
        }
    }
}

fn unwritten() -> StoreError {
    StoreError::Unwritten("as the test wants it".into())
}

impl Store for Parts<'_> {
    fn load(&self) -> Doing<'_, Result<Contents, StoreError>> {
        Box::pin(async {
            self.edge().await;
            Ok(self.world.model().contents.clone())
        })
    }

    fn store<'a>(&'a self, contents: &'a Contents) -> Doing<'a, Result<Written, StoreError>> {
        Box::pin(async {
            self.edge().await;
            let written = {
                let mut model = self.world.model();
                let fate = if model.writes.is_empty() { Fate::Fine } else { model.writes.remove(0) };
                if fate == Fate::Raced {
                    model.touch();
                }
                if model.writes_fail || fate == Fate::Lost {
                    Err(unwritten())
                } else if contents.version != model.contents.version {
                    Ok(Written::Conflict)
                } else {
                    model.contents = contents.clone();
                    model.touch();
                    match fate {
                        Fate::Unacknowledged => Err(unwritten()),
                        _ => Ok(Written::Stored(model.contents.version.clone())),
                    }
                }
            };
            self.edge().await;
            written
        })
    }

    fn rescue<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Result<String, StoreError>> {
        Box::pin(async {
            self.edge().await;
            self.world.model().rescued = Some(text(key));
            self.edge().await;
            Ok("the model's file".into())
        })
    }

    fn rescued(&self) -> Doing<'_, Result<Option<Arc<Secret>>, StoreError>> {
        Box::pin(async {
            self.edge().await;
            Ok(self.world.rescued().map(|key| secret(&key)))
        })
    }

    fn prepare_rescue(&self) -> Doing<'_, Result<(), StoreError>> {
        Box::pin(async {
            self.edge().await;
            if self.world.model().rescue_broken { Err(unwritten()) } else { Ok(()) }
        })
    }

    fn forget_rescue(&self) -> Doing<'_, Result<(), StoreError>> {
        Box::pin(async {
            self.edge().await;
            self.world.model().rescued = None;
            self.edge().await;
            Ok(())
        })
    }

    fn places(&self) -> [String; 2] {
        ["vault:test/primary".into(), "vault:test/secondary".into()]
    }
}

impl Mx for Parts<'_> {
    fn rotate<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Asked> {
        Box::pin(async {
            self.edge().await;
            let asked = self.world.rotate(&text(key));
            self.edge().await;
            asked
        })
    }

    fn retire<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Retired> {
        Box::pin(async {
            self.edge().await;
            let retired = self.world.retire(&text(key));
            self.edge().await;
            retired
        })
    }

    fn read<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Taken> {
        Box::pin(async {
            self.edge().await;
            self.world.model().count("read");
            if self.world.works(&text(key)) { Taken::Yes } else { Taken::No }
        })
    }
}

impl World {
    fn rotate(&self, with: &str) -> Asked {
        let now = self.now();
        let mut model = self.model();
        model.count("rotate");
        let answer = if model.answers.is_empty() { "yes" } else { model.answers.remove(0) };
        if answer == "no" || !model.works(with, now) {
            return Asked::Refused("as the test wants it".into());
        }
        model.made += 1;
        let value = format!("key-number-{:04}", model.made);
        model.keys.retain(|key| key.until.is_none_or(|until| now < until));
        model.keys.truncate(1);
        if let Some(original) = model.keys.first_mut() {
            original.until = Some(now + OVERLAP_S);
        }
        let from = now + model.delay.as_secs();
        model.keys.push(Key { value: value.clone(), from, until: None });
        model.writes_fail = model.fail_after_rotate;
        if answer == "lost" {
            Asked::Unclear("as the test wants it".into())
        } else {
            Asked::Made(secret(&value))
        }
    }

    fn retire(&self, with: &str) -> Retired {
        let now = self.now();
        let mut model = self.model();
        model.count("retire");
        if !model.works(with, now) {
            return Retired::Refused("401".into());
        }
        model.keys.retain(|key| key.until.is_none_or(|until| now < until));
        if model.keys.first().is_none_or(|original| original.until.is_none()) {
            return Retired::Refused("422".into());
        }
        model.keys.remove(0);
        Retired::Done
    }
}

impl Readers for Parts<'_> {
    fn behind<'a>(&'a self, _new: &'a str) -> Doing<'a, Option<String>> {
        let mut model = self.world.model();
        let behind = model.behind > 0;
        model.behind = model.behind.saturating_sub(usize::from(model.behind != usize::MAX));
        Box::pin(std::future::ready(behind.then(|| "a gateway".to_owned())))
    }
}

impl Clock for Parts<'_> {
    fn unix(&self) -> u64 {
        self.world.now()
    }

    fn boot(&self) -> Duration {
        self.world.begun.elapsed() + self.world.model().passed
    }
}
