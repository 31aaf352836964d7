//! What is used once, by several replicas.

use super::*;
use crate::oauth::store::cases::pending as cases;

#[test]
fn it_shows_what_every_store_must() {
    let cluster = cluster();
    let new = |schema: &str| InSchema { cluster: cluster.clone(), schema: schema.into() };
    run(async {
        let first = new("first");
        cases::it_is_looked_at_as_often_as_one_likes_and_taken_once_also_by_the_next_process(&first).await;
        cases::its_time_ends_and_what_is_over_is_forgotten_with_the_next(&mut new("second")).await;
        cases::they_are_bounded_in_number_and_in_size_and_room_comes_back(&mut new("third")).await;
        cases::another_key_leaves_it_as_it_is(&new("fourth")).await;
        let fifth = new("fifth");
        let mut stores = Vec::new();
        for _ in 0..8 {
            stores.push(fifth.open(keys(KEY)).await);
        }
        cases::of_many_who_ask_at_once_one_gets_it(&fifth, &stores).await;
    });
    let dump = cluster.dump("second");
    assert!(dump.contains("mxgate_pending") && !dump.contains("ticket-"));
    assert!(!store::cases::holds_a_token(&sealed::bytes_of(&dump)));
}

#[test]
fn its_time_is_the_databases_and_not_its_callers() {
    let cluster = cluster();
    run(async {
        let store = open(&cluster, "shared").await;
        let ticket = |ends| cases::pending("ticket-1", ends);
        let name = cases::name("ticket-1");
        // By a clock that is far behind, for 1000 seconds.
        seam(&store).put_pending(&ticket(2000), 1000).await.unwrap();
        let seen = seam(&store).look_pending(name, NOW).await.unwrap();
        assert_eq!(seen, cases::content("ticket-1"));
        pass(&cluster, "shared", Duration::from_secs(1000));
        assert_eq!(seam(&store).look_pending(name, 0).await.unwrap(), None);
        assert_eq!(seam(&store).take_pending(name, 0).await.unwrap(), None);
        // One that was over when it was made, and one without an end.
        seam(&store).put_pending(&ticket(1000), 1000).await.unwrap();
        assert_eq!(seam(&store).take_pending(name, 0).await.unwrap(), None);
        seam(&store).put_pending(&ticket(u64::MAX >> 1), 0).await.unwrap();
        assert_eq!(seam(&store).take_pending(name, NOW).await.unwrap(), cases::content("ticket-1"));
    });
}

/// A taker that is killed, or cut off, at each of its statements: what it was given nobody else gets.
#[test]
fn whoever_is_stopped_while_it_takes_one_leaves_it_to_one_other_at_most() {
    let cluster = cluster();
    run(async {
        let other = open(&cluster, "shared").await;
        for (stop, is_left) in [
            (Stop::Before(1), true),
            (Stop::After(1), true),
            (Stop::Before(2), true),
            (Stop::After(2), false),
        ] {
            let proxy = Proxy::before(cluster.folder(), cluster.port());
            let store = open_behind(&proxy, &cluster, keys(KEY)).await;
            seam(&other).put_pending(&cases::pending("ticket-1", NOW + 1000), NOW).await.unwrap();
            proxy.stop(stop, false);
            let broken = seam(&store).take_pending(cases::name("ticket-1"), NOW).await;
            assert!(matches!(broken, Err(store::Error::Unwritten { .. })), "{stop:?}: {broken:?}");
            for store in [&store, &other] {
                let seen = seam(store).look_pending(cases::name("ticket-1"), NOW).await.unwrap();
                assert_eq!(seen.is_some(), is_left, "{stop:?}");
            }
            let taken = seam(&other).take_pending(cases::name("ticket-1"), NOW).await.unwrap();
            assert_eq!(taken.is_some(), is_left, "{stop:?}");
            assert_eq!(seam(&store).take_pending(cases::name("ticket-1"), NOW).await.unwrap(), None);
        }
    });
}
