//! What was received, told back.

use bytes::Bytes;
use http::HeaderValue;
use serde_json::{Value, json};

use super::{credentials, journal::Request, options::Environment};

/// The longest body that an echo repeats; of longer ones it tells the length only.
const ECHO_BODY_BYTES_MAX: usize = 64 << 10;

/// `request` as JSON; with `mask`, without the values that are credentials.
pub(super) fn echo(request: &Request, environment: &Environment, mask: bool) -> Bytes {
    let is_secret = |name: &str| {
        let mut names = credentials::credential_headers(environment);
        mask && names.any(|secret| secret.as_str().eq_ignore_ascii_case(name))
    };
    let headers: Vec<Value> = fields(request)
        .into_iter()
        .map(
            |(name, value)| {
                if is_secret(&name) { json!([name, masked(&value)]) } else { json!([name, value]) }
            },
        )
        .collect();
    let target = match request.target.split_once('?') {
        Some((path, query)) if mask => format!("{path}?{}", masked_query(query, environment)),
        _ => request.target.clone(),
    };
    let text = Some(&request.body).filter(|body| body.len() <= ECHO_BODY_BYTES_MAX);
    json!({
        "method": request.method.as_str(),
        "target": target,
        "headers": headers,
        "body": text.map(|body| String::from_utf8_lossy(body)),
        "body_bytes": request.body.len(),
        "connection": request.connection,
        "sni": request.sni,
    })
    .to_string()
    .into()
}

/// The header fields in order, as they were on the wire where that is known.
fn fields(request: &Request) -> Vec<(String, String)> {
    if request.head.is_empty() {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        return request.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    }
    let head = String::from_utf8_lossy(&request.head);
    let lines = head.split("\r\n").skip(1).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim().to_owned())
        })
        .collect()
}

/// The scheme stays: it is no secret, and shows that the gateway did its work.
fn masked(value: &str) -> String {
    match value.split_once(' ') {
        Some((scheme, _)) => format!("{scheme} (hidden)"),
        None => "(hidden)".to_owned(),
    }
}

fn masked_query(query: &str, environment: &Environment) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if credentials::is_key_name(environment, name) => format!("{name}=(hidden)"),
        _ => pair.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_keep_the_scheme_and_the_names() {
        assert_eq!(masked("Basic Y2xpZW50"), "Basic (hidden)");
        assert_eq!(masked("s3cr3t"), "(hidden)");
        let query = masked_query("page=1&api_key=s3cr3t&c=d", &Environment::new("c", "k"));
        assert_eq!(query, "page=1&api_key=(hidden)&c=d");
    }
}
