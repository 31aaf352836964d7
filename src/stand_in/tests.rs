//! A stand-in as its clients see it, over real sockets.

use std::{sync::Mutex, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    certificate::{Authority, NAMES, Validity},
    journal::Oddity,
    options::Scheme,
    *,
};

const CREDENTIAL: &str = "Authorization: Basic Y2xpZW50OmtleS1vbmU=\r\n"; // client:key-one
const VERSION: &str = "Accept: application/json\r\nAccept-Version: v20250224\r\n";

/// An answer, read to the end of what its framing says, or of the connection.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split("\r\n").filter_map(|line| line.split_once(": "));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

fn options() -> Options {
    Options {
        plain_address: Some(([127, 0, 0, 1], 0).into()),
        header_switches: true,
        ..Options::new(vec![Environment {
            bearer_tokens: vec!["token-one".to_owned()],
            ..Environment::new("client", "key-one")
        }])
    }
}

fn start(change: impl FnOnce(&mut Options)) -> Running {
    let mut options = options();
    change(&mut options);
    StandIn::spawn(options).unwrap()
}

async fn connect(stand_in: &Handle) -> TcpStream {
    TcpStream::connect(stand_in.plain_address().unwrap()).await.unwrap()
}

/// `GET /users` and its like, with the right credential and version, and `more` header lines.
fn request(line: &str, more: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{CREDENTIAL}{VERSION}{length}{more}\r\n{body}")
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> io::Result<Answer> {
    stream.write_all(request.as_bytes()).await?;
    read_answer(stream).await
}

async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut answer = Answer { status: head[9..12].parse().unwrap(), head, body: Vec::new() };
    if let Some(length) = answer.header("content-length").map(|value| value.parse().unwrap()) {
        answer.body = vec![0; length];
        stream.read_exact(&mut answer.body).await?;
    }
    Ok(answer)
}

async fn ask(stand_in: &Handle, line: &str, more: &str, body: &str) -> Answer {
    exchange(&mut connect(stand_in).await, &request(line, more, body)).await.unwrap()
}

/// Everything until the connection ends.
async fn ask_raw(stand_in: &Handle, line: &str, more: &str) -> io::Result<String> {
    let mut stream = connect(stand_in).await;
    stream.write_all(request(line, more, "").as_bytes()).await?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await?;
    Ok(String::from_utf8_lossy(&all).into_owned())
}

async fn connect_tls(
    stand_in: &Handle,
    name: &'static str,
    authority_pem: &str,
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let stream = TcpStream::connect(stand_in.address()).await?;
    TlsConnector::from(config).connect(ServerName::try_from(name).unwrap(), stream).await
}

#[tokio::test]
async fn a_right_request_is_answered_and_counted() {
    let stand_in = start(|_| {});
    let answer = ask(&stand_in, "GET /users?page=1", "", "").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json()["pagination"]["total_entries"], 12);
    stand_in.wait_until_received(1).await;
    assert_eq!((stand_in.count("listUsers"), stand_in.count("readUser"), stand_in.received()), (1, 0, 1));
    let kept = stand_in.requests();
    assert_eq!(
        (kept[0].target.as_str(), kept[0].operation, kept[0].connection),
        ("/users?page=1", Some("listUsers"), 1)
    );
    assert!(kept[0].head.starts_with(b"GET /users?page=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: "));
}

#[tokio::test]
async fn statuses_and_bodies_are_those_of_the_documents() {
    let stand_in = start(|_| {});
    let created = ask(&stand_in, "POST /users", "", r#"{"user":{"id":"my-id"}}"#).await;
    assert_eq!((created.status, &created.json()["user"]["id"]), (200, &json!("my-id")));
    let deleted = ask(&stand_in, "DELETE /users/U", "", "").await;
    assert_eq!((deleted.status, deleted.header("content-type"), deleted.body.len()), (204, None, 0));
    let pdf = request("GET /users/U/members/M/statements/S.pdf", "", "")
        .replace("Accept: application/json", "Accept: application/vnd.mx.api.v1+pdf");
    let pdf = exchange(&mut connect(&stand_in).await, &pdf).await.unwrap();
    assert!(pdf.status == 200 && pdf.body.starts_with(b"%PDF"));
    let head = ask_raw(&stand_in, "HEAD /users", "Connection: close\r\n").await.unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("content-length: ") && head.ends_with("\r\n\r\n")
    );
}

#[tokio::test]
async fn every_operation_of_both_versions_answers() {
    let stand_in = start(|_| {});
    let mut stream = connect(&stand_in).await;
    let mut answered = 0;
    for operation in catalogue().operations() {
        for version in crate::mx::Version::ALL {
            if !operation.versions.contains(version) {
                continue;
            }
            let found = answers::answers().find(operation, version).unwrap();
            let body =
                found.required.first().map_or(String::new(), |name| json!({name: {"a": 1}}).to_string());
            let bearer = operation.credential == crate::mx::catalogue::OperationCredential::Bearer;
            let credential = if bearer { "Authorization: Bearer token-one\r\n" } else { CREDENTIAL };
            let path = operation.template.replace(['{', '}'], "");
            let request = format!(
                "{} {path} HTTP/1.1\r\nHost: localhost\r\n{credential}Accept: {}\r\nAccept-Version: {}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                operation.method,
                crate::mx::media::preferred(operation, version.as_str()).as_str(),
                version.as_str(),
                body.len(),
            );
            let answer = exchange(&mut stream, &request).await.unwrap();
            // Jobs of several kinds on the one member.
            let expected = if answer.status == 409 { 409 } else { found.status().as_u16() };
            assert_eq!(answer.status, expected, "{} {}", operation.id, version.as_str());
            answered += 1;
        }
    }
    assert_eq!((answered, stand_in.connections()), (166 + 169, 1));
}

#[tokio::test]
async fn a_wrong_credential_or_a_second_one_is_answered_401_always_with_the_same_text() {
    let stand_in = start(|_| {});
    let none = request("GET /users", "", "").replace(CREDENTIAL, "");
    let wrong = request("GET /users", "", "").replace(CREDENTIAL, "Authorization: Basic Og==\r\n");
    let second = request("GET /users", CREDENTIAL, "");
    let other = request("GET /users?api_key=key-one", "", "");
    let unknown = request("GET /nothing", "X-Stand-In-Status: 200\r\n", "").replace(CREDENTIAL, "");
    for request in [none, wrong, second, other, unknown] {
        let answer = exchange(&mut connect(&stand_in).await, &request).await.unwrap();
        let text = "Invalid MX-API-Key or MX-Client-ID provided.";
        assert_eq!((answer.status, answer.json()), (401, json!({"error": {"message": text, "status": 401}})));
    }
}

#[tokio::test]
async fn bearer_operations_want_their_token() {
    let stand_in = start(|_| {});
    let bearer =
        request("GET /payment_account", "", "").replace(CREDENTIAL, "Authorization: Bearer token-one\r\n");
    assert_eq!(exchange(&mut connect(&stand_in).await, &bearer).await.unwrap().status, 200);
    assert_eq!(ask(&stand_in, "GET /payment_account", "", "").await.status, 401);
}

#[tokio::test]
async fn each_host_has_its_own_keys_and_other_hosts_are_not_served() {
    let stand_in = start(|options| {
        options.environments = vec![
            Environment::new("client", "key-one").at("int-api.mx.com"),
            Environment::new("client", "key-two").at("api.mx.com"),
        ];
    });
    let at = |host: &str| request("GET /users", "", "").replace("Host: localhost", &format!("Host: {host}"));
    for (host, status) in [
        ("int-api.mx.com", 200),
        ("INT-API.MX.COM:443", 200),
        ("api.mx.com", 401),
        ("localhost", 421),
        ("a b", 421),
    ] {
        assert_eq!(
            exchange(&mut connect(&stand_in).await, &at(host)).await.unwrap().status,
            status,
            "{host}"
        );
    }
}

#[tokio::test]
async fn an_address_off_the_allowlist_is_answered_403() {
    let status = async |allow: &str| {
        let stand_in = start(|options| options.allow = Some(vec![allow.parse().unwrap()]));
        ask(&stand_in, "GET /users", "", "").await.status
    };
    assert_eq!((status("127.0.0.0/8").await, status("10.0.0.0/8").await), (200, 403));
}

#[tokio::test]
async fn versions_are_required_and_have_their_own_paths() {
    let stand_in = start(|_| {});
    let with = |line: &str, version: &str| {
        request(line, "", "{\"config\":{},\"account\":{}}").replace(VERSION, version)
    };
    let old = "Accept: application/vnd.mx.api.v1+json\r\nAccept-Version: v20111101\r\n";
    for (line, version, status) in [
        ("POST /users/U/connect_widget_url", old, 200),
        ("POST /users/U/connect_widget_url", VERSION, 406),
        ("POST /users/U/connect_widget_url", &old.replace("v20111101", "v20250224"), 404),
        ("POST /users/U/accounts/merge", VERSION, 200),
        ("POST /users/U/accounts/merge", &VERSION.replace("v20250224", "v20111101"), 404),
        ("GET /users", "Accept: application/json\r\n", 406),
        ("GET /users", "Accept: application/vnd.mx.api.v1+json\r\n", 406),
        ("GET /users", "Accept-Version: v20250224\r\n", 406),
        ("GET /users/", VERSION, 404),
        ("PATCH /users", VERSION, 404),
    ] {
        let answer = exchange(&mut connect(&stand_in).await, &with(line, version)).await.unwrap();
        assert_eq!(answer.status, status, "{line} {version}");
    }
    let lenient = start(|options| options.accept_version_required = false);
    let vnd = with("GET /users", "Accept: application/vnd.mx.api.v1+json\r\n");
    let answer = exchange(&mut connect(&lenient).await, &vnd).await.unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/vnd.mx.api.v1+json")));
}

#[tokio::test]
async fn a_body_that_is_invalid_is_answered_422_and_one_that_is_too_large_413() {
    let stand_in = start(|options| options.body_bytes_max = 20);
    for (body, status) in [
        (r#"{"user":{}}"#, 200),
        ("{", 422),
        (r#"{"member":{}}"#, 422),
        (r#"{"user":{"id":"0123456"}}"#, 413),
    ] {
        assert_eq!(ask(&stand_in, "POST /users", "", body).await.status, status, "{body}");
    }
    assert_eq!(ask(&stand_in, "POST /users", "", "").await.status, 422);
}

#[tokio::test]
async fn jobs_run_one_at_a_time_and_finish() {
    let stand_in = start(|options| options.job_reads = 1);
    let post =
        async |job: &str| ask(&stand_in, &format!("POST /users/U/members/M/{job}"), "", "").await.status;
    let running = async || {
        let status = ask(&stand_in, "GET /users/U/members/M/status", "", "").await.json();
        status["member"]["is_being_aggregated"].as_bool().unwrap()
    };
    assert!(!running().await);
    assert_eq!((post("aggregate").await, post("aggregate").await, post("identify").await), (202, 202, 409));
    assert!(running().await);
    assert!(!running().await);
    assert_eq!(post("identify").await, 202);
}

#[tokio::test]
async fn keys_rotate_and_retire_by_the_clock() {
    let now = Arc::new(Mutex::new(SystemTime::UNIX_EPOCH));
    let clock = Arc::clone(&now);
    let stand_in = start(|options| options.clock = Arc::new(move || *clock.lock().unwrap()));
    let status = async |key: &str| {
        let basic = BASE64_STANDARD.encode(format!("client:{key}"));
        let request = request("GET /users", "", "").replace("Y2xpZW50OmtleS1vbmU=", &basic);
        exchange(&mut connect(&stand_in).await, &request).await.unwrap().status
    };
    assert_eq!(ask(&stand_in, "POST /clients/CLT-1/api_keys/retire", "", "").await.status, 422);
    let rotated = ask(&stand_in, "POST /clients/CLT-1/api_keys/rotate", "", "").await.json();
    assert_eq!(rotated["api_key"]["client_guid"], "CLT-1");
    let new = rotated["api_key"]["api_key"].as_str().unwrap().to_owned();
    assert_eq!((status("key-one").await, status(&new).await, status("other").await), (200, 200, 401));
    *now.lock().unwrap() += Duration::from_secs(30 * 86_400);
    assert_eq!((status("key-one").await, status(&new).await), (401, 200));
    stand_in.set_api_keys(0, vec!["key-one".to_owned()]);
    assert_eq!((status("key-one").await, status(&new).await), (200, 401));
    ask(&stand_in, "POST /clients/CLT-1/api_keys/rotate", "", "").await;
    assert_eq!(ask(&stand_in, "POST /clients/CLT-1/api_keys/retire", "", "").await.status, 204);
    assert_eq!(status("key-one").await, 401);
}

#[tokio::test]
async fn switches_work_by_header_only_where_that_is_allowed() {
    let status = async |allowed, header: &str| {
        let stand_in = start(|options| options.header_switches = allowed);
        ask(&stand_in, "GET /users", header, "").await.status
    };
    assert_eq!(status(true, "X-Stand-In-Status: 503\r\n").await, 503);
    assert_eq!(status(false, "X-Stand-In-Status: 503\r\n").await, 200);
    assert_eq!(status(true, "X-Stand-In-Statuss: 503\r\n").await, 400);
    let stand_in = start(|options| options.header_switches = false);
    let mut switches = Switches::default();
    switches.set("status", "429").unwrap();
    switches.set("retry-after", "3").unwrap();
    stand_in.set_switches(switches);
    let limited = ask(&stand_in, "GET /users", "", "").await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, Some("3")));
    stand_in.set_switches(Switches::default());
    let normal = ask(&stand_in, "GET /users", "", "").await;
    assert_eq!((normal.status, normal.header("retry-after")), (200, None));
}

#[tokio::test]
async fn an_echo_shows_the_request_as_it_was_and_can_hide_credentials() {
    let more = "X-Stand-In-Echo: true\r\nx-B: 2\r\nX-a:  1 \r\nx-B: 3\r\n";
    let stand_in = start(|_| {});
    let echo = ask(&stand_in, "POST /users?a=%2F", more, r#"{"user":{}}"#).await.json();
    assert_eq!(
        (&echo["method"], &echo["target"], &echo["body"]),
        (&json!("POST"), &json!("/users?a=%2F"), &json!(r#"{"user":{}}"#))
    );
    let headers = echo["headers"].as_array().unwrap();
    assert_eq!(headers[1], json!(["Authorization", "Basic Y2xpZW50OmtleS1vbmU="]));
    assert_eq!(headers[6..], [json!(["x-B", "2"]), json!(["X-a", "1"]), json!(["x-B", "3"])]);
    let masked = start(|options| options.mask_echo = true);
    let echo = ask(&masked, "GET /users", more, "").await;
    assert_eq!(echo.json()["headers"][1], json!(["Authorization", "Basic (hidden)"]));
    assert!(!String::from_utf8(echo.body).unwrap().contains("Y2xpZW50"));
}

#[tokio::test]
async fn the_answer_can_be_zipped_big_extended_reflected_and_redirected() {
    let stand_in = start(|_| {});
    let zipped = ask(&stand_in, "GET /users", "X-Stand-In-Gzip: true\r\n", "").await;
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    let mut plain = String::new();
    io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*zipped.body), &mut plain).unwrap();
    assert!(plain.starts_with("{\"users\":["));

    let big = ask(&stand_in, "GET /users", "X-Stand-In-Big: 200000\r\nX-Stand-In-Tag: t7\r\n", "").await;
    assert!(big.body.len() == 200_000 && big.body.chunks(3).all(|line| b"t7\n".starts_with(line)));

    let more = "X-Stand-In-Header: Set-Cookie: a=b\r\nX-Stand-In-Header: Access-Control-Allow-Origin: *\r\n";
    let extended = ask(&stand_in, "GET /users", more, "").await;
    assert_eq!(extended.header("set-cookie"), Some("a=b"));
    assert_eq!(extended.header("access-control-allow-origin"), Some("*"));
    assert_eq!(extended.header("x-stand-in-reflected"), None);

    let reflected = ask(&stand_in, "GET /users", "X-Stand-In-Reflect: true\r\n", "").await;
    assert_eq!(reflected.header("x-stand-in-reflected"), Some("Basic Y2xpZW50OmtleS1vbmU="));
    let redirect = ask(&stand_in, "GET /categories/default", "X-Stand-In-Redirect: true\r\n", "").await;
    assert_eq!((redirect.status, redirect.header("location")), (302, Some("http://localhost/users")));
}

#[tokio::test]
async fn a_chunked_answer_has_no_length_and_an_informational_one_comes_first() {
    let stand_in = start(|_| {});
    let close = "Connection: close\r\n";
    let chunked =
        ask_raw(&stand_in, "GET /users", &format!("X-Stand-In-Chunked: true\r\n{close}")).await.unwrap();
    assert!(
        chunked.to_lowercase().contains("transfer-encoding: chunked\r\n")
            && chunked.ends_with("\r\n0\r\n\r\n")
    );
    assert!(!chunked.to_lowercase().contains("content-length"));
    let early =
        ask_raw(&stand_in, "GET /users", &format!("X-Stand-In-Informational: 103\r\n{close}")).await.unwrap();
    assert!(early.starts_with("HTTP/1.1 103 ") && early.contains("\r\n\r\nHTTP/1.1 200 OK\r\n"), "{early}");
}

#[tokio::test]
async fn an_answer_can_break_off_by_fin_or_by_rst() {
    let stand_in = start(|_| {});
    let cut = ask_raw(&stand_in, "GET /users", "X-Stand-In-Cut: 10\r\n").await.unwrap();
    let (head, body) = cut.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && body.len() == 10, "{cut}");
    let reset = ask_raw(&stand_in, "GET /users", "X-Stand-In-Cut: 10,reset\r\n").await.unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    let big = ask_raw(&stand_in, "GET /users", "X-Stand-In-Big: 900000\r\nX-Stand-In-Cut: 300000\r\n")
        .await
        .unwrap();
    assert_eq!(big.split_once("\r\n\r\n").unwrap().1.len(), 300_000);
}

#[tokio::test]
async fn a_connection_can_be_dropped_without_an_answer_always_or_when_it_is_reused() {
    let stand_in = start(|_| {});
    assert_eq!(ask_raw(&stand_in, "GET /users", "X-Stand-In-Drop: always\r\n").await.unwrap(), "");
    let reset = ask_raw(&stand_in, "GET /users", "X-Stand-In-Drop: always,reset\r\n").await.unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    let mut stream = connect(&stand_in).await;
    let request = request("GET /users", "X-Stand-In-Drop: reused\r\n", "");
    assert_eq!(exchange(&mut stream, &request).await.unwrap().status, 200);
    assert_eq!(exchange(&mut stream, &request).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    stand_in.wait_until_received(4).await;
    assert_eq!(stand_in.requests()[3].status, None);
}

#[tokio::test]
async fn garbage_raw_bytes_and_a_stray_answer_reach_the_wire() {
    let stand_in = start(|_| {});
    let garbage = ask_raw(&stand_in, "GET /users", "X-Stand-In-Garbage: true\r\n").await.unwrap();
    assert!(garbage.contains("this is not HTTP") && !garbage.contains("HTTP/1.1"), "{garbage}");
    let raw = BASE64_STANDARD.encode("HTTP/1.1 200 OK\nContent-Length: 0\n\n");
    let raw = ask_raw(&stand_in, "GET /users", &format!("X-Stand-In-Raw: {raw}\r\n")).await.unwrap();
    assert_eq!(raw, "HTTP/1.1 200 OK\nContent-Length: 0\n\n");
    let mut stream = connect(&stand_in).await;
    let first =
        exchange(&mut stream, &request("GET /users", "X-Stand-In-Trailing: true\r\n", "")).await.unwrap();
    assert!(first.json()["users"].is_array());
    assert_eq!(read_answer(&mut stream).await.unwrap().json(), json!({"stray": true}));
}

#[tokio::test]
async fn an_answer_can_come_before_the_request_is_complete() {
    let stand_in = start(|_| {});
    let mut stream = connect(&stand_in).await;
    let head = request("POST /users", "Content-Length: 100\r\nX-Stand-In-Early: true\r\n", "");
    assert_eq!(exchange(&mut stream, &head).await.unwrap().status, 200);
}

#[tokio::test]
async fn slow_switches_wait_on_the_clock() {
    // On this test's own runtime, so that its paused time is the stand-in's.
    tokio::time::pause();
    let stand_in = StandIn::bind(options()).await.unwrap();
    let handle = stand_in.handle();
    let server = tokio::spawn(stand_in.serve(std::future::pending()));
    let begin = tokio::time::Instant::now();
    ask(&handle, "GET /users", "X-Stand-In-Slow-Head: 5000\r\n", "").await;
    assert!((5000..5100).contains(&begin.elapsed().as_millis()));
    let begin = tokio::time::Instant::now();
    let more = "X-Stand-In-Slow-Body: 1000\r\nX-Stand-In-Piece: 100\r\nX-Stand-In-Big: 1000\r\n";
    ask(&handle, "GET /users", more, "").await;
    assert!((10_000..10_100).contains(&begin.elapsed().as_millis()));
    server.abort();
}

#[tokio::test]
async fn what_no_gateway_should_send_is_recorded_and_refused_when_strict() {
    let stand_in = start(|_| {});
    assert_eq!(ask(&stand_in, "GET /users", "Cookie: a=b\r\nTE: trailers\r\n", "").await.status, 200);
    let seen = stand_in.requests();
    assert_eq!(seen[0].oddities, [Oddity::HopByHop("te"), Oddity::Private("cookie")]);
    let strict = start(|options| options.strict = true);
    assert_eq!(ask(&strict, "GET /users", "", "").await.status, 200);
    assert_eq!(ask(&strict, "GET /users", "Cookie: a=b\r\n", "").await.status, 400);
}

#[tokio::test]
async fn only_the_last_requests_are_kept_and_all_are_counted() {
    let stand_in = start(|options| options.requests_kept = 2);
    for page in 1..=3 {
        ask(&stand_in, &format!("GET /users?page={page}"), "", "").await;
    }
    let targets: Vec<String> = stand_in.requests().iter().map(|request| request.target.clone()).collect();
    assert_eq!(
        (targets, stand_in.count("listUsers")),
        (vec!["/users?page=2".to_owned(), "/users?page=3".to_owned()], 3)
    );
}

#[tokio::test]
async fn another_api_is_stood_in_for_only_where_that_is_asked() {
    let other = start(|options| {
        options.environments[0].any_path = true;
        options.environments[0].schemes = vec![Scheme::MxApiKey];
    });
    let request = request("GET /v1/things", "", "")
        .replace(CREDENTIAL, "MX-API-Key: key-one\r\nMX-Client-ID: client\r\n");
    assert_eq!(exchange(&mut connect(&other).await, &request).await.unwrap().json(), json!({}));
    assert_eq!(ask(&start(|_| {}), "GET /v1/things", "", "").await.status, 404);
}

#[tokio::test]
async fn all_connections_can_be_closed_at_once() {
    let stand_in = start(|_| {});
    let mut idle = connect(&stand_in).await;
    let plain = request("GET /users", "", "");
    exchange(&mut idle, &plain).await.unwrap();
    stand_in.close_connections();
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert_eq!(exchange(&mut connect(&stand_in).await, &plain).await.unwrap().status, 200);
}

#[tokio::test]
async fn tls_is_verified_by_its_own_authority_and_no_other() {
    let stand_in = start(|_| {});
    for name in NAMES {
        let mut stream = connect_tls(&stand_in, name, stand_in.authority_pem()).await.unwrap();
        let host = if name.contains(':') { format!("[{name}]:1") } else { name.to_owned() };
        let request = request("GET /users", "", "").replace("localhost", &host);
        assert_eq!(exchange(&mut stream, &request).await.unwrap().status, 200, "{name}");
    }
    assert!(connect_tls(&stand_in, "example.com", stand_in.authority_pem()).await.is_err());
    assert!(connect_tls(&stand_in, "localhost", Authority::new().unwrap().pem()).await.is_err());
}

#[tokio::test]
async fn sni_and_host_must_agree() {
    let stand_in = start(|_| {});
    let mut stream = connect_tls(&stand_in, "api.mx.com", stand_in.authority_pem()).await.unwrap();
    assert_eq!(exchange(&mut stream, &request("GET /users", "", "")).await.unwrap().status, 421);
    assert_eq!(stand_in.requests()[0].sni.as_deref(), Some("api.mx.com"));
}

#[tokio::test]
async fn a_certificate_can_be_expired_and_clients_can_need_one() {
    let authority = Authority::new().unwrap();
    let expired = start(|options| {
        options.certificate = Some(authority.issue(&["localhost"], Validity::Expired).unwrap());
    });
    assert!(connect_tls(&expired, "localhost", authority.pem()).await.is_err());
    let valid = start(|options| {
        options.certificate = Some(authority.issue(&["localhost"], Validity::Valid).unwrap());
        options.client_authority_pem = Some(authority.pem().to_owned());
    });
    // In TLS 1.3 the client learns of it only with its first read.
    let mut stream = connect_tls(&valid, "localhost", authority.pem()).await.unwrap();
    assert!(exchange(&mut stream, &request("GET /users", "", "")).await.is_err());
}

#[tokio::test]
async fn a_taken_address_is_an_error() {
    let stand_in = start(|_| {});
    let taken = StandIn::spawn(Options { address: stand_in.address(), ..options() });
    assert!(matches!(taken, Err(Error::Bind(..))));
}
