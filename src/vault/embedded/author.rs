//! Who may write a vault: whoever knows its author key. age proves no author, so this does.
//!
//! The author key is 32 random bytes inside the sealed document, so everybody who can open a vault can
//! also write it, and nobody else can. From it come three MAC keys (HKDF-SHA-256, salt `mxgate vault`):
//! one for the document, one for the last-seen file, one that appoints a successor. The successor is
//! appointed when a recipient is removed: that one knows the old key. The document keeps the old keys, each
//! with the MAC over the next, so that a reader who accepted an old one can follow to the present one.
//!
//! That the first key is genuine, no key can say of itself: for that there is each recipient's proof
//! (see [`super::member`]).

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    constant_time, digest,
    hkdf::{self, Prk},
    hmac, rand,
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use zeroize::Zeroizing;

/// The longest chain of authors. The oldest go first: who accepted none of the rest must accept again.
pub(super) const AUTHORS_MAX: usize = 1000;

const KEY_BYTES: usize = 32;

/// HKDF or the random numbers failed inside aws-lc.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
#[error("the cryptography library refused to make a key")]
pub struct NoKey;

/// Names an author without giving its key away: half of a SHA-256. It may be shown, and is written down to
/// tell a genuine vault by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct AuthorId([u8; 16]);

/// A text that names no author.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an author is 32 hexadecimal digits, as `mxgate vault recipients` shows it")]
pub struct NotAnAuthor;

impl fmt::Display for AuthorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, pair) in self.0.chunks(2).enumerate() {
            let separator = if index == 0 { "" } else { "-" };
            write!(f, "{separator}{:02x}{:02x}", pair[0], pair[1])?;
        }
        Ok(())
    }
}

impl fmt::Debug for AuthorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for AuthorId {
    type Err = NotAnAuthor;

    fn from_str(text: &str) -> Result<Self, NotAnAuthor> {
        let digits: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
        if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAnAuthor);
        }
        let number = u128::from_str_radix(&digits, 16).map_err(|_| NotAnAuthor)?;
        Ok(Self(number.to_be_bytes()))
    }
}

/// One author key and what follows from it.
#[derive(Clone)]
pub(super) struct Author {
    key: Zeroizing<[u8; KEY_BYTES]>,
    id: AuthorId,
    document: hmac::Key,
    generation: hmac::Key,
    successor: hmac::Key,
    aside: hmac::Key,
}

impl Author {
    pub(super) fn generate() -> Result<Self, NoKey> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(&mut *key).map_err(|_| NoKey)?;
        Self::new(key)
    }

    fn new(key: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, NoKey> {
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"mxgate vault").extract(&*key);
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"mxgate vault author");
        hash.update(&*key);
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finish().as_ref()[..16]);
        Ok(Self {
            id: AuthorId(id),
            document: mac_key(&derived, b"author: document mac")?,
            generation: mac_key(&derived, b"author: generation mac")?,
            successor: mac_key(&derived, b"author: successor mac")?,
            aside: mac_key(&derived, b"author: recovery file mac")?,
            key,
        })
    }

    pub(super) fn id(&self) -> AuthorId {
        self.id
    }

    pub(super) fn document_mac(&self) -> &hmac::Key {
        &self.document
    }

    pub(super) fn generation_mac(&self) -> &hmac::Key {
        &self.generation
    }

    pub(super) fn aside_mac(&self) -> &hmac::Key {
        &self.aside
    }

    /// What an identity says of this author: nobody else can, and it says it of no other.
    pub(super) fn proof(&self, identity_mac: &hmac::Key) -> hmac::Tag {
        hmac::sign(identity_mac, &*self.key)
    }

    pub(super) fn is_proven(&self, identity_mac: &hmac::Key, proof: &[u8]) -> bool {
        hmac::verify(identity_mac, &*self.key, proof).is_ok()
    }

    fn appoints(&self, next: &Self) -> hmac::Tag {
        hmac::sign(&self.successor, &*next.key)
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Author({})", self.id)
    }
}

pub(super) fn mac_key(derived: &Prk, info: &[u8]) -> Result<hmac::Key, NoKey> {
    derived.expand(&[info], hmac::HMAC_SHA256).map(hmac::Key::from).map_err(|_| NoKey)
}

/// Every author that a vault has had, the present one last. A vault of format 1 has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Authors(Vec<Author>);

/// One author as it is written: its key, and its MAC over the next one's. Base64.
pub(super) type Written = (Zeroizing<String>, Option<String>);

impl Authors {
    pub(super) fn present(&self) -> Option<&Author> {
        self.0.last()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Author> {
        self.0.iter()
    }

    pub(super) fn find(&self, id: AuthorId) -> Option<&Author> {
        self.0.iter().find(|author| author.id == id)
    }

    /// Makes a new author, appointed by the present one.
    pub(super) fn renew(&mut self) -> Result<(), NoKey> {
        self.0.push(Author::generate()?);
        let surplus = self.0.len().saturating_sub(AUTHORS_MAX);
        self.0.drain(..surplus);
        Ok(())
    }

    /// The present author, made first where there is none.
    pub(super) fn ensure(&mut self) -> Result<&Author, NoKey> {
        if self.0.is_empty() {
            self.renew()?;
        }
        self.present().ok_or(NoKey)
    }

    /// As they are written; see [`Authors::read`].
    pub(super) fn written(&self) -> Vec<Written> {
        let next = self.0.iter().skip(1).map(Some).chain([None]);
        let one = |(author, next): (&Author, Option<&Author>)| {
            // One allocation: growing would leave an unwiped copy.
            let mut key = Zeroizing::new(String::with_capacity(KEY_BYTES.div_ceil(3) * 4));
            BASE64.encode_string(author.key.as_slice(), &mut key);
            (key, next.map(|next| BASE64.encode(author.appoints(next))))
        };
        self.0.iter().zip(next).map(one).collect()
    }

    /// Reads keys and successors. `None` unless each appoints the next, and the last none.
    pub(super) fn read<'a>(
        written: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<Option<Self>, NoKey> {
        let mut authors: Vec<Author> = Vec::new();
        let mut appointed: Option<&str> = None;
        for (key, successor) in written {
            let Some(key) = decode_key(key) else { return Ok(None) };
            let author = Author::new(key)?;
            if authors.len() == AUTHORS_MAX
                || authors.last().is_some_and(|last| !follows(last, appointed, &author))
            {
                return Ok(None);
            }
            authors.push(author);
            appointed = successor;
        }
        Ok((!authors.is_empty() && appointed.is_none()).then_some(Self(authors)))
    }
}

fn follows(last: &Author, appointed: Option<&str>, author: &Author) -> bool {
    let given = appointed.and_then(|mac| BASE64.decode(mac).ok()).unwrap_or_default();
    constant_time::verify_slices_are_equal(last.appoints(author).as_ref(), &given).is_ok()
}

fn decode_key(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    // The decoder wants room for what padded text of this length could hold.
    let mut room = Zeroizing::new([0; KEY_BYTES + 1]);
    let length = BASE64.decode_slice(text, &mut *room).ok()?;
    key.copy_from_slice(room.get(..KEY_BYTES).filter(|_| length == KEY_BYTES)?);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: usize) -> Authors {
        let mut authors = Authors::default();
        (0..length).for_each(|_| authors.renew().unwrap());
        authors
    }

    fn read(written: &[Written]) -> Option<Authors> {
        Authors::read(written.iter().map(|(key, next)| (key.as_str(), next.as_deref()))).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let authors = chain(3);
        let again = read(&authors.written()).unwrap();
        let ids = |authors: &Authors| authors.iter().map(Author::id).collect::<Vec<_>>();
        assert_eq!(ids(&again), ids(&authors));
    }

    #[test]
    fn an_author_that_the_one_before_did_not_appoint_is_refused() {
        let (mine, other) = (chain(3).written(), chain(3).written());
        assert!(read(&[]).is_none());
        assert!(read(&mine[..2]).is_none(), "the successor of the last is not there");
        let planted = [mine[0].clone(), other[1].clone(), other[2].clone()];
        assert!(read(&planted).is_none());
        let self_made = [(mine[0].0.clone(), other[0].1.clone()), other[1].clone(), other[2].clone()];
        assert!(read(&self_made).is_none());
        assert!(read(&[mine[2].clone()]).is_some(), "one alone follows nobody");
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        for key in ["", "c2hvcnQ=", &BASE64.encode([7; 31]), &BASE64.encode([7; 33]), &"?".repeat(44)] {
            assert!(Authors::read([(key, None)].into_iter()).unwrap().is_none(), "{key}");
        }
        assert!(Authors::read([(BASE64.encode([7; 32]).as_str(), None)].into_iter()).unwrap().is_some());
    }

    #[test]
    fn the_chain_is_bounded_and_loses_its_oldest() {
        let mut authors = chain(AUTHORS_MAX);
        let (first, second) = (authors.0[0].id(), authors.0[1].id());
        authors.renew().unwrap();
        assert_eq!(authors.0.len(), AUTHORS_MAX);
        assert!(authors.find(first).is_none() && authors.find(second).is_some());
        assert!(read(&authors.written()).is_some());
    }

    #[test]
    fn an_id_is_shown_and_parsed_and_shows_no_key() {
        let author = Author::new(Zeroizing::new([7; 32])).unwrap();
        let text = author.id().to_string();
        assert_eq!(text.len(), 39);
        assert_eq!(text.parse(), Ok(author.id()));
        assert_eq!(text.to_uppercase().replace('-', "").parse(), Ok(author.id()));
        assert_eq!(text[1..].parse::<AuthorId>(), Err(NotAnAuthor));
        assert!(!text.contains("0707"));
        let other = Author::new(Zeroizing::new([8; 32])).unwrap();
        assert_ne!(author.id(), other.id());
    }

    #[test]
    fn every_mac_key_is_another_one() {
        let author = Author::generate().unwrap();
        let keys = [&author.document, &author.generation, &author.successor, &author.aside];
        let tags: Vec<_> = keys.iter().map(|key| hmac::sign(key, b"same").as_ref().to_vec()).collect();
        for (index, tag) in tags.iter().enumerate() {
            assert!(!tags[..index].contains(tag));
        }
    }
}
