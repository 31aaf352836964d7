//! The text of a scrape: OpenMetrics for scrapers that ask for it, the classic Prometheus text for the rest.

mod consents;
mod page;
mod requests;
mod rotations;
mod secrets;

use std::{fmt, sync::atomic::Ordering::Relaxed, time::Instant};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use self::page::Page;
use super::{Inner, Set, histogram, process};
use crate::status::{BreakerStatus, UpstreamStatus, Use};

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`, which every tool reads.
    Classic,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// What a scraper's `Accept` asks for. OpenMetrics has to be named: it is Prometheus's first choice,
    /// and `*/*` comes from people's tools.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        let asks = |part: &str| {
            let mut parameters = part.split(';').map(str::trim);
            let named = parameters.next().is_some_and(|media| media.eq_ignore_ascii_case(OPEN_METRICS_MEDIA));
            named && !parameters.any(|parameter| matches!(parameter, "q=0" | "q=0.0"))
        };
        if accept.split(',').any(asks) { Self::OpenMetrics } else { Self::Classic }
    }

    /// The answer's `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

const OPEN_METRICS_MEDIA: &str = "application/openmetrics-text";

pub(super) fn render(inner: &std::sync::Arc<Inner>, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(std::sync::Arc::clone(inner)));
    let mut page = String::with_capacity(16 * 1024);
    // A `String` takes every write, and no encoder above fails by itself.
    let _: fmt::Result = text::encode(&mut page, &registry);
    match format {
        Format::OpenMetrics => page,
        Format::Classic => classic(&page),
    }
}

/// OpenMetrics names a counter's family without `_total`, has units and an end mark; the classic text
/// has none of these. Samples are the same.
fn classic(open_metrics: &str) -> String {
    let mut page = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            // Held back: only the type, on the next line, tells a counter.
            help = Some(line);
        } else if let Some(family) = line.strip_prefix("# TYPE ") {
            let suffix = if family.ends_with(" counter") { "_total" } else { "" };
            for described in [help.take(), Some(line)].into_iter().flatten() {
                page.push_str(&with_suffix(described, suffix));
            }
        } else if !line.starts_with("# UNIT ") && line != "# EOF" {
            page.push_str(line);
            page.push('\n');
        }
    }
    page
}

/// `# HELP name text`, with `suffix` after the name.
fn with_suffix(line: &str, suffix: &str) -> String {
    let mut words = line.splitn(4, ' ');
    let mut next = || words.next().unwrap_or_default();
    let (hash, kind, name, rest) = (next(), next(), next(), next());
    format!("{hash} {kind} {name}{suffix} {rest}\n")
}

impl Collector for Inner {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder };
        self.requests(&mut page)?;
        self.versions_used(&mut page)?;
        self.connections(&mut page)?;
        self.upstreams(&mut page)?;
        self.keys(&mut page)?;
        self.rotations(&mut page)?;
        self.consents(&mut page)?;
        let secrets = self.shown.get().map(|(_, keeper)| keeper.status()).unwrap_or_default();
        secrets::secrets(&mut page, &secrets)?;
        self.event_loops(&mut page)?;
        self.records(&mut page)?;
        self.reloads(&mut page)?;
        self.process(&mut page)
    }
}

impl Inner {
    fn versions_used(&self, page: &mut Page<'_>) -> fmt::Result {
        let used = self.versions();
        let help = "Requests of a caller that named no Accept-Version";
        let mut family = page.family("mxgate_unversioned_requests", help, None, MetricType::Counter)?;
        for one in used.iter().filter(|one| one.unversioned > 0) {
            family.counter(&[("caller", one.caller.as_str())], one.unversioned)?;
        }
        let help = "Requests of a caller for an operation that MX deprecates";
        let mut family = page.family("mxgate_deprecated_requests", help, None, MetricType::Counter)?;
        for (one, operation) in used.iter().flat_map(|one| one.deprecated.iter().map(move |each| (one, each)))
        {
            let labels = [("caller", one.caller.as_str()), ("operation", operation.operation.as_str())];
            family.counter(&labels, operation.requests)?;
        }
        Ok(())
    }

    fn connections(&self, page: &mut Page<'_>) -> fmt::Result {
        let opened = self.total(|set| &set.callers_opened);
        let open = opened.saturating_sub(self.total(|set| &set.callers_closed));
        page.gauge("mxgate_caller_connections_open", "Connections of callers that are open", open)?;
        page.counter(
            "mxgate_caller_connections_accepted",
            "Connections of callers that were accepted",
            opened,
        )?;
        let help = "Connections of callers that were closed at a cap";
        page.counter("mxgate_caller_connections_refused", help, self.callers_turned_away.load(Relaxed))?;

        let opened = self.total(|set| &set.upstreams_opened);
        let open = opened.saturating_sub(self.total(|set| &set.upstreams_closed));
        page.gauge("mxgate_upstream_connections_open", "Connections to upstreams that are open", open)?;
        page.counter(
            "mxgate_upstream_connections_opened",
            "Connections to upstreams that were opened",
            opened,
        )?;
        let help = "Requests that went out on a connection used before";
        page.counter("mxgate_upstream_connections_reused", help, self.total(|set| &set.upstreams_reused))
    }

    /// As many series as there are environments.
    fn upstreams(&self, page: &mut Page<'_>) -> fmt::Result {
        let snapshot = self.shown.get().and_then(|(snapshot, _)| snapshot.load_full());
        let upstreams = snapshot.map(|snapshot| snapshot.upstreams()).unwrap_or_default();
        let label = |upstream: &'_ UpstreamStatus| upstream.environment.clone();

        let help = "Whether an environment's breaker is closed (0), half open (1) or open (2)";
        let mut family = page.family("mxgate_breaker_state", help, None, MetricType::Gauge)?;
        for one in &upstreams {
            let state = match one.breaker {
                None | Some(BreakerStatus::Closed) => 0.0,
                Some(BreakerStatus::HalfOpen) => 1.0,
                Some(BreakerStatus::Open { .. }) => 2.0,
            };
            family.gauge_of(&[("environment", &label(one))], state)?;
        }
        let help = "How often an environment's breaker has opened";
        let mut family = page.family("mxgate_breaker_opened", help, None, MetricType::Counter)?;
        for one in &upstreams {
            family.counter(&[("environment", &label(one))], one.breaker_opened)?;
        }

        let budgets = || upstreams.iter().filter_map(|one| Some((label(one), one.budget.as_ref()?)));
        let help = "Whether an environment's budget is halved, since its upstream asked for less";
        let mut family = page.family("mxgate_budget_halved", help, None, MetricType::Gauge)?;
        for (environment, budget) in budgets() {
            let halved = f64::from(u8::from(budget.halved_for_s.is_some()));
            family.gauge_of(&[("environment", &environment)], halved)?;
        }
        let uses = |pick: fn(Use) -> u32| {
            budgets().flat_map(move |(environment, budget)| {
                [("get", budget.get_in_flight), ("other", budget.other_in_flight)].into_iter().filter_map(
                    move |(methods, uses)| Some((environment.clone(), methods, f64::from(pick(uses?)))),
                )
            })
        };
        let help = "Requests in flight that count for an environment's budget, by methods";
        let mut family = page.family("mxgate_budget_in_flight", help, None, MetricType::Gauge)?;
        for (environment, methods, now) in uses(|uses| uses.now) {
            family.gauge_of(&[("environment", &environment), ("methods", methods)], now)?;
        }
        let help = "Requests in flight that an environment's budget allows, by methods";
        let mut family = page.family("mxgate_budget_in_flight_max", help, None, MetricType::Gauge)?;
        for (environment, methods, max) in uses(|uses| uses.max) {
            family.gauge_of(&[("environment", &environment), ("methods", methods)], max)?;
        }
        Ok(())
    }

    /// Of environments with two keys.
    fn keys(&self, page: &mut Page<'_>) -> fmt::Result {
        let snapshot = self.shown.get().and_then(|(snapshot, _)| snapshot.load_full());
        let upstreams = snapshot.map(|snapshot| snapshot.upstreams()).unwrap_or_default();
        let all = || upstreams.iter().filter_map(|one| Some((one.environment.as_str(), one.keys.as_ref()?)));
        let help = "Whether requests carry an environment's second key, since its upstream refuses the first";
        let mut family = page.family("mxgate_credential_secondary_in_use", help, None, MetricType::Gauge)?;
        for (environment, keys) in all() {
            let in_use = f64::from(u8::from(keys.secondary_in_use));
            family.gauge_of(&[("environment", environment)], in_use)?;
        }
        let help = "How often an environment's requests began to carry the other of its two keys";
        let mut family = page.family("mxgate_credential_cutovers", help, None, MetricType::Counter)?;
        for (environment, keys) in all() {
            family.counter(&[("environment", environment)], keys.cutovers)?;
        }
        let help = "Requests that were answered 401 and sent again with the other of two keys";
        let mut family = page.family("mxgate_credential_second_attempts", help, None, MetricType::Counter)?;
        for (environment, keys) in all() {
            family.counter(&[("environment", environment)], keys.second_attempts)?;
        }
        Ok(())
    }

    fn event_loops(&self, page: &mut Page<'_>) -> fmt::Result {
        let now = Instant::now().saturating_duration_since(self.start);
        let per_worker = |page: &mut Page<'_>, name, help, value: &dyn Fn(&Set) -> f64| {
            let mut family = page.family(name, help, Some(Unit::Seconds), MetricType::Gauge)?;
            for (index, set) in self.workers.iter().enumerate() {
                family.gauge_of(&[("worker", index.to_string().as_str())], value(set))?;
            }
            Ok::<(), fmt::Error>(())
        };
        let help = "Time since a worker's event loop last came round";
        per_worker(page, "mxgate_worker_heartbeat_age", help, &|set| {
            set.heartbeat.silence(now).as_secs_f64()
        })?;
        let help = "The longest that a worker's event loop was late since the start";
        per_worker(page, "mxgate_worker_stall_max", help, &|set| {
            histogram::seconds(set.heartbeat.late_max.load(Relaxed))
        })?;

        let help = "Time by which the workers' event loops were late";
        let mut family =
            page.family("mxgate_worker_stall", help, Some(Unit::Seconds), MetricType::Counter)?;
        let late = self.sum(|set| set.heartbeat.late.get());
        family.encoder.encode_counter::<NoLabelSet, _, f64>(&histogram::seconds(late), None)
    }

    fn records(&self, page: &mut Page<'_>) -> fmt::Result {
        let records = &self.records;
        let help = "Access records that were written";
        page.counter("mxgate_records_written", help, records.written.load(Relaxed))?;
        let help = "Access records that were lost because the writer could not keep up or write";
        page.counter("mxgate_records_lost", help, records.lost.load(Relaxed))?;
        let help = "Attempts to write or reopen the record file that failed";
        page.counter("mxgate_record_errors", help, records.errors.load(Relaxed))
    }

    fn reloads(&self, page: &mut Page<'_>) -> fmt::Result {
        let reloads = &self.reloads;
        let help = "Loads of the configuration, by result; the first is the start";
        let mut family = page.family("mxgate_config_reloads", help, None, MetricType::Counter)?;
        family.counter(&[("result", "success")], reloads.succeeded.load(Relaxed))?;
        family.counter(&[("result", "failure")], reloads.failed.load(Relaxed))?;
        let help = "Whether the last load of the configuration succeeded";
        page.gauge("mxgate_config_last_reload_successful", help, reloads.last_succeeded.load(Relaxed))?;
        let help = "When a load of the configuration last succeeded, in Unix time";
        let when = reloads.last_success.load(Relaxed) as f64 / 1e3;
        page.seconds("mxgate_config_last_reload_success_timestamp", help, when)?;
        let help = "Which configuration is in use, counted from the start";
        page.gauge("mxgate_config_generation", help, reloads.generation.load(Relaxed))
    }

    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut family = page.family("mxgate_build_info", "Which mxgate this is", None, MetricType::Gauge)?;
        family.gauge_of(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)?;
        let help = "When the process started, in Unix time";
        let start = self.start_time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
        page.seconds("process_start_time", help, start.as_secs_f64())?;
        let help = "User and system CPU time";
        let mut family = page.family("process_cpu", help, Some(Unit::Seconds), MetricType::Counter)?;
        family.encoder.encode_counter::<NoLabelSet, _, f64>(&process::cpu_seconds(), None)?;
        if let Some(bytes) = process::resident_bytes() {
            let help = "Resident memory";
            let mut family =
                page.family("process_resident_memory", help, Some(Unit::Bytes), MetricType::Gauge)?;
            family.encoder.encode_gauge(&bytes)?;
        }
        if let Some(count) = process::open_fds() {
            page.gauge("process_open_fds", "Open file descriptors", count)?;
        }
        if let Some(count) = process::max_fds() {
            page.gauge("process_max_fds", "The limit on file descriptors", count)?;
        }
        Ok(())
    }

    fn sum(&self, count: impl Fn(&Set) -> u64) -> u64 {
        self.workers.iter().map(|set| count(set)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        metrics::{Metrics, Request, WorkerMetrics},
        refusal::{Failure, Refusal},
    };

    fn busy() -> (Metrics, Vec<WorkerMetrics>) {
        let (metrics, workers) = Metrics::new(2, ["listUsers", "readUser"], Default::default());
        for worker in &workers {
            worker.request(&Request {
                operation: Some(1),
                status: Some(200),
                gateway: Duration::from_micros(80),
                upstream: Some(Duration::from_millis(70)),
                bytes_in: 10,
                bytes_out: 1000,
                masked: 1,
            });
            worker.refused(Refusal::OperationDenied);
            worker.failed(Failure::ConnectTimeout);
            worker.upstream_opened();
            worker.upstream_reused();
        }
        metrics.caller_turned_away();
        metrics.reload_succeeded(1);
        metrics.reload_succeeded(2);
        metrics.reload_failed();
        (metrics, workers)
    }

    #[test]
    fn the_classic_page_adds_up_all_workers() {
        let (metrics, _workers) = busy();
        let page = metrics.render(Format::Classic);
        for line in [
            "# TYPE mxgate_requests_total counter",
            r#"mxgate_requests_total{operation="readUser",status="2xx"} 2"#,
            r#"mxgate_refusals_total{code="operation_denied"} 2"#,
            r#"mxgate_refusals_total{code="suspended"} 0"#,
            r#"mxgate_failures_total{code="connect_timeout"} 2"#,
            r#"mxgate_request_gateway_time_seconds_bucket{le="0.00005"} 0"#,
            r#"mxgate_request_gateway_time_seconds_bucket{le="0.0001"} 2"#,
            r#"mxgate_request_gateway_time_seconds_bucket{le="+Inf"} 2"#,
            "mxgate_request_gateway_time_seconds_count 2",
            "mxgate_request_upstream_time_seconds_sum 0.14",
            "mxgate_received_bytes_total 20",
            "mxgate_sent_bytes_total 2000",
            "mxgate_secrets_masked_total 2",
            "mxgate_caller_connections_refused_total 1",
            "mxgate_upstream_connections_open 2",
            "mxgate_upstream_connections_reused_total 2",
            r#"mxgate_config_reloads_total{result="success"} 2"#,
            r#"mxgate_config_reloads_total{result="failure"} 1"#,
            "mxgate_config_last_reload_successful 0",
            "mxgate_config_generation 2",
            "mxgate_records_lost_total 0",
            "# TYPE process_cpu_seconds_total counter",
        ] {
            assert!(page.lines().any(|one| one == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("listUsers"), "an operation that never occurred has no series");
        assert!(!page.contains("# UNIT") && !page.contains("# EOF"));
    }

    #[test]
    fn the_open_metrics_page_has_units_and_an_end() {
        let (metrics, _workers) = busy();
        let page = metrics.render(Format::OpenMetrics);
        assert!(page.contains("# TYPE mxgate_requests counter\n"));
        assert!(page.contains("# UNIT mxgate_received_bytes bytes\n"));
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn every_family_is_in_the_documentation_and_the_reverse() {
        let (metrics, _workers) = busy();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        metrics.show_connections(crate::oauth::broker::Broker::new(runtime.handle().clone()));
        let page = metrics.render(Format::Classic);
        let rendered: std::collections::BTreeSet<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        let documented: std::collections::BTreeSet<&str> = include_str!("../../docs/metrics.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next())
            .collect();
        assert_eq!(rendered, documented);
    }

    #[test]
    fn open_metrics_is_for_those_who_name_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for accept in ["", "*/*", "text/plain", "application/openmetrics-text;q=0", "text/html,*/*;q=0.8"] {
            assert_eq!(Format::accepted(accept), Format::Classic, "{accept}");
        }
    }
}
