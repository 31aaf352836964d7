//! Standard output of the commands.

use std::io::{self, Write as _};

/// Prints one line. A reader that left early (`mxgate check | head -1`) is no fault.
///
/// # Errors
/// Everything else that keeps the line from being written, such as a full disk.
pub(crate) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
