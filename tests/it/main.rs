//! The gateway from outside: the built binary, real sockets, the stand-in as upstream. A file per behaviour.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "a failed test says why")]

mod admission;
mod agreement;
#[cfg(feature = "aws")]
mod aws;
mod balance;
mod browser;
mod budgets;
mod bypass;
mod caller_limits;
mod caller_tokens;
mod canary;
mod check;
mod clients;
mod connect_proxy;
mod consents;
mod control;
mod credentials;
mod demo;
mod doctor;
mod environments;
mod explain;
mod faults;
mod field_masks;
mod forwarding;
mod framing;
mod free_address;
mod getting_out;
mod grants;
mod handles;
#[allow(dead_code, reason = "a toolbox: not every tool is in use at every time")]
mod harness;
mod headers;
mod isolation;
mod judge;
mod leaving;
mod lifecycle;
mod limits;
mod listeners;
mod many_secrets;
mod metrics;
mod mutual_tls;
mod oauth;
mod observe;
mod openbao;
mod pressure;
mod raw_upstream;
mod reload;
mod replay;
mod rotate;
mod sealing;
mod secret_sources;
mod secret_volume;
mod secrets;
mod semantics;
mod strict;
mod suspended_callers;
#[allow(dead_code, reason = "shared with the unit tests")]
mod tokens;
mod traffic;
mod two_keys;
mod upstream;
mod upstream_tls;
mod users;
mod vault_opener;
