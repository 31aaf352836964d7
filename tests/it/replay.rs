//! What is sent twice, and what never is.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use mxgate::stand_in::switches::Switches;

use crate::{
    harness::{Gateway, Setup, mx, mx_with},
    raw_upstream::{RawUpstream, Wire, ok},
};

const ONE_WORKER: &str = "[process]\nworkers = 1";

/// Every method that changes something, and the two GETs that have effects.
const EFFECTS: [(&str, &str, &str); 6] = [
    ("createUser", "POST", "/users"),
    ("updateUser", "PUT", "/users/USR-1"),
    ("deleteUser", "DELETE", "/users/USR-1"),
    ("aggregateMember", "POST", "/users/USR-1/members/MBR-1/aggregate"),
    ("requestOAuthWindowURI", "GET", "/users/USR-1/members/MBR-1/oauth_window_uri"),
    ("readMemberCredentials", "GET", "/users/USR-1/members/MBR-1/credentials"),
];

fn ask(gateway: &Gateway, method: &str, path: &str) -> (u16, String) {
    let body = if matches!(method, "POST" | "PUT") { r#"{"user":{"id":"1"}}"# } else { "" };
    let answer = gateway.send(&format!("{method} {path} HTTP/1.1\nContent-Type: application/json"), body);
    (answer.status, answer.code())
}
