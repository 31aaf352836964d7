//! What is wrong with a configuration, and where.
//!
//! A [`Fault`] names its place, its key, what is wrong, what is allowed and the nearest valid name. It
//! never holds a line of the file and never a text that was written as a value: either may be a secret
//! pasted by mistake. A `Report` collects all faults of one run.

use std::{cell::RefCell, collections::BTreeSet, fmt, fmt::Write as _};

use super::document::Node;
use crate::vault::reference::Reference;

/// One fault or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whether it stops the start.
    pub severity: Severity,
    /// The file's name, as it was given.
    pub file: String,
    /// Where.
    pub place: Place,
    /// The key's path, such as `listener[0].address`; empty when the fault belongs to no key.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is not used.
    Error,
    /// It is used, and probably does not do what was meant.
    Warning,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File,
    /// Both count from 1; a column is one character.
    At {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// An environment variable of this name.
    Variable(String),
}

/// What is wrong, without where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in a few words.
    pub what: String,
    /// What is allowed instead.
    pub allowed: Option<String>,
    /// The valid name that was probably meant.
    pub nearest: Option<String>,
}

impl Problem {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), allowed: None, nearest: None }
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// Names what was probably meant, or, when nothing is near, everything that is valid.
    pub(super) fn near<'n>(self, written: &str, valid: impl IntoIterator<Item = &'n str>) -> Self {
        let valid: Vec<&str> = valid.into_iter().collect();
        match nearest(written, &valid) {
            Some(name) => Self { nearest: Some(name.to_owned()), ..self },
            None if valid.is_empty() => self,
            None => self.allowed(format!("one of {}", listed(&valid))),
        }
    }
}

impl From<&str> for Problem {
    fn from(what: &str) -> Self {
        Self::new(what)
    }
}

impl Fault {
    /// A fault of the whole file, such as one that cannot be read.
    #[must_use]
    pub fn of_file(file: &str, problem: Problem) -> Self {
        let file = file.to_owned();
        Self { severity: Severity::Error, file, place: Place::File, key: String::new(), problem }
    }

    /// For programs; the same content as [`Display`](fmt::Display).
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let (line, column, variable) = match &self.place {
            Place::File => (None, None, None),
            Place::At { line, column } => (Some(line), Some(column), None),
            Place::Variable(name) => (None, None, Some(name)),
        };
        serde_json::json!({
            "severity": match self.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "file": self.file, "line": line, "column": column, "variable": variable, "key": self.key,
            "problem": self.problem.what, "allowed": self.problem.allowed, "nearest": self.problem.nearest,
        })
    }
}

/// One line as compilers write it: `mxgate.toml:12:3: listener[0].adress: unknown key; did you mean "address"?`
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File => write!(f, "{}: ", Escaped(&self.file))?,
            Place::At { line, column } => write!(f, "{}:{line}:{column}: ", Escaped(&self.file))?,
            Place::Variable(name) => write!(f, "{}: ", Escaped(name))?,
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", Escaped(&self.key))?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.what))?;
        if let Some(allowed) = &self.allowed {
            write!(f, "; {}", Escaped(allowed))?;
        }
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean \"{}\"?", Escaped(nearest)),
            None => Ok(()),
        }
    }
}

/// Why a configuration is not used: at least one error, and the warnings of the same run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(
    /// In the order of the file; those of environment variables come last.
    pub Vec<Fault>,
);

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{fault}")?;
        }
        Ok(())
    }
}

/// Text from outside, with control characters and those that reorder or hide text escaped.
pub(crate) struct Escaped<'t>(pub(crate) &'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
                write!(f, "{}", c.escape_unicode())
            }
            c if c.is_control() => write!(f, "{}", c.escape_default()),
            c => f.write_char(c),
        })
    }
}

/// Collects what one run finds.
pub(super) struct Report<'r> {
    file: &'r str,
    root: &'r Node,
    /// Lines with syntax faults. They may hide a part of the file: then nothing is called missing.
    unread: BTreeSet<usize>,
    faults: RefCell<Vec<Fault>>,
    /// Every reference to a secret with its key, so that their uses can be compared at the end.
    references: RefCell<Vec<(String, Reference)>>,
}

impl<'r> Report<'r> {
    pub(super) fn new(file: &'r str, root: &'r Node, unread: BTreeSet<usize>) -> Self {
        Self { file, root, unread, faults: RefCell::default(), references: RefCell::default() }
    }

    /// Whether the file could be read to its end.
    pub(super) fn is_whole(&self) -> bool {
        self.unread.is_empty()
    }

    /// The value at `path` is wrong.
    pub(super) fn fault(&self, path: &str, problem: Problem) {
        self.push(Severity::Error, self.root.place_of(path), path, problem);
    }

    /// The value at `path` is probably not what was meant.
    pub(super) fn warn(&self, path: &str, problem: Problem) {
        self.push(Severity::Warning, self.root.place_of(path), path, problem);
    }

    /// Something else than the value at `path` is wrong there: a key, or a variable.
    pub(super) fn fault_at(&self, place: Place, path: &str, problem: Problem) {
        self.push(Severity::Error, place, path, problem);
    }

    /// Notes that the key at `path` uses `reference`.
    pub(super) fn uses(&self, path: String, reference: Reference) {
        self.references.borrow_mut().push((path, reference));
    }

    /// Every reference that was read, with its key's path.
    pub(super) fn references(&self) -> Vec<(String, Reference)> {
        self.references.borrow().clone()
    }

    fn push(&self, severity: Severity, place: Place, path: &str, problem: Problem) {
        // What is said about a line that could not be read is a guess, and may show a part of it.
        if matches!(place, Place::At { line, .. } if self.unread.contains(&line)) {
            return;
        }
        let (file, key) = (self.file.to_owned(), path.to_owned());
        self.faults.borrow_mut().push(Fault { severity, file, place, key, problem });
    }

    /// Everything that was found.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner()
    }
}

/// The valid name that a mistyped one stands for, if one is near.
pub(super) fn nearest<'n>(written: &str, valid: &[&'n str]) -> Option<&'n str> {
    let written = written.to_ascii_lowercase().replace('-', "_");
    valid
        .iter()
        .map(|name| (strsim::jaro_winkler(&written, &name.to_ascii_lowercase().replace('-', "_")), *name))
        .filter(|(likeness, _)| *likeness >= 0.83)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// `"a", "b"`, for a sentence.
pub(super) fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        let valid = ["address", "environment", "proxy_protocol"];
        assert_eq!(nearest("adress", &valid), Some("address"));
        assert_eq!(nearest("Proxy-Protocol", &valid), Some("proxy_protocol"));
        assert_eq!(nearest("zebra", &valid), None);
    }

    #[test]
    fn control_and_reordering_characters_are_escaped_and_others_are_not() {
        let shown = Escaped("a\u{1b}[31m\n\u{202e}\u{feff}ü").to_string();
        assert_eq!(shown, "a\\u{1b}[31m\\n\\u{202e}\\u{feff}ü");
    }
}
