//! Which scopes a token needs for what is called at one environment.

use http::Method;

use crate::{
    config::{self, PathPattern},
    policy::{Call, Grant, grant::Term},
};

/// `scopes` of an environment.
#[derive(Debug)]
pub(crate) struct NeededScopes(Vec<config::NeededScopes>);

impl NeededScopes {
    pub(super) fn new(settings: &config::Environment) -> Self {
        Self(settings.scopes.clone())
    }

    /// Whether a token of these scopes is good for a granted call.
    pub(crate) fn are_in(&self, scopes: &[String], method: &Method, grant: &Grant) -> bool {
        self.of(method, grant).all(|needed| scopes.contains(needed))
    }

    /// What a token for a granted call must be good for.
    pub(crate) fn of<'s>(&'s self, method: &'s Method, grant: &'s Grant) -> impl Iterator<Item = &'s String> {
        let covers = |needed: &&config::NeededScopes| covers(&needed.item.term, method, grant);
        self.0.iter().filter(covers).flat_map(|needed| needed.scopes.iter())
    }
}

fn covers(term: &Term, method: &Method, grant: &Grant) -> bool {
    match grant.call() {
        Call::Operation(operation) => term.covers(operation),
        Call::Pattern(template) => {
            let as_pattern =
                |method: &Method| PathPattern { method: method.clone(), template: template.to_string() };
            // A pattern of GET lets HEAD in.
            let is_head = *method == Method::HEAD && term.covers_pattern(&as_pattern(&Method::GET));
            is_head || term.covers_pattern(&as_pattern(method))
        }
    }
}
