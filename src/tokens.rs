//! Tokens that this gateway issues to its callers: what they look like, and the file of their digests.
//!
//! `mxgate caller token` makes and revokes them here; the running gateway reads the file again when it changes. A
//! token is `mxg_`, 12 hexadecimal digits that name it, `_`, and 48 that are its secret (192 bits of the system's
//! generator): a form that secret scanners recognise and that fits into a header, a URL and Basic as it is.
//! What must never happen: a token is stored, logged or shown twice; the file keeps its SHA-256 only. A secret of
//! that length cannot be guessed, so its digest needs neither salt nor stretching.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{constant_time, digest, rand};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    config::permissions::{self, Untrusted},
    storage,
    tree::tree,
};

/// What every token begins with.
pub const PREFIX: &str = "mxg_";
const ID_DIGITS: usize = 12;
pub(crate) const SECRET_DIGITS: usize = 48;
const TOKEN_BYTES: usize = PREFIX.len() + ID_DIGITS + 1 + SECRET_DIGITS;

/// The largest file: some 60,000 tokens.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// How long a token that is over is still listed.
const KEPT: Duration = Duration::from_secs(90 * 24 * 60 * 60);

const FORMAT: &str = "mxgate-tokens";
const VERSION: u64 = 1;

/// Names a token; not a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; ID_DIGITS]);

/// A token as it is presented, well formed.
#[derive(Debug)]
pub(crate) struct Presented<'t> {
    pub(crate) id: TokenId,
    /// All of it.
    text: &'t [u8],
}

/// What the file says of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name.
    pub id: TokenId,
    /// Whose it is.
    pub caller: String,
    /// When it was made; whole seconds, as all times here.
    pub created: SystemTime,
    /// When it ends by itself; `None`: never.
    pub expires: Option<SystemTime>,
    /// When it was revoked, if it was.
    pub revoked: Option<SystemTime>,
    digest: [u8; 32],
}

/// Why the file was not read or written. No message holds a digest or a token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file, or its folder, could not be read.
    #[error("{} could not be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be written.
    #[error("{} could not be written", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others could add a token.
    #[error("{} {source}", .path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// Which, and what to do.
        source: Untrusted,
    },
    /// It is none of ours.
    #[error("{} is no file of tokens, or is damaged: {what}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The system's generator failed.
    #[error("the system gives no random numbers")]
    NoRandom,
    /// It was to be revoked.
    #[error("there is no token {id} in {}; `mxgate caller token list` shows them", .path.display())]
    Unknown {
        /// The one that was named.
        id: TokenId,
        /// The file.
        path: PathBuf,
    },
}

/// A token that was just made. It is shown once and wiped.
pub struct Issued {
    /// All of it.
    pub text: Zeroizing<String>,
    /// What the file says of it.
    pub token: Token,
}

/// Reads the file. One that does not exist has no tokens: the first one makes it.
///
/// # Errors
/// It cannot be read, is damaged, or others may write it.
pub fn read(path: &Path) -> Result<Vec<Token>, Error> {
    let unreadable = |source| Error::Unreadable { path: path.into(), source };
    // Opening something else, such as a pipe, could wait for ever.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Error::Damaged { path: path.into(), what: "it is not a regular file" });
    }
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let damaged = |what| Error::Damaged { path: path.into(), what };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(damaged("it is not a regular file"));
    }
    permissions::check_open(&file).map_err(|source| Error::Untrusted { path: path.into(), source })?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(damaged("it is too large"));
    }
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, FILE_BYTES_MAX), &mut text).map_err(unreadable)?;
    // serde's own message could repeat what stands there.
    let file: File =
        serde_json::from_str(&text).map_err(|_| damaged("it is not the JSON that it should be"))?;
    if (file.format.as_str(), file.version) != (FORMAT, VERSION) {
        return Err(damaged("it has another format or version"));
    }
    let mut tokens = BTreeMap::new();
    for (id, entry) in file.tokens {
        let token = Token::read(&id, entry).ok_or_else(|| damaged("one of its tokens is malformed"))?;
        tokens.insert(token.id, token);
    }
    Ok(tokens.into_values().collect())
}

/// Makes a token for `caller`, and the file when there is none (mode 0600).
///
/// # Errors
/// As [`read`], or it cannot be written.
pub fn issue(
    path: &Path,
    caller: &str,
    expires: Option<SystemTime>,
    now: SystemTime,
) -> Result<Issued, Error> {
    change(path, now, |tokens| {
        let (id, text) = loop {
            let (id, text) = random_token()?;
            if tokens.iter().all(|token| token.id != id) {
                break (id, text);
            }
        };
        let token = Token {
            id,
            caller: caller.to_owned(),
            created: whole_seconds(now),
            expires: expires.map(whole_seconds),
            revoked: None,
            digest: digest_of(text.as_bytes()),
        };
        tokens.push(token.clone());
        Ok(Issued { text, token })
    })
}

/// Ends a token now; one that is revoked already stays as it is.
///
/// # Errors
/// As [`issue`], or there is no such token.
pub fn revoke(path: &Path, id: TokenId, now: SystemTime) -> Result<Token, Error> {
    change(path, now, |tokens| {
        let token = tokens.iter_mut().find(|token| token.id == id);
        let token = token.ok_or_else(|| Error::Unknown { id, path: path.into() })?;
        token.revoked.get_or_insert(whole_seconds(now));
        Ok(token.clone())
    })
}

/// Reads, changes and writes the file under a lock, so that of two commands at once neither is lost.
fn change<T>(
    path: &Path,
    now: SystemTime,
    change: impl FnOnce(&mut Vec<Token>) -> Result<T, Error>,
) -> Result<T, Error> {
    // Behind a symbolic link, so that one file has one lock.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Unwritable { path, source }
    };
    let like = fs::metadata(path).ok();
    let mut lock = OsString::from(path);
    lock.push(".lock");
    let lock = PathBuf::from(lock);
    let _lock = storage::lock(&lock, like.as_ref()).map_err(unwritable(&lock))?;
    let mut tokens = read(path)?;
    let done = change(&mut tokens)?;
    tokens.retain(|token| token.over_since(now).is_none_or(|since| now < since + KEPT));
    let entries = tree(tokens.iter().map(|token| (token.id.to_string(), token.written())));
    let file = File { format: FORMAT.into(), version: VERSION, tokens: entries };
    let mut text = serde_json::to_vec_pretty(&file).map_err(io::Error::from).map_err(unwritable(path))?;
    text.push(b'\n');
    storage::replace(path, &text, fs::metadata(path).ok().as_ref()).map_err(unwritable(path))?;
    Ok(done)
}

/// The file as written: an object by id, so that it can be read and compared by people.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    version: u64,
    tokens: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    caller: String,
    sha256: String,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
}

impl Token {
    /// Whether `presented` is this token. Takes as long for a wrong secret as for the right one.
    pub(crate) fn is(&self, presented: &Presented<'_>) -> bool {
        constant_time::verify_slices_are_equal(&self.digest, &digest_of(presented.text)).is_ok()
    }

    /// Since when it is not taken any more, if it is over at `now`.
    #[must_use]
    pub fn over_since(&self, now: SystemTime) -> Option<SystemTime> {
        let expired = self.expires.filter(|expires| *expires <= now);
        self.revoked.into_iter().chain(expired).min()
    }

    fn read(id: &str, entry: Entry) -> Option<Self> {
        let time = |text: String| humantime::parse_rfc3339(&text).ok();
        let optional = |text: Option<String>| match text {
            Some(text) => time(text).map(Some),
            None => Some(None),
        };
        Some(Self {
            id: TokenId::parse(id.as_bytes())?,
            caller: entry.caller,
            created: time(entry.created)?,
            expires: optional(entry.expires)?,
            revoked: optional(entry.revoked)?,
            digest: from_hex(&entry.sha256)?,
        })
    }

    fn written(&self) -> Entry {
        let time = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
        Entry {
            caller: self.caller.clone(),
            sha256: hex(&self.digest),
            created: time(self.created),
            expires: self.expires.map(time),
            revoked: self.revoked.map(time),
        }
    }
}

impl TokenId {
    /// 12 hexadecimal digits in small letters.
    #[must_use]
    pub fn parse(digits: &[u8]) -> Option<Self> {
        let digits: [u8; ID_DIGITS] = digits.try_into().ok()?;
        digits.iter().all(is_digit).then_some(Self(digits))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Digits are ASCII.
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<'t> Presented<'t> {
    /// `None` when `text` is not of a token's form.
    pub(crate) fn parse(text: &'t [u8]) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX.as_bytes())?.split_at_checked(ID_DIGITS)?;
        let secret = secret.strip_prefix(b"_")?;
        let is_whole = text.len() == TOKEN_BYTES && secret.iter().all(is_digit);
        Some(Self { id: TokenId::parse(id)?, text }).filter(|_| is_whole)
    }

    /// The part that must stay secret.
    pub(crate) fn secret(&self) -> [u8; SECRET_DIGITS] {
        let mut secret = [0; SECRET_DIGITS];
        let own = self.text.iter().skip(TOKEN_BYTES - SECRET_DIGITS);
        secret.iter_mut().zip(own).for_each(|(byte, own)| *byte = *own);
        secret
    }
}

fn is_digit(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn random_token() -> Result<(TokenId, Zeroizing<String>), Error> {
    let mut bytes = Zeroizing::new([0; (ID_DIGITS + SECRET_DIGITS) / 2]);
    rand::fill(&mut *bytes).map_err(|_| Error::NoRandom)?;
    let digits = Zeroizing::new(hex(&*bytes));
    let (id, secret) = digits.split_at(ID_DIGITS);
    let mut text = Zeroizing::new(String::with_capacity(TOKEN_BYTES));
    [PREFIX, id, "_", secret].into_iter().for_each(|part| text.push_str(part));
    let id = TokenId::parse(id.as_bytes()).ok_or(Error::NoRandom)?;
    Ok((id, text))
}

fn digest_of(text: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, text).as_ref());
    bytes
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A `String` takes every write.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let pairs = text.as_bytes().chunks_exact(2);
    if text.len() != 64 || !text.bytes().all(|byte| is_digit(&byte)) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// As the file has it.
fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests;
