//! Environment variables that replace single values: `MXGATE__LIMITS__BODY_BYTES_MAX=1000`.
//!
//! In: the variables that start with `MXGATE__`. Out: the same tree of the file, with their values in
//! place; each value remembers its variable, so that a later fault names it. A variable that stands for
//! no key is a fault. Values are held to the rules of the file, references included, and never repeated.

use std::{collections::BTreeMap, ffi::OsString};

use ::config::{Environment, Source as _};

use super::{
    document::{Data, Entry, Node},
    fault::{Fault, Place, Problem, listed, nearest},
    schema::{self, KIND, Key, Kind, keys::FILE},
};
use crate::tree::tree;

const PREFIX: &str = "MXGATE__";

/// The variables of one run.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<(OsString, OsString)>);

impl Overrides {
    /// This process's variables.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_iter(std::env::vars_os())
    }

    /// No variables.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
}

/// Those of the variables that are meant for mxgate.
impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Overrides {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let meant = |(name, _): &(OsString, OsString)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).filter(meant).collect())
    }
}

/// Puts every variable's value in its place in `root`.
pub(super) fn apply(root: &mut Node, file: &str, overrides: &Overrides) -> Vec<Fault> {
    let mut faults = Vec::new();
    let fault =
        |variable, problem| Fault { place: Place::Variable(variable), ..Fault::of_file(file, problem) };
    let mut variables = BTreeMap::new();
    for (name, value) in &overrides.0 {
        let shown = name.to_string_lossy().into_owned();
        match (name.to_str(), value.to_str()) {
            (Some(name), _) if name.bytes().any(|byte| byte.is_ascii_lowercase()) => {
                let problem = Problem {
                    nearest: Some(name.to_ascii_uppercase()),
                    ..Problem::from("is not in upper case")
                };
                faults.push(fault(shown, problem));
            }
            (Some(name), Some(value)) => {
                variables.insert(name.to_owned(), value.to_owned());
            }
            _ => faults.push(fault(shown, Problem::from("is not UTF-8"))),
        }
    }
    for (path, value) in collected(&variables) {
        let (variable, steps) = (variable(&path), path.split('.').collect::<Vec<_>>());
        let one = Override { variable: &variable, value: &value };
        if let Err(problem) = one.insert(root, &refs(FILE), &steps, "") {
            faults.push(fault(variable, problem));
        }
    }
    faults
}

/// Key path to value, as the `config` crate reads them: `MXGATE__A__B` is `a.b`. Every value stays text;
/// the key's kind decides what it means, not its look.
fn collected(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let source = variables.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let environment = Environment::with_prefix("MXGATE").separator("__").source(Some(source));
    let values = environment.collect().unwrap_or_default();
    tree(values.into_iter().filter_map(|(path, value)| Some((path, value.into_string().ok()?))))
}

/// One variable on its way into the tree.
struct Override<'v> {
    variable: &'v str,
    value: &'v str,
}

impl Override<'_> {
    /// Follows `steps` below `node`, making sections that are not written, and replaces one value.
    fn insert(
        &self,
        node: &mut Node,
        keys: &[&'static Key],
        steps: &[&str],
        parent: &str,
    ) -> Result<(), Problem> {
        let [step, rest @ ..] = steps else {
            return Err("stands for a section, not for one of its values".into());
        };
        let Some(key) = keys.iter().find(|key| key.name == *step) else {
            return Err(unknown(parent, steps, keys.iter().map(|key| key.name)));
        };
        // A value that is no table where one belongs is the walker's to report.
        let Data::Table(entries) = &mut node.data else { return Ok(()) };
        let path = format!("{parent}{step}.");
        match (&key.kind, rest) {
            (Kind::Sections(_) | Kind::Texts, _) => {
                Err(Problem::new("stands for a list, and a variable replaces single values only")
                    .allowed("write it in the file"))
            }
            (Kind::Named(inner), below @ [name, rest @ ..]) => {
                let names = entries.get_mut(*step).map(|entry| &mut entry.value.data);
                let Some(Data::Table(named)) = names else { return Err(unknown(&path, below, [])) };
                match named.get_mut(*name) {
                    Some(entry) => {
                        self.insert(&mut entry.value, &refs(inner), rest, &format!("{path}{name}."))
                    }
                    None => Err(unknown(&path, below, named.keys().map(String::as_str))),
                }
            }
            (Kind::Section(inner), _) => self.descend(entries, step, &refs(inner), rest, &path),
            (Kind::Variants(variants), _) => {
                let keys: Vec<_> = std::iter::once(&KIND).chain(schema::all_keys(variants)).collect();
                self.descend(entries, step, &keys, rest, &path)
            }
            (Kind::WordOrSection(_, inner), [_, ..]) => {
                // The table replaces the word.
                entries.retain(|name, entry| name != step || matches!(entry.value.data, Data::Table(_)));
                self.descend(entries, step, &refs(inner), rest, &path)
            }
            (Kind::Named(_), []) => Err("stands for a section, not for one of its values".into()),
            (_, []) => {
                entries.insert((*step).to_owned(), self.entry(Data::Text(self.value.to_owned())));
                Ok(())
            }
            (_, [_, ..]) => Err("goes on below a single value".into()),
        }
    }

    fn descend(
        &self,
        entries: &mut BTreeMap<String, Entry>,
        step: &str,
        keys: &[&'static Key],
        rest: &[&str],
        path: &str,
    ) -> Result<(), Problem> {
        let mut section = entries.remove(step).unwrap_or_else(|| self.entry(Data::Table(BTreeMap::new())));
        let done = self.insert(&mut section.value, keys, rest, path);
        let empty = matches!(&section.value.data, Data::Table(inner) if inner.is_empty());
        if !(empty && matches!(section.key_place, Place::Variable(_))) {
            entries.insert(step.to_owned(), section);
        }
        done
    }

    fn entry(&self, data: Data) -> Entry {
        let place = Place::Variable(self.variable.to_owned());
        Entry { key_place: place.clone(), value: Node { place, data } }
    }
}

fn refs(keys: &'static [Key]) -> Vec<&'static Key> {
    keys.iter().collect()
}

/// The first of `steps` is not one of `valid`.
fn unknown<'n>(parent: &str, steps: &[&str], valid: impl IntoIterator<Item = &'n str>) -> Problem {
    let valid: Vec<&str> = valid.into_iter().collect();
    let problem = Problem::new("stands for no key");
    let near = steps.split_first().and_then(|(step, rest)| Some((nearest(step, &valid)?, rest)));
    match near {
        Some((name, rest)) => {
            let meant = [&[name], rest].concat().join(".");
            Problem { nearest: Some(variable(&format!("{parent}{meant}"))), ..problem }
        }
        None if valid.is_empty() => problem.allowed("the file has no such section"),
        None => problem.allowed(format!("one of {}", listed(&valid))),
    }
}

/// `limits.body_bytes_max` to `MXGATE__LIMITS__BODY_BYTES_MAX`.
fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_ascii_uppercase())
}
