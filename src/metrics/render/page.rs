//! `prometheus-client`'s encoder in fewer words.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::super::histogram::Total;

/// A page as it is written.
pub(super) struct Page<'a> {
    pub(super) encoder: DescriptorEncoder<'a>,
}

pub(super) struct Family<'a> {
    pub(super) encoder: prometheus_client::encoding::MetricEncoder<'a>,
}

impl Page<'_> {
    pub(super) fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<Unit>,
        kind: MetricType,
    ) -> Result<Family<'s>, fmt::Error> {
        // The encoder wants a unit that lives as long as it does.
        let unit = match unit {
            Some(Unit::Seconds) => Some(&Unit::Seconds),
            Some(Unit::Bytes) => Some(&Unit::Bytes),
            _ => None,
        };
        Ok(Family { encoder: self.encoder.encode_descriptor(name, help, unit, kind)? })
    }

    pub(super) fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let mut family = self.family(name, help, None, MetricType::Counter)?;
        family.encoder.encode_counter::<NoLabelSet, _, f64>(&count, None)
    }

    pub(super) fn bytes(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        let mut family = self.family(name, help, Some(Unit::Bytes), MetricType::Counter)?;
        family.encoder.encode_counter::<NoLabelSet, _, f64>(&count, None)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, None, MetricType::Gauge)?.encoder.encode_gauge(&value)
    }

    pub(super) fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.family(name, help, Some(Unit::Seconds), MetricType::Gauge)?.encoder.encode_gauge(&value)
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, total: &Total) -> fmt::Result {
        let mut family = self.family(name, help, Some(Unit::Seconds), MetricType::Histogram)?;
        family.encoder.encode_histogram::<NoLabelSet>(total.sum(), total.count(), &total.buckets, None)
    }
}

impl Family<'_> {
    pub(super) fn counter<const N: usize>(&mut self, labels: &[(&str, &str); N], count: u64) -> fmt::Result {
        self.encoder.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)
    }

    pub(super) fn gauge_of<const N: usize>(&mut self, labels: &[(&str, &str); N], value: f64) -> fmt::Result {
        self.encoder.encode_family(labels)?.encode_gauge(&value)
    }
}
