//! The example files and the schema that are published.

use std::{fs, path::Path};

use super::{
    super::schema::{Key, Kind, Need, all_keys, keys::FILE},
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
