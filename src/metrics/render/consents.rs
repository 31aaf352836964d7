//! Users' connections: how many hold, and what happens to them.

use std::{fmt, time::SystemTime};

use prometheus_client::metrics::MetricType;

use super::{super::Inner, page::Page};
use crate::oauth::cell::seconds;

impl Inner {
    /// Of a gateway that has any configured.
    pub(super) fn consents(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(broker) = self.broker.get() else { return Ok(()) };
        let status = broker.status(seconds(SystemTime::now()));
        let help = "Users' connections, by whether the consent still holds; all replicas show the same";
        let mut family = page.family("mxgate_consents", help, None, MetricType::Gauge)?;
        for (state, count) in [("live", status.live), ("gone", status.gone)] {
            family.gauge_of(&[("state", state)], count as f64)?;
        }
        page.gauge(
            "mxgate_consents_ending",
            "Consents that cannot be refreshed and end within a week",
            status.ending as u64,
        )?;
        page.gauge("mxgate_kept_tokens", "Tokens of MX's that are kept under handles", status.kept as u64)?;
        page.gauge(
            "mxgate_kept_tokens_ending",
            "Tokens that are kept and end within a week",
            status.kept_ending as u64,
        )?;
        page.gauge(
            "mxgate_consent_store_open",
            "Whether the store of connections is open",
            u64::from(status.open),
        )?;
        let help = "Refreshes of access tokens, by what came of them";
        let mut family = page.family("mxgate_token_refreshes", help, None, MetricType::Counter)?;
        for (outcome, count) in broker.counts().refreshes() {
            family.counter(&[("outcome", outcome)], count)?;
        }
        let help = "What happened on the way to a connection, and to its end";
        let mut family = page.family("mxgate_consent_events", help, None, MetricType::Counter)?;
        for (event, code, count) in broker.counts().events() {
            family.counter(&[("event", event), ("code", code)], count)?;
        }
        Ok(())
    }
}
