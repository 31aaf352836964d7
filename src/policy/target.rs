//! The parsed request line, used for deciding and for dialling alike.
//!
//! In: path and query as hyper read them. Out: the same bytes, known to have one meaning, or a refusal.
//! Nothing is decoded, normalised or repaired: a path that two servers could read as two paths is
//! refused, so what policy matched is what the upstream serves.
//!
//! - Path: RFC 3986's `pchar`. Escapes in capitals, only for bytes that need one, in valid UTF-8; none for
//!   control characters, backslashes or a second layer of escapes. No dot segments, also between `%2F`
//!   and before `;`. `%2F` stays inside its segment; an empty segment makes another path.
//! - Query: the same alphabet and `?`, `[`, `]`, which clients leave bare. It is data, so any escape but
//!   those of control bytes passes, in either case: encoders differ in `~` and in hexadecimal digits.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// A path and query with one meaning, as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    path_and_query: &'a str,
    path_len: usize,
}

/// Why a path or query is refused. It never repeats them: they may hold a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// The path does not start with `/`.
    #[error("the path does not start with a slash")]
    NoSlash,
    /// A raw byte outside the alphabet, `#` and backslash among them.
    #[error("a byte that must be percent-encoded is not")]
    RawByte,
    /// `%` without two hexadecimal digits.
    #[error("a percent sign without two hexadecimal digits")]
    BadEscape,
    /// In the path: an escape in small letters or of an unreserved byte, which is another spelling of it.
    #[error("an escape in the path is not in its one spelling")]
    SecondSpelling,
    /// In the path: `%25` before two hexadecimal digits, which is another path once decoded twice.
    #[error("the path is encoded twice")]
    EncodedTwice,
    /// An escape of a control byte; in the path also of a control character, a backslash, or bytes that
    /// are not UTF-8.
    #[error("an escape stands for a byte that may not occur")]
    ForbiddenEscape,
    /// A segment `.` or `..`, also between `%2F` or with `;` behind it.
    #[error("the path has a dot segment")]
    DotSegment,
}

impl<'a> Target<'a> {
    /// Checks a request's path and query, as received: `/users?page=2`.
    ///
    /// # Errors
    /// When a byte of it could be read in two ways.
    pub fn parse(path_and_query: &'a str) -> Result<Self, Malformed> {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, query),
            None => (path_and_query, ""),
        };
        if !path.starts_with('/') {
            return Err(Malformed::NoSlash);
        }
        check_path(path)?;
        check_query(query)?;
        Ok(Self { path_and_query, path_len: path.len() })
    }

    /// The path as received.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path_and_query.split_at(self.path_len).0
    }

    /// What follows the first `?`, as received.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.path_and_query.split_at(self.path_len).1.strip_prefix('?')
    }

    /// Both, as received.
    #[must_use]
    pub fn path_and_query(&self) -> &'a str {
        self.path_and_query
    }

    /// The query without every parameter that a server could read as one of `names`, the rest byte for
    /// byte; empty when there is none.
    ///
    /// Names are compared as the laxest servers do: decoded, in any case, with `_`, `-`, `.` and space
    /// alike, without a suffix such as `[]` or brackets in front. Both `&` and `;` separate parameters,
    /// and a value that holds a `;` goes whole.
    #[must_use]
    pub fn query_without(&self, names: &[impl AsRef<str>]) -> Cow<'a, str> {
        let query = self.query().unwrap_or_default();
        let named = |parameter: &&str| {
            let name = read_name(parameter);
            names.iter().any(|one| one.as_ref().bytes().map(folded).eq(name.iter().copied()))
        };
        if !query.split(['&', ';']).any(|parameter| named(&parameter)) {
            return Cow::Borrowed(query);
        }
        let mut kept = Vec::new();
        for group in query.split('&').filter(|group| !named(group)) {
            let parameters = group.split(';').filter(|parameter| !named(parameter));
            kept.extend(parameters.enumerate().map(|(index, one)| (if index == 0 { '&' } else { ';' }, one)));
        }
        let mut rest = String::with_capacity(query.len());
        for (index, (separator, parameter)) in kept.into_iter().enumerate() {
            if index > 0 {
                rest.push(separator);
            }
            rest.push_str(parameter);
        }
        Cow::Owned(rest)
    }

    /// What is forwarded: path and query without the parameters in `names`.
    #[must_use]
    pub fn without(&self, names: &[impl AsRef<str>]) -> Cow<'a, str> {
        match self.query_without(names) {
            Cow::Borrowed(_) => Cow::Borrowed(self.path_and_query),
            Cow::Owned(query) if query.is_empty() => Cow::Borrowed(self.path()),
            Cow::Owned(query) => Cow::Owned(format!("{}?{query}", self.path())),
        }
    }
}

fn check_path(path: &str) -> Result<(), Malformed> {
    let mut has_escape = false;
    let mut rest = path.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte == b'%' {
            has_escape = true;
            let (escaped, after) = escape(rest)?;
            check_path_escape(escaped, rest, after)?;
            rest = after;
        } else if !is_pchar(*byte) && *byte != b'/' {
            return Err(Malformed::RawByte);
        }
    }
    if has_escape {
        // Overlong forms hide dots and slashes; C1 controls hide in two bytes.
        let decoded =
            percent_decode(path.as_bytes()).decode_utf8().map_err(|_| Malformed::ForbiddenEscape)?;
        if decoded.chars().any(char::is_control) {
            return Err(Malformed::ForbiddenEscape);
        }
    }
    if has_dot_segment(path) { Err(Malformed::DotSegment) } else { Ok(()) }
}

/// `digits` starts with the escape's own; `after` is what follows them.
fn check_path_escape(escaped: u8, digits: &[u8], after: &[u8]) -> Result<(), Malformed> {
    let has_small_letter = digits.iter().take(2).any(u8::is_ascii_lowercase);
    if escaped.is_ascii_control() || escaped == b'\\' {
        Err(Malformed::ForbiddenEscape)
    } else if is_unreserved(escaped) || has_small_letter {
        Err(Malformed::SecondSpelling)
    } else if escaped == b'%' && escape(after).is_ok() {
        Err(Malformed::EncodedTwice)
    } else {
        Ok(())
    }
}

/// Unreserved and small-letter escapes are refused before this, so `.` and `%2F` have one spelling.
fn has_dot_segment(path: &str) -> bool {
    // Almost no path has a dot, and then there is nothing to split.
    path.contains('.')
        && path.split('/').flat_map(|segment| segment.split("%2F")).any(|segment| {
            // Some servers cut a segment's parameters off before they resolve dots.
            let name = segment.split(';').next().unwrap_or_default();
            let name = name.split("%3B").next().unwrap_or_default();
            matches!(name, "." | "..")
        })
}

fn check_query(query: &str) -> Result<(), Malformed> {
    let mut rest = query.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte == b'%' {
            let (escaped, after) = escape(rest)?;
            if escaped.is_ascii_control() {
                return Err(Malformed::ForbiddenEscape);
            }
            rest = after;
        } else if !is_pchar(*byte) && !matches!(byte, b'/' | b'?' | b'[' | b']') {
            return Err(Malformed::RawByte);
        }
    }
    Ok(())
}

/// The byte that two hexadecimal digits stand for, and what follows them.
fn escape(digits: &[u8]) -> Result<(u8, &[u8]), Malformed> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match digits {
        [high, low, after @ ..] => match (digit(*high), digit(*low)) {
            (Some(high), Some(low)) => Ok((high << 4 | low, after)),
            _ => Err(Malformed::BadEscape),
        },
        _ => Err(Malformed::BadEscape),
    }
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986's `pchar` without escapes.
fn is_pchar(byte: u8) -> bool {
    static PCHAR: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = is_unreserved(byte as u8)
                || matches!(
                    byte as u8,
                    b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
                );
            byte += 1;
        }
        table
    };
    PCHAR[usize::from(byte)]
}

/// A parameter's name as the laxest servers read it: Rack takes `[name]` for `name` and cuts `name[x]` at
/// its bracket, others trim white space.
fn read_name(parameter: &str) -> Vec<u8> {
    let written = parameter.split('=').next().unwrap_or_default();
    let is_bracket = |byte: &u8| matches!(byte, b'[' | b']');
    let name = percent_decode(written.as_bytes()).map(folded);
    let mut name: Vec<u8> = name
        .skip_while(|byte| is_bracket(byte) || *byte == b'_')
        .take_while(|byte| !is_bracket(byte))
        .collect();
    while name.pop_if(|byte| *byte == b'_').is_some() {}
    name
}

/// Letters in small, and one byte for all that servers take for `_`.
const fn folded(byte: u8) -> u8 {
    match byte {
        b'-' | b'.' | b' ' | b'+' => b'_',
        _ => byte.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests;
