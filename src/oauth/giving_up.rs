//! Giving tokens up at their provider (RFC 7009).
//!
//! In: tokens. Out: whether the provider takes them no longer.
//!
//! The refresh token first: with it most providers end what they have given for it. Not all do, and one that never changes
//! its refresh tokens may have ended that one already, so the access token is given up by itself too.
//!
//! What must never happen: a token stays good because another one was given up, or was not.

use super::{
    connection::{ConnectionId, Tokens},
    refresh::Asked,
    token_endpoint::{Code, Fault, Revoked},
};
use crate::vault;

/// Gives all of them up. As an error: the first that there was, once both were tried.
pub(super) async fn give_up(asked: &dyn Asked, tokens: &Tokens) -> Result<(), Fault> {
    let refresh = match &tokens.refresh {
        Some(token) => Some(asked.give_up(Revoked::Refresh(token)).await),
        None => None,
    };
    let access = match &tokens.access {
        Some(access) => asked.give_up(Revoked::Access(&access.token)).await,
        None => Ok(()),
    };
    match (refresh, access) {
        // Some revoke refresh tokens only; then the access token ends by itself, soon.
        (Some(Ok(())), Err(Fault::Refused(_, Code::UnsupportedTokenType))) => Ok(()),
        (Some(refresh), access) => refresh.and(access),
        (None, access) => access,
    }
}

/// Gives up what is not kept. Nobody else will: the log tells when that fails.
pub(super) async fn give_up_unkept(asked: &dyn Asked, provider: &str, id: ConnectionId, tokens: &Tokens) {
    if let Err(fault) = give_up(asked, tokens).await {
        let reason = vault::chain(&fault);
        tracing::warn!(connection = %id, provider, reason, "tokens that are not kept could not be given up");
    }
}
