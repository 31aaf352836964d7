//! Where bytes come from that are, or open, secrets: a variable of the environment or a file.

pub(crate) mod env;
pub mod file;
