//! One of those that a vault is sealed for, and its proof: the MAC, by that identity, over an author key
//! that it accepted. It is made when the identity writes (or joins, its private half at hand), and kept by
//! every later writer. Somebody who knows only recipients cannot make one, nor use one that they saw.
//!
//! What no proof tells is that somebody was removed since: see `ARCHITECTURE.md`.

use super::{
    Fault,
    author::{Author, Authors},
    identity::{Identity, Trust},
    recipient::Recipient,
};

/// The most recipients of a vault: each one costs every reader an attempt to decrypt.
pub const MEMBERS_MAX: usize = 32;

/// A recipient of a vault.
#[derive(Debug, Clone)]
pub struct Member {
    /// Who.
    pub recipient: Recipient,
    /// RFC 3339, UTC.
    pub added: String,
    pub(super) proof: Option<Vec<u8>>,
}

impl Member {
    pub(super) fn new(recipient: Recipient, added: String) -> Self {
        Self { recipient, added, proof: None }
    }

    /// Whether its identity accepted an author of this vault, and so opens it without being told whom to
    /// trust.
    #[must_use]
    pub fn has_accepted(&self) -> bool {
        self.proof.is_some()
    }

    /// Notes that `identity`, whose entry this is, accepts `author`. An ssh key cannot.
    pub(super) fn accept(&mut self, identity: &Identity, author: &Author) {
        self.proof = identity.macs().map(|macs| author.proof(&macs.proof).as_ref().to_vec());
    }
}

/// Whether `identity`'s holder may take the vault of these authors for genuine. The document's own MAC
/// must have been verified: it says that the present author wrote it, and this says who that is.
pub(super) fn judge(members: &[Member], authors: &Authors, identity: &Identity) -> Result<(), Fault> {
    let own = members.iter().find(|member| member.recipient == *identity.recipient());
    let Some(own) = own else { return Err(Fault::NotARecipient) };
    match (identity.trust(), identity.macs(), &own.proof) {
        (Trust::File, ..) => Ok(()),
        (Trust::Author(id), ..) if authors.find(id).is_some() => Ok(()),
        (Trust::Author(_), ..) => Err(Fault::OtherAuthor),
        (Trust::Proof, Some(macs), Some(proof)) => {
            let accepted = authors.iter().any(|author| author.is_proven(&macs.proof, proof));
            if accepted { Ok(()) } else { Err(Fault::Forged) }
        }
        (Trust::Proof, ..) => Err(Fault::Unproven),
    }
}
