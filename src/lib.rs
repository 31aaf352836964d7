//! mxgate stands between a company's services and MX (Open Banking).
//!
//! One request's walk, and the modules in its order:
//! `listener` accepts and makes a peer; the gate in front of hyper lets one unambiguous request
//! through; [`gateway`] opens a [`record`] and walks: `admission` (who), `limits` (how much), [`policy`] (what),
//! `credential` (with which secret), `upstream` (forward), [`redaction`] (the answer streams back
//! masked). Every early end is a [`refusal`] and goes through one place.
//!
//! Beside the walk: [`config`] and [`vault`] become one `snapshot`; [`control`] serves operators, in the words of [`status`].

// The commands name the library as whoever uses it would.
extern crate self as mxgate;

pub mod admission;
pub mod app;
mod blocking;
mod browser;
pub mod capacity;
#[doc(hidden)]
pub mod cli;
mod coded;
pub mod config;
pub mod connections;
pub mod control;
mod credential;
pub mod doctor;
pub mod explain;
pub mod framing;
#[cfg(test)]
#[allow(unreachable_pub, reason = "shared with the integration tests")]
#[path = "../tests/it/free_address.rs"]
mod free_address;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gate;
pub mod gateway;
mod https;
mod limits;
pub mod listener;
pub mod log;
pub mod metrics;
pub mod mx;
mod oauth;
pub mod policy;
pub mod process;
pub mod record;
pub mod redaction;
pub mod refusal;
pub mod rotation;
mod snapshot;
#[cfg(feature = "stages")]
#[doc(hidden)]
pub mod stages;
pub mod stand_in;
pub mod status;
mod storage;
mod tls;
pub mod tokens;
mod tree;
mod upstream;
pub mod users;
pub mod vault;
mod worker;
