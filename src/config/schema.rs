//! What keys the file has: the one place that names them, their kinds, bounds and defaults.
//!
//! The walker checks a file against these tables, variables find their key in them, and the JSON schema
//! for editors is generated from them, so the three cannot disagree.

pub(super) mod json;
pub(super) mod keys;

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) need: Need,
    pub(super) reload: Reload,
    pub(super) doc: &'static str,
}

/// What may be written as a key's value.
#[derive(Debug)]
pub(super) enum Kind {
    /// Text of a form that the check of its section knows.
    Text,
    /// An absolute path.
    Path,
    /// `vault:`, `env:`, `file:` and the like, or a table of [`REFERENCE`]; what is written here is never repeated.
    Reference,
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds.
    Integer { min: u64, max: u64, unit: &'static str },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Texts in a list.
    Texts,
    /// Whole numbers within bounds, in a list.
    Integers { min: u64, max: u64, unit: &'static str },
    /// `{ ANY = [texts] }`.
    NamedTexts,
    /// `{ ANY = "text" }`.
    NamedText,
    /// `[name]`.
    Section(&'static [Key]),
    /// `[[name]]`.
    Sections(&'static [Key]),
    /// `[name.ANY]`.
    Named(&'static [Key]),
    /// A table whose `kind` says which other keys it has.
    Variants(&'static [Variant]),
    /// One of these words, or a table.
    WordOrSection(&'static [&'static str], &'static [Key]),
}

/// One `kind` of table, and its other keys.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) kind: &'static str,
    pub(super) keys: &'static [Key],
}

/// What holds when a key is not written.
#[derive(Debug)]
pub(super) enum Need {
    Required,
    /// Absent is a meaning of its own, which the doc tells.
    Optional,
    Text(&'static str),
    Integer(u64),
    Flag(bool),
}

/// Whether a running gateway takes a change up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reload {
    Live,
    /// With everything below the key.
    Restart,
}

/// The key that every table of [`Kind::Variants`] has besides its own.
pub(super) static KIND: Key = Key::new("kind", Kind::Text, Need::Required, "Which other keys the table has");

/// The keys of a reference that is written as a table.
pub(super) static REFERENCE: &[Key] = &[
    Key::new("from", Kind::Text, Need::Required, "The reference"),
    Key::new(
        "hosts",
        Kind::Texts,
        Need::Optional,
        "Hosts that the secret may be sent to, one of them the environment's own; absent: that one",
    ),
];

impl Key {
    const fn new(name: &'static str, kind: Kind, need: Need, doc: &'static str) -> Self {
        Self { name, kind, need, reload: Reload::Live, doc }
    }

    /// The same key, taken up at the next start only.
    const fn restart(self) -> Self {
        let Self { name, kind, need, doc, .. } = self;
        Self { name, kind, need, reload: Reload::Restart, doc }
    }
}

/// Every key that any of `variants` has: what can be checked while `kind` is not known.
pub(super) fn all_keys(variants: &'static [Variant]) -> impl Iterator<Item = &'static Key> {
    variants.iter().flat_map(|variant| variant.keys)
}
