//! What the names of header and trailer fields say: which carry a credential, and which lead a server elsewhere.
//!
//! In: a name in lower case, with hyphens. No list of such names is whole: credentials are recognised by the words in them, so
//! that `x-vault-token` is one as much as `private-token`.

/// Whether a field carries a credential, at MX or elsewhere.
pub(crate) fn is_credential(name: &str) -> bool {
    let has_word = |name: &str| name.split('-').any(is_secret_word);
    // MX's Data Exchange: the caller's to send.
    (has_word(name) && name != "mx-3dx-token")
        || ["md-", "x-auth-", "x-ssl-", "x-amzn-oidc-", "x-goog-iap-"]
            .iter()
            .any(|start| name.starts_with(start))
        || ["api-key", "access-key", "auth-key", "private-key", "subscription-key", "functions-key"]
            .iter()
            .any(|end| name.ends_with(end))
        || ["client-id", "client-cert"].iter().any(|end| name.ends_with(end))
        || matches!(name, "auth" | "x-auth")
}

fn is_secret_word(word: &str) -> bool {
    matches!(word, "authorization" | "authentication" | "token" | "secret" | "password" | "passwd")
        || matches!(word, "cookie" | "cookie2" | "session" | "credential" | "credentials" | "apikey")
        || matches!(word, "jwt" | "dpop" | "csrf" | "xsrf" | "csrftoken" | "xsrftoken")
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
        ] {
            assert!(!is_credential(name) && !is_detour(name), "{name}");
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
