//! OpenBao, and HashiCorp Vault, which speaks the same: entries of KV engines of version 2, at one server.
//!
//! In: `MOUNT/PATH` of a reference. Out: the newest version of that entry, a JSON object, with its number; or a
//! [`fault::Fault`] that says which of the many ways to fail it was. An entry whose newest version is deleted or
//! destroyed is absent. The first segment is the mount, unless `mounts` lists one with more segments.
//! [`session`] keeps the login. Answers are bounded in time and size, in buffers that are wiped.
//! What must never happen: a server that is sealed, denies or is down makes an entry look absent; an older version is
//! read on purpose; a write overwrites what somebody else has written meanwhile.

mod fault;
mod session;
mod wire;

use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use self::{
    fault::Fault,
    session::{LookUp, Session},
    wire::{Entry, Exchange, Remote},
};
use super::{Document, Reading, Source, Writable, Written};
use crate::{config, vault::once};

/// What a segment of a path may hold as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The configured server, and our login there.
pub(crate) struct OpenBao<E: Exchange = Remote> {
    session: Arc<Session<E>>,
    /// KV mounts with more than one segment.
    mounts: Vec<String>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

impl OpenBao {
    /// `vault` is the embedded vault, where what a login sends may be.
    pub(crate) fn new(settings: &config::OpenBao, vault: Option<config::VaultFile>) -> Self {
        let host = settings.host.clone();
        let look_up: LookUp = Arc::new(move |reference| {
            let (host, vault) = (host.clone(), vault.clone());
            Box::pin(async move { once::read(reference, &host, vault).await })
        });
        let session = Session::new(Remote::new(settings.clone()), settings.login.clone(), look_up);
        Self { session: Arc::new(session), mounts: settings.mounts.clone(), keeper: Mutex::default() }
    }
}

impl<E: Exchange> OpenBao<E> {
    async fn document(&self, place: &str) -> Result<Document, Fault> {
        let answer = self.call(Method::GET, &self.path(place)?, None).await?;
        let Entry { document, version, written } = wire::entry(&answer)?;
        let text = document.ok_or(Fault::Absent)?;
        let bytes = Zeroizing::new(text.as_bytes().to_vec());
        Ok(Document { bytes, version: Some(version.to_string()), written })
    }

    async fn store(&self, place: &str, document: &[u8], expected: Option<&str>) -> Result<Written, Fault> {
        let path = self.path(place)?;
        let version = match expected.map(str::parse) {
            None => 0,
            Some(Ok(version)) => version,
            // No version of ours, so it is not the present one.
            Some(Err(_)) => return Ok(Written::Conflict),
        };
        match self.store_as(&path, document, version).await? {
            // To who reads, an entry whose newest version is deleted is not there, but the engine counts on.
            Written::Conflict if expected.is_none() => {
                let answer = self.call(Method::GET, &path, None).await?;
                match wire::entry(&answer) {
                    Ok(Entry { document: None, version, .. }) => {
                        self.store_as(&path, document, version).await
                    }
                    Ok(_) => Ok(Written::Conflict),
                    Err(fault) => Err(fault),
                }
            }
            written => Ok(written),
        }
    }

    async fn store_as(&self, path: &str, document: &[u8], version: u64) -> Result<Written, Fault> {
        let body = wire::to_write(document, version)?;
        let answer = self.call(Method::POST, path, Some(&body)).await?;
        match answer.status {
            StatusCode::OK => Ok(Written::Stored(wire::stored(&answer)?.to_string())),
            _ if fault::is_conflict(&answer) => Ok(Written::Conflict),
            _ => Err(Fault::of(&answer)),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Zeroizing<Vec<u8>>>,
    ) -> Result<crate::https::Answer, Fault> {
        self.keep();
        self.session.call(method, path, body).await
    }

    /// `secret/data/mx` of `secret/mx`, percent-encoded.
    fn path(&self, place: &str) -> Result<String, Fault> {
        let below =
            |mount: &&String| place.strip_prefix(mount.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let listed = self.mounts.iter().filter(below).map(String::len).max();
        let end = listed.or_else(|| place.find('/')).ok_or(Fault::Path("write MOUNT/PATH"))?;
        let (mount, path) = (&place[..end], &place[end + 1..]);
        if place.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(Fault::Path("it has an empty segment, . or .."));
        }
        Ok(format!("{}/data/{}", encoded(mount), encoded(path)))
    }

    /// Has the token renewed, from now until this source is dropped. The first who reads starts that, since only then
    /// there is an event loop for certain.
    fn keep(&self) {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if keeper.as_ref().is_none_or(JoinHandle::is_finished) {
            let session = self.session.clone();
            *keeper = Some(tokio::spawn(async move { session.keep().await }));
        }
    }
}

impl<E: Exchange> Drop for OpenBao<E> {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keeper {
            keeper.abort();
        }
    }
}

impl<E: Exchange> std::fmt::Debug for OpenBao<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenBao")
    }
}

impl<E: Exchange> Source for OpenBao<E> {
    fn read<'a>(&'a self, place: &'a str) -> Reading<'a, Document> {
        Box::pin(async { Ok(self.document(place).await?) })
    }

    fn as_writable(&self) -> Option<&dyn Writable> {
        Some(self)
    }
}

impl<E: Exchange> Writable for OpenBao<E> {
    fn write<'a>(
        &'a self,
        place: &'a str,
        document: &'a [u8],
        expected: Option<&'a str>,
    ) -> Reading<'a, Written> {
        Box::pin(async move { Ok(self.store(place, document, expected).await?) })
    }
}

/// A path of segments as it stands in a URL.
fn encoded(path: &str) -> String {
    utf8_percent_encode(path, PLAIN).to_string()
}

#[cfg(test)]
mod tests;
