//! What a gateway tells of itself, as JSON: who keeps a thing says how it is in these words, and operators' commands read them.

mod connection;

use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeOwned},
};
use serde_json::value::RawValue;

pub use self::connection::{ShownConnection, ShownConnections};
use crate::{metrics::versions, rotation::Standing};

/// The answer to `GET /status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// mxgate's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// Whole seconds since the start.
    pub uptime_s: u64,
    /// Why it is not ready; `None` when it is.
    pub not_ready: Option<String>,
    /// Milliseconds since the quietest worker's event loop came round; above 5,000 `/livez` fails.
    pub worker_silence_ms: u64,
    /// Connections of callers that are open.
    pub callers_open: u64,
    /// Requests that are over, since the start.
    pub requests: u64,
    /// A log filter that an operator has set for a time.
    pub log_override: Option<LogOverride>,
    /// What an operator has stopped.
    pub suspensions: Vec<Suspension>,
    /// What the snapshot and the data plane know.
    #[serde(flatten)]
    pub gateway: GatewayStatus,
}

/// Each part is read from the whole. Serde's own reading of what is flattened goes through values of any kind, and all that
/// is in there would be read in two ways: 0.1 MB of machine code.
impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Own {
            version: String,
            pid: u32,
            uptime_s: u64,
            not_ready: Option<String>,
            worker_silence_ms: u64,
            callers_open: u64,
            requests: u64,
            log_override: Option<LogOverride>,
            suspensions: Vec<Suspension>,
        }
        let whole = Box::<RawValue>::deserialize(deserializer)?;
        let Own {
            version,
            pid,
            uptime_s,
            not_ready,
            worker_silence_ms,
            callers_open,
            requests,
            log_override,
            suspensions,
        } = part(&whole)?;
        let gateway = part(&whole)?;
        Ok(Self {
            version,
            pid,
            uptime_s,
            not_ready,
            worker_silence_ms,
            callers_open,
            requests,
            log_override,
            suspensions,
            gateway,
        })
    }
}

fn part<T: DeserializeOwned, E: de::Error>(whole: &RawValue) -> Result<T, E> {
    serde_json::from_slice(whole.get().as_bytes()).map_err(E::custom)
}

/// The part of [`Status`] that the gateway gives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Which configuration is in use, counted from the start.
    pub generation: u64,
    /// When it was loaded, RFC 3339.
    pub loaded_at: String,
    /// The configuration file.
    pub configuration: String,
    /// Why the last reload failed; `None` when it succeeded.
    pub reload_fault: Option<String>,
    /// The configured log filter.
    pub log_filter: String,
    /// Listener addresses as configured.
    pub listeners: Vec<String>,
    /// Environments in the order of their names.
    pub environments: Vec<EnvironmentStatus>,
    /// What may be used of each of them, in the same order; empty before there is anything to serve with.
    pub upstreams: Vec<UpstreamStatus>,
    /// Callers that have limits, in the configuration's order.
    pub limits: Vec<CallerLimitsStatus>,
    /// How old each environment's key is, and where its rotation stands, as far as its vault tells.
    #[serde(default)]
    pub rotations: Vec<Standing>,
    /// The environments' secrets.
    #[serde(default)]
    pub secrets: Vec<SecretStatus>,
    /// Callers in observe mode.
    #[serde(default)]
    pub observing: Vec<Observing>,
    /// Users' connections; `None`: none are configured.
    #[serde(default)]
    pub connections: Option<ConnectionsStatus>,
}

/// How many connections of users there are, as of the last look at their store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsStatus {
    /// Whether the store is open.
    pub open: bool,
    /// Whose consent holds.
    pub live: usize,
    /// Whose user must consent again.
    pub gone: usize,
    /// Of those that hold: what ends within a week and cannot be refreshed.
    pub ending: usize,
    /// Tokens of MX's that are kept under handles.
    #[serde(default)]
    pub kept: usize,
    /// Of those: what ends within a week.
    #[serde(default)]
    pub kept_ending: usize,
}

/// One secret of an environment: never its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretStatus {
    /// The environment that uses it.
    pub environment: String,
    /// As configured.
    pub reference: String,
    /// Its kind of source: `vault`, `file`, `exec` and so on.
    pub source: String,
    /// Of the last good value; `None` when there was none yet.
    pub fingerprint: Option<String>,
    /// The source's own word for that version, where it has one.
    pub version: Option<String>,
    /// Whether it is used.
    pub state: SecretState,
    /// Milliseconds since its source last confirmed it.
    pub age_ms: Option<u64>,
    /// Milliseconds until it is used no longer, unless it is confirmed; `None`: without an end.
    pub remaining_ms: Option<u64>,
    /// Why the last look at it failed; `None` when it did not.
    pub fault: Option<String>,
    /// Looks that failed since it was first configured, by reason.
    pub failures: BTreeMap<String, u64>,
}

/// Whether a secret is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretState {
    /// There is none, and everything works without it: a second key.
    None,
    /// There was no good value yet.
    Unread,
    /// It is.
    Usable,
    /// Its source could not confirm it within its grace.
    Expired,
    /// Its source says that it is gone.
    Revoked,
}

/// A caller in observe mode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observing {
    /// Its name.
    pub caller: String,
    /// Until when, RFC 3339.
    pub until: String,
}

/// How much of an environment is in use, and whether its host works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// The environment's name.
    pub environment: String,
    /// Whether its requests go out; `None`: they always do.
    pub breaker: Option<BreakerStatus>,
    /// How often its breaker has opened.
    pub breaker_opened: u64,
    /// `None`: it has no budget.
    pub budget: Option<BudgetStatus>,
    /// `None`: it has one key.
    #[serde(default)]
    pub keys: Option<KeysStatus>,
}

/// The second of two keys, and which of them is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysStatus {
    /// The second key, as a reference.
    pub secondary: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Whether requests carry it, since MX has refused the first.
    pub secondary_in_use: bool,
    /// How often requests began to carry the other key.
    pub cutovers: u64,
    /// Requests that were sent again with the other key, since they were answered 401.
    pub second_attempts: u64,
}

/// A breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerStatus {
    /// Everything goes out.
    Closed,
    /// Nothing goes out.
    Open {
        /// For so many seconds.
        for_s: u64,
    },
    /// One request at a time goes out.
    HalfOpen,
}

/// A shared budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetStatus {
    /// Requests with GET and HEAD; `None`: any number.
    pub get_in_flight: Option<Use>,
    /// Requests with other methods; `None`: any number.
    pub other_in_flight: Option<Use>,
    /// Seconds for which it is half of that, since the upstream asked for it.
    pub halved_for_s: Option<u64>,
}

/// What one caller uses of its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerLimitsStatus {
    /// Its name.
    pub caller: String,
    /// Requests; `None`: any number.
    pub in_flight: Option<Use>,
    /// Connections; `None`: any number.
    pub connections: Option<Use>,
    /// Requests over a limit since the start.
    pub refused: u64,
}

/// How many there are, and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Now.
    pub now: u32,
    /// At most.
    pub max: u32,
}

/// One environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentStatus {
    /// Its name.
    pub name: String,
    /// Where its requests go.
    pub host: String,
    /// The credential's secret, as a reference.
    pub credential: String,
    /// The secret's fingerprint; `None` when it could not be read.
    pub fingerprint: Option<String>,
}

/// A log filter that ends by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOverride {
    /// The filter.
    pub filter: String,
    /// Seconds until the configured one returns.
    pub for_s: u64,
}

/// One suspension in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// What is stopped.
    pub target: Target,
    /// Seconds until it ends; `None`: until `resume`.
    pub for_s: Option<u64>,
}

/// What can be suspended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// An environment, by name: nothing is sent to it.
    Environment(String),
    /// A network or one address: nobody in it is served.
    Address(String),
    /// A caller, by name: it is not served, and loses its connections.
    Caller(String),
    /// An operation, by id: nobody may do it.
    Operation(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Address(network) => write!(f, "address {network}"),
            Self::Caller(name) => write!(f, "caller {name}"),
            Self::Operation(id) => write!(f, "operation {id}"),
        }
    }
}

/// The answer to `GET /versions`: who uses what MX leaves behind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionReport {
    /// Whole seconds since the start; counts are since then, a caller's since it was first configured.
    pub uptime_s: u64,
    /// Callers that have something to change, in the configuration's order.
    pub callers: Vec<versions::Use>,
}

/// The answer to `POST /reload`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Which configuration is in use now.
    pub generation: u64,
    /// What changed, for people; empty when nothing did.
    pub changes: Vec<String>,
    /// Changed keys that only a restart applies.
    pub needs_restart: Vec<String>,
    /// Secrets that could not be read, each with what becomes of it.
    #[serde(default)]
    pub unread: Vec<String>,
}
