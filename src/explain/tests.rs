//! Explanations of the published example.

mod connections;

use super::*;
use crate::config::overrides::Overrides;

pub(super) fn explainer(text: &str) -> Explainer {
    Explainer::new(&Config::parse(text, "f", &Overrides::none()).unwrap().config).unwrap()
}

pub(super) const EXAMPLE: &str = include_str!("../../config/two-environments.toml");

/// `every-key.toml` without the files that it names besides secrets.
pub(super) fn every_key() -> String {
    let text = include_str!("../../config/every-key.toml");
    let (before, rest) = text.split_once("users_file = ").unwrap();
    let (_, after) = rest.split_once("[[caller]]").unwrap();
    format!("{before}\n[[caller]]{after}")
}

fn question(asker: Asker, line: &str) -> Question {
    let (method, target) = line.split_once(' ').unwrap();
    let (method, target) = (method.to_owned(), target.to_owned());
    Question {
        asker,
        listener: None,
        environment: None,
        tls_names: Vec::new(),
        method,
        target,
        headers: Vec::new(),
    }
}

fn from(address: &str, line: &str) -> Question {
    question(Asker::Address(address.parse().unwrap()), line)
}

fn explain(question: &Question) -> Explanation {
    explainer(EXAMPLE).explain(question).unwrap()
}

fn code(explanation: &Explanation) -> &str {
    explanation.refused.as_ref().map_or("allowed", |refused| refused.code)
}

fn advice(explanation: &Explanation) -> String {
    explanation.refused.as_ref().unwrap().changes.join("\n")
}

#[test]
fn an_allowed_request_shows_every_step_and_no_value_of_a_credential() {
    let mut asked = from("10.20.1.7", "GET /users/USR-1/members?page=2&api_key=c4n4ry");
    for (name, value) in
        [("Authorization", "Bearer c4n4ry"), ("X-Trace", "1"), ("Accept", "application/json")]
    {
        asked.headers.push((name.into(), value.into()));
    }
    let told = explain(&asked);
    assert_eq!((code(&told), told.operation), ("allowed", Some("listMembers")));
    assert_eq!((told.caller.as_deref(), &*told.environment), (Some("ledger"), "production"));
    assert_eq!(told.recognised, "10.20.1.7 is in its network 10.20.1.0/24");
    assert_eq!(told.rule.as_deref(), Some("\"read\" in grant.production of ledger allows it"));
    assert_eq!(told.credential.as_ref().unwrap().name, "vault:production/api_key");
    let sent = told.sent.as_ref().unwrap();
    assert_eq!(sent.target, "/users/USR-1/members?page=2");
    assert_eq!(sent.removed, ["authorization"]);
    assert_eq!(sent.kept, ["x-trace", "accept"]);
    assert!(sent.added.contains(&("authorization".into(), "***".into())), "{sent:?}");
    assert!(sent.added.contains(&("host".into(), "api.mx.com".into())), "{sent:?}");
    let shown = format!("{told} {}", told.to_json());
    // The request line is the operator's own; nothing else repeats what came with it.
    assert_eq!(shown.matches("c4n4ry").count(), 2, "{shown}");
    let placeholder = String::from_utf8(crate::vault::PLACEHOLDER.to_vec()).unwrap();
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    for hidden in [placeholder.clone(), STANDARD.encode(format!("CLIENT-ID:{placeholder}"))] {
        assert!(!shown.contains(&hidden), "{shown}");
    }
}

#[test]
fn a_credential_in_the_query_is_named_and_masked() {
    let text = EXAMPLE.replacen("kind = \"basic\"", "kind = \"query\"", 1);
    let told = explainer(&text).explain(&from("10.20.1.7", "GET /users?page=2")).unwrap();
    let sent = told.sent.as_ref().unwrap();
    assert_eq!(sent.target, "/users?page=2");
    assert_eq!(sent.query, ["api_key", "client_id"]);
    let shown = told.to_string();
    assert!(shown.contains("with api_key=***&client_id=***"), "{shown}");
    assert!(!shown.contains("placeholder"), "{shown}");
}

#[test]
fn each_refusal_says_what_would_have_to_change() {
    for (from_, line, expected, advised) in [
        (
            "10.20.1.7",
            "POST /users/U/members",
            "operation_denied",
            "add \"createMember\", or \"carries-bank-login\"",
        ),
        ("10.20.1.7", "DELETE /users/U", "operation_denied", "add \"deleteUser\", or \"destructive\""),
        ("10.20.1.7", "POST /users", "operation_denied", "add \"createUser\", or \"tag:users\" or \"write\""),
        ("10.9.9.9", "GET /users", "caller_not_allowed", "add 10.9.9.9 to `allow`"),
        ("10.20.9.9", "GET /users", "caller_not_allowed", "the nearest is 10.20.2.0/24 of onboarding"),
        ("10.20.1.7", "GET /users/", "unknown_operation", "MX knows this path with single slashes"),
        ("10.20.1.7", "GET /Users", "unknown_operation", "in small letters: /users"),
        ("10.20.1.7", "GET /new/thing", "unknown_operation", "\"path:GET /new/thing\""),
        ("10.20.1.7", "DELETE /users", "method_not_allowed", "GET, HEAD, POST"),
        (
            "10.20.1.7",
            "GET /users/%41",
            "malformed_target",
            "an escape in the path is not in its one spelling",
        ),
        ("10.20.1.7", "GET users", "malformed_target", "request target"),
        ("10.20.1.7", "BREW /users", "method_not_supported", "the method is not supported"),
        ("10.20.1.7", "GET /users HTTP/1.1\r\nX: y\r\n\r\n", "malformed_request", ""),
    ] {
        let told = explain(&from(from_, line));
        assert_eq!(code(&told), expected, "{line}");
        assert!(advice(&told).contains(advised), "{line}: {}", advice(&told));
        assert!(told.sent.is_none() && told.credential.is_none());
    }
}

#[test]
fn an_exclusion_and_a_class_that_is_not_asked_for_are_told_apart() {
    let text = EXAMPLE.replacen("[\"read\", \"bank-data\"]", "[\"read\", \"-tag:users\"]", 1);
    let explainer = explainer(&text);
    let denied = |line| explainer.explain(&from("10.20.1.7", line)).unwrap();
    let excluded = denied("GET /users");
    assert!(
        advice(&excluded).contains("take \"-tag:users\" out of grant.production of ledger"),
        "{excluded}"
    );
    let unasked = denied("GET /users/U/members/M/account_owners");
    assert!(advice(&unasked).contains("\"read\" brings nothing of the class bank-data"), "{unasked}");
    assert!(advice(&unasked).starts_with("add \"listAccountOwnersByMember\", or \"bank-data\""), "{unasked}");
}

#[test]
fn an_environment_without_a_grant_is_named() {
    let asked = Question { environment: Some("sandbox".into()), ..from("10.20.2.7", "GET /users") };
    let told = explain(&asked);
    assert_eq!(code(&told), "operation_denied");
    assert!(advice(&told).contains("add grant.sandbox of onboarding, with \"listUsers\""), "{told}");
}

#[test]
fn the_listener_is_the_one_that_is_named_or_fits() {
    let explainer = explainer(EXAMPLE);
    let at = |listener: &str| {
        let asked = Question { listener: Some(listener.into()), ..from("10.20.1.7", "GET /users") };
        explainer.explain(&asked).map(|told| told.environment)
    };
    assert_eq!(at("127.0.0.1:8081").as_deref(), Ok("sandbox"));
    assert!(matches!(at("127.0.0.1:9999"), Err(Unanswerable::NoListener { .. })));
    let unix = question(Asker::Unix { uid: 1, gid: 1 }, "GET /users");
    assert!(matches!(explainer.explain(&unix), Err(Unanswerable::NoneFits(..))));
    let named = question(Asker::Caller("onboarding".into()), "GET /users");
    assert_eq!(explainer.explain(&named).unwrap().caller.as_deref(), Some("onboarding"));
    let nobody = question(Asker::Caller("nobody".into()), "GET /users");
    assert!(matches!(explainer.explain(&nobody), Err(Unanswerable::NoCaller(_))));
}

#[test]
fn a_presumed_caller_has_its_own_grant_and_nobody_elses() {
    let explainer = explainer(EXAMPLE);
    let told = |name: &str, line| {
        let told = explainer.explain(&question(Asker::Caller(name.into()), line)).unwrap();
        code(&told).to_owned()
    };
    assert_eq!(told("ledger", "GET /users/U/members/M/account_owners"), "allowed");
    assert_eq!(told("onboarding", "GET /users/U/members/M/account_owners"), "operation_denied");
    assert_eq!(told("onboarding", "POST /users"), "allowed");
    assert_eq!(told("ledger", "POST /users"), "operation_denied");
}

#[test]
fn a_user_on_a_unix_socket_is_recognised() {
    let explainer = explainer(&every_key());
    let told = |uid, gid| explainer.explain(&question(Asker::Unix { uid, gid }, "GET /users")).unwrap();
    let batch = told(1001, 1001);
    assert_eq!(
        (code(&batch), batch.caller.as_deref(), &*batch.environment),
        ("allowed", Some("batch"), "sandbox")
    );
    assert_eq!(batch.recognised, "user 1001 is in its unix_uids, group 1001 is in its unix_gids");
    assert_eq!(code(&told(1001, 7)), "caller_not_allowed");
    assert_eq!(code(&told(7, 1001)), "caller_not_allowed");
}

#[test]
fn a_trusted_proxy_names_who_counts() {
    let text = format!("trusted_proxies = [\"10.20.0.5/32\"]\n{EXAMPLE}");
    let explainer = explainer(&text);
    let mut asked = from("10.20.0.5", "GET /users");
    let none = explainer.explain(&asked).unwrap();
    assert_eq!(code(&none), "caller_not_allowed");
    assert!(advice(&none).contains("10.20.0.5 is a trusted proxy"), "{none}");
    asked.headers.push(("X-Forwarded-For".into(), "10.20.1.7".into()));
    let told = explainer.explain(&asked).unwrap();
    assert_eq!(told.caller.as_deref(), Some("ledger"));
    assert_eq!(
        told.recognised,
        "10.20.1.7, which the trusted proxy 10.20.0.5 names, is in its network 10.20.1.0/24"
    );
}

/// The documentation shows what is really printed; only the fingerprint needs a vault.
#[test]
fn the_documented_explanations_are_the_printed_ones() {
    let document = include_str!("../../docs/policy.md");
    let shown: Vec<&str> = document.split("```console\n$ mxgate explain ").skip(1).collect();
    assert_eq!(shown.len(), 2);
    for shown in shown {
        let shown = shown.split("\n```").next().unwrap();
        let (command, printed) = shown.split_once('\n').unwrap();
        let (arguments, target) = command.rsplit_once(' ').unwrap();
        let (arguments, method) = arguments.rsplit_once(' ').unwrap();
        let mut asked = from("10.20.1.7", &format!("{method} {target}"));
        assert!(arguments.contains("--config config/two-environments.toml --from 10.20.1.7"), "{arguments}");
        if let Some((_, header)) = arguments.split_once("-H '") {
            let (name, value) = header.trim_end_matches('\'').split_once(": ").unwrap();
            asked.headers.push((name.into(), value.into()));
        }
        assert_eq!(explain(&asked).to_string(), printed.replace(", fingerprint 8f434346", ""));
    }
}

/// Each configuration and table in the documentation of these commands is one.
#[test]
fn the_documented_examples_are_read() {
    let document = include_str!("../../docs/policy.md");
    let own = document.split_once("## Explain, test, replay").unwrap().1;
    let own = own.split("\n## ").take(2).collect::<String>();
    let blocks: Vec<&str> =
        own.split("```toml\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert_eq!(blocks.len(), 3);
    for block in blocks {
        if block.contains("[[case]]") {
            let outcomes = cases::Table::parse(block).unwrap().run(&explainer(EXAMPLE));
            assert!(outcomes.iter().all(|outcome| outcome.failure.is_none()), "{outcomes:?}");
            continue;
        }
        let soon = humantime::format_rfc3339_seconds(SystemTime::now() + std::time::Duration::from_secs(60));
        let block = block.replace("\"2026-12-01\" ", &format!("\"{soon}\" "));
        let networks = if block.contains("networks") { "" } else { "networks = [\"10.20.1.0/24\"]\n" };
        let rest = EXAMPLE.split_once("[[listener]]").unwrap().1;
        let text = format!("allow = [\"10.20.0.0/16\"]\n{block}{networks}[[listener]]{rest}");
        let loaded = Config::parse(&text, "f", &Overrides::none()).unwrap();
        assert_eq!(loaded.config.callers.len(), 1);
    }
}

#[test]
fn what_observe_mode_lets_through_is_told_apart() {
    let soon = humantime::format_rfc3339_seconds(SystemTime::now() + std::time::Duration::from_secs(3600));
    let text = EXAMPLE.replacen("[[caller]]", &format!("[[caller]]\nobserve_until = \"{soon}\""), 1);
    let explainer = explainer(&text);
    let told = |line| explainer.explain(&from("10.20.1.7", line)).unwrap();
    let observed = told("POST /users");
    assert_eq!((code(&observed), observed.operation), ("allowed", Some("createUser")));
    let would = observed.would_refuse.as_ref().unwrap();
    assert_eq!(would.refused.code, "operation_denied");
    assert!(
        observed.to_string().contains(&format!("allowed by observe mode alone, until {soon}")),
        "{observed}"
    );
    assert_eq!(observed.to_json()["would_refuse"]["code"], "operation_denied");
    assert!(told("GET /users").would_refuse.is_none());
    assert_eq!(code(&told("DELETE /users/U")), "operation_denied");
    let table = "[[case]]\nname = \"n\"\nfrom = \"10.20.1.7\"\nrequest = \"POST /users\"\nexpect = ";
    for (expect, fails) in [("\"operation_denied\"", false), ("\"allowed\"", true)] {
        let outcomes = cases::Table::parse(&format!("{table}{expect}")).unwrap().run(&explainer);
        assert_eq!(outcomes[0].failure.is_some(), fails, "{outcomes:?}");
    }
}

#[test]
fn the_limits_that_count_are_shown() {
    let caller = "limits = { requests_per_second = 50, in_flight_max = 20 }\n";
    let budget = "budget = { get = { in_flight_max = 200 }, other = { in_flight_max = 50 } }\n";
    let text = EXAMPLE.replacen("[[caller]]\n", &format!("[[caller]]\n{caller}"), 1);
    let text = text.replace("[environment.production]\n", &format!("[environment.production]\n{budget}"));
    let told = explainer(&text).explain(&from("10.20.1.7", "GET /users")).unwrap();
    assert_eq!(
        told.limits,
        [
            "ledger: 50 requests a second, 50 at once, 20 in flight",
            "all at production, GET and HEAD: 200 in flight",
        ]
    );
    assert!(told.to_string().contains("\n  limits      ledger: 50 requests"), "{told}");
    assert!(explain(&from("10.20.1.7", "GET /users")).limits.is_empty());
}

#[test]
fn what_steers_a_terminal_is_escaped() {
    let told = explain(&from("10.20.1.7", "GET /\u{1b}[31m"));
    assert!(!told.to_string().contains('\u{1b}'));
}

#[test]
fn a_certificates_names_count_where_a_listener_asks_for_one() {
    let text = r#"
        allow = ["10.0.0.0/8"]
        [[caller]]
        name = "ledger"
        tls_names = ["uri:spiffe://example/ledger"]
        grant = { production = ["read"] }
        [[listener]]
        address = "127.0.0.1:8443"
        environment = "production"
        tls = { certificate = "/c", key = "/k", client_ca = "/ca" }
        [[listener]]
        address = "127.0.0.1:8080"
        environment = "production"
        [environment.production]
        credential = { kind = "basic", client_id = "CLIENT-ID", api_key = "env:MX_API_KEY" }
    "#;
    let explainer = explainer(text);
    let shown = |names: &[&str], listener: &str| Question {
        tls_names: names.iter().map(|name| (*name).to_owned()).collect(),
        listener: Some(listener.to_owned()),
        ..from("10.1.2.3", "GET /users")
    };
    let ledger = "uri:spiffe://example/ledger";
    let told = explainer.explain(&shown(&[ledger], "127.0.0.1:8443")).unwrap();
    assert_eq!((told.caller.as_deref(), told.refused.is_none()), (Some("ledger"), true));
    assert!(told.recognised.contains(ledger), "{}", told.recognised);
    for names in [&["uri:spiffe://example/other"][..], &[]] {
        let told = explainer.explain(&shown(names, "127.0.0.1:8443")).unwrap();
        let refused = told.refused.unwrap();
        assert_eq!(refused.code, "caller_not_allowed");
        assert!(refused.changes.iter().any(|change| change.contains("--tls-name")), "{:?}", refused.changes);
    }
    let elsewhere = explainer.explain(&shown(&[ledger], "127.0.0.1:8080"));
    assert_eq!(elsewhere.unwrap_err(), Unanswerable::NoCertificates);
}

/// The example with handles at production, where `ledger` may do what is about tokens.
fn with_handles() -> String {
    let text =
        EXAMPLE.replacen("[environment.production]\n", "[environment.production]\ntoken_handles = true\n", 1);
    text.replacen("[\"read\", \"bank-data\"]", "[\"read\", \"bank-data\", \"mints-access\"]", 1)
        + "\n[connections]\nkey = \"env:K\"\nfile = \"/store\"\n"
}

#[test]
fn a_handle_and_the_answer_that_brings_one_are_explained() {
    let explainer = explainer(&with_handles());
    let handle = format!("mxh_{}", "A".repeat(43));
    let asked = |line: &str, authorization: &str| {
        let mut asked = from("10.20.1.7", line);
        asked.headers.push(("Authorization".into(), authorization.into()));
        explainer.explain(&asked).unwrap()
    };
    let code = "POST /token?grant_type=authorization_code&code=a-code";
    let told = asked(code, "Basic Og==");
    assert_eq!((self::code(&told), told.operation), ("allowed", Some("exchangeProcessorCode")));
    let shown = format!("{told}");
    assert!(shown.contains("answer      its tokens are kept here, and the caller gets handles"), "{shown}");
    assert!(told.to_json()["answer"].is_string());
    // Without handles nothing becomes of it.
    let text = with_handles().replace("token_handles = true", "token_handles = false");
    let without = self::explainer(&text).explain(&from("10.20.1.7", code)).unwrap();
    assert_eq!((self::code(&without), without.answer), ("allowed", None));

    let told = asked("GET /payment_account", &format!("Bearer {handle}"));
    let used = told.credential.as_ref().unwrap();
    assert_eq!(
        (self::code(&told), &*used.name, used.kind),
        ("allowed", "the token that the handle stands for", "bearer")
    );
    assert!(!format!("{told}").contains(&handle));
    for (line, authorization) in [
        ("GET /payment_account".to_owned(), format!("Bearer {}", &handle[..46])),
        (format!("GET /users?a={handle}"), "Basic Og==".to_owned()),
    ] {
        let told = asked(&line, &authorization);
        assert_eq!(self::code(&told), "connection_denied", "{line}");
        assert!(advice(&told).contains("send a handle (mxh_...)"), "{}", advice(&told));
    }
    assert_eq!(self::code(&asked("GET /payment_account", "Bearer of-the-caller")), "no_credential");
}
