//! Check-and-set.

use super::*;

const PATH: &str = "secret/data/mx";

async fn write(bao: &OpenBao<Fake>, document: &str, expected: Option<&str>) -> Result<Written, Error> {
    bao.write("secret/mx", document.as_bytes(), expected).await
}

fn stored(version: &str) -> Written {
    Written::Stored(version.into())
}

#[tokio::test(start_paused = true)]
async fn only_the_version_that_was_read_is_replaced() {
    let fake = Fake::new();
    let bao = fake.source();
    assert_eq!(write(&bao, r#"{"a":"1"}"#, Some("1")).await.unwrap(), stored("2"));
    for stale in ["1", "3", "0", "", "x", "-1"] {
        assert_eq!(write(&bao, r#"{"a":"2"}"#, Some(stale)).await.unwrap(), Written::Conflict, "{stale}");
    }
    assert_eq!(fake.entry(PATH).unwrap()["a"], "1");
}

#[tokio::test(start_paused = true)]
async fn what_must_not_exist_is_made_once_and_again_after_it_was_deleted() {
    let fake = Fake::new();
    let bao = fake.source();
    assert_eq!(write(&bao, r#"{"a":"1"}"#, None).await.unwrap(), Written::Conflict);
    fake.delete(PATH);
    assert_eq!(write(&bao, r#"{"a":"1"}"#, None).await.unwrap(), stored("2"));
    assert_eq!(write(&bao, r#"{"a":"2"}"#, None).await.unwrap(), Written::Conflict);
    assert_eq!(fake.entry(PATH).unwrap()["a"], "1");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_document_is_not_written() {
    let fake = Fake::new();
    let bao = fake.source();
    for document in ["", "text", "[1]", "{"] {
        assert_eq!(
            write(&bao, document, Some("1")).await.unwrap_err().reason(),
            Reason::Malformed,
            "{document}"
        );
    }
    assert_eq!(fake.count("write"), 0);
    fake.set_state(fake::State::Sealed);
    assert_eq!(write(&bao, "{}", Some("1")).await.unwrap_err().reason(), Reason::Sealed);
}
