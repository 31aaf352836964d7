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
    connection::{Access, Connection, ConnectionId, Consent, State, Summary, Tokens},
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

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u64,
    /// Which key sealed it.
    key: String,
    provider: String,
    environment: String,
    host: String,
    caller: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_guid: Option<String>,
    scopes: Vec<String>,
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

    fn summary(self, id: ConnectionId) -> Summary {
        let Self { provider, environment, host, caller, user_guid, scopes, created, consent: state, .. } =
            self;
        Summary { id, provider, environment, host, caller, user_guid, scopes, created, state }
    }
}

impl Record {
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
        Self::with(&connection.summary(), &pair, version, store, keys)
    }

    fn with(
        summary: &Summary,
        pair: &Pair,
        version: Version,
        store: StoreId,
        keys: &Keys,
    ) -> Result<Self, Error> {
        let Summary { id, provider, environment, host, caller, user_guid, scopes, created, state } =
            summary.clone();
        let key = keys.sealing();
        let header = Header {
            version: version.0,
            key: key.to_string(),
            provider,
            environment,
            host,
            caller,
            user_guid,
            scopes,
            created,
            consent: state,
        };
        let header = serde_json::to_string(&header).map_err(|_| Error::Header)?;
        let sealed = keys.seal(pair, &Bound { store, id, version, key, header: header.as_bytes() })?;
        Ok(Self { header, sealed })
    }

    /// Without the tokens.
    pub(super) fn summary(header: &str, id: ConnectionId) -> Result<Summary, Error> {
        Ok(Header::read(header)?.summary(id))
    }

    /// Which key sealed it.
    pub(super) fn key(header: &str) -> Result<KeyId, Error> {
        Header::read(header)?.key()
    }

    /// With the tokens.
    pub(super) fn open(&self, id: ConnectionId, store: StoreId, keys: &Keys) -> Result<Stored, Error> {
        let (summary, version, pair) = self.parts(id, store, keys)?;
        let Summary { provider, environment, host, caller, user_guid, scopes, created, state, .. } = summary;
        let consent = match state {
            State::Live { expires, ends, .. } => Consent::Live(Tokens {
                access: pair.access.map(|token| Access { token, expires }),
                refresh: pair.refresh,
                ends,
            }),
            State::Gone { since, why } => Consent::Gone { since, why },
        };
        let connection =
            Connection { id, provider, environment, host, caller, user_guid, scopes, created, consent };
        Ok(Stored { connection, version })
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
        let (summary, version, pair) = self.parts(id, store, keys)?;
        Self::with(&summary, &pair, version, store, keys).map(Some)
    }

    fn parts(
        &self,
        id: ConnectionId,
        store: StoreId,
        keys: &Keys,
    ) -> Result<(Summary, Version, Pair), Error> {
        let header = Header::read(&self.header)?;
        let (version, key) = (Version(header.version), header.key()?);
        let bound = Bound { store, id, version, key, header: self.header.as_bytes() };
        let pair = keys.open(&self.sealed, &bound)?;
        Ok((header.summary(id), version, pair))
    }
}
