//! Both gates on generated conversations, and what is noticed when a gate lets too much through.

use std::{io, rc::Rc};

use proptest::prelude::*;

use super::super::{
    gate_answer, gate_request,
    wire::{Memory, Plan},
};
use crate::{
    framing::{answer, chunked, request},
    gate::{
        Follow, Verdict,
        answer::{Answers, Turn},
        inbound::Session,
    },
};

/// Lets everything through.
struct Open;

impl Follow<Memory> for Open {
    const KEEPS_STREAM: bool = true;

    fn follow(&mut self, bytes: &[u8]) -> Verdict {
        Verdict::Accept(bytes.len())
    }

    fn certain(&self) -> u64 {
        0
    }

    fn passed(&mut self, _count: u64) {}

    fn ended(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The gateway's follower with one defect.
struct Flawed {
    judged: gate_request::Judged,
    flaw: Flaw,
}

#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// Does not notice that an answer is out.
    NeverFlushed,
    /// Lets the next request pass while one is in flight.
    NeverHolds,
    /// Goes on after a refusal.
    NeverStops,
}

impl Flawed {
    fn new(session: Rc<Session>, flaw: Flaw) -> Self {
        Self { judged: gate_request::Judged::new(session), flaw }
    }
}

impl Follow<Memory> for Flawed {
    const KEEPS_STREAM: bool = true;

    fn follow(&mut self, bytes: &[u8]) -> Verdict {
        match (self.judged.follow(bytes), self.flaw) {
            (Verdict::Hold, Flaw::NeverHolds) | (Verdict::Refuse, Flaw::NeverStops) => {
                Verdict::Accept(bytes.len())
            }
            (verdict, _) => verdict,
        }
    }

    fn certain(&self) -> u64 {
        self.judged.certain()
    }

    fn passed(&mut self, count: u64) {
        self.judged.passed(count);
    }

    fn ended(&mut self) -> io::Result<()> {
        self.judged.ended()
    }

    fn flushed(&mut self, stream: &Memory) -> bool {
        self.flaw != Flaw::NeverFlushed && self.judged.flushed(stream)
    }

    fn waiting(&mut self) {
        self.judged.waiting();
    }
}

#[test]
fn a_gate_that_lets_these_requests_through_is_noticed() {
    for wire in [
        &b"GET / HTTP/1.1\nHost: a\n\n"[..],
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        b"GET /|\" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 01\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x\r\na\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nHost: b\r\n\r\n",
        b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        for seed in [0, 1, 9] {
            let options = gate_request::Options::new(seed, 0);
            let shown = wire.escape_ascii();
            assert!(gate_request::claims(wire, options, |_| Open).is_err(), "{shown}");
            assert_eq!(gate_request::claims(wire, options, gate_request::Judged::new), Ok(()), "{shown}");
        }
    }
}

#[test]
fn a_flaw_in_the_order_of_things_is_noticed() {
    let two = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    let bad = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\nHost: a\r\n\r\n";
    type Make = fn(Rc<Session>) -> Flawed;
    let none: Make = |session| Flawed::new(session, Flaw::None);
    let cases: [(&[u8], Make); 3] = [
        (two, |session| Flawed::new(session, Flaw::NeverFlushed)),
        (two, |session| Flawed::new(session, Flaw::NeverHolds)),
        (bad, |session| Flawed::new(session, Flaw::NeverStops)),
    ];
    for (wire, flawed) in cases {
        // The service takes its time.
        let options = gate_request::Options::new(0, 1);
        assert_eq!(gate_request::claims(wire, options, none), Ok(()));
        assert!(gate_request::claims(wire, options, flawed).is_err(), "{}", wire.escape_ascii());
    }
}

#[test]
fn a_gate_that_lets_these_answers_through_is_noticed() {
    for wire in [
        &b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x01\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 OK\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        for seed in [0, 1, 9] {
            let options = gate_answer::Options::new(seed, 0);
            let shown = wire.escape_ascii();
            assert!(gate_answer::claims(wire, options, |_: Rc<Turn>| Open).is_err(), "{shown}");
            assert_eq!(gate_answer::claims(wire, options, Answers::new), Ok(()), "{shown}");
        }
    }
}

/// Not only refusals are compared: these are read, answered and given back.
#[test]
fn good_answers_reach_the_client() {
    let wire =
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello<NEXT>HTTP/1.1 404 No\r\nTransfer-Encoding: \
        chunked\r\n\r\n2\r\nno\r\n0\r\nX-Sum: 1\r\n\r\n<NEXT>HTTP/1.1 200 OK\r\n\r\nto the end";
    for seed in 0..20 {
        let options = gate_answer::Options::new(seed, 0);
        assert_eq!(
            gate_answer::answered(wire, options),
            [Some("200"), Some("404"), Some("200")].map(|it| it.map(str::to_owned))
        );
    }
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";
    assert_eq!(gate_answer::answered(cut, gate_answer::Options::new(0, 0)), [None]);
}

/// A body for whatever framing the head before it declares, or does not.
fn some_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(vec![]),
        2 => Just(b"hello".to_vec()),
        1 => Just(b"hell".to_vec()),
        3 => chunked::tests::nearly_a_body(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn whatever_passes_towards_us_is_one_request_after_another(
        messages in prop::collection::vec((request::tests::nearly_a_request(), some_body()), 1..4),
        seed: u8,
        choices: u8,
    ) {
        let wire = messages.into_iter().flat_map(|(head, body)| [head, body]).flatten();
        gate_request::check(&[seed, choices].into_iter().chain(wire).collect::<Vec<u8>>());
    }

    #[test]
    fn whatever_passes_back_is_one_answer_for_each_request(
        messages in prop::collection::vec(
            (answer::tests::nearly_an_answer(), some_body(), prop::sample::select(vec!["", "<NEXT>"])), 1..5),
        seed: u8,
        choices: u8,
    ) {
        let wire = messages.into_iter().flat_map(|(head, body, cut)| [head, body, cut.into()]).flatten();
        gate_answer::check(&[seed, choices].into_iter().chain(wire).collect::<Vec<u8>>());
    }
}

#[test]
fn a_plan_is_what_its_seed_says() {
    let sizes = |seed| {
        let mut plan = Plan::new(seed);
        (0..50).map(|_| plan.next_some()).collect::<Vec<_>>()
    };
    assert!(sizes(0).iter().all(|size| *size == usize::MAX) && sizes(1).iter().all(|size| *size == 1));
    let some = sizes(9);
    assert_eq!(some, sizes(9));
    assert!(some.iter().any(|size| *size != some[0]) && sizes(20) != some);
}
