//! What is taken for a token, wherever one comes from.

/// What a request head can carry beside everything else.
pub(crate) const BYTES_MAX: usize = 8 * 1024;

/// No token is believed to live longer than ten years; in seconds.
pub(crate) const LIFE_MAX: u64 = 10 * 365 * 24 * 3600;

/// Whether a header can carry it (RFC 6750, 2.1 is narrower, and providers are not).
pub(crate) fn is_legal(token: &[u8]) -> bool {
    (1..=BYTES_MAX).contains(&token.len()) && token.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_visible_ascii_of_some_length() {
        for legal in [b"a".as_slice(), b"!~", &[b'x'; BYTES_MAX]] {
            assert!(is_legal(legal));
        }
        for wrong in [b"".as_slice(), b"a b", b"a\r\nb", b"a\x7f", "ä".as_bytes(), &[b'x'; BYTES_MAX + 1]] {
            assert!(!is_legal(wrong), "{wrong:?}");
        }
    }
}
