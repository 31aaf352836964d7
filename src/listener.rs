//! Where callers connect.

pub mod forwarded;
pub mod proxy_protocol;
