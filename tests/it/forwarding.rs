//! A request goes through and its answer comes back.

use crate::harness::{API_KEY, CLIENT_ID, Setup, mx};

#[test]
fn a_caller_without_a_credential_gets_an_answer_that_needed_one() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let answer = gateway.get("/users", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.json()["users"].is_array());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-mxgate-request-id").map(str::len), Some(32));
    let received = mx.requests();
    let sent = received.last().expect("the request");
    let pair =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{CLIENT_ID}:{API_KEY}"));
    assert_eq!(sent.headers["authorization"], format!("Basic {pair}"));
}

#[test]
fn a_path_that_mx_does_not_have_goes_nowhere() {
    let mx = mx();
    let gateway = Setup::new(&mx).start();
    let answer = gateway.get("/no/such/thing", "");
    assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_operation"));
    assert_eq!(mx.received(), 0);
}
