//! Callers that are known by a client certificate, over real TLS.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use mxgate::stand_in::{Running, certificate::ServerCertificate};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, SanType, date_time_ymd,
};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use crate::harness::{EVERYTHING, Gateway, PATIENCE, Setup, mx, until};

/// Signs client certificates.
pub struct Authority(Issuer<'static, KeyPair>, String);

/// One of them, as PEM.
pub struct Client {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "clients");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    pub fn issue(&self, names: Vec<SanType>, common_name: &str, expired: bool) -> Client {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if expired {
            (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 12, 31));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Client { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub fn dns(&self, name: &str) -> Client {
        self.issue(vec![dns(name)], "no caller's", false)
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

/// A gateway whose first listener requires a certificate of `authority`; the second one takes one, the third does not
/// ask.
pub fn setup(mx: &Running, authority: &Authority) -> (Setup, PathBuf) {
    let mut setup = Setup::new(mx);
    let server = ServerCertificate::for_default_names().unwrap();
    setup.file("tls.pem", server.pem());
    setup.file("tls-key.pem", server.key_pem());
    setup.file("client-ca.pem", &authority.1);
    let ca = setup.file("gateway-ca.pem", server.authority_pem());
    let folder = setup.folder().display().to_string();
    let listener = |client: &str| {
        format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"test\"\n\
             tls = {{ certificate = \"{folder}/tls.pem\", key = \"{folder}/tls-key.pem\"{client} }}\n"
        )
    };
    let client_ca = format!(", client_ca = \"{folder}/client-ca.pem\"");
    let optional = format!("{client_ca}, client_certificate = \"optional\"");
    setup.listeners = [client_ca, optional, String::new()].map(|client| listener(&client)).concat();
    setup.callers = Some(format!(
        "[[caller]]\nname = \"ledger\"\n\
         tls_names = [\"dns:ledger.internal\", \"uri:spiffe://example/ledger\", \"subject:CN=ledger,O=Example\"]\n\
         grant = {{ test = [{EVERYTHING}] }}\n\
         [[caller]]\nname = \"batch\"\ntls_names = [\"dns:batch.internal\"]\ngrant = {{ test = [\"read\"] }}\n\
         [[caller]]\nname = \"neighbour\"\nnetworks = [\"127.0.0.1/32\"]\ngrant = {{ test = [\"read\"] }}\n"
    ));
    (setup, ca)
}

/// A client of its own: whoever shares one shares its sessions.
fn client(gateway: &Gateway, own: Option<&Client>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = std::fs::read(gateway.setup.folder().join("gateway-ca.pem")).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

/// The status of one request on a new connection, and how TLS began; or how it failed.
fn ask(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<(u16, HandshakeKind), String> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), stream);
    let request = b"GET /users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    tls.write_all(request).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    match tls.read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => return Err(error.to_string()),
        _ => {}
    }
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    Ok((status, tls.conn.handshake_kind().unwrap()))
}

fn status(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<u16, String> {
    ask(address, config).map(|(status, _)| status)
}

fn last_caller(gateway: &Gateway, caller: &str, count: usize) {
    gateway.stdout.wait_for_count(&format!("\"caller\":\"{caller}\""), count);
}

#[test]
fn a_caller_is_known_by_a_name_in_its_certificate_and_by_no_other() {
    let mx = mx();
    let authority = Authority::new();
    let gateway = setup(&mx, &authority).0.start();
    let [required, optional, unasked] = gateway.addresses[..] else { panic!("three listeners") };
    let as_ledger = [
        authority.dns("ledger.internal"),
        authority.issue(vec![dns("other.internal"), uri("spiffe://example/ledger")], "x", false),
        authority.issue(vec![], "ledger", false),
    ];
    for (n, own) in as_ledger.iter().enumerate() {
        let own = client(&gateway, Some(own));
        assert_eq!((status(required, &own), status(optional, &own)), (Ok(200), Ok(200)));
        last_caller(&gateway, "ledger", 2 * n + 2);
    }
    assert_eq!(status(required, &client(&gateway, Some(&authority.dns("batch.internal")))), Ok(200));
    last_caller(&gateway, "batch", 1);
    // Near, and not the same: then only the network is left.
    let near = [
        authority.dns("a.ledger.internal"),
        authority.issue(vec![uri("spiffe://example/ledger/")], "Ledger", false),
        authority.issue(vec![], "ledger,O=Example", false),
    ];
    for (n, own) in near.iter().enumerate() {
        assert_eq!(status(required, &client(&gateway, Some(own))), Ok(200));
        last_caller(&gateway, "neighbour", n + 1);
    }
    // One with the names of two callers is nobody's.
    let both = authority.issue(vec![dns("ledger.internal"), dns("batch.internal")], "x", false);
    assert_eq!(status(required, &client(&gateway, Some(&both))), Ok(403));
    // Where none is asked for, none counts.
    assert_eq!(status(unasked, &client(&gateway, Some(&as_ledger[0]))), Ok(200));
    last_caller(&gateway, "neighbour", 4);
}

#[test]
fn a_certificate_that_does_not_verify_gets_no_connection_and_is_counted() {
    let mx = mx();
    let authority = Authority::new();
    let gateway = setup(&mx, &authority).0.start();
    let [required, optional, _] = gateway.addresses[..] else { panic!("three listeners") };
    let refused = || gateway.metric("mxgate_callers_not_admitted_total{reason=\"certificate\"}");
    let strangers = Authority::new().dns("ledger.internal");
    let expired = authority.issue(vec![dns("ledger.internal")], "x", true);
    let server = ServerCertificate::for_default_names().unwrap();
    let own = Client { certificate: server.pem().into(), key: server.key_pem().into() };
    for (n, wrong) in [&strangers, &expired, &own].into_iter().enumerate() {
        let wrong = client(&gateway, Some(wrong));
        assert!(status(required, &wrong).is_err());
        // Taken for none at all it is not, where none is required.
        assert!(status(optional, &wrong).is_err());
        until("both are counted", || refused() == 2.0 * n as f64 + 2.0);
    }
    let without = client(&gateway, None);
    assert!(status(required, &without).is_err());
    until("it is counted", || refused() == 7.0);
    gateway.stderr.wait_for(|line| {
        line.contains("WARN") && line.contains("\"certificate\"") && line.contains("127.0.0.1")
    });
    assert_eq!(mx.received(), 0);
    assert_eq!(status(optional, &without), Ok(200));
    last_caller(&gateway, "neighbour", 1);
}

#[test]
fn a_reload_of_the_authorities_counts_at_the_next_connection_since_no_session_is_resumed() {
    let mx = mx();
    let (before, after) = (Authority::new(), Authority::new());
    let gateway = setup(&mx, &before).0.start();
    let [required, optional, unasked] = gateway.addresses[..] else { panic!("three listeners") };
    let ledger = before.dns("ledger.internal");
    let (old, new) = (client(&gateway, Some(&ledger)), client(&gateway, Some(&after.dns("ledger.internal"))));
    let plain = client(&gateway, None);
    assert_eq!(ask(unasked, &plain), Ok((200, HandshakeKind::Full)));
    assert_eq!(
        ask(unasked, &plain),
        Ok((200, HandshakeKind::Resumed)),
        "which this client does where it can"
    );
    for address in [required, optional] {
        for _ in 0..3 {
            assert_eq!(ask(address, &old), Ok((200, HandshakeKind::Full)));
        }
        assert!(status(address, &new).is_err());
    }
    gateway.setup.file("client-ca.pem", &after.1);
    until("the new one is taken", || status(required, &new) == Ok(200));
    for address in [required, optional] {
        assert!(status(address, &old).is_err());
        assert_eq!(status(address, &new), Ok(200));
    }
    // What is no certificate keeps what was loaded.
    gateway.setup.file("client-ca.pem", "nonsense");
    gateway.stderr.wait_for(|line| line.contains("client-ca.pem holds no usable certificate"));
    assert_eq!(status(required, &new), Ok(200));
}

#[test]
fn curl_is_known_by_its_certificate() {
    let mx = mx();
    let authority = Authority::new();
    let (setup, ca) = setup(&mx, &authority);
    for (name, own) in
        [("ledger", authority.dns("ledger.internal")), ("other", Authority::new().dns("ledger.internal"))]
    {
        setup.file(&format!("{name}.pem"), &own.certificate);
        setup.file(&format!("{name}-key.pem"), &own.key);
    }
    let gateway = setup.start();
    let file = |name: &str| gateway.setup.folder().join(name);
    let curl = |own: Option<&str>, version: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]).arg(&ca).args(version);
        if let Some(own) = own {
            command.arg("--cert").arg(file(&format!("{own}.pem")));
            command.arg("--key").arg(file(&format!("{own}-key.pem")));
        }
        command.args(["--output", "/dev/null", "--write-out", "%{http_code}"]);
        command.arg(format!("https://localhost:{}/users", gateway.addresses[0].port()));
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    for (n, version) in [&["--tlsv1.3"][..], &["--tls-max", "1.2"]].into_iter().enumerate() {
        assert_eq!(curl(Some("ledger"), version), (true, "200".into()));
        last_caller(&gateway, "ledger", n + 1);
        assert_eq!(curl(Some("other"), version), (false, "000".into()), "another authority's");
        assert_eq!(curl(None, version), (false, "000".into()), "none");
    }
    assert_eq!(mx.received(), 2);
}
