//! One request's walk.

pub mod refusal;
