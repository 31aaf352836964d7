//! A token endpoint that answers oddly, slowly or not at all: its callers are told that there is no token, and nothing goes
//! out without one.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use crate::harness::{Client, Output, Setup, mx, until};

const KINDS: [&str; 23] = [
    "unavailable",
    "bad_gateway",
    "limited",
    "redirect",
    "nothing",
    "object",
    "list",
    "number",
    "empty_token",
    "text_life",
    "negative_life",
    "mac",
    "html",
    "form",
    "cut",
    "huge",
    "error_in_200",
    "invalid_grant",
    "invalid_client",
    "html_400",
    "slow",
    "slow_body",
    "hang_up",
];

#[test]
fn an_odd_answer_is_no_token_and_nothing_goes_out_without_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(root.join("tests/oauth/odd.mjs"), folder.path().join("odd.mjs")).unwrap();
    std::os::unix::fs::symlink(
        root.join("tests/.work/oauth/node_modules"),
        folder.path().join("node_modules"),
    )
    .unwrap();
    let mut server = Command::new("node")
        .arg("odd.mjs")
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("tests/setup has installed it");
    let said = Output::collect(server.stdout.take().unwrap());
    let port = said.wait_for(|line| line.starts_with("port ")).replace("port ", "");

    let mx = mx();
    let mut setup = Setup::new(&mx);
    let dir = setup.folder().display().to_string();
    (setup.listeners, setup.environments) = (String::new(), String::new());
    // The good one last: its listener is known by its place.
    for (at, kind) in KINDS.into_iter().chain(["plain"]).enumerate() {
        setup.file(&format!("secret-{at}"), &format!("a-secret-of-client-{at}"));
        setup.listeners += &format!("[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"e{at}\"\n");
        setup.environments += &format!(
            "[environment.e{at}]\nurl = \"https://{}\"\nca_file = \"{dir}/ca.pem\"\npaths = [\"GET /users\"]\n\
             credential = {{ kind = \"oauth2\", provider = \"p{at}\", grant = \"client_credentials\" }}\n\
             scopes = {{ paths = [\"{kind}\"] }}\n",
            mx.address()
        );
        setup = setup.table(&format!(
            "[provider.p{at}]\ntoken_endpoint = \"http://127.0.0.1:{port}/token\"\nclient_id = \"C\"\n\
             client_secret = \"file:{dir}/secret-{at}\"\nscopes = [\"{kind}\"]\nread_timeout_ms = 1000"
        ));
    }
    let gateway = setup.start();
    for (at, kind) in KINDS.into_iter().enumerate() {
        let mut client = Client::connect(gateway.addresses[at]);
        client.request("GET /users HTTP/1.1", "");
        let answer = client.answer();
        assert_eq!((answer.status, &*answer.code()), (503, "token_unavailable"), "{kind}");
        assert!(!answer.text().contains("c4n4ry"), "{kind}: {}", answer.text());
    }
    // Who asks again does not have the provider asked again at once, nor never again.
    let (at, kind) = (KINDS.iter().position(|kind| *kind == "invalid_grant").unwrap(), "asked invalid_grant");
    let times = || said.text().lines().filter(|line| *line == kind).count();
    let (asked, began) = (times(), Instant::now());
    let fails = || {
        let mut client = Client::connect(gateway.addresses[at]);
        client.request("GET /users HTTP/1.1", "");
        assert_eq!(client.answer().status, 503);
    };
    (0..20).for_each(|_| fails());
    let more = times() - asked;
    assert!(more as u64 <= began.elapsed().as_secs() + 1, "{more} in {:?}", began.elapsed());
    until("it is asked again", || {
        fails();
        times() > asked + more
    });
    assert!(mx.requests().is_empty(), "nothing went out");
    let mut client = Client::connect(gateway.addresses[KINDS.len()]);
    client.request("GET /users HTTP/1.1", "");
    // The stand-in does not know that token; what counts is that it was sent.
    assert_eq!(client.answer().status, 401);
    until("it is written down", || !mx.requests().is_empty());
    let sent = String::from_utf8_lossy(&mx.requests()[0].head).to_lowercase();
    assert!(sent.contains("\r\nauthorization: bearer "), "{sent}");
    gateway.stderr.wait_for_count("gave no token", 1);
    let log = gateway.stderr.text();
    assert!(!log.contains("c4n4ry"), "{log}");
    server.kill().unwrap();
    server.wait().unwrap();
}
