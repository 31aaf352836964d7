//! What a caller may do, as an operator writes it: `["read", "createMember", "-tag:insights"]`.
//!
//! In go the items of a list; out comes an [`Allowed`], which answers for one operation or path in constant time.
//! A list starts from nothing. Items add, and items with `-` take away, which always wins, whatever the order.
//!
//! What must never happen: a word that covers many operations brings one that can hurt. So `read`, `write`, tags,
//! methods and bundles bring an operation with a sensitive class only if each such class is asked for in the
//! same list; and what administers keys is had by its operation id alone.

use std::{fmt, sync::Arc};

use http::Method;

use crate::{
    config::PathPattern,
    mx::{
        catalogue::{Class, Classes, Operation, OperationIndex, catalogue},
        path_tree::PathTree,
    },
};

/// The classes that are only had when they are asked for.
const SENSITIVE: [Class; 5] =
    [Class::BankData, Class::MintsAccess, Class::CarriesBankLogin, Class::Destructive, Class::Money];

/// The classes that observe mode does not touch.
const NEVER_OBSERVED: [Class; 4] = [Class::KeyAdmin, Class::Destructive, Class::Money, Class::BankData];

/// One item of a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Written with `-`: takes away.
    pub excludes: bool,
    /// What it covers.
    pub term: Term,
}

/// What an item covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// `listMembers`: one operation of the catalogue.
    Operation(OperationIndex),
    /// `read`, `bank-data`.
    Class(Class),
    /// `tag:spending-plan`: MX's grouping, its spaces as hyphens.
    Tag(&'static str),
    /// `method:GET`.
    Method(Method),
    /// `path:GET /new/thing/{id}`: what the catalogue does not have; at an environment with `paths`, one of those.
    Path(PathPattern),
    /// `paths`: everything that an environment lists in its own `paths`.
    Paths,
}

/// Why a text is no item of a grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Malformed {
    /// What is wrong, in a few words.
    pub what: &'static str,
    /// What was meant to be a name.
    pub written: String,
    /// The names that could stand there.
    pub valid: Vec<String>,
}

impl Item {
    /// Reads one item. `pattern` reads what follows `path:`.
    ///
    /// # Errors
    /// [`Malformed`], or what `pattern` says.
    pub fn parse<E: From<Malformed>>(
        text: &str,
        pattern: impl Fn(&str) -> Result<PathPattern, E>,
    ) -> Result<Self, E> {
        let (excludes, name) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let term = match name.split_once(':') {
            Some(("path", path)) => Term::Path(pattern(path)?),
            Some(("tag", tag)) => Term::tag(tag)?,
            Some(("method", method)) => Term::method(method)?,
            Some((word, _)) => {
                let what = "starts with an unknown word before its colon";
                return Err(Malformed::new(what, word, PREFIXES).into());
            }
            None => Term::word(name)?,
        };
        match term {
            Term::Class(Class::KeyAdmin) if !excludes => {
                let what = "is not granted as a class: operations that take or kill the API key are named one by one";
                Err(Malformed::new(what, name, [""; 0]).into())
            }
            term => Ok(Self { excludes, term }),
        }
    }
}

/// As it is written.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.excludes {
            f.write_str("-")?;
        }
        match &self.term {
            Term::Operation(index) => {
                f.write_str(catalogue().operations().get(index.get()).map_or("?", |operation| operation.id))
            }
            Term::Class(class) => f.write_str(class.as_str()),
            Term::Tag(tag) => write!(f, "tag:{}", spelled(tag)),
            Term::Method(method) => write!(f, "method:{method}"),
            Term::Path(pattern) => write!(f, "path:{} {}", pattern.method, pattern.template),
            Term::Paths => f.write_str("paths"),
        }
    }
}

const PREFIXES: [&str; 3] = ["tag", "method", "path"];

impl Malformed {
    fn new<T: ToString>(what: &'static str, written: &str, valid: impl IntoIterator<Item = T>) -> Self {
        let valid = valid.into_iter().map(|one| one.to_string()).collect();
        Self { what, written: written.to_owned(), valid }
    }
}

impl Term {
    fn word(name: &str) -> Result<Self, Malformed> {
        if name == "paths" {
            return Ok(Self::Paths);
        }
        if let Some(class) = Class::parse(name) {
            return Ok(Self::Class(class));
        }
        let operation = catalogue().by_id(name).map(|operation| Self::Operation(operation.index));
        operation.ok_or_else(|| {
            let ids = catalogue().operations().iter().map(|operation| operation.id);
            let classes = Class::ALL.into_iter().map(Class::as_str);
            Malformed::new("is no class and no operation of MX", name, ids.chain(classes).chain(["paths"]))
        })
    }

    fn tag(name: &str) -> Result<Self, Malformed> {
        let tags = || catalogue().operations().iter().map(|operation| operation.tag);
        let found = tags().find(|tag| spelled(tag) == name);
        found.map(Self::Tag).ok_or_else(|| {
            let valid: std::collections::BTreeSet<String> = tags().map(spelled).collect();
            Malformed::new("is no tag of MX", name, valid)
        })
    }

    fn method(name: &str) -> Result<Self, Malformed> {
        const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let found = METHODS.iter().find(|method| method.as_str() == name).cloned();
        found.map(Self::Method).ok_or_else(|| Malformed::new("is no method that is granted", name, METHODS))
    }

    fn covers(&self, operation: &Operation) -> bool {
        match self {
            Self::Operation(index) => *index == operation.index,
            Self::Class(class) => operation.classes.contains(*class),
            Self::Tag(tag) => operation.tag == *tag,
            Self::Method(method) => operation.method == *method,
            Self::Path(_) | Self::Paths => false,
        }
    }

    fn covers_pattern(&self, pattern: &PathPattern) -> bool {
        match self {
            Self::Path(path) => path == pattern,
            Self::Method(method) => pattern.method == *method,
            Self::Paths => true,
            Self::Operation(_) | Self::Class(_) | Self::Tag(_) => false,
        }
    }
}

/// A tag as grants spell it.
#[must_use]
pub fn spelled(tag: &str) -> String {
    tag.replace(' ', "-")
}

/// The item of a list that decided about an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule<'i> {
    /// This one allows it.
    Allows(&'i Item),
    /// This one takes it away.
    Excludes(&'i Item),
    /// This one covers it, but nothing asks for this class that it has.
    NotAskedFor(&'i Item, Class),
    /// None covers it.
    Nothing,
}

impl Rule<'_> {
    /// Whether the operation may be called.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allows(_))
    }
}

/// What `items` say about `operation`, and which of them decides.
#[must_use]
pub fn decide<'i>(items: &'i [Item], operation: &Operation) -> Rule<'i> {
    let covering = || items.iter().filter(|item| item.term.covers(operation));
    if let Some(item) = covering().find(|item| item.excludes) {
        return Rule::Excludes(item);
    }
    if let Some(item) = covering().find(|item| matches!(item.term, Term::Operation(_))) {
        return Rule::Allows(item);
    }
    match (covering().next(), unasked(items, operation.classes)) {
        (None, _) => Rule::Nothing,
        (Some(item), Some(class)) => Rule::NotAskedFor(item, class),
        (Some(item), None) => Rule::Allows(item),
    }
}

/// A class that is only had when asked for, and is not.
fn unasked(items: &[Item], classes: Classes) -> Option<Class> {
    let asked = |class| items.iter().any(|item| !item.excludes && item.term == Term::Class(class));
    let missing = SENSITIVE.into_iter().find(|class| classes.contains(*class) && !asked(*class));
    missing.or_else(|| classes.contains(Class::KeyAdmin).then_some(Class::KeyAdmin))
}

/// A set of the catalogue's operations.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct OperationSet([u64; 3]);

impl OperationSet {
    /// Those that `items` allow.
    #[must_use]
    pub fn of(items: &[Item]) -> Self {
        let mut set = Self::default();
        for operation in catalogue().operations() {
            if decide(items, operation).is_allowed() {
                set.insert(operation.index);
            }
        }
        set
    }

    fn insert(&mut self, operation: OperationIndex) {
        if let Some(word) = self.0.get_mut(operation.get() / 64) {
            *word |= 1 << (operation.get() % 64);
        }
    }

    /// Whether `operation` is one of them.
    #[must_use]
    pub fn contains(&self, operation: OperationIndex) -> bool {
        self.0.get(operation.get() / 64).is_some_and(|word| word >> (operation.get() % 64) & 1 == 1)
    }

    /// Each of them, in the catalogue's order.
    pub fn iter(&self) -> impl Iterator<Item = &'static Operation> {
        catalogue().operations().iter().filter(|operation| self.contains(operation.index))
    }
}

impl fmt::Debug for OperationSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|operation| operation.id)).finish()
    }
}

/// What one caller may do at one environment, ready for requests.
#[derive(Debug)]
pub(crate) struct Allowed {
    operations: OperationSet,
    patterns: Patterns,
}

impl Allowed {
    /// `listed` are the environment's own `paths`; `None` at MX's Platform API.
    ///
    /// # Errors
    /// The template that cannot be matched, and why.
    pub(crate) fn new(items: &[Item], listed: Option<&[PathPattern]>) -> Result<Self, String> {
        let Some(listed) = listed else {
            return Ok(Self {
                operations: OperationSet::of(items),
                patterns: Patterns::new(patterns(items))?,
            });
        };
        let granted = listed.iter().filter(|pattern| {
            let covering = || items.iter().filter(|item| item.term.covers_pattern(pattern));
            covering().next().is_some() && !covering().any(|item| item.excludes)
        });
        Ok(Self { operations: OperationSet::default(), patterns: Patterns::new(granted)? })
    }

    /// The same, widened by what observe mode lets through: of MX's catalogue, all that cannot hurt at once.
    pub(crate) fn observed(self) -> Self {
        let mut operations = self.operations;
        for operation in catalogue().operations() {
            if !NEVER_OBSERVED.iter().any(|class| operation.classes.contains(*class)) {
                operations.insert(operation.index);
            }
        }
        Self { operations, ..self }
    }

    pub(crate) fn operation(&self, operation: OperationIndex) -> bool {
        self.operations.contains(operation)
    }

    pub(crate) fn patterns(&self) -> &Patterns {
        &self.patterns
    }
}

/// The paths that `items` add to the catalogue.
fn patterns(items: &[Item]) -> impl Iterator<Item = &PathPattern> {
    items.iter().filter(|item| !item.excludes).filter_map(|item| match &item.term {
        Term::Path(pattern) => Some(pattern),
        _ => None,
    })
}

/// Path patterns, matched as the catalogue is.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    tree: PathTree<Vec<Pattern>>,
}

#[derive(Debug)]
pub(crate) struct Pattern {
    method: Method,
    template: Arc<str>,
}

impl Patterns {
    /// # Errors
    /// The template that cannot be matched, and why.
    pub(crate) fn new<'p>(patterns: impl IntoIterator<Item = &'p PathPattern>) -> Result<Self, String> {
        let mut tree = PathTree::new();
        for pattern in patterns {
            let methods: &mut Vec<Pattern> = tree
                .entry(&pattern.template)
                .map_err(|fault| format!("{}: {fault}", pattern.template))?
                .get_or_insert_with(Vec::new);
            methods
                .push(Pattern { method: pattern.method.clone(), template: pattern.template.as_str().into() });
        }
        Ok(Self { tree })
    }

    /// The template that `method` and `path` match. A `GET` pattern lets `HEAD` in as well.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let Some(patterns) = self.tree.find(path) else { return Found::Nothing };
        let same = |pattern: &&Pattern| {
            pattern.method == *method || (pattern.method == Method::GET && *method == Method::HEAD)
        };
        patterns
            .iter()
            .find(same)
            .map_or(Found::OtherMethods(patterns), |found| Found::Pattern(&found.template))
    }
}

/// What a request line is among patterns.
pub(crate) enum Found<'p> {
    Pattern(&'p Arc<str>),
    OtherMethods(&'p [Pattern]),
    Nothing,
}

impl Pattern {
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(texts: &[&str]) -> Vec<Item> {
        texts.iter().map(|text| item(text).unwrap()).collect()
    }

    fn item(text: &str) -> Result<Item, Malformed> {
        Item::parse(text, |path| {
            let (method, template) = path.split_once(' ').unwrap();
            Ok(PathPattern { method: method.parse().unwrap(), template: template.into() })
        })
    }

    fn allows(texts: &[&str], id: &str) -> bool {
        OperationSet::of(&items(texts)).contains(catalogue().by_id(id).unwrap().index)
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        assert_eq!(OperationSet::of(&[]).iter().count(), 0);
    }

    #[test]
    fn read_and_write_are_the_plain_ones() {
        let classes = |texts: &[&str]| -> Vec<Classes> {
            OperationSet::of(&items(texts)).iter().map(|operation| operation.classes).collect()
        };
        assert_eq!(classes(&["read"]).len(), 82);
        assert_eq!(classes(&["write"]).len(), 42);
        for classes in
            classes(&["read", "write", "method:GET", "method:POST", "method:DELETE", "tag:statements"])
        {
            assert!(SENSITIVE.iter().all(|class| !classes.contains(*class)), "{classes:?}");
            assert!(!classes.contains(Class::KeyAdmin));
        }
    }

    #[test]
    fn an_operation_of_two_sensitive_classes_needs_both() {
        let both = "deleteMicrodeposit";
        assert!(catalogue().by_id(both).unwrap().classes.contains(Class::Money));
        assert!(!allows(&["write", "destructive"], both));
        assert!(!allows(&["write", "money"], both));
        assert!(allows(&["destructive", "money"], both));
        assert!(allows(&[both], both));
    }

    #[test]
    fn exclusions_always_win() {
        assert!(allows(&["read"], "listUsers"));
        for not in ["-listUsers", "-tag:users", "-method:GET", "-read"] {
            assert!(!allows(&["read", "listUsers", not], "listUsers"), "{not}");
            assert!(!allows(&[not, "read", "listUsers"], "listUsers"), "{not}");
        }
        assert!(allows(&["read", "-write"], "listUsers"));
    }

    #[test]
    fn key_administration_is_had_by_name_alone() {
        assert!(item("key-admin").is_err());
        assert!(item("-key-admin").is_ok());
        let id = catalogue().operations().iter().find(|o| o.classes.contains(Class::KeyAdmin)).unwrap().id;
        let everything =
            ["read", "write", "destructive", "bank-data", "mints-access", "carries-bank-login", "money"];
        assert!(!allows(&everything, id));
        assert!(allows(&[id], id));
        assert!(!allows(&[id, "-key-admin"], id));
        assert_eq!(OperationSet::of(&items(&everything)).iter().count(), 173);
    }

    #[test]
    fn a_typo_names_what_is_valid() {
        for (text, valid) in
            [("listUser", "listUsers"), ("tag:user", "users"), ("method:get", "GET"), ("x:y", "tag")]
        {
            let malformed = item(text).unwrap_err();
            assert!(malformed.valid.iter().any(|one| one == valid), "{text}: {malformed:?}");
        }
        for text in ["", "-", "--read", "Read", "read ", "tag:", "*"] {
            assert!(item(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_catalogue_fits_into_a_set() {
        assert!(catalogue().operations().len() <= 3 * 64);
    }

    #[test]
    fn paths_of_another_api_are_granted_as_listed() {
        let listed = ["GET /a/{id}", "POST /a", "GET /b"].map(|text| PathPattern {
            method: text.split(' ').next().unwrap().parse().unwrap(),
            template: text.split(' ').nth(1).unwrap().into(),
        });
        let found = |texts: &[&str], method: Method, path: &str| {
            let allowed = Allowed::new(&items(texts), Some(&listed)).unwrap();
            matches!(allowed.patterns().find(&method, path), Found::Pattern(_))
        };
        assert!(found(&["paths"], Method::POST, "/a"));
        assert!(!found(&["paths", "-path:POST /a"], Method::POST, "/a"));
        assert!(found(&["paths", "-path:POST /a"], Method::HEAD, "/b"));
        assert!(!found(&["path:POST /a"], Method::GET, "/b"));
        assert!(!found(&["read", "write"], Method::GET, "/b"));
        assert!(!found(&["path:GET /not/listed"], Method::GET, "/not/listed"));
    }
}
