//! Header fields on their way through, in both directions.

use std::collections::HashSet;

use mxgate::stand_in::Running;

use crate::harness::{Answer, Gateway, Setup, last, lines, mx};

fn started() -> (Running, Gateway) {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    (mx, gateway)
}

/// The values of one field of the last request.
fn sent(mx: &Running, name: &str) -> Vec<String> {
    last(mx).headers.get_all(name).iter().map(|value| value.to_str().expect("text").to_owned()).collect()
}

#[test]
fn what_mx_is_meant_to_see_passes_unchanged() {
    let (mx, gateway) = started();
    let own = [
        "MX-3DX-TOKEN: a.b/c==",
        "X-CALLBACK-PAYLOAD: {\"a\": [1, 2]}",
        "Accept-Language: fr-CA, fr;q=0.5",
        "User-Agent: sdk/1.0 (x; y)",
        "Content-Language: en",
        "If-None-Match: \"7\"",
        "X-Trace-Id: 7",
        "X-Trace-Id: 8",
        "x_trace: 9",
    ];
    assert_eq!(gateway.get("/users", &own.join("\n")).status, 200);
    let lines = lines(&last(&mx));
    for line in own {
        let (name, value) = line.split_once(": ").unwrap();
        let line = format!("{}: {value}", name.to_lowercase());
        assert!(lines.contains(&line), "{line} in {lines:?}");
    }
}

#[test]
fn what_looks_like_a_credential_passes_when_the_environment_says_so() {
    let mx = mx();
    let own =
        "X-Continuation-Token: next\nX-Session-Id: evil\nX_Continuation_Token: evil\nAuthorization: evil";
    let plain = Setup::new(&mx).start();
    assert_eq!(plain.get("/users", own).status, 200);
    assert!(!String::from_utf8_lossy(&last(&mx).head).contains("evil"));
    assert!(sent(&mx, "x-continuation-token").is_empty());

    let gateway = Setup::new(&mx).in_environment("pass_headers = [\"X-Continuation-Token\"]").start();
    assert_eq!(gateway.get("/users", own).status, 200);
    assert_eq!(sent(&mx, "x-continuation-token"), ["next"]);
    assert!(!String::from_utf8_lossy(&last(&mx).head).contains("evil"));
}

#[test]
fn connection_fields_and_what_they_name_stay_here() {
    let (mx, gateway) = started();
    let own = "Connection: keep-alive, X-Once, x-twice\nConnection: X-Third\nX-Once: evil\nX-Twice: evil\nX-Twice: evil\n\
        X-Third: evil\nX-Fourth: kept\nKeep-Alive: evil\nProxy-Connection: evil\nTE: gzip\nUpgrade: evil\nProxy-Authenticate: evil\n\
        Keep_Alive: evil\nTransfer_Encoding: evil\nContent_Length: 7\nHTTP2-Settings: evil\nMax-Forwards: 3\nRange: bytes=0-1";
    assert_eq!(gateway.get("/users", own).status, 200);
    let request = last(&mx);
    let head = String::from_utf8_lossy(&request.head).to_lowercase();
    assert!(!head.contains("evil"), "{head}");
    for name in ["connection", "te", "max-forwards", "range", "content_length", "transfer_encoding"] {
        assert!(!request.headers.contains_key(name), "{name}: {head}");
    }
    assert_eq!(sent(&mx, "x-fourth"), ["kept"]);
    assert_eq!(request.oddities, []);
}

#[test]
fn connection_cannot_take_ours_away_or_break_the_framing() {
    let (mx, gateway) = started();
    let named = "authorization, mx-client-id, accept-version, accept, accept-encoding, host, via, content-length, \
        transfer-encoding, connection, x-mxgate-request-id, content-type, , ,";
    let plain = gateway.send("POST /users HTTP/1.1\nContent-Type: application/json", "{\"user\":{}}");
    assert_eq!(plain.status, 200, "{}", plain.text());
    let clean = last(&mx);
    let answer = gateway.send(
        &format!("POST /users HTTP/1.1\nContent-Type: application/json\nConnection: {named}"),
        "{\"user\":{}}",
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = last(&mx);
    assert_eq!(request.body, "{\"user\":{}}");
    // Its own content type is the caller's to give away, and a body without one gets MX's.
    assert_eq!(lines(&request), lines(&clean));
    assert_eq!(answer.header("x-mxgate-request-id").map(str::len), Some(32));
    // The same for a body in chunks.
    let mut client = gateway.connect();
    client.raw(
        b"POST /users HTTP/1.1\r\nHost: localhost\r\nConnection: transfer-encoding, Content-Length\r\n\
        Transfer-Encoding: chunked\r\n\r\nb\r\n{\"user\":{}}\r\n0\r\n\r\n",
    );
    assert_eq!(client.answer().status, 200);
    assert_eq!(last(&mx).body, "{\"user\":{}}");
}

#[test]
fn what_connection_takes_out_is_completed_as_if_it_were_absent() {
    let (mx, gateway) = started();
    let own = "Accept-Version: v20111101\nAccept: application/vnd.mx.api.v1+json";
    for (connection, version, accept) in [
        ("keep-alive", "v20111101", "application/vnd.mx.api.v1+json"),
        ("accept-version", "v20250224", "application/vnd.mx.api.v1+json"),
        ("Accept, accept-version", "v20250224", "application/json"),
        ("accept", "v20111101", "application/vnd.mx.api.v1+json"),
    ] {
        gateway.get("/users", &format!("Connection: {connection}\n{own}"));
        assert_eq!(
            (sent(&mx, "accept-version"), sent(&mx, "accept")),
            (vec![version.into()], vec![accept.into()])
        );
    }
}

#[test]
fn the_way_to_mx_is_ours_to_tell() {
    let (mx, gateway) = started();
    let own = "Via: 1.0 evil\nVia: 1.1 evil2\nForwarded: for=evil\nX-Forwarded-For: evil\nX-Forwarded-Host: evil\n\
        X-Forwarded-Proto: evil\nX-Forwarded-Port: evil\nX_Forwarded_For: evil\nReferer: http://evil/\nX-Real-IP: evil";
    assert_eq!(gateway.get("/users", own).status, 200);
    assert_eq!(sent(&mx, "via"), ["1.1 mxgate"]);
    assert_eq!(sent(&mx, "host"), [mx.address().to_string()]);
    let head = String::from_utf8_lossy(&last(&mx).head).to_lowercase();
    assert!(!head.contains("evil"), "{head}");
}

const V1: &str = "application/vnd.mx.api.v1+json";
const JSON: &str = "application/json";
const OLD: &str = "v20111101";
const NEW: &str = "v20250224";
const AXIOS: &str = "application/json, text/plain, */*";

/// Asks with these header lines; what MX saw as `Accept` and `Accept-Version`.
fn asked(mx: &Running, gateway: &Gateway, line: &str, own: &str) -> (Vec<String>, Vec<String>) {
    let received = mx.received();
    let answer = gateway.send(&format!("{line} HTTP/1.1\n{own}"), "");
    assert_eq!(mx.received(), received + 1, "{line} {own}: {}", answer.text());
    (sent(mx, "accept"), sent(mx, "accept-version"))
}

#[test]
fn accept_is_completed_from_the_catalogue_and_the_version() {
    let mx = mx();
    for default in [NEW, OLD] {
        let gateway = Setup::new(&mx).in_environment(&format!("accept_version = \"{default}\"")).start();
        for (line, new, old) in [
            ("GET /users", JSON, V1),
            ("HEAD /users", JSON, V1),
            (
                "GET /vc/users/U/members/M/accounts",
                "application/vnd.mx.api.v2beta+json",
                "application/vnd.mx.api.v2beta+json",
            ),
            (
                "GET /users/U/members/M/statements/S.pdf",
                "application/vnd.mx.api.v1+pdf",
                "application/vnd.mx.api.v1+pdf",
            ),
            ("DELETE /users/U", JSON, V1),
            ("GET /payment_account", JSON, JSON),
        ] {
            let of = |version| if version == OLD { old } else { new };
            for own in ["", "Accept: */*", "Accept: application/json, text/plain, */*", "Accept: text/html"] {
                let mut client = gateway.connect();
                client.request(&format!("{line} HTTP/1.1\n{own}"), "");
                let answer = if line.starts_with("HEAD") { client.answer_to_head() } else { client.answer() };
                assert_eq!(answer.status / 100, 2, "{line} {own} {default}: {}", answer.text());
                let seen = (sent(&mx, "accept"), sent(&mx, "accept-version"));
                assert_eq!(seen, (vec![of(default).to_owned()], vec![default.to_owned()]), "{line} {own}");
            }
            // The caller's own version beats the environment's.
            if !line.starts_with("HEAD") {
                for version in [NEW, OLD] {
                    let seen =
                        asked(&mx, &gateway, line, &format!("Accept-Version: {version}\nAccept: {AXIOS}"));
                    assert_eq!(seen, (vec![of(version).to_owned()], vec![version.to_owned()]), "{line}");
                }
            }
        }
    }
}

#[test]
fn an_explicit_type_of_mx_is_kept_and_an_empty_version_is_none() {
    let (mx, gateway) = started();
    let one = |text: &str| vec![text.to_owned()];
    assert_eq!(asked(&mx, &gateway, "GET /users", &format!("Accept: {V1}")), (one(V1), one(NEW)));
    assert_eq!(asked(&mx, &gateway, "GET /users", "Accept: application/json"), (one(JSON), one(NEW)));
    let other = "application/vnd.mx.api.v9+json;q=0.1";
    assert_eq!(asked(&mx, &gateway, "GET /users", &format!("Accept: {other}")), (one(other), one(NEW)));
    // Several lines are one list.
    let (accept, _) = asked(&mx, &gateway, "GET /users", &format!("Accept: text/html\nAccept: {V1}"));
    assert_eq!(accept, ["text/html", V1]);
    let (accept, _) = asked(&mx, &gateway, "GET /users", "Accept: application/json\nAccept: */*");
    assert_eq!(accept, [JSON]);
    let (accept, version) = asked(&mx, &gateway, "GET /users", "Accept:\nAccept-Version:");
    assert_eq!((accept, version), (one(JSON), one(NEW)));
    // Of several versions the first that says anything, which `Accept` fits, and no other.
    for lines in ["Accept-Version:\nAccept-Version: OLD", "Accept-Version: OLD\nAccept-Version: NEW"] {
        let lines = lines.replace("OLD", OLD).replace("NEW", NEW);
        assert_eq!(asked(&mx, &gateway, "GET /users", &lines), (one(V1), one(OLD)), "{lines}");
    }
    // Look-alikes decide nothing.
    let own = format!("Accept_Version: {OLD}\nAccept_Encoding: gzip\nX-Kept: 1");
    assert_eq!(asked(&mx, &gateway, "GET /users", &own), (one(JSON), one(NEW)));
    let head = String::from_utf8_lossy(&last(&mx).head).into_owned();
    assert!(!head.contains('_') && head.contains("x-kept: 1"), "{head}");
    // A version that MX does not know is MX's to refuse.
    assert_eq!(gateway.get("/users", "Accept-Version: v19990101").status, 406);
    assert_eq!(sent(&mx, "accept-version"), ["v19990101"]);
}

/// An answer that has these fields.
fn with(gateway: &Gateway, status: u16, fields: &[&str]) -> Answer {
    let fields: String = fields.iter().map(|field| format!("\nx-stand-in-header: {field}")).collect();
    gateway.get("/users", &format!("x-stand-in-status: {status}{fields}"))
}

#[test]
fn redirects_are_answers_and_are_not_followed() {
    let (mx, gateway) = started();
    for status in [301, 302, 303, 307, 308] {
        let received = mx.received();
        let answer = with(&gateway, status, &[&format!("Location: https://{}/users/x", mx.address())]);
        assert_eq!((answer.status, mx.received()), (status, received + 1));
        assert_eq!(answer.all("location"), ["/users/x"]);
    }
}

#[test]
fn a_location_on_mx_is_a_path_here_and_any_other_is_left_alone() {
    let (mx, gateway) = started();
    let here = mx.address();
    let (port, other) = (here.port(), here.port() ^ 1);
    let local = [
        (format!("https://{here}/users/x?y=1#z"), "/users/x?y=1#z"),
        (format!("https://{here}"), "/"),
        (format!("https://{here}?x=1"), "/?x=1"),
        (format!("HTTPS://{here}/a%2Fb"), "/a%2Fb"),
    ];
    for (sent, path) in local {
        for name in ["Location", "Content-Location"] {
            let answer = with(&gateway, 201, &[&format!("{name}: {sent}")]);
            assert_eq!(answer.all(&name.to_lowercase()), [path], "{sent}");
        }
    }
    for sent in [
        "/users/y".to_owned(),
        "y?z".to_owned(),
        "//127.0.0.1/x".to_owned(),
        format!("https://127.0.0.1.evil.example:{port}/x"),
        format!("https://evil127.0.0.1:{port}/x"),
        format!("https://127.0.0.1:{other}/x"),
        "https://127.0.0.1/x".to_owned(),
        format!("https://user@{here}/x"),
        format!("https://{here}@evil.example/x"),
        format!("https://{here}:evil@evil.example/x"),
        format!("http://{here}/x"),
        format!("ftp://{here}/x"),
        // As a path of its own, this would name another host.
        format!("https://{here}//evil.example/x"),
        format!("https://{here}/\\evil.example/x"),
        "https://api.mx.com/x".to_owned(),
    ] {
        let answer = with(&gateway, 302, &[&format!("Location: {sent}")]);
        assert_eq!((answer.status, answer.all("location")), (302, vec![sent.as_str()]));
    }
}

#[test]
fn what_is_not_for_the_caller_is_dropped_from_answers() {
    let (_mx, gateway) = started();
    let answer = with(
        &gateway,
        200,
        &[
            "Set-Cookie: a=evil",
            "Set-Cookie: b=evil; HttpOnly",
            "Set-Cookie2: evil",
            "Access-Control-Allow-Origin: *",
            "Access-Control-Allow-Credentials: true",
            "Access-Control-Expose-Headers: evil",
            "Alt-Svc: h3=\":443\"",
            "Clear-Site-Data: \"*\"",
            "Refresh: 0; url=https://evil/",
            "Keep-Alive: evil",
            "Proxy-Authenticate: evil",
            "Proxy-Authentication-Info: evil",
            "Upgrade: evil",
            "X-Named: evil",
            "Connection: x-named",
            "X-Mxgate-Request-Id: evil",
            "X-MXGATE-Anything: evil",
            "X-Kept: kept",
            "ETag: \"kept\"",
        ],
    );
    assert_eq!(answer.status, 200);
    let all = format!("{:?}", answer.headers);
    assert!(!all.contains("evil"), "{all}");
    for (name, _) in &answer.headers {
        assert!(
            !name.starts_with("access-control-") && name != "alt-svc" && name != "clear-site-data",
            "{name}"
        );
    }
    assert_eq!((answer.all("x-kept"), answer.all("etag")), (vec!["kept"], vec!["\"kept\""]));
    assert_eq!(answer.all("x-mxgate-request-id").len(), 1);
}

#[test]
fn answers_are_not_stored_unless_mx_says_how() {
    let (_mx, gateway) = started();
    assert_eq!(with(&gateway, 200, &[]).all("cache-control"), ["no-store"]);
    assert_eq!(with(&gateway, 200, &["Cache-Control: max-age=7"]).all("cache-control"), ["max-age=7"]);
    assert_eq!(gateway.get("/no/such", "").all("cache-control"), ["no-store"]);
}

#[test]
fn every_answer_has_a_request_id_of_its_own() {
    let (_mx, gateway) = started();
    let mut ids = HashSet::new();
    let mut client = gateway.connect();
    let mut note = |answer: &Answer| {
        let id = answer.all("x-mxgate-request-id");
        assert!(id.len() == 1 && id[0].len() == 32, "{id:?}");
        assert!(ids.insert(id[0].to_owned()), "{id:?} twice");
    };
    for _ in 0..5 {
        client.request("GET /users HTTP/1.1\nX-Mxgate-Request-Id: 00000000000000000000000000000000", "");
        note(&client.answer());
        client.request("GET /no/such HTTP/1.1", "");
        note(&client.answer());
        note(&gateway.get("/users", "x-stand-in-status: 503"));
        note(&gateway.get("/users", "x-stand-in-garbage: true"));
        note(&gateway.get("/%zz", ""));
        note(&gateway.send("TRACE /users HTTP/1.1", ""));
        note(&gateway.send("GET /users HTTP/1.1\nBad Name: x", ""));
    }
}
