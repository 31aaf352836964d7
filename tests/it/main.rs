//! The gateway from outside: the built binary, real sockets, the stand-in as upstream. A file per behaviour.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a failed test says why")]

mod admission;
mod balance;
mod browser;
mod canary;
mod check;
mod clients;
mod control;
mod credentials;
mod demo;
mod environments;
mod faults;
mod forwarding;
mod framing;
#[allow(dead_code, reason = "a toolbox: not every tool is in use at every time")]
mod harness;
mod headers;
mod isolation;
mod leaving;
mod lifecycle;
mod limits;
mod listeners;
mod metrics;
mod mutual_tls;
mod pressure;
mod raw_upstream;
mod reload;
mod replay;
mod secrets;
mod semantics;
mod strict;
mod suspended_callers;
mod tokens;
mod upstream;
mod upstream_tls;
