//! Standard output of the commands.

use std::{
    fmt::{Display, Write as _},
    io::{self, Write as _},
};

/// Prints one line. A reader that left early (`mxgate check | head -1`) is no fault.
///
/// # Errors
/// Everything else that keeps the line from being written, such as a full disk.
pub(crate) fn line(text: impl Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Prints one JSON value on a line, in ASCII.
///
/// # Errors
/// As [`line`].
pub(crate) fn json(value: &serde_json::Value) -> io::Result<()> {
    line(ascii(&value.to_string()))
}

/// JSON with every character outside printable ASCII escaped; such stand in strings only. JSON itself leaves characters alone
/// that steer a terminal.
pub(crate) fn ascii(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut ascii, c| {
        // Line ends stand between tokens only.
        if matches!(c, ' '..='~' | '\n') {
            ascii.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String does not fail.
                _ = write!(ascii, "\\u{unit:04x}");
            }
        }
        ascii
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_printed_in_ascii_and_means_the_same() {
        let value = serde_json::json!({ "a\u{9b}31m\u{7f}": "ü\u{202e}\u{1f600}\n" });
        let printed = ascii(&value.to_string());
        assert!(printed.chars().all(|c| matches!(c, ' '..='~')), "{printed}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
    }
}
