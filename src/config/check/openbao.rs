//! `[openbao]`.

use super::{network::is_loopback, refresh};
use crate::config::{BaoLogin, OpenBao, fault::Problem, walk::Table};

const URL: &str = "expected \"https://HOST\" or \"https://HOST:PORT\", with http:// only for localhost and loopback addresses";

/// `None` when it is not written, or faulty, which was reported.
pub(super) fn openbao(table: &Table<'_>) -> Option<OpenBao> {
    let address = table.parsed("url", address);
    let mounts = table.list("mounts", several_segments);
    let ca_file = table.path("ca_file");
    if ca_file.is_some() && matches!(address, Some((false, ..))) {
        table.fault("ca_file", "is for https://, and the url begins with http://");
    }
    let namespace = table.parsed("namespace", path);
    let login = login(table);
    let refresh = refresh::refresh(table);
    let connect_timeout = table.millis("connect_timeout_ms");
    let read_timeout = table.millis("read_timeout_ms");
    let (tls, host, port) = address?;
    Some(OpenBao {
        host,
        port,
        tls,
        mounts,
        ca_file,
        namespace,
        login: login?,
        refresh,
        connect_timeout,
        read_timeout,
    })
}

fn login(openbao: &Table<'_>) -> Option<BaoLogin> {
    let (kind, table) = openbao.variant("login")?;
    if kind == "token" {
        return Some(BaoLogin::Token { token: table.reference("token")? });
    }
    let mount = table.parsed("mount", path);
    if kind == "approle" {
        let (role_id, secret_id) = (table.parsed("role_id", name), table.reference("secret_id"));
        return Some(BaoLogin::AppRole { mount: mount?, role_id: role_id?, secret_id: secret_id? });
    }
    let (role, jwt) = (table.parsed("role", name), table.reference("jwt"));
    Some(BaoLogin::Jwt { mount: mount?, role: role?, jwt: jwt? })
}

/// Whether with TLS, host and port.
pub(super) fn address(text: &str) -> Result<(bool, String, u16), Problem> {
    let malformed = || Problem::new("is no address of a server").allowed(URL);
    let uri: http::Uri = text.parse().map_err(|_| malformed())?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(malformed()),
    };
    let authority = uri.authority().ok_or_else(malformed)?;
    let (host, rest) = (authority.host(), authority.as_str().strip_prefix(authority.host()));
    // `http::Uri` cuts a fragment off without a word; user information stands before the host.
    if host.is_empty() || text.contains('#') || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(malformed());
    }
    let port = match rest {
        Some("") => {
            if tls {
                443
            } else {
                80
            }
        }
        // A port that is no number, or none behind its colon.
        Some(_) => authority.port_u16().filter(|port| *port != 0).ok_or_else(malformed)?,
        None => return Err(malformed()),
    };
    if !tls && !is_loopback(host) {
        let problem = Problem::new("would send secrets without TLS to another machine");
        return Err(problem.allowed(URL));
    }
    Ok((tls, host.to_ascii_lowercase(), port))
}

/// Segments as a mount or a namespace has them.
fn path(text: &str) -> Result<String, Problem> {
    let is_segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%\\".contains(&byte))
    };
    match text.split('/').all(is_segment) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("is no path of a mount")
            .allowed("segments joined by single /, none at either end, without ? # % and \\")),
    }
}

fn several_segments(text: &str) -> Result<String, Problem> {
    let mount = path(text)?;
    match mount.contains('/') {
        true => Ok(mount),
        false => Err(Problem::new("has one segment").allowed("leave it out: the first segment is the mount")),
    }
}

/// What is sent as it is, as a JSON text.
fn name(text: &str) -> Result<String, Problem> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("is empty, or holds a blank or a byte that is not ASCII")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_over_tls_or_on_this_machine() {
        for (text, expected) in [
            ("https://bao.example", (true, "bao.example", 443)),
            ("https://BAO.example:8200/", (true, "bao.example", 8200)),
            ("https://[2001:db8::1]:8200", (true, "[2001:db8::1]", 8200)),
            ("http://localhost:8200", (false, "localhost", 8200)),
            ("http://127.0.0.9", (false, "127.0.0.9", 80)),
            ("http://[::1]:8200", (false, "[::1]", 8200)),
        ] {
            let (tls, host, port) = expected;
            assert_eq!(address(text), Ok((tls, host.to_owned(), port)), "{text}");
        }
        for text in [
            "",
            "bao.example",
            "https://",
            "ftp://bao.example",
            "http://bao.example",
            "http://10.0.0.1:8200",
            "http://localhost.example",
            "http://[2001:db8::1]",
            "https://user@bao.example",
            "https://user:word@bao.example:8200",
            "https://bao.example:0",
            "https://bao.example:",
            "https://bao.example:http",
            "https://bao.example/v1",
            "https://bao.example/?a=b",
            "https://bao.example/#a",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn mounts_and_namespaces_are_paths() {
        for text in ["approle", "auth-1/approle", "team.a/b_c"] {
            assert!(path(text).is_ok(), "{text}");
        }
        for text in ["", "/", "/a", "a/", "a//b", ".", "a/../b", "a?b", "a#b", "a%2fb", "a b", "ä", "a\\b"] {
            assert!(path(text).is_err(), "{text}");
        }
        assert!(several_segments("team/kv").is_ok());
        assert!(several_segments("secret").is_err());
    }

    #[test]
    fn a_role_is_a_word() {
        assert!(name("5fbc-42").is_ok());
        for text in ["", "a b", "a\n", "ä"] {
            assert!(name(text).is_err(), "{text}");
        }
    }
}
