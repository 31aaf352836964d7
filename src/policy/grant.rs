//! What a caller may do, as an operator writes it: `["read", "createMember", "-tag:insights"]`.
//!
//! In go the items of a list; out comes an `Allowed`, which answers for one operation or path in constant time.
//! A list starts from nothing. Items add, and items with `-` take away, which always wins, whatever the order.
//!
//! What must never happen: a word that covers many operations brings one that can hurt. So `read`, `write`, tags,
//! methods and bundles bring an operation with a sensitive class only if each such class is asked for in the
//! same list; and what administers keys is had by its operation id alone.

pub mod bundle;
pub mod review;

use std::{fmt, sync::Arc};

use http::Method;

use self::bundle::{BUNDLES, Bundle};
use crate::{
    config::PathPattern,
    mx::{
        catalogue::{Class, Classes, Operation, OperationIndex, catalogue},
        path_tree::{PathTree, overlap::same_paths},
    },
    tree::tree,
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
    /// `bundle:aggregation`: what a kind of service needs.
    Bundle(&'static Bundle),
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
            Some(("bundle", bundle)) => Term::bundle(bundle)?,
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

    /// Whether both mean the same.
    fn is_same(&self, other: &Self) -> bool {
        let same_term = match (&self.term, &other.term) {
            (Term::Path(one), Term::Path(other)) => is_same_pattern(one, other),
            (one, other) => one == other,
        };
        self.excludes == other.excludes && same_term
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
            Term::Bundle(bundle) => write!(f, "bundle:{}", bundle.name),
            Term::Method(method) => write!(f, "method:{method}"),
            Term::Path(pattern) => write!(f, "path:{} {}", pattern.method, pattern.template),
            Term::Paths => f.write_str("paths"),
        }
    }
}

fn is_same_pattern(one: &PathPattern, other: &PathPattern) -> bool {
    one.method == other.method && same_paths(&one.template, &other.template)
}

const PREFIXES: [&str; 4] = ["tag", "bundle", "method", "path"];

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
            let valid: std::collections::BTreeSet<String> = tree(tags().map(spelled));
            Malformed::new("is no tag of MX", name, valid)
        })
    }

    fn bundle(name: &str) -> Result<Self, Malformed> {
        Bundle::named(name)
            .map(Self::Bundle)
            .ok_or_else(|| Malformed::new("is no bundle", name, BUNDLES.iter().map(|bundle| bundle.name)))
    }

    fn method(name: &str) -> Result<Self, Malformed> {
        const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let found = METHODS.iter().find(|method| method.as_str() == name).cloned();
        found.map(Self::Method).ok_or_else(|| Malformed::new("is no method that is granted", name, METHODS))
    }

    /// Whether it is about `operation`, wherever its classes may put it.
    #[must_use]
    pub fn covers(&self, operation: &Operation) -> bool {
        match self {
            Self::Operation(index) => *index == operation.index,
            Self::Class(class) => operation.classes.contains(*class),
            Self::Tag(tag) => operation.tag == *tag,
            Self::Bundle(bundle) => bundle.covers(operation),
            Self::Method(method) => operation.method == *method,
            Self::Path(_) | Self::Paths => false,
        }
    }

    /// Whether it is about a pattern that an environment lists.
    pub(crate) fn covers_pattern(&self, pattern: &PathPattern) -> bool {
        match self {
            Self::Path(path) => is_same_pattern(path, pattern),
            Self::Method(method) => pattern.method == *method,
            Self::Paths => true,
            Self::Operation(_) | Self::Class(_) | Self::Tag(_) | Self::Bundle(_) => false,
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

    /// The class that nothing asks for.
    #[must_use]
    pub const fn missing_class(&self) -> Option<Class> {
        match self {
            Self::NotAskedFor(_, class) => Some(*class),
            _ => None,
        }
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

/// What a list allows at one environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect<'i> {
    /// Operations of the catalogue; none at an environment that lists its own paths.
    pub operations: OperationSet,
    /// Paths that are not the catalogue's: those that the list adds, or of the listed ones those that it allows.
    pub paths: Vec<&'i PathPattern>,
}

impl<'i> Effect<'i> {
    /// `listed` are the environment's own `paths`; `None` at MX's Platform API.
    #[must_use]
    pub fn of(items: &'i [Item], listed: Option<&'i [PathPattern]>) -> Self {
        let allows = |pattern: &&PathPattern| {
            let covering = || items.iter().filter(|item| item.term.covers_pattern(pattern));
            covering().next().is_some() && !covering().any(|item| item.excludes)
        };
        match listed {
            None => {
                Self { operations: OperationSet::of(items), paths: patterns(items).filter(allows).collect() }
            }
            Some(listed) => {
                Self { operations: OperationSet::default(), paths: listed.iter().filter(allows).collect() }
            }
        }
    }
}

/// What one caller may do at one environment, ready for requests.
#[derive(Debug)]
pub(crate) struct Allowed {
    operations: OperationSet,
    /// Few callers have any.
    paths: Option<Box<Patterns>>,
}

static NO_PATTERNS: Patterns = Patterns { tree: PathTree::new() };

impl Allowed {
    /// `listed` are the environment's own `paths`; `None` at MX's Platform API.
    ///
    /// # Errors
    /// The template that cannot be matched, and why.
    pub(crate) fn new(items: &[Item], listed: Option<&[PathPattern]>) -> Result<Self, String> {
        let Effect { operations, paths } = Effect::of(items, listed);
        // All that is listed stands in one tree, so that what is withheld is not taken for a wider pattern beside it.
        let withheld = listed.unwrap_or_default().iter().filter(|pattern| !paths.contains(pattern));
        let all: Vec<(&PathPattern, bool)> = withheld
            .map(|pattern| (pattern, false))
            .chain(paths.iter().map(|pattern| (*pattern, true)))
            .collect();
        let paths = if all.is_empty() { None } else { Some(Box::new(Patterns::new(all)?)) };
        Ok(Self { operations, paths })
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
        self.paths.as_deref().unwrap_or(&NO_PATTERNS)
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
    /// Otherwise the environment lists it, and it is withheld.
    is_granted: bool,
}

impl Patterns {
    /// # Errors
    /// The template that cannot be matched, and why.
    pub(crate) fn new<'p>(
        patterns: impl IntoIterator<Item = (&'p PathPattern, bool)>,
    ) -> Result<Self, String> {
        let mut tree = PathTree::new();
        for (pattern, is_granted) in patterns {
            let methods: &mut Vec<Pattern> = tree
                .entry(&pattern.template)
                .map_err(|fault| format!("{}: {fault}", pattern.template))?
                .get_or_insert_with(Vec::new);
            let (method, template) = (pattern.method.clone(), pattern.template.as_str().into());
            methods.push(Pattern { method, template, is_granted });
        }
        Ok(Self { tree })
    }

    /// The template that `method` and `path` match. A `GET` pattern lets `HEAD` in as well.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let Some(patterns) = self.tree.find(path) else { return Found::Nothing };
        let same = |pattern: &&Pattern| {
            pattern.method == *method || (pattern.method == Method::GET && *method == Method::HEAD)
        };
        match patterns.iter().find(same) {
            Some(found) if found.is_granted => Found::Pattern(&found.template),
            Some(_) => Found::Withheld,
            None => Found::OtherMethods(patterns),
        }
    }
}

/// What a request line is among patterns.
pub(crate) enum Found<'p> {
    Pattern(&'p Arc<str>),
    /// One that its environment lists, and nobody granted.
    Withheld,
    OtherMethods(&'p [Pattern]),
    Nothing,
}

impl Pattern {
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }
}

#[cfg(test)]
mod tests;
