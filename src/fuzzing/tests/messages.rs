//! Requests, answers and uploads on generated conversations, and what is noticed when one of them goes wrong.

use std::rc::Rc;

use proptest::prelude::*;

use super::super::{
    answer::{self, Open, Outcome},
    gate_request,
    upload::{self, Talk},
    wire::{Memory, Plan, Source},
};
use crate::{
    framing::{answer as answer_head, chunked, request},
    gate::{Follow, Verdict, inbound::Session},
    refusal::Failure,
    upstream::upload::Unsent,
};

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

    fn ended(&mut self) {
        self.judged.ended();
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

/// What hyper's client makes of it, as if it were the gateway's reader.
fn by_hyper(source: Source, is_head: bool) -> Outcome {
    let read = answer::by_hyper(source.bytes(), is_head, 8_192);
    let end = if read.is_some() { Ok(true) } else { Err(Failure::UpstreamClosed) };
    let taken = source.bytes().len();
    Outcome { answer: read.unwrap_or_default(), end: Some(end), taken, ..Outcome::default() }
}

#[test]
fn a_reader_that_takes_these_answers_is_noticed() {
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
        &[&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(17)[..], b"HTTP/1.1 204 No\r\n\r\n"].concat(),
    ] {
        for seed in [0, 1, 9] {
            let options = answer::Options::new(seed, 0);
            let shown = wire.escape_ascii();
            let any = |source: Source, is_head| Outcome { end: Some(Ok(true)), ..by_hyper(source, is_head) };
            assert!(answer::claims(wire, options, any).is_err(), "{shown}");
            assert_eq!(answer::claims(wire, options, answer::read), Ok(()), "{shown}");
        }
    }
}

#[test]
fn a_flaw_in_reading_an_answer_is_noticed() {
    let length = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello";
    let close = b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\nhello";
    let old = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\nX-Sum: 1\r\n\r\n";
    let to_the_end = b"HTTP/1.1 200 OK\r\n\r\nto the end";
    let behind = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n";
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";
    let bad = b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n";
    fn changed(source: Source, is_head: bool, change: fn(&mut Outcome)) -> Outcome {
        let mut got = answer::read(source, is_head);
        change(&mut got);
        got
    }
    let cases: [(&[u8], answer::Read); 14] = [
        (length, |source, is_head| changed(source, is_head, |got| got.answer.status = "201".into())),
        (length, |source, is_head| changed(source, is_head, |got| drop(got.answer.fields.pop()))),
        (length, |source, is_head| changed(source, is_head, |got| got.answer.body.reverse())),
        (length, |source, is_head| changed(source, is_head, |got| got.waited_for_end = true)),
        (length, |source, is_head| changed(source, is_head, |got| got.end = None)),
        (length, |source, is_head| {
            changed(source, is_head, |got| got.end = Some(Err(Failure::UpstreamMalformed)))
        }),
        (close, |source, is_head| {
            changed(source, is_head, |got| got.end = got.end.map(|end| end.map(|_| true)))
        }),
        (old, |source, is_head| {
            changed(source, is_head, |got| got.end = got.end.map(|end| end.map(|_| true)))
        }),
        (chunked, |source, is_head| changed(source, is_head, |got| got.answer.trailers.clear())),
        // Read to the end of what has come, although the connection broke.
        (to_the_end, |source, is_head| {
            changed(source, is_head, |got| got.end = got.end.map(|end| end.or(Ok(false))))
        }),
        (behind, |source, is_head| changed(source, is_head, |got| got.taken += 1)),
        (cut, |source, is_head| changed(source, is_head, |got| got.end = Some(Ok(false)))),
        (bad, |source, is_head| changed(source, is_head, |got| got.end = Some(Ok(true)))),
        // Pieces matter to it.
        (chunked, |source, is_head| {
            let in_pieces = source.first_piece() < 5;
            let mut got = answer::read(source, is_head);
            if in_pieces {
                got.end = Some(Err(Failure::UpstreamMalformed));
            }
            got
        }),
    ];
    for (number, (wire, flawed)) in (1..).zip(cases) {
        let options = answer::Options::new(1, 0);
        assert_eq!(answer::claims(wire, options, answer::read), Ok(()), "case {number}");
        assert!(answer::claims(wire, options, flawed).is_err(), "case {number}");
    }
}

/// Not only refusals are compared: these are read.
#[test]
fn good_answers_are_read_whole() {
    let wires: [(&[u8], &str, bool); 4] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200", true),
        (
            b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\nX-Sum: 1\r\n\r\n",
            "404",
            true,
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", "204", true),
        (b"HTTP/1.1 200 OK\r\n\r\nto the end", "200", false),
    ];
    for (wire, status, keeps_alive) in wires {
        for seed in 0..20 {
            let got = answer::read(Source::new(wire, seed, false), false);
            assert_eq!((&*got.answer.status, got.end), (status, Some(Ok(keeps_alive))));
        }
    }
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";
    let got = answer::read(Source::new(cut, 0, false), false);
    assert_eq!((&got.answer.body[..], got.end), (&b"hell"[..], Some(Err(Failure::UpstreamClosed))));
}

const CHUNKED: u8 = 0;
const LENGTH: u8 = 1;

#[test]
fn a_flaw_in_an_upload_is_noticed() {
    let chunks = &b"5\r\nhel<NEXT>lo\r\n1\r\n!\r\n0\r\nX-Sum: 7\r\nX-Other: 8\r\n\r\n"[..];
    let (plain, short) = (&b"hel<NEXT>lo"[..], &b"5\r\nhel"[..]);
    type Change = fn(&mut Talk);
    let cases: [(&[u8], u8, u8, Change); 14] = [
        (chunks, CHUNKED, 0, |talk| talk.written.truncate(talk.written.len() - 1)),
        (chunks, CHUNKED, 0, |talk| talk.written.extend(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")),
        (chunks, CHUNKED, 0, |talk| replace(&mut talk.written, "!", "?")),
        (chunks, CHUNKED, 0, |talk| replace(&mut talk.written, "x-sum: 7\r\n", "")),
        (chunks, CHUNKED, 0, |talk| replace(&mut talk.written, "x-sum: 7", "x-other: 8")),
        (chunks, CHUNKED, 0, |talk| replace(&mut talk.written, "/users", "/admin")),
        (chunks, CHUNKED, 0, |talk| talk.flushed -= 1),
        (chunks, CHUNKED, 0, |talk| talk.is_sent = false),
        (chunks, CHUNKED, 0, |talk| talk.end = Some(Err(Unsent::Upstream))),
        (chunks, CHUNKED, 0, |talk| replace(&mut talk.at_first.1, "hel", "h")),
        (plain, LENGTH, 0, |talk| replace(&mut talk.written, "hello", "hellO")),
        (plain, LENGTH, 0, |talk| talk.written.extend(b"!")),
        (plain, LENGTH, 5, |talk| (talk.end, talk.is_sent) = (Some(Ok(())), true)),
        (short, CHUNKED, 0, |talk| talk.written.extend(b"\r\n0\r\n\r\n")),
    ];
    for (number, (body, choices, takes, change)) in (1..).zip(cases) {
        let options = upload::Options::new(0, choices, takes);
        assert_eq!(upload::claims(body, options, |_| {}), Ok(()), "case {number}");
        assert!(upload::claims(body, options, change).is_err(), "case {number}");
    }
}

fn replace(bytes: &mut Vec<u8>, what: &str, by: &str) {
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains(what), "{text:?}");
    *bytes = text.replace(what, by).into_bytes();
}

/// Not only what breaks off is compared.
#[test]
fn good_uploads_are_sent_whole() {
    for seed in 0..20 {
        let sent = |body: &[u8], choices, takes| {
            let options = upload::Options::new(seed, choices, takes);
            let end = std::cell::Cell::new(None);
            assert_eq!(upload::claims(body, options, |talk| end.set(talk.end)), Ok(()));
            end.get()
        };
        assert_eq!(sent(b"5\r\nhello\r\n0\r\n\r\n", CHUNKED, 0), Some(Ok(())));
        assert_eq!(sent(b"hel<NEXT>lo", LENGTH, 0), Some(Ok(())));
        assert_eq!(sent(b"", LENGTH, 0), Some(Ok(())));
        assert_eq!(sent(b"hello", LENGTH, 5), Some(Err(Unsent::Upstream)));
        assert_ne!(sent(b"hello", LENGTH | 16, 0), Some(Ok(())), "one byte less than declared");
    }
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
    fn whatever_is_read_is_the_answer_and_no_byte_more(
        messages in prop::collection::vec(
            (answer_head::tests::nearly_an_answer(), some_body(), prop::sample::select(vec!["", "<NEXT>"])), 1..5),
        seed: u8,
        choices: u8,
    ) {
        let wire = messages.into_iter().flat_map(|(head, body, cut)| [head, body, cut.into()]).flatten();
        answer::check(&[seed, choices].into_iter().chain(wire).collect::<Vec<u8>>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn whatever_is_sent_on_is_the_body_that_came(
        body in some_body(), more in some_body(), seed: u8, choices: u8, takes in prop_oneof![Just(0), any::<u8>()],
    ) {
        let input = [&[seed, choices, takes][..], &body, b"<NEXT>", &more].concat();
        upload::check(&input);
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
