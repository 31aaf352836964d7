//! What became of requests, what they took, and what was carried.

use std::{fmt, sync::atomic::Ordering::Relaxed};

use prometheus_client::metrics::MetricType;

use super::{
    super::{CLASSES, Count, Inner, Set, histogram::Total},
    page::Page,
};
use crate::{
    admission::reason::Reason,
    refusal::{Failure, Refusal},
    users,
};

impl Inner {
    pub(super) fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        self.answered(page)?;
        self.ended_early(page)?;

        let help = "Fetches of the keys that end users' tokens are verified with, by result";
        let mut family = page.family("mxgate_key_fetches", help, None, MetricType::Counter)?;
        for (result, count) in ["success", "failure"].iter().zip(&self.key_fetches) {
            family.counter(&[("result", result)], count.load(Relaxed))?;
        }

        self.times(page)?;
        let help = "Body bytes received from callers";
        page.bytes("mxgate_received", help, self.total(|set| &set.bytes_in))?;
        let help = "Body bytes sent to callers";
        page.bytes("mxgate_sent", help, self.total(|set| &set.bytes_out))?;
        let help = "Secrets masked in answers";
        page.counter("mxgate_secrets_masked", help, self.total(|set| &set.masked))
    }

    fn answered(&self, page: &mut Page<'_>) -> fmt::Result {
        let help = "Requests that are over, by operation and class of status (none: no answer)";
        let mut family = page.family("mxgate_requests", help, None, MetricType::Counter)?;
        let names = self.operations.iter().map(String::as_str).chain(["none"]);
        for (row, operation) in names.enumerate() {
            for (column, status) in CLASSES.into_iter().enumerate() {
                let one = |set: &Set| set.requests.get(row).and_then(|row| row.get(column)).map(Count::get);
                let count: u64 = self.workers.iter().filter_map(|set| one(set)).sum();
                // About 120 operations by 6 classes, of which few ever occur.
                if count > 0 {
                    family.counter(&[("operation", operation), ("status", status)], count)?;
                }
            }
        }
        Ok(())
    }

    fn ended_early(&self, page: &mut Page<'_>) -> fmt::Result {
        let codes = Refusal::ALL.iter().map(|refusal| refusal.code());
        let help = "Requests that were refused, by code";
        self.by_word(page, "mxgate_refusals", help, ("code", codes), |set| &set.refusals)?;

        let help = "Requests that would be refused, were their callers not in observe mode";
        page.counter("mxgate_would_refuse", help, self.sum(|set| set.would_refuse.get()))?;

        let reasons = Reason::ALL.iter().map(|reason| reason.code());
        let help = "Callers that were not admitted, by reason";
        self.by_word(page, "mxgate_callers_not_admitted", help, ("reason", reasons), |set| {
            &set.not_admitted
        })?;

        let codes = Failure::ALL.iter().map(|failure| failure.code());
        let help = "Requests that failed at the upstream or in the gateway, by code";
        self.by_word(page, "mxgate_failures", help, ("code", codes), |set| &set.failures)?;

        let reasons = users::Reason::ALL.iter().map(|reason| reason.code());
        let help = "Requests that were not for a user whom their caller may reach, by reason";
        self.by_word(page, "mxgate_user_refusals", help, ("reason", reasons), |set| &set.not_bound)
    }

    /// A family with a sample for each word of `label`, in the order of the workers' counts.
    fn by_word<'w>(
        &self,
        page: &mut Page<'_>,
        name: &str,
        help: &str,
        (label, words): (&str, impl Iterator<Item = &'w str>),
        counts: impl Fn(&Set) -> &[Count],
    ) -> fmt::Result {
        let mut family = page.family(name, help, None, MetricType::Counter)?;
        for (at, word) in words.enumerate() {
            let count = self.sum(|set| counts(set).get(at).map_or(0, Count::get));
            family.counter(&[(label, word)], count)?;
        }
        Ok(())
    }

    fn times(&self, page: &mut Page<'_>) -> fmt::Result {
        let (mut gateway, mut upstream) = (Total::default(), Total::default());
        for set in &self.workers {
            set.gateway.add_to(&mut gateway);
            set.upstream.add_to(&mut upstream);
        }
        let help = "Time that the gateway itself took for a request";
        page.histogram("mxgate_request_gateway_time", help, &gateway)?;
        let help = "Time that a request waited for its upstream";
        page.histogram("mxgate_request_upstream_time", help, &upstream)
    }
}
