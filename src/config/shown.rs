//! The configuration as it may leave this machine: in a support bundle.
//!
//! In: the file and the variables. Out: what is set, as JSON, without comments. A configuration holds references and no
//! secrets, but people write things where they do not belong: identifiers and end users are left out, and so is every
//! text that looks like a secret. What is known to be one is masked by value afterwards, by whoever writes it.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    Config,
    document::{self, Data, Node},
    load,
    overrides::{self, Overrides},
};
use crate::{redaction::looks_secret, tree::tree};

/// Keys whose values are identifiers, of us or of people, or free text of which nobody can tell what it is.
const LEFT_OUT: [&str; 7] = ["client_id", "username", "prefix", "users", "issuer", "audience", "claim"];

/// Keys whose values look random and are public.
const PUBLIC: [&str; 1] = ["pins"];

impl Config {
    /// What is set in the file at `path` and by variables; a text instead, when it cannot be read.
    #[must_use]
    pub fn shown(path: &Path) -> Value {
        let text = load::read(path).ok().and_then(|text| String::from_utf8(text).ok());
        let Some(text) = text else { return json!("it cannot be read; `mxgate check` says why") };
        let mut root = document::parse(&text, "").root;
        // Their faults are those of the configuration, which was loaded before.
        let _ = overrides::apply(&mut root, "", &Overrides::from_environment());
        value("", &root)
    }
}

fn value(key: &str, node: &Node) -> Value {
    if LEFT_OUT.contains(&key) {
        return json!("(left out)");
    }
    match &node.data {
        Data::Text(text) if !PUBLIC.contains(&key) && looks_secret(text) => {
            json!("(left out: looks like a secret)")
        }
        Data::Text(text) => json!(text),
        Data::Integer(number) => json!(number),
        Data::Flag(flag) => json!(flag),
        Data::Float | Data::Datetime => json!("(left out)"),
        Data::List(values) => values.iter().map(|one| value(key, one)).collect(),
        Data::Table(entries) => {
            let one = |(name, entry): (&String, &document::Entry)| {
                let shown = if looks_secret(name) { "(left out)" } else { name };
                (shown.to_owned(), value(name, &entry.value))
            };
            Value::Object(tree(entries.iter().map(one)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        value("", &document::parse(text, "f").root).to_string()
    }

    #[test]
    fn what_is_set_is_shown_and_what_nobody_needs_is_not() {
        let every = shown(include_str!("../../config/every-key.toml"));
        for part in [
            "vault:production/api_key",
            "http://proxy.internal:3128",
            "sha256/ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
            "\"connections_max\":256",
            "GET /users/{user_guid}/reports",
            "10.20.1.0/24",
        ] {
            assert!(every.contains(part), "{part}: {every}");
        }
        for part in ["CLIENT-ID", "SANDBOX", "USR-123", "https://id.example\"", "required;", "\"mxgate\""] {
            assert!(!every.contains(part), "{part}: {every}");
        }
    }

    #[test]
    fn a_key_in_the_wrong_place_is_not_shown() {
        const KEY: &str = "9f3Kq7Zt20xLmW8bQ4vN";
        for text in [
            format!("# {KEY}\nallow = []"),
            format!("allow = [\"{KEY}\"]"),
            format!("{KEY} = 1"),
            format!("[environment.production]\ncredential = {{ kind = \"basic\", client_id = \"{KEY}\" }}"),
            format!("[environment.production]\ncredential = {{ api_key = \"env:{KEY}\" }}"),
            format!("[environment.production]\nproxy = {{ url = \"http://u:{KEY}@proxy:1\" }}"),
        ] {
            let shown = shown(&text);
            assert!(!shown.contains(KEY) && shown.starts_with('{'), "{shown}");
        }
    }
}
