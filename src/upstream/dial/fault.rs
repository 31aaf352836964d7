//! Why there is no connection: for the log, for the caller, and for `mxgate doctor`.

use std::{io, net::IpAddr};

use rustls::{CertificateError, OtherError};

use crate::{
    refusal::Failure,
    upstream::{tunnel::TunnelFault, verify::NotPinned},
};

/// Why there is no connection. No text holds a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialFault {
    #[error(
        "the name leads to {0}, which is no address of the public internet; \
         `private_addresses = \"allowed\"` says that this is meant"
    )]
    Private(IpAddr),
    #[error("cannot leave from {0}: {1}")]
    Bind(IpAddr, io::Error),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("nothing answered in time")]
    ConnectTimeout,
    #[error(transparent)]
    Tunnel(#[from] TunnelFault),
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error(transparent)]
    NotPinned(#[from] NotPinned),
    #[error("the TLS handshake took too long")]
    TlsTimeout,
}

impl DialFault {
    /// What the caller is told.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Private(_) => Failure::UpstreamAddressRefused,
            Self::Bind(..) | Self::Connect(_) => Failure::UpstreamUnreachable,
            Self::ConnectTimeout | Self::TlsTimeout => Failure::ConnectTimeout,
            Self::Tunnel(TunnelFault::PasswordOver) => Failure::CredentialUnavailable,
            Self::Tunnel(_) => Failure::ProxyFailed,
            Self::Tls(error) => tls_failure(error),
            Self::NotPinned(_) => Failure::UpstreamUntrusted,
        }
    }
}

/// Our own verifier's reason stands somewhat deep in what TLS makes of it.
pub(super) fn tls_fault(error: io::Error) -> DialFault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let not_pinned = match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => {
            reason.downcast_ref::<NotPinned>().copied()
        }
        _ => None,
    };
    not_pinned.map_or(DialFault::Tls(error), DialFault::NotPinned)
}

/// A certificate that does not verify is another matter than a connection that broke.
fn tls_failure(error: &std::io::Error) -> Failure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(_) => Failure::UpstreamUntrusted,
        None => Failure::UpstreamUnreachable,
    }
}
