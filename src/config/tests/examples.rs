//! The example files and the schema that are published.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    super::{
        FileKind,
        schema::{Key, Kind, Need, all_keys, keys::FILE},
    },
    Config, lines, parse,
};

fn published(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap()
}

#[test]
fn every_example_is_accepted_without_a_warning() {
    let mut count = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".toml") {
            let result = parse(&published(&name));
            assert_eq!(lines(&result), [""; 0], "{name}");
            assert!(result.is_ok(), "{name}");
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

#[test]
fn the_published_schema_is_the_generated_one() {
    let published: serde_json::Value = serde_json::from_str(&published("mxgate.schema.json")).unwrap();
    let current = published == Config::json_schema();
    assert!(current, "run: mxgate check --schema > config/mxgate.schema.json");
}

/// `every-key.toml` names every key, and where it shows a default, that is the default.
#[test]
fn every_key_is_shown_with_its_default() {
    let text = published("every-key.toml");
    let mut keys = Vec::new();
    collect(FILE, &mut keys);
    assert!(keys.len() > 60, "{}", keys.len());
    for key in keys {
        let shown = |value: &str| text.contains(&format!("{} = {value}", key.name));
        match key.need {
            Need::Text(default) => assert!(shown(&format!("\"{default}\"")), "{}", key.name),
            Need::Flag(default) => assert!(shown(&default.to_string()), "{}", key.name),
            Need::Integer(default) => {
                let digits = text.replace('_', "");
                let name = key.name.replace('_', "");
                assert!(digits.contains(&format!("{name} = {default}")), "{}", key.name);
            }
            Need::Required | Need::Optional => {
                let named = [format!("{} = ", key.name), format!("[{}", key.name), format!(".{}]", key.name)];
                assert!(named.iter().any(|named| text.contains(named)), "{}", key.name);
            }
        }
    }
}

/// What `mxgate doctor` judges and a load watches: none is left out but what the gateway makes itself.
#[test]
fn every_file_that_can_be_named_is_listed() {
    let text = published("every-key.toml");
    let config = parse(&text).unwrap().config;
    let listed: BTreeSet<String> = config
        .loaded_files()
        .chain(config.other_files())
        .map(|(file, _)| file.display().to_string())
        .collect();
    let values = text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| {
        let code = line.split(" # ").next().unwrap();
        code.split('"').skip(1).step_by(2)
    });
    let paths = values
        .map(|value| value.strip_prefix("file:").unwrap_or(value))
        .filter(|value| value.starts_with('/'));
    let not_listed: Vec<&str> = paths.filter(|path| !listed.contains(*path)).collect();
    assert_eq!(not_listed, ["/var/lib/mxgate/connections", "/run/mxgate/control.sock"]);
    let kind = |name: &str| {
        let all = config.loaded_files().chain(config.other_files());
        all.filter(|(file, _)| file.ends_with(name)).map(|(_, kind)| kind).collect::<Vec<_>>()
    };
    assert_eq!(kind("tls-key.pem"), [FileKind::Secret]);
    assert_eq!(kind("tls.pem"), [FileKind::Trust]);
    assert_eq!(kind("mxgate-passphrase"), [FileKind::VaultKey]);
}

fn collect(keys: &'static [Key], into: &mut Vec<&'static Key>) {
    for key in keys {
        into.push(key);
        match &key.kind {
            Kind::Section(keys) | Kind::Sections(keys) | Kind::Named(keys) | Kind::WordOrSection(_, keys) => {
                collect(keys, into);
            }
            Kind::Variants(variants) => into.extend(all_keys(variants)),
            _ => {}
        }
    }
}

/// A reader copies them.
#[test]
fn every_grant_in_the_documentation_is_accepted_without_a_warning() {
    let (_, text) = include_str!("../../../docs/policy.md").split_once("\n## Grants\n").unwrap();
    let section = text.split("\n## ").next().unwrap();
    let examples: Vec<&str> =
        section.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 4);
    let (before, after) = super::SMALLEST.split_once("[[caller]]").unwrap();
    let (_, after) = after.split_once("[[listener]]").unwrap();
    let sandbox = "[environment.sandbox]\ncredential = { kind = \"bearer\", token = \"env:T\" }\n\
                   [[listener]]\naddress = \"127.0.0.1:8081\"\nenvironment = \"sandbox\"\n";
    for example in examples {
        super::assert_accepted(&format!("{before}{example}[[listener]]{after}{sandbox}"), &[]);
    }
}
