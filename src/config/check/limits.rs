//! `limits` of a caller, `budget` and `breaker` of an environment.

use std::{collections::BTreeMap, sync::Arc};

use crate::config::{
    Environment,
    fault::Problem,
    limits::{Breaker, Budget, CallerLimits, MethodBudget, Rate},
    walk::Table,
};

pub(super) fn caller(table: &Table<'_>) -> CallerLimits {
    if table.has("bytes_per_second") && !table.has("in_flight_max") {
        let problem =
            Problem::new("makes requests take longer, and each has a connection to the environment");
        table.warn(
            "bytes_per_second",
            problem.allowed("set in_flight_max, so that there are not too many at once"),
        );
    }
    CallerLimits {
        rate: rate(table),
        in_flight_max: number(table, "in_flight_max"),
        connections_max: number(table, "connections_max"),
        bytes_per_second: table.integer("bytes_per_second"),
    }
}

pub(super) fn budget(table: &Table<'_>) -> Budget {
    Budget { get: methods(&table.section("get")), other: methods(&table.section("other")) }
}

fn methods(table: &Table<'_>) -> MethodBudget {
    MethodBudget { rate: rate(table), in_flight_max: number(table, "in_flight_max") }
}

pub(super) fn breaker(table: &Table<'_>) -> Breaker {
    Breaker {
        failures_max: u32::try_from(table.count("failures_max")).unwrap_or(u32::MAX),
        open: table.millis("open_ms"),
    }
}

fn rate(table: &Table<'_>) -> Option<Rate> {
    let (per_second, burst) = (number(table, "requests_per_second"), number(table, "burst"));
    if table.has("burst") && !table.has("requests_per_second") {
        let problem = Problem::new("means nothing without requests_per_second");
        table.fault("burst", problem.allowed("add requests_per_second, or leave it out"));
    }
    per_second.map(|per_second| Rate { per_second, burst: burst.unwrap_or(per_second) })
}

fn number(table: &Table<'_>, name: &str) -> Option<u32> {
    table.integer(name).and_then(|number| u32::try_from(number).ok())
}

/// Whoever has no limit below an environment's budget can use all of it up.
pub(super) fn within_budgets<'a>(
    table: &Table<'_>,
    limits: &CallerLimits,
    environments: &BTreeMap<String, Option<Arc<Environment>>>,
    granted: impl Iterator<Item = &'a str>,
) {
    for environment in granted.filter_map(|name| environments.get(name)?.as_deref()) {
        let Budget { get, other } = &environment.budget;
        let over = |own: Option<u32>, shared: Option<u32>| {
            shared.is_some_and(|shared| own.is_none_or(|own| own >= shared))
        };
        let own = limits.rate.map(|rate| rate.per_second);
        let rate = |methods: &MethodBudget| over(own, methods.rate.map(|rate| rate.per_second));
        let in_flight = |methods: &MethodBudget| over(limits.in_flight_max, methods.in_flight_max);
        for (key, is_over) in [
            ("requests_per_second", rate(get) || rate(other)),
            ("in_flight_max", in_flight(get) || in_flight(other)),
        ] {
            if is_over {
                let what = format!("can use up the whole {key} of environment.{}.budget", environment.name);
                table.warn("limits", Problem::new(what).allowed(format!("set limits.{key} below it")));
            }
        }
    }
}
