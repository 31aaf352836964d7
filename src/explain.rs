//! What would happen to a request, and why, without sending anything.
//!
//! In: a configuration and a question (who asks, through which listener, for what). Out: an [`Explanation`]. The
//! request is read by the gate's own reader (`framing`) and walks through the very function that decides in a running
//! gateway (`gateway::decide`), on a snapshot without secrets: every credential is a placeholder, so nothing
//! that is shown could hold one, and no vault, key or certificate has to be at hand.
//!
//! What only a running gateway knows is left out: suspensions, whether a limit is reached, and the keys that are fetched
//! from an address.

mod advice;
pub mod cases;
pub mod difference;
mod listener;
mod message;
mod no;
mod records;
pub mod replay;
mod show;
pub mod suggest;
mod walked;
mod words;

use std::{collections::BTreeMap, fmt, net::IpAddr, rc::Rc, time::SystemTime};

use http::request;

use self::{no::No, walked::Walked};
use crate::{
    config::{self, Config},
    credential::Prepared,
    gateway::{
        self, End,
        choice::{AtHand, Attached},
    },
    listener::{names::Names, peer::Peer},
    policy::target::Target,
    refusal::Failure,
    snapshot::Snapshot,
    tree::tree,
    vault::{self, chain, gathered::Gathered, reference::Reference},
};

/// A configuration's decisions, made ready.
#[derive(Debug)]
pub struct Explainer {
    config: Config,
    snapshot: Snapshot,
    /// `None`: not looked for.
    fingerprints: Option<BTreeMap<Reference, Result<String, String>>>,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Who sends the request.
    pub asker: Asker,
    /// The listener that it comes to, its address as configured. `None`: the first that fits `asker` and
    /// `environment`.
    pub listener: Option<String>,
    /// Names of the client certificate that it shows, as `tls_names` has them; they count where a listener asks for
    /// one.
    pub tls_names: Vec<String>,
    /// Chooses among the listeners when none is named.
    pub environment: Option<String>,
    /// `GET`
    pub method: String,
    /// `/users?page=2`
    pub target: String,
    /// Name and value each. Without a `Host` among them, there is one that every listener answers to.
    pub headers: Vec<(String, String)>,
}

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// Somebody at this address.
    Address(IpAddr),
    /// Somebody on this machine, on a Unix socket.
    Unix {
        /// The user.
        uid: u32,
        /// The effective group.
        gid: u32,
    },
    /// The configured caller of this name, however it is recognised.
    Caller(String),
}

/// Why a question cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// No listener has this address.
    #[error("no listener has the address {asked}; there are {there}")]
    NoListener {
        /// As asked.
        asked: String,
        /// Those that exist.
        there: String,
    },
    /// No listener can be meant.
    #[error("no listener takes {0}; there are {1}")]
    NoneFits(&'static str, String),
    /// A listener of the other kind.
    #[error("the listener {0} takes {1}")]
    OtherKind(String, &'static str),
    /// The listener asks nobody for a certificate.
    #[error("the listener has no tls.client_ca: nobody can show it a certificate")]
    NoCertificates,
    /// No caller has this name.
    #[error("no caller has this name; there are {0}")]
    NoCaller(String),
    /// The configuration's values cannot be put to use.
    #[error("{0}")]
    Unusable(String),
}

/// What would become of a request.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The method, as asked.
    pub method: String,
    /// Path and query, as asked.
    pub target: String,
    /// The listener.
    pub listener: String,
    /// What the listener serves: `environment`, or `connections`.
    pub serves: &'static str,
    /// The environment that the listener sends to; empty when it serves connections.
    pub environment: String,
    /// Its host, and its port if that is not 443.
    pub host: String,
    /// The address or user that counted.
    pub origin: Option<String>,
    /// Who it is, when that was found out.
    pub caller: Option<String>,
    /// Why it is that caller, or nobody.
    pub recognised: String,
    /// The operation's id.
    pub operation: Option<&'static str>,
    /// The path template that matched.
    pub template: Option<String>,
    /// The classes of the operation.
    pub classes: Vec<&'static str>,
    /// Which item of the grant decided, in words.
    pub rule: Option<String>,
    /// What the request is counted against, whether or not that is reached, a line each.
    pub limits: Vec<String>,
    /// Whose data the caller is bound to, a line each; none: everybody's.
    pub users: Vec<String>,
    /// What is attached.
    pub credential: Option<UsedCredential>,
    /// What is sent.
    pub sent: Option<Sent>,
    /// What becomes of the answer before its caller gets it, where anything does.
    pub answer: Option<&'static str>,
    /// What of a request that is let through only a running gateway judges, where that is more than is said of all.
    pub not_judged: Option<&'static str>,
    /// Why it is refused; `None`: it would be sent.
    pub refused: Option<Refused>,
    /// Why it would be refused, were its caller not in observe mode.
    pub would_refuse: Option<WouldRefuse>,
}

/// A refusal that observe mode prevents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WouldRefuse {
    /// Until when.
    pub until: Option<SystemTime>,
    /// The refusal.
    pub refused: Refused,
}

/// A credential's name and fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedCredential {
    /// The secret's reference, or `the caller's own Bearer token`.
    pub name: String,
    /// How it is attached, as the configuration says it.
    pub kind: &'static str,
    /// The first 8 digits of its digest.
    pub fingerprint: Option<String>,
    /// Why there is none.
    pub note: Option<String>,
}

/// The head that would be sent. Values that hold a credential are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Path and query, without the caller's credentials, and without ours.
    pub target: String,
    /// Names of query parameters that are added, when the credential travels there.
    pub query: Vec<String>,
    /// Names of the caller's fields that stay in the gateway.
    pub removed: Vec<String>,
    /// Fields that the gateway adds or replaces.
    pub added: Vec<(String, String)>,
    /// Names of the caller's fields that are passed on.
    pub kept: Vec<String>,
}

/// A refusal, and its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The answer's status.
    pub status: u16,
    /// The stable code.
    pub code: &'static str,
    /// What would have to change, each a sentence.
    pub changes: Vec<String>,
}

/// What stands for a value that holds a credential.
const MASK: &str = "***";

impl Explainer {
    /// Makes a configuration's decisions ready. Reads no secret and no certificate.
    ///
    /// # Errors
    /// What a gateway could not be started with.
    pub fn new(config: &Config) -> Result<Self, Unanswerable> {
        Ok(Self { config: config.clone(), snapshot: blank(config)?, fingerprints: None })
    }

    /// Looks for the secrets, to show their fingerprints. One that cannot be had is no fault.
    #[must_use]
    pub fn with_fingerprints(mut self) -> Self {
        let gathered = Gathered::once(&self.config);
        let one = |reference: &Reference| {
            let gathered = gathered.as_ref().map_err(ToString::to_string)?;
            let resolved = gathered.resolve(reference).map_err(|error| match &*error {
                vault::Error::Identity(_) | vault::Error::Embedded(_) => {
                    format!("the vault is not opened: {}", chain(&*error))
                }
                _ => chain(&*error),
            })?;
            Ok(resolved.fingerprint.to_string())
        };
        let references = self.config.environments.values().flat_map(|environment| environment.references());
        self.fingerprints = Some(tree(references.map(|reference| (reference.clone(), one(reference)))));
        self
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Walks as the running code would.
    ///
    /// # Errors
    /// When the question names what is not there.
    pub fn explain(&self, question: &Question) -> Result<Explanation, Unanswerable> {
        let index = self.listener(question)?;
        match &question.asker {
            Asker::Address(address) => {
                let socket = (address.to_canonical(), 0).into();
                let asks = self.config.listeners.get(index).is_some_and(|one| one.client_ca.is_some());
                let peer = match &question.tls_names[..] {
                    [] => Peer::Tcp(socket),
                    _ if !asks => return Err(Unanswerable::NoCertificates),
                    names => Peer::Certified(socket, Rc::new(Names::presumed(names))),
                };
                Ok(self.walk(&self.snapshot, index, peer, question))
            }
            Asker::Unix { uid, gid } => {
                Ok(self.walk(&self.snapshot, index, Peer::Unix { uid: *uid, gid: *gid }, question))
            }
            Asker::Caller(name) => {
                let snapshot = blank(&self.presuming(name)?)?;
                Ok(self.walk(&snapshot, index, PRESUMED, question))
            }
        }
    }

    fn walk(&self, snapshot: &Snapshot, listener: usize, peer: Peer, question: &Question) -> Explanation {
        let mut walked = Walked::default();
        let head = message::head(question, &self.config);
        let ended = head.and_then(|head| self.decided(snapshot, listener, &peer, &head, &mut walked));
        let (sent, refused) = match ended {
            Ok(sent) => (sent, None),
            Err(no) => (None, Some(no)),
        };
        self.told(listener, question, walked, sent, refused)
    }

    fn decided(
        &self,
        snapshot: &Snapshot,
        listener: usize,
        peer: &Peer,
        head: &request::Parts,
        walked: &mut Walked,
    ) -> Result<Option<(Sent, UsedCredential)>, No> {
        let not_ready = || No { end: End::Failed(Failure::NotReady), detail: None };
        let refused = |end| No {
            detail: head
                .uri
                .path_and_query()
                .and_then(|target| Target::parse(target.as_str()).err())
                .map(|malformed| malformed.to_string()),
            end,
        };
        let listener = snapshot.listeners.get(listener).ok_or_else(not_ready)?;
        let Some(index) = listener.environment else {
            let decided = gateway::connections::decide(snapshot, listener, peer, head, walked);
            return decided.map(|_| None).map_err(refused);
        };
        let environment = snapshot.environments.get(index).ok_or_else(not_ready)?;
        let decided = gateway::decide(snapshot, listener, peer, head, walked).map_err(refused)?;
        let own = environment.own.key().map(Prepared::for_worker);
        let token = environment.bearer.token().map(Prepared::for_worker);
        let access = decided.choice.presumed_access();
        let at_hand = AtHand { own: own.as_ref(), token: token.as_ref(), access: access.as_ref() };
        let attached = decided.choice.attached(&at_hand);
        let attached = attached.map_err(|refusal| No { end: refusal.into(), detail: None })?;
        let sent = message::sent(&decided, head, environment, &attached);
        Ok(Some((sent, self.credential(&environment.name, &attached))))
    }

    fn credential(&self, environment: &str, attached: &Attached<'_>) -> UsedCredential {
        let Some(credential) = attached.credential() else {
            let name = "the caller's own Bearer token".to_owned();
            return UsedCredential { name, kind: "bearer", fingerprint: None, note: None };
        };
        let settings = self.config.environments.get(environment);
        let reference = settings
            .and_then(|settings| settings.references().find(|one| one.to_string() == credential.used.name()));
        let own = settings.filter(|settings| settings.credential.reference() == reference);
        let found = self.fingerprints.as_ref().zip(reference).and_then(|(all, one)| all.get(one));
        let (fingerprint, note) = match found {
            Some(Ok(fingerprint)) => (Some(fingerprint.clone()), None),
            Some(Err(note)) => (None, Some(note.clone())),
            None => (None, None),
        };
        UsedCredential {
            name: credential.used.name().to_owned(),
            kind: own.map_or("bearer", |settings| words::kind(&settings.credential)),
            fingerprint,
            note,
        }
    }

    /// Puts into words what was found out.
    fn told(
        &self,
        listener: usize,
        question: &Question,
        walked: Walked,
        sent: Option<(Sent, UsedCredential)>,
        refused: Option<No>,
    ) -> Explanation {
        let settings = self.config.listeners.get(listener);
        let environment =
            settings.and_then(|settings| self.config.environments.get(settings.serves.environment()?));
        let caller = walked.caller.as_ref().and_then(|name| self.caller(name));
        let operation = walked.operation();
        let rule = caller.and_then(|caller| match environment {
            Some(environment) => words::rule(caller, environment, operation, walked.template.as_deref()),
            None => Some(words::connections(caller)),
        });
        let found = advice::Found { config: &self.config, question, environment, caller, operation };
        let told = |no: No| {
            let (status, code) = no.status_and_code();
            Refused { status, code, changes: advice::changes(&found, &walked, &no) }
        };
        let would_refuse = walked.would_refuse.map(|refusal| WouldRefuse {
            until: caller.and_then(|caller| caller.observe_until),
            refused: told(No { end: refusal.into(), detail: None }),
        });
        let refused = refused.map(told);
        let (sent, credential) = sent.unzip();
        let answer = environment.filter(|_| refused.is_none()).zip(operation);
        Explanation {
            method: question.method.clone(),
            target: question.target.clone(),
            listener: settings.map(|settings| settings.address.to_string()).unwrap_or_default(),
            serves: if environment.is_some() { "environment" } else { "connections" },
            environment: environment.map(|environment| environment.name.clone()).unwrap_or_default(),
            host: environment.map(|environment| words::host(environment)).unwrap_or_default(),
            origin: walked.origin.filter(|_| !question.asker.is_presumed()).map(|origin| origin.to_string()),
            recognised: words::recognised(question, &walked, caller),
            caller: walked.caller,
            operation: operation.map(|operation| operation.id),
            template: operation.map(|operation| operation.template.to_owned()).or(walked.template),
            classes: operation
                .map(|operation| operation.classes.iter().map(|class| class.as_str()).collect())
                .unwrap_or_default(),
            rule,
            limits: caller
                .map(|caller| words::limits(caller, environment.map(|one| &**one), &question.method))
                .unwrap_or_default(),
            users: caller.filter(|_| environment.is_some()).map(words::users).unwrap_or_default(),
            credential,
            sent,
            answer: answer.and_then(|(environment, operation)| words::answer(environment, operation)),
            not_judged: (environment.is_none() && refused.is_none()).then_some(words::NOT_JUDGED),
            refused,
            would_refuse,
        }
    }

    fn caller(&self, name: &str) -> Option<&config::Caller> {
        self.config.callers.iter().find(|caller| caller.name == name)
    }

    /// The configuration with one caller, who is recognised without any of its criteria.
    fn presuming(&self, name: &str) -> Result<Config, Unanswerable> {
        let names = || self.config.callers.iter().map(|caller| caller.name.as_str());
        let caller = self.caller(name).ok_or_else(|| Unanswerable::NoCaller(listed(names())))?;
        let nobody = |caller: &config::Caller| config::Caller {
            networks: None,
            unix_uids: None,
            unix_gids: None,
            tls_names: None,
            token: false,
            ..caller.clone()
        };
        let presumed = config::Caller { unix_uids: Some(vec![PRESUMED_UID]), ..nobody(caller) };
        // The others can be nobody here, but what is private to them stays so.
        let others = self.config.callers.iter().filter(|other| other.name != name).map(nobody);
        Ok(Config { callers: std::iter::once(presumed).chain(others).collect(), ..self.config.clone() })
    }
}

/// Who a presumed caller is recognised by, in a configuration that was made for it.
const PRESUMED_UID: u32 = 0;
const PRESUMED: Peer = Peer::Unix { uid: PRESUMED_UID, gid: 0 };

impl Asker {
    fn is_presumed(&self) -> bool {
        matches!(self, Self::Caller(_))
    }
}

fn blank(config: &Config) -> Result<Snapshot, Unanswerable> {
    Snapshot::blank(config).map_err(|errors| {
        Unanswerable::Unusable(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    })
}

fn listed(names: impl Iterator<Item = impl fmt::Display>) -> String {
    names.map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
