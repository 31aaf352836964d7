//! OAuth 2.0: a user consents once, and services act for that user with a token that only the gateway holds.
//!
//! - `connection`: what a user's consent is to the gateway: whose it is, what it allows, and its tokens.
//! - `seal`: tokens become bytes that only a key from the vault opens.
//! - `store`: where connections are kept, and who may renew one: a lease with a fence, and a version.
//! - `provider`: who gives tokens; `discovery` says where its endpoints are, `token_endpoint` what is asked of them and
//!   what an answer means, and `token` what is taken for one.
//! - `refresh`: one refresher for each connection, of all replicas; `holding` is how anybody holds a connection's lease,
//!   and `giving_up` how tokens are given up at their provider.
//! - `connect`: a user's browser consents, and a connection is made.
//! - `handle`: what a caller gets in the place of a token that MX gave it, which is kept like a connection.
//! - `cell`: a connection as requests see it; `broker`: cells for whoever may have them, refreshed ahead of time.
//! - `needed`: the secrets and files of all of it, for who looks before a gateway runs.
//!
//! In: what a provider answered. Out: a [`connection::Connection`] with its tokens, and a list of connections without.
//!
//! What must never happen: a token leaves the gateway, or lies in a store unsealed; a refresh token is used before the
//! answer that brought it is durably stored; two holders write one connection; a connection is lost because a process,
//! a disk or a lease ended at a bad moment.

pub(crate) mod broker;
pub(crate) mod cell;
pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod discovery;
mod giving_up;
pub(crate) mod handle;
mod holding;
pub(crate) mod needed;
pub(crate) mod provider;
pub(crate) mod refresh;
mod seal;
pub(crate) mod store;
pub(crate) mod token;
pub(crate) mod token_endpoint;
