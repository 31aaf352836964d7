//! Against a stand-in for AWS: what a made-up answer could get wrong of versions and their labels.

use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinSet;

use self::server::Server;
use super::*;

#[allow(dead_code, unreachable_pub, reason = "shared with the integration tests")]
#[path = "../../../../../tests/it/aws/server.rs"]
mod server;

const PLACE: &str = "mx/new";

async fn write(aws: &Aws, place: &str, text: &str, expected: Option<&str>) -> Result<Written, Error> {
    aws.write(place, text.as_bytes(), expected).await
}

fn version(written: Result<Written, Error>) -> String {
    match written.unwrap() {
        Written::Stored(version) => version,
        Written::Conflict => panic!("a conflict"),
    }
}

/// The labels of each version that has one.
fn labels(server: &Server, name: &str) -> Vec<(String, Vec<String>)> {
    let told = server.ask("DescribeSecret", &json!({ "SecretId": name }));
    let versions = told["VersionIdsToStages"].as_object().unwrap().clone().into_iter();
    let labels = |labels: Value| serde_json::from_value::<Vec<String>>(labels).unwrap();
    versions.map(|(id, of)| (id, labels(of))).filter(|(_, of)| !of.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_who_have_read_one_version_one_wins() {
    let server = Server::start();
    let aws = Arc::new(source(&server.url(), credentials()));
    assert_eq!(reason(&aws).await, Reason::Absent);
    let first = version(write(&aws, PLACE, "k-1", None).await);
    assert_eq!(write(&aws, PLACE, "k-0", None).await.unwrap(), Written::Conflict);
    assert_eq!(aws.read(PLACE).await.unwrap().version.as_deref(), Some(first.as_str()));

    let mut all = JoinSet::new();
    for text in ["k-2", "k-3"] {
        let (aws, first) = (aws.clone(), first.clone());
        all.spawn(async move { (text, write(&aws, PLACE, text, Some(&first)).await.unwrap()) });
    }
    let written = all.join_all().await;
    let stored: Vec<_> = written.iter().filter(|(_, one)| *one != Written::Conflict).collect();
    let [(winner, Written::Stored(second))] = stored[..] else { panic!("{written:?}") };
    assert_eq!(read(&aws, PLACE).await.unwrap(), *winner);
    assert_eq!(read(&aws, &format!("{PLACE}?stage=AWSPREVIOUS")).await.unwrap(), "k-1");
    // Nothing of ours stays.
    let mut labelled = vec![
        (first.clone(), vec!["AWSPREVIOUS".to_owned()]),
        (second.clone(), vec!["AWSCURRENT".to_owned()]),
    ];
    labelled.sort();
    assert_eq!(labels(&server, PLACE), labelled);

    for stale in [&first, "", "1", &"0".repeat(32)] {
        assert_eq!(write(&aws, PLACE, "k-4", Some(stale)).await.unwrap(), Written::Conflict, "{stale}");
        assert_eq!(labels(&server, PLACE), labelled, "{stale}");
    }
    assert_eq!(read(&aws, PLACE).await.unwrap(), *winner);
    let third = version(write(&aws, PLACE, "k-4", Some(second)).await);
    assert_eq!(aws.read(PLACE).await.unwrap().version, Some(third));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_where_and_what_is_not() {
    let server = Server::start();
    let aws = source(&server.url(), credentials());
    let arn = server.create("mx", "k-1");
    let before = aws.read(&arn).await.unwrap();
    assert_eq!(before.bytes.as_slice(), b"k-1");
    let second = version(write(&aws, &arn, "k-2", before.version.as_deref()).await);
    assert_eq!(read(&aws, "mx").await.unwrap(), "k-2");
    assert_eq!(write(&aws, &arn, "k-3", None).await.unwrap(), Written::Conflict);

    assert!(matches!(aws.write("mx", b"k-3\xff", Some(&second)).await.unwrap(), Written::Stored(_)));
    assert_eq!(aws.read("mx").await.unwrap().bytes.as_slice(), b"k-3\xff");

    let too_large = "x".repeat(SECRET_BYTES_MAX + 1);
    for (place, text) in [("mx?stage=AWSPREVIOUS", "k-4"), ("mx", ""), ("mx", &too_large)] {
        let refused = write(&aws, place, text, Some(&second)).await;
        assert_eq!(refused.unwrap_err().reason(), Reason::Malformed, "{place}");
    }
    let elsewhere = write(&aws, "other", "k-4", Some(&second)).await;
    assert_eq!(elsewhere.unwrap_err().reason(), Reason::Absent);
    server.ask("DeleteSecret", &json!({ "SecretId": "mx" }));
    assert_eq!(reason(&aws).await, Reason::Absent);
    let current = aws.read("mx").await.err().unwrap();
    assert_eq!(current.reason(), Reason::Absent);
}
