//! Who opens a vault, changed.
//!
//! In comes what is to be different; out goes the vault, sealed for the new list in one write. Whoever is
//! taken away knew the author key, so the vault gets a new one: see [`super::author`]. What they could read
//! before, they may have kept: old backups still open for them, so keys that matter are rotated at MX.

use std::{path::Path, time::SystemTime};

use super::{
    Error, Identity,
    document::{Document, timestamp},
    member::{MEMBERS_MAX, Member},
    place::Place,
    recipient::Recipient,
};

/// What [`rekey`] changes.
#[derive(Debug, Default)]
pub struct Change<'a> {
    /// Join by their public halves alone: they must accept the author before the vault opens for them.
    pub add: Vec<Recipient>,
    /// Join with their private halves at hand, and accept the author at once.
    pub join: Vec<&'a Identity>,
    /// Open the vault no more.
    pub remove: Vec<Recipient>,
    /// Takes the place of the identity that the vault is opened with now.
    pub replace: Option<&'a Identity>,
}

/// Changes who opens the vault, and answers with the new list.
///
/// # Errors
/// [`Error::SameIdentity`], [`Error::AlreadyRecipient`], [`Error::NoRecipient`], [`Error::RemovesInUse`],
/// [`Error::TooManyRecipients`], or why the vault could not be opened or written.
pub fn rekey(path: &Path, identity: &Identity, change: &Change<'_>) -> Result<Vec<Member>, Error> {
    let place = Place::of(path);
    let _lock = place.lock()?;
    let (vault, _) = place.load(identity)?;
    let mut document = vault.document;
    if let Some(new) = change.replace
        && document.authors.present().is_none()
        && new.recipient() != identity.recipient()
    {
        // Beside a vault of format 1 only its identity believes the last-seen file. Were the next one's vault
        // written first, a crash would leave one that it does not open.
        document = place.store(document, &[identity], Some(&vault.metadata))?;
    }
    apply(&mut document, identity, change)?;
    let mut present = vec![change.replace.unwrap_or(identity)];
    present.extend(&change.join);
    Ok(place.store(document, &present, Some(&vault.metadata))?.members)
}

fn apply(document: &mut Document, identity: &Identity, change: &Change<'_>) -> Result<(), Error> {
    let now = timestamp(SystemTime::now());
    let mut gone: Vec<&Recipient> = change.remove.iter().collect();
    if let Some(new) = change.replace {
        if new.recipient() == identity.recipient() {
            return Err(Error::SameIdentity);
        }
        gone.retain(|recipient| *recipient != identity.recipient());
        gone.push(identity.recipient());
    } else if gone.contains(&identity.recipient()) {
        return Err(Error::RemovesInUse);
    }
    for recipient in &gone {
        let before = document.members.len();
        document.members.retain(|member| member.recipient != **recipient);
        if document.members.len() == before {
            return Err(Error::NoRecipient { recipient: recipient.to_string() });
        }
    }
    if !gone.is_empty() {
        document.authors.ensure()?;
        document.authors.renew()?;
    }
    let joining = change.replace.iter().chain(&change.join).map(|identity| identity.recipient().clone());
    for recipient in joining.chain(change.add.iter().cloned()) {
        if document.members.iter().any(|member| member.recipient == recipient) {
            return Err(Error::AlreadyRecipient { recipient: recipient.to_string() });
        }
        document.members.push(Member::new(recipient, now.clone()));
    }
    if document.members.len() > MEMBERS_MAX { Err(Error::TooManyRecipients) } else { Ok(()) }
}
