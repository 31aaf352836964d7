use proptest::prelude::*;

use super::*;

#[track_caller]
fn all_refused(expected: Malformed, targets: &[&str]) {
    for target in targets {
        assert_eq!(Target::parse(target), Err(expected), "{target}");
    }
}

#[test]
fn path_and_query_are_kept_as_received() {
    for (target, path, query) in [
        ("/", "/", None),
        ("/?", "/", Some("")),
        ("/users/USR-1/members?page=2&x=%7e", "/users/USR-1/members", Some("page=2&x=%7e")),
        ("/a?b?c", "/a", Some("b?c")),
        ("//a//", "//a//", None),
    ] {
        let parsed = Target::parse(target).unwrap();
        assert_eq!((parsed.path(), parsed.query(), parsed.path_and_query()), (path, query, target));
    }
}

#[test]
fn paths_with_one_meaning_pass() {
    for path in [
        "/",
        "/a",
        "//",
        "/a//b",
        "/a/",
        "/a%2Fb",
        "/a%20b",
        "/%C3%A9",
        "/100%25",
        "/a%25zz",
        "/a%3Fb%23c",
        "/a:b@c",
        "/!$&'()*+,;=",
        "/-._~",
        "/...",
        "/.a",
        "/a.",
        "/a..b",
        "/..a",
        "/a;..",
        "/.well-known/x",
        "/%2F",
        "/a%2F.b",
        "/a%2F...%2Fb",
        "/%5B%5D",
        "/%7B%7D%7C%5E%60%22%3C%3E",
    ] {
        Target::parse(path).unwrap_or_else(|malformed| panic!("{path}: {malformed}"));
    }
}

#[test]
fn dot_segments_are_refused_wherever_a_server_may_see_one() {
    all_refused(
        Malformed::DotSegment,
        &[
            "/.",
            "/..",
            "/./",
            "/../",
            "/a/.",
            "/a/..",
            "/a/./b",
            "/a/../b",
            "//..",
            "/..//",
            "/a%2F..",
            "/..%2Fa",
            "/a%2F.%2Fb",
            "/%2F..%2F",
            "/..;",
            "/..;x=y/b",
            "/.;x",
            "/a/..;/b",
            "/a/..%3Bx/b",
            "/a%2F..;b",
            "/..?a",
            "/a/..;a;b",
            "/..%3B;",
        ],
    );
    // Their encoded dots are refused before.
    all_refused(
        Malformed::SecondSpelling,
        &["/%2E", "/%2e", "/%2E%2E", "/.%2E/", "/%2E./a", "/a%2F%2E%2E%2Fb", "/%2E%2E;x", "/a/%2e%2E/b"],
    );
    all_refused(Malformed::EncodedTwice, &["/%252E%252E/a", "/%252e", "/%252F..", "/a%255Cb", "/%25252E"]);
}

#[test]
fn a_path_has_one_spelling() {
    all_refused(
        Malformed::SecondSpelling,
        &["/%61", "/%41", "/%30", "/%2D", "/%5F", "/%7E", "/a%2fb", "/%c3%a9", "/%C3%a9", "/%2a", "/%3f"],
    );
    all_refused(Malformed::EncodedTwice, &["/%2561", "/%2500", "/%25aF"]);
    for (one, other) in [("/a%2Fb", "/a%2fb"), ("/a", "/%61"), ("/%25", "/%2525"), ("/~", "/%7E")] {
        assert!(Target::parse(one).is_ok() && Target::parse(other).is_err(), "{one} {other}");
    }
}

#[test]
fn raw_bytes_outside_the_alphabet_are_refused() {
    for byte in
        ["\\", "#", " ", "\t", "\0", "\r", "\n", "\x7f", "\"", "<", ">", "^", "`", "{", "|", "}", "\u{e9}"]
    {
        all_refused(
            Malformed::RawByte,
            &[&format!("/a{byte}b"), &format!("/a?b{byte}c"), &format!("/{byte}")],
        );
    }
    all_refused(Malformed::RawByte, &["/a[b", "/a]b", "/a/..\\b", "/a#?b", "/\u{ff0e}\u{ff0e}/"]);
    assert!(Target::parse("/a?b[]=[c]&/?:@").is_ok());
}

#[test]
fn escapes_are_complete_and_stand_for_text() {
    let bad = ["/%", "/%2", "/%zz", "/%2G", "/%%41", "/a%", "/%+2", "/% 2", "/?%", "/?%4", "/?a=%x1", "/?%%"];
    all_refused(Malformed::BadEscape, &bad);
    all_refused(
        Malformed::ForbiddenEscape,
        &[
            "/%00",
            "/a%00b",
            "/%0A",
            "/%0D",
            "/%1F",
            "/%7F",
            "/%5C",
            "/%5c",
            "/..%5C..",
            "/%C2%85",
            "/%C0%AE%C0%AE/",
            "/%C0%AF",
            "/%E0%80%AF",
            "/%FF",
            "/%C3",
            "/%C3/%A9",
            "/%ED%A0%80",
            "/?%00",
            "/?a=%0a",
            "/?%0D%0A",
            "/?%7f",
        ],
    );
    assert!(Target::parse("/?a=%61%7e%2F%2f%FF%5C%252e").is_ok(), "a query is data");
    all_refused(Malformed::NoSlash, &["", "*", "a", "?a", "http://a/", "%2F", ".."]);
}

const NAMES: [&str; 3] = ["api_key", "client_id", "X-Token"];

#[track_caller]
fn without(query: &str) -> String {
    let target = format!("/x?{query}");
    Target::parse(&target).unwrap().query_without(&NAMES).into_owned()
}

#[test]
fn credentials_are_taken_out_of_the_query_in_every_spelling() {
    for parameter in [
        "api_key=s",
        "api_key",
        "api_key=",
        "API_KEY=s",
        "Api-Key=s",
        "api-key=s",
        "api%5Fkey=s",
        "api%5fkey=s",
        "%61pi_key=s",
        "api+key=s",
        "api%20key=s",
        "api.key=s",
        "api%2Dkey=s",
        "api%2Bkey=s",
        "api_key[]=s",
        "api_key[x]=s",
        "api_key%5B%5D=s",
        "api_key[x][y]=s",
        "[api_key]=s",
        "[]api_key=s",
        "+api_key=s",
        "api_key+=s",
        "_api_key_=s",
        "%20api_key%20=s",
        "api_key=s=t",
        "api_key=s?t",
        "client_id=s",
        "x_token=s",
        "X-TOKEN=s",
        "api_key=s;t",
        "api_key=s;t;u",
    ] {
        assert_eq!(without(parameter), "", "{parameter}");
        assert_eq!(without(&format!("a=%7e&{parameter}&b=+;c")), "a=%7e&b=+;c", "{parameter}");
        assert_eq!(without(&format!("{parameter}&a")), "a");
        assert_eq!(without(&format!("a&{parameter}")), "a");
        assert_eq!(without(&format!("{parameter}&{parameter}")), "");
    }
    assert_eq!(without("a=1;api_key=s;b=2&c"), "a=1;b=2&c");
    assert_eq!(without("a;api_key=s"), "a");
    assert_eq!(without("&&api_key=s&"), "&&");
    assert_eq!(without("&;a;;api_key=s&&"), "&;a;&&");
}

#[test]
fn what_is_no_credential_stays_byte_for_byte() {
    for query in [
        "",
        "&",
        "a=b",
        "a=api_key",
        "a=api_key=s",
        "xapi_key=s",
        "api_keys=s",
        "api_keyx[]=s",
        "apikey=s",
        "api__key=s",
        "user[api_key]=s",
        "%7e=%7E&&;;=&a=+%20[x]",
        "api%255Fkey=s",
        "a?api_key=s",
        "a%26api_key=s",
    ] {
        assert_eq!(without(query), query);
        let target = format!("/x?{query}");
        let parsed = Target::parse(&target).unwrap();
        assert!(matches!(parsed.query_without(&NAMES), Cow::Borrowed(_)), "{query}");
        assert_eq!(parsed.without(&NAMES), target);
        assert_eq!(parsed.without(&[] as &[&str]), target);
    }
}

#[test]
fn what_is_forwarded_has_a_question_mark_only_with_something_behind() {
    for (target, forwarded) in [
        ("/x", "/x"),
        ("/x?", "/x?"),
        ("/x?api_key=s", "/x"),
        ("/x?api_key=s&a=1", "/x?a=1"),
        ("/api_key=s?a", "/api_key=s?a"),
    ] {
        assert_eq!(Target::parse(target).unwrap().without(&NAMES), forwarded);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// A lax server decodes, turns `\` into `/`, cuts parameters off and resolves dots, twice over.
    #[test]
    fn no_accepted_path_climbs(path in "/([a-z./;%]|%[0-9A-Fa-f]{2}|%2F|%2E|%5C|%25|\\.\\.){0,9}") {
        if let Ok(target) = Target::parse(&path) {
            let mut text = target.path().to_owned();
            for _ in 0..2 {
                for segment in text.split(['/', '\\']) {
                    let name = segment.split(';').next().unwrap_or_default();
                    prop_assert!(name != "." && name != "..", "{} in {}", segment, path);
                }
                text = percent_decode(text.as_bytes()).decode_utf8_lossy().into_owned();
            }
        }
    }

    /// Whatever is accepted, `http::Uri` takes and cuts in the same places.
    #[test]
    fn accepted_targets_are_hypers(target in "/[!-~]{0,12}(\\?[!-~]{0,12})?") {
        if let Ok(parsed) = Target::parse(&target) {
            let uri: http::Uri = target.parse().unwrap();
            prop_assert_eq!((uri.path(), uri.query()), (parsed.path(), parsed.query()));
        }
    }

    /// What is left names no credential, and its pieces are pieces of what was received, in order.
    #[test]
    fn nothing_is_left_and_nothing_is_made_up(query in "(api_key|API-key|[a&;=\\[%5]|%5f|\\]|\\+){0,12}") {
        let target = format!("/x?{query}");
        if let Ok(parsed) = Target::parse(&target) {
            let rest = parsed.query_without(&NAMES);
            prop_assert!(!rest.split(['&', ';']).any(|piece| NAMES[0].replace('-', "_").as_bytes() == read_name(piece)));
            let mut received = query.split(['&', ';']);
            if !rest.is_empty() {
                prop_assert!(rest.split(['&', ';']).all(|piece| received.any(|other| other == piece)));
            }
        }
    }
}
