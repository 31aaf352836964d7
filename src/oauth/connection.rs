//! What a user's consent is to the gateway.
//!
//! In: what was asked for and what a provider answered. Out: a [`Connection`], which a store keeps whole, and a
//! [`Summary`], which is what may be shown of it.
//!
//! What must never happen: a token is printed. (`Secret` cannot be; nothing here holds one otherwise.) Whoever makes a
//! `Secret` of a token tells [`held`](crate::redaction::held) before it is used: stores do for what they open, the
//! token endpoint's client does for what was answered.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};

use crate::vault::secret::Secret;

/// Names a connection. Not a secret: a caller reaches a connection by what it is granted, not by what it knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnectionId(u128);

/// What each one begins with, so that nobody takes it for something else of mxgate's.
pub(crate) const PREFIX: &str = "mxc_";

/// Hex digits of 128 bits.
const DIGITS: usize = 32;

/// No connection id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no connection id; one is {PREFIX} and {DIGITS} lower-case hex digits")]
pub(crate) struct NoId;

/// The system gives no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub(crate) struct NoRandom;

impl ConnectionId {
    /// One that no other connection has.
    ///
    /// # Errors
    /// [`NoRandom`].
    pub(crate) fn random() -> Result<Self, NoRandom> {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).map_err(|_| NoRandom)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }

    /// As a key of a store.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From a key of a store.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl FromStr for ConnectionId {
    type Err = NoId;

    /// One spelling: what is compared as text elsewhere must not have two.
    fn from_str(text: &str) -> Result<Self, NoId> {
        let digits = text.strip_prefix(PREFIX).ok_or(NoId)?;
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != DIGITS || !digits.bytes().all(is_digit) {
            return Err(NoId);
        }
        u128::from_str_radix(digits, 16).map(Self).map_err(|_| NoId)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:032x}", self.0)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One user's consent, with its tokens. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Its name.
    pub(crate) id: ConnectionId,
    /// What it is for.
    pub(crate) purpose: Purpose,
    /// Who gave the tokens, as [`Provider::identity`](super::provider::Provider::identity) says: its refresh token goes to
    /// nobody else who is given the provider's name.
    pub(crate) issuer: String,
    /// When the user consented.
    pub(crate) created: u64,
    /// Whether that still holds.
    pub(crate) consent: Consent,
}

/// What a connection is for: what a caller asks for, and what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Purpose {
    /// Who gives the tokens, by its name in the configuration.
    pub(crate) provider: String,
    /// Where they may be sent, by its name in the configuration.
    pub(crate) environment: String,
    /// The host of that environment when the user consented, in lower case: they go nowhere else.
    pub(crate) host: String,
    /// The caller that it is made for, by name.
    pub(crate) caller: String,
    /// The user at MX, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_guid: Option<String>,
    /// What the provider granted; before that, what it is to be asked for: none means all that is configured.
    pub(crate) scopes: Vec<String>,
}

/// Whether a consent still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Consent {
    /// It does, as far as the gateway knows.
    Live(Tokens),
    /// It does not; only the user can give it anew.
    Gone {
        /// When that was found, in Unix seconds.
        since: u64,
        /// How.
        why: Why,
    },
}

/// How a consent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// The provider takes the refresh token no longer (`invalid_grant`).
    Refused,
    /// Its time was over, and it could not be refreshed.
    Ended,
}

/// The tokens of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// What requests are sent with; `None` until the first refresh of an imported connection.
    pub(crate) access: Option<Access>,
    /// What the next access token is had for; `None` where the provider gives none.
    pub(crate) refresh: Option<Arc<Secret>>,
    /// When a grant that cannot be refreshed is over, in Unix seconds; `None`: not known, or it can be.
    pub(crate) ends: Option<u64>,
}

/// One access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    /// The value.
    pub(crate) token: Arc<Secret>,
    /// From then on it is no token, in Unix seconds; `None`: the provider did not say.
    pub(crate) expires: Option<u64>,
}

/// A connection without its tokens: what a list shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// As [`Connection::id`].
    pub(crate) id: ConnectionId,
    /// As [`Connection::purpose`].
    pub(crate) purpose: Purpose,
    /// As [`Connection::created`].
    pub(crate) created: u64,
    /// As [`Connection::consent`].
    pub(crate) state: State,
}

/// A [`Consent`] without its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum State {
    /// It holds.
    Live {
        /// When the access token expires: [`Access::expires`].
        expires: Option<u64>,
        /// Whether there is a refresh token.
        can_refresh: bool,
        /// As [`Tokens::ends`].
        ends: Option<u64>,
    },
    /// As [`Consent::Gone`].
    Gone {
        /// When that was found.
        since: u64,
        /// How.
        why: Why,
    },
}

impl State {
    /// Since when its user must consent again, and why; `None`: the consent holds. One that cannot be refreshed is over with
    /// its access token, also where nobody has written that down.
    pub(crate) fn over(&self, now: u64) -> Option<(u64, Why)> {
        match *self {
            Self::Gone { since, why } => Some((since, why)),
            Self::Live { can_refresh: false, expires: Some(end), .. } if end <= now => {
                Some((end, Why::Ended))
            }
            Self::Live { .. } => None,
        }
    }
}

impl Connection {
    /// What may be shown of it.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            id: self.id,
            purpose: self.purpose.clone(),
            created: self.created,
            state: self.consent.state(),
        }
    }
}

impl Consent {
    fn state(&self) -> State {
        match self {
            Self::Live(Tokens { access, refresh, ends }) => State::Live {
                expires: access.as_ref().and_then(|access| access.expires),
                can_refresh: refresh.is_some(),
                ends: *ends,
            },
            Self::Gone { since, why } => State::Gone { since: *since, why: *why },
        }
    }
}

impl Tokens {
    /// Every token, for [`held`](crate::redaction::held).
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &Arc<Secret>> {
        self.access.iter().map(|access| &access.token).chain(&self.refresh)
    }
}

#[cfg(test)]
impl Purpose {
    /// Of the tests' connections, where they say nothing else.
    pub(crate) fn usual() -> Self {
        Self {
            provider: "bank".into(),
            environment: "sandbox".into(),
            host: "api.mx.test".into(),
            caller: "ledger".into(),
            user_guid: None,
            scopes: vec![],
        }
    }

    /// As [`Self::usual`], for a user of MX who lets the caller read.
    pub(crate) fn of_user() -> Self {
        Self { user_guid: Some("USR-1".into()), scopes: vec!["read".into()], ..Self::usual() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_in_no_other_spelling() {
        let id = ConnectionId::random().unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(ConnectionId::from_bytes(id.to_bytes()), id);
        assert_ne!(ConnectionId::random(), Ok(id));
        let small = "mxc_0000000000000000000000000000000a";
        assert_eq!(small.parse::<ConnectionId>().unwrap().to_string(), small);
        for wrong in [
            "",
            "mxc_",
            "mxc_a",
            "0000000000000000000000000000000a",
            "mxc_0000000000000000000000000000000A",
            "mxc_+000000000000000000000000000000a",
            "mxc_0000000000000000000000000000000a ",
            "MXC_0000000000000000000000000000000a",
            "mxh_0000000000000000000000000000000a",
        ] {
            assert_eq!(wrong.parse::<ConnectionId>(), Err(NoId), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_refreshed_is_over_with_its_token() {
        let live = |can_refresh, expires| State::Live { expires, can_refresh, ends: None };
        assert_eq!(live(false, Some(10)).over(10), Some((10, Why::Ended)));
        assert_eq!(live(false, Some(10)).over(9), None);
        assert_eq!(live(true, Some(10)).over(10), None);
        assert_eq!(live(false, None).over(10), None);
        let gone = State::Gone { since: 5, why: Why::Refused };
        assert_eq!(gone.over(10), Some((5, Why::Refused)));
    }

    #[test]
    fn no_token_is_printed() {
        let secret = |text: &str| Arc::new(Secret::new(text.into()).unwrap());
        let connection = Connection {
            id: ConnectionId(1),
            purpose: Purpose::usual(),
            issuer: "bank".into(),
            created: 1,
            consent: Consent::Live(Tokens {
                access: Some(Access { token: secret("canary-access"), expires: Some(2) }),
                refresh: Some(secret("canary-refresh")),
                ends: None,
            }),
        };
        let shown = format!("{connection:?} {:?}", connection.summary());
        assert!(shown.contains("ledger") && !shown.contains("canary"), "{shown}");
        assert_eq!(
            connection.summary().state,
            State::Live { expires: Some(2), can_refresh: true, ends: None }
        );
    }
}
