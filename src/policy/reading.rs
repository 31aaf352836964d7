//! What else a lax server could take a path for.
//!
//! A path is matched as it was received, and MX is trusted to do the same. Should a server on the way decode `%2F`,
//! merge slashes, cut at an encoded `?`, drop `;x` or fold case, `/users/U%2Fmembers` would be another operation than the
//! one that was allowed. In: a path that is one target. Out: how it would read then, so that policy can ask for both.
//! Almost no path has anything of this; the look for it allocates nothing.

use percent_encoding::percent_decode_str;

/// What a path would be to a lax server; with a format's suffix (`.json`) at its end, also without.
pub(crate) fn other_readings(path: &str) -> impl Iterator<Item = String> {
    let lax = is_ambiguous(path).then(|| lax(path));
    let without_format = lax.as_deref().and_then(without_format).map(str::to_owned);
    lax.into_iter().chain(without_format)
}

/// Whether there is something that may end or divide a segment for some servers.
fn is_ambiguous(path: &str) -> bool {
    let escapes = [b"%2F", b"%3F", b"%23", b"%3B"];
    memchr::memchr2_iter(b'%', b';', path.as_bytes()).any(|at| {
        let here = path.as_bytes().get(at..at + 3);
        path.as_bytes().get(at) == Some(&b';') || escapes.iter().any(|escape| here == Some(&escape[..]))
    })
}

fn lax(path: &str) -> String {
    // `Target` has seen to it that what is decoded is UTF-8, and that it is not encoded a second time.
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let path = decoded.split(['?', '#']).next().unwrap_or_default();
    let segments = path.split('/').filter_map(|segment| segment.split(';').next());
    segments.filter(|segment| !segment.is_empty()).flat_map(|segment| ["/", segment]).collect()
}

/// Without what could name a format at its end.
pub(crate) fn without_format(path: &str) -> Option<&str> {
    let (before, format) = path.rsplit_once('.')?;
    (!format.contains('/') && !before.ends_with('/')).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_without_anything_of_it_reads_one_way() {
        for path in ["/users/U/members", "/users/a%20%C3%BC%40b", "/users/U/members/M/statements/S.pdf"] {
            assert_eq!(other_readings(path).count(), 0, "{path}");
        }
    }

    #[test]
    fn the_others_are_decoded_merged_and_cut() {
        for (path, expected) in [
            ("/users/U%2Fmembers", vec!["/users/U/members"]),
            ("/users/U%2F%2Fmembers%2F", vec!["/users/U/members"]),
            ("/users/U%3Fx/members", vec!["/users/U"]),
            ("/users/U%23x", vec!["/users/U"]),
            ("/users/;x/members", vec!["/users/members"]),
            ("/users/U%3Bx%2Fmembers", vec!["/users/U/members"]),
            ("/users/U%2Fmembers.json", vec!["/users/U/members.json", "/users/U/members"]),
            ("/a%2F.json", vec!["/a/.json"]),
        ] {
            assert_eq!(other_readings(path).collect::<Vec<_>>(), expected, "{path}");
        }
    }
}
