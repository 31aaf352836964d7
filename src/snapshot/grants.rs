//! Grants, ready for requests: by caller and environment, and what observe mode lets through for a time.

use std::{collections::HashMap, time::SystemTime};

use super::Error;
use crate::{
    admission::CallerIndex,
    config::{self, Config},
    policy::grant::Allowed,
};

/// What each caller may do at each environment.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    /// By caller, then by environment.
    granted: Vec<Vec<Option<Allowed>>>,
    /// Of the callers in observe mode: until when, and by environment what is let through till then.
    observed: HashMap<CallerIndex, (SystemTime, Vec<Option<Allowed>>)>,
}

impl Grants {
    pub(super) fn new(config: &Config, errors: &mut Vec<Error>) -> Self {
        let one = |caller: &config::Caller, environment: &config::Environment| {
            let items = caller.grant.get(&environment.name)?;
            let listed = match &environment.api {
                config::Api::Platform => None,
                config::Api::Paths(paths) => Some(paths.as_slice()),
            };
            Some(Allowed::new(items, listed).map_err(|reason| Error::Pattern {
                caller: caller.name.clone(),
                environment: environment.name.clone(),
                reason,
            }))
        };
        let mut of = |caller| {
            let all = config.environments.values().map(|environment| one(caller, environment));
            all.map(|allowed| allowed?.map_err(|error| errors.push(error)).ok()).collect()
        };
        let granted: Vec<_> = config.callers.iter().map(&mut of).collect();
        let mut observed = HashMap::new();
        for (index, caller) in CallerIndex::all().zip(&config.callers) {
            if let Some(until) = caller.observe_until {
                // An environment of other paths than MX's has no classes to go by.
                let allowed: Vec<Option<Allowed>> = of(caller);
                let widened = config.environments.values().zip(allowed).map(|(environment, allowed)| {
                    allowed.filter(|_| environment.api == config::Api::Platform).map(Allowed::observed)
                });
                observed.insert(index, (until, widened.collect()));
            }
        }
        Self { granted, observed }
    }

    /// What `caller` may do at an environment; `None`: nothing.
    pub(crate) fn of(&self, caller: CallerIndex, environment: usize) -> Option<&Allowed> {
        self.granted.get(caller.get())?.get(environment)?.as_ref()
    }

    /// What a caller in observe mode is let through with at `now`; `None`: it is not in it, or has no grant there.
    pub(crate) fn observed(
        &self,
        caller: CallerIndex,
        environment: usize,
        now: SystemTime,
    ) -> Option<&Allowed> {
        let (until, allowed) = self.observed.get(&caller)?;
        allowed.get(environment)?.as_ref().filter(|_| now < *until)
    }
}
