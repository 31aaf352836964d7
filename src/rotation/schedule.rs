//! The running gateway rotates by itself.
