//! What an upstream answers, judged: exactly one well-formed answer for each request, and nothing else.
//!
//! A violation reaches hyper's client as an error, so it becomes a 502, or, once the head was handed on, a
//! transfer that is cut off where the caller can see it.

use std::{cell::Cell, io, rc::Rc};

use super::{Follow, Verdict};
use crate::framing::{
    HeadLimits,
    answer::{self, AnswerFraming},
    chunked::ChunkedScanner,
};

/// What is in an error that this gate made.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not well formed")]
pub(crate) struct Malformed;

/// Bounds of an answer's head. hyper has the same for the fields.
const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 64 * 1024,
    header_count_max: 100,
    request_line_bytes_max: 8 * 1024,
    body_bytes_max: u64::MAX,
};

/// Interim answers (1xx) that are read before the final one.
const INTERIM_MAX: u8 = 16;

/// What one upstream connection and the exchange on it share.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Set before a request is sent: whether it is a HEAD request, whose answer has no body.
    awaiting: Cell<Option<bool>>,
    /// A part of the request has been written.
    written: Cell<bool>,
    /// The request, with its body, has been handed over whole.
    pub(crate) request_sent: Cell<bool>,
    /// The answer has been read whole.
    pub(crate) answer_read: Cell<bool>,
}

impl Turn {
    /// Opens the way for one answer. `sent` when the request has no body to be sent after its head.
    pub(crate) fn begin(&self, is_head: bool, sent: bool) {
        self.awaiting.set(Some(is_head));
        self.written.set(false);
        self.request_sent.set(sent);
        self.answer_read.set(false);
    }
}

/// Follows one upstream's bytes.
#[derive(Debug)]
pub(crate) struct Answers {
    turn: Rc<Turn>,
    limits: HeadLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    Idle,
    Head { seen: usize, is_head: bool, interim: u8 },
    Length(u64),
    Chunked(Box<ChunkedScanner>),
    UntilClose,
    Failed,
}

impl Answers {
    pub(crate) fn new(turn: Rc<Turn>) -> Self {
        Self { turn, limits: LIMITS, state: State::Idle }
    }

    fn fail(&mut self) -> Verdict {
        self.state = State::Failed;
        Verdict::Fail
    }

    fn finish(&mut self) {
        self.turn.answer_read.set(true);
        self.state = State::Idle;
    }

    fn head(&mut self, bytes: &[u8], seen: usize, is_head: bool, interim: u8) -> Verdict {
        let head = match answer::scan_head(bytes, seen, &self.limits, is_head) {
            Err(_) => return self.fail(),
            Ok(None) => {
                self.state = State::Head { seen: bytes.len(), is_head, interim };
                return Verdict::More;
            }
            Ok(Some(head)) => head,
        };
        if head.interim {
            if interim >= INTERIM_MAX {
                return self.fail();
            }
            self.state = State::Head { seen: 0, is_head, interim: interim + 1 };
            return Verdict::Accept(head.len);
        }
        match head.framing {
            AnswerFraming::None | AnswerFraming::Length(0) => self.finish(),
            AnswerFraming::Length(length) => self.state = State::Length(length),
            AnswerFraming::Chunked => self.state = State::Chunked(Box::new(ChunkedScanner::new(u64::MAX))),
            AnswerFraming::UntilClose => self.state = State::UntilClose,
        }
        Verdict::Accept(head.len)
    }
}

impl<S> Follow<S> for Answers {
    const KEEPS_STREAM: bool = false;

    fn follow(&mut self, bytes: &[u8]) -> Verdict {
        match &mut self.state {
            // What comes before the request has gone out is no answer to it.
            State::Idle if !self.turn.written.get() => self.fail(),
            State::Idle => match self.turn.awaiting.take() {
                Some(is_head) => self.head(bytes, 0, is_head, 0),
                None => self.fail(),
            },
            &mut State::Head { seen, is_head, interim } => self.head(bytes, seen, is_head, interim),
            State::Length(left) => {
                let count = (*left).min(bytes.len() as u64);
                *left -= count;
                if *left == 0 {
                    self.finish();
                }
                Verdict::Accept(count as usize)
            }
            State::Chunked(scanner) => match scanner.scan(bytes) {
                Err(_) => self.fail(),
                Ok(scanned) => {
                    if scanned.done {
                        self.finish();
                    }
                    if scanned.accepted == 0 { Verdict::More } else { Verdict::Accept(scanned.accepted) }
                }
            },
            State::UntilClose => Verdict::Accept(bytes.len()),
            State::Failed => Verdict::Fail,
        }
    }

    fn certain(&self) -> u64 {
        match &self.state {
            State::Length(left) => left.saturating_sub(1),
            State::Chunked(scanner) => scanner.certain().saturating_sub(1),
            State::UntilClose => u64::MAX,
            _ => 0,
        }
    }

    fn passed(&mut self, count: u64) {
        match &mut self.state {
            State::Length(left) => *left -= count,
            State::Chunked(scanner) => scanner.pass(count),
            _ => {}
        }
    }

    fn takes(&mut self, takes: bool, _stream: &S) {
        if takes {
            self.turn.written.set(true);
        }
    }

    fn ended(&mut self) -> io::Result<()> {
        match self.state {
            // hyper knows that it was waiting for a head; a close-delimited body ends here.
            State::Idle | State::Head { .. } => Ok(()),
            State::UntilClose => {
                self.turn.answer_read.set(true);
                Ok(())
            }
            State::Length(_) | State::Chunked(_) | State::Failed => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
