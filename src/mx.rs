//! What MX is: hosts, versions, media types, and the catalogue of its operations.
//!
//! Nothing here reads a request's body or a secret, and nothing does I/O: the catalogue is compiled in
//! from `mx/operations.tsv`, which was made from MX's own OpenAPI documents (MIT) and documentation.

pub mod catalogue;
pub mod media;
pub mod path_tree;

/// MX's host for its sandbox, which MX also calls "integration". Its keys are not production's.
pub const SANDBOX_HOST: &str = "int-api.mx.com";

/// MX's host for production.
pub const PRODUCTION_HOST: &str = "api.mx.com";

/// A version of MX's Platform API, as the header `Accept-Version` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The first one, which its media type `application/vnd.mx.api.v1+json` selects as well.
    V20111101,
    /// The current one. It answers `application/json`.
    V20250224,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 2] = [Self::V20111101, Self::V20250224];

    /// The text in `Accept-Version`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V20111101 => "v20111101",
            Self::V20250224 => "v20250224",
        }
    }

    /// The version that `text` names, exactly.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }
}
