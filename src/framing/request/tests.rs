use super::*;

const LIMITS: HeadLimits = HeadLimits {
    header_bytes_max: 16_384,
    header_count_max: 64,
    request_line_bytes_max: 8_192,
    body_bytes_max: 10 << 20,
};

fn scan_all(head: &str) -> Result<Option<RequestHead>, Violation> {
    scan(head.as_bytes(), 0, &LIMITS)
}

#[test]
fn a_plain_request_is_read() {
    let head = "GET /users HTTP/1.1\r\nHost: mx\r\n\r\n";
    let expected = RequestHead {
        len: head.len(),
        framing: BodyFraming::None,
        expects_continue: false,
        is_head: false,
        keep_alive: true,
    };
    assert_eq!(scan_all(head), Ok(Some(expected)));
    assert_eq!(scan_all(&head[..head.len() - 1]), Ok(None));
}
