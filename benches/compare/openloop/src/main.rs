//! Sends HTTP requests on a fixed schedule and measures each answer from the time its request was *due*.
//!
//! A closed loop waits for an answer before it asks again, so when a server stalls it asks less, and the stall is one
//! slow answer among thousands (coordinated omission). Here request `n` is due at `start + n / rate`, whatever became
//! of the others. Each connection takes every so-many-th request; one whose connection is still waiting for an earlier
//! answer is sent late, and its wait counts. Generators that were looked at run on timers of a millisecond, which is
//! ten times what is measured here; a thread a connection, asleep until its next request is due, is on time within
//! microseconds. How late each request was sent is in the output too, so that a run can be judged.
//!
//! Input: arguments. Output: one line of JSON with nanoseconds, in the order of connections:
//! `{"latency":[...],"lateness":[...]}`. Requests due during the warm-up are sent and not counted. Any failure, or an
//! answer other than 200 with a `Content-Length`, ends it with exit code 1 and no figures.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

const USAGE: &str = "usage: openloop ADDRESS PATH RATE CONNECTIONS WARM_UP_SECONDS SECONDS [HEADER...]";
/// An answer that takes longer is a failure.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    // Timers may fire this many nanoseconds late; the default is 50 microseconds. Threads inherit it.
    let _ = fs::write("/proc/self/timerslack_ns", "1");
    let outcome = Plan::from_arguments(&env::args().skip(1).collect::<Vec<_>>()).and_then(|plan| plan.run());
    match outcome {
        Ok(samples) => {
            println!("{}", json(&samples));
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("openloop: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// What is sent, where to, and when.
struct Plan {
    address: String,
    request: Vec<u8>,
    /// Requests a second, over all connections.
    rate: u32,
    connections: u32,
    warm_up: Duration,
    /// After the warm-up.
    counted: Duration,
}

/// One answer, measured from the time its request was due.
struct Sample {
    /// Until its last byte was read.
    latency: Duration,
    /// Until its request was about to be sent.
    lateness: Duration,
}

impl Plan {
    fn from_arguments(arguments: &[String]) -> Result<Self, String> {
        let [address, path, rate, connections, warm_up, counted, headers @ ..] = arguments else {
            return Err(USAGE.to_owned());
        };
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n");
        for header in headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        Ok(Self {
            address: address.clone(),
            request: request.into_bytes(),
            rate: above_zero(rate)?,
            connections: above_zero(connections)?,
            warm_up: seconds(warm_up)?,
            counted: seconds(counted)?,
        })
    }

    fn run(&self) -> Result<Vec<Sample>, String> {
        let sockets = (0..self.connections).map(|_| self.connect()).collect::<Result<Vec<_>, _>>()?;
        // Time for every thread to be asleep before the first request is due.
        let start = Instant::now() + Duration::from_millis(20);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.connections)
                .zip(sockets)
                .map(|(first, socket)| scope.spawn(move || self.drive(socket, start, first)))
                .collect();
            let mut samples = Vec::new();
            for thread in threads {
                samples.extend(thread.join().map_err(|_| "a thread panicked".to_owned())??);
            }
            Ok(samples)
        })
    }

    fn connect(&self) -> Result<TcpStream, String> {
        let socket =
            TcpStream::connect(&self.address).map_err(|error| format!("{}: {error}", self.address))?;
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(|error| error.to_string())?;
        Ok(socket)
    }

    /// One connection's requests: `first`, and every `connections`-th after it.
    #[expect(clippy::disallowed_methods, reason = "the schedule is what is waited for")]
    fn drive(&self, mut socket: TcpStream, start: Instant, first: u32) -> Result<Vec<Sample>, String> {
        let mut samples = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        for number in (first..).step_by(self.connections as usize) {
            let after = due_after(number, self.rate);
            if after >= self.warm_up + self.counted {
                break;
            }
            let due = start + after;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let lateness = due.elapsed();
            socket.write_all(&self.request).map_err(|error| format!("while sending: {error}"))?;
            read_answer(&mut socket, &mut buffer)?;
            if after >= self.warm_up {
                samples.push(Sample { latency: due.elapsed(), lateness });
            }
        }
        Ok(samples)
    }
}

/// When request `number` is due, from the start.
fn due_after(number: u32, rate: u32) -> Duration {
    Duration::from_nanos(u64::from(number) * 1_000_000_000 / u64::from(rate))
}

/// Reads one answer to its last byte.
fn read_answer(socket: &mut impl Read, buffer: &mut [u8]) -> Result<(), String> {
    let mut have = 0;
    let whole = loop {
        match answer_length(&buffer[..have])? {
            Some(length) => break length,
            None if have == buffer.len() => return Err("an answer's head is too long".to_owned()),
            None => have += read_some(socket, &mut buffer[have..])?,
        }
    };
    // Of the body only the length counts.
    while have < whole {
        have += read_some(socket, buffer)?;
    }
    if have > whole { Err("more came than the answer".to_owned()) } else { Ok(()) }
}

fn read_some(socket: &mut impl Read, buffer: &mut [u8]) -> Result<usize, String> {
    match socket.read(buffer) {
        Ok(0) => Err("the connection was closed before the answer's end".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("while reading: {error}")),
    }
}

/// The length of head and body together, once the head is complete.
fn answer_length(have: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = have.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&have[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200") {
        return Err(format!("the answer was {status:?}"));
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok())
        .ok_or("an answer without Content-Length")?;
    Ok(Some(end + 4 + length))
}

fn above_zero(argument: &str) -> Result<u32, String> {
    argument
        .parse()
        .ok()
        .filter(|&number| number > 0)
        .ok_or_else(|| format!("{argument:?} is no number above 0\n{USAGE}"))
}

fn seconds(argument: &str) -> Result<Duration, String> {
    argument
        .parse()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .ok_or_else(|| format!("{argument:?} is no number of seconds\n{USAGE}"))
}

fn json(samples: &[Sample]) -> String {
    let list = |of: fn(&Sample) -> Duration| {
        let mut text = String::new();
        for sample in samples {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{}", of(sample).as_nanos());
        }
        text
    };
    format!(r#"{{"latency":[{}],"lateness":[{}]}}"#, list(|one| one.latency), list(|one| one.lateness))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n";

    #[test]
    fn requests_are_due_evenly() {
        assert_eq!(due_after(0, 500), Duration::ZERO);
        assert_eq!(due_after(1, 500), Duration::from_millis(2));
        assert_eq!(due_after(15_000, 5_000), Duration::from_secs(3));
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let whole = [HEAD, b"abc"].concat();
        for piece in [1, 2, whole.len()] {
            assert_eq!(read_answer(&mut InPieces(&whole, piece), &mut [0; 64]), Ok(()));
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_or_too_long_is_a_failure() {
        for wrong in [&b"ab"[..], b"abcd"] {
            let whole = [HEAD, wrong].concat();
            assert!(read_answer(&mut InPieces(&whole, whole.len()), &mut [0; 64]).is_err());
        }
    }

    #[test]
    fn only_200_with_a_length_counts() {
        assert_eq!(answer_length(HEAD), Ok(Some(HEAD.len() + 3)));
        assert_eq!(answer_length(&HEAD[..HEAD.len() - 1]), Ok(None));
        assert!(answer_length(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 3\r\n\r\n").is_err());
        assert!(answer_length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the server stalls on purpose")]
    fn a_stall_counts_for_every_request_that_was_due_in_it() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap().to_string();
        let stall = Duration::from_millis(200);
        thread::spawn(move || {
            let (mut socket, _) = server.accept().unwrap();
            let mut buffer = [0; 1024];
            for number in 0.. {
                if socket.read(&mut buffer).unwrap_or(0) == 0 {
                    return;
                }
                if number == 5 {
                    thread::sleep(stall);
                }
                socket.write_all(&[HEAD, b"abc"].concat()).unwrap();
            }
        });
        let arguments = [&address, "/", "100", "1", "0", "0.5"].map(str::to_owned);
        let samples = Plan::from_arguments(&arguments).unwrap().run().unwrap();
        assert_eq!(samples.len(), 50);
        // A closed loop would have seen one slow answer; due in the stall were about twenty.
        assert!(samples.iter().filter(|one| one.latency > stall / 4).count() >= 10);
        assert!(samples[..5].iter().all(|one| one.latency < stall / 4));
    }

    /// Hands out at most so many bytes a read.
    struct InPieces<'a>(&'a [u8], usize);

    impl Read for InPieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }
}
