//! Why the database did not do what it was asked. No message holds what was sent to it or what it answered but a code:
//! PostgreSQL's own messages repeat values.

use std::{error::Error as _, fmt, io, time::Duration};

use super::schema::NEWEST;
use crate::{
    oauth::{connection::NoRandom, seal},
    tls::TlsFault,
    vault,
};

/// Why a store was not opened. The database is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be named in a statement without being quoted.
    #[error(
        "{schema:?} is no schema for connections: lower-case letters, digits and `_`, at most 63, no digit first"
    )]
    Schema { schema: String },
    /// See there.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// A connection could not be had, or broke.
    #[error("the connections in {place} could not be opened")]
    Failed { place: String, source: Fault },
    /// The tables are not there, and the role may not make them; or it may not use them.
    #[error(
        "the role of mxgate has no right to the tables in {place}; docs/oauth.md has the SQL that makes them and grants the rights"
    )]
    NoRight { place: String, source: Fault },
    /// A later mxgate was here.
    #[error("{place} has version {found}, and this mxgate knows {NEWEST}; use the mxgate that made it")]
    Newer { place: String, found: i32 },
    /// A key is missing.
    #[error(
        "the connections in {place} cannot be opened, and are left as they are; name the key that is missing, also as a former one"
    )]
    WrongKey { place: String, source: seal::Error },
    /// There are tables of these names, and something else in them.
    #[error(
        "{place} has tables of mxgate's names, which hold no store of connections; they are left as they are"
    )]
    NotAStore { place: String },
    /// See there.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// Why one statement has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("no connection within {} ms", .0.as_millis())]
    ConnectTimeout(Duration),
    #[error("no answer within {} ms", .0.as_millis())]
    AnswerTimeout(Duration),
    #[error("its certificate is not accepted: {0}")]
    Untrusted(#[source] rustls::Error),
    #[error("its password cannot be had")]
    Password(#[source] Box<vault::Error>),
    #[error("{0}")]
    Refused(State),
    /// No connection, or none any more. Never an error that the database reports.
    #[error(transparent)]
    Broken(tokio_postgres::Error),
    #[error("it is another store than the one that was opened")]
    AnotherStore,
    #[error("it has version {0} meanwhile, and this mxgate knows {NEWEST}")]
    Newer(i32),
    #[error("a row of it holds what no mxgate writes")]
    Row,
    #[error("others change it all the time")]
    Busy,
}

/// What PostgreSQL reports: an SQLSTATE of five letters and digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State(String);

impl State {
    const NO_RIGHT: &str = "42501";
    /// Also for one that is there, and that the role may not use.
    const NO_SCHEMA: &str = "3F000";

    fn words(&self) -> &'static str {
        match self.0.as_str() {
            "28P01" => "the role or its password is wrong",
            "28000" => "it does not let this role in from here, or not in this way",
            "3D000" => "there is no such database",
            Self::NO_RIGHT => "the role has no right to that",
            Self::NO_SCHEMA => "there is no such schema, or the role has no right to it",
            "42P01" => "a table is missing",
            "53300" => "it has too many connections",
            "53100" => "its disk is full",
            "57014" => "it took too long, and was given up",
            "57P01" | "57P02" => "it is being shut down",
            "57P03" => "it is starting up, or shutting down",
            "25006" => "it takes no writes",
            _ => "it failed",
        }
    }
}

impl Fault {
    pub(super) fn is_no_right(&self) -> bool {
        matches!(self, Self::Refused(State(code)) if [State::NO_RIGHT, State::NO_SCHEMA].contains(&code.as_str()))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.words(), self.0)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        if let Some(code) = error.code() {
            return Self::Refused(State(code.code().to_owned()));
        }
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        match cause.and_then(io::Error::get_ref).and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(untrusted) => Self::Untrusted(untrusted.clone()),
            None => Self::Broken(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_said_in_words_and_as_it_is() {
        let said = |code: &str| State(code.into()).to_string();
        assert_eq!(said("28P01"), "the role or its password is wrong (SQLSTATE 28P01)");
        assert_eq!(said("XX000"), "it failed (SQLSTATE XX000)");
    }
}
