//! The two readers side by side: whatever the scanners accept, httparse and hyper read as the same one
//! message, with the same body, and find the next message at the same byte.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    BodyFraming, HeadLimits, Violation,
    answer::{self, AnswerFraming, AnswerHead},
    chunked::{ChunkedScanner, Scanned},
    request::{self, RequestHead},
};

const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 16_384,
    header_count_max: 100,
    request_line_bytes_max: 8_192,
    body_bytes_max: 1_000,
};

/// A second request that must be found right behind the first.
const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

type Fields = Vec<(String, Vec<u8>)>;

/// What hyper made of one request.
#[derive(Debug, PartialEq)]
struct Seen {
    method: String,
    target: String,
    fields: Fields,
    /// `None`: hyper reported an error inside it.
    body: Option<Vec<u8>>,
}

/// Everything that hyper's server makes of these bytes.
fn served(bytes: &[u8]) -> Vec<Seen> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        let record = Arc::clone(&record);
        async move {
            let (head, body) = request.into_parts();
            let fields = head.headers.iter().map(field).collect();
            let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
            let (method, target) = (head.method.to_string(), head.uri.to_string());
            record.lock().unwrap().push(Seen { method, target, fields, body });
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut builder = hyper::server::conn::http1::Builder::new();
        let connection = builder.half_close(true).serve_connection(TokioIo::new(server), service);
        // Errors are expected where a body is refused; what counts is what the service saw.
        let _ = connection.await;
    });
    Arc::into_inner(seen).unwrap().into_inner().unwrap()
}

fn field((name, value): (&http::HeaderName, &http::HeaderValue)) -> (String, Vec<u8>) {
    (name.to_string(), value.as_bytes().to_vec())
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn sorted(mut fields: Fields) -> Fields {
    fields.sort();
    fields
}

/// `http::Uri` writes an absolute target's scheme in small letters.
fn printed(target: &str) -> String {
    match target.split_once("://") {
        Some((scheme, rest)) if !target.starts_with('/') => {
            format!("{}://{rest}", scheme.to_ascii_lowercase())
        }
        _ => target.to_owned(),
    }
}

/// Compares the whole reading of an accepted head and `body` with hyper's.
fn hyper_reads_the_same(bytes: &[u8], head: &RequestHead, body: &[u8], data: &[u8]) {
    let mut slots = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut slots);
    assert_eq!(parsed.parse(bytes), Ok(httparse::Status::Complete(head.len)));
    let fields = parsed.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()));
    let expected = Seen {
        method: parsed.method.unwrap().to_owned(),
        target: printed(parsed.path.unwrap()),
        fields: sorted(fields.collect()),
        body: Some(data.to_vec()),
    };
    assert_eq!(expected.method == "HEAD", head.is_head);
    let naive = String::from_utf8(bytes[..head.len].to_vec()).unwrap();
    assert_eq!(naive.matches("\r\n").count(), parsed.headers.len() + 2, "a field for each line");

    let mut seen = served(&[&bytes[..head.len], body, NEXT].concat()).into_iter();
    let first = seen.next().expect("hyper serves what was accepted");
    assert_eq!(Seen { fields: sorted(first.fields), ..first }, expected);
    let next = seen.next().map(|next| (next.target, next.body));
    let expected_next = head.keep_alive.then(|| ("/next".to_owned(), Some(Vec::new())));
    assert_eq!(next, expected_next, "the next request starts where this one ended");
    assert_eq!(seen.next(), None);
}

/// Simple on purpose: the third reading of a body that was accepted.
fn dechunked(mut body: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    loop {
        let end = body.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return data;
        }
        data.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn accepted_heads_are_hypers(bytes in request::tests::nearly_a_request()) {
        if let Ok(Some(head)) = request::scan(&bytes, 0, &LIMITS) {
            let (body, data): (Vec<u8>, Vec<u8>) = match head.framing {
                BodyFraming::None => (vec![], vec![]),
                BodyFraming::Length(length) => {
                    let body = vec![b'\n'; usize::try_from(length).unwrap()];
                    (body.clone(), body)
                }
                BodyFraming::Chunked => (b"3\r\n\r\n\r\r\n0\r\n\r\n".to_vec(), b"\r\n\r".to_vec()),
            };
            hyper_reads_the_same(&bytes, &head, &body, &data);
        }
    }

    #[test]
    fn accepted_bodies_are_hypers(body in super::chunked::tests::nearly_a_body()) {
        if let Ok(Scanned { accepted, done: true }) = ChunkedScanner::of_request(LIMITS.body_bytes_max).scan(&body) {
            let bytes = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            let head = request::scan(bytes, 0, &LIMITS).unwrap().unwrap();
            hyper_reads_the_same(bytes, &head, &body[..accepted], &dechunked(&body));
        }
    }

    #[test]
    fn every_byte_of_a_target_field_and_host_is_hypers(
        target in "/[ -~]{0,3}(\\?[ -~]{0,3})?",
        name in "[!-~]{1,2}",
        value in "[\\t -~]{0,8}",
        host in "[a-z0-9.\\[\\]:%_@-]{1,3}",
    ) {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{name}: {value}\r\n\r\n");
        let absolute = format!("GET http://{host}{target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        for bytes in [bytes.as_bytes(), absolute.as_bytes()] {
            if let Ok(Some(head)) = request::scan(bytes, 0, &LIMITS) {
                let data = match head.framing {
                    BodyFraming::Length(length) => vec![b'a'; usize::try_from(length).unwrap()],
                    _ => vec![],
                };
                hyper_reads_the_same(bytes, &head, &data, &data);
            }
        }
    }

    #[test]
    fn accepted_answers_are_hypers(bytes in answer::tests::nearly_an_answer(), to_head: bool) {
        if let Ok(Some(head)) = answer::scan_head(&bytes, 0, &LIMITS, to_head) {
            let mut slots = [httparse::EMPTY_HEADER; 100];
            let mut parsed = httparse::Response::new(&mut slots);
            prop_assert_eq!(parsed.parse(&bytes), Ok(httparse::Status::Complete(head.len)));
            prop_assert_eq!(parsed.code, Some(head.status));
            client_reads_the_same(&bytes[..head.len], &head, to_head);
        }
    }
}

/// Compares the reading of an accepted answer, with a body after its framing, with hyper's.
fn client_reads_the_same(bytes: &[u8], head: &AnswerHead, to_head: bool) {
    let sized = match head.framing {
        // What was made up may have put digits beside the one that stood there.
        AnswerFraming::Length(length) if length > 64 * 1024 => return,
        AnswerFraming::Length(length) => vec![b'h'; usize::try_from(length).unwrap()],
        _ => vec![],
    };
    let (body, data): (&[u8], &[u8]) = match head.framing {
        _ if head.interim => (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        AnswerFraming::None => (b"", b""),
        AnswerFraming::Length(_) => (&sized, &sized),
        AnswerFraming::Chunked => (b"3\r\n\r\n\r\r\n0\r\n\r\n", b"\r\n\r"),
        AnswerFraming::UntilClose => (b"all of it\r\n\r\n", b"all of it\r\n\r\n"),
    };
    let status = if head.interim { 200 } else { head.status };
    let wire = [bytes, body].concat();
    let method = if to_head { "HEAD" } else { "GET" };
    let (answered, content, is_open) = block_on(async {
        let (client, mut server) = tokio::io::duplex(1 << 20);
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
        let request =
            Request::builder().method(method).header("host", "a").body(Empty::<Bytes>::new()).unwrap();
        let answer = async {
            let answer = sender.send_request(request).await.unwrap();
            let status = answer.status().as_u16();
            let content = answer.into_body().collect().await.unwrap().to_bytes();
            (status, content, sender.ready().await.is_ok())
        };
        let serve = async {
            let mut asked = [0; 1024];
            assert!(server.read(&mut asked).await.unwrap() > 0);
            server.write_all(&wire).await.unwrap();
            if head.framing == AnswerFraming::UntilClose {
                server.shutdown().await.unwrap();
            }
            server
        };
        let talk = async { tokio::join!(answer, serve).0 };
        tokio::select! {
            biased;
            answer = talk => answer,
            _ = async { let _ = connection.await; std::future::pending::<()>().await } => unreachable!(),
        }
    });
    assert_eq!((answered, &content[..]), (status, data), "{}", bytes.escape_ascii());
    // hyper may be stricter about reuse, never we laxer.
    assert!(is_open || !head.keep_alive || head.interim, "{}", bytes.escape_ascii());
}

/// The comparison itself can fail: each of these hyper reads and the scanners refuse.
#[test]
fn hyper_alone_would_have_taken_these() {
    for (bytes, violation) in [
        (&b"GET / HTTP/1.1\nHost: a\n\n"[..], Violation::LineEnding),
        (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Violation::RequestLine),
        (b"GET / HTTP/1.1\r\n\r\n", Violation::Host),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Violation::Host),
        (b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", Violation::Target),
        (b"GET /\"\\|{}^ HTTP/1.1\r\nHost: a\r\n\r\n", Violation::Target),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \xe9\r\n\r\n", Violation::ForbiddenByte),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            Violation::ContentLength,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n",
            Violation::TransferEncoding,
        ),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Violation::ConflictingFraming,
        ),
    ] {
        assert_eq!(request::scan(bytes, 0, &LIMITS), Err(violation), "{}", bytes.escape_ascii());
        assert_eq!(served(bytes).len(), 1, "{}", bytes.escape_ascii());
    }
    let spaced = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 ;x\r\na\r\n0\r\n\r\n";
    assert_eq!(served(spaced)[0].body.as_deref(), Some(&b"a"[..]));
    assert_eq!(ChunkedScanner::of_request(9).scan(b"1 ;x\r\na\r\n0\r\n\r\n"), Err(Violation::Chunk));
}
