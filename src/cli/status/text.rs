//! What the gateway answers, for people.

use std::{fmt::Write as _, time::Duration};

use mxgate::{
    control::messages::Done,
    rotation::{Standing, unix_now},
    status::{
        BreakerStatus, CallerLimitsStatus, ConnectionsStatus, ReloadReport, SecretState, SecretStatus,
        Status, UpstreamStatus, Use, VersionReport,
    },
};

/// How many callers' limits are shown to people.
const LIMITS_SHOWN_MAX: usize = 20;

pub(super) fn status_text(status: &Status) -> String {
    let gateway = &status.gateway;
    let mut lines = Lines::default();
    lines.add(
        "mxgate",
        format_args!("{}, process {}, up {}", status.version, status.pid, duration(status.uptime_s)),
    );
    match &status.not_ready {
        None => lines.add("ready", "yes"),
        Some(why) => lines.add("ready", format_args!("NO: {why}")),
    }
    if status.worker_silence_ms > 5000 {
        lines.add(
            "workers",
            format_args!("STUCK: one has not come round for {} ms", status.worker_silence_ms),
        );
    }
    lines.add(
        "configuration",
        format_args!(
            "{}, generation {}, loaded {}",
            gateway.configuration, gateway.generation, gateway.loaded_at
        ),
    );
    if let Some(fault) = &gateway.reload_fault {
        lines.add("last reload", format_args!("FAILED: {fault}"));
    }
    for listener in &gateway.listeners {
        lines.add("listener", listener);
    }
    for one in &gateway.environments {
        let of_provider = one.credential.starts_with("provider ");
        let fingerprint = match one.fingerprint.as_deref() {
            Some(fingerprint) => format!(" ({fingerprint})"),
            None if of_provider => String::new(),
            None => " (NOT READABLE)".to_owned(),
        };
        lines.add(
            "environment",
            format_args!("{} at {}, {}{fingerprint}", one.name, one.host, one.credential),
        );
    }
    for one in &gateway.rotations {
        rotation_lines(one, &mut lines);
    }
    gateway.secrets.iter().for_each(|one| secret_line(one, &mut lines));
    if let Some(connections) = &gateway.connections {
        connections_line(connections, &mut lines);
    }
    for one in &gateway.observing {
        lines.add("observe mode", format_args!("{}, until {}", one.caller, one.until));
    }
    gateway.upstreams.iter().for_each(|one| upstream_lines(one, &mut lines));
    limits_lines(&gateway.limits, &mut lines);
    for one in &status.suspensions {
        match one.for_s {
            Some(seconds) => {
                lines.add("suspended", format_args!("{}, for {}", one.target, duration(seconds)))
            }
            None => lines.add("suspended", format_args!("{}, until it is resumed", one.target)),
        }
    }
    lines.add(
        "callers",
        format_args!("{} connections open, {} requests so far", status.callers_open, status.requests),
    );
    lines.add("log filter", &gateway.log_filter);
    if let Some(one) = &status.log_override {
        lines.add("", format_args!("overridden by {} for {}", one.filter, duration(one.for_s)));
    }
    lines.0
}

fn connections_line(connections: &ConnectionsStatus, lines: &mut Lines) {
    let ConnectionsStatus { open, live, gone, ending, kept, kept_ending } = connections;
    if !open {
        return lines.add("connections", "the store is NOT OPEN; the log says why");
    }
    let gone =
        if *gone == 0 { String::new() } else { format!(", {gone} gone: their users must connect again") };
    let ending = if *ending == 0 { String::new() } else { format!(", {ending} END WITHIN A WEEK") };
    lines.add("connections", format_args!("{live} live{ending}{gone}"));
    if *kept > 0 {
        let ending =
            if *kept_ending == 0 { String::new() } else { format!(", {kept_ending} end within a week") };
        lines.add("", format_args!("{kept} tokens of MX's under handles{ending}"));
    }
}

fn rotation_lines(standing: &Standing, lines: &mut Lines) {
    let name = &standing.environment;
    if let Some(age) = standing.age(unix_now()) {
        let open =
            if standing.is_open() { format!(", rotation at `{}`", standing.step) } else { String::new() };
        lines.add("key", format_args!("{name}: {} days old{open}", age.as_secs() / (24 * 60 * 60)));
    }
    for warning in &standing.warnings {
        lines.add("", format_args!("WARNING: {warning}"));
    }
}

fn secret_line(secret: &SecretStatus, lines: &mut Lines) {
    let name = format!("{} of {}", secret.reference, secret.environment);
    let version = secret.version.as_ref().map(|version| format!("version {version}, ")).unwrap_or_default();
    let age = secret
        .age_ms
        .map_or("never confirmed".into(), |age| format!("confirmed {} ago", duration(age / 1000)));
    let fault = secret.fault.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default();
    match (secret.state, secret.remaining_ms) {
        (SecretState::None, _) => lines.add("secret", format_args!("{name}, none")),
        (SecretState::Unread, _) => lines.add("secret", format_args!("{name} was NEVER READ{fault}")),
        (SecretState::Revoked, _) => lines.add("secret", format_args!("{name} is REVOKED, {age}{fault}")),
        (SecretState::Expired, _) => {
            lines.add("secret", format_args!("{name} is EXPIRED, {version}{age}{fault}"));
        }
        (SecretState::Usable, None) => lines.add("secret", format_args!("{name}, {version}{age}{fault}")),
        (SecretState::Usable, Some(left)) => {
            let left = duration(left / 1000);
            lines.add("secret", format_args!("{name}, {version}{age}, used for {left} more{fault}"));
        }
    }
}

fn upstream_lines(upstream: &UpstreamStatus, lines: &mut Lines) {
    let name = &upstream.environment;
    let opened = upstream.breaker_opened;
    match upstream.breaker {
        None | Some(BreakerStatus::Closed) => {}
        Some(BreakerStatus::Open { for_s }) => lines.add(
            "breaker",
            format_args!("{name}: OPEN for {}, opened {opened} times so far", duration(for_s)),
        ),
        Some(BreakerStatus::HalfOpen) => {
            lines.add("breaker", format_args!("{name}: HALF OPEN, opened {opened} times so far"));
        }
    }
    if let Some(keys) = &upstream.keys {
        let (secondary, fingerprint) = (&keys.secondary, &keys.fingerprint);
        let (attempts, cutovers) = (keys.second_attempts, keys.cutovers);
        let state = if keys.secondary_in_use { "IN USE, MX refuses the first key" } else { "not in use" };
        lines.add(
            "second key",
            format_args!(
                "{name}: {secondary} ({fingerprint}), {state}; {cutovers} cut-overs, {attempts} second attempts so far"
            ),
        );
    }
    if let Some(budget) = &upstream.budget {
        let methods = [("GET", budget.get_in_flight), ("others", budget.other_in_flight)];
        let used = methods.into_iter().filter_map(|(methods, used)| {
            used.map(|used| format!("{methods} {} of {} in flight", used.now, used.max))
        });
        let halved = budget.halved_for_s.map(|seconds| format!("HALVED for {}", duration(seconds)));
        let text: Vec<String> = used.chain(halved).collect();
        if !text.is_empty() {
            lines.add("budget", format_args!("{name}: {}", text.join(", ")));
        }
    }
}

/// Those who use something or were refused, the most refused first.
fn limits_lines(limits: &[CallerLimitsStatus], lines: &mut Lines) {
    let is_used = |used: Option<Use>| used.is_some_and(|used| used.now > 0);
    let is_shown =
        |one: &&CallerLimitsStatus| one.refused > 0 || is_used(one.in_flight) || is_used(one.connections);
    let mut shown: Vec<&CallerLimitsStatus> = limits.iter().filter(is_shown).collect();
    shown.sort_by_key(|one| std::cmp::Reverse(one.refused));
    for one in shown.iter().take(LIMITS_SHOWN_MAX) {
        let uses = [("requests in flight", one.in_flight), ("connections", one.connections)];
        let used = uses
            .into_iter()
            .filter_map(|(what, used)| used.map(|used| format!("{} of {} {what}", used.now, used.max)));
        let text: Vec<String> = used.chain([format!("{} refused so far", one.refused)]).collect();
        lines.add("limits", format_args!("{}: {}", one.caller, text.join(", ")));
    }
    if let Some(more @ 1..) = shown.len().checked_sub(LIMITS_SHOWN_MAX) {
        lines.add("", format_args!("and {more} more callers; --json shows all"));
    }
}

pub(super) fn versions_text(report: &VersionReport) -> String {
    let since = duration(report.uptime_s);
    if report.callers.is_empty() {
        return format!("In {since} every request named its version, and none used what MX deprecates.\n");
    }
    let names = report.callers.iter().flat_map(|caller| &caller.deprecated).map(|one| one.operation.len());
    let width = names.chain([UNVERSIONED.len()]).max().unwrap_or_default();
    let mut text = format!("In {since}:\n");
    for caller in &report.callers {
        // A `String` takes every write.
        _ = writeln!(text, "\n{}", caller.caller);
        if caller.unversioned > 0 {
            _ = writeln!(text, "  {UNVERSIONED:width$}  {:>9}", caller.unversioned);
        }
        for one in &caller.deprecated {
            let since = &one.deprecated_in;
            _ = writeln!(text, "  {:width$}  {:>9}  deprecated in {since}", one.operation, one.requests);
        }
    }
    text
}

const UNVERSIONED: &str = "without Accept-Version";

pub(super) fn reload_text(report: &ReloadReport) -> String {
    let mut lines = Lines::default();
    lines.add("loaded", format_args!("generation {}", report.generation));
    if report.changes.is_empty() {
        lines.add("changed", "nothing");
    }
    for change in &report.changes {
        lines.add("changed", change);
    }
    for key in &report.needs_restart {
        lines.add("needs restart", key);
    }
    for one in &report.unread {
        lines.add("NOT READ", one);
    }
    lines.0
}

pub(super) fn done_text(done: &Done) -> String {
    format!("{}\n", done.done)
}

/// Two columns.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, label: &str, text: impl std::fmt::Display) {
        // A `String` takes every write.
        let _ = writeln!(self.0, "{label:<14} {text}");
    }
}

fn duration(seconds: u64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(seconds))
}
