//! The cookie that binds a state to the browser that began with it. One for each attempt, so that several may run at once.
//!
//! In: a state, and a browser's `Cookie` fields. Out: `Set-Cookie`, and the value that came back. The store keeps a digest.
//!
//! What must never happen: a state is taken by a browser that cannot show its cookie; a cookie tells of the state.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use aws_lc_rs::{
    constant_time,
    digest::{self, SHA256},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use http::{HeaderMap, header};

use super::record::text;
use crate::vault::secret::Secret;

/// Browsers take a name that begins so over TLS only, from this very host, and for all of its paths.
const PREFIX: &str = "__Host-mxgate-connect-";

/// What the store keeps of a cookie's value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Browser([u8; 32]);

impl Browser {
    pub(super) fn of(value: &Secret) -> Self {
        Self(hash(b"mxgate browser\0", value))
    }
}

/// In constant time.
impl PartialEq for Browser {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Browser {}

impl fmt::Display for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl FromStr for Browser {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bytes = BASE64.decode(text).map_err(|_| ())?;
        bytes.try_into().map(Self).map_err(|_| ())
    }
}

/// A `Set-Cookie` that a browser sends back with `state` and for no longer than `life`. Lax: a provider's page brings the
/// browser back, and frames and scripts of others do not.
pub(super) fn set(state: &Secret, value: &Secret, life: Duration) -> String {
    written(state, text(value), life)
}

/// A `Set-Cookie` that ends it.
pub(super) fn clear(state: &Secret) -> String {
    written(state, "", Duration::ZERO)
}

fn written(state: &Secret, value: &str, life: Duration) -> String {
    format!("{}={value}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Lax", name(state), life.as_secs())
}

/// The value that this browser has for `state`; `None` also when there are two.
pub(super) fn shown(headers: &HeaderMap, state: &Secret) -> Option<Arc<Secret>> {
    let name = name(state);
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut values = fields
        .flat_map(|field| field.split(';'))
        .filter_map(|pair| pair.trim_matches(' ').split_once('='))
        .filter(|(named, _)| *named == name)
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => super::shown(value),
        _ => None,
    }
}

/// Of a state: some digits of a digest.
fn name(state: &Secret) -> String {
    let digest = hash(b"mxgate cookie\0", state);
    digest[..8].iter().fold(PREFIX.to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

fn hash(label: &[u8], secret: &Secret) -> [u8; 32] {
    let mut hash = digest::Context::new(&SHA256);
    hash.update(label);
    hash.update(text(secret).as_bytes());
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(letter: &str) -> Arc<Secret> {
        super::super::shown(&letter.repeat(43)).unwrap()
    }

    fn headers(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|field| (header::COOKIE, field.parse().unwrap())).collect()
    }

    /// As a browser sends it.
    fn pair(cookie: &str) -> &str {
        cookie.split_once(';').unwrap().0
    }

    #[test]
    fn a_cookie_comes_back_with_its_own_state_and_no_other() {
        let (one, other) = (secret("a"), secret("b"));
        let cookie = set(&one, &secret("v"), Duration::from_secs(600));
        let beside = set(&other, &secret("w"), Duration::from_secs(600));
        assert!(cookie.ends_with("; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax"), "{cookie}");
        assert!(!cookie.contains(text(&one)) && cookie.starts_with("__Host-"), "{cookie}");
        let both = headers(&[&format!("theme=dark; {}; {}", pair(&cookie), pair(&beside))]);
        assert_eq!(shown(&both, &one), Some(secret("v")));
        assert_eq!(shown(&both, &other), Some(secret("w")));
        assert_eq!(shown(&both, &secret("c")), None);
        assert_eq!(shown(&HeaderMap::new(), &one), None);
    }

    #[test]
    fn what_comes_twice_or_is_no_value_of_ours_counts_as_nothing() {
        let one = secret("a");
        let cookie = set(&one, &secret("v"), Duration::from_secs(600));
        let twice = headers(&[pair(&cookie), pair(&cookie)]);
        assert_eq!(shown(&twice, &one), None);
        for value in ["", "short", &"v".repeat(44), &format!("{}%", "v".repeat(42))] {
            assert_eq!(shown(&headers(&[&format!("{}={value}", name(&one))]), &one), None, "{value}");
        }
        assert!(clear(&one).starts_with(&format!("{}=; Path=/; Max-Age=0; ", name(&one))));
    }

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let browser = Browser::of(&secret("v"));
        assert_eq!(browser.to_string().parse(), Ok(browser));
        assert_ne!(browser, Browser::of(&secret("w")));
        assert_eq!("AAAA".parse::<Browser>(), Err(()));
    }
}
