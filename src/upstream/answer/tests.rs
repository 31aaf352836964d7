use std::{collections::VecDeque, future::poll_fn};

use tokio::io::{AsyncRead, ReadBuf};

use super::*;

/// A connection on which bytes come in these pieces, and then its end.
struct Wire {
    pieces: VecDeque<Vec<u8>>,
    end: Option<io::ErrorKind>,
}

impl Wire {
    fn new(pieces: &[&[u8]]) -> Self {
        let pieces = pieces.iter().filter(|piece| !piece.is_empty());
        Self { pieces: pieces.map(|piece| piece.to_vec()).collect(), end: None }
    }

    fn left(&self) -> Vec<u8> {
        self.pieces.iter().flatten().copied().collect()
    }
}

impl AsyncBufRead for Wire {
    fn poll_fill_buf(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let wire = self.get_mut();
        Poll::Ready(match (wire.pieces.front(), wire.end) {
            (Some(piece), _) => Ok(piece),
            (None, Some(error)) => Err(error.into()),
            (None, None) => Ok(&[]),
        })
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        if count == 0 {
            return;
        }
        let rest = self.pieces[0].split_off(count);
        self.pieces[0] = rest;
        if self.pieces[0].is_empty() {
            self.pieces.pop_front();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    keeps_alive: bool,
}

fn pairs(fields: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

async fn read(wire: &mut Wire, is_head: bool) -> Result<Answer, Failure> {
    let mut reader = AnswerReader::new();
    let mut fields = HeaderMap::new();
    let status = poll_fn(|cx| reader.poll_head(cx, wire, is_head, &mut fields)).await?;
    let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
    let mut left = reader.size_hint().exact();
    while let Some(frame) = poll_fn(|cx| reader.poll_body(cx, wire)).await {
        match frame?.into_data() {
            Ok(data) => {
                assert!(!data.is_empty(), "an empty piece says nothing");
                body.extend_from_slice(&data);
                left = left.map(|left| left - data.len() as u64);
            }
            Err(frame) => trailers = frame.into_trailers().unwrap(),
        }
        if left.is_some() {
            assert_eq!(reader.size_hint().exact(), left);
        }
    }
    assert!(reader.is_over());
    Ok(Answer {
        status: status.as_u16(),
        fields: pairs(&fields),
        body,
        trailers: pairs(&trailers),
        keeps_alive: reader.keeps_alive(),
    })
}

/// What comes of `text`, the same in however many pieces it comes.
async fn whole(text: &[u8]) -> Result<Answer, Failure> {
    let expected = read(&mut Wire::new(&[text]), false).await;
    for at in 0..=text.len() {
        let got = read(&mut Wire::new(&[&text[..at], &text[at..]]), false).await;
        assert_eq!(got, expected, "split at {at}");
    }
    let single: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(read(&mut Wire::new(&single), false).await, expected, "byte by byte");
    expected
}

#[tokio::test]
async fn every_framing_is_read_to_its_end() {
    let length = whole(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello").await.unwrap();
    assert_eq!((length.status, &*length.body, length.keeps_alive), (200, &b"hello"[..], true));
    assert_eq!(length.fields, [("content-length".into(), "5".into()), ("x-a".into(), "b".into())]);
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n002\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n";
    let chunked = whole(chunked).await.unwrap();
    assert_eq!((&*chunked.body, chunked.keeps_alive), (&b"abcde"[..], true));
    assert_eq!(chunked.trailers, [("x-sum".into(), "7".into())]);
    let close = whole(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").await.unwrap();
    assert_eq!((&*close.body, close.keeps_alive), (&b"until the end"[..], false));
    let empty = whole(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    assert_eq!((empty.status, empty.body.len(), empty.keeps_alive), (204, 0, true));
    let closing = whole(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx").await.unwrap();
    assert!(!closing.keeps_alive);
}

#[tokio::test]
async fn a_body_that_is_kept_is_read_like_one_that_is_passed_on_and_its_buffer_never_grows() {
    let chunked =
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 7\r\n\r\n";
    for (text, expected) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..], Ok(b"hello".to_vec())),
        (chunked, Ok(b"hello".to_vec())),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", Ok(b"hello".to_vec())),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok(Vec::new())),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", Err(Failure::UpstreamClosed)),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            Err(Failure::UpstreamMalformed),
        ),
    ] {
        let shown = String::from_utf8_lossy(text);
        assert_eq!(whole(text).await.map(|answer| answer.body), expected, "{shown}");
        let bytewise: Vec<&[u8]> = text.chunks(1).collect();
        for pieces in [&[text][..], &bytewise] {
            assert_eq!(kept(&mut Wire::new(pieces), 5).await, expected, "{shown}");
            if expected.as_ref().is_ok_and(|body| !body.is_empty()) {
                let short = kept(&mut Wire::new(pieces), 4).await;
                assert_eq!(short, Err(Failure::UpstreamMalformed), "{shown}");
            }
        }
    }
}

/// The body, read into a buffer with room for so much.
async fn kept(wire: &mut Wire, room: usize) -> Result<Vec<u8>, Failure> {
    let mut reader = AnswerReader::new();
    poll_fn(|cx| reader.poll_head(cx, wire, false, &mut HeaderMap::new())).await?;
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    let place = body.as_ptr();
    poll_fn(|cx| reader.poll_rest(cx, wire, &mut body)).await?;
    assert!(reader.is_over() && place == body.as_ptr());
    Ok(body.to_vec())
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_whatever_it_says() {
    let mut wire = Wire::new(&[b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nextra"]);
    let answer = read(&mut wire, true).await.unwrap();
    assert_eq!((answer.body.len(), answer.fields[0].1.as_str()), (0, "5"));
    assert_eq!(wire.left(), b"extra", "not part of it");
}

#[tokio::test]
async fn not_a_byte_of_what_follows_is_taken() {
    for text in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    ] {
        let mut wire = Wire::new(&[text, b"HTTP/1.1 500 other"]);
        read(&mut wire, false).await.unwrap();
        assert_eq!(wire.left(), b"HTTP/1.1 500 other");
        let mut wire = Wire::new(&[&[text, b"HTTP/1.1 500 other"].concat()]);
        read(&mut wire, false).await.unwrap();
        assert_eq!(wire.left(), b"HTTP/1.1 500 other");
    }
}

#[tokio::test]
async fn what_breaks_off_never_looks_complete() {
    let closed = Err(Failure::UpstreamClosed);
    for text in [
        &b""[..],
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        assert_eq!(read(&mut Wire::new(&[text]), false).await, closed, "{}", String::from_utf8_lossy(text));
    }
    let mut cut = Wire::new(&[b"HTTP/1.1 200 OK\r\n\r\nuntil the e"]);
    cut.end = Some(io::ErrorKind::UnexpectedEof);
    assert_eq!(read(&mut cut, false).await, closed, "TLS without a close_notify");
}

#[tokio::test]
async fn what_is_not_well_formed_is_refused() {
    let malformed = Err(Failure::UpstreamMalformed);
    for text in [
        &b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n",
        b"garbage\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    ] {
        assert_eq!(whole(text).await, malformed, "{}", String::from_utf8_lossy(text));
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over_but_not_for_ever() {
    let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let last = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    for (count, expected) in [(1, Ok(200)), (16, Ok(200)), (17, Err(Failure::UpstreamMalformed))] {
        let text = [early.repeat(count), last.to_vec()].concat();
        let answer = read(&mut Wire::new(&[&text]), false).await;
        assert!(answer.as_ref().is_ok_and(|answer| answer.fields.len() == 1) || expected.is_err());
        assert_eq!(answer.map(|answer| answer.status), expected);
    }
}

#[tokio::test]
async fn fields_are_kept_in_order_with_every_value() {
    let text = b"HTTP/1.1 200\r\nB: 1\r\na:2\r\nb:   3  \r\nC: \xe4\r\nContent-Length: 0\r\n\r\n";
    let answer = whole(text).await.unwrap();
    let values = |name: &str| -> Vec<_> {
        answer.fields.iter().filter(|field| field.0 == name).map(|field| field.1.as_str()).collect()
    };
    assert_eq!((values("b"), values("a"), values("c")), (vec!["1", "3"], vec!["2"], vec!["\u{fffd}"]));
}
