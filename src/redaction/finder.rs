//! Where a form may begin: in go all forms, by their beginnings, which are of one length, and a text; out come places.
//!
//! A long text and few beginnings go to aho-corasick, which passes over it with Teddy (vector instructions). Teddy
//! takes 64 beginnings at most, which is four or five secrets; the automaton that comes after it costs twenty
//! instructions a byte and more with every secret, and on a header's value its set-up costs more than the search. All else
//! goes through a filter whose cost does not grow: a few bytes of the text are looked at, far enough apart that every form
//! has one such gram in it, and their hash says whether they are part of a form. How far apart, the shortest form decides.
//!
//! What must never happen: a form is passed over, or the beginning of one at the text's end. Else the filter may err.

use std::{collections::BTreeSet, ops::Range};

use aho_corasick::{AhoCorasick, Input, MatchKind};
use zeroize::Zeroizing;

use super::{
    beginning,
    encodings::{FORM_BYTES_MIN, Form},
};
use crate::tree::tree;

/// The first bytes of a form.
pub(super) type Beginning = [u8; FORM_BYTES_MIN];

/// From which length on Teddy is faster than the filter.
const TEDDY_BYTES_MIN: usize = 128;

/// How many patterns aho-corasick takes into Teddy.
const TEDDY_PATTERNS_MAX: usize = 64;

/// Finds beginnings.
#[derive(Clone)]
pub(super) struct Finder {
    filter: Filter,
    /// For long texts, when there are few beginnings.
    teddy: Option<AhoCorasick>,
    /// A bit for each byte that a beginning starts with.
    starts: [u64; 4],
}

/// In two when there are too many for Teddy: those long enough for wide grams, and the others, which are often few.
pub(super) fn split(forms: Vec<Form>) -> [Vec<Form>; 2] {
    let beginnings: BTreeSet<&[u8]> = tree(forms.iter().map(|form| &form[..FORM_BYTES_MIN]));
    if beginnings.len() <= TEDDY_PATTERNS_MAX {
        return [forms, Vec::new()];
    }
    let (long, short) = forms.into_iter().partition(|form| form.len() >= WINDOW_MIN);
    [long, short]
}

impl Finder {
    /// For `forms`, sorted, in groups by their beginnings. `None` without any.
    #[expect(clippy::expect_used, reason = "fails at 2^31 states, and gets a few hundred")]
    pub(super) fn new(forms: &[Vec<Form>]) -> Option<Self> {
        if forms.is_empty() {
            return None;
        }
        let filter = Filter::new(forms);
        let mut starts = [0; 4];
        filter.beginnings.iter().for_each(|[first, ..]| starts[usize::from(first >> 6)] |= 1 << (first & 63));
        let teddy = (forms.len() <= TEDDY_PATTERNS_MAX).then(|| {
            // Teddy is only used with leftmost semantics.
            let builder = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).clone();
            builder.build(filter.beginnings.iter()).expect("far fewer states than 2^31")
        });
        Some(Self { filter, teddy, starts })
    }

    /// Whether a beginning starts with `byte`.
    pub(super) fn starts_with(&self, byte: u8) -> bool {
        self.starts[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    /// A place in `text`, not before `from`, where a beginning is, and the number of its group. Before it, none of
    /// the forms begins, not even one that goes on behind the text; a mere beginning may have been passed over.
    pub(super) fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        match &self.teddy {
            Some(teddy) if text.len() - from >= TEDDY_BYTES_MIN => {
                let found = teddy.find(Input::new(text).range(from..))?;
                Some((found.start(), found.pattern().as_usize()))
            }
            _ => self.filter.find(text, from),
        }
    }
}

/// How many bytes are hashed at once, when all of a form's window is in the text.
const WIDE: usize = 8;

/// How many, when a form is short or the text ends: part of a beginning.
const NARROW: usize = 4;

/// How much of a form is hashed at most. More would make the set larger than what it saves.
const WINDOW_MAX: usize = 24;

/// From which length on wide grams are worth while: below it, they would be hardly farther apart than narrow ones.
const WINDOW_MIN: usize = 12;

/// Looks at one gram of so many neighbouring ones that every form has one of them in its first bytes.
#[derive(Clone)]
struct Filter {
    /// Grams, and whole beginnings.
    set: Set,
    /// So many first bytes of each form are in `set` as wide grams; `None`: some form is too short.
    window: Option<usize>,
    beginnings: Zeroizing<Vec<Beginning>>,
}

impl Filter {
    fn new(forms: &[Vec<Form>]) -> Self {
        let beginnings: Zeroizing<Vec<Beginning>> =
            Zeroizing::new(forms.iter().map(|group| *beginning(group)).collect());
        let forms = forms.iter().flatten();
        let shortest = forms.clone().map(|form| form.len()).min().unwrap_or_default();
        let window = (shortest >= WINDOW_MIN).then(|| shortest.min(WINDOW_MAX));
        let narrow = beginnings.len() * (1 + stride::<NARROW>(FORM_BYTES_MIN));
        let wide = window.map_or(0, |window| forms.clone().count() * stride::<WIDE>(window));
        let mut set = Set::new(narrow + wide);
        for beginning in beginnings.iter() {
            set.insert(number(beginning));
            beginning.windows(NARROW).for_each(|gram| set.insert(number(gram)));
        }
        for hashed in window.into_iter().flat_map(|window| forms.clone().map(move |form| &form[..window])) {
            hashed.windows(WIDE).for_each(|gram| set.insert(number(gram)));
        }
        Self { set, window, beginnings }
    }

    fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        let wide = self.window.map_or(Err(from), |window| self.pass::<WIDE>(text, from, window));
        wide.or_else(|rest| self.pass::<NARROW>(text, rest, FORM_BYTES_MIN)).ok()
    }

    /// Looks for forms of which `text` has the first `window` bytes, and says how far when there is none. All grams
    /// of those bytes are in `set`.
    fn pass<const GRAM: usize>(
        &self,
        text: &[u8],
        from: usize,
        window: usize,
    ) -> Result<(usize, usize), usize> {
        let mut first = from;
        // The window's last gram is in every window that begins in the same stride.
        while let Some(gram) = text.get(first..first + window).and_then(<[u8]>::last_chunk::<GRAM>) {
            let next = first + stride::<GRAM>(window);
            if self.set.may_have(number(gram))
                && let Some(found) = self.begins(text, first..next)
            {
                return Ok(found);
            }
            first = next;
        }
        Err(first)
    }

    /// Looks for a beginning at each of `places`.
    fn begins(&self, text: &[u8], mut places: Range<usize>) -> Option<(usize, usize)> {
        places.find_map(|start| {
            let beginning = text.get(start..)?.first_chunk::<FORM_BYTES_MIN>()?;
            if !self.set.may_have(number(beginning)) {
                return None;
            }
            Some((start, self.beginnings.binary_search(beginning).ok()?))
        })
    }
}

/// How many grams `window` bytes have, and so how far apart they are looked at.
const fn stride<const GRAM: usize>(window: usize) -> usize {
    window - GRAM + 1
}

/// Up to eight bytes as a number.
fn number(bytes: &[u8]) -> u64 {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

/// A set of numbers that may say yes for one that it has not: two bits of a word for each (a blocked Bloom filter).
#[derive(Clone)]
struct Set {
    words: Zeroizing<Vec<u64>>,
    /// From a hash to the number of a word.
    shift: u32,
}

/// With 16 and two bits for each entry, at most one number in 70 is said to be there in vain.
const BITS_PER_ENTRY: usize = 16;

impl Set {
    fn new(entries: usize) -> Self {
        let words = (entries * BITS_PER_ENTRY).div_ceil(64).next_power_of_two().max(2);
        Self { words: Zeroizing::new(vec![0; words]), shift: 64 - words.trailing_zeros() }
    }

    fn insert(&mut self, number: u64) {
        let hash = hash(number);
        if let Some(word) = self.words.get_mut((hash >> self.shift) as usize) {
            *word |= 1 << (hash >> 38 & 63) | 1 << (hash >> 32 & 63);
        }
    }

    fn may_have(&self, number: u64) -> bool {
        let hash = hash(number);
        let word = self.words.get((hash >> self.shift) as usize);
        word.is_some_and(|word| word >> (hash >> 38 & 63) & word >> (hash >> 32 & 63) & 1 == 1)
    }
}

/// Multiplicative hashing: the upper bits depend on every byte.
fn hash(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use std::iter;

    use proptest::{prelude::*, sample::Index};

    use super::{super::grouped, *};

    fn groups(texts: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<Form>> {
        grouped(texts.into_iter().map(Form::new).collect())
    }

    /// What a finder owes: in order, only places where the beginning of the group is, and of those at least the ones
    /// where a form begins, be it that the text ends in its middle.
    fn assert_finds(
        find: impl Fn(&[u8], usize) -> Option<(usize, usize)>,
        groups: &[Vec<Form>],
        text: &[u8],
        from: usize,
    ) {
        let found = iter::successors(find(text, from), |(start, _)| find(text, start + 1));
        let found: Vec<_> = found.take(text.len() + 1).collect();
        assert!(found.first().is_none_or(|(start, _)| *start >= from));
        assert!(found.is_sorted_by(|one, next| one.0 < next.0));
        for (start, group) in &found {
            assert!(text[*start..].starts_with(&groups[*group][0][..FORM_BYTES_MIN]));
        }
        for start in from..text.len().saturating_sub(FORM_BYTES_MIN - 1) {
            let rest = &text[start..];
            for (number, group) in groups.iter().enumerate() {
                if group.iter().any(|form| rest.starts_with(form) || form.starts_with(rest)) {
                    assert!(found.contains(&(start, number)), "{} at {start}", text.escape_ascii());
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Three letters, so that beginnings are everywhere, also at the edges and in each other; whole and cut forms
        /// between them; and shortest forms that are narrow, wide, and longer than the window.
        #[test]
        fn neither_kind_passes_over_a_form(
            texts in (FORM_BYTES_MIN..WINDOW_MAX + 6).prop_flat_map(|shortest| {
                prop::collection::btree_set(prop::collection::vec(b'a'..=b'c', shortest..shortest + 8), 1..100)
            }),
            parts in prop::collection::vec(
                (any::<Index>(), any::<[Index; 2]>(), prop::collection::vec(b'a'..=b'c', 0..12)), 0..12,
            ),
            from in any::<Index>(),
        ) {
            let texts: Vec<Vec<u8>> = texts.into_iter().collect();
            let part = |(form, cuts, between): &(Index, [Index; 2], Vec<u8>)| {
                let form = form.get(&texts);
                // Whole as often as not.
                let [end, other] = cuts.map(|cut| cut.index(2 * form.len()).min(form.len()));
                [&form[end.min(other) % form.len()..end.max(other)], between].concat()
            };
            let text: Vec<u8> = parts.iter().flat_map(part).collect();
            let (groups, from) = (groups(texts.clone()), from.index(text.len() + 1));
            assert_finds(|text, from| Finder::new(&groups).unwrap().find(text, from), &groups, &text, from);
            assert_finds(|text, from| Filter::new(&groups).find(text, from), &groups, &text, from);
        }
    }

    /// At every place, cut at every length, looked for from everywhere before it.
    #[test]
    fn a_form_of_any_length_is_found_wherever_it_is() {
        for length in FORM_BYTES_MIN..WINDOW_MAX + 4 {
            let form: Vec<u8> = (b'A'..).take(length).collect();
            let groups = groups([form.clone(), (b'A'..).take(WINDOW_MAX + 4).collect()]);
            let filter = Filter::new(&groups);
            assert_eq!(filter.window.is_some(), length >= WINDOW_MIN);
            for start in 0..2 * WINDOW_MAX {
                let text = [vec![b'-'; start], form.clone(), vec![b'-'; 2 * WINDOW_MAX]].concat();
                for end in start + FORM_BYTES_MIN..text.len() {
                    for from in 0..=start {
                        let found = filter.find(&text[..end], from);
                        assert_eq!(found, Some((start, 0)), "{length} at {start} of {end} from {from}");
                    }
                    assert_eq!(filter.find(&text[..end], start + 1), None);
                }
                assert_eq!(filter.find(&text[..start + FORM_BYTES_MIN - 1], 0), None);
            }
        }
    }

    #[test]
    fn teddy_takes_64_beginnings_and_no_more() {
        let finder = |count: u32| Finder::new(&groups((0..count).map(|n| format!("{n:06}").into_bytes())));
        assert!(finder(0).is_none());
        assert!(finder(64).unwrap().teddy.is_some());
        assert!(finder(65).unwrap().teddy.is_none());
    }

    #[test]
    fn a_clean_text_is_rarely_looked_at_twice() {
        for length in [FORM_BYTES_MIN, WINDOW_MIN, WINDOW_MAX] {
            let digits = |n: u64| format!("{:016x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).repeat(2);
            let filter = Filter::new(&groups((1..10_000).map(|n| digits(n).as_bytes()[..length].to_vec())));
            let vain = (0..30_000_u64).filter(|n| filter.set.may_have(n.wrapping_mul(0xD6E8_FEB8_6659_FD93)));
            let vain = vain.count();
            assert!(vain < 30_000 / 50, "{length}: {vain}");
        }
    }
}
