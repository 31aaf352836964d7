//! Whether two templates have a path in common, compared as a lax server would: in any case.

use super::{MalformedTemplate, Segment, split};

/// Whether some path matches both templates. Fixed text is compared in any case, so that a template is not told
/// apart from another one by what a server may ignore.
///
/// # Errors
/// One of them is no template.
pub fn overlap(one: &str, other: &str) -> Result<bool, MalformedTemplate> {
    let (one, other) = (parse(one)?, parse(other)?);
    Ok(meet(&one, &other))
}

/// Whether two templates match the same paths: they differ in their parameters' names at most.
#[must_use]
pub fn same_paths(one: &str, other: &str) -> bool {
    match (parse(one), parse(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn parse(template: &str) -> Result<Vec<Segment<'_>>, MalformedTemplate> {
    let mut segments = Vec::new();
    let mut rest = Some(template.strip_prefix('/').ok_or(MalformedTemplate::NotAbsolute)?);
    while let Some(text) = rest {
        let (segment, others) = split(text);
        segments.push(Segment::parse(segment)?);
        rest = others;
    }
    Ok(segments)
}

fn meet(one: &[Segment<'_>], other: &[Segment<'_>]) -> bool {
    match (one, other) {
        ([], []) => true,
        ([Segment::Rest], [_, ..]) | ([_, ..], [Segment::Rest]) => true,
        ([a, one @ ..], [b, other @ ..]) => can_be_equal(a, b) && meet(one, other),
        _ => false,
    }
}

fn can_be_equal(one: &Segment<'_>, other: &Segment<'_>) -> bool {
    use Segment::{Fixed, Parameter, Rest, Suffixed};
    match (one, other) {
        (Fixed(a), Fixed(b)) => a.eq_ignore_ascii_case(b),
        // A parameter is not empty, so a suffix alone is none.
        (Fixed(fixed), Suffixed(suffix)) | (Suffixed(suffix), Fixed(fixed)) => {
            fixed.len() > suffix.len() && ends_with(fixed, suffix)
        }
        (Suffixed(a), Suffixed(b)) => ends_with(a, b) || ends_with(b, a),
        (Parameter | Rest, _) | (_, Parameter | Rest) => true,
    }
}

fn ends_with(text: &str, end: &str) -> bool {
    text.len()
        .checked_sub(end.len())
        .and_then(|at| text.get(at..))
        .is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_overlap_when_a_path_matches_both() {
        for (one, other, expected) in [
            ("/users", "/users", true),
            ("/users", "/Users", true),
            ("/users", "/user", false),
            ("/users/{a}", "/users/{b}", true),
            ("/users/{a}", "/users/me", true),
            ("/users/{a}", "/users/{a}/members", false),
            ("/users/{a}/members", "/users/me/{x}", true),
            ("/{a}", "/users", true),
            ("/{*rest}", "/users", true),
            ("/users/{*rest}", "/users", false),
            ("/users/{*rest}", "/users/{u}/members/{m}", true),
            ("/users/{u}/{*rest}", "/users/{u}", false),
            ("/new/{*rest}", "/users/{u}", false),
            ("/s/{s}.pdf", "/s/{s}", true),
            ("/s/{s}.pdf", "/s/a.pdf", true),
            ("/s/{s}.pdf", "/s/A.PDF", true),
            ("/s/{s}.pdf", "/s/.pdf", false),
            ("/s/{s}.pdf", "/s/a.csv", false),
            ("/s/{s}.pdf", "/s/{s}.csv", false),
            ("/s/{s}.x.pdf", "/s/{s}.pdf", true),
            ("/s/{s}.pdf/x", "/s/{*rest}", true),
        ] {
            assert_eq!(overlap(one, other), Ok(expected), "{one} {other}");
            assert_eq!(overlap(other, one), Ok(expected), "{other} {one}");
        }
        assert!(overlap("users", "/users").is_err());
        assert!(overlap("/users", "/u{x").is_err());
    }

    #[test]
    fn names_of_parameters_make_no_difference() {
        assert!(same_paths("/a/{x}/{y}.pdf", "/a/{id}/{z}.pdf"));
        for (one, other) in
            [("/a/{x}", "/a/x"), ("/a/{x}.pdf", "/a/{x}"), ("/a", "/A"), ("/a/{*x}", "/a/{x}")]
        {
            assert!(!same_paths(one, other), "{one} {other}");
        }
    }
}
