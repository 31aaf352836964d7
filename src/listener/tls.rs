//! TLS towards callers.

use std::{fmt, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::{ClientCa, ListenerTls},
    tls::{self, TlsFault},
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
    let (chain, key) = tls::chain_and_key(files)?;
    let rejected = TlsFault::rejected(&files.certificate);
    let builder =
        ServerConfig::builder_with_provider(tls::provider()).with_protocol_versions(tls::VERSIONS)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(client_ca) => builder.with_client_cert_verifier(verifier(client_ca)?),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(rejected)?;
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
    let rejected = TlsFault::rejected(path);
    let mut roots = RootCertStore::empty();
    for certificate in tls::certificates(path, &tls::read(path)?)? {
        roots.add(certificate).map_err(&rejected)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), tls::provider());
    let builder = if client_ca.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| rejected(rustls::Error::General(error.to_string())))
}
