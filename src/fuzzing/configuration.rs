//! A configuration's text, and variables that override values of it.
//!
//! Lines `MXGATE__...=...` at the start are variables; the rest is TOML. Claimed: it ends in a
//! configuration or in faults; either is the same for the same text; what was accepted, written anew in
//! another form of TOML, is the same configuration; and no fault shows a value that could be a secret, or a
//! control character.

use toml::de::{DeTable, DeValue};

use crate::config::{Config, Loaded, fault::Faults, overrides::Overrides};

/// Begins what stands in inputs where somebody pasted a secret by mistake.
pub(super) const CANARY: &str = "c4n4ry";

pub(super) fn check(input: &[u8]) {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let (variables, text) = split(input);
    if variables.iter().any(|(name, _)| name.contains(CANARY)) {
        return; // a variable's name is shown, and is no value
    }
    let read = |text: &str| Config::parse(text, "mxgate.toml", &Overrides::from_iter(variables.clone()));
    let result = read(text);
    assert_eq!(shown(&read(text)), shown(&result), "the same text twice: {input:?}");
    let offence = printed(&result).into_iter().find(|line| !may_be_printed(line));
    assert_eq!(offence, None, "{input:?}");
    match &result {
        Ok(loaded) => {
            let written = rewritten(text).expect("what was accepted is TOML");
            let again = read(&written);
            let same = again.as_ref().is_ok_and(|again| {
                format!("{:?}", again.config) == format!("{:?}", loaded.config)
                    && again.warnings.len() == loaded.warnings.len()
            });
            assert!(same, "{input:?} is not {written:?}: {:?}", printed(&again));
        }
        Err(faults) => assert!(!faults.0.is_empty(), "a no without a reason: {input:?}"),
    }
}

pub(super) fn may_be_printed(line: &str) -> bool {
    !line.contains(CANARY) && !line.contains(char::is_control)
}

/// Variables, and what follows them.
fn split(mut input: &str) -> (Vec<(String, String)>, &str) {
    let mut variables = Vec::new();
    while let Some((line, rest)) = input.split_once('\n')
        && line.starts_with("MXGATE__")
        && let Some((name, value)) = line.split_once('=')
    {
        variables.push((name.to_owned(), value.to_owned()));
        input = rest;
    }
    (variables, input)
}

fn shown(result: &Result<Loaded, Faults>) -> String {
    format!("{result:?}")
}

/// Every fault or warning, as people and as programs see it.
fn printed(result: &Result<Loaded, Faults>) -> Vec<String> {
    let faults = match result {
        Ok(loaded) => &loaded.warnings,
        Err(faults) => &faults.0,
    };
    faults.iter().flat_map(|fault| [fault.to_string(), fault.to_json().to_string()]).collect()
}

/// The same document in one form: inline tables, quoted keys and escaped texts. `None`: it is no TOML.
pub(super) fn rewritten(text: &str) -> Option<String> {
    let (document, errors) = DeTable::parse_recoverable(text);
    let lines = document
        .get_ref()
        .iter()
        .map(|(key, value)| format!("{} = {}\n", quoted(key.get_ref()), value_of(value.get_ref())));
    errors.is_empty().then(|| lines.collect())
}

fn value_of(value: &DeValue<'_>) -> String {
    let list = |items: Vec<String>| items.join(", ");
    match value {
        DeValue::String(text) => quoted(text),
        // In decimal: also what is written in another radix.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or("99e99".to_owned(), |it| it.to_string()),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(values) => {
            format!("[{}]", list(values.iter().map(|one| value_of(one.get_ref())).collect()))
        }
        DeValue::Table(entries) => {
            let pairs = entries
                .iter()
                .map(|(key, value)| format!("{} = {}", quoted(key.get_ref()), value_of(value.get_ref())));
            format!("{{ {} }}", list(pairs.collect()))
        }
    }
}

fn quoted(text: &str) -> String {
    let escaped: String = text.chars().map(|c| format!("\\U{:08X}", u32::from(c))).collect();
    format!("\"{escaped}\"")
}
