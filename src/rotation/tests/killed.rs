//! Killed at every edge, at every pair of edges, and stopped while others go on.

use std::time::Duration;

use super::world::{FIRST, World, order};
use crate::rotation::{
    state::State,
    words::{Error, Outcome},
};

/// What a run after a kill comes to: the end, or `secondary unknown`, from which an order leads to the end.
#[track_caller]
fn assert_resumed(world: &World, done: &Result<Outcome, Error>, rotations: usize) {
    match done {
        Ok(Outcome::Done { .. }) => world.assert_over(),
        Err(Error::Unknown { .. }) => {
            assert!(matches!(world.state(), State::Unknown { .. }));
            assert_eq!(world.primary(), FIRST);
        }
        other => panic!("neither resumed nor unknown: {other:?}"),
    }
    assert!(world.calls("rotate") <= rotations, "MX was asked again without an order");
}

/// To the end, whatever it takes; a key that was lost is replaced by order.
async fn finish(world: &World) {
    let mut replace = order("operator");
    replace.replace_unknown = true;
    let done = world.run_as(&replace).await;
    assert!(matches!(done, Ok(Outcome::Done { .. })), "{done:?}");
    world.assert_over();
}

#[tokio::test(start_paused = true)]
async fn killed_at_every_edge_it_is_resumed_or_unknown_and_a_key_works_all_the_time() {
    let (mut edge, mut unknown) = (1, 0);
    loop {
        let world = World::new();
        let killed = world.run_until(edge, &order("killed")).await.is_none();
        assert!(world.works(&world.primary()));
        if !killed {
            break;
        }
        let was_idle = world.state() == State::Idle;
        let done = world.run_as(&order("next")).await;
        // A run that died after its last record leaves a rotation that is over; the next is a new one.
        assert_resumed(&world, &done, 1 + usize::from(was_idle));
        if done.is_err() {
            unknown += 1;
            finish(&world).await;
        }
        edge += 1;
    }
    assert!(edge > 30, "there are {edge} edges");
    // Between the record that MX is asked and the one that the key is sealed.
    assert!((3..=8).contains(&unknown), "{unknown} of {edge} edges leave the secondary unknown");
}

#[tokio::test(start_paused = true)]
async fn killed_twice_anywhere_it_comes_to_its_end() {
    for first in 1.. {
        let mut second = 1;
        loop {
            let world = World::new();
            if world.run_until(first, &order("killed")).await.is_some() {
                return;
            }
            if world.run_until(second, &order("killed-too")).await.is_some() {
                break;
            }
            assert!(world.works(&world.primary()));
            let done = world.run_as(&order("next")).await;
            assert!(
                matches!(done, Ok(Outcome::Done { .. }) | Err(Error::Unknown { .. })),
                "killed at {first} and {second}: {done:?}"
            );
            if done.is_err() {
                finish(&world).await;
            }
            world.assert_over();
            second += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn killed_while_a_lost_key_is_replaced_it_comes_to_its_end() {
    for edge in 1.. {
        let world = World::new();
        world.answer_rotate("lost");
        assert!(world.run().await.is_err());
        let mut replace = order("killed");
        replace.replace_unknown = true;
        if world.run_until(edge, &replace).await.is_some() {
            return;
        }
        assert!(world.works(&world.primary()));
        assert!(world.calls("rotate") <= 2);
        let done = world.run_as(&order("next")).await;
        assert!(world.calls("rotate") <= 3, "at most one more, by a run that began anew");
        if done.is_err() {
            finish(&world).await;
        }
        world.assert_over();
    }
}

#[tokio::test(start_paused = true)]
async fn killed_while_the_vault_fails_the_key_is_in_the_recovery_file_or_unknown() {
    for edge in 1.. {
        let world = World::new();
        world.fail_writes_after_rotate();
        let killed = world.run_until(edge, &order("killed")).await.is_none();
        world.repair();
        assert_eq!(world.primary(), FIRST);
        assert!(world.works(FIRST));
        let had = world.rescued().is_some();
        let was_idle = world.state() == State::Idle;
        let done = world.run_as(&order("next")).await;
        if had {
            assert!(matches!(done, Ok(Outcome::Done { .. })), "{done:?}");
        }
        assert_resumed(&world, &done, 1 + usize::from(was_idle));
        if done.is_err() {
            finish(&world).await;
        }
        if !killed {
            return;
        }
    }
}

/// A process that is stopped (SIGSTOP, a paused machine) at any edge, while another takes its lock over and goes to
/// the end, and that then goes on as if nothing had happened.
#[tokio::test(start_paused = true)]
async fn a_stopped_run_that_goes_on_after_it_was_overtaken_does_no_harm() {
    for edge in 1.. {
        for replace in [false, true] {
            let world = World::new();
            let stopped = world.stopping_at(edge);
            let first = order("stopped");
            let mut second = order("next");
            second.replace_unknown = replace;
            let mut is_stopped = stopped.stopped.subscribe();
            let mut run = Box::pin(stopped.run(&first));
            tokio::select! {
                biased;
                _ = &mut run => return,
                _ = is_stopped.wait_for(|stopped| *stopped) => {}
            }
            world.pass(world.settings.lease * 2);
            // MX's call may be under way at this very moment, and no lock of ours reaches into MX.
            world.set_strict(!replace);
            let overtaken = world.run_as(&second).await;
            stopped.go_on.send_replace(true);
            let late = run.await;
            // Without an order nobody has asked twice, unless one rotation was over.
            let over = usize::from(overtaken.is_ok()) + usize::from(late.is_ok());
            assert!(
                world.calls("rotate") <= 1 + usize::from(replace) + over,
                "edge {edge}: {overtaken:?} {late:?}"
            );
            let mut done = world.run_as(&order("third")).await;
            for _ in 0..3 {
                if matches!(done, Ok(Outcome::Done { .. })) {
                    break;
                }
                let mut replace = order("operator");
                replace.replace_unknown = true;
                done = world.run_as(&replace).await;
            }
            assert!(matches!(done, Ok(Outcome::Done { .. })), "edge {edge}: {done:?}");
            world.assert_over();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_runs_lock_is_respected_and_a_dead_ones_waited_for() {
    let world = World::new();
    let parts = world.stopping_at(4);
    let first = order("first");
    let mut run = Box::pin(parts.run(&first));
    let mut is_stopped = parts.stopped.subscribe();
    tokio::select! {
        _ = &mut run => panic!("it stops"),
        _ = is_stopped.wait_for(|stopped| *stopped) => {}
    }
    let mut impatient = order("second");
    impatient.wait = false;
    assert!(matches!(world.run_as(&impatient).await, Err(Error::Locked { .. })));
    parts.go_on.send_replace(true);
    // The second waits for the lock's end, finds the work done by then, and does not begin anew.
    let second = order("second");
    let (first, second) = tokio::join!(run, world.run_as(&second));
    assert!(matches!(first, Ok(Outcome::Done { .. })), "{first:?}");
    assert!(matches!(second, Ok(Outcome::Elsewhere { .. })), "{second:?}");
    assert_eq!(world.calls("rotate"), 1);
    world.assert_over();

    let world = World::new();
    assert!(world.run_until(4, &order("killed")).await.is_none());
    let begun = tokio::time::Instant::now();
    world.run_as(&order("next")).await.unwrap();
    assert!(begun.elapsed() >= world.settings.lease - Duration::from_secs(1));
    world.assert_over();
}
