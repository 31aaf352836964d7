//! TLS towards callers.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use crate::{
    config::ListenerTls,
    upstream::dial::{TlsFault, chain_and_key},
};

/// A listener's certificate and key, ready for handshakes.
#[derive(Clone)]
pub(crate) struct ServerTls(pub(crate) TlsAcceptor);

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

/// Reads and checks the files.
pub(crate) fn load(files: &ListenerTls) -> Result<ServerTls, TlsFault> {
    let (chain, key) = chain_and_key(files)?;
    let rejected = |path: &PathBuf| {
        let path = path.clone();
        move |source| TlsFault::Rejected { path, source }
    };
    let mut config = ServerConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(crate::tls::VERSIONS)
        .map_err(rejected(&files.certificate))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(rejected(&files.certificate))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(ServerTls(TlsAcceptor::from(Arc::new(config))))
}
