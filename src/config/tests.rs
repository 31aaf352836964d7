//! The configuration as its users see it: texts in, configurations or faults out.

mod aws;
mod callers;
mod connections;
mod egress;
mod examples;
mod faults;
mod keys;
mod limits;
mod loading;
mod openbao;
mod policy;
mod policy_callers;
mod providers;
mod references;
mod rotation;
mod users;
mod variables;

use super::{Config, Loaded, fault::Faults, overrides::Overrides};

/// The smallest configuration that is accepted without a warning.
const SMALLEST: &str = r#"
allow = ["127.0.0.0/8"]
[[caller]]
name = "ledger"
networks = ["127.0.0.0/8"]
grant = { production = ["read"] }
[[listener]]
address = "127.0.0.1:8080"
environment = "production"
[environment.production]
credential = { kind = "basic", client_id = "CLIENT-ID", api_key = "env:MX_API_KEY" }
"#;

fn parse(text: &str) -> Result<Loaded, Faults> {
    Config::parse(text, "mxgate.toml", &Overrides::none())
}

/// Every fault and warning, as it is printed.
fn lines(result: &Result<Loaded, Faults>) -> Vec<String> {
    let found = match result {
        Ok(loaded) => &loaded.warnings,
        Err(faults) => &faults.0,
    };
    found.iter().map(ToString::to_string).collect()
}

/// `SMALLEST` with one text replaced by another; both must differ, and the text must be there.
fn with(from: &str, to: &str) -> String {
    assert!(SMALLEST.contains(from), "{from}");
    SMALLEST.replacen(from, to, 1)
}

/// Asserts that `text` has a fault whose line ends in `expected`, after the place.
#[track_caller]
fn assert_fault(text: &str, expected: &str) {
    let result = parse(text);
    assert!(result.is_err(), "accepted; expected {expected}");
    assert!(lines(&result).iter().any(|line| line.ends_with(expected)), "{:#?}", lines(&result));
}

/// Asserts that `text` is accepted with a warning that has `expected` in it.
#[track_caller]
fn assert_warning(text: &str, expected: &str) {
    let result = parse(text);
    assert!(result.is_ok(), "{:#?}", lines(&result));
    assert!(lines(&result).iter().any(|line| line.contains(expected)), "{:#?}", lines(&result));
}

/// Asserts that `text` is accepted with exactly these warnings, without their places.
#[track_caller]
fn assert_accepted(text: &str, warnings: &[&str]) {
    let result = parse(text);
    assert!(result.is_ok(), "{:#?}", lines(&result));
    let found = lines(&result);
    let after_place =
        |line: &String| line.split_once(": ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    assert_eq!(found.iter().map(after_place).collect::<Vec<_>>(), warnings);
}
