//! What MX is: hosts, versions, credential kinds, and the catalogue of its operations.

pub mod catalogue;
