//! `env:NAME`: a variable of this process. Every process of the same user can read it
//! (`/proc/PID/environ`), child processes inherit it, and the copy that the kernel made at start is
//! never wiped. It is there for platforms that offer nothing else. Nobody can change it while the process runs, so
//! that it is read at loads only, and is good for as long as the process lives.

use std::os::unix::ffi::OsStringExt;

use zeroize::Zeroizing;

use super::{Document, Error, Reading, Source};

/// Variables of this process.
#[derive(Debug)]
pub(in crate::vault) struct Env;

impl Source for Env {
    fn read<'a>(&'a self, place: &'a str) -> Reading<'a, Document> {
        let found = read(place).map(|bytes| Document { bytes, version: None, written: None });
        Box::pin(async { found.ok_or(Error::Absent) })
    }
}

/// The variable's bytes, or `None` when it is not set.
#[expect(clippy::disallowed_methods, reason = "this module is where secrets in the environment are read")]
pub(crate) fn read(name: &str) -> Option<Zeroizing<Vec<u8>>> {
    std::env::var_os(name).map(|value| Zeroizing::new(value.into_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_variable_that_is_set_is_read_and_another_is_absent() {
        // Cargo sets this one for every test.
        assert_eq!(read("CARGO_PKG_NAME").unwrap().as_slice(), b"mxgate");
        assert_eq!(Env.read("CARGO_PKG_NAME").await.ok().unwrap().bytes.as_slice(), b"mxgate");
        assert!(matches!(Env.read("MXGATE_NO_SUCH_VARIABLE").await.err(), Some(Error::Absent)));
    }
}
