use std::fs;

use super::*;
use crate::{
    config::overrides::Overrides,
    mx::catalogue::catalogue,
    policy::{self, Api, grant::Allowed},
    refusal::Refusal,
};

/// A gateway with MX and an environment of its own paths, and one caller with these keys.
fn config(caller: &str) -> Config {
    let text = format!(
        r#"
        allow = ["10.0.0.0/8"]
        [[caller]]
        name = "bound"
        networks = ["10.0.0.0/8"]
        {caller}
        [[caller]]
        name = "free"
        networks = ["11.0.0.0/8"]
        grant = {{ mx = ["read"] }}
        [[listener]]
        address = "127.0.0.1:0"
        environment = "mx"
        [[listener]]
        address = "127.0.0.1:0"
        environment = "own"
        [environment.mx]
        url = "https://mx.example"
        credential = {{ kind = "basic", client_id = "a", api_key = "env:A" }}
        [environment.own]
        url = "https://own.example"
        paths = ["GET /things", "POST /things", "GET /users/{{user_guid}}.pdf", "GET /both/{{user_guid}}/{{user_guid}}"]
        credential = {{ kind = "basic", client_id = "a", api_key = "env:B" }}
        "#
    );
    Config::parse(&text, "f", &Overrides::none()).map_err(|faults| faults.to_string()).unwrap().config
}

/// What becomes of a request of the first caller at an environment, whose end user is `end_user`.
fn ask(
    config: &Config,
    end_user: Option<&str>,
    at: &str,
    method: Method,
    target: &str,
) -> Result<(), String> {
    let users = Users::new(config, None).map_err(|faults| faults[0].to_string())?;
    let (index, environment) =
        config.environments.values().enumerate().find(|(_, one)| one.name == at).unwrap();
    let listed = match &environment.api {
        config::Api::Platform => None,
        config::Api::Paths(paths) => Some(paths.as_slice()),
    };
    let api = if listed.is_none() { Api::Platform } else { Api::Paths };
    let allowed = Allowed::new(&config.callers[0].grant[at], listed)?;
    let target = Target::parse(target).unwrap();
    let grant = policy::decide(Some(&allowed), api, &method, &target)
        .map_err(|denial| format!("policy: {}", denial.refusal.code()))?;
    let Some(rule) = users.of(CallerIndex::of(0)) else { return Ok(()) };
    let checked = rule.check(index, &method, &grant, &target, end_user);
    checked.map_err(|reason| reason.code().to_owned())
}

#[test]
fn a_caller_without_users_is_bound_to_none() {
    let config = config(r#"grant = { mx = ["read"] }"#);
    assert!(Users::new(&config, None).unwrap().of(CallerIndex::of(0)).is_none());
    assert_eq!(ask(&config, None, "mx", Method::GET, "/users"), Ok(()));
}

#[test]
fn the_segment_as_received_is_the_user() {
    let config = config(
        r#"grant = { mx = ["read", "bank-data", "write"] }
        users = ["USR-1", "A-*"]"#,
    );
    let get = |target: &str| ask(&config, None, "mx", Method::GET, target);
    for yes in [
        "/users/USR-1",
        "/users/USR-1/members/MBR-9/accounts?page=2",
        "/users/A-7",
        "/vc/users/USR-1/members/M/accounts",
    ] {
        if !get(yes).is_err_and(|why| why == "policy: unknown_operation") {
            assert_eq!(get(yes), Ok(()), "{yes}");
        }
    }
    for no in [
        "/users/USR-2",
        "/users/usr-1",
        "/users/USR-11/members",
        "/users/USR-1%20",
        "/users/A-%2Fx",
        "/users/USR-1;a=b",
        "/users/%C3%A4/members",
        "/users/A",
    ] {
        assert_eq!(get(no), Err("user_not_listed".into()), "{no}");
    }
    for no in ["/users", "/institutions", "/merchants/MCH-1", "/categories/default"] {
        assert_eq!(get(no), Err("no_user_in_path".into()), "{no}");
    }
    for no in [
        "/users/USR-1?user_guid=USR-2",
        "/users/USR-1/members?page=1&USER_GUID[]=USR-2",
        "/users/USR-1?user%5Fguid=x",
        "/users/USR-1?user_identifier=USR-2",
    ] {
        assert_eq!(get(no), Err("another_user".into()), "{no}");
    }
}

#[test]
fn an_operation_without_a_user_is_had_by_its_own_name() {
    let config = config(
        r#"grant = { mx = ["read", "listInstitutions", "tag:merchants", "path:GET /new/thing"], own = ["paths", "path:GET /things"] }
        users = ["*"]"#,
    );
    assert_eq!(ask(&config, None, "mx", Method::GET, "/institutions"), Ok(()));
    assert_eq!(ask(&config, None, "mx", Method::HEAD, "/institutions"), Ok(()));
    assert_eq!(ask(&config, None, "mx", Method::GET, "/new/thing"), Ok(()));
    assert_eq!(ask(&config, None, "mx", Method::GET, "/users/ANY"), Ok(()));
    for no in ["/users", "/merchants", "/institutions/favorites"] {
        assert_eq!(ask(&config, None, "mx", Method::GET, no), Err("no_user_in_path".into()), "{no}");
    }
    assert_eq!(ask(&config, None, "own", Method::GET, "/things"), Ok(()));
    assert_eq!(ask(&config, None, "own", Method::HEAD, "/things"), Ok(()));
    assert_eq!(ask(&config, None, "own", Method::POST, "/things"), Err("no_user_in_path".into()));
}

#[test]
fn every_user_of_a_template_counts_without_its_suffix() {
    let config = config(
        r#"grant = { own = ["paths"] }
        users = ["USR-1", "USR-2"]"#,
    );
    let get = |target: &str| ask(&config, None, "own", Method::GET, target);
    assert_eq!(get("/users/USR-1.pdf"), Ok(()));
    assert_eq!(get("/users/USR-3.pdf"), Err("user_not_listed".into()));
    assert_eq!(get("/users/USR-1.pdf.pdf"), Err("user_not_listed".into()));
    assert_eq!(get("/both/USR-1/USR-2"), Ok(()));
    assert_eq!(get("/both/USR-1/USR-3"), Err("user_not_listed".into()));
    assert_eq!(get("/both/USR-3/USR-1"), Err("user_not_listed".into()));
}

/// Every operation of the catalogue, with a user who may be reached beside one who may not.
#[test]
fn every_operation_with_a_user_is_bound_to_it_and_every_other_is_refused() {
    let config = config(
        r#"grant = { mx = ["read", "write", "destructive", "bank-data", "mints-access", "carries-bank-login", "money"] }
        users = ["USR-1"]"#,
    );
    let (mut bound, mut others) = (0, 0);
    for operation in catalogue().operations() {
        let path = |user: &str| {
            let filled = operation.template.replace("{user_guid}", user);
            let fill = |segment: &str| match segment.split_once('}') {
                Some((_, suffix)) => format!("X-1{suffix}"),
                None => segment.to_owned(),
            };
            filled.split('/').map(fill).collect::<Vec<_>>().join("/")
        };
        let ask = |user| ask(&config, None, "mx", operation.method.clone(), &path(user));
        let has_user = operation.template.contains("{user_guid}");
        let expected = match (ask("USR-1"), has_user) {
            (Err(policy), _) if policy.starts_with("policy") => continue,
            (Ok(()), true) => "user_not_listed",
            (Err(no_user), false) if no_user == "no_user_in_path" => "no_user_in_path",
            (other, _) => panic!("{}: {other:?}", operation.id),
        };
        assert_eq!(ask("USR-2"), Err(expected.into()), "{}", operation.id);
        if has_user { bound += 1 } else { others += 1 }
    }
    assert!(bound > 130 && others > 20, "{bound} {others}");
}

#[test]
fn both_the_list_and_the_end_user_must_agree() {
    let folder = tempfile::tempdir().unwrap();
    let jwks = folder.path().join("jwks");
    let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    fs::write(&jwks, format!(r#"{{"keys":[{key}]}}"#)).unwrap();
    let config = config(&format!(
        r#"grant = {{ mx = ["read", "listInstitutions"] }}
        users = ["USR-1", "USR-2"]
        [caller.end_user]
        issuer = "i"
        audience = "a"
        jwks = "file:{}""#,
        jwks.display()
    ));
    let get = |end_user, target: &str| ask(&config, end_user, "mx", Method::GET, target);
    assert_eq!(get(Some("USR-1"), "/users/USR-1"), Ok(()));
    assert_eq!(get(Some("USR-2"), "/users/USR-1"), Err("another_user".into()));
    assert_eq!(get(Some("USR-3"), "/users/USR-3"), Err("user_not_listed".into()));
    assert_eq!(get(None, "/users/USR-1"), Err("another_user".into()));
    assert_eq!(get(Some("USR-1"), "/institutions"), Ok(()));
    assert_eq!(get(Some("USR-1"), "/users"), Err("no_user_in_path".into()));

    fs::write(&jwks, r#"{"keys":[]}"#).unwrap();
    let fault = Users::new(&config, None).unwrap_err()[0].to_string();
    assert!(fault.starts_with("caller bound: end_user: jwks: "), "{fault}");
}

#[test]
fn a_wrong_token_looks_like_a_stranger_and_another_user_like_an_operation_that_is_not_granted() {
    for reason in Reason::ALL {
        let told = match reason {
            Reason::NoUser | Reason::NotListed | Reason::OtherUser => Told::Refused(Refusal::OperationDenied),
            Reason::NoKeys => Told::Failed(Failure::NoVerificationKeys),
            _ => Told::Refused(Refusal::CallerNotAllowed),
        };
        assert_eq!(reason.told(), told, "{reason:?}");
    }
    assert!(Reason::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
}
