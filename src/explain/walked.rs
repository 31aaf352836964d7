//! What a walk finds out on its way, when it is only asked about.

use std::{rc::Rc, sync::Arc, time::SystemTime};

use http::HeaderMap;

use crate::{
    admission::{Caller, NotAdmitted, Origin},
    gateway::Trail,
    policy::{Call, Denial, Grant},
    refusal::Refusal,
    users::{
        Reason, Told,
        end_user::{EndUser, Remembered},
    },
};

/// What a walk found out on its way.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) origin: Option<Origin>,
    pub(super) caller: Option<String>,
    pub(super) denied: Option<&'static crate::mx::catalogue::Operation>,
    pub(super) granted: Option<&'static crate::mx::catalogue::Operation>,
    pub(super) template: Option<String>,
    pub(super) would_refuse: Option<Refusal>,
    pub(super) not_bound: Option<Reason>,
}

impl Walked {
    pub(super) fn operation(&self) -> Option<&'static crate::mx::catalogue::Operation> {
        self.granted.or(self.denied)
    }
}

impl Trail for Walked {
    fn turned_away(&mut self, not: NotAdmitted) {
        self.origin = Some(not.origin);
    }

    fn admitted(&mut self, caller: Caller, name: Option<&Arc<str>>) {
        self.origin = Some(caller.origin());
        self.caller = name.map(|name| name.to_string());
    }

    fn check_running(&mut self, _caller: Caller) -> Result<(), Refusal> {
        Ok(())
    }

    fn identify(
        &mut self,
        end_user: &EndUser,
        caller: Caller,
        headers: &HeaderMap,
    ) -> Result<Rc<str>, Reason> {
        end_user.identify(caller.index(), headers, &mut Remembered::default())
    }

    fn not_bound(&mut self, reason: Reason, _caller: Caller) -> Told {
        self.not_bound = Some(reason);
        reason.told()
    }

    fn denied(&mut self, denial: &Denial) {
        self.denied = denial.operation;
    }

    fn would_refuse(&mut self, refusal: Refusal) {
        self.would_refuse = Some(refusal);
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn granted(&mut self, grant: &Grant) -> Result<(), Refusal> {
        self.granted = grant.operation();
        if let Call::Pattern(template) = grant.call() {
            self.template = Some(template.to_string());
        }
        Ok(())
    }

    fn asks_for(&mut self, template: &'static str) {
        self.template = Some(template.to_owned());
    }
}
