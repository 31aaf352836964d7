//! Why there is no identity, or no passphrase for it. No message repeats what was read.

use std::{path::PathBuf, sync::Arc};

use super::super::recipient::Malformed;
use crate::vault::{field, reference::Reference, source};

/// Why there is no identity. It never repeats the text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The variable is not set.
    #[error("env:{name} is not set; it should hold what opens the vault")]
    Unset {
        /// The variable's name.
        name: String,
    },
    /// What opens a vault could not be reached without itself.
    #[error("{reference} is in a vault, and what is in one cannot open it")]
    InVault {
        /// As configured.
        reference: Reference,
    },
    /// Nobody said how its source is asked.
    #[error(
        "{reference} is at a server or a command, and how that is asked stands in a configuration: name it in [vault] there"
    )]
    NotHere {
        /// As named.
        reference: Reference,
    },
    /// The file was not read.
    #[error("the identity or its passphrase could not be loaded")]
    File(#[from] source::file::Error),
    /// Another source did not give it.
    #[error("{reference}, which opens the vault, could not be read")]
    Source {
        /// As configured.
        reference: Reference,
        /// Why. Others that ask soon get the same answer.
        source: Arc<source::Error>,
    },
    /// The text is something else.
    #[error("{place} is not usable: {fault}")]
    Unfit {
        /// Where it came from.
        place: String,
        /// What is wrong.
        fault: Fault,
    },
    /// Somebody must be asked, and nobody is there.
    #[error(
        "{place} is sealed with a passphrase; say where that is: `passphrase` in [vault], or --passphrase"
    )]
    NoPassphrase {
        /// Where the identity came from.
        place: String,
    },
    /// It could not be sealed.
    #[error("the identity could not be sealed with the passphrase")]
    Seal(#[from] age::EncryptError),
    /// It could not be written.
    #[error("the age identity {} could not be written", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// HKDF or HMAC failed inside aws-lc.
    #[error("the cryptography library refused to derive a key")]
    Derivation,
}

/// What is wrong with the text of an identity file or a passphrase.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// Only comments and blank lines.
    #[error("it holds no AGE-SECRET-KEY-1 line")]
    None,
    /// An identity file of mxgate's has one identity.
    #[error("it holds more than one identity (line {line}); keep one")]
    Several {
        /// The second one's line.
        line: usize,
    },
    /// A line that is neither comment nor X25519 identity.
    #[error("line {line} is no AGE-SECRET-KEY-1 (X25519) identity; `age-keygen` makes one")]
    Unknown {
        /// The line.
        line: usize,
    },
    /// An ssh key that is of no use here.
    #[error("the ssh key {0}")]
    Ssh(Malformed),
    /// An ssh key that does not read as one.
    #[error("it is no OpenSSH private key of the kind ed25519")]
    NoSshKey,
    /// An age file that ends early or was changed.
    #[error("it is a damaged age file")]
    Damaged,
    /// An age file of another kind.
    #[error("it is an age file for recipients; an identity may be sealed with a passphrase only")]
    SealedForRecipients,
    /// The passphrase is another one.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// More stretching than anybody needs.
    #[error("its passphrase is stretched with scrypt's work factor {required}, and at most {most} is tried")]
    TooMuchWork {
        /// log2 of N.
        required: u8,
        /// The bound.
        most: u8,
    },
    /// Nothing, or no text.
    #[error("it holds no passphrase in UTF-8")]
    NoPassphrase,
    /// Its reference names a field, and that is not there.
    #[error("the document {0}")]
    Field(field::Fault),
}
