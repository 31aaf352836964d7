//! Path templates, matched segment by segment.
//!
//! In comes a path as it was received, percent-encoding untouched; out goes what was stored for the one
//! template that it matches. `{name}` stands for exactly one segment that is not empty, `{name}.pdf` for one
//! that also ends so, and `{*name}` at the end for one or more. Fixed text beats a parameter. A trailing
//! slash, a double slash or another case makes another path; `%2F` is a part of its segment. Each
//! node is visited at most once and nothing is allocated, so no path can make a match slow.
//!
//! What must never happen: a path matches a template that MX's own routing would read as another one.
//! So a segment that is only a sibling's suffix (`/.pdf`) matches nothing, and neither does one in a parameter's
//! place that a lax server could take for the fixed text beside it: in another case, or with something behind it
//! (`/institutions/favorites.json`, `/institutions/Favorites;x`). (The crate `matchit` falls back to the plain
//! parameter there, and allocates from the fourth parameter on.)

pub mod overlap;

/// Values by path template; see the module's text.
#[derive(Debug)]
pub struct PathTree<T> {
    root: Node<T>,
}

/// Why a template is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MalformedTemplate {
    /// It does not start with a slash.
    #[error("does not start with `/`")]
    NotAbsolute,
    /// Two slashes in a row, or one at the end.
    #[error("has an empty segment")]
    EmptySegment,
    /// Braces that do not form `{name}`, `{name}suffix` or, at the end, `{*name}`.
    #[error("may use braces only as `{{name}}`, `{{name}}suffix` and, at the end, `{{*name}}`")]
    Braces,
}

#[derive(Debug)]
struct Node<T> {
    /// Sorted by text.
    fixed: Vec<(Box<str>, Node<T>)>,
    /// In the order of insertion; suffixes that end alike are the author's to avoid.
    suffixed: Vec<(Box<str>, Node<T>)>,
    parameter: Option<Box<Node<T>>>,
    rest: Option<T>,
    value: Option<T>,
}

/// One segment of a template.
#[derive(Debug, PartialEq, Eq)]
enum Segment<'t> {
    Fixed(&'t str),
    Suffixed(&'t str),
    Parameter,
    Rest,
}

impl<T> PathTree<T> {
    /// One without templates, which matches nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { root: Node::new() }
    }

    /// The place for `template`'s value; it holds a value if the template, up to its parameters' names, was
    /// there before.
    ///
    /// # Errors
    /// [`MalformedTemplate`].
    pub fn entry(&mut self, template: &str) -> Result<&mut Option<T>, MalformedTemplate> {
        let segments = template.strip_prefix('/').ok_or(MalformedTemplate::NotAbsolute)?;
        self.root.entry(segments)
    }

    /// What was stored for the template that `path` (without its query) matches.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&T> {
        self.root.find(Some(path.strip_prefix('/')?))
    }
}

impl<T> Default for PathTree<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Node<T> {
    const fn new() -> Self {
        Self { fixed: Vec::new(), suffixed: Vec::new(), parameter: None, rest: None, value: None }
    }

    /// `segments` is what remains of the path; `None` after the last segment.
    fn find(&self, segments: Option<&str>) -> Option<&T> {
        let Some(segments) = segments else { return self.value.as_ref() };
        let (segment, others) = split(segments);
        if segment.is_empty() {
            return None;
        }
        self.fixed_child(segment)
            .and_then(|child| child.find(others))
            .or_else(|| self.find_parameter(segment, others))
            .or_else(|| self.rest.as_ref().filter(|_| segments.split('/').all(|s| !s.is_empty())))
    }

    fn find_parameter(&self, segment: &str, others: Option<&str>) -> Option<&T> {
        if self.fixed.iter().any(|(fixed, _)| is_look_alike(segment, fixed)) {
            return None;
        }
        match self.suffixed.iter().find(|(suffix, _)| ends_alike(segment, suffix)) {
            Some((suffix, _)) if !segment.ends_with(&**suffix) => None,
            Some((suffix, _)) if suffix.len() == segment.len() => None,
            Some((_, child)) => child.find(others),
            None => self.parameter.as_ref()?.find(others),
        }
    }

    fn fixed_child(&self, text: &str) -> Option<&Self> {
        let index = self.fixed.binary_search_by(|(fixed, _)| (**fixed).cmp(text)).ok()?;
        self.fixed.get(index).map(|(_, child)| child)
    }

    fn entry(&mut self, segments: &str) -> Result<&mut Option<T>, MalformedTemplate> {
        let (segment, others) = split(segments);
        let child = match Segment::parse(segment)? {
            Segment::Fixed(text) => {
                let index = match self.fixed.binary_search_by(|(fixed, _)| (**fixed).cmp(text)) {
                    Ok(index) => index,
                    Err(index) => {
                        self.fixed.insert(index, (text.into(), Self::new()));
                        index
                    }
                };
                &mut self.fixed[index].1
            }
            Segment::Suffixed(suffix) => {
                let known = self.suffixed.iter().position(|(s, _)| &**s == suffix);
                let index = known.unwrap_or_else(|| {
                    self.suffixed.push((suffix.into(), Self::new()));
                    self.suffixed.len() - 1
                });
                &mut self.suffixed[index].1
            }
            Segment::Parameter => self.parameter.get_or_insert_with(|| Box::new(Self::new())),
            Segment::Rest if others.is_none() => return Ok(&mut self.rest),
            Segment::Rest => return Err(MalformedTemplate::Braces),
        };
        match others {
            Some(others) => child.entry(others),
            None => Ok(&mut child.value),
        }
    }
}

impl<'t> Segment<'t> {
    fn parse(segment: &'t str) -> Result<Self, MalformedTemplate> {
        let braces = ['{', '}'];
        if segment.is_empty() {
            return Err(MalformedTemplate::EmptySegment);
        }
        if !segment.contains(braces) {
            return Ok(Self::Fixed(segment));
        }
        let inside = segment.strip_prefix('{').and_then(|open| open.split_once('}'));
        let (name, suffix) = inside.ok_or(MalformedTemplate::Braces)?;
        let (name, rest) = name.strip_prefix('*').map_or((name, false), |name| (name, true));
        if name.is_empty() || name.contains(braces) || suffix.contains(braces) {
            return Err(MalformedTemplate::Braces);
        }
        match (rest, suffix) {
            (false, "") => Ok(Self::Parameter),
            (false, suffix) => Ok(Self::Suffixed(suffix)),
            (true, "") => Ok(Self::Rest),
            (true, _) => Err(MalformedTemplate::Braces),
        }
    }
}

/// Whether a lax server could take `segment` for `fixed`: in another case, or with `;x`, `.json`, `%20` behind it.
/// The text itself is none.
fn is_look_alike(segment: &str, fixed: &str) -> bool {
    let Some((start, behind)) = segment.split_at_checked(fixed.len()) else { return false };
    start.eq_ignore_ascii_case(fixed) && segment != fixed && !continues(behind)
}

/// Whether a lax server could say that `segment` ends in `suffix`: in any case, or with something behind it.
fn ends_alike(segment: &str, suffix: &str) -> bool {
    let starts = 0..segment.len();
    starts
        .filter_map(|at| segment.get(at..)?.split_at_checked(suffix.len()))
        .any(|(found, behind)| found.eq_ignore_ascii_case(suffix) && !continues(behind))
}

/// Whether a name goes on here, so that it is a longer one.
fn continues(behind: &str) -> bool {
    behind.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '-' || next == '_')
}

/// The first segment, and the others if a slash follows.
fn split(segments: &str) -> (&str, Option<&str>) {
    match segments.split_once('/') {
        Some((segment, others)) => (segment, Some(others)),
        None => (segments, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(templates: &[&'static str]) -> PathTree<&'static str> {
        let mut tree = PathTree::new();
        for &template in templates {
            assert_eq!(tree.entry(template).unwrap().replace(template), None, "{template} is there twice");
        }
        tree
    }

    #[test]
    fn fixed_text_beats_a_parameter_and_steps_back_where_it_leads_nowhere() {
        let tree = tree(&["/i/favorites", "/i/{code}", "/i/{code}/credentials"]);
        assert_eq!(tree.find("/i/favorites"), Some(&"/i/favorites"));
        assert_eq!(tree.find("/i/favorites2"), Some(&"/i/{code}"));
        assert_eq!(tree.find("/i/favorites/credentials"), Some(&"/i/{code}/credentials"));
        assert_eq!(tree.find("/i/favorites/other"), None);
    }

    #[test]
    fn what_could_be_taken_for_fixed_text_is_no_parameter() {
        let tree = tree(&["/i/favorites", "/i/{code}", "/i/{code}/credentials"]);
        for code in ["Favorites", "FAVORITES", "favorites;x", "favorites.json", "favorites%3Fx", "favorites~"]
        {
            assert_eq!(tree.find(&format!("/i/{code}")), None, "{code}");
            assert_eq!(tree.find(&format!("/i/{code}/credentials")), None, "{code}");
        }
        for code in
            ["favorites2", "favorites-x", "favorites_x", "favorite", "my.favorites", "xFavorites", "ü"]
        {
            assert_eq!(tree.find(&format!("/i/{code}")), Some(&"/i/{code}"), "{code}");
        }
    }

    #[test]
    fn a_suffix_is_told_from_the_plain_parameter() {
        let tree = tree(&["/s/{s}", "/s/{s}.pdf"]);
        assert_eq!(tree.find("/s/a.pdf"), Some(&"/s/{s}.pdf"));
        assert_eq!(tree.find("/s/a%2Fb.pdf"), Some(&"/s/{s}.pdf"));
        assert_eq!(tree.find("/s/a.pdfx"), Some(&"/s/{s}"));
        assert_eq!(tree.find("/s/a.pdf.pdf"), Some(&"/s/{s}.pdf"));
        for neither in ["/s/.pdf", "/s/a.PDF", "/s/a.pdf;x", "/s/a.pdf%20", "/s/a.pdf.json", "/s/.PDF"] {
            assert_eq!(tree.find(neither), None, "{neither}");
        }
    }

    #[test]
    fn a_parameter_is_one_segment_that_is_not_empty() {
        let tree = tree(&["/u/{u}/m", "/u/{u}"]);
        assert_eq!(tree.find("/u/a%2Fm/m"), Some(&"/u/{u}/m"));
        for other in
            ["", "u/a", "/", "//u/a", "/u", "/u/", "/u//", "/u//m", "/u/a/", "/u/a/m/", "/U/a", "/u/a/M"]
        {
            assert_eq!(tree.find(other), None, "{other}");
        }
    }

    #[test]
    fn the_rest_is_one_segment_or_more_and_none_of_them_is_empty() {
        let tree = tree(&["/r/fixed/x", "/r/{*rest}"]);
        assert_eq!(tree.find("/r/fixed/x"), Some(&"/r/fixed/x"));
        for path in ["/r/a", "/r/a/b", "/r/fixed", "/r/fixed/y"] {
            assert_eq!(tree.find(path), Some(&"/r/{*rest}"), "{path}");
        }
        for path in ["/r", "/r/", "/r/a/", "/r/a//b", "/r//a"] {
            assert_eq!(tree.find(path), None, "{path}");
        }
    }

    #[test]
    fn malformed_templates_are_refused() {
        use MalformedTemplate::{Braces, EmptySegment, NotAbsolute};
        for (template, fault) in [
            ("u/{u}", NotAbsolute),
            ("", NotAbsolute),
            ("/", EmptySegment),
            ("/u//x", EmptySegment),
            ("/u/", EmptySegment),
            ("/u/{}", Braces),
            ("/u/{*}", Braces),
            ("/u/{u", Braces),
            ("/u/u}", Braces),
            ("/u/x{u}", Braces),
            ("/u/{a}{b}", Braces),
            ("/u/{*rest}/x", Braces),
            ("/u/{*rest}.pdf", Braces),
        ] {
            assert_eq!(PathTree::<()>::new().entry(template), Err(fault), "{template}");
        }
    }
}
