//! Drives a gateway through all that can happen to it, and keeps what came out.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mxgate::stand_in::{Running, switches::Switches};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};

use super::{
    CALLERS, CODE, IN_PATH, IN_VAULT,
    search::{Search, forms},
};
use crate::harness::{CLIENT_ID, Client, Gateway, PATIENCE};

/// Everything that came out, each with where it came from.
#[derive(Default)]
pub struct Evidence(Vec<(String, Vec<u8>)>);

impl Evidence {
    pub fn add(&mut self, place: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.to_owned(), bytes.into()));
    }

    pub fn only(&self, places: &[&str]) -> Self {
        let is_meant = |place: &str| places.iter().any(|meant| place.contains(meant));
        let kept: Vec<_> = self.0.iter().filter(|(place, _)| is_meant(place)).cloned().collect();
        assert!(!kept.is_empty());
        Self(kept)
    }

    pub fn text(&self, place: &str) -> String {
        let all: Vec<_> =
            self.0.iter().filter(|(other, _)| other == place).map(|(_, bytes)| &bytes[..]).collect();
        assert!(!all.is_empty(), "nothing came from {place}");
        String::from_utf8(all.concat()).expect("text")
    }

    #[track_caller]
    pub fn assert_has(&self, what: &str) {
        let has = |bytes: &[u8]| memchr::memmem::find(bytes, what.as_bytes()).is_some();
        assert!(self.0.iter().any(|(place, bytes)| place.contains(what) || has(bytes)), "nowhere: {what}");
    }

    #[track_caller]
    pub fn assert_clean(&self, search: &Search) {
        self.0.iter().for_each(|(place, bytes)| search.assert_clean(place, bytes));
    }
}

/// One request on a connection of its own; the answer as it came, and its status and code.
fn exchange(address: SocketAddr, request: &str, evidence: &mut Evidence) -> (Vec<u8>, u16, String) {
    let mut client = Client::connect(address);
    client.raw(request.as_bytes());
    let answer = client.rest();
    evidence.add(&format!("the answer to {:?}", request.lines().next()), answer.clone());
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
    let code =
        text.split_once("\"code\":\"").and_then(|(_, rest)| rest.split('"').next()).unwrap_or_default();
    (answer, status, code.to_owned())
}

/// With credentials of the caller's own, in every place that he can think of.
fn request(line: &str, more: &str, body: &str) -> String {
    format!(
        "{line}\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {CALLERS}\r\n\
         Proxy-Authorization: Basic {CALLERS}\r\nCookie: session={CALLERS}\r\nX-API-Key: {CALLERS}\r\n\
         X-Forwarded-For: {CALLERS}\r\nUser-Agent: {CALLERS}\r\n{more}\r\n{body}"
    )
}

/// Every refusal that a caller can bring about, each holding what must not be logged.
pub fn refusals(gateway: &Gateway, evidence: &mut Evidence) {
    let at = |path: &str| format!("GET {path} HTTP/1.1");
    let length = |length: usize| format!("Content-Length: {length}\r\n");
    let big = "x".repeat(10_001);
    let requests = [
        request(&at(&format!("/{IN_PATH}?api_key={CALLERS}")), "", ""),
        request(&format!("DELETE /users?code={CODE} HTTP/1.1"), "", ""),
        request(&format!("POST /clients/{IN_PATH}/api_keys/rotate HTTP/1.1"), &length(0), ""),
        request(&at(&format!("/users/%61{IN_PATH}")), "", ""),
        request(&at(&format!("/users/../{IN_PATH}")), "", ""),
        request(&at(&format!("/users/{IN_PATH}\\x")), "", ""),
        request(&format!("TRACE /{IN_PATH} HTTP/1.1"), "", ""),
        request(&format!("{CODE} /{IN_PATH} HTTP/1.1"), "", ""),
        request(&at(&format!("/users/{IN_PATH}/{}", "x".repeat(2000))), "", ""),
        request(&at("/users"), &format!("X-Big: {CODE}{}\r\n", "x".repeat(4000)), ""),
        request(&at("/users"), &format!("Origin: https://{CODE}.example\r\n"), ""),
        request(&at("/users"), &format!("Expect: {CODE}\r\n"), ""),
        request(&at("/users"), &format!("X-Bad: {CODE}\x1b[2J\x07\r\n"), ""),
        request(&at("/users"), &format!("X-Bad: {CODE}\nInjected: {CODE}\r\n"), ""),
        request(&at("/users"), &format!("Host: {CODE}\r\n"), ""),
        request(&at("/users"), &format!("{}Transfer-Encoding: chunked\r\n", length(5)), CODE),
        request("POST /users HTTP/1.1", "Transfer-Encoding: chunked\r\n", CODE),
        request("POST /users HTTP/1.1", &length(10_001), &big),
        request("POST /users HTTP/1.1", &length(500), CODE),
        request(&format!("GET /{IN_PATH} HTTP/3.7"), "", ""),
        format!("GET /users HTTP/1.1\r\nHost: {CODE}.example\r\nConnection: close\r\n\r\n"),
        format!("\x16\x03\x01 {CODE} {CALLERS}\r\n\r\n"),
        format!("GET /users HTTP/1.1\r\nHost: localhost\r\nX-Late: {CODE}"),
    ];
    let mut codes = BTreeSet::new();
    for text in &requests {
        let (_, status, code) = exchange(gateway.addresses[0], text, evidence);
        assert!(!code.is_empty(), "{status} to {text}");
        codes.insert(code);
    }
    // No Bearer token is configured there; nobody speaks TLS where it is expected.
    codes.insert(exchange(gateway.addresses[6], &request(&at("/payment_account"), "", ""), evidence).2);
    exchange(gateway.addresses[7], &request(&at("/users"), "", ""), evidence);
    for wanted in [
        "malformed_request",
        "malformed_target",
        "head_timeout",
        "body_timeout",
        "body_too_large",
        "request_line_too_long",
        "header_too_large",
        "expectation_failed",
        "method_not_supported",
        "browser_not_allowed",
        "misdirected_request",
        "unknown_operation",
        "method_not_allowed",
        "operation_denied",
        "no_credential",
    ] {
        assert!(codes.contains(wanted), "{wanted} is not among {codes:?}");
    }
}

/// A caller over TLS, and one who expects another name.
pub fn over_tls(gateway: &Gateway, evidence: &mut Evidence) {
    let mut roots = rustls::RootCertStore::empty();
    let pem = fs::read(gateway.setup.folder().join("tls-ca.pem")).expect("the root");
    for root in CertificateDer::pem_slice_iter(&pem) {
        roots.add(root.expect("PEM")).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    for (name, is_trusted) in [("localhost".to_owned(), true), (format!("{CODE}.example"), false)] {
        let name = ServerName::try_from(name).expect("a name");
        let tls = rustls::ClientConnection::new(config.clone(), name).expect("a client");
        let mut stream = rustls::StreamOwned::new(tls, Client::connect(gateway.addresses[7]).stream);
        let sent = stream.write_all(request("GET /users HTTP/1.1", "", "").as_bytes());
        assert_eq!(sent.is_ok(), is_trusted);
        let mut answer = Vec::new();
        // How it ends tells nothing here; what came is kept.
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer.starts_with(b"HTTP/1.1 200 OK"), is_trusted);
        evidence.add("the answer over TLS", answer);
    }
}

/// What is allowed, answered as MX answers and by an echo of everything.
pub fn forwarded(gateway: &Gateway, mx: &Running, evidence: &mut Evidence) {
    let user = format!("GET /users/{IN_PATH}?page=1&api_key={CALLERS} HTTP/1.1");
    for (switch, mark) in [("chunked", "guid"), ("echo", "/users/"), ("reflect", "x-stand-in-reflected")] {
        set(mx, &[(switch, "true")]);
        for address in &gateway.addresses[..6] {
            let (answer, status, _) = exchange(*address, &request(&user, "", ""), evidence);
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
            let has = memchr::memmem::find(&answer, mark.as_bytes()).is_some();
            assert!(has || switch == "reflect", "{}", String::from_utf8_lossy(&answer));
        }
    }
    let mint = format!("POST /token?grant_type=authorization_code&code={CODE} HTTP/1.1");
    assert_eq!(exchange(gateway.addresses[0], &request(&mint, "Content-Length: 0\r\n", ""), evidence).1, 200);
    // The caller's own token comes back to the caller, whose it is.
    set(mx, &[("echo", "true")]);
    let own = request("GET /payment_account HTTP/1.1", "", "");
    let mut aside = Evidence::default();
    let (answer, ..) = exchange(gateway.addresses[5], &own, &mut aside);
    let received = mx.requests().last().expect("a request").headers["authorization"].clone();
    assert_eq!(received, format!("Bearer {CALLERS}"), "{}", String::from_utf8_lossy(&answer));
    evidence.add("the passing caller's answer", answer);
}

/// An upstream that says the credential in every place of an answer and in every form, in pieces of every size.
pub fn echoes(gateway: &Gateway, mx: &Running, at: (usize, &str, &str), evidence: &mut Evidence) {
    let (listener, path, secret) = at;
    let address = gateway.addresses[listener];
    let get = request(&format!("GET {path} HTTP/1.1"), "Connection: te\r\nTE: trailers\r\n", "");
    let basic = BASE64_STANDARD.encode(format!("{CLIENT_ID}:{secret}")).into_bytes();
    let forms: Vec<Vec<u8>> =
        forms(secret.as_bytes()).into_iter().map(|(_, form)| form).chain([basic]).collect();
    let page = [b"<html>", forms.join(&b"</p>\x00\xff<p>"[..]).as_slice(), b"</html>"].concat();
    let in_headers = in_headers(secret, &forms);

    let sized = [
        b"HTTP/1.1 200 ".as_slice(),
        secret.as_bytes(),
        b"\r\n",
        &in_headers,
        format!("Content-Length: {}\r\n\r\n", page.len()).as_bytes(),
        &page,
    ]
    .concat();
    let masked_before = gateway.metric("mxgate_secrets_masked_total");
    set_raw(mx, &sized);
    let (answer, status, _) = exchange(address, &get, evidence);
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    let body = body(&answer);
    assert_eq!(masked_places(&page, &body), forms.len());
    assert!(
        memchr::memmem::find(&answer, format!("content-length: {}\r\n", page.len()).as_bytes()).is_some()
    );
    assert!(memchr::memmem::find(&answer, b"set-cookie").is_none());
    let masked = gateway.metric("mxgate_secrets_masked_total") - masked_before;
    // Its own places in Location and WWW-Authenticate, and a field that is left out, where it can be a name.
    let named = usize::from(secret.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_eq!(masked, (2 * forms.len() + 2 + named) as f64, "of {secret}");

    for size in (1..=secret.len() + 3).chain([64, 1000]) {
        let framing = b"Trailer: X-Trailer\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut text = [b"HTTP/1.1 401 No\r\n".as_slice(), &in_headers, framing].concat();
        text.extend(chunked(&page, size));
        text.extend([b"0\r\nX-Trailer: ".as_slice(), secret.as_bytes(), b"\r\n\r\n"].concat());
        set_raw(mx, &text);
        let (answer, ..) = exchange(address, &get, evidence);
        let whole = self::body(&answer);
        assert_eq!(masked_places(&page, &whole), forms.len(), "in pieces of {size}");
        let trailer = format!("\r\nx-trailer: {}\r\n\r\n", "*".repeat(secret.len()));
        assert!(answer.ends_with(trailer.as_bytes()), "{}", String::from_utf8_lossy(&answer));
        evidence.add(&format!("the upstream's body in pieces of {size}"), whole);
    }

    let to_the_end =
        [b"HTTP/1.1 500 x\r\nConnection: close\r\n".as_slice(), &in_headers, b"\r\n", &page].concat();
    let early = [b"HTTP/1.1 103 x\r\nLink: <".as_slice(), secret.as_bytes(), b">\r\n\r\n", &sized].concat();
    let bodyless = [b"HTTP/1.1 304 x\r\n".as_slice(), &in_headers, b"\r\n"].concat();
    let half = &sized[..sized.len() - page.len() / 2];
    let broken = [
        b"HTTP/1.1 200 OK\r\n".as_slice(),
        secret.as_bytes(),
        b" \x00\r\nX: ",
        secret.as_bytes(),
        b"\r\n\r\n",
    ]
    .concat();
    let zipped =
        [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 40\r\n\r\n", secret.as_bytes()]
            .concat();
    let status_line = [b"HTTP/1.1 2".as_slice(), secret.as_bytes(), b"\r\n\r\n"].concat();
    for (text, wanted) in [
        (to_the_end.as_slice(), 500),
        (&early, 200),
        (&bodyless, 304),
        (half, 200),
        (&broken, 502),
        (&zipped, 502),
        (&status_line, 502),
        (secret.as_bytes(), 502),
    ] {
        set_raw(mx, text);
        let (answer, status, _) = exchange(address, &get, evidence);
        assert_eq!(status, wanted, "{}", String::from_utf8_lossy(&answer));
    }
    // Pieces that come one by one, as a slow server writes them; whole lines, since half a secret is none.
    set(
        mx,
        &[
            ("big", &(50 * (secret.len() + 1)).to_string()),
            ("tag", secret),
            ("piece", "7"),
            ("slow-body", "0"),
        ],
    );
    let (answer, ..) = exchange(address, &get, evidence);
    assert!(memchr::memmem::find(&answer, b"***").is_some(), "{}", String::from_utf8_lossy(&answer));
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let chunk = |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
    body.chunks(size).flat_map(chunk).collect()
}

/// From now on the upstream answers with `body` in chunks of `size`.
pub fn answer_in_pieces(mx: &Running, body: &[u8], size: usize) {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    set_raw(mx, &[head, &chunked(body, size), b"0\r\n\r\n"].concat());
}

/// Every form in a header value, the secret where servers repeat it, and in a name where it can be one.
fn in_headers(secret: &str, forms: &[Vec<u8>]) -> Vec<u8> {
    let mut lines = Vec::new();
    for (index, form) in forms.iter().enumerate() {
        lines.extend([format!("X-Echo-{index}: <").as_bytes(), form, b">\r\n"].concat());
    }
    for line in ["Location: https://mx/?api_key=", "Set-Cookie: key=", "WWW-Authenticate: Basic realm="] {
        lines.extend([line.as_bytes(), secret.as_bytes(), b"\r\n"].concat());
    }
    if secret.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        lines.extend([b"X-".as_slice(), secret.as_bytes(), b": 1\r\n"].concat());
    }
    lines
}

/// Checks that `masked` is `original` but for runs of `*`; how many runs.
fn masked_places(original: &[u8], masked: &[u8]) -> usize {
    assert_eq!(original.len(), masked.len(), "as many bytes");
    let is_changed: Vec<bool> = original.iter().zip(masked).map(|(before, after)| before != after).collect();
    let changed = original.iter().zip(masked).filter(|(before, after)| before != after);
    assert!(changed.clone().all(|(_, after)| *after == b'*'));
    // The original holds no `*`, so that each one is a mask.
    assert!(!original.contains(&b'*'));
    is_changed.split(|changed| !changed).filter(|run| !run.is_empty()).count()
}

/// An answer's body, by its framing, read naively.
fn body(answer: &[u8]) -> Vec<u8> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n").expect("a head") + 4;
    let (head, mut rest) = answer.split_at(end);
    if memchr::memmem::find(head, b"transfer-encoding: chunked").is_none() {
        return rest.to_vec();
    }
    let mut whole = Vec::new();
    loop {
        let line = memchr::memmem::find(rest, b"\r\n").expect("a chunk's size");
        let size =
            usize::from_str_radix(std::str::from_utf8(&rest[..line]).expect("digits"), 16).expect("a size");
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
}

/// Upstreams that fail in every way.
pub fn failures(gateway: &Gateway, mx: &Running, evidence: &mut Evidence) {
    let get = request(&format!("GET /users/{IN_PATH}?code={CODE} HTTP/1.1"), "", "");
    let mut codes = BTreeSet::new();
    for switch in [
        ("drop", "always"),
        ("drop", "always,reset"),
        ("garbage", "true"),
        ("slow-head", "3000"),
        ("gzip", "true"),
    ] {
        set(mx, &[switch]);
        codes.insert(exchange(gateway.addresses[0], &get, evidence).2);
    }
    codes.insert(exchange(gateway.addresses[6], &get, evidence).2);
    for wanted in [
        "upstream_closed",
        "upstream_malformed",
        "first_byte_timeout",
        "upstream_encoding",
        "upstream_unreachable",
    ] {
        assert!(codes.contains(wanted), "{wanted} is not among {codes:?}");
    }
    for switches in [
        [("cut", "20"), ("big", "5000")],
        [("redirect", "true"), ("retry-after", "1")],
        [("status", "503"), ("echo", "true")],
    ] {
        set(mx, &switches);
        exchange(gateway.addresses[0], &get, evidence);
    }
    set(mx, &[]);
    // A caller who leaves in the middle of a head, and one who leaves before the answer.
    for text in [&get[..get.len() / 2], &get] {
        Client::connect(gateway.addresses[0]).raw(text.as_bytes());
    }
}

/// What operators do and ask, mistakes included.
pub fn operators(gateway: &Gateway, evidence: &mut Evidence) {
    let folder = gateway.setup.folder();
    let config = folder.join("mxgate.toml");
    let right = fs::read_to_string(&config).expect("the configuration");
    for path in ["/metrics", "/livez", "/readyz", "/nowhere"] {
        let mut client = Client::connect(gateway.health.expect("a health listener"));
        client.raw(
            format!("GET {path}?code={CODE} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        );
        evidence.add(path, client.rest());
    }
    let all = |evidence: &mut Evidence| {
        for args in [
            &["status"][..],
            &["status", "--json"],
            &["reload"],
            &["reload", "--json"],
            &["check", "mxgate.toml"],
            &["check", "--json", "mxgate.toml"],
            &["vault", "--config", "mxgate.toml", "list"],
            &["vault", "--config", "mxgate.toml", "list", "--json"],
            &["vault", "--config", "mxgate.toml", "verify"],
        ] {
            mxgate(folder, args, "", evidence);
        }
        control(folder, "GET /status", "", evidence);
        control(folder, "POST /reload", "", evidence);
    };
    all(evidence);
    // A key in the place of a reference, and half a line of it.
    let pasted = format!("api_key = \"{IN_VAULT}\"");
    for wrong in [
        right.replacen("api_key = \"vault:test/api_key\"", &pasted, 1),
        format!("{right}{pasted}\n"),
        format!("{right}\n[limits.{IN_VAULT}]\n{IN_VAULT} = 1\n"),
        format!("{IN_VAULT}\n{right}"),
        format!("{right}\n[log]\nfilter = \"{IN_VAULT}="),
        right.replacen("filter = \"trace\"", &format!("filter = \"{IN_VAULT}[\""), 1),
        right.replacen("127.0.0.1:1\"", &format!("{IN_VAULT}:{IN_VAULT}@h\""), 1),
    ] {
        assert_ne!(wrong, right);
        fs::write(&config, &wrong).expect("the configuration");
        all(evidence);
        assert!(!mxgate(folder, &["run", "--config", "mxgate.toml"], "", evidence), "it has faults");
    }
    fs::write(&config, &right).expect("the configuration");
    let vault_file = folder.join("vault.age");
    let sound = fs::read(&vault_file).expect("the vault");
    for at in [10, sound.len() / 2, sound.len() - 1] {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        fs::write(&vault_file, damaged).expect("the vault");
        all(evidence);
    }
    fs::write(&vault_file, sound).expect("the vault");
    all(evidence);
    for (command, body) in [
        ("POST /log-level", format!("{{\"filter\":\"{IN_VAULT}[=\"}}")),
        ("POST /log-level", format!("{{\"{IN_VAULT}\":1}}")),
        ("POST /suspend", format!("{{\"target\":{{\"environment\":\"{IN_VAULT}\"}}}}")),
        ("POST /suspend", format!("{{\"target\":{{\"{IN_VAULT}\":1}}}}")),
        ("POST /resume", format!("{{\"target\":{{\"address\":\"{IN_VAULT}\"}}}}")),
        ("GET /nowhere", String::new()),
    ] {
        control(folder, command, &body, evidence);
    }
    for args in [
        &[IN_VAULT][..],
        &["run", IN_VAULT],
        &["run", "--api-key", IN_VAULT],
        &["vault", IN_VAULT],
        &["vault", "set", "test/api_key", IN_VAULT],
        &["vault", "set", "test/api_key", "--environment", IN_VAULT],
        &["demo", "--listen", IN_VAULT],
    ] {
        mxgate(folder, args, "", evidence);
    }
    let both = ["vault", "--config", "mxgate.toml", "set", "test/api_key"];
    mxgate(folder, &both, &format!("{IN_VAULT}\n{IN_VAULT}\n"), evidence);
    mxgate(folder, &["vault", "--config", "mxgate.toml", "backup", "copy.age"], "", evidence);
}

/// Runs a command in the gateway's folder and keeps what it prints.
pub fn mxgate(folder: &Path, args: &[&str], input: &str, evidence: &mut Evidence) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mxgate"));
    command.current_dir(folder).arg("--socket").arg(folder.join("control.sock")).args(args).env_clear();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    // A command that reads nothing closes the pipe.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("its output");
    let printed = [output.stdout, output.stderr].concat();
    assert!(!printed.is_empty(), "mxgate {args:?} says nothing");
    evidence.add(&format!("mxgate {args:?}"), printed);
    output.status.success()
}

pub fn vault(folder: &Path, args: &[&str], input: &str, evidence: &mut Evidence) {
    let all = [&["vault", "--vault", "vault.age", "--identity", "identity"], args].concat();
    assert!(mxgate(folder, &all, input, evidence), "{args:?}");
}

/// One command on the control socket, as any program can give it.
fn control(folder: &Path, command: &str, body: &str, evidence: &mut Evidence) {
    let mut socket = UnixStream::connect(folder.join("control.sock")).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let text = format!(
        "{command} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(text.as_bytes()).expect("it takes them");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an answer");
    assert!(!answer.is_empty(), "{command}");
    evidence.add(command, answer);
}

fn set(mx: &Running, switches: &[(&str, &str)]) {
    let mut all = Switches::default();
    switches.iter().for_each(|(name, value)| all.set(name, value).expect("a switch"));
    mx.set_switches(all);
}

/// Answers exactly these bytes from now on.
fn set_raw(mx: &Running, bytes: &[u8]) {
    set(mx, &[("raw", &BASE64_STANDARD.encode(bytes))]);
}
