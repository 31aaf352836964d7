//! Keeps web pages in somebody's browser from driving the gateway.
//!
//! In: the request's `Host`, `Origin` and `Sec-Fetch-Site`, and the listener's [`Rules`]. Out: nothing,
//! or a [`Refusal`]. The data plane and the health listener use this same check.
//!
//! Two attacks are meant. *DNS rebinding*: a page's own name is pointed at 127.0.0.1, so that for the
//! browser it is the same origin; only `Host` still shows the name. *Cross-site requests*: a page sends
//! a request it may not read the answer of; the browser marks it with `Origin` or `Sec-Fetch-Site`
//! (Fetch Metadata), which no script can forge. Programs that are no browsers send neither.
//!
//! What must never happen: a value that is not understood passes. All comparisons are exact, but for
//! the case of ASCII letters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, HeaderName, header};

use crate::refusal::Refusal;

/// What one listener answers to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    /// The listener is bound to a loopback TCP address, so `Host` has to name it. Another listener is
    /// reached under names that only the operator knows: it checks them when `hosts` lists them.
    pub loopback: bool,
    /// Names (lower case, no port) that are answered besides `localhost` and address literals; on a
    /// loopback listener, loopback ones. Rebinding needs a name, so a literal is no danger.
    pub hosts: &'a [String],
    /// Values of `Origin` (lower case) that may call. `null` never may: any sandboxed frame has it.
    pub origins: &'a [String],
}

/// Checks one request's values; `None` stands for an absent field.
///
/// # Errors
/// [`Refusal::MisdirectedRequest`] (421) when `host` is checked and is absent or names
/// something else; [`Refusal::BrowserNotAllowed`] (403) for an `origin` that is not in
/// [`Rules::origins`], and for a `sec_fetch_site` other than `none` without an allowed origin.
pub(crate) fn check(
    host: Option<&[u8]>,
    origin: Option<&[u8]>,
    sec_fetch_site: Option<&[u8]>,
    rules: &Rules<'_>,
) -> Result<(), Refusal> {
    let checked = rules.loopback || !rules.hosts.is_empty();
    if checked && !host.is_some_and(|host| names_listener(host, rules)) {
        return Err(Refusal::MisdirectedRequest);
    }
    match (origin, sec_fetch_site) {
        (Some(origin), _) if is_allowed_origin(origin, rules.origins) => Ok(()),
        (Some(_), _) => Err(Refusal::BrowserNotAllowed),
        // `none`: a person typed the address, no page asked for it.
        (None, None | Some(b"none")) => Ok(()),
        (None, Some(_)) => Err(Refusal::BrowserNotAllowed),
    }
}

/// [`check`] for a parsed head. A field that occurs twice is refused as if its value were wrong, and
/// the authority of an absolute-form target has to pass as well as `Host` (RFC 9112, 3.2.2).
///
/// # Errors
/// As [`check`].
pub(crate) fn check_head(head: &http::request::Parts, rules: &Rules<'_>) -> Result<(), Refusal> {
    let host = only(&head.headers, header::HOST).map_err(|()| Refusal::MisdirectedRequest)?;
    let origin = only(&head.headers, header::ORIGIN).map_err(|()| Refusal::BrowserNotAllowed)?;
    let site = only(&head.headers, SEC_FETCH_SITE).map_err(|()| Refusal::BrowserNotAllowed)?;
    if let Some(authority) = head.uri.authority() {
        check(Some(authority.as_str().as_bytes()), origin, site, rules)?;
    }
    check(host, origin, site, rules)
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The one value of `name`; `Err` when there are several.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&[u8]>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first.map(http::HeaderValue::as_bytes)),
        _ => Err(()),
    }
}

fn is_allowed_origin(origin: &[u8], allowed: &[String]) -> bool {
    !origin.eq_ignore_ascii_case(b"null")
        && allowed.iter().any(|one| origin.eq_ignore_ascii_case(one.as_bytes()))
}

/// Whether `host` (with or without a port) is `localhost`, an acceptable address or one of `hosts`.
fn names_listener(host: &[u8], rules: &Rules<'_>) -> bool {
    let accepts = |address: IpAddr| !rules.loopback || address.to_canonical().is_loopback();
    let Ok(host) = std::str::from_utf8(host) else { return false };
    if let Some(rest) = host.strip_prefix('[') {
        let Some((literal, port)) = rest.split_once(']') else { return false };
        return is_port_or_nothing(port)
            && literal.parse::<Ipv6Addr>().is_ok_and(|address| accepts(address.into()));
    }
    let end = host.find(':').unwrap_or(host.len());
    let (name, port) = host.split_at(end);
    is_port_or_nothing(port)
        && (name.eq_ignore_ascii_case("localhost")
            // Only the one spelling: no `127.1`, no octal, no trailing dot.
            || name.parse::<Ipv4Addr>().is_ok_and(|address| accepts(address.into()))
            || rules.hosts.iter().any(|one| !one.is_empty() && name.eq_ignore_ascii_case(one)))
}

/// Nothing, or a colon and 1 to 5 digits that fit 16 bits.
fn is_port_or_nothing(rest: &str) -> bool {
    match rest.strip_prefix(':') {
        None => rest.is_empty(),
        // `u16::from_str` also takes a leading `+`.
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Rules<'_> = Rules { loopback: false, hosts: &[], origins: &[] };
    const LOOPBACK: Rules<'_> = Rules { loopback: true, hosts: &[], origins: &[] };

    #[test]
    fn a_loopback_listener_answers_to_loopback_names() {
        for host in [
            "localhost",
            "LocalHost",
            "localhost:8080",
            "127.0.0.1",
            "127.0.0.1:1",
            "127.255.0.9:65535",
            "[::1]",
            "[::1]:8080",
            "[0:0:0:0:0:0:0:1]:8080",
            "[::ffff:127.0.0.1]:8080",
        ] {
            assert_eq!(check(Some(host.as_bytes()), None, None, &LOOPBACK), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_loopback_listener_answers_to_no_other_name() {
        for host in [
            "",
            " ",
            ":8080",
            "evil.com",
            "127.0.0.1.evil.com",
            "127.0.0.1.evil.com:8080",
            "localhost.evil.com",
            "localhost.",
            "localhost.:8080",
            "127.0.0.1.",
            "127.1",
            "127.0.0.01",
            "0x7f.0.0.1",
            "2130706433",
            "0.0.0.0",
            "10.0.0.1",
            "::1",
            "[::1",
            "[::1]8080",
            "[::1]:",
            "[::1]:8080:8080",
            "[::1]evil.com",
            "[::1%25lo]:8080",
            "[::2]",
            "[127.0.0.1]",
            "[]",
            "localhost:",
            "localhost:+80",
            "localhost:65536",
            "localhost:80a",
            "localhost:80, evil.com",
            "localhost, localhost",
            "user@localhost",
            "evil.com@localhost",
            "localhost/",
            " localhost",
        ] {
            let got = check(Some(host.as_bytes()), None, None, &LOOPBACK);
            assert_eq!(got, Err(Refusal::MisdirectedRequest), "{host}");
        }
        assert_eq!(check(Some(b"local\xffhost"), None, None, &LOOPBACK), Err(Refusal::MisdirectedRequest));
        assert_eq!(check(None, None, None, &LOOPBACK), Err(Refusal::MisdirectedRequest));
    }

    #[test]
    fn another_listener_checks_names_when_it_has_some_and_takes_any_address() {
        let hosts = ["mxgate.internal".to_owned()];
        let named = Rules { hosts: &hosts, ..OPEN };
        for host in ["mxgate.internal:8080", "10.0.0.5", "[2001:db8::1]:8080", "localhost"] {
            assert_eq!(check(Some(host.as_bytes()), None, None, &named), Ok(()), "{host}");
        }
        // A page's own name, pointed here: the browser sends neither Origin nor Sec-Fetch-Site with a GET.
        for host in ["evil.example:8080", "10.0.0.5.evil.example"] {
            let got = check(Some(host.as_bytes()), None, None, &named);
            assert_eq!(got, Err(Refusal::MisdirectedRequest), "{host}");
            assert_eq!(check(Some(host.as_bytes()), None, None, &OPEN), Ok(()), "no names are listed");
        }
    }

    #[test]
    fn configured_hosts_are_answered_exactly() {
        let hosts = ["mx.internal".to_owned(), String::new()];
        let rules = Rules { hosts: &hosts, ..LOOPBACK };
        for host in ["mx.internal", "MX.Internal:8080"] {
            assert_eq!(check(Some(host.as_bytes()), None, None, &rules), Ok(()), "{host}");
        }
        // The empty entry makes no empty host pass.
        for host in ["mx.internal.", "a.mx.internal", "mx.internal.evil.com", "", ":80"] {
            let got = check(Some(host.as_bytes()), None, None, &rules);
            assert_eq!(got, Err(Refusal::MisdirectedRequest), "{host}");
        }
    }

    #[test]
    fn other_listeners_do_not_look_at_the_host() {
        for host in [Some(&b"anything.example"[..]), Some(b""), None] {
            assert_eq!(check(host, None, None, &OPEN), Ok(()));
        }
    }

    #[test]
    fn an_origin_is_refused_unless_it_is_configured() {
        let origins = ["https://app.example".to_owned(), "null".to_owned()];
        let rules = Rules { origins: &origins, ..OPEN };
        for origin in ["https://app.example", "HTTPS://App.Example"] {
            assert_eq!(check(None, Some(origin.as_bytes()), None, &rules), Ok(()), "{origin}");
            let unconfigured = check(None, Some(origin.as_bytes()), None, &OPEN);
            assert_eq!(unconfigured, Err(Refusal::BrowserNotAllowed), "{origin}");
        }
        for origin in [
            "",
            "null",
            "NULL",
            "http://app.example",
            "https://app.example:443",
            "https://app.example.evil.com",
            "https://app.example/",
            "https://app.example, https://evil.com",
            "https://app.example https://evil.com",
        ] {
            let got = check(None, Some(origin.as_bytes()), None, &rules);
            assert_eq!(got, Err(Refusal::BrowserNotAllowed), "{origin}");
        }
    }

    #[test]
    fn fetch_metadata_is_refused_unless_nobody_but_a_person_asked() {
        assert_eq!(check(None, None, Some(b"none"), &OPEN), Ok(()));
        for site in ["cross-site", "same-site", "same-origin", "", "None", "none, none", "unknown"] {
            let got = check(None, None, Some(site.as_bytes()), &OPEN);
            assert_eq!(got, Err(Refusal::BrowserNotAllowed), "{site}");
        }
    }

    #[test]
    fn an_allowed_origin_explains_its_fetch_metadata_and_another_does_not() {
        let origins = ["https://app.example".to_owned()];
        let rules = Rules { origins: &origins, ..OPEN };
        assert_eq!(check(None, Some(b"https://app.example"), Some(b"cross-site"), &rules), Ok(()));
        let other = check(None, Some(b"https://evil.com"), Some(b"none"), &rules);
        assert_eq!(other, Err(Refusal::BrowserNotAllowed));
    }

    #[test]
    fn an_allowed_origin_does_not_excuse_the_host() {
        let origins = ["https://app.example".to_owned()];
        let rules = Rules { origins: &origins, ..LOOPBACK };
        let got = check(Some(b"evil.com"), Some(b"https://app.example"), None, &rules);
        assert_eq!(got, Err(Refusal::MisdirectedRequest));
    }

    fn head(uri: &str, fields: &[(&str, &str)]) -> http::request::Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn each_field_counts_once() {
        let one = [("host", "localhost")];
        assert_eq!(check_head(&head("/", &one), &LOOPBACK), Ok(()));

        let two_hosts = [("host", "localhost"), ("host", "localhost")];
        assert_eq!(check_head(&head("/", &two_hosts), &LOOPBACK), Err(Refusal::MisdirectedRequest));

        let origins = ["https://app.example".to_owned()];
        let rules = Rules { origins: &origins, ..OPEN };
        let two_origins = [("origin", "https://app.example"), ("origin", "https://evil.com")];
        assert_eq!(check_head(&head("/", &two_origins), &rules), Err(Refusal::BrowserNotAllowed));

        let two_sites = [("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")];
        assert_eq!(check_head(&head("/", &two_sites), &OPEN), Err(Refusal::BrowserNotAllowed));
    }

    #[test]
    fn an_absolute_target_has_to_name_the_listener_too() {
        let fields = [("host", "localhost")];
        assert_eq!(check_head(&head("http://127.0.0.1:9/livez", &fields), &LOOPBACK), Ok(()));
        let got = check_head(&head("http://evil.com/livez", &fields), &LOOPBACK);
        assert_eq!(got, Err(Refusal::MisdirectedRequest));
    }
}
