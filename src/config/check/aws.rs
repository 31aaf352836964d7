//! `[aws]`.

use super::{openbao, refresh};
use crate::config::{Aws, fault::Problem, walk::Table};

/// Whether this build has what the section is about.
pub(super) const BUILT: bool = cfg!(feature = "aws");

/// `None` when it is not written, or faulty, which was reported.
pub(super) fn aws(file: &Table<'_>) -> Option<Aws> {
    let table = file.section("aws");
    let region = table.parsed("region", region);
    let endpoint = table.parsed("endpoint", |text| openbao::address(text).map(|_| text.to_owned()));
    let refresh = refresh::refresh(&table);
    let connect_timeout = table.millis("connect_timeout_ms");
    let read_timeout = table.millis("read_timeout_ms");
    if table.is_written() && !BUILT {
        file.fault("aws", not_built());
    }
    Some(Aws { region: region?, endpoint, refresh, connect_timeout, read_timeout })
}

/// What is wrong with a configuration that needs another build.
pub(super) fn not_built() -> Problem {
    Problem::new("needs AWS Secrets Manager, and this mxgate was built without it")
        .allowed("use one that was built with: cargo build --release --features aws")
}

/// It becomes part of a host's name.
fn region(text: &str) -> Result<String, Problem> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match !text.is_empty() && text.len() <= 32 && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("is no region").allowed("expected one such as \"eu-central-1\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_a_word() {
        for text in ["eu-central-1", "us-gov-west-1", "local"] {
            assert!(region(text).is_ok(), "{text}");
        }
        for text in ["", "eu central 1", "EU-CENTRAL-1", "eu.central", "eu-central-1/", "a@b", "ä"] {
            assert!(region(text).is_err(), "{text}");
        }
    }
}
