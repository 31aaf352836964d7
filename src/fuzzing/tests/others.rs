//! The claims about everything but the gates: on generated cases, and on what breaks each.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::super::{check, configuration, forwarded, headers, masking, proxy_protocol, reading, target};
use crate::{
    config::ForwardedHeader,
    framing::chunked,
    listener::proxy_protocol::{Header, read},
    policy::target::Target,
};

#[test]
fn the_second_reading_of_chunks_is_strict() {
    assert_eq!(
        reading::dechunked(b"5\r\nhello\r\n0\r\n\r\nrest"),
        Ok((b"hello".to_vec(), vec![], Some(&b"rest"[..])))
    );
    assert_eq!(reading::dechunked(b"5\r\nhel"), Ok((b"hel".to_vec(), vec![], None)));
    for body in [
        "5;x\r\nhello\r\n",
        "5 \r\n",
        "5\n",
        "-5\r\n",
        "\r\n",
        "5\r\nhello!",
        "0\r\nHost: a\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
    ] {
        assert!(reading::dechunked(body.as_bytes()).is_err(), "{body:?}");
    }
}

#[test]
fn another_source_than_the_headers_is_noticed() {
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x13\x88\x01\xbb";
    for header in [&b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n"[..], v2] {
        let source = read(header).unwrap().unwrap().source;
        assert_eq!(source, Some("192.0.2.7:5000".parse().unwrap()));
        assert_eq!(proxy_protocol::source(header), Ok(source));
    }
    for header in [
        &b"PROXY TCP4 198.51.100.1 192.0.2.7 5000 443\r\n"[..],
        b"PROXY TCP4 192.0.2.7 198.51.100.1 443 5000\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 +5000 443\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 5000 443\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\n",
        &[&v2[..13], b"\x12", &v2[14..]].concat(),
        &v2[..27],
    ] {
        assert_ne!(proxy_protocol::source(header), Ok(Some("192.0.2.7:5000".parse().unwrap())));
    }
}

#[test]
fn another_address_than_the_proxys_word_is_noticed() {
    let lines: [&[u8]; 2] = [b"198.51.100.7", b"203.0.113.5, 10.0.0.8"];
    let claims = |address: &str| {
        let address = address.parse().unwrap();
        forwarded::claims(ForwardedHeader::XForwardedFor, &lines, Ok(address))
    };
    assert_eq!(claims("203.0.113.5"), Ok(()));
    for other in ["198.51.100.7", "10.0.0.8", "10.0.0.9", "192.0.2.1"] {
        assert!(claims(other).is_err(), "{other}");
    }
    assert!(
        forwarded::claims(ForwardedHeader::XForwardedFor, &lines, Err(crate::listener::forwarded::Malformed))
            .is_err()
    );
}

#[test]
fn a_form_that_is_passed_over_or_made_up_is_noticed() {
    for seed in [0, 1, 9] {
        for many in [0, 1] {
            let text = b"9f3Kq7Zt20xLmW8b\nshorts\n\n-<0>---<0-short---<1><0";
            let case = masking::Case::new(&[&[seed, many], &text[..]].concat());
            assert_eq!(masking::claims(&case, &case.masker()), Ok(()));
            let with = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
                let mut other = case.clone();
                change(&mut other.forms);
                masking::claims(&case, &other.masker())
            };
            assert!(with(&|forms| drop(forms.remove(0))).is_err());
            assert!(with(&|forms| drop(forms.remove(1))).is_err());
            assert!(with(&|forms| forms[0].truncate(15)).is_err());
            assert!(with(&|forms| forms.push(b"-short".to_vec())).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Few and many, short and long, in each other and cut at the end.
    #[test]
    fn masking_holds(
        seed: u8,
        many in 0..2_u8,
        forms in prop::collection::vec("[ab]{6,13}|[ab]{12,30}", 1..8),
        text in prop::collection::vec("[ab]{0,9}|<[0-7]>?", 0..20),
    ) {
        check("masking", &[&[seed, many], format!("{}\n\n{}", forms.join("\n"), text.concat()).as_bytes()].concat());
    }
}

#[test]
fn a_field_that_is_left_or_lost_is_noticed() {
    let production = 3;
    let environment = headers::environment(production);
    assert_eq!(&*environment.name, "production");
    let received: HeaderMap = headers::fields(b"X-Trace: 1\nConnection: x-one\nX-One: 1\nHost: a");
    let (sent, passed) = (headers::sent(&received, production), headers::passed(&received, production));
    assert_eq!(headers::claims_upstream(&received, &sent, environment), Ok(()));
    assert_eq!(headers::claims_caller(&received, &passed, environment), Ok(()));
    for (name, value) in [
        ("authorization", "Basic x"),
        ("cookie", "a=b"),
        ("mx_api_key", "k"),
        ("x-api-key", "k"),
        ("keep-alive", "5"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("transfer-encoding", "chunked"),
        ("transfer_encoding", "chunked"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-one", "1"),
        ("x-trace", "2"),
        ("host", "evil.example"),
        ("via", "1.0 x"),
        ("x-made-up", "1"),
        ("trailer", "authorization"),
    ] {
        let mut more = sent.clone();
        more.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        assert!(headers::claims_upstream(&received, &more, environment).is_err(), "{name}");
    }
    for (name, value) in [
        ("set-cookie", "a=b"),
        ("connection", "close"),
        ("access-control-allow-origin", "*"),
        ("x-trace", "2"),
    ] {
        let mut more = passed.clone();
        more.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        assert!(headers::claims_caller(&received, &more, environment).is_err(), "{name}");
    }
    for name in ["authorization", "host", "x-trace"] {
        let mut less = sent.clone();
        less.headers.remove(name);
        assert!(headers::claims_upstream(&received, &less, environment).is_err(), "{name}");
    }
    for (before, after) in
        [("https://api.mx.com//evil", "//evil"), ("https://elsewhere.example/x", "/x"), ("/a", "/b")]
    {
        let received = headers::fields(format!("Location: {before}").as_bytes());
        let mut passed = headers::passed(&received, production);
        assert_eq!(headers::claims_caller(&received, &passed, environment), Ok(()));
        passed.insert("location", HeaderValue::from_static(after));
        assert!(headers::claims_caller(&received, &passed, environment).is_err(), "{before}");
    }
}

#[test]
fn a_head_that_is_not_what_was_meant_is_noticed() {
    let production = 3;
    let environment = headers::environment(production);
    let chunked = b"Host: a\nTransfer-Encoding: chunked\nTrailer: X-Sum, Cookie";
    for (received, is_chunked) in [(&chunked[..], true), (b"Host: a\nContent-Length: 5", false)] {
        let received = headers::fields(received);
        let sent = headers::sent(&received, production);
        assert_eq!(headers::claims_upstream(&received, &sent, environment), Ok(()));
        assert_eq!((sent.is_chunked, sent.trailers.len()), (is_chunked, usize::from(is_chunked)));
        type Change = fn(&mut headers::Sent);
        let changes: [Change; 7] = [
            |sent| sent.start = sent.start.replace(" /", " /../"),
            |sent| sent.start.push(' '),
            |sent| sent.start = sent.start.replace("api_key", "api-key"),
            |sent| sent.behind = 1,
            |sent| sent.is_chunked ^= true,
            |sent| sent.trailers.push(HeaderName::from_static("x-two")),
            |sent| {
                sent.trailers.push(HeaderName::from_static("x-two"));
                sent.headers.append("trailer", HeaderValue::from_static("x-two"));
            },
        ];
        for (number, change) in (1..).zip(changes) {
            let mut other = sent.clone();
            change(&mut other);
            assert!(headers::claims_upstream(&received, &other, environment).is_err(), "change {number}");
        }
    }
}

#[test]
fn a_path_that_climbs_and_a_credential_that_is_left_are_noticed() {
    for path in ["/a/../b", "/a/%2E%2E/b", "/..%2Fa", "/%252e%252e/a", "/..;x/a", "/a%5C..", "/%0a"] {
        assert!(target::climbs(path), "{path}");
    }
    for path in ["/a/b", "/a..b", "/a%2Fb", "/a%25zz", "/.../x"] {
        assert!(!target::climbs(path), "{path}");
    }
    assert!(
        target::fits("/u/{u}/s/{s}.pdf", "/u/1/s/2.pdf") && !target::fits("/u/{u}/s/{s}.pdf", "/u/1/s/.pdf")
    );
    assert!(!target::fits("/u/{u}", "/u/") && !target::fits("/u/{u}", "/u/a/b") && !target::fits("/u", "/U"));
    let parsed = Target::parse("/x?a=1&api_key=s&b").unwrap();
    assert!(target::is_left(&parsed, "/x?a=1&b"));
    for wrong in ["/x?a=1&api_key=s&b", "/x?b&a=1", "/y?a=1&b", "/x?a=1&c", "/x?a=1&API-Key[]=&b"] {
        assert!(!target::is_left(&parsed, wrong), "{wrong}");
    }
    assert!(!target::is_left(&Target::parse("/x?b&s").unwrap(), "/x?b"), "nothing had to go");
}

#[test]
fn a_configuration_that_is_not_the_same_and_a_value_that_is_shown_are_noticed() {
    let text = "a = 1 # x\nb = 0x1f\n[c]\n'd' = [true, { e = '''f\ng''' }]\n";
    let written = configuration::rewritten(text).unwrap();
    assert_ne!(written, text);
    let read = |text: &str| text.parse::<toml::Table>().unwrap();
    assert_eq!(read(&written), read(text));
    assert_ne!(read(&written), read(&text.replace("0x1f", "0x1e")));
    assert_eq!(configuration::rewritten("a ="), None);
    assert!(configuration::may_be_printed("mxgate.toml:1:2: allow: is required"));
    assert!(!configuration::may_be_printed("c4n4ry+S3CR3T/v4lu3="));
    assert!(!configuration::may_be_printed("\u{1b}[2J"));
}

/// One of these texts, joined by `with`.
fn joined(pieces: &'static [&'static str], with: &'static str) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), 0..8).prop_map(move |pieces| pieces.join(with))
}

fn after(choice: u8, text: &[u8]) -> Vec<u8> {
    [&[choice], text].concat()
}

const LINES: &[&str] = &[
    "Authorization: Basic a",
    "authorization: Bearer b",
    "Proxy-Authorization: x",
    "Cookie: a=b",
    "MX-API-Key: k",
    "mx_api_key: k",
    "X-Own_Key: k",
    "x_own-key: k",
    "Connection: close, x-trace",
    "Connection: Content-Length, authorization",
    "Connection: te",
    "TE: trailers, gzip",
    "Transfer-Encoding: chunked",
    "Content-Length: 5",
    "Content_Length: 6",
    "Trailer: X-Sum, Authorization, MX_API_KEY",
    "Keep-Alive: 5",
    "Upgrade: h2c",
    "X-Forwarded-For: 1.1.1.1",
    "X-Trace: 1",
    "X-Trace: 2",
    "User-Agent: u",
    "Host: evil.example",
    "Via: 1.0 x",
    "Accept-Encoding: gzip",
    "Accept-Version: ",
    "Accept: text/csv",
    "Set-Cookie: a=b",
    "Location: https://api.mx.com/x#y",
    "Location: https://API.mx.com:443//evil",
    "Content-Location: https://atrium.example:8443?x",
    "Location: /\\evil",
    "Access-Control-Allow-Origin: *",
    "Cache-Control: public",
    "X-MXGate-Request-Id: 1",
    "Sec-Fetch-Site: none",
];

const ELEMENTS: &[&str] = &[
    "198.51.100.1",
    "10.0.0.8",
    "10.0.0.8:80",
    "[2001:db8::7]",
    "[2a00::7]:80",
    "2a00::7",
    "::ffff:10.0.0.1",
    "unknown",
    "",
    "\"",
    "for=198.51.100.1",
    "for=10.0.0.8;proto=https",
    "For=\"[2a00::7]:80\"",
    "for=\"10.0.0.8",
    "for=_x",
    "by=10.0.0.1",
    "1.1.1.1\n10.0.0.2",
];

const TOML: &[&str] = &[
    "allow = [\"127.0.0.0/8\"]",
    "[[listener]]",
    "address = \"127.0.0.1:8080\"",
    "environment = \"production\"",
    "[environment.production]",
    "credential = { kind = \"basic\", client_id = \"CLIENT-ID\", api_key = \"env:MX_API_KEY\" }",
    "credential = { kind = \"bearer\", token = \"c4n4ry+S3CR3T/v4lu3=\" }",
    "[log]",
    "format = \"c4n4ry+S3CR3T\"",
    "c4n4ry5 = 1",
    "[limits]",
    "body_bytes_max = 0x10",
    "connections_max = 0o17",
    "header_count_max = 9_0",
    "filter = '''info'''",
    "allow = [",
    "\"c4n4ry",
    "[process]",
    "workers = 2",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn chunked_bodies(body in chunked::tests::nearly_a_body(), seed: u8) {
        check("chunked", &after(seed, &body));
    }

    #[test]
    fn proxy_headers(
        source: SocketAddr, destination: SocketAddr, wrong in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
        v2: bool, behind in "[ -~]{0,9}",
    ) {
        let mapped = |address: SocketAddr| match address.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut header = if v2 {
            let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
            let start = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24";
            [&start[..], &mapped(source).octets(), &mapped(destination).octets(), &ports].concat()
        } else {
            let (from, to) = (mapped(source), mapped(destination));
            format!("PROXY TCP6 {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
        };
        match wrong {
            Some((index, byte)) => {
                let at = index.index(header.len());
                header[at] = byte;
            }
            None => {
                let named = Some(SocketAddr::new(source.ip().to_canonical(), source.port()));
                prop_assert_eq!(read(&header), Ok(Some(Header { len: header.len(), source: named })));
            }
        }
        check("proxy_protocol", &[&header, behind.as_bytes()].concat());
    }

    #[test]
    fn forwarded_lines(text in joined(ELEMENTS, ", "), choice in 0..2_u8) {
        check("forwarded", &after(choice, text.as_bytes()));
    }

    #[test]
    fn header_fields(text in joined(LINES, "\n"), choice in 0..6_u8) {
        check("headers", &after(choice, text.as_bytes()));
    }

    #[test]
    fn targets(
        path in "(/users|/users/U-1|/accounts|/a%2Fb|/[a-z.;%]{0,4}|/\\.\\.|/%2E|/S\\.pdf|/statements|//|/users/U-1/members/M/statements/(S)?\\.pdf){1,5}",
        query in "(\\?(api_key|API-key|client%5Fid|[a&;=\\[%5+]|\\]){0,9})?",
    ) {
        check("target", format!("{path}{query}").as_bytes());
    }

    #[test]
    fn configurations(text in joined(TOML, "\n"), whole: bool) {
        let start = if whole { TOML[..6].join("\n") + "\n" } else { String::new() };
        check("configuration", (start + &text).as_bytes());
    }
}
