//! A replica that is stopped at any of the statements of a refresh: killed, cut off, or overtaken by another one.
//!
//! Each replica has an event loop of its own, and is dead when that is dropped. The provider takes each refresh token
//! once and ends the grant with a second use. Time passes when somebody waits, for the leases in the database as well.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use http::StatusCode;
use tokio::runtime::Runtime;

use super::*;
use crate::{
    oauth::{
        connection::{Access, Connection, Consent, Tokens},
        refresh::{Asked, Because, Clock, Guard, Later, Outcome, Refresher},
        token_endpoint::{Code, Fault, Granted, Revoked},
    },
    vault::secret::Secret,
};

const SCHEMA: &str = "shared";

/// What one refresh sends: two loads and a lease between them, then, when the provider has answered, a look and a write.
const STATEMENTS: usize = 5;
const ASKED_BEFORE: usize = 4;

/// How long access tokens live.
const LIFE: u64 = 600;

/// The provider, and the time.
struct World {
    cluster: Arc<Cluster>,
    now: AtomicU64,
    /// The number of the refresh token that is good, if any, and of those that came.
    bank: Mutex<(Option<u64>, Vec<u64>)>,
}

fn token(kind: &str, number: u64) -> Arc<Secret> {
    secret(&format!("{kind}-token-{number}"))
}

impl World {
    /// With one connection, whose tokens have the number 0.
    fn new(cluster: &Arc<Cluster>) -> Arc<Self> {
        let bank = Mutex::new((Some(0), Vec::new()));
        let world = Self { cluster: cluster.clone(), now: AtomicU64::new(NOW), bank };
        run(async {
            let store = open(cluster, SCHEMA).await;
            store.insert(&with_tokens(0, NOW + LIFE)).await.unwrap();
        });
        Arc::new(world)
    }

    fn wait(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
        pass(&self.cluster, SCHEMA, Duration::from_secs(seconds));
    }

    fn asked(&self) -> Vec<u64> {
        self.bank.lock().unwrap().1.clone()
    }

    /// What is stored: its version, and the number of its access token; `None`: the consent is gone.
    fn stored(&self) -> (u64, Option<u64>) {
        run(async {
            let stored = open(&self.cluster, SCHEMA).await.load(id(1)).await.unwrap().unwrap();
            (stored.version.0, number(&stored.connection))
        })
    }
}

fn with_tokens(generation: u64, expires: u64) -> Connection {
    let access = Access { token: token("access", generation), expires: Some(expires) };
    let refresh = Some(token("refresh", generation));
    let tokens = Tokens { access: Some(access), refresh, ends: None };
    Connection { consent: Consent::Live(tokens), ..connection(id(1), 0) }
}

/// The number of its access token.
fn number(connection: &Connection) -> Option<u64> {
    let Consent::Live(Tokens { access: Some(access), .. }) = &connection.consent else { return None };
    (0..9).find(|number| *token("access", *number) == *access.token)
}

impl Clock for World {
    fn now(&self) -> u64 {
        self.now.load(Ordering::SeqCst)
    }

    fn sleep(&self, time: Duration) -> Doing<'_, ()> {
        Box::pin(async move {
            self.wait(time.as_secs().max(1));
            tokio::task::yield_now().await;
        })
    }
}

impl Asked for World {
    fn identity(&self) -> String {
        "bank".into()
    }

    fn ask<'a>(&'a self, sent: &'a Secret) -> Doing<'a, Result<Granted, Fault>> {
        let (good, asked) = &mut *self.bank.lock().unwrap();
        let sent = (0..9).find(|number| *token("refresh", *number) == *sent).unwrap();
        asked.push(sent);
        let answer = if *good == Some(sent) {
            *good = Some(sent + 1);
            Ok(Granted {
                access: token("access", sent + 1),
                life: Some(Duration::from_secs(LIFE)),
                scopes: None,
                refresh: Some(token("refresh", sent + 1)),
            })
        } else {
            *good = None;
            Err(Fault::Refused(StatusCode::BAD_REQUEST, Code::InvalidGrant))
        };
        Box::pin(async { answer })
    }

    fn give_up<'a>(&'a self, _: Revoked<'a>) -> Doing<'a, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn reuse_grace(&self) -> Duration {
        Duration::ZERO
    }
}

/// A process: its event loop, its connection to the database, its refresher.
struct Replica {
    runtime: Runtime,
    refresher: Refresher,
}

impl Replica {
    /// `host`: where it thinks the database is.
    fn start(world: &Arc<World>, name: &str, host: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let settings = Settings { host: host.display().to_string(), ..settings(&world.cluster, SCHEMA) };
        let store = Arc::new(runtime.block_on(Postgres::open(settings, keys(KEY))).unwrap());
        let guards: BTreeMap<String, _> = [("bank".to_owned(), Guard::new(world.clone()))].into();
        let refresher = Refresher::new(store, Arc::new(guards), world.clone(), name.into());
        Self { runtime, refresher }
    }

    fn refresh(&self) -> Outcome {
        self.runtime.block_on(self.refresher.refresh(id(1), Because::Due(Version(1))))
    }

    /// The same, unless the process is killed at `proxy`'s statement; it is dead afterwards.
    fn refresh_until_killed(self, proxy: &Proxy) -> Option<Outcome> {
        let outcome = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = proxy.stopped() => None,
                outcome = self.refresher.refresh(id(1), Because::Due(Version(1))) => Some(outcome),
            }
        });
        self.runtime.shutdown_background();
        outcome
    }
}

/// Until it is refreshed or lost. How often it was in doubt, and whether there is a token.
fn bring_to_an_end(world: &Arc<World>, replica: &Replica) -> (u32, bool) {
    let mut doubts = 0;
    for _ in 0..99 {
        match replica.refresh() {
            Outcome::Fresh(stored) => {
                let there = world.stored();
                assert_eq!(
                    (stored.version.0, number(&stored.connection)),
                    there,
                    "used before it was stored"
                );
                return (doubts, true);
            }
            Outcome::Gone => return (doubts, false),
            Outcome::Later(Later::Doubtful(until)) => {
                doubts += 1;
                assert!(until > world.now(), "and its access token is good until then");
                world.wait(60);
            }
            Outcome::Later(_) => world.wait(60),
            other => panic!("{other:?}"),
        }
    }
    panic!("it never ends");
}

/// A new world in the same schema.
fn anew(cluster: &Arc<Cluster>) -> Arc<World> {
    cluster.sql(DATABASE, &format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"));
    World::new(cluster)
}

/// Before and after each statement.
fn stops() -> impl Iterator<Item = Stop> {
    (1..=STATEMENTS).flat_map(|place| [Stop::Before(place), Stop::After(place)])
}

#[test]
fn a_refresh_sends_five_statements() {
    let cluster = cluster();
    let world = World::new(&cluster);
    let proxy = Proxy::before(cluster.folder(), cluster.port());
    let replica = Replica::start(&world, "a", proxy.folder());
    proxy.stop(Stop::Before(99), false);
    assert_eq!(bring_to_an_end(&world, &replica), (0, true));
    assert_eq!((proxy.seen(), world.asked()), (STATEMENTS, vec![0]));
}

#[test]
fn whoever_takes_over_from_a_killed_replica_loses_nothing_that_was_stored_and_knows_what_is_in_doubt() {
    let cluster = cluster();
    let mut ends = BTreeMap::new();
    for stop in stops() {
        let world = anew(&cluster);
        let proxy = Proxy::before(cluster.folder(), cluster.port());
        let dead = Replica::start(&world, "the dead", proxy.folder());
        proxy.stop(stop, true);
        let outcome = dead.refresh_until_killed(&proxy);
        assert!(outcome.is_none(), "{stop:?}: {outcome:?}");
        let (asked, stored) = (!world.asked().is_empty(), world.stored().0 == 2);
        let end = bring_to_an_end(&world, &Replica::start(&world, "b", cluster.folder()));
        let (doubts, is_live) = end;
        let place = stop.place();
        let held = Stop::After(2) == stop || place > 2;
        assert_eq!(asked, place >= ASKED_BEFORE, "{stop:?}");
        assert_eq!(stored, stop == Stop::After(STATEMENTS), "{stop:?}");
        assert_eq!(doubts > 0, held && !stored, "{stop:?}: the lease that was left");
        assert_eq!(is_live, stored || !asked, "{stop:?}: lost with the answer, and in no other case");
        // What was sent is sent again where its answer is lost, and only there.
        let sent = if asked && !stored { vec![0, 0] } else { vec![0] };
        assert_eq!(world.asked(), sent, "{stop:?}");
        assert_eq!(world.stored(), (2, is_live.then_some(1)), "{stop:?}");
        *ends.entry((doubts > 0, is_live)).or_insert(0) += 1;
    }
    // At once; in doubt, and all was well; in doubt, and it was lost.
    let ends: Vec<_> = ends.into_iter().collect();
    assert_eq!(ends, [((false, true), 4), ((true, false), 3), ((true, true), 3)]);
}

#[test]
fn a_replica_that_is_cut_off_for_a_moment_loses_nothing() {
    let cluster = cluster();
    for stop in stops() {
        let world = anew(&cluster);
        let proxy = Proxy::before(cluster.folder(), cluster.port());
        let replica = Replica::start(&world, "a", proxy.folder());
        proxy.stop(stop, false);
        let (doubts, is_live) = bring_to_an_end(&world, &replica);
        assert!(is_live, "{stop:?}");
        assert_eq!((world.asked(), world.stored()), (vec![0], (2, Some(1))), "{stop:?}");
        // A lease that it did not know of is left to its end.
        assert_eq!(doubts > 0, stop == Stop::After(2), "{stop:?}");
    }
}

/// It is slow, and not dead: its lease ends, another replica refreshes, and then its statement arrives.
#[test]
fn a_replica_that_was_overtaken_writes_nothing_by_the_lease_that_it_lost() {
    let cluster = cluster();
    for place in 1..=STATEMENTS {
        let world = anew(&cluster);
        let proxy = Arc::new(Proxy::before(cluster.folder(), cluster.port()));
        let slow = Replica::start(&world, "slow", proxy.folder());
        proxy.stop(Stop::Held(place), false);
        let slow = thread::spawn(move || slow.refresh());
        run(proxy.stopped());
        world.wait(LIFE);
        let other = bring_to_an_end(&world, &Replica::start(&world, "other", cluster.folder()));
        let between = world.stored();
        proxy.release();
        let outcome = slow.join().unwrap();
        let asked = place >= ASKED_BEFORE;
        assert_eq!(other, (0, !asked), "{place}");
        assert_eq!(between, (2, (!asked).then_some(1)), "{place}");
        let Outcome::Fresh(stored) = outcome else { panic!("{place}: {outcome:?}") };
        assert_eq!((stored.version.0, number(&stored.connection)), world.stored(), "{place}");
        // What the provider answered first is written once what came in between is known, and by another lease.
        assert_eq!(world.stored(), (if asked { 3 } else { 2 }, Some(1)), "{place}");
        assert_eq!(world.asked(), if asked { vec![0, 0] } else { vec![0] }, "{place}");
    }
}
