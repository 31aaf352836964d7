//! Where secrets live, and how a reference becomes one.

pub mod reference;
pub mod secret;
