//! Some text fields of a JSON document changed, and all others left as they are, to the digit.
//!
//! In: a source's document, and what its fields are to be. Out: the document to write, in a buffer that is wiped. A field
//! that is new comes last, and a document that there is not yet is `{}`.
//! What must never happen: a field that we do not know of is lost or written in another way.

use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::field::Fault;

/// `document` with each of `changes`: a text, or `None` for a field that is not to be there.
pub(crate) fn with(document: &[u8], changes: &[(&str, Option<&str>)]) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let mut reader = serde_json::Deserializer::from_slice(document);
    let fields = reader.deserialize_map(All);
    let fields = fields.and_then(|fields| reader.end().map(|()| fields)).map_err(|_| Fault::NotAnObject)?;
    // The names of a JSON object could be written in two ways, and two readers could take different ones of two fields.
    for (at, (name, _)) in fields.iter().enumerate() {
        if fields.iter().take(at).any(|(other, _)| other == name) {
            return Err(Fault::Twice);
        }
    }
    // Room for all of it beforehand: growing would leave an unwiped copy behind. An escape makes six bytes of one.
    let old: usize = fields.iter().map(|(name, value)| 6 * name.len() + value.get().len() + 4).sum();
    let new: usize = changes.iter().map(|(name, text)| 6 * (name.len() + text.map_or(0, str::len)) + 6).sum();
    let mut written = Zeroizing::new(Vec::with_capacity(old + new + 2));
    written.push(b'{');
    for (name, value) in &fields {
        match changes.iter().find(|(changed, _)| changed == name) {
            None => {
                key(&mut written, name)?;
                written.extend_from_slice(value.get().as_bytes());
            }
            Some((_, Some(text))) => pair(&mut written, name, text)?,
            Some((_, None)) => {}
        }
    }
    for (name, text) in changes.iter().filter(|(name, _)| fields.iter().all(|(known, _)| known != name)) {
        if let Some(text) = text {
            pair(&mut written, name, text)?;
        }
    }
    written.push(b'}');
    Ok(written)
}

fn pair(written: &mut Vec<u8>, name: &str, text: &str) -> Result<(), Fault> {
    key(written, name)?;
    serde_json::to_writer(written, text).map_err(|_| Fault::NotText)
}

fn key(written: &mut Vec<u8>, name: &str) -> Result<(), Fault> {
    if written.len() > 1 {
        written.push(b',');
    }
    serde_json::to_writer(&mut *written, name).map_err(|_| Fault::NotText)?;
    written.push(b':');
    Ok(())
}

/// Every field, in the document's order, with its value as it is written.
struct All;

impl<'d> Visitor<'d> for All {
    type Value = Vec<(String, &'d RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(document: &str, changes: &[(&str, Option<&str>)]) -> Result<String, Fault> {
        with(document.as_bytes(), changes).map(|written| String::from_utf8(written.to_vec()).unwrap())
    }

    #[test]
    fn what_is_not_changed_stays_as_it_was_written() {
        let document = r#" { "a" : 1.50, "api_key":"old", "z": {"b":[1e3, null]}, "\u00fc": "x\u00e9" } "#;
        assert_eq!(
            changed(document, &[("api_key", Some("new")), ("more", Some("q\"\\"))]).unwrap(),
            r#"{"a":1.50,"api_key":"new","z":{"b":[1e3, null]},"ü":"x\u00e9","more":"q\"\\"}"#
        );
        assert_eq!(changed("{}", &[]).unwrap(), "{}");
        assert_eq!(changed("{}", &[("a", Some("b")), ("c", None)]).unwrap(), r#"{"a":"b"}"#);
        assert_eq!(changed(r#"{"a":"b","c":"d"}"#, &[("a", None)]).unwrap(), r#"{"c":"d"}"#);
        assert_eq!(changed(r#"{"a":{"not":"a text"}}"#, &[("a", Some("b"))]).unwrap(), r#"{"a":"b"}"#);
    }

    #[test]
    fn what_is_no_object_or_means_two_things_is_refused() {
        for document in ["", "text", "[]", "{", "{}{}", "\"a\""] {
            assert_eq!(changed(document, &[]), Err(Fault::NotAnObject), "{document}");
        }
        for document in [r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#] {
            assert_eq!(changed(document, &[]), Err(Fault::Twice), "{document}");
        }
    }

    #[test]
    fn the_buffer_does_not_grow() {
        let (long, quotes) = ("k".repeat(5000), "\"\u{1}".repeat(2000));
        let document = format!(r#"{{"{long}":"{long}","a":[]}}"#);
        let written = with(document.as_bytes(), &[("a", Some(&quotes)), ("b", Some(&quotes))]).unwrap();
        let room = (6 * 5000 + 5002 + 4) + (6 + 2 + 4) + 2 * (6 * (1 + 4000) + 6) + 2;
        assert_eq!(written.capacity(), room);
        assert!(written.len() > room / 2, "{}", written.len());
    }
}
