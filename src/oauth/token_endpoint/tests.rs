use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::config::{Endpoint, Endpoints, ProviderPlace};

const ACCESS: &str = "canary-access-1";
const REFRESH: &str = "canary-refresh-1";

fn secret(text: &str) -> Secret {
    Secret::new(text.into()).unwrap()
}

fn settings(client_authentication: ClientAuthentication) -> Provider {
    Provider {
        name: "bank".into(),
        place: ProviderPlace::Written(Endpoints {
            issuer: None,
            names_itself: false,
            authorization: None,
            token: Endpoint::parse("https://id.example/token").unwrap(),
            revocation: None,
        }),
        client_id: "gate way".into(),
        client_secret: "env:C".parse().unwrap(),
        client_authentication,
        scopes: vec![],
        audience: Some("https://api.example".into()),
        resource: None,
        authorization_parameters: BTreeMap::new(),
        token_parameters: [("tenant".to_owned(), "a&b".to_owned())].into(),
        redirect_uri: Some("https://us.example/callback".into()),
        reuse_grace: Duration::ZERO,
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(5),
    }
}

/// The fields that are sent, and `Authorization`.
fn written(how: ClientAuthentication, grant: &Grant<'_>) -> (Vec<String>, Option<String>) {
    let settings = settings(how);
    let request = Writer::new(&settings, &secret("s3cret:/+%")).unwrap().grant(grant).unwrap();
    let request = to("/token?a=b", request).unwrap();
    assert_eq!((request.method().as_str(), request.uri().to_string().as_str()), ("POST", "/token?a=b"));
    assert_eq!(request.headers()["content-type"], "application/x-www-form-urlencoded");
    let authorization = request.headers().get("authorization").map(|value| {
        assert!(value.is_sensitive());
        value.to_str().unwrap().to_owned()
    });
    let body = String::from_utf8(request.into_body().to_vec()).unwrap();
    (body.split('&').map(str::to_owned).collect(), authorization)
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status: StatusCode::from_u16(status).unwrap(), body: body.as_bytes().to_vec().into() }
}

fn of(body: &Value) -> Result<Granted, Fault> {
    granted(&answer(200, &body.to_string()))
}

fn success() -> Value {
    json!({ "access_token": ACCESS, "token_type": "bearer", "expires_in": 60, "refresh_token": REFRESH, "scope": "a b" })
}

fn with(member: &str, value: Value) -> Value {
    let mut body = success();
    body[member] = value;
    body
}

fn without(member: &str) -> Value {
    let mut body = success();
    body.as_object_mut().unwrap().remove(member);
    body
}

#[test]
fn requests_are_written_as_the_rfcs_write_them() {
    let (code, verifier, token) = (secret("c0de-123"), secret(&"v".repeat(43)), secret("r/efresh"));
    let scopes = ["a:b".to_owned(), "c".to_owned()];
    let grant = Grant::Code { code: &code, verifier: &verifier };
    let (fields, authorization) = written(ClientAuthentication::Basic, &grant);
    let uri = "redirect_uri=https%3A%2F%2Fus.example%2Fcallback";
    let verifier = format!("code_verifier={}", "v".repeat(43));
    for field in [
        "grant_type=authorization_code",
        "code=c0de-123",
        uri,
        &verifier,
        "tenant=a%26b",
        "audience=https%3A%2F%2Fapi.example",
    ] {
        assert!(fields.contains(&field.to_owned()), "{field} {fields:?}");
    }
    // Both halves are encoded first (RFC 6749, 2.3.1): `gate+way:s3cret%3A%2F%2B%25`.
    assert_eq!(authorization.unwrap(), "Basic Z2F0ZSt3YXk6czNjcmV0JTNBJTJGJTJCJTI1");
    let grant = Grant::Refresh { token: &token, scopes: &scopes };
    let (fields, authorization) = written(ClientAuthentication::Post, &grant);
    for field in [
        "grant_type=refresh_token",
        "refresh_token=r%2Fefresh",
        "scope=a%3Ab+c",
        "client_id=gate+way",
        "client_secret=s3cret%3A%2F%2B%25",
    ] {
        assert!(fields.contains(&field.to_owned()), "{field} {fields:?}");
    }
    assert_eq!(authorization, None);
    let (fields, _) = written(ClientAuthentication::Basic, &Grant::Client { scopes: &[] });
    assert!(fields.contains(&"grant_type=client_credentials".to_owned()), "{fields:?}");
    assert!(!fields.iter().any(|field| field.starts_with("scope=")), "{fields:?}");
}

#[test]
fn a_success_has_its_tokens_and_they_are_masked() {
    let fresh = |member: &str, token: &str| {
        assert!(!redaction::held().masker().is_hit(token.as_bytes()));
        let granted = of(&with(member, json!(token))).unwrap();
        assert!(redaction::held().masker().is_hit(token.as_bytes()), "{member}");
        granted
    };
    fresh("refresh_token", "canary-refresh-only");
    let granted = fresh("access_token", "canary-access-only");
    assert_eq!(*granted.access, secret("canary-access-only"));
    assert_eq!(
        (granted.life, granted.scopes),
        (Some(Duration::from_secs(60)), Some(vec!["a".into(), "b".into()]))
    );
    assert_eq!(*granted.refresh.unwrap(), secret(REFRESH));
    let least = of(&json!({ "access_token": ACCESS, "token_type": "Bearer" })).unwrap();
    assert_eq!((least.life, least.scopes, least.refresh), (None, None, None));
    // As PHP writes a slash, and members that nobody asked for.
    let body = r#" {"access_token":"canary\/access","token_type":"BEARER","x":{"error":1},"expires_in":1}"#;
    assert_eq!(*super::granted(&answer(200, body)).unwrap().access, secret("canary/access"));
}

#[test]
fn what_is_no_plain_success_is_a_failed_attempt() {
    let long = "a".repeat(token::BYTES_MAX + 1);
    let mut bodies: Vec<String> = [
        with("access_token", json!("")),
        with("access_token", json!("short")),
        with("access_token", json!(1)),
        with("access_token", json!("with a blank")),
        with("access_token", json!("line\nfeed-line")),
        with("access_token", json!("ünicode-token")),
        with("access_token", json!(long)),
        without("access_token"),
        with("token_type", json!("mac")),
        with("token_type", json!("")),
        with("token_type", json!(["Bearer"])),
        without("token_type"),
        with("expires_in", json!(0)),
        with("expires_in", json!(-1)),
        with("expires_in", json!(1.5)),
        with("expires_in", json!("60")),
        with("expires_in", json!(token::LIFE_MAX + 1)),
        with("scope", json!("")),
        with("scope", json!("a  b")),
        with("scope", json!("a\"b")),
        with("scope", json!(["a"])),
        with("refresh_token", json!("")),
        with("refresh_token", json!("a b c d e f")),
        with("error", json!("invalid_grant")),
        json!({ "error": "invalid_grant" }),
        json!([ACCESS, REFRESH, "Bearer", 60, "a", null]),
        json!({}),
        json!(null),
    ]
    .map(|body| body.to_string())
    .into();
    let twice =
        r#"{"access_token":"canary-access-1","access_token":"canary-access-2","token_type":"bearer"}"#;
    bodies.extend(["", "ok", "<html>", twice, "{", "access_token=a&token_type=bearer"].map(str::to_owned));
    for body in bodies {
        let fault = granted(&answer(200, &body)).unwrap_err();
        assert!(matches!(fault, Fault::Odd { .. }), "{body}: {fault}");
        assert_eq!(fault.fate(), Fate::Doubtful, "{body}");
        let said = format!("{fault} {fault:?}");
        assert!(!said.contains("canary") && !said.contains("invalid_grant"), "{said}");
    }
}

#[test]
fn a_rotated_token_is_kept_out_of_an_odd_answer() {
    let kept = |body: &Value| match of(body).unwrap_err() {
        Fault::Odd { rotated, .. } => rotated.map(|token| *token == secret(REFRESH)),
        other => panic!("{other}"),
    };
    for (member, value) in [
        ("expires_in", json!(0)),
        ("expires_in", json!("60")),
        ("access_token", json!("")),
        ("scope", json!(1)),
    ] {
        assert_eq!(kept(&with(member, value)), Some(true), "{member}");
    }
    // What says that it is an error is not asked for more.
    assert_eq!(kept(&with("error", json!("server_error"))), None);
    assert_eq!(kept(&with("refresh_token", json!("a b c d e f"))), None);
}

#[test]
fn an_error_has_its_registered_word_and_no_other() {
    for (word, code, fate) in [
        ("invalid_grant", Code::InvalidGrant, Fate::Gone),
        ("invalid_client", Code::InvalidClient, Fate::Untouched),
        ("invalid_request", Code::InvalidRequest, Fate::Untouched),
        ("unauthorized_client", Code::UnauthorizedClient, Fate::Untouched),
        ("unsupported_grant_type", Code::UnsupportedGrantType, Fate::Untouched),
        ("invalid_scope", Code::InvalidScope, Fate::Untouched),
        ("invalid_target", Code::InvalidTarget, Fate::Untouched),
        ("unsupported_token_type", Code::UnsupportedTokenType, Fate::Untouched),
        ("canary_word", Code::Unknown, Fate::Untouched),
        ("Invalid_Grant", Code::Unknown, Fate::Untouched),
    ] {
        let body = json!({ "error": word, "error_description": "canary", "error_uri": "https://canary" });
        let fault = granted(&answer(400, &body.to_string())).unwrap_err();
        assert!(matches!(fault, Fault::Refused(_, found) if found == code), "{fault}");
        assert_eq!(fault.fate(), fate, "{word}");
        assert!(!format!("{fault} {fault:?}").contains("canary"), "{fault}");
    }
    for body in ["", "invalid_grant", "<html>invalid_grant", "{\"error\":[\"invalid_grant\"]}"] {
        let fault = granted(&answer(400, body)).unwrap_err();
        assert!(matches!(fault, Fault::Refused(_, Code::Unknown)), "{body}: {fault}");
    }
}

#[test]
fn only_what_answers_for_itself_says_that_nothing_was_done() {
    let gone = r#"{"error":"invalid_grant"}"#;
    for (status, fate) in [
        (500, Fate::Untouched),
        (503, Fate::Untouched),
        (429, Fate::Untouched),
        (502, Fate::Doubtful),
        (504, Fate::Doubtful),
        (201, Fate::Doubtful),
        (302, Fate::Doubtful),
    ] {
        assert_eq!(granted(&answer(status, gone)).unwrap_err().fate(), fate, "{status}");
    }
    let late = https::Error::AnswerTimeout(Duration::from_secs(1));
    assert_eq!(Fault::from(late).fate(), Fate::Doubtful);
    let refused = https::Error::Connect(std::io::ErrorKind::ConnectionRefused.into());
    assert_eq!(Fault::from(refused).fate(), Fate::Untouched);
}

#[test]
fn a_revocation_names_what_is_revoked() {
    let settings = settings(ClientAuthentication::Post);
    let writer = Writer::new(&settings, &secret("s3cret-s3cret")).unwrap();
    let token = secret("t0ken-123");
    for (revoked, hint) in
        [(Revoked::Refresh(&token), "refresh_token"), (Revoked::Access(&token), "access_token")]
    {
        let request = writer.revocation(revoked).unwrap();
        let body = String::from_utf8(request.into_body()).unwrap();
        assert!(
            body.contains("token=t0ken-123") && body.contains(&format!("token_type_hint={hint}")),
            "{body}"
        );
    }
    assert!(revoked(&answer(200, "")).is_ok());
    assert!(matches!(revoked(&answer(400, "{}")), Err(Fault::Refused(..))));
    assert!(matches!(revoked(&answer(503, "")), Err(Fault::Failed(_))));
}
