//! What is odd about a grant: items that mean nothing, and those that do nothing.
//!
//! In: the items of one list and what they are for. Out: findings by the place of their item, which `check` reports as
//! faults and warnings. Whether an item does something is found by leaving it out and comparing what is allowed.

use std::fmt;

use http::Method;

use super::{Effect, Item, Rule, Term, decide};
use crate::{
    config::PathPattern,
    mx::{
        catalogue::{Class, catalogue},
        path_tree::overlap::overlap,
    },
};

/// What is odd about one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A path pattern that could also match an operation of the catalogue, which would decide instead.
    Shadows(&'static str),
    /// `-path:` that takes nothing away.
    ExcludesNoPath,
    /// It is there twice; this is the place of the first.
    Duplicate(usize),
    /// It allows nothing: all that it covers has a sensitive class that is not asked for.
    NotAskedFor(Vec<Class>),
    /// It allows nothing: all that it covers is taken away.
    TakenAway(String),
    /// It allows nothing that other items do not allow.
    AddsNothing(Option<String>),
    /// It takes nothing away.
    ExcludesNothing,
}

impl Finding {
    /// Whether the configuration is not used with it.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        matches!(self, Self::Shadows(_) | Self::ExcludesNoPath)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shadows(id) => {
                write!(
                    f,
                    "could also match MX's operation {id}, which decides there; grant that operation instead"
                )
            }
            Self::ExcludesNoPath => {
                f.write_str("excludes a path that nothing grants; an operation of MX is excluded by its id")
            }
            Self::Duplicate(first) => write!(f, "is the same as item {first}"),
            Self::NotAskedFor(classes) => {
                let names: Vec<&str> = classes.iter().map(|class| class.as_str()).collect();
                let names = names.join(", ");
                write!(
                    f,
                    "allows nothing: all that it covers has a sensitive class that is not asked for: {names}"
                )
            }
            Self::TakenAway(by) => write!(f, "allows nothing: \"{by}\" takes away all that it covers"),
            Self::AddsNothing(Some(other)) => write!(f, "adds nothing to \"{other}\""),
            Self::AddsNothing(None) => f.write_str("adds nothing to the other items"),
            Self::ExcludesNothing => f.write_str("excludes nothing that the other items allow"),
        }
    }
}

/// All findings, each with the place of its item. `listed` are the environment's own paths; `None` at MX's Platform API.
#[must_use]
pub fn review(items: &[Item], listed: Option<&[PathPattern]>) -> Vec<(usize, Finding)> {
    // Where nothing may be called, no item can do anything, and that is said of the environment.
    if listed.is_some_and(<[_]>::is_empty) {
        return Vec::new();
    }
    let meaningless = |item| if listed.is_none() { meaning(items, item) } else { None };
    let mut findings = Vec::new();
    let mut kept: Vec<usize> = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let first = kept.iter().copied().find(|at| items.get(*at).is_some_and(|other| item.is_same(other)));
        match (meaningless(item), first) {
            (Some(fault), _) => findings.push((place, fault)),
            (None, Some(first)) => findings.push((place, Finding::Duplicate(first))),
            (None, None) => kept.push(place),
        }
    }
    let of =
        |places: &[usize]| -> Vec<Item> { places.iter().filter_map(|at| items.get(*at)).cloned().collect() };
    // From the end, so that of two that do the same the first stays.
    for place in kept.clone().into_iter().rev() {
        let others: Vec<usize> = kept.iter().copied().filter(|other| *other != place).collect();
        let without = of(&others);
        if let Some(item) = items.get(place)
            && Effect::of(&of(&kept), listed) == Effect::of(&without, listed)
        {
            let why = match listed {
                None => why_it_does_nothing(item, &without),
                Some(listed) => why_it_grants_no_path(item, &without, listed),
            };
            findings.push((place, why));
            kept = others;
        }
    }
    findings.sort_by_key(|(place, _)| *place);
    findings
}

/// What makes an item of MX's Platform API meaningless.
fn meaning(items: &[Item], item: &Item) -> Option<Finding> {
    let Term::Path(pattern) = &item.term else { return None };
    if item.excludes {
        let granted = items.iter().any(|other| !other.excludes && other.term.covers_pattern(pattern));
        return (!granted).then_some(Finding::ExcludesNoPath);
    }
    shadowed(pattern).map(Finding::Shadows)
}

/// An operation of the catalogue that a request could ask for as well when it matches `pattern`.
fn shadowed(pattern: &PathPattern) -> Option<&'static str> {
    let as_get = |method: &Method| if *method == Method::HEAD { Method::GET } else { method.clone() };
    let same = catalogue().operations().iter().filter(|one| one.method == as_get(&pattern.method));
    // A template that is none was reported where it was read.
    same.into_iter().find(|one| overlap(&pattern.template, one.template).unwrap_or(true)).map(|one| one.id)
}

fn why_it_does_nothing(item: &Item, others: &[Item]) -> Finding {
    if item.excludes {
        return Finding::ExcludesNothing;
    }
    let all: Vec<Item> = others.iter().chain([item]).cloned().collect();
    let rules: Vec<Rule<'_>> = catalogue()
        .operations()
        .iter()
        .filter(|operation| item.term.covers(operation))
        .map(|operation| decide(&all, operation))
        .collect();
    let mut missing: Vec<Class> = rules.iter().filter_map(|rule| rule.missing_class()).collect();
    missing.sort_unstable();
    missing.dedup();
    let excluding: Vec<&Item> = rules
        .iter()
        .filter_map(|rule| if let Rule::Excludes(item) = rule { Some(*item) } else { None })
        .collect();
    if let Term::Path(pattern) = &item.term {
        return why_it_grants_no_path(item, others, std::slice::from_ref(pattern));
    }
    if !rules.iter().any(Rule::is_allowed) {
        return match excluding.first() {
            Some(by) if missing.is_empty() => Finding::TakenAway(by.to_string()),
            _ => Finding::NotAskedFor(missing),
        };
    }
    let allowed: Vec<_> = catalogue()
        .operations()
        .iter()
        .filter(|one| item.term.covers(one) && decide(&all, one).is_allowed())
        .collect();
    let covering = others.iter().filter(|other| !other.excludes);
    let one = covering.into_iter().find(|other| allowed.iter().all(|operation| other.term.covers(operation)));
    Finding::AddsNothing(one.map(ToString::to_string))
}

fn why_it_grants_no_path(item: &Item, others: &[Item], paths: &[PathPattern]) -> Finding {
    if item.excludes {
        return Finding::ExcludesNothing;
    }
    let covered: Vec<&PathPattern> = paths.iter().filter(|path| item.term.covers_pattern(path)).collect();
    let takes_all =
        |other: &&Item| other.excludes && covered.iter().all(|path| other.term.covers_pattern(path));
    match others.iter().find(takes_all) {
        Some(by) if !covered.is_empty() => Finding::TakenAway(by.to_string()),
        _ => Finding::AddsNothing(None),
    }
}
