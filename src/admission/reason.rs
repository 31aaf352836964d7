//! Why somebody was not admitted.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal;)*) => {
        /// Why somebody was not admitted: for metrics and the log. Callers get one answer for all.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// All of them, in a fixed order; a metric is an array over it.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its label.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }
        }
    };
}

reasons! {
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
