//! Fields of JSON answers that a caller does not get to see.
//!
//! In: an answer's head and body, and the paths that the caller's `mask_fields` lists. Out: the same JSON with those
//! values replaced, everything else byte for byte: numbers keep their digits, keys their order. Whatever cannot be
//! read whole and understood is a failure, never passed on.
//! What must never happen: a value gets through because of how the answer is written: a key twice, a name in escapes,
//! an array in between, another encoding.

use std::{borrow::Cow, fmt, pin::Pin, task::Poll};

use http::{
    HeaderMap, HeaderName,
    header::{
        ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED, TRAILER,
    },
};
use http_body::Body as _;
use serde::{
    Deserializer as _,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::{
    config::FieldPath, gate::inbound::Session, limits::pace::Paced, listener::watch::Expiry,
    refusal::Failure, upstream::exchange::Exchange,
};

/// Larger answers are not masked, and so not passed on.
const BYTES_MAX: usize = 1 << 20;

/// What answers of unknown length have room in: one that grew would leave a copy that nobody wipes.
const USUAL_BYTES: usize = 16 << 10;

/// Values inside values; MX's answers have five.
pub(super) const DEPTH_MAX: usize = 64;

/// What a masked text becomes, whatever it was and however long.
const MASKED_TEXT: &str = "\"********\"";

/// What everything else becomes: a number of asterisks would be no number.
const MASKED: &str = "null";

/// The fields that one caller does not get to see.
#[derive(Debug)]
pub(crate) struct FieldMask(Box<[FieldPath]>);

impl FieldMask {
    /// `None` without any.
    pub(crate) fn new(paths: &[FieldPath]) -> Option<Self> {
        (!paths.is_empty()).then(|| Self(paths.into()))
    }

    /// The text with every value masked that one of the paths leads to.
    pub(crate) fn apply(&self, json: &str) -> Result<String, NotMaskable> {
        let value: &RawValue = serde_json::from_str(json).map_err(|_| NotMaskable)?;
        let mut out = Out(String::with_capacity(json.len()));
        self.write(value.get(), &mut Vec::new(), 0, &mut out)?;
        Ok(out.0)
    }

    /// Writes `value`, which the names of `path` lead to. `value` begins with its first byte: white space is not part
    /// of a raw value.
    fn write<'v>(
        &self,
        value: &'v str,
        path: &mut Vec<Cow<'v, str>>,
        depth: usize,
        out: &mut Out,
    ) -> Result<(), NotMaskable> {
        if depth > DEPTH_MAX {
            return Err(NotMaskable);
        }
        let is_masked = self.0.iter().any(|one| one.ends(path));
        match value.as_bytes().first() {
            // An array has no name of its own: what stands in it stands where it stands.
            Some(b'[') => self.level(value, path, depth, out),
            Some(b'{') if !is_masked => self.level(value, path, depth, out),
            Some(b'"') if is_masked => out.mask(MASKED_TEXT),
            _ if is_masked => out.mask(MASKED),
            _ => {
                out.0.push_str(value);
                Ok(())
            }
        }
    }

    fn level<'v>(
        &self,
        value: &'v str,
        path: &mut Vec<Cow<'v, str>>,
        depth: usize,
        out: &mut Out,
    ) -> Result<(), NotMaskable> {
        let mut reader = serde_json::Deserializer::from_str(value);
        let level = Level { mask: self, path, depth: depth + 1, out };
        reader.deserialize_any(level).and_then(|()| reader.end()).map_err(|_| NotMaskable)
    }
}

/// The answer is no JSON of bounded depth.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotMaskable;

struct Out(String);

impl Out {
    fn separate(&mut self, index: usize) {
        if index > 0 {
            self.0.push(',');
        }
    }

    fn mask(&mut self, instead: &str) -> Result<(), NotMaskable> {
        self.0.push_str(instead);
        Ok(())
    }
}

/// Reads one array or object and writes it. Each member is dealt with as it stands, those of one name too.
struct Level<'w, 'v> {
    mask: &'w FieldMask,
    path: &'w mut Vec<Cow<'v, str>>,
    /// Of the values in it.
    depth: usize,
    out: &'w mut Out,
}

impl<'v> Level<'_, 'v> {
    fn write<E: serde::de::Error>(&mut self, value: &'v RawValue) -> Result<(), E> {
        let written = self.mask.write(value.get(), self.path, self.depth, self.out);
        written.map_err(|NotMaskable| E::custom("not maskable"))
    }
}

impl<'v> Visitor<'v> for Level<'_, 'v> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or an object")
    }

    fn visit_seq<A: SeqAccess<'v>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.out.0.push('[');
        let mut index = 0;
        while let Some(item) = items.next_element::<&'v RawValue>()? {
            self.out.separate(index);
            self.write(item)?;
            index += 1;
        }
        self.out.0.push(']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'v>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.out.0.push('{');
        let mut index = 0;
        while let Some((name, member)) = members.next_entry::<Name<'v>, &'v RawValue>()? {
            self.out.separate(index);
            self.out.0.push_str(&serde_json::to_string(&name.0).map_err(A::Error::custom)?);
            self.out.0.push(':');
            self.path.push(name.0);
            self.write(member)?;
            self.path.pop();
            index += 1;
        }
        self.out.0.push('}');
        Ok(())
    }
}

/// A member's name, without a copy where it has no escapes.
#[derive(serde::Deserialize)]
pub(super) struct Name<'v>(#[serde(borrow)] pub(super) Cow<'v, str>);

/// Reads what is left of `exchange`, so that it can be changed. `headers` are the answer's own, which are made to fit.
pub(crate) async fn whole_answer(
    exchange: &mut Exchange,
    headers: &mut HeaderMap,
    session: &Session,
    idle: std::time::Duration,
    mut paced: Option<Paced>,
) -> Result<Zeroizing<String>, Failure> {
    let announced = exchange.size_hint().lower();
    let too_long = usize::try_from(announced).is_ok_and(|length| length > BYTES_MAX);
    if too_long || !is_json(headers) {
        return Err(Failure::AnswerNotMaskable);
    }
    let room = usize::try_from(announced).ok().filter(|length| *length > 0).unwrap_or(USUAL_BYTES);
    // It may hold tokens that are kept.
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    let mut waiting = false;
    loop {
        let frame = std::future::poll_fn(|cx| {
            if let Some(paced) = &mut paced {
                std::task::ready!(paced.poll(cx, &session.watch));
            }
            let frame = Pin::new(&mut *exchange).poll_frame(cx);
            match &frame {
                Poll::Pending if !waiting => {
                    waiting = true;
                    session.watch.upstream(idle, Expiry::AnswerIdle);
                }
                Poll::Pending => {}
                Poll::Ready(_) => {
                    waiting = false;
                    session.watch.upstream_done();
                }
            }
            frame
        });
        let Some(frame) = frame.await.transpose()? else { break };
        // Trailers end here: nobody knows what stands in them.
        let Ok(data) = frame.into_data() else { continue };
        if let Some(paced) = &paced {
            paced.spend(data.len());
        }
        if body.len() + data.len() > BYTES_MAX {
            return Err(Failure::AnswerNotMaskable);
        }
        body.extend_from_slice(&data);
    }
    describes_no_more(headers);
    let text = String::from_utf8(std::mem::take(&mut *body));
    text.map(Zeroizing::new).map_err(|_| Failure::AnswerNotMaskable)
}

/// Takes out what describes the answer as it was. Its length is written anew.
pub(crate) fn describes_no_more(headers: &mut HeaderMap) {
    const DIGESTS: [&str; 5] = ["digest", "content-digest", "repr-digest", "content-md5", "want-digest"];
    for name in [CONTENT_LENGTH, ETAG, LAST_MODIFIED, ACCEPT_RANGES, CONTENT_RANGE, TRAILER] {
        headers.remove(name);
    }
    DIGESTS.map(HeaderName::from_static).iter().for_each(|name| drop(headers.remove(name)));
}

/// `application/json`, or another type that says it is JSON; said once.
fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::to_str);
    let (Some(Ok(only)), None) = (types.next(), types.next()) else { return false };
    let essence = only.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

#[cfg(test)]
mod tests;
