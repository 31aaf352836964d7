//! Tokens in MX's answers stay here, and their callers get handles for them.
//!
//! In: an answer's JSON, of an operation whose answers hold tokens; later a request with a handle. Out: the same JSON with a
//! handle in the place of each token, byte for byte otherwise; and which connection a handle means.
//!
//! What must never happen: a token reaches its caller because of how the answer is written, or because it could not be
//! kept; a handle leaves the gateway.

use std::{
    borrow::Cow,
    fmt,
    ops::Range,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header::AUTHORIZATION};
use serde::{
    Deserialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::{
    Decided, End,
    access::waited,
    fields::{DEPTH_MAX, Name, NotMaskable},
};
use crate::{
    listener::connection::Connection,
    mx::catalogue::Tokens,
    oauth::{
        cell::seconds,
        connection::ConnectionId,
        handle::{self, Given, Handle, Whose},
        token,
    },
    redaction::{self, Masker, held},
    refusal::{Failure, Refusal},
    vault::secret::Secret,
    worker::view::{EnvironmentView, View},
};

/// Members of an answer that hold a token, wherever they stand.
const NAMES: [&str; 3] = ["access_token", "token", "refresh_token"];

/// More than MX lists on a page.
const TOKENS_MAX: usize = 1000;

/// What is done with the tokens of an answer.
pub(super) struct Keeping {
    whose: Whose,
    /// Whether an answer without any is one whose token was not found.
    brings_one: bool,
    /// When they were asked for: lives are counted from then.
    asked: u64,
}

/// An answer whose tokens are kept.
pub(super) struct Kept {
    pub(super) text: Zeroizing<String>,
    /// How many tokens.
    pub(super) count: usize,
    /// How often one of them stood elsewhere in the answer, where it was masked.
    pub(super) masked: usize,
}

impl Keeping {
    /// `None`: the answer has none, or they are its caller's. Without a place for them, nothing may be asked for: a code is
    /// good once.
    pub(super) fn of(
        at: &Connection,
        view: &View,
        environment: &EnvironmentView,
        decided: &Decided<'_>,
        asked: SystemTime,
    ) -> Result<Option<Box<Self>>, Failure> {
        let answers = decided.grant.operation().map_or(Tokens::None, |operation| operation.answers);
        if !environment.settings.token_handles || answers == Tokens::None {
            return Ok(None);
        }
        if !at.worker.tokens().broker().is_some_and(|broker| broker.is_open()) {
            return Err(Failure::TokenUnavailable);
        }
        let caller = view.snapshot.admission.callers.name(decided.caller.index());
        let whose = Whose {
            caller: caller.ok_or(Failure::NotReady)?.to_string(),
            environment: environment.settings.name.to_string(),
            host: environment.settings.dial.host.clone(),
            user: decided.end_user.as_deref().map(str::to_owned),
        };
        Ok(Some(Box::new(Self { whose, brings_one: answers == Tokens::New, asked: seconds(asked) })))
    }

    /// Keeps the tokens of `text`, and puts handles in their places. `headers` are the answer's own.
    pub(super) async fn kept(
        &self,
        at: &Connection,
        text: Zeroizing<String>,
        headers: &mut HeaderMap,
    ) -> Result<Kept, End> {
        let found = find(&text, self.asked).map_err(|NotMaskable| Failure::AnswerNotMaskable)?;
        if found.is_empty() {
            return match self.brings_one {
                true => Err(Failure::AnswerNotMaskable.into()),
                false => Ok(Kept { text, count: 0, masked: 0 }),
            };
        }
        // All at once, and before anything can be said of them.
        held().remember(found.iter().map(|one| &one.given.token));
        let broker = at.worker.tokens().broker().ok_or(Failure::TokenUnavailable)?;
        let given = found.iter().map(|one| one.given.clone()).collect();
        let handles = waited(broker.keep(self.whose.clone(), given)).await?;
        let masker = Masker::new(found.iter().map(|one| &*one.given.token));
        let mut text = spliced(&text, &found, &handles).into_bytes();
        let masked = masker.mask(&mut text) + redaction::mask_headers(&masker, headers);
        let text = String::from_utf8(text).map_err(|_| Failure::Internal)?;
        Ok(Kept { text: Zeroizing::new(text), count: found.len(), masked })
    }
}

/// A token in a JSON text.
struct Found {
    /// Where it stands, with its quotation marks.
    place: Range<usize>,
    given: Given,
}

/// The tokens of a JSON text, in the order in which they stand there.
fn find(text: &str, now: u64) -> Result<Vec<Found>, NotMaskable> {
    let value: &RawValue = serde_json::from_str(text).map_err(|_| NotMaskable)?;
    let mut search = Search { text, now, found: Vec::new() };
    search.value(value.get(), &At { is_token: false, ends: None, depth: 0 })?;
    Ok(search.found)
}

struct Search<'t> {
    text: &'t str,
    now: u64,
    found: Vec<Found>,
}

/// Where a value stands.
struct At {
    /// Under a name that tokens have.
    is_token: bool,
    /// When the tokens there end.
    ends: Option<u64>,
    depth: usize,
}

impl<'t> Search<'t> {
    fn value(&mut self, value: &'t str, at: &At) -> Result<(), NotMaskable> {
        if at.depth > DEPTH_MAX {
            return Err(NotMaskable);
        }
        let depth = at.depth + 1;
        match value.as_bytes().first() {
            // An array has no name of its own: what stands in it stands where it stands.
            Some(b'[') => {
                let items: Vec<&'t RawValue> = serde_json::from_str(value).map_err(|_| NotMaskable)?;
                let at = At { depth, ..*at };
                items.into_iter().try_for_each(|item| self.value(item.get(), &at))
            }
            Some(b'{') => {
                let Members(members) = serde_json::from_str(value).map_err(|_| NotMaskable)?;
                let ends = members.iter().find_map(|(name, value)| self.end(name, value)).or(at.ends);
                members.into_iter().try_for_each(|(name, value)| {
                    let is_token = NAMES.iter().any(|one| one.eq_ignore_ascii_case(&name));
                    self.value(value.get(), &At { is_token, ends, depth })
                })
            }
            Some(b'"') if at.is_token => self.token(value, at.ends),
            _ => Ok(()),
        }
    }

    /// Every member of one name counts, as for a mask; an empty text holds nothing.
    fn token(&mut self, value: &'t str, ends: Option<u64>) -> Result<(), NotMaskable> {
        let token: Zeroizing<String> =
            serde_json::from_str(value).map(Zeroizing::new).map_err(|_| NotMaskable)?;
        if token.is_empty() {
            return Ok(());
        }
        let fits = token::is_legal(token.as_bytes());
        let token = Secret::new(token.as_bytes().to_vec()).map_err(|_| NotMaskable)?;
        let place = place(self.text, value).ok_or(NotMaskable)?;
        if !fits || self.found.len() == TOKENS_MAX {
            return Err(NotMaskable);
        }
        self.found.push(Found { place, given: Given { token: Arc::new(token), ends } });
        Ok(())
    }

    /// When the tokens beside a member end, if it says so.
    fn end(&self, name: &str, value: &RawValue) -> Option<u64> {
        let ends = match name {
            "expires_in" => self.now.saturating_add(serde_json::from_str(value.get()).ok()?),
            "expires_at" => match serde_json::from_str(value.get()).ok()? {
                Time::Seconds(ends) => ends,
                Time::Text(text) => seconds(time(&text)?),
            },
            _ => return None,
        };
        Some(ends.min(self.now.saturating_add(token::LIFE_MAX)))
    }
}

/// Where `part`, which is borrowed from `text`, stands in it.
fn place(text: &str, part: &str) -> Option<Range<usize>> {
    let start = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
    let place = start..start.checked_add(part.len())?;
    (text.get(place.clone()) == Some(part)).then_some(place)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Time<'v> {
    Seconds(u64),
    Text(#[serde(borrow)] Cow<'v, str>),
}

/// RFC 3339, which MX writes with an offset and `humantime` reads without one.
fn time(text: &str) -> Option<SystemTime> {
    const OFFSET: usize = "+00:00".len();
    if text.ends_with('Z') {
        return humantime::parse_rfc3339(text).ok();
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(OFFSET)?)?;
    let local = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let offset_seconds = 3600 * hours.parse::<u64>().ok()? + 60 * minutes.parse::<u64>().ok()?;
    let ahead = Duration::from_secs(offset_seconds);
    match offset.as_bytes().first()? {
        b'+' => local.checked_sub(ahead),
        b'-' => local.checked_add(ahead),
        _ => None,
    }
}

/// The members of an object, those of one name too.
struct Members<'v>(Vec<(Cow<'v, str>, &'v RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'v> Visitor<'v> for All {
            type Value = Members<'v>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'v>>(self, mut members: A) -> Result<Members<'v>, A::Error> {
                let mut all = Vec::new();
                while let Some((Name(name), value)) = members.next_entry()? {
                    all.push((name, value));
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// `text` with `handles` in the places of what was found.
fn spliced(text: &str, found: &[Found], handles: &[Handle]) -> String {
    let mut out = String::with_capacity(text.len() + found.len() * 64);
    let mut from = 0;
    for (one, handle) in found.iter().zip(handles) {
        out.push_str(text.get(from..one.place.start).unwrap_or_default());
        out.push('"');
        out.push_str(&handle.text());
        out.push('"');
        from = one.place.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// Which connection a request's handle means, where one may stand; `None`: it shows none.
pub(super) fn shown(headers: &HeaderMap) -> Result<Option<ConnectionId>, Refusal> {
    let has_any = |value: &http::HeaderValue| {
        memchr::memmem::find(value.as_bytes(), handle::PREFIX.as_bytes()).is_some()
    };
    let all = headers.get_all(AUTHORIZATION);
    if !all.iter().any(has_any) {
        return Ok(None);
    }
    let mut values = all.iter();
    // What is meant for one, and is none, gets no other token instead.
    let only = values.next().filter(|_| values.next().is_none()).and_then(|value| value.to_str().ok());
    let (scheme, text) = only.and_then(|value| value.split_once(' ')).ok_or(Refusal::ConnectionDenied)?;
    let handle: Option<Handle> =
        Some(text).filter(|_| scheme.eq_ignore_ascii_case("bearer")).and_then(|text| text.parse().ok());
    handle.map(|handle| Some(handle.id())).ok_or(Refusal::ConnectionDenied)
}

/// Whether a handle stands where it would leave the gateway. (`Authorization` is written anew.)
pub(super) fn stray(headers: &HeaderMap, path_and_query: &str) -> bool {
    let leaves = headers.iter().filter(|(name, _)| **name != AUTHORIZATION);
    handle::is_in(path_and_query.as_bytes())
        || leaves.into_iter().any(|(_, value)| handle::is_in(value.as_bytes()))
}

#[cfg(test)]
mod tests;
