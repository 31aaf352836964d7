//! A web page in somebody's browser does not drive the gateway.

use crate::harness::{Answer, Client, Gateway, Setup, mx};

fn ask(gateway: &Gateway, fields: &str) -> Answer {
    let mut client = gateway.connect();
    client.raw(format!("GET /users HTTP/1.1\r\n{fields}\r\n").as_bytes());
    client.answer()
}

#[test]
fn a_loopback_listener_answers_to_its_own_names_only() {
    let mx = mx();
    let gateway = Setup::new(&mx).in_listener("hosts = [\"mx.internal\"]").start();
    let port = gateway.addresses[0].port();
    for host in [
        "localhost",
        "LOCALHOST",
        &format!("localhost:{port}"),
        "127.0.0.1",
        &format!("127.0.0.1:{port}"),
        "127.255.255.254",
        "[::1]",
        &format!("[::1]:{port}"),
        "[0:0:0:0:0:0:0:1]",
        "mx.internal",
        "MX.Internal:8080",
    ] {
        let answer = ask(&gateway, &format!("Host: {host}\r\n"));
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
    }
    let served = mx.received();
    assert_eq!(served, 11);
    for host in [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost-evil.example",
        "localhost.",
        "127.0.0.1.",
        "mx.internal.",
        "mx.internal.evil.example",
        "a.mx.internal",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0.0.0.0",
        "[::]",
        "[::2]",
        "10.0.0.1",
        "api.mx.com",
    ] {
        let answer = ask(&gateway, &format!("Host: {host}\r\n"));
        assert_eq!((answer.status, answer.code().as_str()), (421, "misdirected_request"), "{host}");
    }
    let mut client = gateway.connect();
    client.raw(b"GET http://evil.example/users HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(client.answer().status, 421);
    assert_eq!(mx.received(), served);
    assert_eq!(gateway.metric("mxgate_refusals_total{code=\"misdirected_request\"}"), 18.0);

    // Others are reached under names that only the operator's network knows.
    let mut setup = Setup::new(&mx);
    setup.listeners = setup.listeners.replace("127.0.0.1", "0.0.0.0");
    let gateway = setup.start();
    let mut client = Client::connect(([127, 0, 0, 1], gateway.addresses[0].port()).into());
    client.raw(b"GET /users HTTP/1.1\r\nHost: mxgate.prod.svc.cluster.local\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_request_that_a_page_made_is_refused() {
    let mx = mx();
    let gateway = Setup::new(&mx).in_listener("origins = [\"https://app.example\"]").start();
    let with = |fields: &str| ask(&gateway, &format!("Host: localhost\r\n{fields}"));
    for fields in [
        "Origin: https://evil.example\r\n",
        "Origin: http://localhost\r\n",
        "Origin: null\r\n",
        "Origin:\r\n",
        "Origin: https://app.example.evil.example\r\n",
        "Origin: http://app.example\r\n",
        "Origin: https://app.example:8443\r\n",
        "Origin: https://app.example\r\nOrigin: https://evil.example\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: anything\r\n",
        "Origin: https://evil.example\r\nSec-Fetch-Site: none\r\n",
    ] {
        let answer = with(fields);
        assert_eq!((answer.status, answer.code().as_str()), (403, "browser_not_allowed"), "{fields}");
        assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")));
    }
    assert_eq!(mx.received(), 0);
    for fields in [
        "",
        "Sec-Fetch-Site: none\r\n",
        "Origin: https://app.example\r\n",
        "Origin: HTTPS://APP.example\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        assert_eq!(with(fields).status, 200, "{fields}");
    }
    // It does not excuse the wrong name.
    let rebound = ask(&gateway, "Host: evil.example\r\nOrigin: https://app.example\r\n");
    assert_eq!(rebound.status, 421);
    assert_eq!(mx.received(), 4);
    assert!(
        mx.requests()
            .iter()
            .all(|request| request.oddities.is_empty() && !request.headers.contains_key("sec-fetch-site"))
    );
}

#[test]
fn a_preflight_is_refused_and_leave_for_pages_is_not_passed_on() {
    let mx = mx();
    let gateway = Setup::new(&mx).in_listener("origins = [\"https://app.example\"]").start();
    let preflight = |origin: &str| {
        let mut client = gateway.connect();
        client.raw(
            format!(
                "OPTIONS /users HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\
                 Access-Control-Request-Method: POST\r\n\r\n"
            )
            .as_bytes(),
        );
        client.answer()
    };
    assert_eq!(preflight("https://evil.example").code(), "browser_not_allowed");
    let answer = preflight("https://app.example");
    assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"));
    assert!(answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")));
    assert_eq!(mx.received(), 0);

    let mx_allows = "x-stand-in-header: Access-Control-Allow-Origin: *\r\n\
                     x-stand-in-header: Access-Control-Allow-Credentials: true\r\n\
                     x-stand-in-header: X-Kept: yes\r\n";
    let answer = ask(&gateway, &format!("Host: localhost\r\nOrigin: https://app.example\r\n{mx_allows}"));
    assert_eq!((answer.status, answer.header("x-kept")), (200, Some("yes")));
    assert!(
        answer.headers.iter().all(|(name, _)| !name.starts_with("access-control-")),
        "{:?}",
        answer.headers
    );
}

#[test]
fn the_health_listener_is_no_way_in_either() {
    let mx = mx();
    let mut setup = Setup::new(&mx);
    setup.tables = setup.tables.replace("[health]\n", "[health]\nhosts = [\"probe.internal\"]\n");
    let gateway = setup.start();
    let status = |path: &str, fields: &str| {
        let mut client = Client::connect(gateway.health.unwrap());
        client.raw(format!("GET {path} HTTP/1.1\r\n{fields}\r\n").as_bytes());
        client.answer().status
    };
    for path in ["/livez", "/readyz", "/metrics"] {
        for fields in [
            "Host: localhost\r\n",
            "Host: 127.0.0.1:9090\r\n",
            "Host: Probe.internal\r\n",
            "Host: localhost\r\nSec-Fetch-Site: none\r\n",
        ] {
            assert_eq!(status(path, fields), 200, "{path} {fields}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost."] {
            assert_eq!(status(path, &format!("Host: {host}\r\n")), 421, "{path} {host}");
        }
        for fields in [
            "Origin: http://localhost",
            "Origin: null",
            "Sec-Fetch-Site: same-origin",
            "Sec-Fetch-Site: cross-site",
        ] {
            assert_eq!(status(path, &format!("Host: localhost\r\n{fields}\r\n")), 403, "{path} {fields}");
        }
    }
}
