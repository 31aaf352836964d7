//! Limits of callers, budgets and breakers of environments: what they mean, what is a fault, and what the documentation
//! shows.

use std::time::Duration;

use super::{SMALLEST, assert_accepted, assert_fault, parse};
use crate::config::limits::{CallerLimits, Rate};

const POLICY: &str = include_str!("../../../docs/policy.md");

fn with_limits(limits: &str) -> String {
    SMALLEST.replacen("[[listener]]", &format!("limits = {{ {limits} }}\n[[listener]]"), 1)
}

fn in_environment(toml: &str) -> String {
    format!("{SMALLEST}{toml}\n")
}

#[test]
fn what_is_not_written_is_not_limited() {
    let config = parse(SMALLEST).unwrap().config;
    assert!(config.callers[0].limits.is_empty());
    let environment = &config.environments["production"];
    assert_eq!(environment.budget, Default::default());
    assert_eq!((environment.breaker.failures_max, environment.breaker.open), (20, Duration::from_secs(5)));
    let config = parse(&with_limits("requests_per_second = 7, in_flight_max = 2")).unwrap().config;
    let expected = CallerLimits {
        rate: Some(Rate { per_second: 7, burst: 7 }),
        in_flight_max: Some(2),
        connections_max: None,
        bytes_per_second: None,
    };
    assert_eq!(config.callers[0].limits, expected);
}

#[test]
fn a_burst_needs_a_rate() {
    const FAULT: &str =
        "burst: means nothing without requests_per_second; add requests_per_second, or leave it out";
    assert_fault(&with_limits("burst = 7"), &format!("caller[0].limits.{FAULT}"));
    assert_accepted(&with_limits("requests_per_second = 1, burst = 7"), &[]);
    for methods in ["get", "other"] {
        let budget = in_environment(&format!("budget.{methods} = {{ burst = 7, in_flight_max = 1 }}"));
        assert_fault(&budget, &format!("environment.production.budget.{methods}.{FAULT}"));
    }
    assert_fault(&with_limits("requests_per_second = 0"), "is out of bounds; 1 to 1000000 requests");
}

#[test]
fn a_pace_without_a_bound_on_what_it_slows_down_is_named() {
    let warning = "warning: caller[0].limits.bytes_per_second: makes requests take longer, and each has a connection \
                   to the environment; set in_flight_max, so that there are not too many at once";
    assert_accepted(&with_limits("bytes_per_second = 100_000"), &[warning]);
    assert_accepted(&with_limits("bytes_per_second = 100_000, in_flight_max = 10"), &[]);
}

#[test]
fn whoever_could_use_a_budget_up_is_named() {
    let budget = "budget.get = { requests_per_second = 10, in_flight_max = 5 }\n";
    let warning = |key: &str| {
        format!(
            "warning: caller[0].limits: can use up the whole {key} of environment.production.budget; \
             set limits.{key} below it"
        )
    };
    let (rate, in_flight) = (warning("requests_per_second"), warning("in_flight_max"));
    assert_accepted(&in_environment(budget), &[&rate, &in_flight]);
    for (limits, warnings) in [
        ("requests_per_second = 10", &[rate.as_str(), &in_flight][..]),
        ("requests_per_second = 9", &[&in_flight]),
        ("in_flight_max = 4", &[&rate]),
        ("requests_per_second = 9, in_flight_max = 4", &[]),
    ] {
        assert_accepted(&(with_limits(limits) + budget), warnings);
    }
}

/// Each block of the section stands alone, beside what it does not show.
#[test]
fn the_documented_limits_are_accepted() {
    let section = POLICY.split("\n## ").find(|section| section.starts_with("Limits\n")).expect("a section");
    let mut count = 0;
    for block in section.split("```toml\n").skip(1) {
        let block = block.split("```").next().expect("its end");
        let mut text = SMALLEST.to_owned();
        if block.contains("[[caller]]") {
            let (caller, rest) = (text.find("[[caller]]").unwrap(), text.find("[[listener]]").unwrap());
            text.replace_range(caller..rest, "");
        }
        if block.contains("[environment.production]") {
            text.truncate(text.find("[environment.production]").unwrap());
        }
        if block.contains("vault:") {
            text += "[vault]\nkind = \"file\"\npath = \"/vault.age\"\nidentity = \"file:/identity\"\n";
        }
        let parsed = parse(&(text + block)).unwrap_or_else(|faults| panic!("{faults}\n{block}")).config;
        let environment = &parsed.environments["production"];
        assert!(
            !parsed.callers[0].limits.is_empty()
                || environment.budget != Default::default()
                || block.contains(".breaker]"),
            "{block}"
        );
        count += 1;
    }
    assert_eq!(count, 3);
}
