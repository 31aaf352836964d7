//! `env:NAME`: a variable of this process. Every process of the same user can read it
//! (`/proc/PID/environ`), child processes inherit it, and the copy that the kernel made at start is
//! never wiped. It is there for platforms that offer nothing else.

use std::os::unix::ffi::OsStringExt;

use zeroize::Zeroizing;

/// The variable's bytes, or `None` when it is not set.
#[expect(clippy::disallowed_methods, reason = "this module is where secrets in the environment are read")]
pub(crate) fn read(name: &str) -> Option<Zeroizing<Vec<u8>>> {
    std::env::var_os(name).map(|value| Zeroizing::new(value.into_vec()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_variable_that_is_set_is_read_and_another_is_absent() {
        // Cargo sets this one for every test.
        assert_eq!(super::read("CARGO_PKG_NAME").unwrap().as_slice(), b"mxgate");
        assert!(super::read("MXGATE_NO_SUCH_VARIABLE").is_none());
    }
}
