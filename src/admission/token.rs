//! The token that a request presents, and whose it is.
//!
//! In: a request's fields and target. Out: the one caller whose token it is, or that there is none. Looked at are
//! the configured field, `Authorization: Bearer`, and the password of `Authorization: Basic` with any user name, since
//! that is what an unmodified MX SDK can send.
//! What must never happen: whoever presents something that looks like a token of ours, and is none that is valid, is
//! taken for somebody else by other evidence; a token is forwarded, or part of an error.

use std::{collections::HashMap, sync::LazyLock, time::SystemTime};

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, HeaderName, header::AUTHORIZATION};
use memchr::memmem::Finder;
use zeroize::Zeroizing;

use super::{CallerIndex, Reason};
use crate::tokens::{self, PREFIX, Presented, Token, TokenId};

/// The tokens of the configured callers.
#[derive(Debug)]
pub(crate) struct Tokens {
    header: HeaderName,
    by_id: HashMap<TokenId, (Token, CallerIndex)>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { header: HeaderName::from_static("x-mxgate-token"), by_id: HashMap::new() }
    }
}

/// A basic credential that is longer than this needs memory to be looked into.
const BASIC_BYTES: usize = 384;

/// As lax as any reader could be: what is refused here must not be a token elsewhere.
static BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

static MARK: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(PREFIX.as_bytes()));

impl Tokens {
    /// `caller` finds a caller that is known by tokens; what belongs to nobody else is left out.
    pub(crate) fn new(
        header: HeaderName,
        tokens: Vec<Token>,
        caller: impl Fn(&str) -> Option<CallerIndex>,
    ) -> Self {
        let known = tokens.into_iter().filter_map(|token| {
            let index = caller(&token.caller)?;
            Some((token.id, (token, index)))
        });
        Self { header, by_id: known.collect() }
    }

    /// Whose token `headers` present; `None` when they present none.
    pub(super) fn caller(&self, headers: &HeaderMap, target: &str) -> Result<Option<CallerIndex>, Reason> {
        let mut found = Found::default();
        for value in headers.get_all(&self.header) {
            found.add(self.known(value.as_bytes())?)?;
        }
        for value in headers.get_all(AUTHORIZATION) {
            match in_authorization(value.as_bytes())? {
                Held::Nothing => {}
                Held::Plain(text) => found.add(self.known(text)?)?,
                Held::Basic(pair) => {
                    found.add(self.known(password(&pair).ok_or(Reason::TokenMalformed)?)?)?
                }
            }
        }
        // One in the target is in somebody's log already, and would go on to MX.
        if exposes_token(target) || found.secret.is_some_and(|secret| contains(target, &*secret)) {
            return Err(Reason::TokenExposed);
        }
        Ok(found.caller)
    }

    fn known(&self, text: &[u8]) -> Result<(CallerIndex, Zeroizing<[u8; tokens::SECRET_DIGITS]>), Reason> {
        let presented = Presented::parse(text).ok_or(Reason::TokenMalformed)?;
        let (token, caller) = self.by_id.get(&presented.id).ok_or(Reason::TokenUnknown)?;
        if !token.is(&presented) {
            return Err(Reason::TokenUnknown);
        }
        if token.revoked.is_some() {
            return Err(Reason::TokenRevoked);
        }
        // The clock is read for those only that end.
        if token.expires.is_some_and(|expires| expires <= SystemTime::now()) {
            return Err(Reason::TokenExpired);
        }
        Ok((*caller, Zeroizing::new(presented.secret())))
    }
}

/// The one token of a request.
#[derive(Default)]
struct Found {
    caller: Option<CallerIndex>,
    secret: Option<Zeroizing<[u8; tokens::SECRET_DIGITS]>>,
}

impl Found {
    /// A second one is refused, the same or another: two readers could differ in which counts.
    fn add(
        &mut self,
        (caller, secret): (CallerIndex, Zeroizing<[u8; tokens::SECRET_DIGITS]>),
    ) -> Result<(), Reason> {
        if self.caller.replace(caller).is_some() {
            return Err(Reason::TokenTwice);
        }
        self.secret = Some(secret);
        Ok(())
    }
}

/// What `Authorization` holds that is ours.
enum Held<'v> {
    Nothing,
    /// A token, or what looks like one.
    Plain(&'v [u8]),
    /// A user name and a password with a token in it somewhere.
    Basic(Zeroizing<Vec<u8>>),
}

fn in_authorization(value: &[u8]) -> Result<Held<'_>, Reason> {
    let (scheme, rest) = match value.iter().position(|byte| *byte == b' ') {
        Some(at) => value.split_at(at),
        None => (value, &[][..]),
    };
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"basic") {
        return Ok(basic(rest));
    }
    if MARK.find(value).is_none() {
        return Ok(Held::Nothing);
    }
    // Under any other scheme, or none, it is misplaced.
    if scheme.eq_ignore_ascii_case(b"bearer") { Ok(Held::Plain(rest)) } else { Err(Reason::TokenMalformed) }
}

/// What is no base64 is no credential of ours, and stays here anyway.
fn basic(encoded: &[u8]) -> Held<'_> {
    let mut short = Zeroizing::new([0; BASIC_BYTES]);
    let mut long;
    // What it decodes to is shorter by a quarter.
    let decoded = if encoded.len() <= BASIC_BYTES {
        match BASE64.decode_slice(encoded, &mut *short) {
            Ok(len) => short.get(..len).unwrap_or_default(),
            Err(_) => return Held::Nothing,
        }
    } else {
        long = Zeroizing::new(vec![0; encoded.len()]);
        match BASE64.decode_slice(encoded, &mut long) {
            Ok(len) => long.get(..len).unwrap_or_default(),
            Err(_) => return Held::Nothing,
        }
    };
    match MARK.find(decoded) {
        None => Held::Nothing,
        Some(_) => Held::Basic(Zeroizing::new(decoded.to_vec())),
    }
}

/// RFC 7617, 2: the user name has no colon.
fn password(pair: &[u8]) -> Option<&[u8]> {
    let at = pair.iter().position(|byte| *byte == b':')?;
    pair.get(at + 1..)
}

/// Whether a target has something in it that begins as a token does.
fn exposes_token(target: &str) -> bool {
    MARK.find_iter(target.as_bytes()).any(|at| {
        let after = target.as_bytes().get(at + PREFIX.len()..).unwrap_or_default();
        after
            .split_at_checked(12)
            .is_some_and(|(id, rest)| TokenId::parse(id).is_some() && rest.starts_with(b"_"))
    })
}

fn contains(target: &str, secret: &[u8]) -> bool {
    memchr::memmem::find(target.as_bytes(), secret).is_some()
}
