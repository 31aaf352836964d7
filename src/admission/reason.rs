//! Why somebody was not admitted.

crate::coded::coded! {
    /// Why somebody was not admitted: for metrics and the log. Callers get one answer for all.
    Reason {
        /// The address that counts is not in `allow`, or a trusted proxy names none.
        Network = "network";
        /// No caller is known by the address, or by the user or group of the Unix socket's peer.
        Unknown = "unknown";
        /// Of a token, or a certificate, whose caller has another criterion that does not hold.
        Criterion = "criterion";
        /// The client certificate did not verify, has ended since, or names two callers.
        Certificate = "certificate";
        /// It looks like a token and is none, or stands where none is taken.
        TokenMalformed = "token_malformed";
        /// No configured caller has this token.
        TokenUnknown = "token_unknown";
        /// It has expired.
        TokenExpired = "token_expired";
        /// It was revoked.
        TokenRevoked = "token_revoked";
        /// More than one token.
        TokenTwice = "token_twice";
        /// A token, or the secret of the one that was presented, in the path or query.
        TokenExposed = "token_exposed";
    }
}
