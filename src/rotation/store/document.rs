//! One document of a server as a rotation's store: `openbao:secret/mx` and the like.
//!
//! The two keys are two fields of it, and the record is a third one, `mxgate_rotation_ENVIRONMENT`, which holds JSON as a
//! text. One write replaces the whole document, if it is still the version that was read; the fields of others stay as
//! they are. An emptied slot is a field that is not there.
//!
//! What must never happen: a key is written beside a record that does not speak of it; a field of others is lost.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task::spawn_blocking;

use super::{Contents, Error, Store, Written, rescue::Rescue};
use crate::{
    config::{Environment, VaultFile},
    rotation::{Doing, state::Record},
    vault::{
        destination, field, fields,
        keeper::secret_in,
        reference::Reference,
        secret::Secret,
        source::{self, Document, Reason, Source, Writable},
    },
};

/// What the record's field begins with.
const RECORD: &str = "mxgate_rotation_";

/// The document, and the fields that matter.
pub(super) struct InDocument {
    source: Arc<dyn Source>,
    primary: Reference,
    secondary: Reference,
    /// The field with the record.
    record: String,
    host: String,
    /// `None` for who only looks.
    rescue: Option<Arc<Rescue>>,
}

impl InDocument {
    /// For a rotation. Both references name fields of the same document.
    ///
    /// # Errors
    /// [`Error::NotFor`].
    pub(super) fn open(
        source: Arc<dyn Source>,
        vault: &VaultFile,
        environment: &Environment,
        [primary, secondary]: [&Reference; 2],
    ) -> Result<Self, Error> {
        let name = format!("rotation/{}/secondary", environment.name);
        let rescue = Arc::new(Rescue::new(vault, environment, &name));
        let opened = Self { rescue: Some(rescue), ..Self::look(source, environment, [primary, secondary]) };
        opened.check_hosts()?;
        Ok(opened)
    }

    /// To be looked at only.
    pub(super) fn look(
        source: Arc<dyn Source>,
        environment: &Environment,
        [primary, secondary]: [&Reference; 2],
    ) -> Self {
        Self {
            source,
            primary: primary.clone(),
            secondary: secondary.clone(),
            record: format!("{RECORD}{}", environment.name),
            host: environment.host.clone(),
            rescue: None,
        }
    }

    /// A key goes to the hosts that stand beside its reference.
    fn check_hosts(&self) -> Result<(), Error> {
        destination::check(&self.primary, None, &self.host)?;
        Ok(destination::check(&self.secondary, None, &self.host)?)
    }

    async fn read(&self) -> Result<Document, Error> {
        self.source.read(self.primary.place()).await.map_err(|error| match error {
            source::Error::Absent => {
                Error::Unread(format!("{} does not exist", self.primary.document()).into())
            }
            other => Error::Unread(other.into()),
        })
    }

    fn contents(&self, document: &Document) -> Result<Contents, Error> {
        let (primary, secondary) = (key(document, &self.primary)?, key(document, &self.secondary)?);
        crate::redaction::held().remember(primary.iter().chain(&secondary));
        let record = match field::of(&document.bytes, &self.record) {
            Err(field::Fault::Missing) => Some(Record::default()),
            Ok(json) => Record::read(&json),
            Err(_) => None,
        };
        let no_record = || Error::NoRecord { place: format!("{}#{}", self.primary.document(), self.record) };
        let record = record.ok_or_else(no_record)?;
        // A document that a rotation has written says nothing about its keys by its date.
        let written = document.written.filter(|_| record == Record::default());
        let since_epoch = written.and_then(|written| written.duration_since(SystemTime::UNIX_EPOCH).ok());
        Ok(Contents {
            version: document.version.clone().unwrap_or_default(),
            secondary: secondary.filter(|key| primary.as_ref() != Some(key)),
            primary,
            record,
            primary_since: since_epoch.as_ref().map(Duration::as_secs),
        })
    }

    async fn replace(&self, target: &dyn Writable, contents: &Contents) -> Result<Written, Error> {
        let found = self.read().await?;
        if found.version.as_deref() != Some(&contents.version) {
            return Ok(Written::Conflict);
        }
        let document = self.changed(&found, contents)?;
        let written = target.write(self.primary.place(), &document, Some(&contents.version)).await;
        Ok(match written.map_err(|error| Error::Unwritten(error.into()))? {
            source::Written::Stored(version) => Written::Stored(version),
            source::Written::Conflict => Written::Conflict,
        })
    }

    /// The document with the fields of `contents`, to be written.
    #[expect(clippy::disallowed_methods, reason = "puts the keys into the vault's document")]
    fn changed(&self, found: &Document, contents: &Contents) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> {
        let unwritten = |error: super::Source| Error::Unwritten(error);
        let record = contents.record.json().map_err(|error| unwritten(error.into()))?;
        let mut changes = vec![(self.record.as_str(), Some(record.as_str()))];
        for (reference, key) in [(&self.primary, &contents.primary), (&self.secondary, &contents.secondary)] {
            let text = key.as_ref().map(|key| std::str::from_utf8(key.expose())).transpose();
            changes.push((
                reference.field().unwrap_or_default(),
                text.map_err(|error| unwritten(error.into()))?,
            ));
        }
        fields::with(&found.bytes, &changes).map_err(|fault| unwritten(fault.into()))
    }

    /// Files may hang on a network volume, and age takes its time.
    fn rescuing<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Rescue) -> Result<T, Error> + Send + 'static,
    ) -> Doing<'_, Result<T, Error>> {
        let rescue = self.rescue.clone();
        Box::pin(async move {
            let rescue = rescue.ok_or_else(|| Error::Unwritten("it was only looked at".into()))?;
            spawn_blocking(move || f(&rescue))
                .await
                .unwrap_or_else(|error| Err(Error::Unwritten(error.into())))
        })
    }
}

/// The key that `reference` names; `None` when the document has no such field.
fn key(document: &Document, reference: &Reference) -> Result<Option<Arc<Secret>>, Error> {
    match secret_in(document, reference) {
        Ok(key) => Ok(Some(Arc::new(key))),
        Err(error) if error.reason() == Reason::Absent => Ok(None),
        Err(error) => Err(Error::Unread(error.into())),
    }
}

impl Store for InDocument {
    fn load(&self) -> Doing<'_, Result<Contents, Error>> {
        Box::pin(async { self.contents(&self.read().await?) })
    }

    fn store<'a>(&'a self, contents: &'a Contents) -> Doing<'a, Result<Written, Error>> {
        Box::pin(async move {
            match self.source.as_writable() {
                Some(target) => self.replace(target, contents).await,
                None => Err(Error::ReadOnly { reference: self.primary.clone() }),
            }
        })
    }

    fn rescue<'a>(&'a self, key: &'a Arc<Secret>) -> Doing<'a, Result<String, Error>> {
        let (key, host) = (Arc::clone(key), self.host.clone());
        self.rescuing(move |rescue| rescue.seal(key, |_| Some(vec![host])))
    }

    fn rescued(&self) -> Doing<'_, Result<Option<Arc<Secret>>, Error>> {
        self.rescuing(Rescue::saved)
    }

    fn prepare_rescue(&self) -> Doing<'_, Result<(), Error>> {
        self.rescuing(|rescue| {
            rescue.keep(rescue.peek()?);
            rescue.prepare()
        })
    }

    fn forget_rescue(&self) -> Doing<'_, Result<(), Error>> {
        self.rescuing(Rescue::forget)
    }

    fn places(&self) -> [String; 2] {
        [self.primary.to_string(), self.secondary.to_string()]
    }
}

#[cfg(test)]
mod tests;
