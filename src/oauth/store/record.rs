//! One connection as a store keeps it: a header in the clear, which a list is made of, and the sealed tokens.
//!
//! In: a connection and its version. Out: the two parts, and back. The header is JSON; the seal covers every byte of it,
//! so nobody gives a connection to another caller by editing the store.
//!
//! What must never happen: a token is in the header; a header that was changed is acted upon when its tokens are opened.
//! (A list shows headers as they are.)

use serde::{Deserialize, Serialize};

use super::{Stored, Version};
use crate::oauth::{
    connection::{Access, Connection, ConnectionId, Consent, Purpose, State, Summary, Tokens},
    seal::{self, Bound, KeyId, Keys, Pair, StoreId},
};

/// A record, as it is kept under its connection's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) header: String,
    pub(super) sealed: Vec<u8>,
}

/// Why a record is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It is no header that this mxgate knows.
    #[error("its header is none that this mxgate knows")]
    Header,
    /// The tokens do not open.
    #[error(transparent)]
    Seal(#[from] seal::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u64,
    /// Which key sealed it.
    key: String,
    purpose: Purpose,
    issuer: String,
    created: u64,
    consent: State,
}

impl Header {
    fn read(text: &str) -> Result<Self, Error> {
        serde_json::from_str(text).map_err(|_| Error::Header)
    }

    fn key(&self) -> Result<KeyId, Error> {
        self.key.parse().map_err(|_| Error::Header)
    }

    fn sealed(&self, id: ConnectionId, pair: &Pair, store: StoreId, keys: &Keys) -> Result<Record, Error> {
        let (version, key) = (Version(self.version), keys.sealing());
        let header = serde_json::to_string(self).map_err(|_| Error::Header)?;
        let sealed = keys.seal(pair, &Bound { store, id, version, key, header: header.as_bytes() })?;
        Ok(Record { header, sealed })
    }
}

impl Record {
    /// What a list shows. A header that cannot be read is left out: one that is damaged, or of a later version, must not hide all
    /// others.
    pub(super) fn summaries(headers: Vec<(ConnectionId, String)>) -> Vec<Summary> {
        let mut unreadable = 0;
        let mut summary = |(id, header): (ConnectionId, String)| {
            let read = Self::summary(&header, id);
            unreadable += usize::from(read.is_err());
            read.ok()
        };
        let all = headers.into_iter().filter_map(&mut summary).collect();
        if unreadable > 0 {
            tracing::error!(unreadable, "connections cannot be read, and are not in lists");
        }
        all
    }

    /// `connection`, with its tokens sealed.
    pub(super) fn seal(
        connection: &Connection,
        version: Version,
        store: StoreId,
        keys: &Keys,
    ) -> Result<Self, Error> {
        let pair = match &connection.consent {
            Consent::Live(tokens) => Pair {
                access: tokens.access.as_ref().map(|access| access.token.clone()),
                refresh: tokens.refresh.clone(),
            },
            Consent::Gone { .. } => Pair::default(),
        };
        let Summary { id, purpose, created, state: consent } = connection.summary();
        let (key, issuer) = (keys.sealing().to_string(), connection.issuer.clone());
        let header = Header { version: version.0, key, purpose, issuer, created, consent };
        header.sealed(id, &pair, store, keys)
    }

    /// Without the tokens.
    pub(super) fn summary(header: &str, id: ConnectionId) -> Result<Summary, Error> {
        let Header { purpose, created, consent: state, .. } = Header::read(header)?;
        Ok(Summary { id, purpose, created, state })
    }

    /// Which key sealed it.
    pub(super) fn key(header: &str) -> Result<KeyId, Error> {
        Header::read(header)?.key()
    }

    /// With the tokens.
    pub(super) fn open(&self, id: ConnectionId, store: StoreId, keys: &Keys) -> Result<Stored, Error> {
        let (header, pair) = self.parts(id, store, keys)?;
        let Header { version, purpose, issuer, created, .. } = header;
        let consent = match header.consent {
            State::Live { expires, ends, .. } => Consent::Live(Tokens {
                access: pair.access.map(|token| Access { token, expires }),
                refresh: pair.refresh,
                ends,
            }),
            State::Gone { since, why } => Consent::Gone { since, why },
        };
        let connection = Connection { id, purpose, issuer, created, consent };
        Ok(Stored { connection, version: Version(version) })
    }

    /// The same of the same version, under the key that seals now; `None`: it is already.
    pub(super) fn reseal(
        &self,
        id: ConnectionId,
        store: StoreId,
        keys: &Keys,
    ) -> Result<Option<Self>, Error> {
        if Self::key(&self.header)? == keys.sealing() {
            return Ok(None);
        }
        let (header, pair) = self.parts(id, store, keys)?;
        let header = Header { key: keys.sealing().to_string(), ..header };
        header.sealed(id, &pair, store, keys).map(Some)
    }

    fn parts(&self, id: ConnectionId, store: StoreId, keys: &Keys) -> Result<(Header, Pair), Error> {
        let header = Header::read(&self.header)?;
        let (version, key) = (Version(header.version), header.key()?);
        let bound = Bound { store, id, version, key, header: self.header.as_bytes() };
        let pair = keys.open(&self.sealed, &bound)?;
        Ok((header, pair))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::store::cases::{KEY, connection, id, keys};

    #[test]
    fn a_header_has_what_is_known_and_nothing_else() {
        let (store, keys) = (StoreId([1; 16]), keys(KEY));
        let header = Record::seal(&connection(id(1), 1), Version(1), store, &keys).unwrap().header;
        assert!(Record::summary(&header, id(1)).is_ok());
        for name in ["version", "provider", "expires"] {
            let more = header.replace(&format!("\"{name}\""), &format!("\"more\":1,\"{name}\""));
            assert!(more != header && Record::summary(&more, id(1)).is_err(), "beside {name}");
        }
    }
}
