//! `/livez`, `/readyz` and `/metrics` tell what happened.

use crate::harness::{Setup, mx, until};

#[test]
fn requests_refusals_failures_and_times_are_counted() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    assert_eq!(gateway.metric("mxgate_requests_total"), 0.0);
    assert_eq!(gateway.get("/users", "").status, 200);
    assert_eq!(gateway.get("/users", "x-stand-in-status: 500").status, 500);
    assert_eq!(gateway.get("/no/such/thing", "").status, 404);
    assert_eq!(gateway.get("/users", "Origin: https://evil.example").status, 403);
    assert_eq!(gateway.get("/users", "x-stand-in-garbage: true").status, 502);

    // A record and a count are made when the answer is over, which the caller sees a moment earlier.
    until("five requests", || gateway.metric("mxgate_requests_total") == 5.0);
    for (sample, count) in [
        ("mxgate_requests_total{operation=\"listUsers\",status=\"2xx\"}", 1.0),
        ("mxgate_requests_total{operation=\"listUsers\",status=\"5xx\"}", 2.0),
        ("mxgate_requests_total{operation=\"none\",status=\"4xx\"}", 2.0),
        ("mxgate_refusals_total{code=\"unknown_operation\"}", 1.0),
        ("mxgate_refusals_total{code=\"browser_not_allowed\"}", 1.0),
        ("mxgate_refusals_total", 2.0),
        ("mxgate_failures_total{code=\"upstream_malformed\"}", 1.0),
        ("mxgate_failures_total", 1.0),
        ("mxgate_request_gateway_time_seconds_count", 5.0),
        ("mxgate_request_upstream_time_seconds_count", 3.0),
        ("mxgate_caller_connections_accepted_total", 5.0),
        ("mxgate_config_reloads_total{result=\"success\"}", 1.0),
        ("mxgate_config_last_reload_successful", 1.0),
        ("mxgate_config_generation", 1.0),
        ("mxgate_build_info{version=", 1.0),
    ] {
        assert_eq!(gateway.metric(sample), count, "{sample}\n{}", gateway.page("/metrics").text());
    }
    assert!(gateway.metric("mxgate_request_upstream_time_seconds_sum") > 0.0);
    assert!(gateway.metric("mxgate_request_gateway_time_seconds_sum") > 0.0);
    assert!(gateway.metric("mxgate_sent_bytes_total") > 0.0);
    assert!(gateway.metric("mxgate_worker_heartbeat_age_seconds") < 20.0);
    assert!(gateway.page("/metrics").text().contains("mxgate_worker_stall_seconds_total "));
}

#[test]
fn no_label_holds_what_a_caller_chose() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    gateway.get("/users/USR-marker-of-a-user", "");
    gateway.get("/marker-of-a-path", "x-marker: marker-of-a-header");
    until("two requests", || gateway.metric("mxgate_requests_total") == 2.0);
    let text = gateway.page("/metrics").text();
    assert!(!text.contains("marker") && text.contains("operation=\"readUser\""), "{text}");
}

#[test]
fn connections_are_counted_while_they_are_open() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let mut one = gateway.connect();
    let two = gateway.connect();
    until("two open", || gateway.metric("mxgate_caller_connections_open") == 2.0);
    drop(two);
    until("one open", || gateway.metric("mxgate_caller_connections_open") == 1.0);
    for _ in 0..3 {
        one.request("GET /users HTTP/1.1", "");
        assert_eq!(one.answer().status, 200);
    }
    assert_eq!(gateway.metric("mxgate_upstream_connections_opened_total"), 1.0);
    assert_eq!(gateway.metric("mxgate_upstream_connections_open "), 1.0);
    assert_eq!(gateway.metric("mxgate_upstream_connections_reused_total"), 2.0);
}

#[test]
fn connections_beyond_the_cap_are_counted_as_refused() {
    let mx = mx();
    let gateway = Setup::new(&mx).table("[limits]\nconnections_per_address_max = 1").start();
    let mut one = gateway.connect();
    one.request("GET /users HTTP/1.1", "");
    assert_eq!(one.answer().status, 200);
    assert_eq!(gateway.metric("mxgate_caller_connections_refused_total"), 0.0);
    assert_eq!(gateway.connect().rest(), b"");
    until("one refused", || gateway.metric("mxgate_caller_connections_refused_total") == 1.0);
}

#[test]
fn mx_down_is_no_reason_to_be_not_ready() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    assert_eq!((gateway.page("/livez").status, gateway.page("/readyz").status), (200, 200));
    drop(mx);
    let answer = gateway.get("/users", "");
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_unreachable"));
    assert_eq!((gateway.page("/livez").status, gateway.page("/readyz").status), (200, 200));
}

#[test]
fn other_pages_and_methods_are_refused() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    for path in ["/", "/users", "/reload", "/metrics/"] {
        assert_eq!(gateway.page(path).status, 404, "{path}");
    }
    let mut client = crate::harness::Client::connect(gateway.health.unwrap());
    client.request("POST /metrics HTTP/1.1", "");
    assert_eq!(client.answer().status, 405);
}
