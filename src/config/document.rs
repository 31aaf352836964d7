//! The file's text as a tree in which every value knows where it was written.
//!
//! In: TOML. Out: [`Node`]s and the syntax faults, with line and column and the parser's own words. The
//! parser's `Display` is never used: it prints the source line, which may hold a secret.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Spanned, de::DeTable, de::DeValue};

use super::fault::{Fault, Place, Problem};
use crate::tree::tree;

/// One value.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) data: Data,
}

/// What it is.
#[derive(Debug, Clone)]
pub(super) enum Data {
    Text(String),
    /// `None` when it is larger than any bound here.
    Integer(Option<i64>),
    Flag(bool),
    Float,
    Datetime,
    List(Vec<Node>),
    Table(BTreeMap<String, Entry>),
}

/// A key of a table and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key_place: Place,
    pub(super) value: Node,
}

/// What could be read of a file.
pub(super) struct Parsed {
    /// With syntax faults, only a part of it.
    pub(super) root: Node,
    /// The syntax faults.
    pub(super) faults: Vec<Fault>,
    /// The lines that could not be read.
    pub(super) unread: BTreeSet<usize>,
}

/// Reads `text`.
pub(super) fn parse(text: &str, file: &str) -> Parsed {
    let (document, mut errors) = DeTable::parse_recoverable(text);
    let lines = Lines::new(text);
    let start = |error: &toml::de::Error| error.span().map_or(text.len(), |span| span.start);
    errors.sort_by_key(start);
    let (mut faults, mut unread, mut previous) = (Vec::new(), BTreeSet::new(), (0, ""));
    for error in &errors {
        let (line, column) = lines.position(start(error));
        // The first fault of a line is the cause. One that goes on line by line began where a bracket
        // was not closed.
        let follows = previous.0 + 1 == line && previous.1 == error.message();
        if unread.insert(line) && !follows {
            let problem = Problem::new(error.message().trim_end_matches(", expected nothing"));
            faults.push(Fault { place: Place::At { line, column }, ..Fault::of_file(file, problem) });
        }
        if previous.0 != line {
            previous = (line, error.message());
        }
    }
    let root = Node { place: lines.place(0), data: Data::Table(table(document.get_ref(), &lines)) };
    Parsed { root, faults, unread }
}

fn table(table: &DeTable<'_>, lines: &Lines<'_>) -> BTreeMap<String, Entry> {
    let entry = |(key, value): (&Spanned<_>, &Spanned<_>)| {
        let key_place = lines.place(key.span().start);
        (String::from(AsRef::<str>::as_ref(key.get_ref())), Entry { key_place, value: node(value, lines) })
    };
    tree(table.iter().map(entry))
}

fn node(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Node {
    let data = match value.get_ref() {
        DeValue::String(text) => Data::Text(text.to_string()),
        DeValue::Integer(number) => Data::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Boolean(flag) => Data::Flag(*flag),
        DeValue::Float(_) => Data::Float,
        DeValue::Datetime(_) => Data::Datetime,
        DeValue::Array(values) => Data::List(values.iter().map(|value| node(value, lines)).collect()),
        DeValue::Table(entries) => Data::Table(table(entries, lines)),
    };
    Node { place: lines.place(value.span().start), data }
}

impl Node {
    /// Where the value at `path` (`listener[0].address`) was written, or, if it is absent, the innermost
    /// table around it.
    pub(super) fn place_of(&self, path: &str) -> Place {
        let mut node = self;
        for step in path.split(['.', '[']) {
            let next = match (&node.data, step.strip_suffix(']')) {
                (Data::List(values), Some(index)) => index.parse().ok().and_then(|i: usize| values.get(i)),
                (Data::Table(entries), None) => entries.get(step).map(|entry| &entry.value),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place.clone()
    }

    /// What it is, in the words of a message.
    pub(super) fn described(&self) -> &'static str {
        match self.data {
            Data::Text(_) => "text",
            Data::Integer(_) => "an integer",
            Data::Flag(_) => "true or false",
            Data::Float => "a number with a fraction",
            Data::Datetime => "a date",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
        }
    }
}

/// Offsets to lines and columns.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let (line, column) = self.position(offset);
        Place::At { line, column }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(1, |before| before.chars().count() + 1);
        (line, column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize) -> Place {
        Place::At { line, column }
    }

    #[test]
    fn values_know_where_they_were_written() {
        let text = "a = 1\n[limits]\nüx = 2\n\n[[listener]]\n[[listener]]\n  address = 'ä'\n";
        let Parsed { root, faults, .. } = parse(&text.replace("üx", "\"üx\""), "f");
        assert_eq!(faults, []);
        assert_eq!(root.place_of("a"), at(1, 5));
        assert_eq!(root.place_of("limits.üx"), at(3, 8));
        assert_eq!(root.place_of("listener[1].address"), at(7, 13));
        assert_eq!(root.place_of("listener[1].absent"), at(6, 1));
        assert_eq!(root.place_of("absent"), at(1, 1));
    }

    #[test]
    fn a_syntax_fault_has_a_place_and_shows_nothing_of_the_line() {
        for text in
            ["a = 1\n api_key = s3cr3t-v4lue\n", "a = 1\n s3cr3t-v4lue\n", "a = 1\n k = \"s3cr3t-v4lue\n"]
        {
            let faults = parse(text, "mxgate.toml").faults;
            let shown = faults.iter().map(ToString::to_string).collect::<String>();
            assert!(shown.starts_with("mxgate.toml:2:"), "{shown}");
            assert!(!shown.contains("s3cr3t"), "{shown}");
        }
    }
}
