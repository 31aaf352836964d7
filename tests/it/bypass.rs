//! Nobody gets past a grant: requests of every odd shape, judged by what reaches the upstream.
//!
//! The stand-in keeps what it received, byte for byte. A judge that shares no code with the gateway then reads each path
//! as lax servers do (decoded once and twice, slashes merged, in small letters, cut at `;`, `?`, `#`, without a format)
//! and each method as a framework does that can be told another one. Whatever it would have run that way must have
//! been granted.

use std::{collections::BTreeSet, fmt::Write as _};

use mxgate::stand_in::journal::Request;
use percent_encoding::percent_decode_str;

use crate::{
    harness::{Client, Setup, mx_with},
    judge::{Dice, ROWS, Row, run_by},
};

const GRANT: [&str; 9] = [
    "listUsers",
    "readUser",
    "updateUser",
    "listMembers",
    "readInstitution",
    "updateGoal",
    "readStatementByMember",
    "createUser",
    "path:GET /new/{id}",
];

const SEED: u64 = 0x0b5e_55ed;
const CASES: usize = 5000;

#[test]
fn no_spelling_of_a_request_gets_past_a_grant() {
    let mx = mx_with(|options| options.requests_kept = CASES);
    let mut setup = Setup::new(&mx);
    setup.callers = Some(format!(
        "[[caller]]\nname = \"one\"\nnetworks = [\"127.0.0.0/8\"]\ngrant = {{ test = {GRANT:?} }}\n"
    ));
    let gateway = setup.start();
    let mut dice = Dice(SEED);
    let mut client = gateway.connect();
    for case in 0..CASES {
        let (text, is_head) = request(&mut dice, case);
        client.raw(text.as_bytes());
        let answer = if is_head { client.answer_to_head() } else { client.answer() };
        // Only what the gateway sees as malformed, and a body that nobody reads, end a connection.
        if answer.header("connection") == Some("close") {
            client = gateway.connect();
        }
    }
    let seen = mx.requests();
    for request in &seen {
        let run = readings(request);
        let refused: Vec<_> = run.iter().filter(|row| !row.is_allowed(&GRANT)).map(|row| row.id).collect();
        let head = String::from_utf8_lossy(&request.head).into_owned();
        assert!(refused.is_empty(), "seed {SEED:#x}: this may run {refused:?}:\n{head}");
        assert!(
            run.iter().any(|row| row.is_allowed(&GRANT)) || request.target.starts_with("/new/"),
            "{head}"
        );
    }
    // A gateway that refused everything would pass, too.
    let odd = seen.iter().filter(|request| request.target.contains('%')).count();
    let kinds: BTreeSet<_> = seen.iter().filter_map(|request| request.operation).collect();
    assert!(seen.len() > 300 && odd > 30 && kinds.len() >= 7, "{} reached, {odd} odd, {kinds:?}", seen.len());
}

/// One request as it goes out, and whether it is a `HEAD`.
fn request(dice: &mut Dice, case: usize) -> (String, bool) {
    let granted: Vec<&Row> = ROWS.iter().filter(|row| row.is_allowed(&GRANT)).collect();
    // Half of them begin with something that is granted, and try to become something that is not.
    let row = if dice.below(2) == 0 { *dice.one_of(&granted) } else { dice.one_of(&ROWS) };
    let mut path = row.path();
    for _ in 0..dice.below(4) {
        path = changed(dice, &path);
    }
    let method = match dice.below(8) {
        0 => *dice.one_of(&["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
        1 if row.method == "GET" => "HEAD",
        _ => row.method,
    };
    let query = match dice.below(4) {
        0 => *dice.one_of(&[
            "?_method=DELETE",
            "?a=1&_METHOD=PUT",
            "?page=1",
            "?x;_method=DELETE",
            "?%5Fmethod=DELETE",
        ]),
        _ => "",
    };
    let mut text = format!("{method} {path}{query} HTTP/1.1\r\nHost: localhost\r\nx-case: {case}\r\n");
    for _ in 0..dice.below(3) {
        let name = dice.one_of(&OVERRIDES);
        let value = *dice.one_of(&["DELETE", "PUT", "/clients", "/users/U/accounts", "GET"]);
        _ = write!(text, "{name}: {value}\r\n");
    }
    if matches!(method, "POST" | "PUT") && dice.below(2) == 0 {
        let kind = *dice.one_of(&[
            "application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "",
        ]);
        if !kind.is_empty() {
            _ = write!(text, "Content-Type: {kind}\r\n");
        }
        _ = write!(text, "Content-Length: 14\r\n\r\n_method=DELETE");
    } else {
        text.push_str("\r\n");
    }
    (text, method == "HEAD")
}

const OVERRIDES: [&str; 12] = [
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "X_HTTP_METHOD_OVERRIDE",
    "Method-Override",
    "X-Method",
    "_method",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Original-URI",
    "X-Forwarded-Path",
    "X-Forwarded-Prefix",
];

/// The path with one thing in it written differently.
fn changed(dice: &mut Dice, path: &str) -> String {
    let mut segments: Vec<String> = path.split('/').map(str::to_owned).collect();
    let at = 1 + dice.below(segments.len() - 1);
    let words: Vec<&str> =
        ROWS.iter().flat_map(|row| row.template.split('/')).filter(|word| is_word(word)).collect();
    match dice.below(13) {
        0 => segments.insert(at, String::new()),
        1 => segments.push(String::new()),
        2 => segments.insert(at, (*dice.one_of(&[".", "..", "%2e%2e", "%2E", "..;", ".%2e"])).to_owned()),
        3 => segments[at] = segments[at].to_uppercase(),
        4 => segments[at] = capitalised(&segments[at]),
        5 => {
            let ends = [".json", ".pdf", ".PDF", ";x", ";x=/a", "%20", "%00", "%3Fx", "%23", "~"];
            segments[at].push_str(ends[dice.below(ends.len())]);
        }
        // What is one segment to us may be two to another.
        6 | 7 => {
            let (slash, word) =
                (*dice.one_of(&["%2F", "%2f", "%252F", "%5C", "%2F%2F", "\\"]), *dice.one_of(&words));
            _ = write!(segments[at], "{slash}{word}");
        }
        8 => segments[at] = disguised(dice, &words),
        9 => segments[at] = encoded(dice, &segments[at]),
        10 => segments.truncate(at.max(2)),
        11 => segments.push(disguised(dice, &words)),
        _ => {
            segments[at] =
                format!("{}%2F{}", segments[at], *dice.one_of(&["..", ".", "", "accounts", "Members"]))
        }
    }
    segments.join("/")
}

/// One of MX's words, as it is or as another one that some servers take for it.
fn disguised(dice: &mut Dice, words: &[&str]) -> String {
    // Those that stand where others have an id are the ones to look at.
    const BESIDE: [&str; 6] = ["favorites", "default", "reposition", "current", "generate", "merge"];
    let word = if dice.below(2) == 0 { *dice.one_of(&BESIDE) } else { *dice.one_of(words) };
    match dice.below(5) {
        0 => word.to_uppercase(),
        1 => capitalised(word),
        2 => format!("{word}{}", dice.one_of(&[".json", ";x", "%20", "%3F", "%3Bx", ".JSON"])),
        _ => word.to_owned(),
    }
}

fn is_word(segment: &str) -> bool {
    !segment.is_empty() && !segment.contains('{')
}

fn capitalised(text: &str) -> String {
    text.get(..1).unwrap_or_default().to_uppercase() + text.get(1..).unwrap_or_default()
}

/// One of its characters percent-encoded, once or twice.
fn encoded(dice: &mut Dice, text: &str) -> String {
    let at = dice.below(text.len().max(1));
    let Some(byte) = text.as_bytes().get(at).filter(|byte| byte.is_ascii()) else { return "%2F".into() };
    let percent = *dice.one_of(&["%", "%25"]);
    format!("{}{percent}{byte:02X}{}", &text[..at], &text[at + 1..])
}

/// Every operation that some server could take the request for.
fn readings(request: &Request) -> Vec<&'static Row> {
    let mut paths = BTreeSet::from([request.target.split('?').next().unwrap_or_default().to_owned()]);
    // To the end: one way of reading after another, in any order.
    loop {
        let more: BTreeSet<String> = paths.iter().flat_map(|path| read_otherwise(path)).collect();
        let known = paths.len();
        paths.extend(more);
        if paths.len() == known {
            break;
        }
    }
    let methods = methods(request);
    let run = paths.iter().flat_map(|path| methods.iter().filter_map(|method| run_by(method, path)));
    let ids: BTreeSet<&str> = run.map(|row| row.id).collect();
    ROWS.iter().filter(|row| ids.contains(row.id)).collect()
}

fn read_otherwise(path: &str) -> Vec<String> {
    let decoded = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let merged = format!("/{}", path.split('/').filter(|one| !one.is_empty()).collect::<Vec<_>>().join("/"));
    let cut = path.split(['?', '#']).next().unwrap_or_default().to_owned();
    let plain =
        path.split('/').map(|one| one.split(';').next().unwrap_or_default()).collect::<Vec<_>>().join("/");
    let formats =
        [".json", ".xml", ".csv"].iter().filter_map(|format| path.strip_suffix(format)).map(str::to_owned);
    let parent = resolved(path);
    [decoded, merged, cut, plain, path.to_lowercase(), path.trim_end().to_owned(), parent]
        .into_iter()
        .chain(formats)
        .collect()
}

/// Without dot segments, as RFC 3986, 5.2.4 has it.
fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

/// The method, and every other one that something in the request names where a framework would look.
fn methods(request: &Request) -> Vec<String> {
    let mut methods = vec![request.method.as_str().to_owned()];
    let named = |name: &str| name.to_lowercase().replace('_', "-").contains("method");
    let fields = request.headers.iter().filter(|(name, _)| named(name.as_str()));
    methods.extend(fields.filter_map(|(_, value)| Some(value.to_str().ok()?.to_uppercase())));
    let query = request.target.split_once('?').map_or("", |(_, query)| query);
    let typed = request.headers.get("content-type").map_or("", |kind| kind.to_str().unwrap_or("multipart/"));
    let is_form = typed.is_empty() || typed.contains("form") || typed.contains("multipart");
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let parameters = [query, if is_form { &body } else { "" }];
    for parameter in parameters.iter().flat_map(|all| all.split(['&', ';'])) {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        if named(&percent_decode_str(name).decode_utf8_lossy()) {
            methods.push(value.to_uppercase());
        }
    }
    methods
}

/// The judge must be able to say no.
#[test]
fn the_judge_sees_what_it_has_to() {
    let mx = mx_with(|options| options.plain_address = Some(([127, 0, 0, 1], 0).into()));
    let mut client = Client::connect(mx.plain_address().expect("a plain listener"));
    for (head, expected) in [
        ("GET /users/U", "readUser"),
        ("HEAD /users/U", "readUser"),
        ("GET /users/U%2Faccounts", "listUserAccounts"),
        ("GET /users/U%252Faccounts", "listUserAccounts"),
        ("GET //users//U/accounts", "listUserAccounts"),
        ("GET /users/U/ACCOUNTS", "listUserAccounts"),
        ("GET /users/U/members/..%2Faccounts", "listUserAccounts"),
        ("GET /users/U/accounts/", "listUserAccounts"),
        ("GET /users/U/accounts.json", "listUserAccounts"),
        ("GET /users/U%2Faccounts%3Fx", "listUserAccounts"),
        ("GET /institutions/Favorites", "listFavoriteInstitutions"),
        ("GET /institutions/favorites;x", "listFavoriteInstitutions"),
        ("POST /users/U?_method=DELETE", "deleteUser"),
        ("POST /users/U?%5Fmethod=delete", "deleteUser"),
        ("POST /users/U HTTP/1.1\nX-HTTP-Method-Override: DELETE", "deleteUser"),
    ] {
        let head = if head.contains(" HTTP/") { head.to_owned() } else { format!("{head} HTTP/1.1") };
        client.request(&head, "");
        let _ = if head.starts_with("HEAD") { client.answer_to_head() } else { client.answer() };
        let seen = mx.requests().pop().expect("it was received");
        let run: Vec<_> = readings(&seen).iter().map(|row| row.id).collect();
        assert!(run.contains(&expected), "{head}: {run:?}");
    }
    client
        .request("POST /users/U HTTP/1.1\nContent-Type: application/x-www-form-urlencoded", "_method=DELETE");
    client.answer();
    let seen = mx.requests().pop().expect("it was received");
    assert!(readings(&seen).iter().any(|row| row.id == "deleteUser"));
}
