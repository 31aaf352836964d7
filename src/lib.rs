//! mxgate stands between a company's services and MX (Open Banking).
//!
//! One request's walk, and the modules in its order:
//! `listener` accepts and makes a peer; the gate in front of hyper lets one unambiguous request
//! through; [`gateway`] opens a [`record`] and walks: `admission` (who), `policy` (what),
//! `credential` (with which secret), `upstream` (forward), [`redaction`] (the answer streams back
//! masked). Every early end is a [`gateway::refusal`] and goes through one place.
//!
//! Beside the walk: [`config`] and [`vault`] become one `snapshot`; `control` serves operators.

pub mod config;
pub mod framing;
pub mod gateway;
pub mod metrics;
pub mod mx;
pub mod record;
pub mod redaction;
pub mod stand_in;
pub mod vault;
