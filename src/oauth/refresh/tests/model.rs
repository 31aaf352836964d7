//! The protocol in many interleavings of replicas that share one connection, killed at any point where they wait. What
//! must hold at all times is asserted where it would be broken: in [`World`].

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use shuttle::{
    future::{block_on, spawn, yield_now},
    rand::{Rng as _, thread_rng},
    scheduler::RandomScheduler,
};

use super::{
    super::*,
    world::{Fortune, World},
};
use crate::oauth::connection::Consent;

const INTERLEAVINGS: usize = 3_000;
const REPLICAS: usize = 3;

/// Runs until it is done, or dies at one of the points where it waits.
struct Mortal<F> {
    life: Pin<Box<F>>,
    polls_left: Option<u32>,
}

impl<F: Future> Future for Mortal<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(left) = &mut self.polls_left {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => return Poll::Ready(None),
            }
        }
        self.life.as_mut().poll(context).map(Some)
    }
}

fn pause() -> store::Doing<'static, ()> {
    Box::pin(yield_now())
}

/// Each replica refreshes a few times; one in `deadly` attempts is killed somewhere.
fn replicas(world: &World, deadly: Option<u32>) {
    let all: Vec<_> = (0..REPLICAS)
        .map(|index| {
            let world = world.clone();
            spawn(async move {
                for life in 0..2 {
                    let owner = format!("replica-{index}-{life}");
                    let because = Because::Due(world.version());
                    let dies = deadly.is_some_and(|one_in| thread_rng().gen_range(0..one_in) == 0);
                    let polls_left = dies.then(|| thread_rng().gen_range(0..25));
                    let life = Box::pin(world.attempt(&owner, because));
                    if (Mortal { life, polls_left }).await.is_none() {
                        world.kill(&owner);
                    }
                }
            })
        })
        .collect();
    block_on(async {
        for one in all {
            one.await.unwrap();
        }
    });
}

fn explored(one: impl Fn() + Send + Sync + 'static) {
    let mut config = shuttle::Config::default();
    // Without optimisation an attempt's parts are large.
    config.stack_size = 1 << 20;
    shuttle::Runner::new(RandomScheduler::new(INTERLEAVINGS), config).run(one);
}

/// The stored refresh token is the one that the provider takes.
fn is_intact(world: &World) -> bool {
    world.with(|state| match &state.stored.as_ref().unwrap().connection.consent {
        Consent::Live(tokens) => {
            let kept = super::world::number("refresh", tokens.refresh.as_ref().unwrap());
            state.good == Some(kept)
        }
        Consent::Gone { .. } => false,
    })
}

#[test]
fn while_nobody_dies_no_token_is_sent_twice_and_none_is_lost() {
    explored(|| {
        let life = thread_rng().gen_range(0..2) * 1000;
        let fortune = || [Fortune::Answered, Fortune::Failed][thread_rng().gen_range(0..2)];
        let world = World { flows: false, ..World::new(life, pause, fortune) };
        replicas(&world, None);
        assert!(is_intact(&world));
        world.with(|state| assert_eq!((state.reused, state.excused.len()), (0, 0)));
    });
}

#[test]
fn a_killed_replica_costs_at_most_what_it_was_answered() {
    explored(|| {
        let life = thread_rng().gen_range(0..2) * 1000;
        let world = World { flows: false, ..World::new(life, pause, || Fortune::Answered) };
        replicas(&world, Some(2));
        // Whoever comes next finds out: an intact grant is used, and a lost one is given up.
        world.with(|state| state.now += 2000);
        let last = block_on(world.attempt("the last one", Because::Due(world.version())));
        let lost = matches!(last, Outcome::Gone);
        assert!(lost || matches!(last, Outcome::Fresh(_)), "{last:?}");
        world.with(|state| assert_eq!(lost, state.good.is_none()));
        world.with(|state| assert!(state.reused > 0 || !lost, "given up without need"));
    });
}

#[test]
fn lost_answers_and_lost_leases_never_let_two_write_and_never_end_what_is_good() {
    explored(|| {
        let life = thread_rng().gen_range(0..2) * 1000;
        let fortunes = [Fortune::Answered, Fortune::Lost, Fortune::Failed, Fortune::Odd];
        let world = World::new(life, pause, move || fortunes[thread_rng().gen_range(0..4)]);
        replicas(&world, Some(4));
        assert!(is_intact(&world) || world.with(|state| !state.excused.is_empty()));
    });
}
