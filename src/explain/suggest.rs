//! The smallest grants that cover what each caller really did.
//!
//! In: access records, as a stream. Out: TOML with a grant for each caller: what was let through, also by observe mode, and
//! nothing else. A class or a tag stands for operations only when it brings nothing that was not used; a sensitive
//! class only when all of its operations were. The same records always give the same text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{self, BufRead},
};

use super::records::{self, Read};
use crate::{
    mx::catalogue::{Class, Operation, catalogue},
    policy::grant::{Item, OperationSet, Term},
    tree::tree,
};

/// More callers, environments and paths than this are no configuration's.
const ENTRIES_MAX: usize = 100_000;

/// What was used, by caller and environment.
#[derive(Debug, Clone, Default)]
pub struct Used {
    /// Lines.
    pub read: Read,
    /// Allowed requests that nobody known made, or that no operation or path is recorded for.
    pub left_out: u64,
    entries: usize,
    by_caller: BTreeMap<String, BTreeMap<String, Calls>>,
}

#[derive(Debug, Clone, Default)]
struct Calls {
    /// Places in the catalogue.
    operations: BTreeSet<usize>,
    /// `path:` and method and template, of what the catalogue does not have.
    paths: BTreeSet<String>,
}

/// Reads what was used.
///
/// # Errors
/// When `lines` cannot be read.
pub fn used(lines: impl BufRead) -> io::Result<Used> {
    let mut used = Used::default();
    let read = records::read(lines, |recorded| {
        if !recorded.passed() {
            return;
        }
        let operation = recorded.operation.as_deref().and_then(|id| catalogue().by_id(id));
        match (&recorded.caller, operation, &recorded.template) {
            (Some(caller), Some(operation), _) => {
                used.note(caller, &recorded.environment, |calls| {
                    calls.operations.insert(operation.index.get())
                });
            }
            (Some(caller), None, Some(template)) if recorded.operation.is_none() => {
                // A GET pattern lets HEAD in as well.
                let method = if recorded.method == "HEAD" { "GET" } else { &recorded.method };
                let path = format!("path:{method} {template}");
                used.note(caller, &recorded.environment, |calls| calls.paths.insert(path));
            }
            _ => used.left_out += 1,
        }
    })?;
    used.read = read;
    Ok(used)
}

impl Used {
    fn note(&mut self, caller: &str, environment: &str, add: impl FnOnce(&mut Calls) -> bool) {
        if self.entries >= ENTRIES_MAX {
            self.left_out += 1;
            return;
        }
        if !self.by_caller.contains_key(caller) {
            self.by_caller.insert(caller.to_owned(), BTreeMap::new());
        }
        let Some(environments) = self.by_caller.get_mut(caller) else { return };
        if !environments.contains_key(environment) {
            environments.insert(environment.to_owned(), Calls::default());
        }
        if environments.get_mut(environment).is_some_and(add) {
            self.entries += 1;
        }
    }

    /// `[[caller]]` tables with name and grant; how each is recognised is not in the records.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for (caller, environments) in &self.by_caller {
            // A String takes every write.
            _ = writeln!(text, "[[caller]]\nname = {}", quoted(caller));
            for (environment, calls) in environments {
                _ = writeln!(text, "grant.{} = [", key(environment));
                for item in calls.items() {
                    _ = writeln!(text, "    {},", quoted(&item));
                }
                text.push_str("]\n");
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text
    }
}

impl Used {
    /// For programs: `{ CALLER: { ENVIRONMENT: [items] } }`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let grants = |one: &BTreeMap<String, Calls>| -> BTreeMap<String, Vec<String>> {
            tree(one.iter().map(|(environment, calls)| (environment.clone(), calls.items())))
        };
        let callers: BTreeMap<_, _> = tree(self.by_caller.iter().map(|(name, one)| (name, grants(one))));
        serde_json::json!({
            "records": self.read.records, "unreadable": self.read.unreadable, "left_out": self.left_out,
            "grants": callers,
        })
    }
}

impl Calls {
    fn items(&self) -> Vec<String> {
        let items = smallest(&self.operations);
        items.iter().map(ToString::to_string).chain(self.paths.iter().cloned()).collect()
    }
}

/// Items that allow just these operations, readable ones first.
fn smallest(used: &BTreeSet<usize>) -> Vec<Item> {
    let is_used = |operation: &Operation| used.contains(&operation.index.get());
    let mut items: Vec<Item> = Vec::new();
    let mut covered = 0;
    for term in candidates() {
        let is_whole = match &term {
            Term::Class(Class::Read | Class::Write) | Term::Tag(_) => true,
            Term::Class(class) => {
                catalogue().operations().iter().filter(|one| one.classes.contains(*class)).all(is_used)
            }
            _ => false,
        };
        if !is_whole {
            continue;
        }
        items.push(Item { excludes: false, term });
        let set = OperationSet::of(&items);
        let count = set.iter().count();
        // An item that stands for a single operation says less than its name.
        if set.iter().all(is_used) && count > covered + 1 {
            covered = count;
        } else {
            items.pop();
        }
    }
    let set = OperationSet::of(&items);
    let rest = catalogue().operations().iter().filter(|one| is_used(one) && !set.contains(one.index));
    let rest: Vec<Item> =
        rest.map(|one| Item { excludes: false, term: Term::Operation(one.index) }).collect();
    items.extend(rest);
    items
}

/// The widest first. What administers keys is granted by name alone.
fn candidates() -> impl Iterator<Item = Term> {
    let tags: BTreeSet<&'static str> = tree(catalogue().operations().iter().map(|one| one.tag));
    let classes = Class::ALL.into_iter().filter(|class| *class != Class::KeyAdmin);
    classes.map(Term::Class).chain(tags.into_iter().map(Term::Tag))
}

/// JSON's strings are TOML's, but for one character that JSON leaves as it is.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn key(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(plain) { name.to_owned() } else { quoted(name) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::records::tests::record, *};
    use crate::mx::catalogue::Classes;

    fn items(ids: impl IntoIterator<Item = &'static Operation>) -> Vec<String> {
        let used = ids.into_iter().map(|one| one.index.get()).collect();
        smallest(&used).iter().map(ToString::to_string).collect()
    }

    fn with(keep: impl Fn(&Operation) -> bool) -> Vec<&'static Operation> {
        catalogue().operations().iter().filter(|one| keep(one)).collect()
    }

    fn is_plain(classes: Classes) -> bool {
        classes.iter().all(|class| matches!(class, Class::Read | Class::Write))
    }

    #[test]
    fn a_class_or_tag_stands_for_its_operations_when_all_were_used() {
        assert_eq!(items(with(|one| is_plain(one.classes) && one.classes.contains(Class::Read))), ["read"]);
        let goals = |one: &Operation| one.tag == "goals" && is_plain(one.classes);
        assert_eq!(items(with(goals)), ["tag:goals"]);
        let most: Vec<_> = with(goals).split_off(1);
        assert!(items(most.clone()).len() == most.len() && !items(most).contains(&"tag:goals".to_owned()));
        assert_eq!(items(with(|one| one.id == "listUsers")), ["listUsers"]);
    }

    #[test]
    fn a_sensitive_class_is_named_only_when_all_of_it_was_used() {
        let money = with(|one| one.classes.contains(Class::Money));
        let bank_data = with(|one| one.classes.contains(Class::BankData));
        assert!(items(bank_data.clone()).contains(&"bank-data".to_owned()), "{:?}", items(bank_data.clone()));
        let part = bank_data.into_iter().skip(1);
        assert!(part.clone().count() > 2);
        assert!(!items(part).iter().any(|item| item == "bank-data"));
        assert!(!money.is_empty());
    }

    proptest! {
        /// Whatever was used is allowed, and nothing else.
        #[test]
        fn just_what_was_used_is_allowed(
            classes in proptest::collection::vec(any::<bool>(), 8),
            skipped in proptest::collection::btree_set(0..176_usize, 0..4),
            single in proptest::collection::btree_set(0..176_usize, 0..12),
        ) {
            let chosen = |one: &Operation| {
                one.classes.iter().all(|class| classes[class as usize]) && !skipped.contains(&one.index.get())
            };
            let mut used: BTreeSet<usize> = with(chosen).iter().map(|one| one.index.get()).collect();
            used.extend(&single);
            let items = smallest(&used);
            let allowed: BTreeSet<usize> =
                OperationSet::of(&items).iter().map(|one| one.index.get()).collect();
            prop_assert_eq!(allowed, used);
        }
    }

    #[test]
    fn the_text_is_a_grant_for_each_caller() {
        let text = [
            record(r#""caller":"zeta""#),
            record(""),
            record(r#""operation":null,"template":"/new/{id}","method":"HEAD""#),
            record(r#""operation":"createUser","decision":"refused","code":"operation_denied""#),
            record(r#""operation":"createMember","environment":"sandbox","decision":"aborted""#),
            record(r#""caller":null"#),
        ]
        .concat();
        let used = used(text.as_bytes()).unwrap();
        assert_eq!(used.left_out, 1);
        assert_eq!(
            used.to_toml(),
            "[[caller]]\nname = \"ledger\"\ngrant.production = [\n    \"listUsers\",\n    \"path:GET /new/{id}\",\n]\n\
             grant.sandbox = [\n    \"createMember\",\n]\n\n\
             [[caller]]\nname = \"zeta\"\ngrant.production = [\n    \"listUsers\",\n]"
        );
        assert!(used.to_toml().parse::<toml::Table>().is_ok());
    }
}
