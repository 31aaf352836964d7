//! `mxgate doctor`: what is between this machine and MX, stage by stage, and what to do about it.
//!
//! In: a checked configuration. Out: a [`Report`] of findings, each with its next step. It needs no running gateway and
//! goes the gateway's own way: the same look-up, the same connection, the same verification, and then one call that is
//! harmless. The first stage of an environment that fails is its last: what is behind it cannot be judged.
//!
//! What must never happen: a secret is shown, or is sent where the gateway would not send it; another environment's key
//! is tried to find out whose it is.

pub mod bundle;
mod call;
mod certificates;
mod consents;
pub mod finding;
mod machine;
mod network;
mod secrets;

use std::{fmt::Display, path::Path, sync::Arc};

use serde_json::{Value, json};

use self::{
    consents::Consents,
    finding::{Finding, Verdict},
    secrets::Secrets,
};
use crate::{config, config::Config, log, process::Hardening};

/// All that was looked at, in order.
#[derive(Debug, Default)]
pub struct Report {
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug)]
pub struct Check {
    /// `None`: the machine, and what all environments share.
    pub environment: Option<String>,
    /// `dns`, `tcp`, `tls`, ...
    pub stage: &'static str,
    /// What was found.
    pub finding: Finding,
    /// In words; one line, masked.
    pub said: String,
}

impl Report {
    fn add(&mut self, environment: Option<&str>, stage: &'static str, finding: Finding, said: impl Display) {
        let said = log::masked_line(&said.to_string());
        self.checks.push(Check { environment: environment.map(str::to_owned), stage, finding, said });
    }

    /// What was found, in order.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Whether nothing failed.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.checks.iter().all(|check| check.finding.verdict() != Verdict::Fail)
    }

    /// For people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut environment = &None;
        for check in &self.checks {
            if check.environment != *environment {
                environment = &check.environment;
                lines.extend(environment.as_ref().map(|name| format!("environment {name}")));
            }
            lines.push(format!("{:<5} {:<7} {}", check.finding.verdict().word(), check.stage, check.said));
            let next = check.finding.next();
            if !next.is_empty() {
                lines.push(format!("{:13} next: {next}", ""));
            }
        }
        let failed = self.checks.iter().filter(|check| check.finding.verdict() == Verdict::Fail).count();
        lines.push(match failed {
            0 => "fine".to_owned(),
            1 => "1 thing is wrong".to_owned(),
            more => format!("{more} things are wrong"),
        });
        lines
    }

    /// For programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let one = |check: &Check| {
            json!({
                "environment": check.environment,
                "stage": check.stage,
                "verdict": check.finding.verdict().word().to_ascii_lowercase(),
                "code": check.finding.code(),
                "said": check.said,
                "next": check.finding.next(),
            })
        };
        json!({ "ok": self.is_fine(), "checks": self.checks.iter().map(one).collect::<Vec<_>>() })
    }
}

/// One stage's place in the report.
struct Part<'r> {
    report: &'r mut Report,
    environment: &'r config::Environment,
}

impl Part<'_> {
    fn add(&mut self, stage: &'static str, finding: Finding, said: impl Display) {
        self.report.add(Some(&self.environment.name), stage, finding, said);
    }
}

/// Looks at all of it: this machine, and every environment, or `only` the one of that name.
pub async fn examine(config: &Config, path: &Path, only: Option<&str>, hardening: &Hardening) -> Report {
    let mut report = Report::default();
    let secrets = Secrets::read(config, &mut report).await;
    let consents = Consents::read(config, secrets.vault_closed()).await;
    consents.shared(config, &mut report);
    machine::limits(hardening, config, &mut report);
    machine::files(config, path, &mut report);
    for environment in config.environments.values().filter(|one| only.is_none_or(|only| one.name == only)) {
        let mut part = Part { report: &mut report, environment };
        consents.of(&mut part);
        look_at(environment, &secrets, &mut part).await;
        consents::ways(config, &mut part).await;
    }
    report
}

async fn look_at(environment: &Arc<config::Environment>, secrets: &Secrets, part: &mut Part<'_>) {
    let Some(own) = secrets.of(environment, part) else { return };
    let Some(connected) = network::connect(environment, own.proxy_password.clone(), part).await else {
        return;
    };
    match &own.key {
        Some(key) => call::call(connected, key, part).await,
        None => call::of_a_user(part),
    }
}
