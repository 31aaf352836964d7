//! `#field`: one text field of a JSON document.
//!
//! In goes a source's document, out comes the field's value in a buffer that is wiped. Outside that promise: what
//! serde_json unescapes in a buffer of its own, where a value has escapes.

use std::{borrow::Cow, fmt};

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// Why there is no such field. It never repeats the document.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// It may be the secret itself, which has no fields.
    #[error("is no JSON object, in which a field could be")]
    NotAnObject,
    /// Not at the top level.
    #[error("has no field of that name at its top level")]
    Missing,
    /// Two readers could take different ones.
    #[error("has the field twice")]
    Twice,
    /// A number, an object, a list.
    #[error("has a field of that name that is no text")]
    NotText,
}

/// The text of the top-level field `name` of `document`.
pub(crate) fn of(document: &[u8], name: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let mut reader = serde_json::Deserializer::from_slice(document);
    let found = reader.deserialize_map(Fields { name });
    let found = found.and_then(|found| reader.end().map(|()| found)).map_err(|_| Fault::NotAnObject)?;
    let value = match found {
        Found::None => return Err(Fault::Missing),
        Found::Several => return Err(Fault::Twice),
        Found::One(value) => value,
    };
    let text: Text<'_> = serde_json::from_str(value.get()).map_err(|_| Fault::NotText)?;
    Ok(match text.0 {
        Cow::Borrowed(text) => Zeroizing::new(text.as_bytes().to_vec()),
        Cow::Owned(text) => Zeroizing::new(text.into_bytes()),
    })
}

#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'d>(#[serde(borrow)] Cow<'d, str>);

enum Found<'d> {
    None,
    One(&'d RawValue),
    Several,
}

struct Fields<'n> {
    name: &'n str,
}

impl<'d> Visitor<'d> for Fields<'_> {
    type Value = Found<'d>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Found<'d>, A::Error> {
        let mut found = Found::None;
        while let Some(name) = map.next_key::<Text<'d>>()? {
            if name.0 == self.name {
                let value = map.next_value::<&RawValue>()?;
                found = if matches!(found, Found::None) { Found::One(value) } else { Found::Several };
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(document: &str) -> Result<String, Fault> {
        of(document.as_bytes(), "key").map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn a_text_field_is_found_wherever_it_stands() {
        assert_eq!(field(r#"{"key":"v4lue"}"#).as_deref(), Ok("v4lue"));
        assert_eq!(
            field(" { \"a\" : [1,{\"key\":2}], \"key\" : \"x\" , \"b\": null } \n").as_deref(),
            Ok("x")
        );
        assert_eq!(field(r#"{"key":"a\u003d\/b\"c"}"#).as_deref(), Ok("a=/b\"c"));
        assert_eq!(field(r#"{"k\u0065y":"x"}"#).as_deref(), Ok("x"));
        assert_eq!(field(r#"{"key":""}"#).as_deref(), Ok(""));
    }

    #[test]
    fn what_is_no_such_field_is_told_apart() {
        for text in ["", "s3cr3t", "\"key\"", "[\"key\"]", "{\"key\":\"x\"", "{\"key\":\"x\"} y", "{\"key\"}"]
        {
            assert_eq!(field(text), Err(Fault::NotAnObject), "{text}");
        }
        for text in ["{}", r#"{"Key":"x"}"#, r#"{"a":{"key":"x"}}"#] {
            assert_eq!(field(text), Err(Fault::Missing), "{text}");
        }
        assert_eq!(field(r#"{"key":"x","key":"x"}"#), Err(Fault::Twice));
        for value in ["1", "null", "true", "{}", "[\"x\"]"] {
            assert_eq!(field(&format!("{{\"key\":{value}}}")), Err(Fault::NotText), "{value}");
        }
    }
}
