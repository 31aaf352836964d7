//! `credential` and `bearer_operations`: how secrets are attached. What stands where a reference belongs
//! is never repeated.

use http::HeaderName;

use crate::config::{
    BearerOperations, Credential, OAuthGrant,
    fault::Problem,
    walk::{Table, WordOrSection},
};

/// `None` when it is missing or faulty, which was reported.
pub(super) fn credential(environment: &Table<'_>) -> Option<Credential> {
    let (kind, table) = environment.variant("credential")?;
    match kind {
        "bearer" => Some(Credential::Bearer { token: table.reference("token")? }),
        "oauth2" => {
            let provider = table.parsed("provider", |name| Ok(name.to_owned()));
            let grant = match table.choice("grant") {
                "client_credentials" => OAuthGrant::ClientCredentials,
                _ => OAuthGrant::AuthorizationCode,
            };
            Some(Credential::OAuth2 { provider: provider?, grant })
        }
        "header" => {
            let name = table.parsed("name", header_name);
            let prefix = table.parsed("prefix", header_prefix);
            let value = table.reference("value");
            Some(Credential::Header { name: name?, prefix: prefix?, value: value? })
        }
        _ => with_client_id(kind, &table),
    }
}

/// The kinds that are a pair of `client_id` and `api_key`.
fn with_client_id(kind: &str, table: &Table<'_>) -> Option<Credential> {
    let client_id = table.parsed("client_id", |text| client_id(text, kind == "basic"));
    let api_key = table.reference("api_key");
    let secondary_api_key = table.reference("secondary_api_key");
    if api_key.is_some() && api_key == secondary_api_key {
        let problem = Problem::new("is the same as api_key");
        table.fault("secondary_api_key", problem.allowed("expected another place, for a second key"));
    }
    if kind == "query" {
        let names = (table.parsed("client_id_name", query_name), table.parsed("api_key_name", query_name));
        let (client_id_name, api_key_name) = (names.0?, names.1?);
        if client_id_name == api_key_name {
            table.fault("api_key_name", "is the same as client_id_name");
        }
        return Some(Credential::Query {
            client_id: client_id?,
            api_key: api_key?,
            secondary_api_key,
            client_id_name,
            api_key_name,
        });
    }
    let (client_id, api_key) = (client_id?, api_key?);
    Some(match kind {
        "api-key" => Credential::ApiKey { client_id, api_key, secondary_api_key },
        "mx-api-key" => Credential::MxApiKey { client_id, api_key, secondary_api_key },
        _ => Credential::Basic { client_id, api_key, secondary_api_key },
    })
}

/// `None` when it is faulty, which was reported.
pub(super) fn bearer_operations(environment: &Table<'_>) -> Option<BearerOperations> {
    match environment.word_or_section("bearer_operations")? {
        WordOrSection::Word("pass-through") => Some(BearerOperations::PassThrough),
        WordOrSection::Word(_) => Some(BearerOperations::Refused),
        WordOrSection::Section(table) => {
            let provider = table.parsed("provider", |name| Ok(name.to_owned()));
            match (table.reference("token"), provider) {
                (Some(_), Some(_)) => {
                    let problem = Problem::new("stands beside token").allowed("write one of both");
                    table.fault("provider", problem);
                    None
                }
                (token, provider) => {
                    if !table.has("token") && !table.has("provider") {
                        let allowed = "a token of its own, or the provider whose connections have them";
                        table.fault("token", Problem::new("is required without provider").allowed(allowed));
                    }
                    token.map(BearerOperations::Token).or_else(|| provider.map(BearerOperations::Provider))
                }
            }
        }
    }
}

/// An identifier that a header takes as it is; for Basic without a colon, at which the pair is split
/// again (RFC 7617, section 2).
pub(super) fn client_id(text: &str, basic: bool) -> Result<String, Problem> {
    let allowed = "expected printable ASCII without spaces";
    match text {
        "" => Err(Problem::new("is empty").allowed(allowed)),
        _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(Problem::new("holds a space, a control character or one outside ASCII").allowed(allowed))
        }
        _ if basic && text.contains(':') => {
            Err(Problem::new("holds a colon").allowed("Basic authentication would split the pair there"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// Fields that frame a message, choose its receiver or concern one connection only (RFC 9110, section
/// 7.6.1; RFC 9112, sections 6 and 9), and two that the gateway itself sets on every request.
const NEVER_A_CREDENTIAL: [&str; 20] = [
    "accept",
    "accept-encoding",
    "accept-version",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

pub(super) fn header_name(text: &str) -> Result<HeaderName, Problem> {
    let malformed =
        |_| Problem::new("is not a header name").allowed("letters, digits and -, such as \"MD-API-KEY\"");
    let name = text.parse::<HeaderName>().map_err(malformed)?;
    match NEVER_A_CREDENTIAL.contains(&name.as_str()) {
        true => Err("frames, routes or negotiates the message; a credential cannot stand there".into()),
        false => Ok(name),
    }
}

fn header_prefix(text: &str) -> Result<String, Problem> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    match printable && !text.starts_with(' ') {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("is no beginning of a header value")
            .allowed("expected printable ASCII, no space first")),
    }
}

/// A name that needs no percent-encoding (RFC 3986, section 2.3).
fn query_name(text: &str) -> Result<String, Problem> {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    // The caller's own is looked for as lax servers read names: without what is no letter at the edges.
    let edge = |text: Option<&u8>| text.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    match edge(bytes.first()) && edge(bytes.last()) && text.bytes().all(unreserved) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("is not a parameter name")
            .allowed("letters, digits, - . _ ~, with a letter or digit at each end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_fits_a_header_and_a_basic_pair() {
        for text in ["CLIENT-ID", "a/b+c=d"] {
            assert!(client_id(text, true).is_ok(), "{text}");
        }
        assert!(client_id("a:b", false).is_ok());
        assert!(client_id("a:b", true).is_err());
        for text in ["", "a b", "a\nb", "ä", "a\u{7f}"] {
            assert!(client_id(text, false).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_credential_header_does_not_frame_or_route() {
        assert_eq!(header_name("MD-API-KEY").unwrap(), "md-api-key");
        assert_eq!(header_name("Authorization").unwrap(), "authorization");
        for text in ["Host", "Content-Length", "TRANSFER-ENCODING", "te", "Upgrade", "a b", "a:b", ""] {
            assert!(header_name(text).is_err(), "{text}");
        }
        for text in NEVER_A_CREDENTIAL {
            assert!(header_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prefixes_and_parameter_names_need_no_encoding() {
        assert!(header_prefix("").is_ok() && header_prefix("Token ").is_ok());
        assert!(
            header_prefix(" x").is_err()
                && header_prefix("a\r\nb: c").is_err()
                && header_prefix("ä").is_err()
        );
        assert!(query_name("k").is_ok() && query_name("api_key").is_ok());
        assert!(query_name("").is_err() && query_name("a=b").is_err() && query_name("a%41").is_err());
    }
}
