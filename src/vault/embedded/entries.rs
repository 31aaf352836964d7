//! The entries of a vault while they are changed: whatever is put in can be read again.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use super::{Entry, Error, document::timestamp, hosts, hosts_for, is_entry_name};
use crate::vault::secret::Secret;

/// What [`super::update`] changes. Every change of an entry raises its version and keeps its first date.
#[derive(Debug)]
pub struct Entries<'a>(&'a mut BTreeMap<String, Entry>);

impl<'a> Entries<'a> {
    pub(super) fn of(entries: &'a mut BTreeMap<String, Entry>) -> Self {
        Self(entries)
    }

    /// The present entry.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.0.get(name)
    }

    /// Every name, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Seals `secret` under `name` for the hosts of [`hosts_for`].
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::NoHosts`] or [`Error::BadHost`].
    pub fn put(
        &mut self,
        name: &str,
        secret: Arc<Secret>,
        hosts: Option<Vec<String>>,
    ) -> Result<&Entry, Error> {
        let hosts = hosts_for(self.0, name, hosts)?;
        if let Some(host) = hosts.iter().find(|host| !hosts::is_host(host)) {
            return Err(Error::BadHost { host: host.clone() });
        }
        Ok(self.insert(name, secret, hosts))
    }

    /// Keeps `secret` under `name` for no host at all: a record of mxgate's own, which is never sent.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn note(&mut self, name: &str, secret: Arc<Secret>) -> Result<&Entry, Error> {
        if is_entry_name(name) { Ok(self.insert(name, secret, Vec::new())) } else { Err(Error::BadName) }
    }

    /// Takes an entry away.
    ///
    /// # Errors
    /// [`Error::NoEntry`].
    pub fn remove(&mut self, name: &str) -> Result<Entry, Error> {
        self.0.remove(name).ok_or_else(|| Error::NoEntry { name: name.to_owned() })
    }

    fn insert(&mut self, name: &str, secret: Arc<Secret>, hosts: Vec<String>) -> &Entry {
        let now = timestamp(SystemTime::now());
        let entry = self.0.entry(name.to_owned()).or_insert_with(|| Entry {
            secret: Arc::clone(&secret),
            version: 0,
            created: now.clone(),
            updated: now.clone(),
            hosts: Vec::new(),
        });
        entry.version = entry.version.saturating_add(1);
        (entry.secret, entry.updated, entry.hosts) = (secret, now, hosts);
        entry
    }
}
