use tokio::io::{AsyncReadExt as _, BufStream, duplex};

use super::*;
use crate::{config::Credential, vault::secret::Secret};

fn key(kind: &Credential) -> Prepared {
    let secret = Secret::new(b"k3y-of-the-tests".to_vec()).unwrap();
    Prepared::prepare(kind, kind.reference().unwrap(), &secret).unwrap()
}

fn bearer() -> Prepared {
    key(&Credential::Bearer { token: "env:A".parse().unwrap() })
}

fn query() -> Prepared {
    let (client_id_name, api_key_name) = ("i".into(), "k".into());
    let api_key = "env:A".parse().unwrap();
    key(&Credential::Query {
        client_id: "c".into(),
        api_key,
        secondary_api_key: None,
        client_id_name,
        api_key_name,
    })
}

/// What comes of an errand that is answered with `text`, after which the connection ends; and all that was sent.
async fn run(errand: &Errand, key: &Prepared, text: &str) -> (Result<Heard, Failure>, String) {
    let (ours, mut theirs) = duplex(256 * 1024);
    let upstream = async {
        let mut sent = Vec::new();
        while !sent.ends_with(b"\r\n\r\n") {
            sent.push(theirs.read_u8().await.unwrap());
        }
        theirs.write_all(text.as_bytes()).await.unwrap();
        theirs.shutdown().await.unwrap();
        theirs.read_to_end(&mut sent).await.unwrap();
        String::from_utf8(sent).unwrap()
    };
    let to = Addressee { authority: &HeaderValue::from_static("mx.test:8443"), accept_version: "v20111101" };
    tokio::join!(errand.exchange(BufStream::new(ours), to, key), upstream)
}

fn answer(status: u16) -> String {
    format!("HTTP/1.1 {status}\r\nLocation: /elsewhere\r\nContent-Length: 2\r\n\r\nno")
}

fn all() -> [Errand; 3] {
    [
        Errand::read(Api::Platform).unwrap(),
        Errand::rotate_key("CLT-1").unwrap(),
        Errand::retire_key("CLT-1").unwrap(),
    ]
}

#[tokio::test]
async fn an_errand_says_this_once_and_nothing_else() {
    let rest = |length: &str, credential: &str| {
        format!(
            " HTTP/1.1\r\nhost: mx.test:8443\r\nuser-agent: mxgate/{}\r\naccept-encoding: identity\r\n\
             accept: application/vnd.mx.api.v1+json\r\naccept-version: v20111101\r\n{length}connection: close\r\n\
             {credential}\r\n",
            env!("CARGO_PKG_VERSION")
        )
    };
    let targets = [
        ("GET /institutions?records_per_page=10", "&", ""),
        ("POST /clients/CLT-1/api_keys/rotate", "?", "content-length: 0\r\n"),
        ("POST /clients/CLT-1/api_keys/retire", "?", "content-length: 0\r\n"),
    ];
    for (errand, (target, joint, length)) in all().into_iter().zip(targets) {
        for status in [200, 302, 307, 401, 503] {
            let (heard, sent) = run(&errand, &bearer(), &answer(status)).await;
            assert_eq!(
                sent,
                format!("{target}{}", rest(length, "authorization: Bearer k3y-of-the-tests\r\n"))
            );
            assert_eq!(heard.ok().unwrap().status, status);
        }
        let (_, sent) = run(&errand, &query(), &answer(200)).await;
        assert_eq!(sent, format!("{target}{joint}k=k3y-of-the-tests&i=c{}", rest(length, "")));
    }
}

#[test]
fn there_is_none_for_another_api_nor_for_what_is_no_clients_guid() {
    assert!(Errand::read(Api::Paths).is_none());
    for guid in ["", "CLT-1/api_keys/rotate?", "..", "C D", "C\r\nX: y", "%2e", "{client_guid}"] {
        assert!(Errand::rotate_key(guid).is_none() && Errand::retire_key(guid).is_none(), "{guid}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_too_long_is_none_but_where_its_head_is_enough() {
    let [read, rotate, retire] = all();
    let body = "x".repeat(ANSWER_BYTES_MAX);
    let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER_BYTES_MAX}\r\n\r\n{body}");
    let long = format!("HTTP/1.1 200 OK\r\n\r\n{body}x");
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell";
    for errand in [&rotate, &retire, &Errand::read(Api::Platform).unwrap().whole()] {
        let heard = run(errand, &bearer(), &whole).await.0;
        assert_eq!(heard.map(|heard| heard.body.len()), Ok(ANSWER_BYTES_MAX));
        assert_eq!(run(errand, &bearer(), &long).await.0.err(), Some(Failure::UpstreamMalformed));
        assert_eq!(run(errand, &bearer(), cut).await.0.err(), Some(Failure::UpstreamClosed));
    }
    for text in [&whole, &long, cut] {
        let heard = run(&read, &bearer(), text).await.0.ok().unwrap();
        assert_eq!((heard.word(), heard.body.len()), (Word::Answered, 0));
    }
    // As strictly as any upstream's answer.
    let two_lengths = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for errand in [read, rotate, retire] {
        for text in [two_lengths, "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "HTTP/1.1 101 Go\r\n\r\n"] {
            assert_eq!(run(&errand, &bearer(), text).await.0.err(), Some(Failure::UpstreamMalformed));
        }
        assert_eq!(run(&errand, &bearer(), "").await.0.err(), Some(Failure::UpstreamClosed));
    }
}

#[test]
fn only_a_401_refuses_a_key_and_only_mx_itself_takes_it() {
    for (status, expected, is_taken) in [
        (200, Word::Answered, true),
        (204, Word::Answered, true),
        (400, Word::Known, true),
        (403, Word::Known, true),
        (404, Word::Known, true),
        (406, Word::Known, true),
        (401, Word::Refused, false),
        (302, Word::Nothing, false),
        (304, Word::Nothing, false),
        (407, Word::Nothing, false),
        (408, Word::Nothing, false),
        (429, Word::Nothing, false),
        (500, Word::Nothing, false),
        (503, Word::Nothing, false),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let word = Heard { status, fields: HeaderMap::new(), body: Zeroizing::default() }.word();
        assert_eq!((word, word.takes_key()), (expected, is_taken), "{status}");
    }
}
