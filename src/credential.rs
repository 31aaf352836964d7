//! How secrets are attached to a request.
//!
//! In: a reference's secret, once, when the snapshot is built. Out: the fields, or the part of a query,
//! that carry it in every request with a `Grant`. Header values are made
//! ready beforehand, are marked sensitive and own bytes that are wiped on drop.
//!
//! What must never happen: a credential is attached without a `Grant` or an `Errand`, or sent to a host that its secret
//! is not sealed for (checked when the snapshot is built, since an environment has one host).

pub(crate) mod confirm;
pub(crate) mod preference;

use std::{rc::Rc, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};
use zeroize::Zeroizing;

use crate::{
    config,
    record::UsedCredential,
    redaction::Masker,
    vault::{
        freshness::{Deadline, Moment, Term},
        reference::Reference,
        secret::Secret,
    },
};

/// A credential made ready: what is put on the wire, and how its secret is found in an answer.
#[derive(Debug)]
pub(crate) struct Prepared {
    used: UsedCredential,
    deadline: Arc<Deadline>,
    masker: Masker,
    headers: Vec<(HeaderName, HeaderValue)>,
    query: Option<Zeroizing<String>>,
}

/// One worker's own copy of a [`Prepared`] credential, so that no request counts references on a line
/// that another core writes.
#[derive(Debug)]
pub(crate) struct Credential {
    /// The reference and the secret's fingerprint, for records.
    pub(crate) used: Rc<UsedCredential>,
    term: Rc<Term>,
    masker: Arc<Masker>,
    headers: Vec<(HeaderName, HeaderValue)>,
    query: Option<Zeroizing<String>>,
}

/// Why a secret cannot be used as this kind of credential.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("holds bytes that no header may carry")]
    NotAHeaderValue,
}

impl Prepared {
    /// Puts the wire form together. `reference` is where `secret` comes from.
    pub(crate) fn prepare(
        kind: &config::Credential,
        reference: &Reference,
        secret: &Secret,
    ) -> Result<Self, Unusable> {
        let mut headers = Vec::with_capacity(2);
        let mut query = None;
        match kind {
            config::Credential::Basic { client_id, .. } => {
                headers.push((AUTHORIZATION, basic(client_id, secret)?));
            }
            config::Credential::ApiKey { client_id, .. } => {
                headers.push((AUTHORIZATION, value("API_KEY ", secret)?));
                headers.push((MX_CLIENT_ID, plain(client_id)?));
            }
            config::Credential::MxApiKey { client_id, .. } => {
                headers.push((MX_API_KEY, value("", secret)?));
                headers.push((MX_CLIENT_ID, plain(client_id)?));
            }
            config::Credential::Query { client_id, client_id_name, api_key_name, .. } => {
                query = Some(query_pairs(client_id_name, client_id, api_key_name, secret));
            }
            config::Credential::Bearer { .. } | config::Credential::OAuth2 { .. } => {
                headers.push((AUTHORIZATION, value("Bearer ", secret)?));
            }
            config::Credential::Header { name, prefix, .. } => {
                headers.push((name.clone(), value(prefix, secret)?));
            }
        }
        Ok(Self {
            used: UsedCredential::new(&reference.to_string(), secret.fingerprint()),
            deadline: Arc::new(Deadline::never()),
            masker: Masker::new([secret]),
            headers,
            query,
        })
    }

    /// An access token. `name` says in records whose it is.
    pub(crate) fn access_token(name: &str, secret: &Secret) -> Result<Self, Unusable> {
        Ok(Self {
            used: UsedCredential::new(name, secret.fingerprint()),
            deadline: Arc::new(Deadline::never()),
            masker: Masker::new([secret]),
            headers: vec![(AUTHORIZATION, value("Bearer ", secret)?)],
            query: None,
        })
    }

    /// From now on answers to either are searched for both: one to the second may hold the first.
    pub(crate) fn mask_together(pair: [&mut Self; 2], secrets: [&Secret; 2]) {
        let masker = Masker::new(secrets);
        pair.into_iter().for_each(|one| one.masker = masker.clone());
    }

    /// The same, to be used until then.
    pub(crate) fn until(self, deadline: Arc<Deadline>) -> Self {
        Self { deadline, ..self }
    }

    /// Whether it may be used no longer.
    pub(crate) fn is_over(&self) -> bool {
        self.deadline.has_passed(Moment::now)
    }

    /// What tells this version of the secret from others.
    pub(crate) fn used(&self) -> &UsedCredential {
        &self.used
    }

    /// Whether a server could find this credential in a header of that name (lower case), `_` and `-` alike.
    pub(crate) fn travels_under(&self, name: &str) -> bool {
        self.headers.iter().any(|(own, _)| is_look_alike(own, name))
    }

    /// A deep copy for one worker.
    pub(crate) fn for_worker(&self) -> Credential {
        let copy = |(name, value): &(HeaderName, HeaderValue)| {
            let bytes = Zeroizing::new(value.as_bytes().to_vec());
            let copied = wiped_value(bytes, value.is_sensitive());
            // The same bytes were a header value before, so this cannot fail.
            (name.clone(), copied.unwrap_or_else(|_| value.clone()))
        };
        Credential {
            used: Rc::new(self.used.clone()),
            term: Rc::new(Term(self.deadline.clone())),
            masker: Arc::new(self.masker.clone()),
            headers: self.headers.iter().map(copy).collect(),
            query: self.query.clone(),
        }
    }
}

/// Whether a server could take `name` (lower case) for `own`, `_` and `-` alike.
pub(crate) fn is_look_alike(own: &HeaderName, name: &str) -> bool {
    let folded = |byte: u8| if byte == b'_' { b'-' } else { byte };
    own.as_str().len() == name.len() && own.as_str().bytes().map(folded).eq(name.bytes().map(folded))
}

impl Credential {
    /// When it may be used no longer.
    pub(crate) fn term(&self) -> &Rc<Term> {
        &self.term
    }

    /// Finds the secret in an answer.
    pub(crate) fn masker(&self) -> Arc<Masker> {
        self.masker.clone()
    }

    /// The header form; whatever the caller sent under these names does not leave the gateway.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The query form: `api_key=...&client_id=...`.
    pub(crate) fn query(&self) -> Option<&str> {
        self.query.as_ref().map(|pairs| pairs.as_str())
    }

    /// `kept`, a target that holds no credential, with the query form behind it, in parts.
    pub(crate) fn target<'t>(&'t self, kept: &'t str) -> [&'t str; 3] {
        let Some(ours) = self.query() else { return [kept, "", ""] };
        // Only the first question mark begins the query.
        let joint = match kept.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        [kept, joint, ours]
    }
}

/// MX's own header names (overview; Atrium).
pub(crate) const MX_API_KEY: HeaderName = HeaderName::from_static("mx-api-key");
pub(crate) const MX_CLIENT_ID: HeaderName = HeaderName::from_static("mx-client-id");

/// Basic authentication (RFC 7617).
#[expect(clippy::disallowed_methods, reason = "puts the secret into the header that carries it")]
pub(crate) fn basic(client_id: &str, secret: &Secret) -> Result<HeaderValue, Unusable> {
    let mut pair = Zeroizing::new(Vec::with_capacity(client_id.len() + 1 + secret.expose().len()));
    pair.extend_from_slice(client_id.as_bytes());
    pair.push(b':');
    pair.extend_from_slice(secret.expose());
    // Room for the whole text beforehand: growing would leave an unwiped copy behind.
    let mut text = String::with_capacity("Basic ".len() + pair.len().div_ceil(3) * 4);
    text.push_str("Basic ");
    STANDARD.encode_string(pair.as_slice(), &mut text);
    wiped_value(Zeroizing::new(text.into_bytes()), true)
}

#[expect(clippy::disallowed_methods, reason = "puts the secret into the header that carries it")]
fn value(prefix: &str, secret: &Secret) -> Result<HeaderValue, Unusable> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(prefix.len() + secret.expose().len()));
    bytes.extend_from_slice(prefix.as_bytes());
    bytes.extend_from_slice(secret.expose());
    wiped_value(bytes, true)
}

fn plain(text: &str) -> Result<HeaderValue, Unusable> {
    HeaderValue::from_str(text).map_err(|_| Unusable::NotAHeaderValue)
}

/// A header value over bytes that are wiped when the last clone is dropped.
fn wiped_value(bytes: Zeroizing<Vec<u8>>, sensitive: bool) -> Result<HeaderValue, Unusable> {
    let mut value =
        HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).map_err(|_| Unusable::NotAHeaderValue)?;
    value.set_sensitive(sensitive);
    Ok(value)
}

#[expect(clippy::disallowed_methods, reason = "puts the secret into the query that carries it")]
fn query_pairs(id_name: &str, id: &str, key_name: &str, secret: &Secret) -> Zeroizing<String> {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
    const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let longest = id_name.len() + id.len() + key_name.len() + secret.expose().len();
    let mut pairs = Zeroizing::new(String::with_capacity(3 * longest + 3));
    let mut push = |name: &str, value: &[u8]| {
        if !pairs.is_empty() {
            pairs.push('&');
        }
        pairs.extend(percent_encode(name.as_bytes(), UNRESERVED));
        pairs.push('=');
        pairs.extend(percent_encode(value, UNRESERVED));
    };
    push(key_name, secret.expose());
    push(id_name, id.as_bytes());
    pairs
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::vault::reference::Reference;

    fn prepared(kind: &config::Credential) -> Prepared {
        let secret = Secret::new(b"k3y/with+odd=chars".to_vec()).unwrap();
        Prepared::prepare(kind, kind.reference().unwrap(), &secret).unwrap()
    }

    fn sent(kind: &config::Credential) -> HeaderMap {
        prepared(kind).for_worker().headers().iter().cloned().collect()
    }

    fn api_key() -> Reference {
        "vault:sandbox/api_key".parse().unwrap()
    }

    #[test]
    fn basic_is_the_pair_in_standard_base64() {
        let headers = sent(&config::Credential::Basic {
            client_id: "client".into(),
            api_key: api_key(),
            secondary_api_key: None,
        });
        let value = headers.get(AUTHORIZATION).unwrap();
        let pair = STANDARD.decode(&value.as_bytes()["Basic ".len()..]).unwrap();
        assert_eq!(pair, b"client:k3y/with+odd=chars");
        assert!(value.is_sensitive(), "a debug print would show it");
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn api_key_and_mx_api_key_name_the_client_beside_the_key() {
        let headers = sent(&config::Credential::ApiKey {
            client_id: "c".into(),
            api_key: api_key(),
            secondary_api_key: None,
        });
        assert_eq!(headers[AUTHORIZATION], "API_KEY k3y/with+odd=chars");
        assert_eq!(headers["mx-client-id"], "c");
        let headers = sent(&config::Credential::MxApiKey {
            client_id: "c".into(),
            api_key: api_key(),
            secondary_api_key: None,
        });
        assert_eq!(headers["mx-api-key"], "k3y/with+odd=chars");
        assert_eq!(headers["mx-client-id"], "c");
        assert!(!headers.contains_key(AUTHORIZATION));
    }

    #[test]
    fn bearer_and_header_carry_the_value_after_their_prefix() {
        let headers = sent(&config::Credential::Bearer { token: api_key() });
        assert_eq!(headers[AUTHORIZATION], "Bearer k3y/with+odd=chars");
        let headers = sent(&config::Credential::Header {
            name: HeaderName::from_static("md-session-token"),
            prefix: "T ".into(),
            value: api_key(),
        });
        assert_eq!(headers["md-session-token"], "T k3y/with+odd=chars");
    }

    #[test]
    fn query_values_are_percent_encoded() {
        let credential = prepared(&config::Credential::Query {
            client_id: "a b".into(),
            api_key: api_key(),
            secondary_api_key: None,
            client_id_name: "c".into(),
            api_key_name: "k".into(),
        });
        assert_eq!(credential.for_worker().query(), Some("k=k3y%2Fwith%2Bodd%3Dchars&c=a%20b"));
        assert!(credential.headers.is_empty());
    }

    #[test]
    fn a_query_credential_is_joined_to_any_target() {
        let query = config::Credential::Query {
            client_id: "c".into(),
            api_key: api_key(),
            secondary_api_key: None,
            client_id_name: "i".into(),
            api_key_name: "k".into(),
        };
        let (query, bearer) = (prepared(&query), prepared(&config::Credential::Bearer { token: api_key() }));
        let (query, bearer) = (query.for_worker(), bearer.for_worker());
        let ours = "k=k3y%2Fwith%2Bodd%3Dchars&i=c";
        for (kept, joint) in [("/a", "?"), ("/a?", ""), ("/a?b", "&"), ("/a?b?", "&"), ("/a??", "&")] {
            assert_eq!(query.target(kept), [kept, joint, ours]);
            assert_eq!(bearer.target(kept), [kept, "", ""]);
        }
    }

    #[test]
    fn a_header_credential_is_known_by_its_name_and_look_alikes() {
        let credential = prepared(&config::Credential::Header {
            name: HeaderName::from_static("x-own_key"),
            prefix: String::new(),
            value: api_key(),
        });
        for (name, is_own) in
            [("x-own_key", true), ("x_own-key", true), ("x-own-keys", false), ("x-own", false)]
        {
            assert_eq!(credential.travels_under(name), is_own, "{name}");
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let shown = format!(
            "{:?}",
            prepared(&config::Credential::Basic {
                client_id: "c".into(),
                api_key: api_key(),
                secondary_api_key: None
            })
        );
        assert!(!shown.contains("k3y"), "{shown}");
        assert!(!shown.contains(&STANDARD.encode("c:k3y/with+odd=chars")), "{shown}");
    }
}
