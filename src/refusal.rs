//! Every reason to say no, each with its stable code: a [`Refusal`] is the caller's fault, a [`Failure`]
//! is the upstream's or ours. `respond` turns them into answers; records and metrics use the codes.

use http::StatusCode;

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal, $status:ident;)* }) => {
        crate::coded::coded! { $(#[$doc])* $name { $($(#[$vdoc])* $variant = $code;)* } }

        impl $name {
            /// The HTTP status of the answer.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }
        }
    };
}

reasons! {
    /// Our no, the caller's fault.
    Refusal {
        /// The message is not one that two readers must read alike.
        MalformedRequest = "malformed_request", BAD_REQUEST;
        /// The path or query is not in the one spelling that is accepted.
        MalformedTarget = "malformed_target", BAD_REQUEST;
        /// The head did not arrive in time.
        HeadTimeout = "head_timeout", REQUEST_TIMEOUT;
        /// The body did not arrive in time.
        BodyTimeout = "body_timeout", REQUEST_TIMEOUT;
        /// The body is over `body_bytes_max`.
        BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE;
        /// The request line is over `request_line_bytes_max`.
        RequestLineTooLong = "request_line_too_long", URI_TOO_LONG;
        /// The header section is over `header_bytes_max` or `header_count_max`.
        HeaderTooLarge = "header_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE;
        /// An expectation other than `100-continue`.
        ExpectationFailed = "expectation_failed", EXPECTATION_FAILED;
        /// A method that this gateway never forwards (CONNECT, TRACE, extension methods).
        MethodNotSupported = "method_not_supported", NOT_IMPLEMENTED;
        /// Nobody who may call: from no allowed network, or no configured caller.
        CallerNotAllowed = "caller_not_allowed", FORBIDDEN;
        /// A browser's request: an `Origin` or `Sec-Fetch-Site` that is not configured.
        BrowserNotAllowed = "browser_not_allowed", FORBIDDEN;
        /// `Host` names something that this loopback listener is not.
        MisdirectedRequest = "misdirected_request", MISDIRECTED_REQUEST;
        /// The path is no operation of the catalogue, or no configured pattern.
        UnknownOperation = "unknown_operation", NOT_FOUND;
        /// The path is known, with other methods.
        MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED;
        /// The operation exists and is denied.
        OperationDenied = "operation_denied", FORBIDDEN;
        /// The body is a form, which a server may take another method from; MX takes JSON.
        FormBody = "form_body", UNSUPPORTED_MEDIA_TYPE;
        /// The operation needs a Bearer token and neither one nor pass-through is configured (or the
        /// caller sent none to pass through).
        NoCredential = "no_credential", FORBIDDEN;
        /// The request names no connection, no legal one, or several, and no user says which.
        ConnectionNotNamed = "connection_not_named", BAD_REQUEST;
        /// There is no such connection, or none that this caller may use for this.
        ConnectionDenied = "connection_denied", FORBIDDEN;
        /// The user has no connection yet that this caller may use.
        ConnectionRequired = "connection_required", CONFLICT;
        /// The user's consent is gone, and must be given anew.
        ReconnectRequired = "reconnect_required", CONFLICT;
        /// The connection's token is not good for this.
        InsufficientScope = "insufficient_scope", FORBIDDEN;
        /// There is no such connection, or none that this caller may see.
        UnknownConnection = "unknown_connection", NOT_FOUND;
        /// What is wanted of a connection is not possible.
        InvalidConnection = "invalid_connection", BAD_REQUEST;
        /// The caller, its address, the operation or the environment was stopped by an operator.
        Suspended = "suspended", FORBIDDEN;
        /// The caller has as many connections as it may have.
        ConnectionLimit = "connection_limit", TOO_MANY_REQUESTS;
        /// The caller has as many requests in flight as it may have.
        InFlightLimit = "in_flight_limit", TOO_MANY_REQUESTS;
        /// The caller sends requests faster than it may.
        RateLimit = "rate_limit", TOO_MANY_REQUESTS;
        /// The caller has as many tickets that are not over as it may have.
        TicketLimit = "ticket_limit", TOO_MANY_REQUESTS;
        /// All callers together use what the environment may be asked for.
        EnvironmentBudget = "environment_budget", TOO_MANY_REQUESTS;
    }
}

reasons! {
    /// The upstream's fault, or ours.
    Failure {
        /// The upstream's name did not resolve, or no address accepted the connection.
        UpstreamUnreachable = "upstream_unreachable", BAD_GATEWAY;
        /// The upstream's certificate could not be verified, or the handshake failed.
        UpstreamUntrusted = "upstream_untrusted", BAD_GATEWAY;
        /// Every address of the upstream is one that may not be dialled: a private one that nobody named.
        UpstreamAddressRefused = "upstream_address_refused", BAD_GATEWAY;
        /// The proxy on the way to the upstream did not let us through.
        ProxyFailed = "proxy_failed", BAD_GATEWAY;
        /// The upstream closed or reset the connection before its answer was complete.
        UpstreamClosed = "upstream_closed", BAD_GATEWAY;
        /// The upstream's answer is not well formed.
        UpstreamMalformed = "upstream_malformed", BAD_GATEWAY;
        /// The upstream's answer has a content encoding in which the injected secret could hide.
        UpstreamEncoding = "upstream_encoding", BAD_GATEWAY;
        /// The caller does not get to see some fields of the answer, and it could not be read whole and as JSON.
        AnswerNotMaskable = "answer_not_maskable", BAD_GATEWAY;
        /// No connection within the connect or TLS time-out.
        ConnectTimeout = "connect_timeout", GATEWAY_TIMEOUT;
        /// No answer within the first-byte time-out.
        FirstByteTimeout = "first_byte_timeout", GATEWAY_TIMEOUT;
        /// The answer stopped for longer than the idle time-out.
        UpstreamIdleTimeout = "upstream_idle_timeout", GATEWAY_TIMEOUT;
        /// The exchange took longer than the total time-out.
        TotalTimeout = "total_timeout", GATEWAY_TIMEOUT;
        /// Every upstream connection is busy.
        UpstreamBusy = "upstream_busy", SERVICE_UNAVAILABLE;
        /// The upstream failed again and again: nothing is sent for a while.
        BreakerOpen = "breaker_open", SERVICE_UNAVAILABLE;
        /// The keys that end users' tokens are verified with could not be had.
        NoVerificationKeys = "no_verification_keys", SERVICE_UNAVAILABLE;
        /// The environment's secret was revoked, or could not be confirmed within its grace.
        CredentialUnavailable = "credential_unavailable", SERVICE_UNAVAILABLE;
        /// The provider, or the store of connections, has no token now.
        TokenUnavailable = "token_unavailable", SERVICE_UNAVAILABLE;
        /// The provider did not take a connection's tokens back.
        NotRevoked = "not_revoked", BAD_GATEWAY;
        /// No usable configuration or secret is loaded.
        NotReady = "not_ready", SERVICE_UNAVAILABLE;
        /// A defect of ours: the stage panicked.
        Internal = "internal", INTERNAL_SERVER_ERROR;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_with_its_status_and_nothing_else_is() {
        let refusals = Refusal::ALL.iter().map(|one| (one.code(), one.status()));
        let failures = Failure::ALL.iter().map(|one| (one.code(), one.status()));
        let codes: Vec<String> = refusals
            .chain(failures)
            .map(|(code, status)| format!("`{code}` | {}", status.as_u16()))
            .collect();
        let documented: Vec<String> = include_str!("../docs/codes.md")
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .map(|line| line.split(" | ").take(2).collect::<Vec<_>>().join(" | "))
            .map(|line| format!("`{line}"))
            .collect();
        assert_eq!(documented, codes);
    }
}
