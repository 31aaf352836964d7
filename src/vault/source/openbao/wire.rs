//! What is sent to OpenBao and what comes back, in the forms of its API (HashiCorp Vault has the same).
//!
//! In: a call. Out: a request with the token and the namespace in the fields that they belong in; and from an answer
//! the parts that are wanted, borrowed from the one buffer that is wiped.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::fault::Fault;
use crate::{
    config::OpenBao,
    https::{Answer, Bounds, Server},
    tls,
    vault::secret::Secret,
};

/// One answer, a document with its metadata. An entry may be as large as any secret file, and its own metadata is
/// smaller than that.
const ANSWER_BYTES_MAX: usize = 2 * crate::vault::source::file::SECRET_BYTES_MAX;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// A proxy that asks for it is protected against requests that somebody else made us send.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// One request.
pub(crate) struct Call {
    pub(super) method: Method,
    /// Below `/v1/`, percent-encoded.
    pub(super) path: String,
    pub(super) token: Option<Arc<Secret>>,
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
}

/// Somebody who answers calls: a server, or a test.
pub(crate) trait Exchange: Send + Sync + 'static {
    fn exchange(&self, call: Call) -> impl Future<Output = Result<Answer, Fault>> + Send;
}

/// The configured server.
pub(crate) struct Remote {
    settings: OpenBao,
    made: Mutex<Option<Made>>,
}

/// A server, and the text of `ca_file` that it believes.
struct Made {
    server: Arc<Server>,
    pem: Option<Vec<u8>>,
}

impl Remote {
    pub(super) fn new(settings: OpenBao) -> Self {
        Self { settings, made: Mutex::default() }
    }

    /// Made anew when `ca_file` has changed.
    fn server(&self) -> Result<Arc<Server>, Fault> {
        let OpenBao { host, port, ca_file, .. } = &self.settings;
        let pem = ca_file.as_deref().map(tls::read).transpose()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = made.as_ref().filter(|made| made.pem == pem) {
            return Ok(same.server.clone());
        }
        let authority: Option<(&Path, &[u8])> = ca_file.as_deref().zip(pem.as_deref());
        let server = Arc::new(match self.settings.tls {
            true => Server::over_tls(host, *port, authority, self.bounds())?,
            false => Server::plain(host, *port, self.bounds())?,
        });
        *made = Some(Made { server: server.clone(), pem });
        Ok(server)
    }

    fn bounds(&self) -> Bounds {
        let OpenBao { connect_timeout, read_timeout, .. } = self.settings;
        Bounds { connect: connect_timeout, answer: read_timeout, answer_bytes_max: ANSWER_BYTES_MAX }
    }

    fn request(&self, call: Call) -> Result<Request<Full<Bytes>>, http::Error> {
        let request = Request::builder().method(call.method).uri(format!("/v1/{}", call.path));
        let body = call.body.map_or_else(Bytes::new, Bytes::from_owner);
        let is_json = !body.is_empty();
        let mut request = request.header(REQUEST, "true").body(Full::new(body))?;
        let headers = request.headers_mut();
        if let Some(namespace) = &self.settings.namespace {
            headers.insert(NAMESPACE, HeaderValue::from_str(namespace)?);
        }
        if let Some(token) = &call.token {
            headers.insert(TOKEN, token_value(token)?);
        }
        if is_json {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Ok(request)
    }
}

impl Exchange for Remote {
    async fn exchange(&self, call: Call) -> Result<Answer, Fault> {
        let server = self.server()?;
        let request = self.request(call).map_err(crate::https::Error::from)?;
        Ok(server.exchange(request).await?)
    }
}

/// Marked sensitive, in bytes that are wiped.
#[expect(clippy::disallowed_methods, reason = "puts the token into the header that carries it")]
fn token_value(token: &Secret) -> Result<HeaderValue, http::Error> {
    let bytes = Bytes::from_owner(Zeroizing::new(token.expose().to_vec()));
    let mut value = HeaderValue::from_maybe_shared(bytes)?;
    value.set_sensitive(true);
    Ok(value)
}

/// A token that was given, or looked at, or renewed.
pub(super) struct Granted<'a> {
    pub(super) token: &'a str,
    /// `None`: it does not end.
    pub(super) life: Option<Duration>,
    pub(super) renewable: bool,
}

/// No token is planned for longer than that, so that no sum of times overflows.
const LIFE_MAX: u64 = 10 * 365 * 24 * 3600;

fn life(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds.min(LIFE_MAX)))
}

/// What a login or a renewal gave.
pub(super) fn granted(answer: &Answer) -> Result<Granted<'_>, Fault> {
    #[derive(Deserialize)]
    struct Written<'a> {
        #[serde(borrow)]
        auth: Option<Auth<'a>>,
    }
    #[derive(Deserialize)]
    struct Auth<'a> {
        client_token: &'a str,
        lease_duration: u64,
        renewable: bool,
    }
    let malformed = Fault::Malformed("a login");
    let Ok(Written { auth: Some(auth) }) = serde_json::from_slice(&answer.body) else {
        return Err(malformed);
    };
    Ok(Granted { token: auth.client_token, life: life(auth.lease_duration), renewable: auth.renewable })
}

/// What a token is told of itself: how long it lives, and whether it may be renewed.
pub(super) fn looked_up(answer: &Answer) -> Result<(Option<Duration>, bool), Fault> {
    #[derive(Deserialize)]
    struct Written {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        ttl: u64,
        expire_time: Option<IgnoredAny>,
        // A root token is told nothing of it.
        #[serde(default)]
        renewable: bool,
    }
    let written: Result<Written, _> = serde_json::from_slice(&answer.body);
    let Written { data } = written.map_err(|_| Fault::Malformed("a look-up of the token"))?;
    // In its last second, 0 means another thing than without an end.
    let ends = data.expire_time.is_some();
    Ok((life(data.ttl).or(ends.then_some(Duration::ZERO)), data.renewable))
}

/// One version of an entry.
pub(super) struct Entry<'a> {
    /// A JSON object; `None` when the version is deleted or destroyed.
    pub(super) document: Option<&'a str>,
    pub(super) version: u64,
    pub(super) written: Option<SystemTime>,
}

/// What a read gave. A deleted version comes with status 404 and its metadata.
pub(super) fn entry(answer: &Answer) -> Result<Entry<'_>, Fault> {
    #[derive(Deserialize)]
    struct Written<'a> {
        #[serde(borrow)]
        data: Data<'a>,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        data: Option<&'a RawValue>,
        metadata: Metadata,
    }
    if !matches!(answer.status, StatusCode::OK | StatusCode::NOT_FOUND) {
        return Err(Fault::of(answer));
    }
    let found: Result<Written<'_>, _> = serde_json::from_slice(&answer.body);
    match (found, answer.status) {
        (Ok(Written { data: Data { data, metadata } }), StatusCode::OK) if data.is_none_or(is_object) => {
            let (version, written) = (metadata.version, metadata.written());
            Ok(Entry { document: data.map(RawValue::get), version, written })
        }
        (Ok(Written { data: Data { data: None, metadata } }), StatusCode::NOT_FOUND) => {
            Ok(Entry { document: None, version: metadata.version, written: metadata.written() })
        }
        (_, StatusCode::NOT_FOUND) => Err(Fault::of(answer)),
        _ => Err(Fault::Malformed("a read")),
    }
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    created_time: Option<String>,
}

impl Metadata {
    fn written(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(self.created_time.as_deref()?).ok()
    }
}

/// The version that a write made.
pub(super) fn stored(answer: &Answer) -> Result<u64, Fault> {
    #[derive(Deserialize)]
    struct Written {
        data: Metadata,
    }
    let written: Result<Written, _> = serde_json::from_slice(&answer.body);
    written.map(|written| written.data.version).map_err(|_| Fault::Malformed("a write"))
}

/// A document to write, if its newest version is `cas`.
pub(super) fn to_write(document: &[u8], cas: u64) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let text: Result<&RawValue, _> = serde_json::from_slice(document);
    let text = text.ok().filter(|text| is_object(text)).ok_or(Fault::Unwritable)?.get();
    let (head, tail) = (format!("{{\"options\":{{\"cas\":{cas}}},\"data\":"), "}");
    // Room for all of it beforehand: growing would leave an unwiped copy behind.
    let mut body = Zeroizing::new(Vec::with_capacity(head.len() + text.len() + tail.len()));
    for part in [&head, text, tail] {
        body.extend_from_slice(part.as_bytes());
    }
    Ok(body)
}

fn is_object(text: &RawValue) -> bool {
    text.get().starts_with('{')
}

/// A JSON object of texts that may be secrets.
#[expect(clippy::disallowed_methods, reason = "puts the secret into the body of the login that it is for")]
pub(super) fn login_body(
    names: &[(&str, &str)],
    secret: (&str, &Secret),
) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let unfit = |_| Fault::LoginText;
    let value = std::str::from_utf8(secret.1.expose()).map_err(unfit)?;
    let last = (secret.0, value);
    let all = names.iter().chain([&last]);
    // An escape of JSON makes six bytes of one.
    let room = all.clone().map(|(name, value)| 6 * (name.len() + value.len()) + 6).sum::<usize>();
    let mut body = Zeroizing::new(Vec::with_capacity(room + 2));
    body.push(b'{');
    for (index, (name, value)) in all.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        serde_json::to_writer(&mut *body, name).map_err(|_| Fault::LoginText)?;
        body.push(b':');
        serde_json::to_writer(&mut *body, value).map_err(|_| Fault::LoginText)?;
    }
    body.push(b'}');
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), body: body.as_bytes().to_vec().into() }
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.into()).unwrap()
    }

    #[test]
    fn an_entry_is_read_as_it_is_written() {
        let body = r#"{"data":{"data":{"a": "b\u00e9", "n":1.50},"metadata":{"version":7,"destroyed":false}},"auth":null}"#;
        let answer = answer(200, body);
        let entry = entry(&answer).unwrap();
        assert_eq!((entry.document, entry.version), (Some(r#"{"a": "b\u00e9", "n":1.50}"#), 7));
    }

    #[test]
    fn a_deleted_version_is_no_document_and_keeps_its_number() {
        let body = r#"{"data":{"data":null,"metadata":{"version":3,"deletion_time":"2026-11-29T23:07:12Z","destroyed":false}}}"#;
        for status in [404, 200] {
            let answer = answer(status, body);
            let entry = entry(&answer).unwrap();
            assert_eq!((entry.document, entry.version), (None, 3), "{status}");
        }
    }

    #[test]
    fn what_is_no_entry_is_a_fault_and_not_absent() {
        for body in [
            "",
            "<html>",
            "{}",
            r#"{"data":null}"#,
            r#"{"data":{"api_key":"of KV version 1"}}"#,
            r#"{"data":{"data":"text","metadata":{"version":1}}}"#,
            r#"{"data":{"data":[1],"metadata":{"version":1}}}"#,
            r#"{"data":{"data":{"a":"b"},"metadata":{"version":-1}}}"#,
            r#"{"data":{"data":{"a":"b"},"metadata":{"version":1}}"#,
        ] {
            assert!(matches!(entry(&answer(200, body)), Err(Fault::Malformed(_))), "{body}");
            assert!(!matches!(entry(&answer(404, body)), Ok(_) | Err(Fault::Absent)), "{body}");
        }
        // A document with the status of an absent one.
        let both = r#"{"data":{"data":{"a":"b"},"metadata":{"version":1}}}"#;
        assert!(matches!(entry(&answer(404, both)), Err(Fault::Unexpected(_))));
    }

    #[test]
    fn a_login_gives_a_token_for_a_time() {
        let answer =
            answer(200, r#"{"auth":{"client_token":"s.token","lease_duration":60,"renewable":true}}"#);
        let granted = granted(&answer).unwrap();
        assert_eq!(granted.token, "s.token");
        assert_eq!((granted.life, granted.renewable), (Some(Duration::from_secs(60)), true));
    }

    #[test]
    fn a_token_without_an_end_and_one_with_an_absurd_one() {
        let token = |seconds: u64| {
            let body =
                format!(r#"{{"auth":{{"client_token":"t","lease_duration":{seconds},"renewable":false}}}}"#);
            granted(&answer(200, &body)).unwrap().life
        };
        assert_eq!(token(0), None);
        assert_eq!(token(u64::MAX), Some(Duration::from_secs(LIFE_MAX)));
    }

    #[test]
    fn what_is_no_login_is_refused() {
        for body in ["", "{}", r#"{"auth":null}"#, r#"{"auth":{"client_token":"t"}}"#, "[]"] {
            assert!(matches!(granted(&answer(200, body)), Err(Fault::Malformed(_))), "{body}");
            assert!(matches!(looked_up(&answer(200, body)), Err(Fault::Malformed(_))), "{body}");
        }
    }

    #[test]
    fn a_token_is_told_its_life() {
        let of = |body: &str| looked_up(&answer(200, body)).unwrap();
        assert_eq!(of(r#"{"data":{"ttl":59,"renewable":true}}"#), (Some(Duration::from_secs(59)), true));
        assert_eq!(of(r#"{"data":{"ttl":0,"id":"root","expire_time":null}}"#), (None, false));
        let last = of(r#"{"data":{"ttl":0,"expire_time":"2026-11-29T23:08:11Z","renewable":true}}"#);
        assert_eq!(last, (Some(Duration::ZERO), true));
    }

    #[test]
    fn a_document_is_written_as_it_is_if_nobody_else_wrote() {
        let body = to_write(br#" {"a": "b"} "#, 4).unwrap();
        assert_eq!(std::str::from_utf8(&body).unwrap(), r#"{"options":{"cas":4},"data":{"a": "b"}}"#);
        assert_eq!(body.capacity(), body.len());
        for document in ["", "text", "[]", "\"a\"", "{", "{}{}"] {
            assert!(matches!(to_write(document.as_bytes(), 0), Err(Fault::Unwritable)), "{document}");
        }
        assert_eq!(stored(&answer(200, r#"{"data":{"version":5,"destroyed":false}}"#)).unwrap(), 5);
        assert!(stored(&answer(200, "{}")).is_err());
    }

    #[test]
    fn a_login_sends_what_it_is_given_and_never_grows() {
        let body = login_body(&[("role_id", "a\"b")], ("secret_id", &secret("top-secret\\"))).unwrap();
        assert_eq!(std::str::from_utf8(&body).unwrap(), r#"{"role_id":"a\"b","secret_id":"top-secret\\"}"#);
        let odd = secret(&"\"".repeat(5000));
        let body = login_body(&[], ("jwt", &odd)).unwrap();
        assert!(body.len() <= body.capacity() && body.capacity() <= 6 * 5003 + 8, "{}", body.capacity());
        let bytes = Secret::new(vec![0xff; 9]).unwrap();
        assert!(matches!(login_body(&[], ("jwt", &bytes)), Err(Fault::LoginText)));
    }
}
