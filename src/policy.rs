//! What a caller may do.

pub mod target;
