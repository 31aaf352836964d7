//! The configuration as it may leave this machine: in a support bundle.
//!
//! In: the file and the variables. Out: what is set, as JSON, without comments. A configuration holds references and no
//! secrets, but people write things where they do not belong: identifiers and end users are left out, and so is every
//! text that looks like a secret, but for paths where a key has one: folders that machines name look so, and who helps needs
//! them. What is known to be a secret is masked by value afterwards, by whoever writes it.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    Config,
    document::{self, Data, Node},
    load,
    overrides::{self, Overrides},
    schema::{Key, Kind, Variant, all_keys, keys::FILE},
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
        value("", Expected::Table(FILE), &root)
    }
}

/// What the table of keys says of a place in the file.
#[derive(Clone, Copy)]
enum Expected {
    Table(&'static [Key]),
    /// Tables of these keys, by names of the operator's.
    Named(&'static [Key]),
    Variants(&'static [Variant]),
    /// `/PATH`
    Path,
    /// A reference, or a place that is written as one: `file:/PATH`, `unix:/PATH`.
    Reference,
    Other,
}

impl Expected {
    fn at(self, name: &str) -> Self {
        let is_it = |key: &&'static Key| key.name == name;
        let key = match self {
            Self::Table(keys) => keys.iter().find(is_it),
            Self::Variants(variants) => all_keys(variants).find(is_it),
            Self::Named(keys) => return Self::Table(keys),
            // It may be a table that holds the reference.
            Self::Reference if name == "from" => return self,
            Self::Path | Self::Reference | Self::Other => None,
        };
        key.map_or(Self::Other, Self::of)
    }

    fn of(key: &'static Key) -> Self {
        match &key.kind {
            Kind::Path => Self::Path,
            Kind::Reference => Self::Reference,
            Kind::Section(keys) | Kind::Sections(keys) | Kind::WordOrSection(_, keys) => Self::Table(keys),
            Kind::Named(keys) => Self::Named(keys),
            Kind::Variants(variants) => Self::Variants(variants),
            Kind::Text if matches!(key.name, "address" | "destination") => Self::Reference,
            _ => Self::Other,
        }
    }

    /// Whether `text` is a path as it belongs here. One without a folder may be a key that happens to begin so.
    fn has_path(self, text: &str) -> bool {
        let path = match self {
            Self::Path => Some(text),
            Self::Reference => text.strip_prefix("file:").or_else(|| text.strip_prefix("unix:")),
            _ => None,
        };
        path.and_then(|path| path.strip_prefix('/')).is_some_and(|path| path.contains('/'))
    }
}

fn value(key: &str, expected: Expected, node: &Node) -> Value {
    if LEFT_OUT.contains(&key) {
        return json!("(left out)");
    }
    match &node.data {
        Data::Text(text) if !PUBLIC.contains(&key) && !expected.has_path(text) && looks_secret(text) => {
            json!("(left out: looks like a secret)")
        }
        Data::Text(text) => json!(text),
        Data::Integer(number) => json!(number),
        Data::Flag(flag) => json!(flag),
        Data::Float | Data::Datetime => json!("(left out)"),
        Data::List(values) => values.iter().map(|one| value(key, expected, one)).collect(),
        Data::Table(entries) => {
            let one = |(name, entry): (&String, &document::Entry)| {
                let shown = if looks_secret(name) { "(left out)" } else { name };
                (shown.to_owned(), value(name, expected.at(name), &entry.value))
            };
            Value::Object(tree(entries.iter().map(one)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        value("", Expected::Table(FILE), &document::parse(text, "f").root).to_string()
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
    fn a_path_is_shown_where_a_key_has_one() {
        const PATH: &str = "/tmp/mount-4f9a1c07b2e85d36/of-the-gateway";
        assert!(looks_secret(PATH));
        for text in [
            format!("[control]\nsocket = \"{PATH}\""),
            format!("[vault]\nkind = \"file\"\npath = \"{PATH}\""),
            format!("[vault]\nidentity = \"file:{PATH}\""),
            format!("[environment.production]\nca_file = \"{PATH}\""),
            format!("[environment.a]\ncredential = {{ api_key = {{ from = \"file:{PATH}#key\" }} }}"),
            format!("[[listener]]\naddress = \"unix:{PATH}\"\ntls = {{ key = \"{PATH}\" }}"),
            format!("[record]\ndestination = \"file:{PATH}\""),
        ] {
            let (shown, written) = (shown(&text), text.matches(PATH).count());
            assert_eq!(shown.matches(PATH).count(), written, "{shown}");
        }
        // What is no path there, or no path at all.
        for text in [
            format!("[log]\nfilter = \"{PATH}\""),
            format!("[unknown]\npath = \"{PATH}\""),
            format!("[control]\nsocket = \"{}\"", &PATH[1..]),
            "[control]\nsocket = \"/9f3Kq7Zt20xLmW8bQ4vN\"".to_owned(),
            "[vault]\nidentity = \"file:/9f3Kq7Zt20xLmW8bQ4vN\"".to_owned(),
        ] {
            assert!(shown(&text).contains("(left out: looks like a secret)"), "{text}");
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
