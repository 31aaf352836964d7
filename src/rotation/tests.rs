//! Runs against a model of MX and of a vault, killed and disturbed everywhere; see `tests/world.rs`.

mod disturbed;
mod killed;
mod world;

use std::time::Duration;

use self::world::{FIRST, World};
use super::{
    state::{OVERLAP_S, State},
    words::{Error, Outcome},
};

/// Days in seconds.
const DAY: u64 = 24 * 60 * 60;

#[tokio::test(start_paused = true)]
async fn a_rotation_leaves_one_key_and_it_is_the_new_one() {
    let world = World::new();
    let outcome = world.run().await.unwrap();
    assert!(matches!(outcome, Outcome::Done { old_until: None, .. }), "{outcome:?}");
    world.assert_over();
    assert_ne!(world.primary(), FIRST);
    assert_eq!((world.calls("rotate"), world.calls("retire")), (1, 1));
    assert!(!world.works(FIRST));
}

#[tokio::test(start_paused = true)]
async fn the_next_rotation_is_like_the_first() {
    let world = World::new();
    for calls in 1..=3 {
        world.run().await.unwrap();
        world.assert_over();
        assert_eq!((world.calls("rotate"), world.calls("retire")), (calls, calls));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_retired_before_every_reader_must_have_the_new_key() {
    let world = World::new();
    let begun = tokio::time::Instant::now();
    world.readers_behind(3);
    world.run().await.unwrap();
    assert!(begun.elapsed() >= world.settings.wait + 3 * Duration::from_millis(500));

    let world = World::new();
    world.readers_behind(usize::MAX);
    assert!(matches!(world.run().await, Err(Error::ReadersBehind { .. })));
    assert_eq!(world.calls("retire"), 0);
    assert!(world.works(FIRST) && world.works(&world.primary()));
    world.readers_behind(0);
    world.run().await.unwrap();
    world.assert_over();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_has_leaked_is_retired_sooner_but_not_before_readers_can_have_the_new_one() {
    for (ordered, waited) in [(7, 7), (1, 4), (20, 20)] {
        let mut world = World::new();
        let begun = tokio::time::Instant::now();
        world.order.retire_after = Some(Duration::from_secs(ordered));
        world.run().await.unwrap();
        world.assert_over();
        let took = begun.elapsed();
        let waited = Duration::from_secs(waited);
        assert!(took >= waited && took < waited + Duration::from_secs(3), "{ordered} s: {took:?}");
    }
    let mut world = World::new();
    world.order.retire_after = Some(Duration::from_secs(1));
    world.readers_behind(usize::MAX);
    assert!(matches!(world.run().await, Err(Error::ReadersBehind { .. })));
    assert_eq!(world.calls("retire"), 0);
}

#[tokio::test(start_paused = true)]
async fn an_old_key_that_is_kept_is_retired_by_the_next_order_or_by_mx() {
    let mut world = World::new();
    world.order.keep_old = Some(true);
    assert!(matches!(world.run().await, Ok(Outcome::Kept { .. })));
    assert!(world.works(FIRST) && world.works(&world.primary()));
    // To keep it is no reason to rotate again: MX would kill the key in use.
    assert!(matches!(world.run().await, Ok(Outcome::Kept { .. })));
    assert_eq!((world.calls("rotate"), world.calls("retire")), (1, 0));
    world.order.keep_old = None;
    world.run().await.unwrap();
    world.assert_over();
    assert_eq!((world.calls("rotate"), world.calls("retire")), (1, 1));

    let mut world = World::new();
    world.order.keep_old = Some(true);
    world.run().await.unwrap();
    world.pass(Duration::from_secs(OVERLAP_S));
    assert!(!world.works(FIRST));
    world.run().await.unwrap();
    world.assert_over();
    assert_eq!((world.calls("rotate"), world.calls("retire")), (1, 0), "MX has deleted it by itself");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_ends_as_secondary_unknown_and_only_an_order_asks_again() {
    let mut world = World::new();
    world.answer_rotate("lost");
    for _ in 0..3 {
        assert!(matches!(world.run().await, Err(Error::Unknown { .. })));
        assert_eq!((world.primary(), world.calls("rotate")), (FIRST.to_owned(), 1));
        assert!(world.works(FIRST));
    }
    world.order.replace_unknown = true;
    world.run().await.unwrap();
    world.assert_over();
    assert_eq!(world.calls("rotate"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_no_rolls_back_and_a_no_to_the_second_call_does_not() {
    let mut world = World::new();
    world.answer_rotate("no");
    assert!(matches!(world.run().await, Err(Error::Refused { .. })));
    assert_eq!(world.state(), State::Idle);

    world.answer_rotate("lost");
    assert!(world.run().await.is_err());
    world.order.replace_unknown = true;
    world.answer_rotate("no");
    assert!(matches!(world.run().await, Err(Error::Refused { .. })));
    assert!(matches!(world.state(), State::Unknown { .. }), "{:?}", world.state());
    world.run().await.unwrap();
    world.assert_over();
}

#[tokio::test(start_paused = true)]
async fn a_new_key_that_mx_does_not_take_yet_is_never_made_primary() {
    let mut world = World::new();
    world.delay_new_keys(Duration::from_secs(600));
    assert!(matches!(world.run().await, Err(Error::NewRefused { .. })));
    assert_eq!(world.primary(), FIRST);
    assert!(matches!(world.state(), State::Sealed { .. }));
    world.pass(Duration::from_secs(600));
    world.run().await.unwrap();
    world.assert_over();
    assert_eq!(world.calls("rotate"), 1);

    // One that never works is replaced by order.
    world.delay_new_keys(Duration::from_secs(100 * DAY));
    assert!(world.run().await.is_err());
    world.delay_new_keys(Duration::ZERO);
    assert!(world.run().await.is_err());
    world.order.replace_unknown = true;
    world.run().await.unwrap();
    world.assert_over();
    assert_eq!(world.calls("rotate"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_fails_after_the_answer_sends_the_key_to_the_recovery_file() {
    let world = World::new();
    world.fail_writes_after_rotate();
    assert!(matches!(world.run().await, Err(Error::Rescued { .. })));
    assert_eq!(world.primary(), FIRST);
    world.repair();
    world.run().await.unwrap();
    world.assert_over();
    assert_eq!(world.calls("rotate"), 1, "the key of the recovery file was taken in");
    assert!(world.rescued().is_none());
}

#[tokio::test(start_paused = true)]
async fn without_a_place_to_rescue_a_key_to_nothing_is_called() {
    let world = World::new();
    world.break_rescue();
    assert!(matches!(world.run().await, Err(Error::Store(_))));
    assert_eq!(world.calls("rotate"), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_called_with_a_key_that_does_not_work() {
    let world = World::new();
    world.dashboard();
    assert!(matches!(world.run().await, Err(Error::PrimaryRefused { .. })));
    assert_eq!((world.calls("rotate"), world.state()), (0, State::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_nobody_put_there_for_us_is_not_overwritten() {
    let world = World::new();
    world.set_secondary(Some("a-key-of-somebody-else"));
    assert!(matches!(world.run().await, Err(Error::SecondaryInUse { .. })));
    assert_eq!(world.calls("rotate"), 0);
    world.set_secondary(None);
    world.run().await.unwrap();
    world.assert_over();
}

#[tokio::test(start_paused = true)]
async fn while_a_key_of_before_may_live_mx_is_not_asked_for_another() {
    let mut world = World::new();
    world.order.keep_old = Some(true);
    world.run().await.unwrap();
    // Somebody emptied the slot: nobody can see whether the old key is dead.
    world.set_secondary(None);
    world.order.keep_old = None;
    let done = world.run().await.unwrap();
    assert!(matches!(done, Outcome::Done { old_until: Some(_), .. }), "{done:?}");
    assert_eq!(world.calls("retire"), 0, "what nobody sees alive is not retired");
    let in_use = world.primary();
    assert!(matches!(world.run().await, Err(Error::OldKeyLives { .. })));
    assert!(world.works(&in_use));
    world.pass(Duration::from_secs(OVERLAP_S));
    world.run().await.unwrap();
    world.assert_over();
}
