//! TLS towards callers.

use std::{fmt, path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::{ClientCa, ListenerTls},
    upstream::dial::{TlsFault, certificates, chain_and_key, read},
};

/// A listener's certificate and key, ready for handshakes.
#[derive(Clone)]
pub(crate) struct ServerTls(pub(crate) TlsAcceptor);

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls")
    }
}

/// Reads and checks the files. With `client_ca`, clients are asked for a certificate.
pub(crate) fn load(files: &ListenerTls, client_ca: Option<&ClientCa>) -> Result<ServerTls, TlsFault> {
    let (chain, key) = chain_and_key(files)?;
    let rejected = |path: &PathBuf| {
        let path = path.clone();
        move |source| TlsFault::Rejected { path, source }
    };
    let builder = ServerConfig::builder_with_provider(crate::tls::provider())
        .with_protocol_versions(crate::tls::VERSIONS)
        .map_err(rejected(&files.certificate))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(client_ca) => builder.with_client_cert_verifier(verifier(client_ca)?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(rejected(&files.certificate))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if client_ca.is_some() {
        // A resumed session would bring a certificate along that was verified by authorities of before a reload.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(ServerTls(TlsAcceptor::from(Arc::new(config))))
}

fn verifier(client_ca: &ClientCa) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
    let path = &client_ca.file;
    let rejected = |source| TlsFault::Rejected { path: path.clone(), source };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, &read(path)?)? {
        roots.add(certificate).map_err(rejected)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), crate::tls::provider());
    let builder = if client_ca.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| rejected(rustls::Error::General(error.to_string())))
}
