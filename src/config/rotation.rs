//! `[environment.NAME.rotation]`: how an environment's key is rotated, and when its age is worth a word.

use std::time::Duration;

/// What `mxgate rotate` and the schedule go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// MX's name for the client, which its rotation API wants in the path; `None`: `mxgate rotate` needs it as an option.
    pub client_guid: Option<String>,
    /// The running gateway rotates a key of that age; `None`: only an operator does. 1 to 365 days.
    pub schedule: Option<Duration>,
    /// Whether the old key is left to MX's 30 days instead of being retired. Default false.
    pub keep_old: bool,
    /// A key of that age is warned of. Default 90 days, 1 to 3,650.
    pub warn_after: Duration,
    /// From the new key's first use until the old one may go, at least. Default 10 s, 0 to 1 day. It is longer where
    /// a vault's refresh and grace are.
    pub wait_min: Duration,
    /// How long the lock of a run that was killed lasts. A call to MX must be answered within a fifth of it. Default
    /// 2 min, 1 s to 10 min.
    pub lease: Duration,
}
