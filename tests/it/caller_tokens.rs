//! Callers that are known by a token which the gateway has issued.

use std::{fs, process::Output};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::harness::{Answer, EVERYTHING, Gateway, Setup, mx, mxgate, until};

/// Two callers known by tokens, and one by its network alone.
pub fn setup(mx: &mxgate::stand_in::Running) -> Setup {
    let setup = Setup::new(mx);
    let tokens = setup.folder().join("tokens.json");
    let mut setup = setup.table(&format!("[tokens]\nfile = \"{}\"", tokens.display()));
    setup.callers = Some(format!(
        "[[caller]]\nname = \"ledger\"\ntoken = true\ngrant = {{ test = [{EVERYTHING}] }}\n\
         [[caller]]\nname = \"batch\"\ntoken = true\nnetworks = [\"127.0.0.5/32\"]\ngrant = {{ test = [\"read\"] }}\n\
         [[caller]]\nname = \"neighbour\"\nnetworks = [\"127.0.0.1/32\"]\ngrant = {{ test = [\"read\"] }}\n"
    ));
    setup
}

/// Runs `mxgate caller token` with the configuration of `setup`.
pub fn command(setup: &Setup, arguments: &[&str]) -> Output {
    let path = setup.file("mxgate.toml", &setup.configuration());
    let config = ["--config", path.to_str().unwrap()];
    mxgate(&[&["caller", "token"], arguments, &config].concat(), &[])
}

/// A new token.
pub fn issue(setup: &Setup, arguments: &[&str]) -> String {
    let output = command(setup, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let token = text.strip_suffix('\n').unwrap();
    assert!(token.len() == 65 && token.starts_with("mxg_") && !token.contains('\n'), "{token}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains(token), "it is shown once");
    let revoke = format!(
        "`mxgate caller token revoke {} --config {}`",
        id(token),
        setup.folder().join("mxgate.toml").display()
    );
    assert!(said.contains(&revoke), "a whole command: {said}");
    token.to_owned()
}

fn id(token: &str) -> &str {
    token.split('_').nth(1).unwrap()
}

fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Who the request was from, as its record says, or why it was refused.
fn who(gateway: &Gateway, answer: &Answer) -> Result<String, String> {
    let id = answer.header("x-mxgate-request-id").unwrap();
    let record = gateway.record(|record| record["request_id"] == id);
    match answer.status {
        200 => Ok(record["caller"].as_str().unwrap().to_owned()),
        status => {
            assert_eq!((status, record["caller"].is_null()), (403, true));
            assert_eq!(answer.header("connection"), Some("close"));
            Err(answer.code())
        }
    }
}

#[test]
fn a_token_is_taken_from_its_field_from_bearer_and_from_the_password_of_basic() {
    let mx = mx();
    let setup = setup(&mx);
    let token = issue(&setup, &["ledger"]);
    let gateway = setup.start();
    let fields = [
        format!("X-Mxgate-Token: {token}"),
        format!("Authorization: Bearer {token}"),
        format!("authorization: bearer {token}"),
        basic("anybody", &token),
        basic("", &token),
        basic("anybody", &token).replace('=', ""),
        // What is no token may stand beside it, and stays here too.
        format!("X-Mxgate-Token: {token}\nAuthorization: Bearer of-something-else"),
    ];
    for field in &fields {
        let answer = gateway.get("/users", field);
        assert_eq!(who(&gateway, &answer).as_deref(), Ok("ledger"), "{field}");
    }
    assert_eq!(who(&gateway, &gateway.get("/users", "")).as_deref(), Ok("neighbour"), "without one");
    assert_eq!(mx.received(), fields.len() as u64 + 1);
    for request in mx.requests() {
        assert!(!String::from_utf8_lossy(&request.head).contains("mxg_"));
        assert_eq!(request.oddities, []);
    }
    let written = gateway.stdout.text() + &gateway.stderr.text() + &gateway.page("/metrics").text();
    assert!(!written.contains("mxg_") && !written.contains(&token[17..]));
}

#[test]
fn a_token_that_is_not_valid_is_refused_and_never_falls_back_to_the_network() {
    let mx = mx();
    let setup = setup(&mx);
    let (token, other) = (issue(&setup, &["ledger"]), issue(&setup, &["ledger"]));
    let ended = issue(&setup, &["ledger", "--expires-in", "1s"]);
    let revoked = issue(&setup, &["ledger"]);
    assert!(command(&setup, &["revoke", id(&revoked)]).status.success());
    let elsewhere = issue(&setup, &["batch"]);
    let mixed = format!("{}{}", &token[..17], &other[17..]);
    let unknown = format!("mxg_000000000000_{}", &token[17..]);
    let gateway = setup.start();
    until("it has expired", || gateway.get("/users", &format!("X-Mxgate-Token: {ended}")).status == 403);
    let before = mx.received();
    let field = |token: &str| format!("X-Mxgate-Token: {token}");
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let reason =
        |reason: &str| gateway.metric(&format!("mxgate_callers_not_admitted_total{{reason=\"{reason}\"}}"));
    let cases = [
        ("token_unknown", vec![field(&mixed), bearer(&unknown), basic("u", &unknown)]),
        ("token_expired", vec![field(&ended), bearer(&ended), basic("u", &ended)]),
        ("token_revoked", vec![field(&revoked), bearer(&revoked), basic("u", &revoked)]),
        (
            "token_malformed",
            vec![
                field("mxg_"),
                field("something-else"),
                field(""),
                field(&token.to_uppercase()),
                field(&format!("{token}, {token}")),
                bearer(&format!("{token}0")),
                bearer(&format!("x{token}")),
                format!("Authorization: {token}"),
                format!("Authorization: Token {token}"),
                basic(&token, ""),
                basic("u", &format!("{token} ")),
                basic(&"u".repeat(600), &format!("{token}0")),
            ],
        ),
        (
            "token_twice",
            vec![
                format!("{}\n{}", field(&token), field(&token)),
                format!("{}\n{}", field(&token), field(&other)),
                format!("{}\n{}", field(&token), bearer(&token)),
                format!("{}\n{}", bearer(&other), basic("u", &token)),
            ],
        ),
        // Valid, from where its caller does not call.
        ("criterion", vec![field(&elsewhere)]),
    ];
    for (expected, fields) in &cases {
        let was = reason(expected);
        for field in fields {
            let answer = gateway.get("/users", field);
            assert_eq!(who(&gateway, &answer), Err("caller_not_allowed".into()), "{expected}: {field}");
            assert!(!answer.text().contains("token"), "nothing about why");
        }
        assert_eq!(reason(expected) - was, fields.len() as f64, "{expected}");
        gateway.stderr.wait_for(|line| line.contains("WARN") && line.contains(&format!("\"{expected}\"")));
    }
    let was = reason("token_exposed");
    let targets =
        [format!("/users/{token}"), format!("/users?x={unknown}"), format!("/users?x=a{}", &token[17..])];
    for target in &targets {
        let answer = gateway.get(target, &field(&token));
        assert_eq!(who(&gateway, &answer), Err("caller_not_allowed".into()), "{target}");
    }
    // Whoever shows no token as well: it is in the address for all to see.
    assert_eq!(gateway.get(&targets[0], "").status, 403);
    assert_eq!(reason("token_exposed") - was, 4.0);
    assert_eq!(mx.received(), before, "MX has seen nothing");
    assert_eq!(gateway.get("/users?x=mxg_1", &field(&token)).status, 200, "which is no token");
    let written = gateway.stdout.text() + &gateway.stderr.text();
    assert!(!written.contains("mxg_") && !written.contains(&token[17..]));
}

#[test]
fn a_running_gateway_takes_new_and_revoked_tokens_up_and_they_rotate() {
    let mx = mx();
    let gateway = setup(&mx).start();
    let get = |token: &str| gateway.get("/users", &format!("X-Mxgate-Token: {token}"));
    let one = issue(&gateway.setup, &["ledger"]);
    until("the first is known", || get(&one).status == 200);
    let two = issue(&gateway.setup, &["ledger", "--expires-in", "90d"]);
    until("the second is known", || get(&two).status == 200);
    assert_eq!(get(&one).status, 200, "beside the first");
    let output = command(&gateway.setup, &["revoke", id(&one)]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("token {} of ledger is revoked\n", id(&one)));
    until("the first is refused", || get(&one).status == 403);
    assert_eq!(get(&two).status, 200);
    // A caller that is no longer known by tokens has none.
    let mut setup = gateway.setup.callers.clone().unwrap();
    setup = setup.replacen("token = true", "networks = [\"127.0.0.9/32\"]", 1);
    gateway.setup.file(
        "mxgate.toml",
        &gateway.setup.configuration().replace(gateway.setup.callers.as_ref().unwrap(), &setup),
    );
    until("its token is unknown", || get(&two).status == 403);
}

#[test]
fn tokens_are_listed_without_themselves() {
    let mx = mx();
    let setup = setup(&mx);
    assert_eq!(String::from_utf8_lossy(&command(&setup, &["list"]).stdout), "none\n");
    let forever = issue(&setup, &["ledger"]);
    let soon = issue(&setup, &["batch", "--expires-in", "10d"]);
    let later = issue(&setup, &["batch", "--expires-in", "20d"]);
    let gone = issue(&setup, &["batch", "--expires-in", "10d"]);
    command(&setup, &["revoke", id(&gone)]);
    let list = |arguments: &[&str]| String::from_utf8(command(&setup, arguments).stdout).unwrap();
    let (all, expiring) = (list(&["list"]), list(&["list", "--expiring", "14d"]));
    for token in [&forever, &soon, &later, &gone] {
        assert!(all.contains(id(token)) && !all.contains(&token[17..]), "{all}");
        assert_eq!(expiring.contains(id(token)), token == &soon, "{expiring}");
    }
    let json: Value = serde_json::from_str(&list(&["list", "--json"])).unwrap();
    let states: Vec<_> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["id"].as_str().unwrap(), one["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states.len(), 4);
    assert!(states.contains(&(id(&gone), "revoked")) && states.contains(&(id(&soon), "valid")));
    let file = fs::read_to_string(setup.folder().join("tokens.json")).unwrap();
    assert!(!file.contains("mxg_") && !file.contains(&forever[17..]));
}

#[test]
fn a_token_is_made_only_for_a_caller_that_is_known_by_one() {
    let mx = mx();
    let setup = setup(&mx);
    for (arguments, code, said) in [
        (&["neighbour"][..], 1, "caller neighbour is not known by a token; write `token = true`"),
        (&["leger"], 1, "there is no such caller; known by tokens are: ledger, batch"),
        (&["ledger", "--expires-in", "0s"], 2, "1s to 100y"),
        (&["revoke", "000000000000"], 1, "there is no token 000000000000"),
        (&["revoke", "mxg_000000000000_9f3Kq7Zt20xLmW8b"], 2, "12 digits"),
        (&["ledger", "list"], 1, "take no caller's name"),
        (&[], 2, "NAME"),
    ] {
        let output = command(&setup, arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(said) && !text.contains("9f3Kq7Zt20xLmW8b"), "{text}");
        assert_eq!(output.stdout, b"");
    }
    assert!(!setup.folder().join("tokens.json").exists());
}

#[test]
fn a_field_of_the_configurations_choice_stays_here_and_the_usual_one_is_none_then() {
    let mx = mx();
    let mut setup = setup(&mx);
    setup.tables = setup.tables.replace("[tokens]", "[tokens]\nheader = \"X-App_Auth\"");
    let token = issue(&setup, &["ledger"]);
    let gateway = setup.start();
    let answer = gateway.get("/users", &format!("X-App_Auth: {token}"));
    assert_eq!(who(&gateway, &answer).as_deref(), Ok("ledger"));
    // Nor does a look-alike go on, or what is announced for behind the body.
    let answer = gateway
        .get("/users", "X-App-Auth: mxg_something\nX-Mxgate-Token: mxg_something\nTrailer: x-app-auth");
    assert_eq!(who(&gateway, &answer).as_deref(), Ok("neighbour"));
    assert_eq!(gateway.get("/users", "X-App_Auth: mxg_something").status, 403);
    assert_eq!(mx.received(), 2);
    for request in mx.requests() {
        let head = String::from_utf8_lossy(&request.head).to_lowercase();
        assert!(!head.contains("mxg_") && !head.contains("x-app"), "{head}");
    }
}

#[test]
fn a_token_in_authorization_is_never_passed_through() {
    let mx = mx();
    let setup = setup(&mx).bearer_operations("\"pass-through\"");
    let token = issue(&setup, &["ledger"]);
    let gateway = setup.start();
    const PATH: &str = "/account/account_numbers";
    let answer = gateway.get(PATH, &format!("Authorization: Bearer {token}"));
    assert_eq!((answer.status, answer.code().as_str()), (403, "no_credential"));
    assert_eq!(gateway.get(PATH, &basic("u", &token)).code(), "no_credential");
    assert_eq!(mx.received(), 0);
    // In its own field it leaves Authorization free.
    let both = format!("X-Mxgate-Token: {token}\nAuthorization: Bearer {}", crate::harness::TOKEN);
    assert_eq!(gateway.get(PATH, &both).status, 200);
    assert!(!String::from_utf8_lossy(&crate::harness::last(&mx).head).contains("mxg_"));
    let path = gateway.setup.folder().join("mxgate.toml");
    let check = mxgate(&["check", path.to_str().unwrap()], &[]);
    assert!(String::from_utf8_lossy(&check.stdout).contains("caller[0].token: has to come in the header"));
}

#[test]
fn a_damaged_file_keeps_what_was_loaded_and_says_so() {
    let mx = mx();
    let setup = setup(&mx);
    let token = issue(&setup, &["ledger"]);
    let gateway = setup.start();
    let get = || gateway.get("/users", &format!("X-Mxgate-Token: {token}")).status;
    assert_eq!(get(), 200);
    gateway.setup.file("tokens.json", "{}");
    gateway.stderr.wait_for(|line| line.contains("tokens.json is no file of tokens, or is damaged"));
    assert_eq!(get(), 200);
    // A file that is gone has no tokens.
    fs::remove_file(gateway.setup.folder().join("tokens.json")).unwrap();
    until("no token is known", || get() == 403);
}
