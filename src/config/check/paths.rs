//! `paths`: what may be called at a host that is not MX's platform.

use http::Method;

use crate::{
    config::{
        PathPattern,
        fault::{Problem, listed},
        walk::Table,
    },
    mx::path_tree::PathTree,
};

/// Methods that are ever forwarded.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Every pattern, each valid by itself and beside the others.
pub(super) fn patterns(environment: &Table<'_>) -> Vec<PathPattern> {
    let patterns = environment.list("paths", pattern);
    let mut tree: PathTree<Vec<&PathPattern>> = PathTree::new();
    for pattern in &patterns {
        // `pattern` below has checked the template already.
        let Ok(entry) = tree.entry(&pattern.template) else { continue };
        let same_paths = entry.get_or_insert_with(Vec::new);
        if let Some(other) = same_paths.iter().find(|other| other.method == pattern.method) {
            let problem = Problem::new(format!(
                "holds \"{} {}\", which matches the same paths as \"{} {}\"",
                pattern.method, pattern.template, other.method, other.template
            ));
            environment.fault("paths", problem.allowed("leave one of them out"));
        }
        same_paths.push(pattern);
    }
    patterns
}

/// `GET /v1/things/{id}`.
pub(super) fn pattern(text: &str) -> Result<PathPattern, Problem> {
    let form = "expected a method and a path, such as \"GET /v1/things/{id}\" or \"GET /v1/files/{*rest}\"";
    let (method, template) =
        text.split_once(' ').ok_or_else(|| Problem::new("is not a pattern").allowed(form))?;
    let known = METHODS.iter().find(|known| **known == method);
    let allowed = || {
        Problem::new("starts with no method that is forwarded")
            .allowed(format!("one of {}", listed(&METHODS)))
    };
    let method = known.and_then(|method| method.parse::<Method>().ok()).ok_or_else(allowed)?;
    let malformed = |what: &str| Err(Problem::new(what).allowed(form));
    let Some(path) = template.strip_prefix('/') else {
        return malformed("has a path that does not start with /");
    };
    let segments: Vec<&str> = path.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        if segment.is_empty() {
            return malformed("has an empty segment");
        }
        if !is_segment(segment, last) {
            return malformed(
                "has a segment that is neither plain text nor {name} or {name}.suffix, nor {*name} at the end",
            );
        }
    }
    Ok(PathPattern { method, template: template.to_owned() })
}

/// Plain bytes as they are received (a request's path is never decoded), or one whole-segment parameter.
fn is_segment(segment: &str, last: bool) -> bool {
    let name = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let plain = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte))
    };
    match segment.strip_prefix('{').map(|rest| rest.split_once('}')) {
        Some(Some((parameter, suffix))) => match parameter.strip_prefix('*') {
            Some(rest) => last && name(rest) && suffix.is_empty(),
            None => name(parameter) && plain(suffix),
        },
        Some(None) => false,
        None => !matches!(segment, "." | "..") && plain(segment),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_a_method_and_whole_segments() {
        for text in
            ["GET /v1/things", "POST /v1/things/{id}", "GET /files/{*rest}", "GET /v1:x", "GET /{id}.pdf"]
        {
            assert!(pattern(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "/v1",
            "GET",
            "get /v1",
            "TRACE /",
            "CONNECT /",
            "GET v1",
            "GET  /v1",
            "GET /",
            "GET /a/",
            "GET //a",
            "GET /a/../b",
            "GET /a{b}",
            "GET /{*rest}/a",
            "GET /{}",
            "GET /{id}{b}",
            "GET /{id",
            "GET /{*rest}.pdf",
            "GET /{a-b}",
            "GET /%2e",
            "GET /a?b",
            "GET /a#b",
            "GET /a b",
            "GET /ä",
        ] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }
}
