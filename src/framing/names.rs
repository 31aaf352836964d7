//! What the names of header and trailer fields say: which carry a credential, and which lead a server elsewhere.
//!
//! In: a name in lower case, with hyphens. No list of such names is whole: credentials are recognised by the words in them, so
//! that `x-vault-token` is one as much as `private-token`.

/// Whether a field carries a credential, at MX or elsewhere.
pub(crate) fn is_credential(name: &str) -> bool {
    let is_one = name.split('-').any(is_secret_word)
        || ["md-", "x-ssl-", "x-amzn-oidc-", "x-goog-iap-"].iter().any(|start| name.starts_with(start))
        || name.ends_with("client-id");
    // MX's Data Exchange has the first; the others are nobody's secret.
    is_one && !matches!(name, "mx-3dx-token" | "x-fapi-auth-date") && !name.ends_with("idempotency-key")
}

/// By its end: names are run together as `authtoken` and `clientsecret`, too. Sorted by the last letter, so that most words
/// are compared with few.
fn is_secret_word(word: &str) -> bool {
    let ends: &[&str] = match word.as_bytes().last() {
        Some(b'd') => &["password", "passwd", "pwd", "sessionid", "clientid"],
        Some(b'e') => &["cookie", "certificate", "passphrase", "passcode"],
        Some(b'f') => &["csrf", "xsrf"],
        Some(b'h') => &["auth"],
        Some(b'l') => &["credential"],
        Some(b'n') => &["token", "authorization", "authentication", "session"],
        Some(b'p') => &["dpop", "otp"],
        Some(b'r') => &["bearer"],
        Some(b's') => &["credentials"],
        Some(b't') => &["secret", "jwt", "cert"],
        Some(b'y') => &["key"],
        Some(b'2') => &["cookie2"],
        _ => &[],
    };
    ends.iter().any(|end| word.ends_with(end))
}

/// Whether the configuration may let such a field of a caller's pass: it looks like a credential's, and is none of those that
/// HTTP and MX define, and nothing that stays here for another reason.
pub(crate) fn may_be_let_through(name: &str) -> bool {
    let is_defined = matches!(name, "authorization" | "authentication" | "cookie" | "cookie2");
    let stays_anyway = ["mx-", "md-", "proxy-", "sec-", "access-control-", "x-mxgate-"];
    is_credential(name)
        && !is_defined
        && !is_detour(name)
        && !name.contains('_')
        && !stays_anyway.iter().any(|start| name.starts_with(start))
}

/// Whether some servers take another method, path, host or caller from it.
pub(crate) fn is_detour(name: &str) -> bool {
    matches!(
        name,
        "_method" | "-method" | "x-method" | "method-override" | "x-method-override" | "http-method-override"
    ) || matches!(name, "x-override-url" | "x-host" | "x-server-name" | "x-forward-for" | "x-proxyuser-ip")
        || matches!(name, "x-real-ip" | "cf-connecting-ip" | "remote-user" | "remote-addr")
        || ["client-ip", "clientip"].iter().any(|end| name.ends_with(end))
        || ["x-http-method", "x-original-", "x-rewrite-", "x-forwarded", "x-remote-", "x-envoy-"]
            .iter()
            .any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_recognised_by_its_words_and_what_callers_need_is_none() {
        for name in [
            "authorization",
            "x-authorization",
            "proxy-authorization",
            "authentication",
            "auth",
            "x-auth",
            "x-auth-key",
            "x-auth-request-user",
            "cookie",
            "cookie2",
            "token",
            "x-token",
            "api-token",
            "access-token",
            "x-access-token",
            "session-token",
            "x-vault-token",
            "private-token",
            "x-amz-security-token",
            "mx-session-token",
            "apikey",
            "api-key",
            "x-api-key",
            "mx-api-key",
            "x-mx-api-key",
            "x-goog-api-key",
            "x-access-key",
            "ocp-apim-subscription-key",
            "x-functions-key",
            "client-id",
            "mx-client-id",
            "x-client-id",
            "client-secret",
            "x-client-secret",
            "secret",
            "password",
            "dpop",
            "x-jwt-assertion",
            "x-csrf-token",
            "client-cert",
            "x-ssl-client-cert",
            "md-whatever",
            "x-authtoken",
            "accesstoken",
            "csrftoken",
            "x-sessionid",
            "x-clientsecret",
            "bearer",
            "x-basic-auth",
            "x-zumo-auth",
            "x-parse-master-key",
            "dd-application-key",
            "fastly-key",
            "x-signing-key",
            "ok-access-passphrase",
            "x-user-pwd",
            "x-otp",
            "x-arr-clientcert",
            "client-cert-chain",
            "x-client-certificate",
            "x-api-key-v2",
        ] {
            assert!(is_credential(name), "{name}");
        }
        for name in [
            "accept",
            "accept-version",
            "author",
            "idempotency-key",
            "x-idempotency-key",
            "mx-3dx-token",
            "x-callback-payload",
            "x-fapi-auth-date",
            "x-fapi-interaction-id",
            "x-jws-signature",
            "x-request-id",
            "traceparent",
            "x-tokens-used",
            "baggage",
            "content-type",
            "user-agent",
            "x-b3-spanid",
            "x-amzn-trace-id",
            "x-fapi-customer-ip-address",
            "signature-input",
            "if-none-match",
        ] {
            assert!(!is_credential(name) && !is_detour(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_credential_after_all_may_be_let_through_and_a_known_one_may_not() {
        for name in ["x-continuation-token", "x-session-id", "x-token-count", "x-cache-key", "x-api-key"] {
            assert!(may_be_let_through(name), "{name}");
        }
        for name in [
            "accept",
            "authorization",
            "proxy-authorization",
            "cookie",
            "mx-api-key",
            "md-session-token",
            "x-forwarded-client-cert",
            "x-continuation_token",
            "sec-websocket-key",
            "access-control-allow-credentials",
            "x-mxgate-token",
        ] {
            assert!(!may_be_let_through(name), "{name}");
        }
    }

    #[test]
    fn a_detour_is_one_under_each_of_its_names() {
        for name in [
            "x-http-method-override",
            "x-original-url",
            "x-rewrite-whatever",
            "x-forwarded-for",
            "x-forwarded",
            "x-forward-for",
            "client-ip",
            "true-client-ip",
            "fastly-client-ip",
            "x-azure-clientip",
            "remote-user",
            "x-remote-user",
            "x-envoy-internal",
            "x-host",
            "x-server-name",
        ] {
            assert!(is_detour(name), "{name}");
        }
    }
}
