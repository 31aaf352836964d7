use super::*;

const OLD: &str = "01d01d00";
const NEW: &str = "0e30e300";

fn states() -> Vec<State> {
    let (old, new, made) = (OLD.to_owned(), NEW.to_owned(), 7);
    vec![
        State::Idle,
        State::Calling { old: old.clone(), made, earlier: None },
        State::Calling { old: old.clone(), made, earlier: Some(3) },
        State::Unknown { old: old.clone(), made },
        State::Sealed { old: old.clone(), new: new.clone(), made },
        State::Primary { old: old.clone(), new: new.clone(), made, since: 8 },
        State::Kept { old: old.clone(), new: new.clone(), made },
        State::Retiring { old, new, made },
    ]
}

fn events() -> Vec<Event> {
    vec![
        Event::Begin { old: OLD.into(), now: 9 },
        Event::Replace { now: 9 },
        Event::Refused,
        Event::Lost,
        Event::Made { new: NEW.into() },
        Event::Tried { now: 9 },
        Event::Disliked,
        Event::Keep,
        Event::Retire,
        Event::Gone { old_until: None },
        Event::Abandon,
    ]
}

/// Every way that there is, and no other.
#[test]
fn there_are_these_ways_and_no_others() {
    let mut ways = Vec::new();
    for state in states() {
        for event in events() {
            if let Ok((after, keys)) = next(&state, event.clone()) {
                let event = format!("{event:?}");
                let event = event.split([' ', '{']).next().unwrap();
                ways.push(format!("{} {event} {} {keys:?}", state.step(), after.step()));
            }
        }
    }
    ways.retain(|way| !way.contains(" Abandon "));
    assert_eq!(
        ways,
        [
            "idle Begin calling Stay",
            "calling Refused idle Stay",
            "calling Lost unknown Stay",
            "calling Made sealed Fill",
            // The second call after a lost key.
            "calling Refused unknown Stay",
            "calling Lost unknown Stay",
            "calling Made sealed Fill",
            "unknown Replace calling Stay",
            "unknown Made sealed Fill",
            "sealed Replace calling Clear",
            "sealed Lost unknown Stay",
            "sealed Tried primary Swap",
            "primary Disliked sealed Swap",
            "primary Keep kept Stay",
            "primary Retire retiring Stay",
            "kept Retire retiring Stay",
            "retiring Disliked sealed Swap",
            "retiring Gone idle Clear",
        ]
    );
}

/// Each state's primary key is the one that it says, before and after every way.
#[test]
fn keys_change_places_exactly_when_the_state_says_so() {
    for state in states().into_iter().filter(|state| *state != State::Idle) {
        for event in events().into_iter().filter(|event| *event != Event::Abandon) {
            let Ok((after, keys)) = next(&state, event) else { continue };
            if after != State::Idle {
                assert_eq!(
                    state.is_swapped() != after.is_swapped(),
                    keys == Keys::Swap,
                    "{state:?} {after:?}"
                );
            }
        }
    }
}

#[test]
fn a_no_to_the_second_call_leaves_the_first_unknown_with_its_own_date() {
    let lost = State::Unknown { old: OLD.into(), made: 3 };
    let (calling, _) = next(&lost, Event::Replace { now: 9 }).unwrap();
    assert_eq!(next(&calling, Event::Refused).unwrap().0, lost);
    assert_eq!(next(&calling, Event::Lost).unwrap().0, lost);
    let (sealed, _) = next(&calling, Event::Made { new: NEW.into() }).unwrap();
    assert_eq!(sealed.keys(), Some((OLD, Some(NEW), 9)), "the 30 days begin anew");
}

#[test]
fn a_record_reads_back_and_nothing_else_does() {
    for state in states() {
        let record = Record {
            fence: 3,
            lock: Some(Lock { owner: "host/1/00".into(), until: 99 }),
            state,
            last: Some(Finished { made: 1, old: OLD.into(), new: NEW.into(), old_until: Some(5) }),
            ..Record::default()
        };
        let json = record.json().unwrap();
        assert_eq!(Record::read(json.as_bytes()), Some(record), "{json}");
        assert!(json.len() >= crate::vault::secret::BYTES_MIN && !json.contains('\n'));
    }
    let json = Record::default().json().unwrap();
    assert_eq!(json, r#"{"format":1,"fence":0,"state":{"step":"idle"}}"#);
    for other in [
        "",
        "a-key-that-somebody-put-there",
        &json.replace("\"format\":1", "\"format\":2"),
        &json.replace("\"fence\":0", "\"fence\":0,\"more\":1"),
        &json.replace("idle", "sleeping"),
    ] {
        assert_eq!(Record::read(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn a_lock_keeps_others_out_until_its_time_and_its_owner_never() {
    let lock = Lock { owner: "a".into(), until: 10 };
    let record = Record { lock: Some(lock.clone()), ..Record::default() };
    assert_eq!(record.locked_by_another("b", 9), Some(&lock));
    assert_eq!(record.locked_by_another("b", 10), None);
    assert_eq!(record.locked_by_another("a", 9), None);
    assert_eq!(Record::default().locked_by_another("b", 0), None);
}

#[test]
fn the_last_rotation_is_remembered_with_the_life_of_its_old_key() {
    let retiring = State::Retiring { old: OLD.into(), new: NEW.into(), made: 7 };
    let record = Record { state: retiring, ..Record::default() };
    let (dead, _) = record.after(Event::Gone { old_until: None }).unwrap();
    assert_eq!(dead.last.as_ref().map(|last| last.made), Some(7));
    assert_eq!(dead.old_key_lives(0), None);
    let (unseen, _) = record.after(Event::Gone { old_until: Some(100) }).unwrap();
    assert_eq!((unseen.old_key_lives(99), unseen.old_key_lives(100)), (Some(100), None));
    // It outlives the start of the next.
    let (calling, _) = dead.after(Event::Begin { old: NEW.into(), now: 9 }).unwrap();
    assert_eq!(calling.last, dead.last);
}
