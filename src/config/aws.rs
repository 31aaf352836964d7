//! `[aws]`: AWS Secrets Manager.

use std::time::Duration;

use super::Refresh;

/// `[aws]`. Who the gateway is there is found by AWS's standard credential chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aws {
    /// Where secrets that are named are looked for.
    pub region: String,
    /// Asked instead of the region's own host; `http://` only where the host is this machine.
    pub endpoint: Option<String>,
    /// How its secrets are kept fresh. Default 1 min, with a grace of 1 h.
    pub refresh: Refresh,
    /// Name, TCP and TLS together. Default 5 s, 100 ms to 1 min.
    pub connect_timeout: Duration,
    /// From a request to the last byte of its answer. Default 10 s, 100 ms to 1 min.
    pub read_timeout: Duration,
}
