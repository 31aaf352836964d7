//! TLS and logging in.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::tls::TlsFault;

/// Over TLS, by the role's password.
fn over_tls(cluster: &Cluster, host: &str, ca: &str) -> Settings {
    Settings {
        host: host.into(),
        ca_file: Some(cluster.path(ca)),
        password: Some(password(PASSWORD)),
        ..settings(cluster, "shared")
    }
}

fn password(text: &'static str) -> PasswordLookUp {
    Arc::new(move || Box::pin(async move { Ok(secret(text)) }))
}

/// Why nothing was opened.
async fn fault(settings: Settings) -> Fault {
    match Postgres::open(settings, keys(KEY)).await {
        Err(Error::Failed { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

fn says(fault: &Fault, words: &str) -> bool {
    let said = vault::chain(fault);
    assert!(!said.contains(PASSWORD), "{said}");
    said.contains(words)
}

#[test]
fn the_server_is_verified_in_full_and_the_role_by_its_password() {
    let authority = Authority::new().unwrap();
    let cluster = cluster_of(&authority);
    std::fs::write(cluster.path("other.pem"), Authority::new().unwrap().pem()).unwrap();
    run(async {
        let store = Postgres::open(over_tls(&cluster, "localhost", "ca.pem"), keys(KEY)).await.unwrap();
        store.insert(&connection(id(1), 1)).await.unwrap();
        let ssl =
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'mxgate'";
        assert_eq!(cluster.sql(DATABASE, ssl), "t\n");

        // Another authority, the system's, and another name.
        let unknown = fault(over_tls(&cluster, "localhost", "other.pem")).await;
        assert!(matches!(unknown, Fault::Untrusted(_)), "{unknown:?}");
        let system = Settings { ca_file: None, ..over_tls(&cluster, "localhost", "ca.pem") };
        match Postgres::open(system, keys(KEY)).await {
            Err(Error::Failed { source: Fault::Untrusted(_), .. } | Error::Tls(TlsFault::NoRoots)) => {}
            other => panic!("{other:?}"),
        }
        let name = fault(over_tls(&cluster, "127.0.0.1", "ca.pem")).await;
        assert!(matches!(name, Fault::Untrusted(_)) && says(&name, "not valid for name"), "{name}");

        let wrong = Settings {
            password: Some(password("not-the-password")),
            ..over_tls(&cluster, "localhost", "ca.pem")
        };
        let wrong = fault(wrong).await;
        assert!(says(&wrong, "the role or its password is wrong (SQLSTATE 28P01)"), "{wrong:?}");
        let none = fault(Settings { password: None, ..over_tls(&cluster, "localhost", "ca.pem") }).await;
        assert!(says(&none, "password missing"), "{none:?}");
        let absent = Settings { database: "absent".into(), ..over_tls(&cluster, "localhost", "ca.pem") };
        assert!(says(&fault(absent).await, "there is no such database"));
    });
    let plain = Settings { user: "plain".into(), host: "127.0.0.1".into(), ..settings(&cluster, "shared") };
    run(async {
        // A loopback address without a `ca_file`: no TLS, and this server lets this role in so.
        let refused = Postgres::open(plain, keys(KEY)).await.unwrap_err();
        assert!(matches!(refused, Error::NoRight { .. }), "{refused:?}");
        // A role that must come over TLS may not.
        let plain = Settings { ca_file: None, ..over_tls(&cluster, "127.0.0.1", "ca.pem") };
        assert!(says(&fault(plain).await, "SQLSTATE 28000"));
    });
}

/// Whoever has the password cannot pass it on to another TLS connection.
#[test]
fn a_password_is_bound_to_its_tls_connection() {
    let cluster = cluster();
    let required = |settings: &Settings| {
        let mut config = settings.config();
        config.password(PASSWORD).channel_binding(tokio_postgres::config::ChannelBinding::Require);
        config
    };
    run(async {
        let settings = over_tls(&cluster, "localhost", "ca.pem");
        let tls = settings.tls().unwrap();
        assert!(required(&settings).connect(tls).await.is_ok());
        // Where there is neither TLS nor a password, there is nothing to bind.
        let socket = self::settings(&cluster, "shared");
        assert!(required(&socket).connect(tokio_postgres::NoTls).await.is_err());
    });
}

#[test]
fn an_expired_certificate_is_not_accepted() {
    let authority = Authority::new().unwrap();
    let certificate = authority.issue(&["localhost"], Validity::Expired).unwrap();
    let cluster = Cluster::start(&Pems { certificate: certificate.pem(), key: certificate.key_pem() });
    std::fs::write(cluster.path("ca.pem"), authority.pem()).unwrap();
    let expired = run(fault(over_tls(&cluster, "localhost", "ca.pem")));
    assert!(matches!(expired, Fault::Untrusted(_)) && says(&expired, "xpired"), "{expired}");
}

/// Whoever speaks no TLS is told nothing but that TLS is wanted: not even the role's name.
#[tokio::test]
async fn a_server_without_tls_gets_no_word() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, Authority::new().unwrap().pem()).unwrap();
    for answer in [&b"N"[..], b"E"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(answer).await.unwrap();
            let mut more = Vec::new();
            // Until it has gone away.
            let _ = stream.read_to_end(&mut more).await;
            (request, more)
        });
        let settings = Settings {
            password: Some(password(PASSWORD)),
            ca_file: Some(ca.clone()),
            ..settings_at("127.0.0.1", port)
        };
        let refused = fault(settings).await;
        assert!(says(&refused, "server does not support TLS"), "{refused:?}");
        let (request, more) = server.await.unwrap();
        // Its length, and the number that asks for TLS.
        assert_eq!((request, more.as_slice()), ([0, 0, 0, 8, 4, 210, 22, 47], &b""[..]));
    }
}

#[test]
fn tls_is_left_out_where_nothing_leaves_this_machine_and_nowhere_else() {
    let at =
        |host: &str, ca: bool| Settings { ca_file: ca.then(|| "ca.pem".into()), ..settings_at(host, 5432) };
    for plain in ["/run/postgresql", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "::ffff:127.0.0.1"] {
        assert!(at(plain, false).is_plain(), "{plain}");
    }
    for host in ["localhost", "db.example", "10.0.0.1", "192.0.2.1", "[2001:db8::1]", "127.0.0.1.example", ""]
    {
        assert!(!at(host, false).is_plain(), "{host}");
    }
    assert!(!at("127.0.0.1", true).is_plain() && at("/run/postgresql", true).is_plain());
}
