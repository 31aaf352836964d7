//! The embedded vault file as a rotation's store.
//!
//! The two keys are entries, and the record is a third one, `rotation/ENVIRONMENT`, which is sealed for no host. One
//! write of the file changes all of them, under the file's lock, if none of the three has changed since it was read.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task::spawn_blocking;

use super::{Contents, Error, Store, Written, rescue::Rescue};
use crate::{
    config::{Environment, VaultFile},
    rotation::{Doing, state::Record},
    vault::{
        destination,
        embedded::{self, Entries, Entry, Opened},
        reference::Reference,
        secret::Secret,
    },
};

/// The folder of records among the entries.
const RECORDS: &str = "rotation/";

/// Where an environment's keys and record are.
#[derive(Debug)]
pub(crate) struct Embedded(Arc<Place>);

#[derive(Debug)]
struct Place {
    path: PathBuf,
    host: String,
    primary: Reference,
    /// `None`: there is none to be written.
    secondary: Option<Reference>,
    record: String,
    rescue: Rescue,
}

/// Why an update of the file was not made.
enum Unmade {
    Conflict,
    Vault(embedded::Error),
    Json(serde_json::Error),
    Unfit(crate::vault::secret::Unfit),
}

impl From<embedded::Error> for Unmade {
    fn from(error: embedded::Error) -> Self {
        Self::Vault(error)
    }
}

/// The name of the entry with the record of `environment`.
pub(crate) fn record_name(environment: &str) -> String {
    format!("{RECORDS}{environment}")
}

/// Whether a reference names an entry where records are.
pub(super) fn is_record(reference: &Reference) -> bool {
    reference.place().starts_with(RECORDS)
}

/// When an entry was written last, in Unix time.
pub(crate) fn written(entry: &Entry) -> Option<u64> {
    let written = humantime::parse_rfc3339(&entry.updated).ok()?;
    written.duration_since(SystemTime::UNIX_EPOCH).ok().as_ref().map(Duration::as_secs)
}

/// The record that an entry holds.
#[expect(
    clippy::disallowed_methods,
    reason = "a record is kept as a vault's entry, and holds nothing secret"
)]
pub(crate) fn record_in(entry: &Entry) -> Option<Record> {
    Record::read(entry.secret.expose())
}

impl Embedded {
    /// Nothing is read yet.
    pub(super) fn new(
        vault: &VaultFile,
        environment: &Environment,
        primary: &Reference,
        secondary: Option<&Reference>,
    ) -> Self {
        let name = secondary.map(Reference::place).unwrap_or_default();
        Self(Arc::new(Place {
            path: vault.path.clone(),
            host: environment.host.clone(),
            primary: primary.clone(),
            secondary: secondary.cloned(),
            record: record_name(&environment.name),
            rescue: Rescue::new(vault, environment, name),
        }))
    }

    /// Files may hang on a network volume, and age takes its time.
    fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Place) -> Result<T, Error> + Send + 'static,
    ) -> Doing<'_, Result<T, Error>> {
        let place = Arc::clone(&self.0);
        Box::pin(async move {
            spawn_blocking(move || f(&place))
                .await
                .unwrap_or_else(|error| Err(Error::Unwritten(error.into())))
        })
    }
}

impl Store for Embedded {
    fn load(&self) -> Doing<'_, Result<Contents, Error>> {
        self.blocking(Place::load)
    }

    fn store<'a>(&'a self, contents: &'a Contents) -> Doing<'a, Result<Written, Error>> {
        let contents = contents.clone();
        self.blocking(move |place| place.store(&contents))
    }

    fn rescue<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Result<String, Error>> {
        let key = Arc::clone(key);
        self.blocking(move |place| place.seal_aside(key))
    }

    fn rescued(&self) -> Doing<'_, Result<Option<Arc<Secret>>, Error>> {
        self.blocking(|place| place.rescue.saved())
    }

    fn prepare_rescue(&self) -> Doing<'_, Result<(), Error>> {
        self.blocking(|place| place.rescue.prepare())
    }

    fn forget_rescue(&self) -> Doing<'_, Result<(), Error>> {
        self.blocking(|place| place.rescue.forget())
    }

    fn places(&self) -> [String; 2] {
        let secondary = self.0.secondary.as_ref().map(Reference::to_string);
        [self.0.primary.to_string(), secondary.unwrap_or_default()]
    }
}

impl Place {
    /// Where there is none, an empty name, which no entry has.
    fn secondary_name(&self) -> &str {
        self.secondary.as_ref().map(Reference::place).unwrap_or_default()
    }

    /// With what was known when the vault was last read: it may be gone, or its disk full.
    fn seal_aside(&self, key: Arc<Secret>) -> Result<String, Error> {
        self.rescue
            .seal(key, |opened| opened.entries.get(self.primary.place()).map(|entry| entry.hosts.clone()))
    }

    fn load(&self) -> Result<Contents, Error> {
        let opened = self.rescue.peek()?;
        let contents = self.contents(&opened);
        self.rescue.keep(opened);
        contents
    }

    fn contents(&self, opened: &Opened) -> Result<Contents, Error> {
        let of = |name: &str| opened.entries.get(name);
        for reference in [Some(&self.primary), self.secondary.as_ref()].into_iter().flatten() {
            if let Some(entry) = of(reference.place()) {
                destination::check(reference, Some(&entry.hosts), &self.host)?;
            }
        }
        let record = match of(&self.record) {
            None => Record::default(),
            Some(entry) => {
                let no_record = || Error::NoRecord { place: format!("vault:{}", self.record) };
                record_in(entry).ok_or_else(no_record)?
            }
        };
        Ok(Contents {
            version: self.version(of),
            primary: of(self.primary.place()).map(|entry| Arc::clone(&entry.secret)),
            secondary: of(self.secondary_name()).map(|entry| Arc::clone(&entry.secret)),
            record,
            primary_since: of(self.primary.place()).and_then(written),
        })
    }

    /// Changes whenever one of the three entries does, and never because of another one. A removed entry begins at
    /// version 1 again, so its content counts, too; the record's version only ever rises.
    fn version<'a>(&self, of: impl Fn(&str) -> Option<&'a Entry>) -> String {
        let one = |name: &str| match of(name) {
            None => "-".to_owned(),
            Some(entry) => format!("{}:{}", entry.version, entry.secret.fingerprint()),
        };
        [self.primary.place(), self.secondary_name(), &self.record].map(one).join(" ")
    }

    fn store(&self, contents: &Contents) -> Result<Written, Error> {
        let made = embedded::update(&self.path, self.rescue.identity()?, None, |entries| {
            self.change(entries, contents)
        });
        match made {
            Ok((_, version)) => Ok(Written::Stored(version)),
            Err(Unmade::Conflict) => Ok(Written::Conflict),
            Err(Unmade::Vault(error)) => Err(Error::Unwritten(error.into())),
            Err(Unmade::Json(error)) => Err(Error::Unwritten(error.into())),
            Err(Unmade::Unfit(error)) => Err(Error::Unwritten(error.to_string().into())),
        }
    }

    fn change(&self, entries: &mut Entries<'_>, contents: &Contents) -> Result<String, Unmade> {
        if self.version(|name| entries.get(name)) != contents.version {
            return Err(Unmade::Conflict);
        }
        // Both keys go to the same hosts, and no change of places widens them.
        let (primary, secondary) = (self.primary.place(), self.secondary_name());
        let hosts = entries.get(primary).map(|entry| entry.hosts.clone());
        for (name, key) in [(primary, &contents.primary), (secondary, &contents.secondary)] {
            match (entries.get(name), key) {
                (None, None) => {}
                // What stays as it is keeps its version and its date.
                (Some(entry), Some(key)) if entry.secret == *key => {}
                (_, Some(key)) => drop(entries.put(name, Arc::clone(key), hosts.clone())?),
                (Some(_), None) => drop(entries.remove(name)?),
            }
        }
        let record = contents.record.json().map_err(Unmade::Json)?;
        let record = Secret::new(record.into_bytes()).map_err(Unmade::Unfit)?;
        entries.note(&self.record, Arc::new(record))?;
        Ok(self.version(|name| entries.get(name)))
    }
}
