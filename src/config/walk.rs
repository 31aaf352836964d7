//! Reading a table of the file against its keys.
//!
//! A [`Table`] is opened with the keys that it may have; opening it reports the unknown ones and the
//! missing ones. Its methods hand values out, typed and within bounds, and report those that are not. A
//! value that was reported is handed out as its default, or `None`: reading goes on, so that one run
//! finds every fault, and a configuration with a fault is dropped at the end.

mod lists;

use std::{path::PathBuf, time::Duration};

use super::{
    document::{Data, Node},
    fault::{Place, Problem, Report, listed},
    schema::{self, Key, Kind, Need, Variant},
};
use crate::vault::{
    embedded::hosts,
    reference::{Malformed, Reference},
};

/// One table of the file.
pub(super) struct Table<'a> {
    /// `None` when the section is not written: every key then has its default.
    node: Option<&'a Node>,
    keys: Vec<&'static Key>,
    path: String,
    report: &'a Report<'a>,
}

/// What [`Table::word_or_section`] found.
pub(super) enum WordOrSection<'a> {
    Word(&'static str),
    Section(Table<'a>),
}

impl<'a> Table<'a> {
    pub(super) fn root(node: &'a Node, keys: &'static [Key], report: &'a Report<'a>) -> Self {
        Self::open(Some(node), keys.iter().collect(), &[], String::new(), report)
    }

    /// `tags` are names that are valid too and were dealt with before.
    fn open(
        node: Option<&'a Node>,
        keys: Vec<&'static Key>,
        tags: &[&'static str],
        path: String,
        report: &'a Report<'a>,
    ) -> Self {
        let table = Self { node, keys, path, report };
        let Some(node) = node else { return table };
        let Data::Table(entries) = &node.data else {
            let problem = Problem::new(format!("is {}", node.described())).allowed("expected a table");
            report.fault(&table.path, problem);
            return Self { node: None, ..table };
        };
        let names: Vec<&str> = tags.iter().copied().chain(table.keys.iter().map(|key| key.name)).collect();
        for (name, entry) in entries.iter().filter(|(name, _)| !names.contains(&name.as_str())) {
            let problem = Problem::new("unknown key").near(name, names.iter().copied());
            report.fault_at(entry.key_place.clone(), &table.path_of(shown_key(name)), problem);
        }
        for key in table.keys.iter().filter(|key| matches!(key.need, Need::Required)) {
            if !entries.contains_key(key.name) && report.is_whole() {
                report.fault(&table.path_of(key.name), Problem::new("is required").allowed(key.doc));
            }
        }
        table
    }

    /// The path of a key of this table, for messages.
    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Whether `name` is written in this table.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(self.key(name).name).is_some()
    }

    /// Whether `name` is written as `[]`.
    pub(super) fn is_empty_list(&self, name: &str) -> bool {
        matches!(self.get(self.key(name).name), Some(Node { data: Data::List(values), .. }) if values.is_empty())
    }

    /// Whether this section is in the file at all.
    pub(super) fn is_written(&self) -> bool {
        self.node.is_some()
    }

    /// The value of `name` is wrong in a way that only its section knows.
    pub(super) fn fault(&self, name: &str, problem: impl Into<Problem>) {
        self.report.fault(&self.path_of(name), problem.into());
    }

    /// The value of `name` is probably not what was meant.
    pub(super) fn warn(&self, name: &str, problem: impl Into<Problem>) {
        self.report.warn(&self.path_of(name), problem.into());
    }

    /// What `parse` makes of a text; the default's when it is not written.
    pub(super) fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, Problem>) -> Option<T> {
        let text = match self.text(name) {
            Some(text) => text,
            None => match self.key(name).need {
                Need::Text(default) => default,
                _ => return None,
            },
        };
        parse(text).map_err(|problem| self.fault(name, problem)).ok()
    }

    /// A whole number within its bounds, or its default, or `None` when it has none.
    pub(super) fn integer(&self, name: &str) -> Option<u64> {
        let key = self.key(name);
        let Kind::Integer { min, max, unit } = key.kind else { unreachable!("{name} is no integer") };
        let default = if let Need::Integer(default) = key.need { Some(default) } else { None };
        let Some(node) = self.get(name) else { return default };
        let number = match &node.data {
            Data::Integer(number) => *number,
            Data::Text(text) if is_variable(node) && is_integer(text) => text.parse().ok(),
            _ => {
                self.mistyped(name, node, &format!("a whole number of {unit}, {min} to {max}"));
                return default;
            }
        };
        match number.and_then(|number| u64::try_from(number).ok()) {
            Some(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                self.fault(name, Problem::new("is out of bounds").allowed(format!("{min} to {max} {unit}")));
                default
            }
        }
    }

    /// An integer that has a default.
    pub(super) fn count(&self, name: &str) -> u64 {
        self.integer(name).unwrap_or_default()
    }

    /// The same, where memory is counted; every bound fits.
    pub(super) fn size(&self, name: &str) -> usize {
        usize::try_from(self.count(name)).unwrap_or(usize::MAX)
    }

    /// The same, in milliseconds.
    pub(super) fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.count(name))
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        let default = matches!(self.key(name).need, Need::Flag(true));
        let Some(node) = self.get(name) else { return default };
        match &node.data {
            Data::Flag(flag) => *flag,
            Data::Text(text) if is_variable(node) && text == "true" => true,
            Data::Text(text) if is_variable(node) && text == "false" => false,
            _ => {
                self.mistyped(name, node, "true or false");
                default
            }
        }
    }

    /// One of the key's words.
    pub(super) fn choice(&self, name: &str) -> &'static str {
        let key = self.key(name);
        let (Kind::Choice(words), Need::Text(default)) = (&key.kind, &key.need) else {
            unreachable!("{name} is no choice")
        };
        self.text(name).and_then(|text| self.word(name, text, words)).unwrap_or(default)
    }

    /// An absolute path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.parsed(name, absolute_path)
    }

    /// A reference to a secret, perhaps with the hosts that it is for. What is written is never repeated: it may be the
    /// secret itself.
    pub(super) fn reference(&self, name: &str) -> Option<Reference> {
        let written = self.get(name);
        let reference = match written.map(|node| &node.data) {
            Some(Data::Table(_)) => {
                let keys = schema::REFERENCE.iter().collect();
                let table = Table::open(written, keys, &[], self.path_of(name), self.report);
                let hosts = table.has("hosts").then(|| table.list("hosts", host));
                if hosts.as_ref().is_some_and(Vec::is_empty) {
                    table.fault(
                        "hosts",
                        Problem::new("holds no host").allowed("leave it out for the environment's own"),
                    );
                }
                let from = table.parsed("from", reference)?;
                hosts.into_iter().fold(from, Reference::for_hosts)
            }
            _ => self.parsed(name, reference)?,
        };
        self.report.uses(self.path_of(name), reference.clone());
        Some(reference)
    }

    /// `[name]`.
    pub(super) fn section(&self, name: &str) -> Table<'a> {
        let Kind::Section(keys) = &self.key(name).kind else { unreachable!("{name} is no section") };
        Table::open(self.get(name), keys.iter().collect(), &[], self.path_of(name), self.report)
    }

    /// `[[name]]`.
    pub(super) fn sections(&self, name: &str) -> Vec<Table<'a>> {
        let Kind::Sections(keys) = &self.key(name).kind else {
            unreachable!("{name} is no list of sections")
        };
        let Some(node) = self.get(name) else { return Vec::new() };
        let Data::List(values) = &node.data else {
            self.mistyped(name, node, &format!("one or more [[{name}]] tables"));
            return Vec::new();
        };
        if values.is_empty() {
            self.fault(
                name,
                Problem::new("is empty").allowed(format!("expected one or more [[{name}]] tables")),
            );
        }
        let path = |index| format!("{}[{index}]", self.path_of(name));
        let open =
            |(index, value)| Table::open(Some(value), keys.iter().collect(), &[], path(index), self.report);
        values.iter().enumerate().map(open).collect()
    }

    /// `[name.ANY]`, each with its name.
    pub(super) fn named(&self, name: &str) -> Vec<(&'a str, Table<'a>)> {
        let Kind::Named(keys) = &self.key(name).kind else { unreachable!("{name} has no named sections") };
        let Some(node) = self.get(name) else { return Vec::new() };
        let Data::Table(entries) = &node.data else {
            self.mistyped(name, node, &format!("one or more [{name}.NAME] tables"));
            return Vec::new();
        };
        let open = |(entry_name, entry): (&'a String, &'a super::document::Entry)| {
            let path = self.path_of(&format!("{name}.{entry_name}"));
            let table = Table::open(Some(&entry.value), keys.iter().collect(), &[], path, self.report);
            (entry_name.as_str(), table)
        };
        entries.iter().map(open).collect()
    }

    /// A table whose `kind` says which keys it has. Without a valid `kind`, what can be checked is.
    pub(super) fn variant(&self, name: &str) -> Option<(&'static str, Table<'a>)> {
        let Kind::Variants(variants) = &self.key(name).kind else { unreachable!("{name} has no variants") };
        let node = self.get(name)?;
        let path = self.path_of(name);
        let written = match &node.data {
            Data::Table(entries) => entries.get("kind").map(|entry| &entry.value),
            _ => None,
        };
        match self.kind_of(&format!("{name}.kind"), node, written, variants) {
            Some(variant) => {
                let table =
                    Table::open(Some(node), variant.keys.iter().collect(), &["kind"], path, self.report);
                Some((variant.kind, table))
            }
            None => {
                check_without_kind(node, variants, path, self.report);
                None
            }
        }
    }

    fn kind_of(
        &self,
        name: &str,
        table: &Node,
        written: Option<&Node>,
        variants: &'static [Variant],
    ) -> Option<&'static Variant> {
        let kinds: Vec<&'static str> = variants.iter().map(|variant| variant.kind).collect();
        match written.map(|node| (node, &node.data)) {
            Some((_, Data::Text(text))) => {
                let kind = self.word(name, text, &kinds)?;
                variants.iter().find(|variant| variant.kind == kind)
            }
            Some((node, _)) => {
                self.mistyped(name, node, &format!("one of {}", listed(&kinds)));
                None
            }
            None => {
                if matches!(table.data, Data::Table(_)) && self.report.is_whole() {
                    self.fault(
                        name,
                        Problem::new("is required").allowed(format!("one of {}", listed(&kinds))),
                    );
                }
                None
            }
        }
    }

    /// One of the key's words, or a table.
    pub(super) fn word_or_section(&self, name: &str) -> Option<WordOrSection<'a>> {
        let key = self.key(name);
        let (Kind::WordOrSection(words, keys), Need::Text(default)) = (&key.kind, &key.need) else {
            unreachable!("{name} is no word or section")
        };
        let Some(node) = self.get(name) else { return Some(WordOrSection::Word(default)) };
        match &node.data {
            Data::Text(text) => self.word(name, text, words).map(WordOrSection::Word),
            Data::Table(_) => {
                let keys = keys.iter().collect();
                Some(WordOrSection::Section(Table::open(
                    Some(node),
                    keys,
                    &[],
                    self.path_of(name),
                    self.report,
                )))
            }
            _ => {
                self.mistyped(name, node, &format!("one of {}, or a table", listed(words)));
                None
            }
        }
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        let node = self.get(name)?;
        match &node.data {
            Data::Text(text) => Some(text),
            _ => {
                self.mistyped(name, node, "text");
                None
            }
        }
    }

    fn word(&self, name: &str, written: &str, words: &[&'static str]) -> Option<&'static str> {
        let found = words.iter().find(|word| **word == written).copied();
        if found.is_none() {
            let allowed = format!("one of {}", listed(words));
            self.fault(
                name,
                Problem::new("unknown value").allowed(allowed).near(written, words.iter().copied()),
            );
        }
        found
    }

    fn mistyped(&self, name: &str, node: &Node, expected: &str) {
        let allowed = format!("expected {expected}");
        self.fault(name, Problem::new(format!("is {}", node.described())).allowed(allowed));
    }

    fn get(&self, name: &str) -> Option<&'a Node> {
        match &self.node?.data {
            Data::Table(entries) => entries.get(name).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// The names that are read are literals of this crate, so an unknown one is our mistake; the test
    /// `every_key_is_read` reads them all.
    fn key(&self, name: &str) -> &'static Key {
        match self.keys.iter().find(|key| key.name == name) {
            Some(key) => key,
            None => unreachable!("{name} is no key of {}", self.path),
        }
    }
}

/// Names the keys that no kind has, and values where references belong.
fn check_without_kind<'a>(
    node: &'a Node,
    variants: &'static [Variant],
    path: String,
    report: &'a Report<'a>,
) {
    let mut keys: Vec<&'static Key> = Vec::new();
    let Data::Table(entries) = &node.data else {
        report.fault(&path, Problem::new(format!("is {}", node.described())).allowed("expected a table"));
        return;
    };
    for key in schema::all_keys(variants).filter(|key| entries.contains_key(key.name)) {
        if keys.iter().all(|known| known.name != key.name) {
            keys.push(key);
        }
    }
    let table = Table::open(Some(node), keys, &["kind"], path, report);
    for key in table.keys.iter().filter(|key| matches!(key.kind, Kind::Reference)) {
        table.reference(key.name);
    }
}

/// A name or an address, in lower case.
fn host(text: &str) -> Result<String, Problem> {
    hosts::parse(text).map_err(|malformed| Problem::new(malformed.to_string()))
}

fn reference(text: &str) -> Result<Reference, Problem> {
    text.parse().map_err(|malformed: Malformed| Problem::new(malformed.to_string()))
}

/// An absolute path without NUL.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, Problem> {
    match text.starts_with('/') && !text.contains('\0') {
        true => Ok(text.into()),
        false => Err(Problem::new("is not an absolute path").allowed("it starts with /")),
    }
}

/// A key that no table has, as it may be shown: a secret could stand where a key belongs, so a name with
/// digits or of unusual length is not repeated; its line and column tell where it is.
pub(super) fn shown_key(name: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphabetic() || c == '_' || c == '-';
    if name.len() <= 32 && name.chars().all(plain) { name } else { "(not shown)" }
}

fn is_variable(node: &Node) -> bool {
    matches!(node.place, Place::Variable(_))
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
