//! Where a request comes in that is asked about.

use super::{Asker, Explainer, Question, Unanswerable, listed};
use crate::config::{self, ListenAddress};

impl Explainer {
    /// Where the request comes in: the place of a listener in the configuration.
    pub(super) fn listener(&self, question: &Question) -> Result<usize, Unanswerable> {
        let all = &self.config.listeners;
        let there = || listed(all.iter().map(|one| one.address.to_string()));
        let is_unix = |address: &ListenAddress| matches!(address, ListenAddress::Unix(_));
        let (fits, wanted): (fn(bool) -> bool, _) = match &question.asker {
            Asker::Address(_) => (|is_unix| !is_unix, "callers by address"),
            Asker::Unix { .. } => (|is_unix| is_unix, "callers on a Unix socket"),
            Asker::Caller(_) => (|_| true, "callers of that environment"),
        };
        if let Some(asked) = &question.listener {
            let index = all.iter().position(|one| one.address.to_string() == *asked);
            let index =
                index.ok_or_else(|| Unanswerable::NoListener { asked: asked.clone(), there: there() })?;
            let unix = all.get(index).is_some_and(|one| is_unix(&one.address));
            let takes = if unix { "callers on a Unix socket" } else { "callers by address" };
            return if fits(unix) { Ok(index) } else { Err(Unanswerable::OtherKind(asked.clone(), takes)) };
        }
        let has_grant = |one: &config::Listener| match &question.asker {
            Asker::Caller(name) => {
                let environment = one.serves.environment();
                self.caller(name)
                    .zip(environment)
                    .is_some_and(|(caller, name)| caller.grant.contains_key(name))
            }
            _ => false,
        };
        let fitting = || {
            let asked = question.environment.as_deref();
            let goes_there = move |one: &config::Listener| {
                one.serves.environment().is_some_and(|name| asked.is_none_or(|asked| asked == name))
            };
            let fitting = all.iter().enumerate().filter(|(_, one)| fits(is_unix(&one.address)));
            fitting.filter(move |(_, one)| goes_there(one))
        };
        let first = fitting().find(|(_, one)| has_grant(one)).or_else(|| fitting().next());
        first.map(|(index, _)| index).ok_or_else(|| Unanswerable::NoneFits(wanted, there()))
    }
}
