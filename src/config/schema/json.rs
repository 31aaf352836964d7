//! The JSON schema of the file, for editors and for tools that write configurations.

use serde_json::{Map, Value, json};

use super::{Key, Kind, Need, REFERENCE, Reload, keys::FILE};
use crate::{tree::tree, vault::reference::Scheme};

/// The form of names that an operator chooses.
const NAME: &str = "^[a-z][a-z0-9]*([_-][a-z0-9]+)*$";

/// JSON Schema, draft 2020-12.
pub(in crate::config) fn schema() -> Value {
    let mut schema = object(FILE, false);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("mxgate.toml");
    schema
}

fn object(keys: &[Key], below_restart: bool) -> Value {
    let properties: Map<String, Value> =
        tree(keys.iter().map(|key| (key.name.to_owned(), property(key, below_restart))));
    json!({
        "type": "object",
        "properties": properties,
        "required": required(keys),
        "additionalProperties": false,
    })
}

fn required(keys: &[Key]) -> Vec<&'static str> {
    keys.iter().filter(|key| matches!(key.need, Need::Required)).map(|key| key.name).collect()
}

fn property(key: &Key, below_restart: bool) -> Value {
    let restart = below_restart || key.reload == Reload::Restart;
    let mut property = kind(&key.kind, restart);
    let taken_up = match (&key.kind, restart) {
        (Kind::Section(_) | Kind::Named(_), false) => "",
        (_, true) => " Restart-only.",
        (_, false) => " Reloadable.",
    };
    property["description"] = json!(format!("{}.{taken_up}", key.doc));
    match key.need {
        Need::Text(text) => property["default"] = json!(text),
        Need::Integer(number) => property["default"] = json!(number),
        Need::Flag(flag) => property["default"] = json!(flag),
        Need::Required | Need::Optional => {}
    }
    property
}

fn kind(kind: &Kind, restart: bool) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Path => json!({ "type": "string", "pattern": "^/" }),
        Kind::Reference => {
            let schemes = Scheme::ALL.map(Scheme::name).join("|");
            let text = json!({ "type": "string", "pattern": format!("^({schemes}):.") });
            let mut table = object(REFERENCE, restart);
            table["properties"]["from"]["pattern"] = text["pattern"].clone();
            json!({ "oneOf": [text, table] })
        }
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Integer { min, max, .. } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Integers { min, max, .. } => {
            json!({ "type": "array", "items": { "type": "integer", "minimum": min, "maximum": max } })
        }
        Kind::NamedTexts => json!({
            "type": "object",
            "minProperties": 1,
            "propertyNames": { "pattern": NAME },
            "additionalProperties": { "type": "array", "items": { "type": "string" } },
        }),
        Kind::NamedText => json!({
            "type": "object",
            "minProperties": 1,
            "additionalProperties": { "type": "string" },
        }),
        Kind::Section(keys) => object(keys, restart),
        Kind::Sections(keys) => json!({ "type": "array", "minItems": 1, "items": object(keys, restart) }),
        Kind::Named(keys) => json!({
            "type": "object",
            "minProperties": 1,
            "propertyNames": { "pattern": NAME },
            "additionalProperties": object(keys, restart),
        }),
        Kind::Variants(variants) => {
            let of = |variant: &super::Variant| {
                let mut object = object(variant.keys, restart);
                object["properties"]["kind"] = json!({ "const": variant.kind });
                object["required"] = json!([&["kind"], required(variant.keys).as_slice()].concat());
                object
            };
            json!({ "oneOf": variants.iter().map(of).collect::<Vec<_>>() })
        }
        Kind::WordOrSection(words, keys) => json!({ "oneOf": [{ "enum": words }, object(keys, restart)] }),
    }
}
