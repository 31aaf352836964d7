//! The media types that MX speaks, and the `Accept` header that a request needs.
//!
//! MX answers 406 without a valid version, and its two versions want different types. Unmodified clients often
//! send none, `*/*` or a list, so the gateway completes the header from the catalogue; a caller that names
//! one of MX's types keeps it. Pure and allocation-free: it runs on every request.

use http::HeaderValue;

use super::{Version, catalogue::Operation};

/// A media type that some operation of MX's answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// `application/json`
    Json,
    /// `application/vnd.mx.api.v1+json`
    V1Json,
    /// `application/vnd.mx.api.v2beta+json`
    V2BetaJson,
    /// `application/vnd.mx.api.v1+pdf`
    V1Pdf,
}

static JSON: HeaderValue = HeaderValue::from_static(MediaType::Json.as_str());
static V1_JSON: HeaderValue = HeaderValue::from_static(MediaType::V1Json.as_str());
static V2_BETA_JSON: HeaderValue = HeaderValue::from_static(MediaType::V2BetaJson.as_str());
static V1_PDF: HeaderValue = HeaderValue::from_static(MediaType::V1Pdf.as_str());

impl MediaType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Json, Self::V1Json, Self::V2BetaJson, Self::V1Pdf];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::V1Json => "application/vnd.mx.api.v1+json",
            Self::V2BetaJson => "application/vnd.mx.api.v2beta+json",
            Self::V1Pdf => "application/vnd.mx.api.v1+pdf",
        }
    }

    /// Its name, ready for a header. Cloning it allocates nothing.
    #[must_use]
    pub fn header(self) -> &'static HeaderValue {
        match self {
            Self::Json => &JSON,
            Self::V1Json => &V1_JSON,
            Self::V2BetaJson => &V2_BETA_JSON,
            Self::V1Pdf => &V1_PDF,
        }
    }

    /// The type that `text` names; case does not matter (RFC 9110 section 8.3.1).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|media_type| media_type.as_str().eq_ignore_ascii_case(text))
    }
}

/// What becomes of a request's `Accept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// It stays as it was sent.
    Keep,
    /// This value goes instead of whatever was sent.
    Replace(&'static HeaderValue),
}

/// The `Accept` that `operation` needs under `version` (the value of `Accept-Version` that will be sent), given
/// what the caller sent: its field lines, which are one list.
///
/// A value that names a type of MX's own (`application/vnd.mx.*`), or, without any wildcard, one that the
/// operation offers, is kept. Everything else is replaced: nothing, `*/*`, a browser's or axios' list.
#[must_use]
pub fn accept<'h>(
    operation: &Operation,
    version: &str,
    sent: impl IntoIterator<Item = &'h HeaderValue>,
) -> Accept {
    if is_explicit(operation, sent) {
        return Accept::Keep;
    }
    Accept::Replace(preferred(operation, version).header())
}

/// The type to ask for: under v20111101 the one of MX's own, later JSON, where the operation has both.
#[must_use]
pub fn preferred(operation: &Operation, version: &str) -> MediaType {
    let (first, second) = if version == Version::V20111101.as_str() {
        (MediaType::V1Json, MediaType::Json)
    } else {
        (MediaType::Json, MediaType::V1Json)
    };
    match operation.media_types.as_slice() {
        [] => first,
        types if types.contains(&first) => first,
        types if types.contains(&second) => second,
        [other, ..] => *other,
    }
}

fn is_explicit<'h>(operation: &Operation, accept: impl IntoIterator<Item = &'h HeaderValue>) -> bool {
    let mut offered = false;
    let mut wildcard = false;
    for range in accept.into_iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b',')) {
        let name = range.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        if is_own(name) {
            return true;
        }
        wildcard |= name.contains(&b'*');
        offered |= operation.media_types.iter().any(|t| t.as_str().as_bytes().eq_ignore_ascii_case(name));
    }
    offered && !wildcard
}

/// Whether MX made the type up.
fn is_own(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"application/vnd.mx.";
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
        && name.len() > PREFIX.len()
        && !name.contains(&b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mx::catalogue::catalogue;

    const OLD: &str = "v20111101";
    const NEW: &str = "v20250224";

    fn completed(id: &str, version: &str, sent: Option<&'static str>) -> &'static str {
        let operation = catalogue().by_id(id).unwrap();
        match accept(operation, version, sent.map(HeaderValue::from_static).as_ref()) {
            Accept::Keep => "kept",
            Accept::Replace(value) => value.to_str().unwrap(),
        }
    }

    #[test]
    fn what_names_no_type_is_completed_by_version() {
        let axios = "application/json, text/plain, */*";
        for sent in [None, Some("*/*"), Some(axios), Some(""), Some("text/html"), Some("application/*")] {
            assert_eq!(completed("listUsers", OLD, sent), "application/vnd.mx.api.v1+json", "{sent:?}");
            assert_eq!(completed("listUsers", NEW, sent), "application/json", "{sent:?}");
        }
    }

    #[test]
    fn an_exact_type_is_kept() {
        for version in [OLD, NEW] {
            for sent in [
                "application/vnd.mx.api.v1+json",
                "Application/VND.MX.api.v1+JSON",
                "application/vnd.mx.api.v9+json; q=1",
                "text/html, application/vnd.mx.api.v1+json",
                "application/json",
                "application/json;q=0.9, text/plain",
            ] {
                assert_eq!(completed("listUsers", version, Some(sent)), "kept", "{sent}");
            }
        }
    }

    #[test]
    fn a_type_that_only_looks_like_mx_own_is_not_kept() {
        for sent in [
            "application/vnd.mx.",
            "application/vnd.mx.*",
            "application/vnd.mxx+json",
            "x/vnd.mx.api.v1+json",
        ] {
            assert_eq!(completed("listUsers", NEW, Some(sent)), "application/json", "{sent}");
        }
    }

    #[test]
    fn operations_with_one_type_get_that_one() {
        for version in [OLD, NEW, "v20990101"] {
            assert_eq!(completed("downloadStatementPDF", version, None), "application/vnd.mx.api.v1+pdf");
            assert_eq!(
                completed("getAccountsData", version, Some("*/*")),
                "application/vnd.mx.api.v2beta+json"
            );
            assert_eq!(completed("readGoal", version, None), "application/json");
            // JSON is not offered here, so it is no exact type.
            assert_eq!(
                completed("downloadStatementPDF", version, Some("application/json")),
                "application/vnd.mx.api.v1+pdf"
            );
        }
    }

    #[test]
    fn an_answer_without_a_body_gets_the_versions_own_type() {
        assert_eq!(completed("deleteUser", OLD, None), "application/vnd.mx.api.v1+json");
        assert_eq!(completed("deleteUser", NEW, None), "application/json");
    }
}
