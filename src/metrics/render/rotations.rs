//! How old keys are, and where their rotations stand.

use std::fmt;

use prometheus_client::{metrics::MetricType, registry::Unit};

use super::{super::Inner, page::Page};
use crate::rotation;

impl Inner {
    /// Of environments whose vault tells how old a key is.
    pub(super) fn rotations(&self, page: &mut Page<'_>) -> fmt::Result {
        let standings = self.rotations.get().map(|standings| standings.all()).unwrap_or_default();
        let now = rotation::unix_now();
        let help = "How old an environment's key is, as far as its vault tells";
        let mut family =
            page.family("mxgate_credential_age", help, Some(Unit::Seconds), MetricType::Gauge)?;
        for one in &standings {
            if let Some(age) = one.age(now) {
                family.gauge_of(&[("environment", &one.environment)], age.as_secs_f64())?;
            }
        }
        let help = "How long the old one of two live keys still works at most";
        let mut family =
            page.family("mxgate_rotation_old_key_left", help, Some(Unit::Seconds), MetricType::Gauge)?;
        for one in &standings {
            if let Some(until) = one.old_until {
                let left = until.saturating_sub(now) as f64;
                family.gauge_of(&[("environment", &one.environment)], left)?;
            }
        }
        let help =
            "Where the rotation of an environment's key stands, if one is under way or waits for somebody";
        let mut family = page.family("mxgate_rotation_open", help, None, MetricType::Gauge)?;
        for one in standings.iter().filter(|one| one.is_open()) {
            family.gauge_of(&[("environment", &one.environment), ("step", &one.step)], 1.0)?;
        }
        let help = "What an operator should know about an environment's key; `mxgate status` has the words";
        let mut family = page.family("mxgate_rotation_warnings", help, None, MetricType::Gauge)?;
        for one in &standings {
            family.gauge_of(&[("environment", &one.environment)], one.warnings.len() as f64)?;
        }
        Ok(())
    }
}
