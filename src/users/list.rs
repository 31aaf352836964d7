//! Lists of users: `USR-123`, or `USR-*` for all that begin so.
//!
//! In: texts of the configuration, and a file with one a line. Out: a `UserList`, whose look-up costs the same
//! however many there are.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::config::permissions::{self, Untrusted};

/// A file of users may have so many bytes; some 800,000 users of MX fit.
pub(crate) const FILE_BYTES_MAX: u64 = 32 << 20;

/// A user's guid, or an id that a path may hold instead.
const USER_BYTES_MAX: usize = 256;

/// One item of a list of users.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UserPattern {
    /// Exactly this path segment.
    Literal(String),
    /// Every path segment that begins so.
    Prefix(String),
}

/// A text that is no item of a list of users. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is neither a user such as \"USR-123\" nor the beginning of some such as \"USR-*\"")]
pub struct Malformed;

impl UserPattern {
    /// Reads one item.
    ///
    /// # Errors
    /// [`Malformed`], when a path segment could not be it as received, without an escape.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        match text.strip_suffix('*') {
            Some(prefix) if prefix.is_empty() || is_user(prefix) => Ok(Self::Prefix(prefix.to_owned())),
            None if is_user(text) => Ok(Self::Literal(text.to_owned())),
            _ => Err(Malformed),
        }
    }
}

/// Only bytes that no encoder has to escape, so that there is one spelling.
pub(crate) fn is_user(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    (1..=USER_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

/// The users whom a caller may reach.
#[derive(Default)]
pub(crate) struct UserList {
    literals: HashSet<Box<str>>,
    /// Sorted, none the beginning of another.
    prefixes: Vec<Box<str>>,
}

/// How many, since who they are is nobody's business.
impl std::fmt::Debug for UserList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserList({} users, {} beginnings)", self.literals.len(), self.prefixes.len())
    }
}

/// Why a file of users cannot be used. No message repeats what is in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{path}: cannot be read: {source}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path}: {source}")]
    Untrusted { path: PathBuf, source: Untrusted },
    #[error("{0}: is not a regular file")]
    NotRegular(PathBuf),
    #[error("{path}: is larger than {max} bytes")]
    TooLarge { path: PathBuf, max: u64 },
    #[error("{path}:{line}: {what}")]
    Line { path: PathBuf, line: usize, what: &'static str },
    #[error("{0}: is not UTF-8")]
    NotUtf8(PathBuf),
}

impl UserList {
    /// Both kinds together; `None` when neither is given.
    pub(crate) fn of(users: Option<&[UserPattern]>, file: Option<&Path>) -> Result<Option<Self>, Fault> {
        if users.is_none() && file.is_none() {
            return Ok(None);
        }
        let mut all = users.unwrap_or_default().to_vec();
        if let Some(path) = file {
            let text = read(path)?;
            for (line, text) in lines(&text) {
                let what = "is neither a user nor the beginning of some with a * behind it";
                let fault = |_| Fault::Line { path: path.to_owned(), line, what };
                all.push(UserPattern::parse(text).map_err(fault)?);
            }
        }
        Ok(Some(Self::new(all)))
    }

    fn new(patterns: Vec<UserPattern>) -> Self {
        let mut this = Self::default();
        let mut prefixes = Vec::new();
        for pattern in patterns {
            match pattern {
                UserPattern::Literal(user) => _ = this.literals.insert(user.into()),
                UserPattern::Prefix(prefix) => prefixes.push(prefix.into_boxed_str()),
            }
        }
        prefixes.sort_unstable();
        for prefix in prefixes {
            if !this.prefixes.last().is_some_and(|shorter| prefix.starts_with(&**shorter)) {
                this.prefixes.push(prefix);
            }
        }
        this
    }

    pub(crate) fn contains(&self, user: &str) -> bool {
        let after = self.prefixes.partition_point(|prefix| **prefix <= *user);
        let nearest = after.checked_sub(1).and_then(|at| self.prefixes.get(at));
        self.literals.contains(user) || nearest.is_some_and(|prefix| user.starts_with(&**prefix))
    }
}

/// Which user of MX each subject of an issuer is.
pub(crate) type UserMap = HashMap<Box<str>, Arc<str>>;

/// Reads a file with a subject, a tab and a user a line.
pub(crate) fn user_map(path: &Path) -> Result<UserMap, Fault> {
    let text = read(path)?;
    let mut map = UserMap::new();
    for (line, text) in lines(&text) {
        let fault = |what| Fault::Line { path: path.to_owned(), line, what };
        let (subject, user) =
            text.rsplit_once('\t').ok_or_else(|| fault("is not a subject, a tab and a user"))?;
        if subject.is_empty() || !is_user(user) {
            return Err(fault("is not a subject, a tab and a user"));
        }
        if map.insert(subject.into(), user.into()).is_some() {
            return Err(fault("has a subject that an earlier line has"));
        }
    }
    Ok(map)
}

/// Lines with their numbers, without empty ones and those that begin with `#`.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Reads a file that decides who may reach what: nobody else may have written it.
pub(super) fn read(path: &Path) -> Result<String, Fault> {
    String::from_utf8(read_bytes(path, FILE_BYTES_MAX)?).map_err(|_| Fault::NotUtf8(path.to_owned()))
}

pub(super) fn read_bytes(path: &Path, max: u64) -> Result<Vec<u8>, Fault> {
    let unreadable = |source| Fault::Unreadable { path: path.to_owned(), source };
    // Opening something else, such as a pipe, could wait for ever.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err(Fault::NotRegular(path.to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    permissions::check_open(&file).map_err(|source| Fault::Untrusted { path: path.to_owned(), source })?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > max {
        return Err(Fault::TooLarge { path: path.to_owned(), max });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(texts: &[&str]) -> UserList {
        UserList::new(texts.iter().map(|text| UserPattern::parse(text).unwrap()).collect())
    }

    #[test]
    fn a_literal_is_itself_and_a_beginning_all_that_begin_so() {
        let list = list(&["USR-1", "USR-2", "A-*", "A-B*", "USR-30*"]);
        for user in ["USR-1", "USR-2", "A-", "A-B", "A-zzz", "USR-30", "USR-305"] {
            assert!(list.contains(user), "{user}");
        }
        for user in
            ["USR-", "USR-11", "usr-1", "USR-3", "A", "USR-29", "USR-31", "B-", "", "USR-1%20", "USR-1/"]
        {
            assert!(!list.contains(user), "{user}");
        }
        assert_eq!(list.prefixes.len(), 2, "A-B* is part of A-*");
    }

    #[test]
    fn nothing_else_is_an_item() {
        for text in ["USR-1", "a.b_c~d-e", "USR-*", "*"] {
            assert!(UserPattern::parse(text).is_ok(), "{text}");
        }
        let long = "x".repeat(USER_BYTES_MAX + 1);
        for text in
            ["", "**", "USR-*-1", "*USR", "USR-?", "a b", "a/b", "a%20", "ä", "a;b", "[a]", "a\n", &long]
        {
            assert!(UserPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_has_one_a_line_and_a_wrong_line_is_named_but_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, "# ours\nUSR-1\r\n\nUSR-2*\n").unwrap();
        let list = UserList::of(None, Some(&path)).unwrap().unwrap();
        assert!(list.contains("USR-1") && list.contains("USR-2x") && !list.contains("USR-3"));
        std::fs::write(&path, "USR-1\nUSR 2 secret\n").unwrap();
        let fault = UserList::of(None, Some(&path)).unwrap_err().to_string();
        assert!(fault.contains("users:2:") && !fault.contains("secret"), "{fault}");
        std::fs::write(&path, "").unwrap();
        assert!(!UserList::of(None, Some(&path)).unwrap().unwrap().contains("USR-1"), "nobody");
        assert!(matches!(UserList::of(None, Some(folder.path())), Err(Fault::NotRegular(_))));
        assert!(matches!(UserList::of(None, Some(&folder.path().join("no"))), Err(Fault::Unreadable { .. })));
        assert!(UserList::of(None, None).unwrap().is_none());
    }

    #[test]
    fn a_file_that_is_too_large_or_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        std::fs::write(&path, "USR-1\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o622)).unwrap();
        assert!(matches!(UserList::of(None, Some(&path)), Err(Fault::Untrusted { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(UserList::of(None, Some(&path)).is_ok());
        File::options().write(true).open(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(UserList::of(None, Some(&path)), Err(Fault::TooLarge { .. })));
    }

    #[test]
    fn a_map_has_a_subject_a_tab_and_a_user_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map");
        std::fs::write(&path, "auth0|a b\tUSR-1\nother\tUSR-2\n").unwrap();
        let map = user_map(&path).unwrap();
        assert_eq!((map.len(), &*map["auth0|a b"]), (2, "USR-1"));
        for wrong in ["a USR-1\n", "\tUSR-1\n", "a\tUSR-*\n", "a\t\n", "a\tUSR-1\na\tUSR-2\n"] {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(user_map(&path), Err(Fault::Line { .. })), "{wrong:?}");
        }
    }

    proptest! {
        /// Against a search that knows nothing of order.
        #[test]
        fn a_look_up_finds_what_a_search_finds(
            literals in prop::collection::vec("[ab]{1,4}", 0..6),
            prefixes in prop::collection::vec("[ab]{0,3}", 0..6),
            user in "[ab]{0,6}",
        ) {
            let mut all: Vec<_> = literals.iter().cloned().map(UserPattern::Literal).collect();
            all.extend(prefixes.iter().cloned().map(UserPattern::Prefix));
            let searched = literals.contains(&user) || prefixes.iter().any(|prefix| user.starts_with(prefix));
            prop_assert_eq!(UserList::new(all).contains(&user), searched);
        }
    }
}
