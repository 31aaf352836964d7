use super::*;

fn limits(change: impl FnOnce(&mut config::limits::CallerLimits)) -> Rc<CallerLimits> {
    again(change, None)
}

fn again(
    change: impl FnOnce(&mut config::limits::CallerLimits),
    previous: Option<&CallerLimits>,
) -> Rc<CallerLimits> {
    let mut settings = config::limits::CallerLimits::default();
    change(&mut settings);
    Rc::new(CallerLimits::new("ledger", &settings, previous).expect("limits"))
}

fn refusal(result: Result<Option<Permit>, Over>) -> Option<Refusal> {
    result.err().map(|over| over.refusal)
}

#[test]
fn nothing_is_counted_for_a_caller_without_limits() {
    assert!(CallerLimits::new("ledger", &config::limits::CallerLimits::default(), None).is_none());
    assert!(admit(None, &Owner::default(), Instant::now()).unwrap().is_none());
}

#[test]
fn permits_are_given_back_however_a_request_ends() {
    let (limits, now) = (limits(|settings| settings.in_flight_max = Some(2)), Instant::now());
    let owner = Owner::default();
    let one = admit(Some(&limits), &owner, now).unwrap();
    let two = admit(Some(&limits), &owner, now).unwrap();
    assert_eq!(refusal(admit(Some(&limits), &owner, now)), Some(Refusal::InFlightLimit));
    drop(one);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _permit = admit(Some(&limits), &owner, now).unwrap();
        panic!("a defect");
    }));
    assert!(panicked.is_err());
    let three = admit(Some(&limits), &owner, now).unwrap();
    assert_eq!(limits.status().in_flight, Some(Use { now: 2, max: 2 }));
    drop((two, three));
    assert_eq!((limits.status().in_flight, limits.status().refused), (Some(Use { now: 0, max: 2 }), 1));
}

#[test]
fn whoever_is_over_one_limit_uses_nothing_of_another() {
    let limits = limits(|settings| {
        settings.in_flight_max = Some(1);
        settings.rate = Some(config::limits::Rate { per_second: 1, burst: 2 });
    });
    let (owner, now) = (Owner::default(), Instant::now());
    let one = admit(Some(&limits), &owner, now).unwrap();
    for _ in 0..10 {
        assert_eq!(refusal(admit(Some(&limits), &owner, now)), Some(Refusal::InFlightLimit));
    }
    drop(one);
    drop(admit(Some(&limits), &owner, now).expect("a second token is there"));
    let over = admit(Some(&limits), &owner, now).unwrap_err();
    assert_eq!(over.refusal, Refusal::RateLimit);
    assert!(over.wait > Duration::ZERO && over.wait <= Duration::from_secs(1), "{:?}", over.wait);
    assert_eq!(limits.status().in_flight, Some(Use { now: 0, max: 1 }));
}

#[test]
fn a_connection_counts_for_the_caller_of_its_last_request() {
    let one = limits(|settings| settings.connections_max = Some(1));
    let other = limits(|settings| settings.connections_max = Some(1));
    let (first, second, now) = (Owner::default(), Owner::default(), Instant::now());
    for _ in 0..3 {
        assert_eq!(refusal(admit(Some(&one), &first, now)), None);
    }
    assert_eq!(refusal(admit(Some(&one), &second, now)), Some(Refusal::ConnectionLimit));
    assert_eq!(refusal(admit(Some(&other), &second, now)), None);
    // The first is another's now, of one who has no room for it; and then of one who is not counted.
    assert_eq!(refusal(admit(Some(&other), &first, now)), Some(Refusal::ConnectionLimit));
    assert_eq!(one.status().connections, Some(Use { now: 0, max: 1 }));
    admit(None, &second, now).unwrap();
    assert_eq!(other.status().connections, Some(Use { now: 0, max: 1 }));
    assert_eq!(refusal(admit(Some(&one), &second, now)), None);
    drop(second);
    assert_eq!(one.status().connections, Some(Use { now: 0, max: 1 }));
}

#[test]
fn a_reload_neither_loses_nor_doubles_what_is_in_use() {
    let settings = |settings: &mut config::limits::CallerLimits| {
        settings.in_flight_max = Some(2);
        settings.connections_max = Some(1);
        settings.rate = Some(config::limits::Rate { per_second: 1, burst: 3 });
    };
    let (old, owner, now) = (limits(settings), Owner::default(), Instant::now());
    let one = admit(Some(&old), &owner, now).unwrap();
    let new = again(settings, Some(&old));
    let two = admit(Some(&new), &owner, now).expect("the same connection, a second request");
    assert_eq!(refusal(admit(Some(&new), &owner, now)), Some(Refusal::InFlightLimit));
    drop((one, two));
    assert_eq!(new.status().in_flight, Some(Use { now: 0, max: 2 }));
    drop(admit(Some(&new), &owner, now).expect("a third token"));
    assert_eq!(refusal(admit(Some(&new), &owner, now)), Some(Refusal::RateLimit));
    assert_eq!(refusal(admit(Some(&new), &Owner::default(), now)), Some(Refusal::ConnectionLimit));
    drop(owner);
    assert_eq!(new.status().connections, Some(Use { now: 0, max: 1 }));
    assert_eq!(new.status().refused, 3);
}
