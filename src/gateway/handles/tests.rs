//! Tokens in JSON, and handles in requests.

use http::{HeaderName, HeaderValue};

use super::*;
use crate::oauth::handle::HandleKey;

const NOW: u64 = 1_800_000_000;

/// The tokens of a text and when they end.
#[expect(clippy::disallowed_methods, reason = "what was found is compared")]
fn found(text: &str) -> Result<Vec<(String, Option<u64>)>, NotMaskable> {
    let shown = |one: Found| {
        assert_eq!(&text[one.place.start..=one.place.start], "\"");
        (String::from_utf8(one.given.token.expose().to_vec()).unwrap(), one.given.ends)
    };
    Ok(find(text, NOW)?.into_iter().map(shown).collect())
}

fn tokens(text: &str) -> Vec<String> {
    found(text).unwrap().into_iter().map(|(token, _)| token).collect()
}

#[test]
fn tokens_are_found_at_any_depth_and_however_they_are_written() {
    for text in [
        r#"{"access_token":"canary-1"}"#,
        r#" { "tokens" : [ { "access_token" : "canary-1" , "active" : true } ] } "#,
        r#"{"a":{"b":[[{"token":"canary-1"}]]}}"#,
        r#"{"token":{"other":1,"refresh_token":"canary-1"}}"#,
        r#"{"token":["canary-1"]}"#,
        r#"{"Access_Token":"canary-1"}"#,
        r#"{"access\u005ftoken":"canary\u002d1"}"#,
        r#"[{"access_token":"canary-1"}]"#,
    ] {
        assert_eq!(tokens(text), ["canary-1"], "{text}");
    }
    let twice = r#"{"token":"canary-1","token":"canary-2","refresh_token":"canary-3"}"#;
    assert_eq!(tokens(twice), ["canary-1", "canary-2", "canary-3"]);
    for text in [
        "{}",
        "[]",
        "\"canary-1\"",
        r#"{"token_type":"Bearer-or-so","tokens":"canary-1","code":"canary-1"}"#,
        r#"{"token":"","access_token":null,"refresh_token":12345678}"#,
        r#"{"token":{"a":"canary-1"}}"#,
    ] {
        assert_eq!(tokens(text), [""; 0], "{text}");
    }
}

#[test]
fn what_cannot_be_a_token_or_be_read_is_no_answer_to_pass_on() {
    let deep = |depth: usize| format!("{}\"a\"{}", "[".repeat(depth), "]".repeat(depth));
    let many = |count: usize| format!("[{}]", vec![r#"{"token":"canary-1"}"#; count].join(","));
    for text in [
        "",
        "access_token=canary-1",
        "{} {}",
        r#"{"access_token":"canary-1""#,
        r#"{"access_token":"short"}"#,
        r#"{"access_token":"canary 1"}"#,
        r#"{"access_token":"canary-1\n"}"#,
        r#"{"access_token":"canary-ü"}"#,
        &format!(r#"{{"access_token":"{}"}}"#, "x".repeat(token::BYTES_MAX + 1)),
        &deep(DEPTH_MAX + 2),
        &many(TOKENS_MAX + 1),
    ] {
        assert_eq!(found(text), Err(NotMaskable), "{text:.80}");
    }
    let longest = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(token::BYTES_MAX));
    for text in [longest, deep(DEPTH_MAX), many(TOKENS_MAX)] {
        assert!(found(&text).is_ok(), "{text:.80}");
    }
}

#[test]
fn an_end_is_taken_from_beside_the_token_or_from_around_it() {
    for (beside, expected) in [
        ("", None),
        (r#","expires_in":60"#, Some(NOW + 60)),
        (r#","expires_in":0"#, Some(NOW)),
        (r#","expires_in":99999999999999"#, Some(NOW + token::LIFE_MAX)),
        (r#","expires_in":-1"#, None),
        (r#","expires_in":"soon""#, None),
        (r#","expires_at":null"#, None),
        (r#","expires_at":null,"expires_in":60"#, Some(NOW + 60)),
        (r#","expires_at":1800000060"#, Some(NOW + 60)),
        (r#","expires_at":"2027-01-15T08:01:00Z""#, Some(NOW + 60)),
        (r#","expires_at":"2027-01-15T08:01:00+00:00""#, Some(NOW + 60)),
        (r#","expires_at":"2027-01-15T09:31:00+01:30""#, Some(NOW + 60)),
        (r#","expires_at":"2027-01-15T02:01:00-06:00""#, Some(NOW + 60)),
        // As in MX's own example.
        (r#","expires_at":"2023-04-19T15:38:2800:00""#, None),
        (r#","expires_at":"""#, None),
        (r#","expires_at":"ü2:00""#, None),
    ] {
        let text = format!(r#"{{"access_token":"canary-1"{beside}}}"#);
        assert_eq!(found(&text), Ok(vec![("canary-1".into(), expected)]), "{text}");
    }
    let around = r#"{"expires_in":60,"a":[{"token":"canary-1"},{"token":"canary-2","expires_in":5}]}"#;
    let expected = [("canary-1".into(), Some(NOW + 60)), ("canary-2".into(), Some(NOW + 5))];
    assert_eq!(found(around), Ok(expected.into()));
}

fn ledger() -> Whose {
    let (environment, host) = ("sandbox".into(), "api.mx.test".into());
    Whose { caller: "ledger".into(), environment, host, user: None }
}

#[test]
fn all_but_the_tokens_stays_byte_for_byte() {
    let text = " {\"z\" : 1.10,\r\n\"access_token\": \"canary-1\" ,\"e\":1e2,\"u\":\"\\u00fc\",\"token\":\"canary-2\"}\n";
    let found = find(text, NOW).unwrap();
    let whose = ledger();
    let key = HandleKey::new(&Zeroizing::new([1; 32]));
    let handles: Vec<Handle> = found.iter().map(|one| key.handle(&whose, &one.given.token)).collect();
    let [first, second] = [0, 1].map(|at| handles[at].text());
    let expected = text.replace("canary-1", &first).replace("canary-2", &second);
    assert_eq!(spliced(text, &found, &handles), expected);
}

fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    all.iter().map(field).collect()
}

#[test]
fn one_bearer_handle_is_taken_and_nothing_like_it_is_left_to_another_credential() {
    let whose = ledger();
    let token = Secret::new(b"canary-1".to_vec()).unwrap();
    let handle = HandleKey::new(&Zeroizing::new([1; 32])).handle(&whose, &token);
    let (text, name) = (handle.text(), "authorization");
    for value in [format!("Bearer {text}"), format!("bearer {text}")] {
        assert_eq!(shown(&headers(&[(name, &value)])), Ok(Some(handle.id())), "{value}");
    }
    for value in ["", "Bearer of-the-caller", "Basic Og=="] {
        assert_eq!(shown(&headers(&[(name, value)])), Ok(None), "{value}");
    }
    assert_eq!(shown(&headers(&[])), Ok(None));
    let bearer = format!("Bearer {text}");
    for all in [
        &[(name, bearer.as_str()), (name, bearer.as_str())] as &[_],
        &[(name, "Bearer of-the-caller"), (name, bearer.as_str())],
        &[(name, &format!("Basic {text}"))],
        &[(name, &format!("Bearer  {text}"))],
        &[(name, &format!("{bearer}, Bearer x"))],
        &[(name, &text)],
        &[(name, "Bearer mxh_")],
        &[(name, &bearer[..bearer.len() - 1])],
    ] {
        assert_eq!(shown(&headers(all)), Err(Refusal::ConnectionDenied), "{all:?}");
    }
    assert!(stray(&HeaderMap::new(), &format!("/users?a={text}")));
    assert!(stray(&headers(&[("x-other", &format!("a {text} b"))]), "/users"));
    assert!(!stray(&headers(&[(name, &bearer), ("x-other", "mxh_")]), "/users/mxh_of-a-customer"));
}
