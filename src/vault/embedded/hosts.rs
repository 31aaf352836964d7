//! The hosts that an entry is sealed for: names or addresses, lower case, no port, one spelling each.

use rustls::pki_types::ServerName;

use crate::mx;

/// A text that is no host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a host is a name or an address in plain ASCII, without scheme, port, path or final dot")]
pub struct NotAHost;

/// `text` in the one spelling that is sealed.
///
/// # Errors
/// [`NotAHost`] for anything with a scheme, port, path, final dot or non-ASCII letters.
pub fn parse(text: &str) -> Result<String, NotAHost> {
    let host = text.to_ascii_lowercase();
    if is_host(&host) { Ok(host) } else { Err(NotAHost) }
}

/// MX's host for a name that begins with `sandbox/` or `production/`.
#[must_use]
pub fn for_name(name: &str) -> Option<&'static str> {
    match name.split_once('/')?.0 {
        "sandbox" => Some(mx::SANDBOX_HOST),
        "production" => Some(mx::PRODUCTION_HOST),
        _ => None,
    }
}

pub(super) fn is_host(text: &str) -> bool {
    let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    lower && !text.ends_with('.') && ServerName::try_from(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_hosts() {
        for (text, host) in [("API.mx.com", "api.mx.com"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
            assert_eq!(parse(text).as_deref(), Ok(host));
        }
    }

    #[test]
    fn urls_ports_wildcards_and_final_dots_are_not() {
        for text in [
            "",
            "https://api.mx.com",
            "api.mx.com:443",
            "*.mx.com",
            "api.mx.com.",
            "api.mx.com/x",
            "ä.example",
        ] {
            assert_eq!(parse(text), Err(NotAHost), "{text}");
        }
    }

    #[test]
    fn the_first_segment_names_the_environment_and_nothing_else_does() {
        assert_eq!(for_name("sandbox/api_key"), Some(mx::SANDBOX_HOST));
        assert_eq!(for_name("production/a/b"), Some(mx::PRODUCTION_HOST));
        assert_eq!(for_name("production"), None);
        assert_eq!(for_name("other/sandbox"), None);
    }
}
