//! A path and query, the catalogue's match for it, and what is left without credentials.
//!
//! The input is a request target. Claimed: `http::Uri` cuts where we cut; no server that decodes it, even
//! twice, is led elsewhere; the operation that is found is one whose template a plain second matcher finds
//! as well, and none is found only where that finds none; and nothing that a server would read as a
//! credential is left in the query, with the rest as it was.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::{
    mx::catalogue::{Found, catalogue},
    policy::target::Target,
};

const NAMES: [&str; 3] = ["api_key", "client_id", "X-Token"];

pub(super) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(target) = Target::parse(text) else { return };
    let uri: http::Uri = text.parse().unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert_eq!((uri.path(), uri.query()), (target.path(), target.query()));
    assert!(!climbs(target.path()), "{text:?}");
    for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
        assert!(is_match(&method, target.path()), "{method} {text:?}");
    }
    let left = target.without(&NAMES);
    assert!(is_left(&target, &left), "{left:?} is left of {text:?}");
}

/// Whether a server that decodes, takes `\` for `/`, cuts parameters off and resolves dots leaves the path.
pub(super) fn climbs(path: &str) -> bool {
    let mut text = path.to_owned();
    for _ in 0..3 {
        let mut segments =
            text.split(['/', '\\']).map(|segment| segment.split(';').next().unwrap_or_default());
        if segments.any(|name| name == "." || name == "..") || text.contains(char::is_control) {
            return true;
        }
        text = percent_decode_str(&text).decode_utf8_lossy().into_owned();
    }
    false
}

/// Whether what the catalogue finds is what comparing with every template finds.
fn is_match(method: &Method, path: &str) -> bool {
    let operations = || catalogue().operations().iter();
    let matching: Vec<_> = operations().filter(|operation| fits(operation.template, path)).collect();
    // `/.pdf` is no name with a suffix, and no name without one.
    let bare = |template| !fits(template, path) && fits(template, &path.replace("/.", "/x."));
    if operations().any(|operation| operation.template.contains("}.") && bare(operation.template)) {
        return matches!(catalogue().find(method, path), Found::Nothing);
    }
    let asked = if *method == Method::HEAD { &Method::GET } else { method };
    match catalogue().find(method, path) {
        Found::Operation(found) => {
            let is_listed = matching.iter().any(|operation| operation.id == found.id);
            // Another template may fit as well, if it is less exact.
            let is_best = matching.iter().all(|other| exactness(other.template) <= exactness(found.template));
            is_listed && is_best && found.method == *asked
        }
        Found::OtherMethods(allow) => {
            let listed = |operation: &&&crate::mx::catalogue::Operation| {
                allow
                    .to_str()
                    .is_ok_and(|allow| allow.split(", ").any(|one| one == operation.method.as_str()))
            };
            matching.iter().any(|operation| listed(&operation))
        }
        Found::Nothing => matching.is_empty(),
    }
}

/// Segment by segment; `{name}` and `{name}.suffix` stand for text that is not empty.
pub(super) fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len()
        && template.iter().zip(&path).all(|(pattern, segment)| match pattern.split_once('}') {
            Some((_, suffix)) => segment.strip_suffix(suffix).is_some_and(|name| !name.is_empty()),
            None => pattern == segment,
        })
}

/// From the left: fixed text before a suffix before any text.
fn exactness(template: &str) -> Vec<u8> {
    let exact = |segment: &str| match segment.split_once('}') {
        None => 2,
        Some((_, "")) => 0,
        Some(_) => 1,
    };
    template.split('/').map(exact).collect()
}

pub(super) fn is_left(target: &Target<'_>, left: &str) -> bool {
    let Ok(again) = Target::parse(left) else { return false };
    let (before, after) = (target.query().unwrap_or_default(), again.query().unwrap_or_default());
    let mut received = before.split(['&', ';']);
    again.path() == target.path()
        && again.without(&NAMES) == left
        && (after.is_empty() || after.split(['&', ';']).all(|piece| received.any(|other| other == piece)))
        && !after.split(['&', ';']).any(is_named)
        // Whoever takes only `&` for a separator finds none either.
        && !after.split('&').any(is_named)
        && (before.split(['&', ';']).any(|one| !looks_plain(one)) || left == target.path_and_query())
}

/// Whether a server could take the parameter for one of ours.
fn is_named(parameter: &str) -> bool {
    let name = parameter.split('=').next().unwrap_or_default().replace('+', " ");
    let name = percent_decode_str(&name).decode_utf8_lossy().trim().to_lowercase();
    let name: String = name.chars().map(|c| if "-. ".contains(c) { '_' } else { c }).collect();
    let base = name.split('[').next().unwrap_or_default();
    NAMES.iter().any(|own| [name.as_str(), base].contains(&own.to_lowercase().replace('-', "_").as_str()))
}

/// Whether no server could: its name shares no letter with ours.
fn looks_plain(parameter: &str) -> bool {
    parameter
        .bytes()
        .take_while(|byte| *byte != b'=')
        .all(|byte| matches!(byte, b'b' | b'q'..=b's' | b'u'..=b'w' | b'z'))
}
