//! What may be asked: a `Caller` and a `Target` become a `Grant`, or a denial.
//!
//! Deciding is pure: no clock, no I/O, no `async`, and it starts from no. Only this module can make a
//! `Grant`, and a credential is attached only with one.

pub mod target;

use http::{HeaderValue, Method};

use self::target::Target;
use crate::{
    admission::Caller,
    gateway::refusal::Refusal,
    mx::{
        catalogue::{Class, Found, Operation, OperationCredential, catalogue},
        path_tree::PathTree,
    },
};

/// What an environment offers.
#[derive(Debug)]
pub(crate) enum Api {
    /// MX's Platform API: the catalogue.
    Platform,
    /// Only these patterns.
    Paths(Patterns),
}

/// Configured patterns, matched as the catalogue is.
#[derive(Debug)]
pub(crate) struct Patterns {
    tree: PathTree<Vec<Pattern>>,
}

#[derive(Debug)]
struct Pattern {
    method: Method,
    template: std::sync::Arc<str>,
}

impl Patterns {
    /// # Errors
    /// The template that cannot be matched, and why.
    pub(crate) fn new(patterns: &[crate::config::PathPattern]) -> Result<Self, String> {
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
}

/// The proof that policy allowed this request, and what it needs to be carried out.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    call: Call,
}

/// What is called, by a name that holds no id.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Operation(&'static Operation),
    Pattern(std::sync::Arc<str>),
}

impl Grant {
    pub(crate) fn call(&self) -> &Call {
        &self.call
    }

    pub(crate) fn operation(&self) -> Option<&'static Operation> {
        match self.call {
            Call::Operation(operation) => Some(operation),
            Call::Pattern(_) => None,
        }
    }

    /// Whether the operation takes a Bearer token of one user or account.
    pub(crate) fn takes_bearer(&self) -> bool {
        self.operation().is_some_and(|operation| operation.credential == OperationCredential::Bearer)
    }

    /// Whether sending the request twice cannot have had an effect twice.
    pub(crate) fn repeatable(&self, method: &Method) -> bool {
        match &self.call {
            Call::Operation(operation) => operation.repeatable,
            Call::Pattern(_) => *method == Method::GET || *method == Method::HEAD,
        }
    }
}

/// A no, with what is still known about the request for its record.
#[derive(Debug)]
pub(crate) struct Denial {
    pub(crate) refusal: Refusal,
    pub(crate) operation: Option<&'static Operation>,
    /// For an `Allow` field (RFC 9110, 15.5.6).
    pub(crate) allowed_methods: Option<HeaderValue>,
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, operation: None, allowed_methods: None }
    }
}

/// Decides.
pub(crate) fn decide(
    _caller: Caller,
    api: &Api,
    method: &Method,
    target: &Target<'_>,
) -> Result<Grant, Denial> {
    match api {
        Api::Platform => decide_platform(method, target),
        Api::Paths(patterns) => decide_paths(patterns, method, target),
    }
}

fn decide_platform(method: &Method, target: &Target<'_>) -> Result<Grant, Denial> {
    match catalogue().find(method, target.path()) {
        // Whoever reaches these can take or kill the key that everybody here uses.
        Found::Operation(operation) if operation.classes.contains(Class::KeyAdmin) => Err(Denial {
            refusal: Refusal::OperationDenied,
            operation: Some(operation),
            allowed_methods: None,
        }),
        Found::Operation(operation) => Ok(Grant { call: Call::Operation(operation) }),
        Found::OtherMethods(methods) => Err(Denial {
            refusal: Refusal::MethodNotAllowed,
            operation: None,
            allowed_methods: Some(methods.clone()),
        }),
        Found::Nothing => Err(Refusal::UnknownOperation.into()),
    }
}

fn decide_paths(patterns: &Patterns, method: &Method, target: &Target<'_>) -> Result<Grant, Denial> {
    let Some(found) = patterns.tree.find(target.path()) else {
        return Err(Refusal::UnknownOperation.into());
    };
    let same = |pattern: &&Pattern| {
        pattern.method == *method || (pattern.method == Method::GET && *method == Method::HEAD)
    };
    match found.iter().find(same) {
        Some(pattern) => Ok(Grant { call: Call::Pattern(pattern.template.clone()) }),
        None => Err(Denial {
            refusal: Refusal::MethodNotAllowed,
            operation: None,
            allowed_methods: allowed(found).ok(),
        }),
    }
}

/// A `GET` pattern lets `HEAD` in as well.
fn allowed(patterns: &[Pattern]) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let has = |method: Method| patterns.iter().any(|pattern| pattern.method == method);
    let head = (has(Method::GET) && !has(Method::HEAD)).then_some("HEAD");
    let methods: Vec<&str> = patterns.iter().map(|pattern| pattern.method.as_str()).chain(head).collect();
    methods.join(", ").try_into()
}
