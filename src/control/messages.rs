//! What is ordered over the control socket, as JSON. Both sides use these types; unknown fields are faults. What is told there
//! is in [`status`](crate::status).

use serde::{Deserialize, Serialize};

use crate::status::Target;

/// The body of `POST /log-level`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLogLevel {
    /// For example `debug` or `info,mxgate::upstream=debug`; `None` goes back to the configured one.
    pub filter: Option<String>,
    /// Seconds until the configured one returns: 1 to 86,400, default 900.
    #[serde(default)]
    pub for_s: Option<u64>,
}

/// The body of `POST /suspend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suspend {
    /// What to stop.
    pub target: Target,
    /// Seconds until it ends by itself, at least 1; `None`: until `resume`.
    #[serde(default)]
    pub for_s: Option<u64>,
}

/// The body of `POST /resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// What to serve again, exactly as it was suspended.
    pub target: Target,
}

/// The answer to a command that needs no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What was done, for people.
    pub done: String,
}

/// The answer to a command that was not done, with a status from 400 on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What, and what to do, for people.
    pub error: String,
}
