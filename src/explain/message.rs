//! The two heads of a request: the one that comes, read by the gate's own reader, and the one that would go out.

use http::{HeaderMap, HeaderName, HeaderValue, request};

use super::{MASK, No, Question, Sent};
use crate::{
    config::Config,
    framing::{HeadLimits, request as framed},
    gateway::{Decided, choice::Attached},
    snapshot::Environment,
};

/// The request as hyper would hand it on, or the gate's no.
pub(super) fn head(question: &Question, config: &Config) -> Result<request::Parts, No> {
    let mut text = format!("{} {} HTTP/1.1\r\n", question.method, question.target);
    if !question.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: localhost\r\n");
    }
    for (name, value) in &question.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let bytes = text.as_bytes();
    match framed::scan(bytes, 0, &HeadLimits::from(&config.limits)) {
        Ok(Some(head)) if head.len == bytes.len() => {}
        Ok(_) => return Err(No::malformed("a line break ends the head early")),
        Err(violation) => {
            return Err(No { end: violation.refusal().into(), detail: Some(violation.to_string()) });
        }
    }
    parsed(bytes).ok_or_else(|| No::malformed("it cannot be read as HTTP/1.1"))
}

fn parsed(bytes: &[u8]) -> Option<request::Parts> {
    const FIELDS_MAX: usize = 100;
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut read = httparse::Request::new(&mut fields);
    read.parse(bytes).ok()?;
    let mut headers = HeaderMap::with_capacity(read.headers.len());
    for field in read.headers.iter() {
        headers.append(
            HeaderName::from_bytes(field.name.as_bytes()).ok()?,
            HeaderValue::from_bytes(field.value).ok()?,
        );
    }
    let request = http::Request::builder().method(read.method?).uri(read.path?).body(()).ok()?;
    let mut parts = request.into_parts().0;
    parts.headers = headers;
    Some(parts)
}

/// The head that would go out, compared with the one that came.
pub(super) fn sent(
    decided: &Decided<'_>,
    head: &request::Parts,
    environment: &Environment,
    attached: &Attached<'_>,
) -> Sent {
    let text = decided.head(head, environment, attached).text;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let target = line.split(' ').nth(1).unwrap_or_default();
    let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
    let is_ours = |name: &str| {
        let ours = attached.credential().map(|credential| credential.headers()).unwrap_or_default();
        ours.iter().any(|(own, _)| own.as_str() == name)
    };
    let is_passed_through = |name: &str| attached.credential().is_none() && name == "authorization";
    let is_same = |name: &str, value: &str| {
        head.headers.get_all(name).iter().any(|one| one.as_bytes() == value.as_bytes())
    };
    let kept = |name: &str| fields.iter().any(|(sent, value)| *sent == name && is_same(name, value));
    let received = || head.headers.keys().map(|name| name.as_str().to_owned());
    let added = fields.iter().filter(|(name, value)| !is_same(name, value) || is_ours(name));
    let shown = |(name, value): &(&str, &str)| {
        let is_secret = is_ours(name) || is_passed_through(name);
        ((*name).to_owned(), if is_secret { MASK.to_owned() } else { (*value).to_owned() })
    };
    let query = attached.credential().and_then(crate::credential::Credential::query).unwrap_or_default();
    let names = query.split('&').filter_map(|pair| pair.split('=').next()).filter(|name| !name.is_empty());
    let bare = if query.is_empty() { target } else { target.strip_suffix(query).unwrap_or_default() };
    Sent {
        target: bare.trim_end_matches(['?', '&']).to_owned(),
        query: names.map(str::to_owned).collect(),
        removed: received().filter(|name| !kept(name) && name != "host").collect(),
        added: added.map(shown).collect(),
        kept: received().filter(|name| kept(name)).collect(),
    }
}
