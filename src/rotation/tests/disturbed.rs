//! A vault whose writes fail, are done without a word or meet others', and keys that somebody changes by hand.

use proptest::prelude::*;

use super::world::{FIRST, Fate, World, order};
use crate::rotation::{
    Order,
    state::State,
    words::{Error, Outcome},
};

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Fine),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Unacknowledged),
        1 => Just(Fate::Raced),
    ]
}

/// One thing that happens to a world.
#[derive(Debug, Clone)]
enum Act {
    /// A run that is killed at this edge, or reaches its end.
    Run { edge: usize, replace: bool, keep_old: bool },
    /// Time passes.
    Pass { hours: u64 },
    /// The next answer to rotate.
    Answer(&'static str),
    /// What becomes of the next writes.
    Writes(Vec<Fate>),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1_usize..90, any::<bool>(), any::<bool>())
            .prop_map(|(edge, replace, keep_old)| Act::Run { edge, replace, keep_old }),
        2 => (0_u64..24 * 10).prop_map(|hours| Act::Pass { hours }),
        2 => prop_oneof![Just("lost"), Just("no")].prop_map(Act::Answer),
        2 => proptest::collection::vec(fate(), 1..6).prop_map(Act::Writes),
    ]
}

proptest! {
    /// Whatever happens, at every edge the vault's primary key works at MX, as long as nobody lets a lost key rest for 30
    /// days; and in the end an operator's order leads to one key.
    #[test]
    fn a_working_key_is_in_the_vault_all_the_time(acts in proptest::collection::vec(act(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let mut hours_passed = 0;
            for (number, act) in acts.into_iter().enumerate() {
                match act {
                    Act::Pass { hours } if hours_passed + hours < 24 * 28 => {
                        hours_passed += hours;
                        world.pass(std::time::Duration::from_secs(hours * 3600));
                    }
                    Act::Pass { .. } => {}
                    Act::Answer(answer) => world.answer_rotate(answer),
                    Act::Writes(fates) => world.set_writes(fates),
                    Act::Run { edge, replace, keep_old } => {
                        let mut order = order(&format!("run-{number}"));
                        order.replace_unknown = replace;
                        order.keep_old = Some(keep_old);
                        let before = world.calls("rotate");
                        let was_unclear =
                            matches!(world.state(), State::Calling { .. } | State::Unknown { .. });
                        // With its result or without: the edges have checked.
                        let _ = world.run_until(edge, &order).await;
                        let asked = world.calls("rotate") - before;
                        assert!(asked <= 1, "one run asks once");
                        assert!(asked == 0 || replace || !was_unclear, "asked again without an order");
                    }
                }
            }
            world.set_writes(Vec::new());
            world.forget_answers();
            let mut done = Err(Error::Changed);
            for round in 0..4 {
                let mut order = order(&format!("operator-{round}"));
                order.replace_unknown = true;
                done = world.run_as(&order).await;
                if matches!(done, Ok(Outcome::Done { .. })) {
                    break;
                }
            }
            assert!(matches!(done, Ok(Outcome::Done { .. })), "{done:?}");
            world.assert_over();
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_done_without_a_word_is_not_done_again() {
    for at in 0..6 {
        let world = World::new();
        let mut writes = vec![Fate::Fine; at];
        writes.push(Fate::Unacknowledged);
        world.set_writes(writes);
        world.run().await.unwrap();
        world.assert_over();
        assert_eq!((world.calls("rotate"), world.calls("retire")), (1, 1), "write {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_of_somebody_else_beside_ours_loses_no_key() {
    for at in 0..6 {
        let world = World::new();
        let mut writes = vec![Fate::Fine; at];
        writes.push(Fate::Raced);
        world.set_writes(writes);
        let done = world.run().await;
        if done.is_err() {
            assert!(matches!(done, Err(Error::Changed)), "write {at}: {done:?}");
            let next = world.run_as(&order("next")).await;
            if let Err(error) = next {
                assert!(matches!(error, Error::Unknown { .. }), "write {at}: {error}");
                // Only the record that MX is about to be asked can meet another's write before the call.
                assert_eq!(world.calls("rotate"), 0, "write {at}");
                continue;
            }
        }
        world.assert_over();
        assert_eq!(world.calls("rotate"), 1, "write {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_set_by_hand_ends_the_rotation_and_nothing_is_called() {
    for edge in 1.. {
        let world = World::new();
        if world.run_until(edge, &order("killed")).await.is_some() {
            return;
        }
        if world.state() == State::Idle {
            continue;
        }
        world.set_strict(false);
        world.dashboard();
        world.set_primary("key-of-the-dashboard");
        let (rotated, retired) = (world.calls("rotate"), world.calls("retire"));
        let done = world.run_as(&order("next")).await;
        assert!(matches!(done, Err(Error::Abandoned { .. })), "{done:?}");
        assert_eq!(world.state(), State::Idle);
        assert_eq!(world.primary(), "key-of-the-dashboard");
        assert_eq!((world.calls("rotate"), world.calls("retire")), (rotated, retired));
    }
}

#[tokio::test(start_paused = true)]
async fn keys_that_changed_places_by_hand_stop_it() {
    let world = World::new();
    world.readers_behind(usize::MAX);
    assert!(world.run().await.is_err());
    let new = world.primary();
    world.set_primary(FIRST);
    assert!(matches!(world.run().await, Err(Error::Misplaced { .. })));
    assert_eq!(world.calls("retire"), 0);
    world.set_primary(&new);
    world.readers_behind(0);
    world.run().await.unwrap();
    world.assert_over();
}

#[tokio::test(start_paused = true)]
async fn a_secret_in_the_place_of_the_old_key_is_not_sent_to_mx_and_not_removed() {
    let world = World::new();
    world.readers_behind(usize::MAX);
    assert!(world.run().await.is_err());
    world.readers_behind(0);
    let kept = Order { keep_old: Some(true), ..order("kept") };
    for step in ["primary", "kept"] {
        assert_eq!(world.state().step(), step);
        let asked = world.calls("read");
        world.set_secondary(Some("a-secret-for-another-host"));
        assert!(matches!(world.run().await, Err(Error::NotTheOldKey { .. })));
        assert_eq!((world.calls("read"), world.calls("retire")), (asked, 0));
        assert_eq!(world.secondary().as_deref(), Some("a-secret-for-another-host"));
        world.set_secondary(Some(FIRST));
        world.run_as(&kept).await.unwrap();
    }
    world.run().await.unwrap();
    world.assert_over();
}

#[tokio::test(start_paused = true)]
async fn what_is_set_by_hand_while_a_run_waits_is_seen_before_the_old_key_is_retired() {
    for is_primary in [false, true] {
        let world = World::new();
        world.set_strict(false);
        let by_hand = async {
            tokio::time::sleep(world.settings.wait / 2).await;
            assert_eq!(world.state().step(), "primary");
            match is_primary {
                true => world.set_primary("key-of-the-operator"),
                false => world.set_secondary(Some("key-of-the-operator")),
            }
            world.calls("read")
        };
        let (done, asked) = tokio::join!(world.run(), by_hand);
        match is_primary {
            true => assert!(matches!(done, Err(Error::Abandoned { .. })), "{done:?}"),
            false => assert!(matches!(done, Err(Error::NotTheOldKey { .. })), "{done:?}"),
        }
        assert_eq!((world.calls("read"), world.calls("retire")), (asked, 0));
    }
}
