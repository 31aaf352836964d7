//! Where a form may begin: in go the beginnings of all forms, all of one length, and a text; out come the places.
//!
//! A long text and few beginnings go to aho-corasick, which passes over it with Teddy (vector instructions). Teddy
//! takes 64 beginnings at most, which is four or five secrets; the automaton that comes after it costs twenty
//! instructions a byte and more with every secret, and on a header's value its set-up costs more than the search. All else
//! goes through a filter whose cost does not grow: every third place of a text is looked at, where four bytes are
//! part of any beginning that covers them, and their hash says whether one may.
//!
//! What must never happen: a beginning is passed over. The filter may only err to the other side.

use aho_corasick::{AhoCorasick, Input, MatchKind};
use zeroize::Zeroizing;

use super::encodings::FORM_BYTES_MIN;

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

impl Finder {
    /// For `beginnings`, sorted, each once. `None` without any.
    #[expect(clippy::expect_used, reason = "fails at 2^31 states, and gets a few hundred")]
    pub(super) fn new(beginnings: &[Beginning]) -> Option<Self> {
        if beginnings.is_empty() {
            return None;
        }
        let mut starts = [0; 4];
        beginnings.iter().for_each(|[first, ..]| starts[usize::from(first >> 6)] |= 1 << (first & 63));
        let teddy = (beginnings.len() <= TEDDY_PATTERNS_MAX).then(|| {
            // Teddy is only used with leftmost semantics.
            let builder = AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).clone();
            builder.build(beginnings).expect("far fewer states than 2^31")
        });
        Some(Self { filter: Filter::new(beginnings), teddy, starts })
    }

    /// Whether a beginning starts with `byte`.
    pub(super) fn starts_with(&self, byte: u8) -> bool {
        self.starts[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    /// The first place in `text`, not before `from`, where a beginning is, and which one.
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

/// How many bytes are hashed at once.
const GRAM_BYTES: usize = 4;

/// How far apart they are looked at: of so many neighbouring grams, all in one beginning, one is looked at.
const STRIDE: usize = FORM_BYTES_MIN - GRAM_BYTES + 1;

/// Bits for each entry. With 64, one place in 64 is looked at in vain.
const BITS_PER_ENTRY: usize = 64;

/// A set of hashes, and what they were made from.
#[derive(Clone)]
struct Filter {
    /// A bit for each hash of a gram, and of a whole beginning.
    bits: Zeroizing<Vec<u64>>,
    /// From a hash of 64 bits to the number of a bit.
    shift: u32,
    beginnings: Zeroizing<Vec<Beginning>>,
}

impl Filter {
    fn new(beginnings: &[Beginning]) -> Self {
        let bits = (beginnings.len() * (STRIDE + 1) * BITS_PER_ENTRY).next_power_of_two().max(64);
        let mut filter = Self {
            bits: Zeroizing::new(vec![0; bits / 64]),
            shift: 64 - bits.trailing_zeros(),
            beginnings: Zeroizing::new(beginnings.to_vec()),
        };
        for beginning in beginnings {
            filter.insert(whole(beginning));
            beginning.windows(GRAM_BYTES).for_each(|gram| filter.insert(number(gram)));
        }
        filter
    }

    fn find(&self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        let mut at = from.next_multiple_of(STRIDE);
        while let Some(gram) = text.get(at..at + GRAM_BYTES) {
            if self.may_have(number(gram))
                && let Some(found) = self.around(text, from.max((at + 1).saturating_sub(STRIDE)), at)
            {
                return Some(found);
            }
            at += STRIDE;
        }
        None
    }

    /// Looks for a beginning that starts at one of the places `first..=last`.
    fn around(&self, text: &[u8], first: usize, last: usize) -> Option<(usize, usize)> {
        (first..=last).find_map(|start| {
            let window = text.get(start..)?.first_chunk::<FORM_BYTES_MIN>()?;
            if !self.may_have(whole(window)) {
                return None;
            }
            Some((start, self.beginnings.binary_search(window).ok()?))
        })
    }

    fn may_have(&self, key: u64) -> bool {
        let bit = self.bit(key);
        self.bits.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    fn insert(&mut self, key: u64) {
        let bit = self.bit(key);
        if let Some(word) = self.bits.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }

    /// Multiplicative hashing: the upper bits depend on every byte.
    fn bit(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }
}

/// A gram as a number.
fn number(gram: &[u8]) -> u64 {
    gram.first_chunk().map_or(0, |gram| u32::from_le_bytes(*gram).into())
}

/// A whole beginning as a number, which is none of a gram.
fn whole(beginning: &Beginning) -> u64 {
    beginning.iter().fold(1, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What both kinds of finder are to find.
    fn plainly(beginnings: &[Beginning], text: &[u8], from: usize) -> Option<(usize, usize)> {
        (from..text.len()).find_map(|start| {
            let found = beginnings.iter().position(|beginning| text[start..].starts_with(beginning))?;
            Some((start, found))
        })
    }

    proptest! {
        /// Three letters, so that beginnings are everywhere, also at the edges and in each other.
        #[test]
        fn neither_kind_passes_over_a_beginning(
            beginnings in prop::collection::btree_set(prop::array::uniform6(b'a'..=b'c'), 1..200),
            text in prop::collection::vec(b'a'..=b'c', 0..300),
            from in 0usize..330,
        ) {
            let beginnings: Vec<Beginning> = beginnings.into_iter().collect();
            let expected = plainly(&beginnings, &text, from.min(text.len()));
            let from = from.min(text.len());
            prop_assert_eq!(Finder::new(&beginnings).unwrap().find(&text, from), expected);
            prop_assert_eq!(Filter::new(&beginnings).find(&text, from), expected);
        }
    }

    #[test]
    fn teddy_takes_64_beginnings_and_no_more() {
        let beginnings = |count: u32| -> Vec<Beginning> {
            (0..count).map(|n| format!("{n:06}").into_bytes().try_into().unwrap()).collect()
        };
        assert!(Finder::new(&[]).is_none());
        assert!(Finder::new(&beginnings(64)).unwrap().teddy.is_some());
        assert!(Finder::new(&beginnings(65)).unwrap().teddy.is_none());
    }

    #[test]
    fn a_clean_text_is_rarely_looked_at_twice() {
        let beginnings: Vec<Beginning> = (0..10_000_u64)
            .map(|n| *n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes().first_chunk().unwrap())
            .collect();
        let filter = Filter::new(&beginnings);
        let text: Vec<u8> =
            (0..30_000_u64).map(|n| (n.wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 56) as u8).collect();
        let vain = text.chunks_exact(GRAM_BYTES).filter(|gram| filter.may_have(number(gram))).count();
        assert!(vain < text.len() / GRAM_BYTES / 20, "{vain}");
    }
}
