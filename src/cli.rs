//! One file per command, each thin.

pub(crate) mod vault;
