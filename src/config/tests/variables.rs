//! `MXGATE__SECTION__KEY`.

use super::{Config, Faults, Loaded, Overrides, SMALLEST, lines};

fn with(variables: &[(&str, &str)]) -> Result<Loaded, Faults> {
    Config::parse(SMALLEST, "mxgate.toml", &variables.iter().copied().collect())
}

#[track_caller]
fn assert_fault(variable: (&str, &str), expected: &str) {
    let result = with(&[variable]);
    assert!(result.is_err(), "accepted; expected {expected}");
    assert_eq!(lines(&result), [expected]);
}

#[test]
fn a_variable_replaces_one_value_or_writes_it() {
    let config = with(&[
        ("MXGATE__LIMITS__BODY_BYTES_MAX", "1000"),
        ("MXGATE__ENVIRONMENT__PRODUCTION__ACCEPT_VERSION", "v20111101"),
        ("MXGATE__ENVIRONMENT__PRODUCTION__CREDENTIAL__API_KEY", "env:OTHER_KEY"),
        ("MXGATE__ENVIRONMENT__PRODUCTION__BEARER_OPERATIONS", "pass-through"),
        ("MXGATE__HEALTH__READY_NEEDS_VAULT", "true"),
        ("MXGATE__PROCESS__WORKERS", "3"),
        ("MXGATE_UNRELATED", "x"),
        ("PATH", "x"),
    ]);
    let config = config.unwrap().config;
    let production = &config.environments["production"];
    assert_eq!(config.limits.body_bytes_max, 1000);
    assert_eq!(production.accept_version, "v20111101");
    assert!(format!("{:?}", production.credential).contains("OTHER_KEY"));
    assert_eq!(production.bearer_operations, super::super::BearerOperations::PassThrough);
    assert!(config.health.is_some_and(|health| health.ready_needs_vault));
    assert_eq!(config.process.workers, Some(3));
}

#[test]
fn a_table_can_be_written_by_variables_where_a_word_was() {
    let text = SMALLEST.to_owned() + "bearer_operations = \"pass-through\"\n";
    let variable = [("MXGATE__ENVIRONMENT__PRODUCTION__BEARER_OPERATIONS__TOKEN", "env:TOKEN")];
    let config = Config::parse(&text, "f", &variable.into_iter().collect()).unwrap().config;
    let token = super::super::BearerOperations::Token("env:TOKEN".parse().unwrap());
    assert_eq!(config.environments["production"].bearer_operations, token);
}

#[test]
fn a_value_keeps_its_kind_whatever_it_looks_like() {
    let id = ("MXGATE__ENVIRONMENT__PRODUCTION__CREDENTIAL__CLIENT_ID", "12345");
    assert!(format!("{:?}", with(&[id]).unwrap().config).contains("client_id: \"12345\""));
}

#[test]
fn a_faulty_value_names_the_variable_and_is_not_repeated() {
    assert_fault(
        ("MXGATE__LIMITS__BODY_BYTES_MAX", "9999999999"),
        "MXGATE__LIMITS__BODY_BYTES_MAX: limits.body_bytes_max: is out of bounds; 0 to 1073741824 bytes",
    );
    assert_fault(
        ("MXGATE__LIMITS__BODY_BYTES_MAX", "10MB"),
        "MXGATE__LIMITS__BODY_BYTES_MAX: limits.body_bytes_max: is text; expected a whole number of bytes, 0 to 1073741824",
    );
    assert_fault(
        ("MXGATE__ENVIRONMENT__PRODUCTION__CREDENTIAL__API_KEY", "s3cr3t-v4lue"),
        "MXGATE__ENVIRONMENT__PRODUCTION__CREDENTIAL__API_KEY: environment.production.credential.api_key: \
         is not a reference; write vault:NAME, env:NAME or file:/PATH, or openbao:, aws: or exec:, never the secret itself",
    );
    assert_fault(
        ("MXGATE__ENVIRONMENT__PRODUCTION__CREDENTIAL__TOKEN", "env:X"),
        "MXGATE__ENVIRONMENT__PRODUCTION__CREDENTIAL__TOKEN: environment.production.credential.token: \
         unknown key; one of \"kind\", \"client_id\", \"api_key\", \"secondary_api_key\"",
    );
}

#[test]
fn a_variable_for_no_single_key_is_a_fault() {
    assert_fault(
        ("MXGATE__LIMITS__BODY_BYTE_MAX", "1"),
        "MXGATE__LIMITS__BODY_BYTE_MAX: stands for no key; did you mean \"MXGATE__LIMITS__BODY_BYTES_MAX\"?",
    );
    assert_fault(
        ("MXGATE__ENVIRONMENT__PRODUCTIN__URL", "https://x"),
        "MXGATE__ENVIRONMENT__PRODUCTIN__URL: stands for no key; \
         did you mean \"MXGATE__ENVIRONMENT__PRODUCTION__URL\"?",
    );
    let list = "stands for a list, and a variable replaces single values only; write it in the file";
    assert_fault(("MXGATE__ALLOW", "0.0.0.0/0"), &format!("MXGATE__ALLOW: {list}"));
    assert_fault(("MXGATE__LISTENER__0__ADDRESS", "x"), &format!("MXGATE__LISTENER__0__ADDRESS: {list}"));
    let section = "stands for a section, not for one of its values";
    for name in ["MXGATE__LIMITS", "MXGATE__ENVIRONMENT", "MXGATE__ENVIRONMENT__PRODUCTION", "MXGATE__VAULT"]
    {
        assert_fault((name, "x"), &format!("{name}: {section}"));
    }
    assert_fault(("MXGATE__LOG__FILTER__X", "1"), "MXGATE__LOG__FILTER__X: goes on below a single value");
}

#[test]
fn a_variable_is_written_in_upper_case_and_utf8() {
    assert_fault(
        ("MXGATE__LIMITS__body_bytes_max", "1"),
        "MXGATE__LIMITS__body_bytes_max: is not in upper case; did you mean \"MXGATE__LIMITS__BODY_BYTES_MAX\"?",
    );
    use std::os::unix::ffi::OsStringExt as _;
    let value = std::ffi::OsString::from_vec(b"s3cr3t\xff".to_vec());
    let overrides = Overrides::from_iter([("MXGATE__LOG__FILTER", value)]);
    let result = Config::parse(SMALLEST, "f", &overrides);
    assert_eq!(lines(&result), ["MXGATE__LOG__FILTER: is not UTF-8"]);
}
