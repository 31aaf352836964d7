//! Masking by value: what a secret looks like is found and overwritten, byte for byte, with `*`.
//!
//! In go the secrets that could be in a text and the text: an upstream's answer ([`body`]) or whatever a log
//! or an error is about to print ([`held()`]). Out comes the same number of bytes, so a `Content-Length`
//! stays true. What must never happen: part of a form of a secret is left beside a mask (but for the few
//! bits that `encodings` names), or a text without secrets costs more than one vectorised pass.
//!
//! Two steps. The first six bytes of every form go to a `finder`, which passes over clean text; where one is
//! found, whole forms are compared. So only beginnings are copied into aho-corasick's automaton, which cannot be
//! wiped, and the rest is wiped on drop. All beginnings are of one length:
//! every place where a form could start is visited, and forms that overlap are all found.

use std::{fmt, ops::Range, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::vault::secret::Secret;
pub(crate) use encodings::{FORM_BYTES_MIN, Form};
use finder::{Beginning, Finder};

pub mod body;
mod encodings;
mod finder;
mod held;
mod lookalike;

pub use held::{Held, held};
pub use lookalike::looks_secret;

/// What each byte of a secret becomes.
const MASK: u8 = b'*';

/// Finds a set of secrets in all their forms. Immutable; made once for each snapshot's credential.
#[derive(Clone)]
pub struct Masker {
    /// One for all forms, or one for long forms and one for short ones; none without secrets, and more where maskers were
    /// joined.
    searches: Vec<Arc<Search>>,
}

/// Finds some of the forms.
struct Search {
    /// Finds the first bytes of forms.
    finder: Finder,
    /// For each beginning that `finder` knows: the forms that begin with it.
    forms: Vec<Vec<Form>>,
}

/// What a text holds.
#[derive(Debug, Default)]
struct Scan {
    /// Where forms are, in order; those that overlap are one.
    hits: Vec<Range<usize>>,
    /// From here to the end of the text could be the beginning of a form; at least six bytes.
    open: Option<usize>,
}

impl Masker {
    /// Finds each of `secrets`; without any it masks nothing.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        Self::of(secrets.into_iter().flat_map(encodings::forms).collect())
    }

    /// Finds each of `forms`, of which none is shorter than [`FORM_BYTES_MIN`].
    pub(crate) fn of(forms: Vec<Form>) -> Self {
        // A few short secrets among many must not make the search for all of them as slow as theirs.
        let searches = finder::split(forms).into_iter().filter_map(|forms| {
            let forms = grouped(forms);
            Some(Arc::new(Search { finder: Finder::new(&forms)?, forms }))
        });
        Self { searches: searches.collect() }
    }

    /// Finds whatever one of `maskers` finds, without compiling anything.
    pub(crate) fn joined<'a>(maskers: impl IntoIterator<Item = &'a Self>) -> Self {
        Self { searches: maskers.into_iter().flat_map(|one| one.searches.iter().cloned()).collect() }
    }

    /// Masks nothing: for a test that shows that its search for a secret finds one where masking is left out.
    #[doc(hidden)]
    #[must_use]
    pub fn left_out_to_prove_that_a_test_finds_the_secret() -> Self {
        Self::new([])
    }

    /// Overwrites every form of every secret and says how many places were hit; forms that overlap are one.
    pub fn mask(&self, bytes: &mut [u8]) -> usize {
        let hits = self.scan(bytes, 0).hits;
        for hit in &hits {
            bytes[hit.clone()].fill(MASK);
        }
        hits.len()
    }

    /// Whether a form of a secret is there.
    #[must_use]
    pub fn is_hit(&self, bytes: &[u8]) -> bool {
        !self.scan(bytes, 0).hits.is_empty()
    }

    /// Visits every place where a form may begin. The first `masked` bytes count as a hit already.
    /// It allocates only when something is found.
    fn scan(&self, bytes: &[u8], masked: usize) -> Scan {
        let mut scan = Scan::default();
        if masked > 0 {
            scan.hits.push(0..masked);
        }
        self.searches.iter().for_each(|search| search.scan(bytes, &mut scan));
        if self.searches.len() > 1 {
            scan.put_in_order();
        }
        scan
    }

    /// Where the longest end of `bytes` begins that could be the beginning of a form, for ends too short for `scan`.
    fn open_end(&self, bytes: &[u8]) -> Option<usize> {
        let from = bytes.len().saturating_sub(FORM_BYTES_MIN - 1);
        (from..bytes.len())
            .find(|start| self.searches.iter().any(|search| search.may_begin(&bytes[*start..])))
    }
}

impl Search {
    fn scan(&self, bytes: &[u8], scan: &mut Scan) {
        let mut from = 0;
        while let Some((start, group)) = self.finder.find(bytes, from) {
            let rest = &bytes[start..];
            for form in &self.forms[group] {
                if rest.starts_with(form) {
                    scan.add(start..start + form.len());
                } else if form.starts_with(rest) {
                    scan.open = Some(scan.open.map_or(start, |open| open.min(start)));
                }
            }
            from = start + 1;
        }
    }

    /// Whether a form begins with `end`, which is shorter than any and not empty.
    fn may_begin(&self, end: &[u8]) -> bool {
        // The first byte decides nearly always.
        self.finder.starts_with(end[0]) && self.forms.iter().any(|group| beginning(group).starts_with(end))
    }
}

/// Each once, sorted, and those together that begin alike.
fn grouped(mut all: Vec<Form>) -> Vec<Vec<Form>> {
    all.sort_unstable_by(|a, b| a.as_slice().cmp(b));
    all.dedup();
    let mut forms: Vec<Vec<Form>> = Vec::new();
    for form in all {
        match forms.last_mut() {
            Some(group) if form.starts_with(beginning(group)) => group.push(form),
            _ => forms.push(vec![form]),
        }
    }
    forms
}

/// The first bytes that all forms of a group have; a group is never empty, and no form is shorter.
#[expect(clippy::expect_used, reason = "forms are at least that long")]
fn beginning(group: &[Form]) -> &Beginning {
    group[0].first_chunk().expect("a form")
}

impl Scan {
    fn add(&mut self, hit: Range<usize>) {
        match self.hits.last_mut() {
            Some(last) if last.contains(&hit.start) => last.end = last.end.max(hit.end),
            _ => self.hits.push(hit),
        }
    }

    /// After a second search, whose hits are behind those of the first.
    fn put_in_order(&mut self) {
        self.hits.sort_unstable_by_key(|hit| hit.start);
        self.hits.dedup_by(|next, last| {
            let is_one = last.contains(&next.start);
            last.end = if is_one { last.end.max(next.end) } else { last.end };
            is_one
        });
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masker(hidden)")
    }
}

/// Masks the values of `headers` and says how many places were hit. A field whose name holds a secret is left out, since a
/// name is all that it is; it counts as one.
pub fn mask_headers(masker: &Masker, headers: &mut HeaderMap) -> usize {
    let told: Vec<HeaderName> =
        headers.keys().filter(|name| masker.is_hit(name.as_str().as_bytes())).cloned().collect();
    let mut hits = told.len();
    for name in told {
        headers.remove(name);
    }
    for value in headers.values_mut() {
        if !masker.is_hit(value.as_bytes()) {
            continue;
        }
        let mut bytes = value.as_bytes().to_vec();
        hits += masker.mask(&mut bytes);
        // A value stays one when bytes of it become `*`; were it not so, an empty one is the safe answer.
        let mut masked =
            HeaderValue::from_maybe_shared(bytes::Bytes::from(bytes)).unwrap_or(HeaderValue::from_static(""));
        masked.set_sensitive(value.is_sensitive());
        *value = masked;
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "9f3Kq7Zt20xLmW8b";

    fn secret(text: &str) -> Secret {
        Secret::new(text.into()).unwrap()
    }

    fn masked(masker: &Masker, text: &str) -> (String, usize) {
        let mut bytes = text.as_bytes().to_vec();
        let hits = masker.mask(&mut bytes);
        assert_eq!(bytes.len(), text.len());
        assert_eq!(hits > 0, masker.is_hit(text.as_bytes()));
        assert!(!masker.is_hit(&bytes), "{}", String::from_utf8_lossy(&bytes));
        (String::from_utf8(bytes).unwrap(), hits)
    }

    #[test]
    fn a_secret_becomes_as_many_asterisks_and_the_rest_stays() {
        let masker = Masker::new([&secret(CANARY)]);
        let (text, hits) = masked(&masker, &format!("{{\"key\":\"{CANARY}\",\"again\":\"{CANARY}\"}}"));
        assert_eq!(text, "{\"key\":\"****************\",\"again\":\"****************\"}");
        assert_eq!(hits, 2);
    }

    #[test]
    fn near_misses_stay_as_they_are() {
        let masker = Masker::new([&secret(CANARY)]);
        for text in
            ["", "9f3Kq7", "9f3Kq7Zt20xLmW8", "9F3KQ7ZT20XLMW8B", "f3Kq7Zt20xLmW8b", "9f3Kq7 Zt20xLmW8b"]
        {
            assert_eq!(masked(&masker, text), (text.to_owned(), 0));
        }
    }

    #[test]
    fn every_form_is_masked_by_its_own_masker_and_by_no_other() {
        let odd = secret("a\"b\\c/d+e f&g<h'ü=~!");
        let (masker, other) = (Masker::new([&odd]), Masker::new([&secret(CANARY)]));
        for form in encodings::forms(&odd) {
            let text = [b"<<", form.as_slice(), b">>"].concat();
            let mut bytes = text.clone();
            assert_eq!(other.mask(&mut bytes), 0);
            assert_eq!(bytes, text);
            assert!(masker.mask(&mut bytes) > 0);
            assert_eq!(bytes, ["<<", &"*".repeat(form.len()), ">>"].concat().as_bytes());
        }
    }

    #[test]
    fn overlapping_secrets_leave_nothing_of_either() {
        let masker = Masker::new([&secret("abcdefghij"), &secret("ghijklmnop"), &secret("cdefghijkl")]);
        assert_eq!(masked(&masker, "-abcdefghijklmnop-"), ("-****************-".into(), 1));
        assert_eq!(masked(&masker, "-abcdefghij-ghijklmnop-"), ("-**********-**********-".into(), 2));
        assert_eq!(masked(&masker, "-ghijklmnopabcdefghij-"), ("-********************-".into(), 2));
    }

    #[test]
    fn the_longer_of_two_secrets_is_masked_whole() {
        let masker = Masker::new([&secret("abcdefgh"), &secret("abcdefghijkl")]);
        assert_eq!(masked(&masker, "abcdefghijklm").0, "************m");
        assert_eq!(masked(&masker, "abcdefghijk").0, "********ijk");
    }

    #[test]
    fn a_secret_that_repeats_itself_is_masked_whole() {
        let masker = Masker::new([&secret("aaaaaaaa")]);
        assert_eq!(masked(&masker, "baaaaaaaaaaab").0, "b***********b");
        assert_eq!(masked(&masker, "baaaaaaab").0, "baaaaaaab");
    }

    #[test]
    fn many_secrets_are_all_found() {
        let secrets: Vec<Secret> = (0..200).map(|n| secret(&format!("key-{n:03}-{:x}", n * 7919))).collect();
        let masker = Masker::new(&secrets);
        for n in 0..200 {
            assert_eq!(masked(&masker, &format!("key-{n:03}-{:x}", n * 7919)).1, 1);
        }
        assert_eq!(masked(&masker, "key-200-x").1, 0);
    }

    #[test]
    fn without_secrets_nothing_is_masked() {
        let masker = Masker::left_out_to_prove_that_a_test_finds_the_secret();
        assert_eq!(masked(&masker, CANARY), (CANARY.to_owned(), 0));
    }

    #[test]
    fn header_values_are_masked_and_stay_sensitive() {
        let masker = Masker::new([&secret(CANARY)]);
        let mut headers = HeaderMap::new();
        headers.append("x-echo", HeaderValue::from_static("plain"));
        headers.append("x-echo", HeaderValue::from_str(&format!("API_KEY {CANARY}")).unwrap());
        headers.insert("location", HeaderValue::from_str(&format!("/?api_key={CANARY}&a=b")).unwrap());
        headers.get_mut("location").unwrap().set_sensitive(true);
        assert_eq!(mask_headers(&masker, &mut headers), 2);
        let values: Vec<_> = headers.get_all("x-echo").iter().collect();
        assert_eq!(values, ["plain", "API_KEY ****************"]);
        assert_eq!(headers["location"], "/?api_key=****************&a=b");
        assert!(headers["location"].is_sensitive());
        assert_eq!(mask_headers(&masker, &mut headers), 0);
    }

    #[test]
    fn a_field_whose_name_is_a_secret_is_left_out_and_a_near_miss_is_not() {
        let masker = Masker::new([&secret(CANARY)]);
        let mut headers = HeaderMap::new();
        for name in ["x-9f3Kq7Zt20xLmW8b", "x-9f3Kq7Zt20xLmW8", "x-other"] {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static("1"));
        }
        assert_eq!(mask_headers(&masker, &mut headers), 1);
        assert!(headers.contains_key("x-9f3kq7zt20xlmw8") && headers.contains_key("x-other"));
        assert_eq!(headers.len(), 2);
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Masker::new([&secret(CANARY)])), "Masker(hidden)");
    }
}
