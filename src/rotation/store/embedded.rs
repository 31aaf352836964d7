//! The embedded vault file as a rotation's store.
//!
//! The two keys are entries, and the record is a third one, `rotation/ENVIRONMENT`, which is sealed for no host. One
//! write of the file changes all of them, under the file's lock, if none of the three has changed since it was read.
//! The recovery file stands beside the vault file and is sealed for the same identity.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::task::spawn_blocking;

use super::{Contents, Error, Source, Store, Written};
use crate::{
    config::{Environment, VaultFile},
    rotation::{Doing, recovery, state::Record},
    vault::{
        embedded::{self, Entries, Entry, Identity, Opened},
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
    identity: Identity,
    environment: String,
    host: String,
    primary: String,
    secondary: String,
    record: String,
    /// As it was read last.
    opened: Mutex<Option<Opened>>,
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
    /// # Errors
    /// [`Error::Unread`] when the identity cannot be loaded.
    pub(super) fn open(
        vault: &VaultFile,
        environment: &Environment,
        primary: &str,
        secondary: Option<&str>,
    ) -> Result<Self, Error> {
        let identity = Identity::of(vault).map_err(|error| Error::Unread(error.into()))?;
        Ok(Self(Arc::new(Place {
            path: vault.path.clone(),
            identity,
            environment: environment.name.clone(),
            host: environment.host.clone(),
            primary: primary.to_owned(),
            // One that is never written has an empty name, which no entry has.
            secondary: secondary.unwrap_or_default().to_owned(),
            record: record_name(&environment.name),
            opened: Mutex::default(),
        })))
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
        self.blocking(move |place| place.rescue(key))
    }

    fn rescued(&self) -> Doing<'_, Result<Option<Arc<Secret>>, Error>> {
        self.blocking(Place::rescued)
    }

    fn prepare_rescue(&self) -> Doing<'_, Result<(), Error>> {
        self.blocking(|place| {
            recovery::reserve(&place.recovery()).map_err(|error| place.recovery_failed(error.into()))
        })
    }

    fn forget_rescue(&self) -> Doing<'_, Result<(), Error>> {
        self.blocking(|place| {
            recovery::forget(&place.recovery()).map_err(|error| place.recovery_failed(error.into()))
        })
    }

    fn places(&self) -> [String; 2] {
        [format!("vault:{}", self.0.primary), format!("vault:{}", self.0.secondary)]
    }
}

impl Place {
    fn recovery(&self) -> PathBuf {
        recovery::beside(&self.path, &self.environment)
    }

    fn recovery_failed(&self, source: Source) -> Error {
        Error::Recovery { place: self.recovery().display().to_string(), source }
    }

    /// With what was known when the vault was last read: it may be gone, or its disk full.
    fn rescue(&self, key: Arc<Secret>) -> Result<String, Error> {
        let path = self.recovery();
        let failed = |error: Source| self.recovery_failed(error);
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = opened.as_ref().ok_or_else(|| failed("the vault was never read".into()))?;
        let hosts = opened.entries.get(&self.primary).map(|entry| entry.hosts.clone());
        recovery::give_back(&path).map_err(|error| failed(error.into()))?;
        opened.seal_aside(&path, &self.secondary, key, hosts).map_err(|error| failed(error.into()))?;
        Ok(path.display().to_string())
    }

    fn rescued(&self) -> Result<Option<Arc<Secret>>, Error> {
        let path = self.recovery();
        if !path.exists() {
            return Ok(None);
        }
        let saved = embedded::saved(&self.path, &self.identity, &path);
        let (name, entry) = saved.map_err(|error| self.recovery_failed(error.into()))?;
        if name != self.secondary {
            return Err(self.recovery_failed(format!("it holds {name}, not {}", self.secondary).into()));
        }
        Ok(Some(entry.secret))
    }

    /// Nothing is written, not even that the vault was seen.
    fn load(&self) -> Result<Contents, Error> {
        let opened =
            embedded::peek(&self.path, &self.identity).map_err(|error| Error::Unread(error.into()))?;
        let contents = self.contents(&opened);
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
        contents
    }

    fn contents(&self, opened: &Opened) -> Result<Contents, Error> {
        let of = |name: &str| opened.entries.get(name);
        if let Some(primary) = of(&self.primary)
            && !primary.hosts.iter().any(|host| host.eq_ignore_ascii_case(&self.host))
        {
            return Err(Error::WrongHost {
                place: format!("vault:{}", self.primary),
                host: self.host.clone(),
            });
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
            primary: of(&self.primary).map(|entry| Arc::clone(&entry.secret)),
            secondary: of(&self.secondary).map(|entry| Arc::clone(&entry.secret)),
            record,
            primary_since: of(&self.primary).and_then(written),
        })
    }

    /// Changes whenever one of the three entries does, and never because of another one. A removed entry begins at
    /// version 1 again, so its content counts, too; the record's version only ever rises.
    fn version<'a>(&self, of: impl Fn(&str) -> Option<&'a Entry>) -> String {
        let one = |name: &String| match of(name) {
            None => "-".to_owned(),
            Some(entry) => format!("{}:{}", entry.version, entry.secret.fingerprint()),
        };
        [&self.primary, &self.secondary, &self.record].map(one).join(" ")
    }

    fn store(&self, contents: &Contents) -> Result<Written, Error> {
        let made =
            embedded::update(&self.path, &self.identity, None, |entries| self.change(entries, contents));
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
        let hosts = entries.get(&self.primary).map(|entry| entry.hosts.clone());
        for (name, key) in [(&self.primary, &contents.primary), (&self.secondary, &contents.secondary)] {
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
