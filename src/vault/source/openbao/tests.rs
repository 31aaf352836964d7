//! The source against a server that is made up, on paused time: logins, renewals, and every way to fail.

mod fake;
mod login;
mod real;
mod writing;

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use self::fake::{Fake, KEY};
use super::*;
use crate::vault::source::{Error, Reason};

/// The document at a place, as text.
async fn read(bao: &OpenBao<Fake>, place: &str) -> Result<String, Error> {
    let document = bao.read(place).await?;
    Ok(String::from_utf8(document.bytes.to_vec()).unwrap())
}

fn reason(result: Result<String, Error>) -> Reason {
    result.expect_err("no document").reason()
}

#[tokio::test(start_paused = true)]
async fn a_document_comes_with_its_version() {
    let fake = Fake::new();
    let bao = fake.source();
    let document = bao.read("secret/mx").await.unwrap();
    assert_eq!(String::from_utf8(document.bytes.to_vec()).unwrap(), KEY);
    assert_eq!(document.version.as_deref(), Some("1"));
    fake.put("secret/data/mx", r#"{"api_key":"k-another"}"#);
    assert_eq!(bao.read("secret/mx").await.unwrap().version.as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn absent_deleted_denied_sealed_and_down_are_told_apart() {
    let fake = Fake::new();
    let bao = fake.source();
    assert_eq!(reason(read(&bao, "secret/other").await), Reason::Absent);
    assert_eq!(reason(read(&bao, "closed/mx").await), Reason::Denied);
    fake.delete("secret/data/mx");
    assert_eq!(reason(read(&bao, "secret/mx").await), Reason::Absent);
    fake.put("secret/data/mx", KEY);
    assert!(read(&bao, "secret/mx").await.is_ok());
    for (state, expected) in [
        (fake::State::Sealed, Reason::Sealed),
        (fake::State::Standby, Reason::Unreachable),
        (fake::State::Down, Reason::Unreachable),
        (fake::State::Silent, Reason::Timeout),
        (fake::State::Babbling, Reason::Malformed),
    ] {
        fake.set_state(state);
        assert_eq!(reason(read(&bao, "secret/mx").await), expected, "{state:?}");
    }
    fake.set_state(fake::State::Up);
    assert!(read(&bao, "secret/mx").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_mount_is_the_first_segment_or_one_that_is_listed() {
    let fake = Fake::new();
    let mut bao = fake.source();
    bao.mounts = vec!["team/kv".into(), "team/kv/deep".into()];
    for (place, path) in [
        ("secret/mx", "secret/data/mx"),
        ("secret/mx/api", "secret/data/mx/api"),
        ("team/kv/mx", "team/kv/data/mx"),
        ("team/kv/deep/mx", "team/kv/deep/data/mx"),
        ("team/kvx/mx", "team/data/kvx/mx"),
        ("team/mx", "team/data/mx"),
        ("secret/ä b?c", "secret/data/%C3%A4%20b%3Fc"),
    ] {
        assert_eq!(bao.path(place).unwrap(), path, "{place}");
    }
    for place in ["secret", "", "/", "secret/", "/mx", "secret//mx", "secret/../mx", "secret/.", "team/kv"] {
        let path = bao.path(place);
        // Without a segment below it, a listed mount is taken for a path of the first segment.
        assert!(path.is_err() || place == "team/kv", "{place} {path:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn renewals_end_with_the_source() {
    let fake = Fake::new();
    let bao = fake.source();
    assert!(read(&bao, "secret/mx").await.is_ok());
    sleep(Duration::from_secs(130)).await;
    let renewals = fake.count("renew");
    assert!(renewals >= 2, "{renewals}");
    drop(bao);
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(fake.count("renew"), renewals);
}
