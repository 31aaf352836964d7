//! Single stories, and the driver. `model` has the interleavings.

use proptest::prelude::*;
use tokio::sync::Notify;

use self::world::{Fortune, World, id, number};
use super::{rules::Plan, *};
use crate::oauth::{
    connection::{Access, Connection, Consent, Tokens, Why},
    store::Holder,
};

mod model;
mod world;

fn at_once() -> Doing<'static, ()> {
    Box::pin(std::future::ready(()))
}

fn world(life: u64, fortune: Fortune) -> World {
    World::new(life, at_once, move || fortune)
}

fn access_of(outcome: &Outcome) -> u64 {
    let Outcome::Fresh(stored) = outcome else { panic!("{outcome:?}") };
    let Consent::Live(tokens) = &stored.connection.consent else { panic!("{stored:?}") };
    number("access", &tokens.access.as_ref().unwrap().token)
}

fn refresher(world: &World) -> Refresher {
    let guards: BTreeMap<String, Arc<Guard>> = world.guards();
    let world = Arc::new(world.clone());
    Refresher::new(world.clone(), Arc::new(guards), world, "replica".into())
}

/// Somebody died with the lease.
fn leave_a_lease(world: &World) {
    world.with(|state| {
        let holder = Holder { owner: "the dead".into(), until: state.now };
        state.lease = Some((0, holder));
        state.excused.insert(0);
    });
}

#[tokio::test]
async fn a_refresh_brings_the_next_token_and_one_that_was_done_meanwhile_is_used() {
    let world = world(100, Fortune::Answered);
    assert_eq!(access_of(&world.attempt("a", Because::Due(Version(1))).await), 1);
    assert_eq!(access_of(&world.attempt("b", Because::Due(Version(1))).await), 1);
    assert_eq!(access_of(&world.attempt("b", Because::Refused(Version(1))).await), 1);
    assert_eq!(access_of(&world.attempt("b", Because::Refused(Version(2))).await), 2);
    world.with(|state| {
        assert_eq!((state.asked.clone(), state.lease.is_none()), (vec![0, 1], true));
        assert!(state.given_up.is_empty());
    });
}

#[tokio::test]
async fn what_was_answered_is_written_again_until_it_is_stored() {
    // Once it was not written, once it was and nobody could tell.
    let world = world(100, Fortune::Answered);
    world.with(|state| state.writes_fail = vec![false, false, true]);
    assert_eq!(access_of(&world.attempt("a", Because::Due(Version(1))).await), 1);
    assert_eq!(world.version(), Version(2));
    world.with(|state| assert_eq!((state.asked.clone(), state.writes_fail.len()), (vec![0], 0)));
}

#[tokio::test]
async fn in_doubt_the_access_token_is_used_while_it_lasts_and_then_the_refresh_token_is_sent_again() {
    let world = world(100, Fortune::Answered);
    leave_a_lease(&world);
    let held = world.attempt("a", Because::Due(Version(1))).await;
    assert!(matches!(held, Outcome::Later(Later::Doubtful(1100))), "{held:?}");
    world.with(|state| assert!(state.asked.is_empty()));
    // The doubt outlives whoever had it.
    world.with(|state| state.now += 50);
    let held = world.attempt("b", Because::Due(Version(1))).await;
    assert!(matches!(held, Outcome::Later(Later::Doubtful(_))), "{held:?}");
    world.with(|state| state.now = 1100);
    assert_eq!(access_of(&world.attempt("b", Because::Due(Version(1))).await), 1);
}

#[tokio::test]
async fn in_doubt_a_refused_access_token_is_not_waited_for() {
    let world = world(100, Fortune::Answered);
    leave_a_lease(&world);
    assert_eq!(access_of(&world.attempt("a", Because::Refused(Version(1))).await), 1);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_doubt_and_a_failure_does_not() {
    for (fortune, doubtful) in [(Fortune::Lost, true), (Fortune::Failed, false)] {
        let world = world(100, fortune);
        let outcome = world.attempt("a", Because::Due(Version(1))).await;
        assert!(matches!(outcome, Outcome::Later(Later::Provider(_))), "{outcome:?}");
        world.with(|state| assert_eq!(state.lease.is_some(), doubtful, "{fortune:?}"));
    }
}

#[tokio::test]
async fn the_refresh_token_of_an_odd_answer_is_kept() {
    let world = world(100, Fortune::Odd);
    let outcome = world.attempt("a", Because::Due(Version(1))).await;
    assert!(matches!(outcome, Outcome::Later(Later::Provider(_))), "{outcome:?}");
    let world = World { fortune: Arc::new(|| Fortune::Answered), ..world };
    // The access token is still that of before.
    assert_eq!(access_of(&world.attempt("a", Because::Due(world.version())).await), 2);
    world.with(|state| assert_eq!(state.asked, [0, 1]));
}

#[tokio::test]
async fn consent_is_gone_when_the_provider_says_so_and_nobody_has_won() {
    let world = world(100, Fortune::Answered);
    world.with(|state| state.good = None);
    assert!(matches!(world.attempt("a", Because::Due(Version(1))).await, Outcome::Gone));
    world.with(|state| {
        let consent = &state.stored.as_ref().unwrap().connection.consent;
        assert!(matches!(consent, Consent::Gone { why: Why::Refused, .. }), "{consent:?}");
        assert!(state.lease.is_none());
    });
    assert!(matches!(world.attempt("b", Because::Due(Version(2))).await, Outcome::Gone));
    world.with(|state| assert_eq!(state.asked, [0]));
}

/// A provider that says no while somebody else stores the next token.
struct Overtaken(World);

impl Asked for Overtaken {
    fn identity(&self) -> String {
        "bank".into()
    }

    fn ask<'a>(&'a self, _: &'a Secret) -> Doing<'a, Result<Granted, Fault>> {
        Box::pin(async {
            let code = crate::oauth::token_endpoint::Code::InvalidGrant;
            self.0.with(|state| state.lease.as_mut().unwrap().1.until = 0);
            assert_eq!(access_of(&self.0.attempt("the sibling", Because::Refused(Version(1))).await), 1);
            Err(Fault::Refused(http::StatusCode::BAD_REQUEST, code))
        })
    }

    fn give_up<'a>(&'a self, _: Revoked<'a>) -> Doing<'a, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn reuse_grace(&self) -> Duration {
        Duration::ZERO
    }
}

#[tokio::test]
async fn a_sibling_that_has_won_is_believed_more_than_invalid_grant() {
    let world = World { flows: false, ..world(100, Fortune::Answered) };
    let guards: BTreeMap<_, _> = [("bank".to_owned(), Guard::new(Arc::new(Overtaken(world.clone()))))].into();
    let attempt =
        attempt::Attempt { store: &world, providers: &guards, clock: &world, owner: "the overtaken" };
    assert_eq!(access_of(&attempt.run(id(), Because::Due(Version(1))).await), 1);
}

/// A provider that answers after the connection was forgotten, whose lease had ended.
struct TooLate(World);

impl Asked for TooLate {
    fn identity(&self) -> String {
        "bank".into()
    }

    fn ask<'a>(&'a self, token: &'a Secret) -> Doing<'a, Result<Granted, Fault>> {
        self.0.with(|state| (state.stored, state.lease) = (None, None));
        self.0.ask(token)
    }

    fn give_up<'a>(&'a self, token: Revoked<'a>) -> Doing<'a, Result<(), Fault>> {
        self.0.give_up(token)
    }

    fn reuse_grace(&self) -> Duration {
        Duration::ZERO
    }
}

#[tokio::test]
async fn tokens_of_a_connection_that_was_forgotten_meanwhile_are_given_up() {
    // Where the refresh token stays the same, whoever forgot the connection gave that up, and not what it brought since.
    for (fortune, keeps, given_up) in [
        (Fortune::Answered, false, [("refresh", 1), ("access", 1)]),
        (Fortune::Odd, false, [("refresh", 1), ("access", 0)]),
        (Fortune::Answered, true, [("refresh", 0), ("access", 1)]),
    ] {
        let world = world(100, fortune);
        world.with(|state| state.keeps = keeps);
        let guards: BTreeMap<_, _> =
            [("bank".to_owned(), Guard::new(Arc::new(TooLate(world.clone()))))].into();
        let attempt = attempt::Attempt { store: &world, providers: &guards, clock: &world, owner: "late" };
        let outcome = attempt.run(id(), Because::Due(Version(1))).await;
        assert!(matches!(outcome, Outcome::Absent), "{outcome:?}");
        world.with(|state| assert_eq!((&*state.asked, &*state.given_up), (&[0][..], &given_up[..])));
    }
}

/// A provider whose first answer is lost, and that takes a used token again for as long.
struct Lenient(Mutex<u32>, Duration, Fortune);

impl Asked for Lenient {
    fn identity(&self) -> String {
        "bank".into()
    }

    fn ask<'a>(&'a self, _: &'a Secret) -> Doing<'a, Result<Granted, Fault>> {
        Box::pin(async {
            let mut asked = self.0.lock().unwrap();
            *asked += 1;
            if *asked == 1 {
                return Err(Fault::from(crate::https::Error::Encoding));
            }
            if self.2 == Fortune::Failed {
                return Err(Fault::Failed(http::StatusCode::SERVICE_UNAVAILABLE));
            }
            let (access, refresh) = (world::token("access", 1), Some(world::token("refresh", 1)));
            Ok(Granted { access, life: None, scopes: None, refresh })
        })
    }

    fn give_up<'a>(&'a self, _: Revoked<'a>) -> Doing<'a, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn reuse_grace(&self) -> Duration {
        self.1
    }
}

#[tokio::test]
async fn within_a_grace_a_lost_answer_is_asked_for_once_more_and_without_one_it_is_not() {
    for (grace, second, asked) in
        [(10, Fortune::Answered, 2), (10, Fortune::Failed, 2), (0, Fortune::Answered, 1)]
    {
        let world = world(100, Fortune::Answered);
        let lenient = Arc::new(Lenient(Mutex::new(0), Duration::from_secs(grace), second));
        let guards: BTreeMap<_, _> = [("bank".to_owned(), Guard::new(lenient.clone()))].into();
        let attempt = attempt::Attempt { store: &world, providers: &guards, clock: &world, owner: "a" };
        let outcome = attempt.run(id(), Because::Due(Version(1))).await;
        let succeeds = grace > 0 && second == Fortune::Answered;
        assert_eq!(matches!(outcome, Outcome::Fresh(_)), succeeds, "{outcome:?}");
        assert_eq!(*lenient.0.lock().unwrap(), asked);
        // Whoever has failed leaves the doubt of the first answer.
        world.with(|state| assert_eq!(state.lease.is_some(), !succeeds));
    }
}

/// A provider that answers when it is let.
struct Slow(World, Arc<Notify>, Arc<Notify>);

impl Asked for Slow {
    fn identity(&self) -> String {
        "bank".into()
    }

    fn ask<'a>(&'a self, token: &'a Secret) -> Doing<'a, Result<Granted, Fault>> {
        Box::pin(async {
            self.1.notify_one();
            self.2.notified().await;
            self.0.ask(token).await
        })
    }

    fn give_up<'a>(&'a self, _: Revoked<'a>) -> Doing<'a, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn reuse_grace(&self) -> Duration {
        Duration::ZERO
    }
}

/// A pause that lets others run and takes no time.
fn step() -> Doing<'static, ()> {
    Box::pin(tokio::task::yield_now())
}

#[tokio::test]
async fn callers_share_one_refresh_and_one_that_leaves_ends_nothing() {
    let world = World { flows: false, ..World::new(100, step, || Fortune::Answered) };
    let (begun, let_go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = Slow(world.clone(), begun.clone(), let_go.clone());
    let guards: BTreeMap<_, _> = [("bank".to_owned(), Guard::new(Arc::new(slow)))].into();
    let shared = Arc::new(world.clone());
    let refresher = Refresher::new(shared.clone(), Arc::new(guards), shared, "replica".into());
    let ask = || {
        let refresher = refresher.clone();
        tokio::spawn(async move { refresher.refresh(id(), Because::Due(Version(1))).await })
    };
    let leaves = ask();
    begun.notified().await;
    leaves.abort();
    assert!(leaves.await.unwrap_err().is_cancelled());
    let (one, another) = (ask(), ask());
    let_go.notify_one();
    assert_eq!((access_of(&one.await.unwrap()), access_of(&another.await.unwrap())), (1, 1));
    world.with(|state| assert_eq!(state.asked, [0]));
}

#[tokio::test]
async fn after_a_failure_nothing_is_asked_for_a_while() {
    let world = world(100, Fortune::Failed);
    let refresher = refresher(&world);
    let ask = || refresher.refresh(id(), Because::Due(Version(1)));
    assert!(matches!(ask().await, Outcome::Later(Later::Provider(_))));
    let Outcome::Later(Later::Resting(until)) = ask().await else { panic!("asked at once") };
    world.with(|state| {
        assert_eq!(state.asked.len(), 1);
        state.now = until;
    });
    assert!(matches!(ask().await, Outcome::Later(Later::Provider(_))));
    world.with(|state| assert_eq!(state.asked.len(), 2));
}

#[test]
fn a_breaker_opens_after_failures_in_a_row_and_lets_one_at_a_time_find_out() {
    let mut breaker = Breaker::after(5);
    for _ in 0..4 {
        breaker.failed(0, 0);
        assert_eq!(breaker.may_ask(0, 0), Ok(()));
    }
    breaker.failed(0, 0);
    let until = breaker.may_ask(0, 0).unwrap_err();
    assert!(until > 0);
    assert_eq!(breaker.may_ask(until, 0), Ok(()), "the one that finds out");
    assert!(breaker.may_ask(until, 0).is_err(), "another one");
    breaker.succeeded();
    assert_eq!(breaker.may_ask(until, 0), Ok(()));
}

fn connection(consent: Consent) -> Connection {
    let stored = world(100, Fortune::Answered).with(|state| state.stored.clone()).unwrap();
    Connection { consent, ..stored.connection }
}

proptest! {
    #[test]
    fn whatever_is_known_the_plan_keeps_to_the_rules(
        expires in prop::option::of(0u64..20),
        has_access: bool,
        has_refresh: bool,
        version in 1u64..4,
        seen in 1u64..4,
        refused: bool,
        doubtful: bool,
        now in 0u64..20,
    ) {
        let tokens = Tokens {
            access: has_access.then(|| Access { token: world::token("access", 1), expires }),
            refresh: has_refresh.then(|| world::token("refresh", 1)),
            ends: None,
        };
        let usable = has_access && expires.is_none_or(|expires| now < expires);
        let stored = Stored { connection: connection(Consent::Live(tokens)), version: Version(version) };
        let because = if refused { Because::Refused(Version(seen)) } else { Because::Due(Version(seen)) };
        match rules::plan(&stored, because, doubtful, now) {
            Plan::Use => prop_assert!(usable && version > seen),
            Plan::Hold(until) => {
                prop_assert!(usable && doubtful && !refused && has_refresh && until > now);
            }
            Plan::Ask(_) => prop_assert!(has_refresh && (refused || !doubtful || !usable)),
            Plan::Cannot => prop_assert!(!has_refresh),
            Plan::Gone => prop_assert!(false),
        }
        let gone = connection(Consent::Gone { since: 1, why: Why::Refused });
        let gone = Stored { connection: gone, version: Version(version) };
        prop_assert_eq!(rules::plan(&gone, because, doubtful, now), Plan::Gone);
    }

    #[test]
    fn a_refresh_is_due_ahead_of_the_end_and_never_at_once(seen in 0u64..1 << 40, life in prop_oneof![1u64..1000, 1u64..1 << 40], dice: u64) {
        let due = rules::due(seen, seen + life, dice);
        prop_assert!(due >= seen + life / 2 && due <= seen + life);
        prop_assert!(due < seen + life || life < 5);
        prop_assert!(seen + life - due <= 2 * 300);
    }

    #[test]
    fn pauses_grow_to_a_bound(failures: u32, dice: u64) {
        let max = Duration::from_secs(60);
        let pause = rules::rest(failures, max, dice);
        prop_assert!(pause <= max && pause >= Duration::from_secs(1).min(max) / 2);
        prop_assert!(failures < 7 || pause >= max / 2);
    }
}
