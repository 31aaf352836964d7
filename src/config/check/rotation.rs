//! `[environment.NAME.rotation]`.

use std::time::Duration;

use crate::{
    config::{Api, Credential, Rotation, fault::Problem, walk::Table},
    rotation::store,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `None` when it is faulty, which was reported.
pub(super) fn rotation(
    environment: &Table<'_>,
    api: &Api,
    credential: Option<&Credential>,
) -> Option<Rotation> {
    let table = environment.section("rotation");
    let client_guid = table.parsed("client_guid", client_guid);
    let schedule = table.integer("schedule_days");
    let rotation = Rotation {
        client_guid,
        schedule: schedule.map(days),
        keep_old: table.flag("keep_old"),
        warn_after: days(table.count("warn_days")),
        wait_min: table.millis("wait_min_ms"),
        lease: table.millis("lease_ms"),
    };
    if *api != Api::Platform {
        for key in ["client_guid", "schedule_days"].into_iter().filter(|key| table.has(key)) {
            table.warn(key, "does nothing beside paths: the rotation of keys is MX's Platform API's");
        }
    } else if table.has("schedule_days") {
        scheduled(&table, credential);
    }
    if rotation.schedule.is_some_and(|schedule| schedule >= rotation.warn_after) {
        table.warn(
            "schedule_days",
            "is not shorter than warn_days, so each rotation is preceded by a warning",
        );
    }
    (rotation.client_guid.is_some() || !table.has("client_guid")).then_some(rotation)
}

/// A gateway that could not rotate must not look as if it did.
fn scheduled(table: &Table<'_>, credential: Option<&Credential>) {
    if !table.has("client_guid") {
        let problem = Problem::new("needs client_guid, by which MX's rotation API names the client");
        table.fault("schedule_days", problem.allowed("add client_guid, or leave it out"));
    }
    let Some(credential) = credential else { return };
    let Some(secondary) = credential.secondary() else {
        let problem = Problem::new("needs a credential with api_key and secondary_api_key");
        table.fault(
            "schedule_days",
            problem.allowed("add secondary_api_key, where a new key is sealed first"),
        );
        return;
    };
    if !credential.reference().is_some_and(|primary| store::is_writable(primary, secondary)) {
        let problem = Problem::new("needs both keys in one vault that mxgate can write");
        table.fault("schedule_days", problem.allowed(store::WRITABLE));
    }
}

fn days(count: u64) -> Duration {
    DAY * u32::try_from(count).unwrap_or(u32::MAX)
}

/// MX's name for a client, which becomes a segment of a path.
///
/// # Errors
/// What is wrong with it.
pub fn client_guid(text: &str) -> Result<String, Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match !text.is_empty() && text.len() <= 128 && text.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => {
            Err(Problem::new("is no client guid").allowed("letters, digits, - and _, such as \"CLT-123\""))
        }
    }
}
