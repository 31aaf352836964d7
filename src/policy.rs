//! What may be asked: a `Caller` and a `Target` become a `Grant`, or a denial.
//!
//! Deciding is pure: no clock, no I/O, no `async`, and it starts from no. Only this module can make a
//! `Grant`, and a credential is attached only with one.

pub(crate) mod form;
pub mod grant;
mod reading;
pub mod target;

use http::{HeaderValue, Method};

use self::{
    grant::{Allowed, Found as FoundPath, Pattern},
    target::Target,
};
use crate::{
    mx::catalogue::{Found, Operation, OperationCredential, catalogue},
    refusal::Refusal,
};

/// What an environment offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    /// MX's Platform API: the catalogue.
    Platform,
    /// Only the patterns that it lists.
    Paths,
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

/// Decides what a caller that is `allowed` this much at an environment may do there. `None`: nothing.
pub(crate) fn decide(
    allowed: Option<&Allowed>,
    api: Api,
    method: &Method,
    target: &Target<'_>,
) -> Result<Grant, Denial> {
    let allowed = allowed.ok_or(Refusal::OperationDenied)?;
    let grant = match api {
        Api::Platform => decide_platform(allowed, method, target),
        Api::Paths => decide_paths(allowed, method, target),
    }?;
    // Whatever a lax server could take the path for has to be granted as well.
    for path in reading::other_readings(target.path()) {
        // The catalogue's templates are all in small letters.
        if let (Api::Platform, Found::Operation(operation)) =
            (api, catalogue().find(method, &path.to_ascii_lowercase()))
            && !allowed.operation(operation.index)
        {
            return Err(denied(operation));
        }
        if let FoundPath::Withheld = allowed.patterns().find(method, &path) {
            return Err(Refusal::OperationDenied.into());
        }
    }
    if let (Api::Platform, Call::Pattern(_)) = (api, &grant.call) {
        stands_for_no_operation(allowed, method, target.path())?;
    }
    Ok(grant)
}

/// A path that only a pattern covers may still be an operation for a server that folds case or drops a format.
fn stands_for_no_operation(allowed: &Allowed, method: &Method, path: &str) -> Result<(), Denial> {
    let path = path.to_ascii_lowercase();
    for reading in [Some(path.as_str()), reading::without_format(&path)].into_iter().flatten() {
        if let Found::Operation(operation) = catalogue().find(method, reading)
            && !allowed.operation(operation.index)
        {
            return Err(denied(operation));
        }
    }
    Ok(())
}

fn denied(operation: &'static Operation) -> Denial {
    Denial { refusal: Refusal::OperationDenied, operation: Some(operation), allowed_methods: None }
}

fn decide_platform(allowed: &Allowed, method: &Method, target: &Target<'_>) -> Result<Grant, Denial> {
    match catalogue().find(method, target.path()) {
        Found::Operation(operation) if allowed.operation(operation.index) => {
            Ok(Grant { call: Call::Operation(operation) })
        }
        Found::Operation(operation) => Err(denied(operation)),
        // MX may have more than the catalogue, and a grant may name it.
        Found::OtherMethods(methods) => match allowed.patterns().find(method, target.path()) {
            FoundPath::Pattern(template) => Ok(Grant { call: Call::Pattern(template.clone()) }),
            _ => Err(Denial {
                refusal: Refusal::MethodNotAllowed,
                operation: None,
                allowed_methods: Some(methods.clone()),
            }),
        },
        Found::Nothing => decide_paths(allowed, method, target),
    }
}

fn decide_paths(allowed: &Allowed, method: &Method, target: &Target<'_>) -> Result<Grant, Denial> {
    match allowed.patterns().find(method, target.path()) {
        FoundPath::Pattern(template) => Ok(Grant { call: Call::Pattern(template.clone()) }),
        FoundPath::Withheld => Err(Refusal::OperationDenied.into()),
        FoundPath::OtherMethods(found) => Err(Denial {
            refusal: Refusal::MethodNotAllowed,
            operation: None,
            allowed_methods: methods(found).ok(),
        }),
        FoundPath::Nothing => Err(Refusal::UnknownOperation.into()),
    }
}

/// A `GET` pattern lets `HEAD` in as well.
fn methods(patterns: &[Pattern]) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
    let has = |method: Method| patterns.iter().any(|pattern| *pattern.method() == method);
    let head = (has(Method::GET) && !has(Method::HEAD)).then_some("HEAD");
    let methods: Vec<&str> = patterns.iter().map(|pattern| pattern.method().as_str()).chain(head).collect();
    methods.join(", ").try_into()
}

#[cfg(test)]
mod tests;
