//! What metrics and the status show of the secrets: names and times, never a value.

use std::time::Duration;

use super::{Keeper, Used};
use crate::{
    status::{SecretState, SecretStatus},
    tree::tree,
    vault::{chain, known::Known},
};

impl Keeper {
    /// Every secret of the configuration in use, or of the one that is to come into use, by environment.
    pub(crate) fn status(&self) -> Vec<SecretStatus> {
        let now = (self.clock)();
        let state = self.state();
        let Some(part) = state.parts().next() else { return Vec::new() };
        let one = |Used { environment, reference, .. }: &Used| {
            let known = state.known.get(&reference.to_string());
            let good = known.and_then(Known::good);
            let passed = good.is_some_and(|good| good.deadline.has_passed(|| now));
            SecretStatus {
                environment: environment.clone(),
                reference: reference.to_string(),
                source: reference.scheme().name().to_owned(),
                fingerprint: good.map(|good| good.fingerprint.to_string()),
                version: good.and_then(|good| good.version.clone()),
                state: match good {
                    _ if known.is_some_and(Known::is_none) => SecretState::None,
                    None => SecretState::Unread,
                    Some(_) if known.is_some_and(Known::revoked) => SecretState::Revoked,
                    Some(_) if passed => SecretState::Expired,
                    Some(_) => SecretState::Usable,
                },
                age_ms: known.and_then(|known| known.age(now)).map(millis),
                remaining_ms: good.and_then(|good| good.deadline.remaining(now)).map(millis),
                fault: known.and_then(Known::trouble).map(|fault| chain(&**fault)),
                failures: tree(
                    known
                        .iter()
                        .flat_map(|known| known.failures())
                        .filter(|(_, count)| *count > 0)
                        .map(|(reason, count)| (reason.code().to_owned(), count)),
                ),
            }
        };
        part.used.iter().map(one).collect()
    }

    /// Whether every secret in use could be read when it was last looked at.
    pub(crate) fn all_read(&self) -> bool {
        let state = self.state();
        let used = state.used.iter().flat_map(|part| &part.used);
        used.map(|used| state.known.get(&used.reference.to_string()))
            .all(|known| known.is_some_and(|known| known.attempted() && known.trouble().is_none()))
    }

    /// Why the last look at secrets in use failed, for those whose last good value goes on.
    pub(crate) fn faults(&self) -> Vec<String> {
        let state = self.state();
        let used = state.references().into_iter().filter_map(|reference| {
            let known = state.known.get(&reference.to_string())?;
            known.good()?;
            known.trouble().map(|fault| (known.revoked(), chain(&**fault)))
        });
        let said = |(revoked, fault): (bool, String)| match revoked {
            true => format!("{fault}: it is used no longer"),
            false => format!("{fault}: the last good value stays until its grace ends"),
        };
        let mut faults: Vec<String> = used.map(said).collect();
        // Entries of a vault that cannot be opened have one fault.
        faults.dedup();
        faults
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
