//! The environments' secrets: how old what is known of each is, and for how long it will do.

use std::fmt;

use prometheus_client::{metrics::MetricType, registry::Unit};

use super::page::Page;
use crate::{
    status::{SecretState, SecretStatus},
    vault::source::Reason,
};

/// As many series as there are references, and as many again for each reason to fail.
pub(super) fn secrets(page: &mut Page<'_>, secrets: &[SecretStatus]) -> fmt::Result {
    let labels = |one: &'_ SecretStatus| [one.environment.clone(), one.source.clone(), one.reference.clone()];
    let mut gauge = |name, help, unit: Option<Unit>, value: &dyn Fn(&SecretStatus) -> Option<f64>| {
        let mut family = page.family(name, help, unit, MetricType::Gauge)?;
        for one in secrets {
            let [environment, source, reference] = &labels(one);
            let labels = [("environment", &**environment), ("source", source), ("reference", reference)];
            value(one).map_or(Ok(()), |value| family.gauge_of(&labels, value))?;
        }
        Ok::<(), fmt::Error>(())
    };
    let seconds = |millis: u64| millis as f64 / 1e3;
    let help = "Whether an environment's secret is used (1), or was revoked, is past its grace or was never read (0)";
    gauge("mxgate_secret_usable", help, None, &|one| {
        (one.state != SecretState::None).then(|| f64::from(u8::from(one.state == SecretState::Usable)))
    })?;
    let help = "Time since a secret's source last confirmed it";
    gauge("mxgate_secret_age", help, Some(Unit::Seconds), &|one| one.age_ms.map(seconds))?;
    let help = "Time until a secret is used no longer, unless it is confirmed";
    gauge("mxgate_secret_remaining", help, Some(Unit::Seconds), &|one| one.remaining_ms.map(seconds))?;

    let help = "Looks at a secret that failed, by reason";
    let mut family = page.family("mxgate_secret_failures", help, None, MetricType::Counter)?;
    for one in secrets {
        let [environment, source, reference] = &labels(one);
        for reason in Reason::ALL.iter().map(|reason| reason.code()) {
            let labels = [
                ("environment", &**environment),
                ("source", source),
                ("reference", reference),
                ("reason", reason),
            ];
            family.counter(&labels, one.failures.get(reason).copied().unwrap_or_default())?;
        }
    }
    Ok(())
}
