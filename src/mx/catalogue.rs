//! Every operation of MX's Platform API, and which of them a request line asks for.
//!
//! `operations.tsv` is compiled in and parsed once. It lists the operations of both versions' OpenAPI
//! documents, and five that MX documents elsewhere but serves on the same host. In comes a method and a path
//! as received; out goes the one operation. What must never happen: a request is taken for another operation
//! than the one MX will run; so matching never decodes, never folds case and never ignores a slash.

use std::{collections::HashMap, fmt, sync::LazyLock};

use http::{HeaderValue, Method};

use super::{
    Version,
    media::MediaType,
    path_tree::{MalformedTemplate, PathTree},
};

static TABLE: &str = include_str!("operations.tsv");

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the table is compiled in, and a test parses it")]
    Catalogue::parse(TABLE).expect("operations.tsv is well formed")
});

/// The operations that are `GET` and must not be sent twice all the same: the first deactivates a feature
/// of the user's, the second mints a one-time link.
const GETS_WITH_EFFECTS: [&str; 2] = ["deactivateUser", "requestOAuthWindowURI"];

/// The catalogue, parsed on first use.
#[must_use]
pub fn catalogue() -> &'static Catalogue {
    &CATALOGUE
}

/// All operations, and the paths that lead to them.
#[derive(Debug)]
pub struct Catalogue {
    operations: Vec<Operation>,
    by_id: HashMap<&'static str, OperationIndex>,
    paths: PathTree<Resource>,
}

/// One MX API call.
#[derive(Debug)]
pub struct Operation {
    /// Its place in [`Catalogue::operations`]; counters are arrays over it.
    pub index: OperationIndex,
    /// MX's own `operationId` (their spelling), or ours where MX's documents give none. Unique.
    pub id: &'static str,
    /// The method; a `HEAD` finds the `GET`.
    pub method: Method,
    /// For example `/users/{user_guid}/members`.
    pub template: &'static str,
    /// MX's grouping, for people.
    pub tag: &'static str,
    /// Which credential MX expects.
    pub credential: OperationCredential,
    /// The versions whose OpenAPI document has it; empty for those documented elsewhere.
    pub versions: Versions,
    /// The version since which MX calls it deprecated.
    pub deprecated_in: Option<Version>,
    /// What it can answer with; `application/json` first where there is a choice. Empty for answers without a
    /// body.
    pub media_types: Vec<MediaType>,
    /// For least privilege.
    pub classes: Classes,
    /// Whether sending it twice has no more effect than once, so that it may be replayed on a fresh
    /// connection. No `POST`, `PUT` or `DELETE` is: MX has no idempotency key.
    pub repeatable: bool,
    /// The tokens that its answer holds.
    pub answers: Tokens,
}

/// Tokens in an operation's answer, of one user or account each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tokens {
    /// None. (A one-time code is none.)
    None,
    /// A new one at least.
    New,
    /// Those that there are.
    Any,
}

/// An operation's place in the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationIndex(u16);

impl OperationIndex {
    /// As an index into an array of `catalogue().operations().len()` elements.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// Which credential MX expects on an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationCredential {
    /// The environment's own: client id and API key.
    Environment,
    /// A Bearer token of one user or account.
    Bearer,
}

/// What a request line asks for.
#[derive(Debug, Clone, Copy)]
pub enum Found<'c> {
    /// This operation.
    Operation(&'c Operation),
    /// The path is known, with these methods (the value for an `Allow` header, RFC 9110 section 10.2.1).
    OtherMethods(&'c HeaderValue),
    /// No operation has this path.
    Nothing,
}

#[derive(Debug)]
struct Resource {
    operations: Vec<OperationIndex>,
    allow: HeaderValue,
}

impl Catalogue {
    /// What `method` and `path` (percent-encoding untouched, no query) ask for.
    #[must_use]
    pub fn find(&self, method: &Method, path: &str) -> Found<'_> {
        let Some(resource) = self.paths.find(path) else { return Found::Nothing };
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let mut operations = resource.operations.iter().filter_map(|&index| self.get(index));
        operations
            .find(|operation| operation.method == *method)
            .map_or(Found::OtherMethods(&resource.allow), Found::Operation)
    }

    /// All operations, in a fixed order.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operation with MX's operation id `id`, exactly.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Operation> {
        self.get(*self.by_id.get(id)?)
    }

    fn get(&self, index: OperationIndex) -> Option<&Operation> {
        self.operations.get(index.get())
    }

    fn parse(table: &'static str) -> Result<Self, TableError> {
        let mut catalogue = Self { operations: Vec::new(), by_id: HashMap::new(), paths: PathTree::new() };
        for (number, line) in table.lines().enumerate().skip(1) {
            catalogue.add(line).map_err(|fault| TableError { line: number + 1, fault })?;
        }
        Ok(catalogue)
    }

    fn add(&mut self, line: &'static str) -> Result<(), LineFault> {
        let index = u16::try_from(self.operations.len()).map_err(|_| LineFault::TooMany)?;
        let operation = Operation::parse(OperationIndex(index), line)?;
        let entry = self.paths.entry(operation.template)?;
        let resource = entry.get_or_insert_with(Resource::new);
        let mut methods = resource.operations.iter().filter_map(|i| self.operations.get(i.get()));
        if methods.any(|other| other.method == operation.method)
            || self.by_id.insert(operation.id, operation.index).is_some()
        {
            return Err(LineFault::Duplicate);
        }
        resource.operations.push(operation.index);
        self.operations.push(operation);
        resource.allow = allow(resource.operations.iter().filter_map(|i| self.operations.get(i.get())))?;
        Ok(())
    }
}

impl Resource {
    fn new() -> Self {
        Self { operations: Vec::new(), allow: HeaderValue::from_static("") }
    }
}

impl Operation {
    fn parse(index: OperationIndex, line: &'static str) -> Result<Self, LineFault> {
        let fields: Vec<&'static str> = line.split('\t').collect();
        let [method, template, id, tag, credential, versions, deprecated_in, media_types, classes, answers] =
            fields[..]
        else {
            return Err(LineFault::Fields(fields.len()));
        };
        let method = match method {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "DELETE" => Method::DELETE,
            other => return Err(LineFault::Unknown(other)),
        };
        Ok(Self {
            index,
            id,
            template,
            tag,
            credential: match credential {
                "basic" => OperationCredential::Environment,
                "bearer" => OperationCredential::Bearer,
                other => return Err(LineFault::Unknown(other)),
            },
            versions: match versions {
                "docs" => Versions::default(),
                list => Versions(parse_list(list, Version::parse)?),
            },
            deprecated_in: match deprecated_in {
                "-" => None,
                version => Some(Version::parse(version).ok_or(LineFault::Unknown(version))?),
            },
            media_types: match media_types {
                "-" => Vec::new(),
                list => parse_list(list, MediaType::parse)?,
            },
            classes: Classes(
                parse_list(classes, Class::parse)?.into_iter().fold(0, |bits, class| bits | class.bit()),
            ),
            repeatable: method == Method::GET && !GETS_WITH_EFFECTS.contains(&id),
            answers: match answers {
                "-" => Tokens::None,
                "token" => Tokens::New,
                "tokens" => Tokens::Any,
                other => return Err(LineFault::Unknown(other)),
            },
            method,
        })
    }
}

fn parse_list<T>(list: &'static str, parse: impl Fn(&'static str) -> Option<T>) -> Result<Vec<T>, LineFault> {
    list.split(',').map(|item| parse(item).ok_or(LineFault::Unknown(item))).collect()
}

fn allow<'o>(operations: impl Iterator<Item = &'o Operation>) -> Result<HeaderValue, LineFault> {
    let methods: Vec<&str> = operations
        .flat_map(|operation| match operation.method {
            Method::GET => ["GET", "HEAD"].as_slice(),
            Method::POST => &["POST"],
            Method::PUT => &["PUT"],
            _ => &["DELETE"],
        })
        .copied()
        .collect();
    HeaderValue::try_from(methods.join(", ")).map_err(|_| LineFault::Unknown("method"))
}

/// The versions that have an operation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Versions(Vec<Version>);

impl Versions {
    /// Whether `version` has the operation. Those that MX documents elsewhere belong to none.
    #[must_use]
    pub fn contains(&self, version: Version) -> bool {
        self.0.contains(&version)
    }

    /// Whether the operation is in none of the OpenAPI documents.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What an operation does, for least privilege.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Reads.
    Read,
    /// Changes something.
    Write,
    /// Every `DELETE`, and the `GET` that deactivates.
    Destructive,
    /// Account numbers, owners, statements, `/account/*`, `/payment_account`, `/vc/*`.
    BankData,
    /// The answer's body is itself a secret: widget URLs, one-time links, codes, tokens.
    MintsAccess,
    /// The request's body holds an end user's bank login.
    CarriesBankLogin,
    /// Micro-deposits and ACH returns.
    Money,
    /// `/clients/**`: whoever reaches it can take or kill the API key.
    KeyAdmin,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::Write,
        Self::Destructive,
        Self::BankData,
        Self::MintsAccess,
        Self::CarriesBankLogin,
        Self::Money,
        Self::KeyAdmin,
    ];

    /// Its name in the table, in grants and in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Destructive => "destructive",
            Self::BankData => "bank-data",
            Self::MintsAccess => "mints-access",
            Self::CarriesBankLogin => "carries-bank-login",
            Self::Money => "money",
            Self::KeyAdmin => "key-admin",
        }
    }

    /// The class that `text` names, exactly.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of [`Class`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Classes(u8);

impl Classes {
    /// Whether `class` is one of them.
    #[must_use]
    pub const fn contains(self, class: Class) -> bool {
        self.0 & class.bit() != 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Class> {
        Class::ALL.into_iter().filter(move |&class| self.contains(class))
    }
}

impl fmt::Debug for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A line of the table that is not well formed.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {fault}")]
struct TableError {
    line: usize,
    fault: LineFault,
}

#[derive(Debug, thiserror::Error)]
enum LineFault {
    #[error("has {0} fields, not 10")]
    Fields(usize),
    #[error("`{0}` is not a known value")]
    Unknown(&'static str),
    #[error("its operation id, or its method and template, is there before")]
    Duplicate,
    #[error("its template {0}")]
    Template(#[from] MalformedTemplate),
    #[error("is one too many")]
    TooMany,
}

#[cfg(test)]
mod tests;
