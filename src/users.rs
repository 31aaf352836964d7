//! Whose data a caller may reach: the `{user_guid}` of a path, as received, against the caller's list and its end user.
//!
//! In: a caller, what policy granted, the target, and who its end user is. Out: yes, or a [`Reason`].
//! A caller without `users` and `end_user` costs one branch. With them, an operation whose template has no
//! `{user_guid}` is refused unless the grant names it, since nothing would bind it to a user: `listUsers` names all of
//! them, and `listTokens` or `createACHReturn` take one in the body (docs/policy.md, "Users").
//! What must never happen: two spellings of one user. So a segment with an escape is nobody, and nothing is decoded or
//! folded.

pub(crate) mod end_user;
mod fetch;
pub(crate) mod keys;
pub mod list;

use std::sync::Arc;

use http::Method;

use self::{end_user::EndUser, list::UserList};
use crate::{
    admission::CallerIndex,
    config::{self, Config, PathPattern},
    policy::{
        Call, Grant,
        grant::{Item, OperationSet, Term},
        target::Target,
    },
    refusal::{Failure, Refusal},
};

crate::coded::coded! {
    /// Why a request is not for a user whom its caller may reach; its code is for the log and metrics.
    Reason {
        /// The operation's template has no `{user_guid}`, and the grant does not name it.
        NoUser = "no_user_in_path";
        /// The path's user is not one of the caller's `users`.
        NotListed = "user_not_listed";
        /// The end user is another one than the path's.
        OtherUser = "another_user";
        /// The request carries no token.
        TokenAbsent = "token_absent";
        /// It carries more than one.
        TokenRepeated = "token_repeated";
        /// What it carries is no token that can be judged; `alg` `none` is one of these.
        TokenMalformed = "token_malformed";
        /// Its algorithm is not listed.
        TokenAlgorithm = "token_algorithm";
        /// No key has its `kid` and fits its algorithm.
        TokenKey = "token_unknown_key";
        /// Its signature is wrong.
        TokenSignature = "token_signature";
        /// It has expired.
        TokenExpired = "token_expired";
        /// It is not valid yet.
        TokenEarly = "token_not_yet_valid";
        /// It is by another issuer.
        TokenIssuer = "token_issuer";
        /// It is for somebody else.
        TokenAudience = "token_audience";
        /// It lacks a claim that is needed.
        TokenClaim = "token_claim";
        /// The map of users does not have its subject.
        NotMapped = "subject_not_mapped";
        /// There are no keys to verify it with.
        NoKeys = "no_keys";
    }
}

/// What the caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Refused(Refusal),
    Failed(Failure),
}

impl Told {
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Failed(failure) => failure.code(),
        }
    }
}

impl Reason {
    /// A wrong token looks like an unknown caller, another user's data like an operation that is not granted. Without
    /// keys nobody can tell whether the token is right: that is no fault of the caller's, and may be over soon.
    pub(crate) const fn told(self) -> Told {
        match self {
            Self::NoUser | Self::NotListed | Self::OtherUser => Told::Refused(Refusal::OperationDenied),
            Self::NoKeys => Told::Failed(Failure::NoVerificationKeys),
            _ => Told::Refused(Refusal::CallerNotAllowed),
        }
    }
}

/// What each caller is bound to.
#[derive(Debug, Default)]
pub(crate) struct Users(Vec<Option<Box<Rule>>>);

/// What one caller is bound to.
#[derive(Debug)]
pub(crate) struct Rule {
    list: Option<UserList>,
    pub(crate) end_user: Option<EndUser>,
    /// By environment.
    named: Vec<Named>,
}

/// What a grant names one by one.
#[derive(Debug, Default)]
struct Named {
    operations: OperationSet,
    patterns: Vec<PathPattern>,
}

impl Users {
    /// Reads the files of users and keys; keys that were fetched for `previous` are kept.
    pub(crate) fn new(config: &Config, previous: Option<&Self>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut sources = previous.map(Self::key_sources).unwrap_or_default();
        let mut rules = Vec::new();
        for caller in &config.callers {
            match Rule::new(caller, config, &mut sources) {
                Ok(rule) => rules.push(rule.map(Box::new)),
                Err(source) => faults.push(Fault { caller: caller.name.clone(), source }),
            }
        }
        if faults.is_empty() { Ok(Self(rules)) } else { Err(faults) }
    }

    /// What `caller` is bound to; `None`: to nothing.
    pub(crate) fn of(&self, caller: CallerIndex) -> Option<&Rule> {
        self.0.get(caller.get())?.as_deref()
    }

    /// Where keys come from, each source once.
    pub(crate) fn key_sources(&self) -> Vec<Arc<keys::KeySource>> {
        let mut all: Vec<Arc<keys::KeySource>> = Vec::new();
        for end_user in self.0.iter().flatten().filter_map(|rule| rule.end_user.as_ref()) {
            if !all.iter().any(|known| Arc::ptr_eq(known, end_user.keys())) {
                all.push(end_user.keys().clone());
            }
        }
        all
    }
}

/// Why the rule of one caller could not be made.
#[derive(Debug, thiserror::Error)]
#[error("caller {caller}: {source}")]
pub(crate) struct Fault {
    caller: String,
    source: RuleFault,
}

/// Which of its files is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleFault {
    #[error("users_file: {0}")]
    List(#[source] list::Fault),
    #[error("end_user: {0}")]
    EndUser(#[source] end_user::Fault),
}

impl Rule {
    fn new(
        caller: &config::Caller,
        config: &Config,
        sources: &mut Vec<Arc<keys::KeySource>>,
    ) -> Result<Option<Self>, RuleFault> {
        let list =
            UserList::of(caller.users.as_deref(), caller.users_file.as_deref()).map_err(RuleFault::List)?;
        let end_user = caller.end_user.as_ref().map(|settings| EndUser::new(settings, sources));
        let end_user = end_user.transpose().map_err(RuleFault::EndUser)?;
        if list.is_none() && end_user.is_none() {
            return Ok(None);
        }
        let items = |name| caller.grant.get(name).map(Vec::as_slice).unwrap_or_default();
        let named = config.environments.keys().map(|name| Named::new(items(name))).collect();
        Ok(Some(Self { list, end_user, named }))
    }

    /// Whether a granted request is for a user whom the caller may reach. `end_user` is who its token says, where it
    /// must have one.
    pub(crate) fn check(
        &self,
        environment: usize,
        method: &Method,
        grant: &Grant,
        target: &Target<'_>,
        end_user: Option<&str>,
    ) -> Result<(), Reason> {
        let mut users = users(template(grant), target.path()).peekable();
        if users.peek().is_none() {
            let named = self.named.get(environment).is_some_and(|named| named.has(grant.call(), method));
            return if named { Ok(()) } else { Err(Reason::NoUser) };
        }
        // A server that mixes parameters of path and query could take another user from there.
        if target.query_without(&["user_guid", "user_identifier"]) != target.query().unwrap_or_default() {
            return Err(Reason::OtherUser);
        }
        users.try_for_each(|user| self.may_reach(user, end_user))
    }

    /// Whether the caller may reach this user. `end_user` is who its token says, where it must have one.
    pub(crate) fn may_reach(&self, user: &str, end_user: Option<&str>) -> Result<(), Reason> {
        let escaped = user.contains('%');
        if self.list.as_ref().is_some_and(|list| escaped || !list.contains(user)) {
            return Err(Reason::NotListed);
        }
        if self.end_user.is_some() && (escaped || end_user != Some(user)) {
            return Err(Reason::OtherUser);
        }
        Ok(())
    }
}

impl Named {
    fn new(items: &[Item]) -> Self {
        let mut named = Self::default();
        let mut operations = Vec::new();
        for item in items.iter().filter(|item| !item.excludes) {
            match &item.term {
                Term::Operation(_) => operations.push(item.clone()),
                Term::Path(pattern) => named.patterns.push(pattern.clone()),
                _ => {}
            }
        }
        named.operations = OperationSet::of(&operations);
        named
    }

    fn has(&self, call: &Call, method: &Method) -> bool {
        match call {
            Call::Operation(operation) => self.operations.contains(operation.index),
            Call::Pattern(template) => self.patterns.iter().any(|pattern| {
                let same =
                    pattern.method == *method || (pattern.method == Method::GET && *method == Method::HEAD);
                same && *pattern.template == **template
            }),
        }
    }
}

fn template(grant: &Grant) -> &str {
    match grant.call() {
        Call::Operation(operation) => operation.template,
        Call::Pattern(template) => template,
    }
}

/// The one user whom a granted request is about; `None`: no one, several, or one that has two spellings.
pub(crate) fn user_of<'t>(grant: &Grant, target: &Target<'t>) -> Option<&'t str> {
    let (template, path) = (template(grant), target.path());
    let mut all = users(template, path);
    let first = all.next().filter(|user| !user.contains('%'))?;
    all.all(|other| other == first).then_some(first)
}

/// What marks a template's user.
const PARAMETER: &str = "{user_guid}";

/// Whether a template says which user its path is of.
pub(crate) fn has_user(template: &str) -> bool {
    template.split('/').any(|segment| segment.starts_with(PARAMETER))
}

/// The segments of `path` that stand where `template`, which it matches, has its user.
fn users<'p>(template: &str, path: &'p str) -> impl Iterator<Item = &'p str> {
    template.split('/').zip(path.split('/')).filter_map(|(template, segment)| {
        let suffix = template.strip_prefix(PARAMETER)?;
        Some(segment.strip_suffix(suffix).unwrap_or(segment))
    })
}

#[cfg(test)]
mod tests;
