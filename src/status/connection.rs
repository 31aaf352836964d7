//! A user's connection, as operators and callers see it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::oauth::{
    cell::seconds,
    connection::{Purpose, State, Summary, Why},
};

/// A user's connection, without its tokens. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownConnection {
    /// `mxc_` and 32 hex digits.
    pub id: String,
    /// By its name in the configuration.
    pub provider: String,
    /// Where its tokens go.
    pub environment: String,
    /// The caller that it was made for.
    pub caller: String,
    /// The user at MX, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_guid: Option<String>,
    /// What the provider granted.
    pub scopes: Vec<String>,
    /// When the user consented.
    pub created: u64,
    /// `live`, or `gone`: the user must consent again.
    pub state: String,
    /// When the access token expires.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<u64>,
    /// When a consent ends that cannot be refreshed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ends: Option<u64>,
    /// When it was found that it is gone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<u64>,
    /// `refused` by the provider, or `ended`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

impl ShownConnection {
    pub(crate) fn of(one: &Summary) -> Self {
        let (state, expires, ends, since, reason) =
            match (one.state.over(seconds(SystemTime::now())), one.state) {
                (None, State::Live { expires, ends, .. }) => ("live", expires, ends, None, None),
                (over, _) => {
                    let (since, why) = over.unzip();
                    let reason = why.map(|why| if why == Why::Refused { "refused" } else { "ended" });
                    ("gone", None, None, since, reason.map(str::to_owned))
                }
            };
        let Purpose { provider, environment, caller, user_guid, scopes, .. } = one.purpose.clone();
        Self {
            id: one.id.to_string(),
            provider,
            environment,
            caller,
            user_guid,
            scopes,
            created: one.created,
            state: state.to_owned(),
            expires,
            ends,
            since,
            reason,
        }
    }
}

/// Connections, by age.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownConnections {
    /// The oldest first.
    pub connections: Vec<ShownConnection>,
}
