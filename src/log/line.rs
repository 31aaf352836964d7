//! One line: masked first, then escaped, then cut. In this order: an escape or a cut inside a secret
//! would hide it from the masker.

use std::fmt::Write as _;

use crate::redaction::Masker;

/// The longest line, in bytes, without its end. What is longer is cut, and says so.
pub(super) const BYTES_MAX: usize = 16 * 1024;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `2026-03-01T12:00:00.000000Z  INFO mxgate::upstream: message key=value`
    Text,
    /// One JSON object.
    Json,
}

/// `text` as one line without its end: secrets masked, control characters escaped. The escapes are JSON's, so
/// a JSON line stays one. One end of line at the very end is dropped.
pub(super) fn clean(text: &[u8], masker: &Masker) -> String {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut bytes = text.to_vec();
    masker.mask(&mut bytes);
    let mut line = String::with_capacity(bytes.len() + 1);
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| escape(c, &mut line));
        if !chunk.invalid().is_empty() {
            line.push_str("\\ufffd");
        }
    }
    line
}

/// [`clean`], cut to [`BYTES_MAX`], with its end.
pub(super) fn finished(text: &[u8], masker: &Masker, shape: Shape) -> String {
    let mut line = clean(text, masker);
    if line.len() > BYTES_MAX {
        let length = line.len();
        match shape {
            Shape::Text => {
                cut(&mut line, BYTES_MAX);
                let _ = write!(line, " [cut: {length} bytes]");
            }
            // Half of an object is none: its beginning becomes a message. Quoting can double it.
            Shape::Json => {
                cut(&mut line, BYTES_MAX / 2);
                line =
                    own(Shape::Json, "WARN", "mxgate::log", &format!("line of {length} bytes, cut: {line}"));
            }
        }
    }
    line.push('\n');
    line
}

/// A line that is not an event: what the log says of itself, and panics. It passes no filter.
pub(super) fn own(shape: Shape, level: &str, target: &str, message: &str) -> String {
    let time = humantime::format_rfc3339_micros(std::time::SystemTime::now());
    match shape {
        Shape::Text => format!("{time} {level:>5} {target}: {message}"),
        Shape::Json => {
            let fields = serde_json::json!({ "message": message });
            serde_json::json!({ "timestamp": time.to_string(), "level": level, "fields": fields, "target": target })
                .to_string()
        }
    }
}

/// C0, DEL and C1 move cursors and fake lines; so do the two Unicode line ends; bidirectional controls show
/// text in another order than it has.
fn escape(c: char, line: &mut String) {
    match c {
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        '\u{2028}'
        | '\u{2029}'
        | '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        }
        _ if c.is_control() => {
            let _ = write!(line, "\\u{:04x}", u32::from(c));
        }
        _ => line.push(c),
    }
}

fn cut(line: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
    line.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::secret::Secret;

    fn masker() -> Masker {
        Masker::new([&Secret::new(b"9f3Kq7Zt20xLmW8b".to_vec()).unwrap()])
    }

    #[test]
    fn control_characters_are_escaped_and_text_is_not() {
        for (text, line) in [
            ("one\ntwo\r\n", "one\\ntwo\\r"),
            ("\u{1b}[31mred\u{7}", "\\u001b[31mred\\u0007"),
            ("\u{7f}\u{85}\u{9b}2J\u{0}", "\\u007f\\u0085\\u009b2J\\u0000"),
            ("a\u{2028}b\u{202e}c\u{2066}", "a\\u2028b\\u202ec\\u2066"),
            ("plain ü 金 \"quoted\" back\\slash", "plain ü 金 \"quoted\" back\\slash"),
        ] {
            assert_eq!(clean(text.as_bytes(), &masker()), line);
        }
        assert_eq!(clean(b"a\xff\xfeb\xc3", &masker()), "a\\ufffd\\ufffdb\\ufffd");
    }

    #[test]
    fn secrets_are_masked_and_near_misses_are_not() {
        assert_eq!(clean(b"key 9f3Kq7Zt20xLmW8b!", &masker()), "key ****************!");
        assert_eq!(clean(b"key 9f3Kq7Zt20xLmW8!", &masker()), "key 9f3Kq7Zt20xLmW8!");
    }

    #[test]
    fn a_long_line_is_cut_after_masking_and_stays_json() {
        // The edge of the cut goes through the secret.
        let text = format!("{}9f3Kq7Zt20xLmW8b{}", "ü".repeat(BYTES_MAX / 2 - 4), "\"".repeat(BYTES_MAX));
        let line = finished(text.as_bytes(), &masker(), Shape::Text);
        assert!(
            line.len() < BYTES_MAX + 40
                && line.ends_with(&format!("ü******** [cut: {} bytes]\n", text.len()))
        );
        let line = finished(text.as_bytes(), &masker(), Shape::Json);
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(object["fields"]["message"].as_str().unwrap().contains("cut: üü"), "{object}");
        assert!(line.len() <= BYTES_MAX + 300);
        let short = "-".repeat(BYTES_MAX);
        assert_eq!(finished(short.as_bytes(), &masker(), Shape::Text), short + "\n");
    }
}
