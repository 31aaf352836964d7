//! The source against a server that gives the answers that AWS documents, and against a stand-in for AWS.

mod real;

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, error::CredentialsError, future},
};
use serde_json::json;

use self::answering::Answering;
use super::*;
use crate::vault::source::{Error, Reason};

#[allow(dead_code, unreachable_pub, reason = "shared with the integration tests")]
#[path = "../../../../tests/it/aws/answering.rs"]
mod answering;

const ACCESS_KEY: &str = "s3cret-access-k3y-of-the-tests";

fn credentials() -> Credentials {
    Credentials::new("AKIDTEST", ACCESS_KEY, None, None, "test")
}

/// A source that asks there.
fn source(endpoint: &str, credentials: impl ProvideCredentials + 'static) -> Aws {
    let settings = config::Aws {
        region: "eu-central-1".into(),
        endpoint: Some(endpoint.into()),
        refresh: config::Refresh::NEVER,
        connect_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(10),
    };
    Aws { credentials: Some(SharedCredentialsProvider::new(credentials)), ..Aws::new(&settings) }
}

fn asking(server: &Answering) -> Aws {
    source(&format!("http://{}", server.address), credentials())
}

async fn read(aws: &Aws, place: &str) -> Result<String, Error> {
    Ok(String::from_utf8(aws.read(place).await?.bytes.to_vec()).unwrap())
}

async fn reason(aws: &Aws) -> Reason {
    read(aws, "mx").await.expect_err("no document").reason()
}

fn value(more: serde_json::Value) -> String {
    let mut body = json!({ "Name": "mx", "VersionId": "0123456789abcdef0123456789abcdef" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body.to_string()
}

#[tokio::test]
async fn a_text_or_bytes_come_with_the_id_of_their_version_and_what_is_asked_is_signed() {
    let server = Answering::start();
    let aws = asking(&server);
    server.answer(200, &value(json!({ "SecretString": "{\"api_key\":\"k-1\"}" })));
    let document = aws.read("mx/production").await.unwrap();
    assert_eq!(document.bytes.as_slice(), br#"{"api_key":"k-1"}"#);
    assert_eq!(document.version.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    server.answer(200, &value(json!({ "SecretBinary": "ay0yAP8=" })));
    assert_eq!(aws.read("mx?stage=AWSPREVIOUS").await.unwrap().bytes.as_slice(), b"k-2\0\xff");

    let requests = server.requests();
    for (request, asked) in requests.iter().zip([
        r#"{"SecretId":"mx/production","VersionStage":"AWSCURRENT"}"#,
        r#"{"SecretId":"mx","VersionStage":"AWSPREVIOUS"}"#,
    ]) {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert_eq!(body, asked);
        let host = format!("host: {}", server.address);
        for line in ["post / http/1.1", "x-amz-target: secretsmanager.getsecretvalue", &host] {
            assert!(head.lines().any(|one| one == line), "{line}: {head}");
        }
        assert_eq!(head.matches("host: ").count(), 1, "{head}");
        let signed = head.lines().find(|line| line.starts_with("authorization: ")).unwrap();
        assert!(signed.contains("credential=akidtest/") && signed.contains("/eu-central-1/secretsmanager/"));
        assert!(signed.contains("signedheaders=") && signed.contains("host;"), "{signed}");
        assert!(!request.contains(ACCESS_KEY));
    }
}

#[tokio::test]
async fn every_answer_of_aws_means_what_it_says() {
    let server = Answering::start();
    let aws = asking(&server);
    for (status, code, expected) in [
        (400, "ResourceNotFoundException", Reason::Absent),
        (400, "AccessDeniedException", Reason::Denied),
        (400, "DecryptionFailure", Reason::Denied),
        (400, "ExpiredTokenException", Reason::Login),
        (400, "UnrecognizedClientException", Reason::Login),
        (400, "InvalidSignatureException", Reason::Login),
        (400, "ThrottlingException", Reason::Unreachable),
        (400, "InvalidRequestException", Reason::Unreachable),
        (400, "InvalidParameterException", Reason::Unreachable),
        (500, "InternalServiceError", Reason::Unreachable),
        (400, "com.amazonaws.secretsmanager#ResourceNotFoundException", Reason::Absent),
    ] {
        server.fail(status, code, "the-secret-itself");
        let error = read(&aws, "mx").await.expect_err("no document");
        assert_eq!(error.reason(), expected, "{code}");
        assert!(!format!("{error:?}").contains("the-secret-itself"), "{code} {error:?}");
    }
    let deleted = "You can't perform this operation on the secret because it was marked for deletion.";
    server.fail(400, "InvalidRequestException", deleted);
    assert_eq!(reason(&aws).await, Reason::Absent);
    server.answer(200, &value(json!({ "SecretString": "k-1" })));
    assert_eq!(read(&aws, "mx").await.unwrap(), "k-1");
}

#[tokio::test]
async fn what_no_secrets_manager_answers_is_no_secret_and_not_absent() {
    let server = Answering::start();
    let aws = asking(&server);
    for (status, body, expected) in [
        (404, "<html>not here</html>", Reason::Malformed),
        (403, "<html>go away</html>", Reason::Malformed),
        (307, "", Reason::Malformed),
        (503, "<html>later</html>", Reason::Unreachable),
        (429, "", Reason::Unreachable),
        (200, "no JSON", Reason::Malformed),
        (200, "{}", Reason::Malformed),
        (200, r#"{"SecretString":"a","SecretBinary":"YQ=="}"#, Reason::Malformed),
    ] {
        server.answer_with(status, "Location: http://127.0.0.1:1/\r\n", body);
        assert_eq!(reason(&aws).await, expected, "{status} {body}");
    }
    for (bytes, expected) in [(SECRET_BYTES_MAX, None), (SECRET_BYTES_MAX + 1, Some(Reason::TooLarge))] {
        server.answer(200, &value(json!({ "SecretString": "x".repeat(bytes) })));
        assert_eq!(read(&aws, "mx").await.err().map(|error| error.reason()), expected, "{bytes}");
    }
    server.answer(200, &value(json!({ "SecretString": "x".repeat(8 * SECRET_BYTES_MAX) })));
    assert_eq!(reason(&aws).await, Reason::TooLarge);
}

#[tokio::test]
async fn silence_and_nobody_are_told_apart_and_each_request_is_tried_once() {
    let server = Answering::start();
    server.fail(500, "InternalServiceError", "");
    let aws = asking(&server);
    assert_eq!(reason(&aws).await, Reason::Unreachable);
    assert_eq!(server.requests().len(), 1);
    server.be_silent();
    let settings = config::Aws { read_timeout: Duration::from_millis(100), ..aws.settings.clone() };
    let aws = Aws { credentials: aws.credentials.clone(), ..Aws::new(&settings) };
    assert_eq!(reason(&aws).await, Reason::Timeout);
    assert_eq!(server.requests().len(), 2);

    let nobody = format!("http://{}", crate::free_address::free_address());
    assert_eq!(reason(&source(&nobody, credentials())).await, Reason::Unreachable);
    // Secrets are asked for over TLS, or on this machine.
    let error = read(&source("http://192.0.2.1", credentials()), "mx").await.expect_err("no document");
    assert!(format!("{error:?}").contains("Plain"), "{error:?}");
}

/// Credentials that are counted, or none.
#[derive(Debug, Clone, Default)]
struct Counted(std::sync::Arc<AtomicUsize>);

impl ProvideCredentials for Counted {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.0.fetch_add(1, Ordering::Relaxed);
        future::ProvideCredentials::ready(Ok(credentials()))
    }
}

#[derive(Debug)]
struct Nobody;

impl ProvideCredentials for Nobody {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("the-file-with-a-key")))
    }
}

#[tokio::test]
async fn credentials_that_are_not_taken_are_looked_for_anew_and_others_are_kept() {
    let server = Answering::start();
    let counted = Counted::default();
    let aws = source(&format!("http://{}", server.address), counted.clone());
    let count = || counted.0.load(Ordering::Relaxed);
    for code in ["AccessDeniedException", "ThrottlingException", "ResourceNotFoundException"] {
        server.fail(400, code, "");
        assert!(read(&aws, "mx").await.is_err());
        assert_eq!(count(), 1, "{code}");
    }
    server.fail(400, "ExpiredTokenException", "");
    assert_eq!(reason(&aws).await, Reason::Login);
    assert_eq!(count(), 1);
    server.answer(200, &value(json!({ "SecretString": "k-1" })));
    assert_eq!(read(&aws, "mx").await.unwrap(), "k-1");
    assert_eq!(count(), 2);
}

#[tokio::test]
async fn without_credentials_nothing_is_asked() {
    let server = Answering::start();
    let aws = source(&format!("http://{}", server.address), Nobody);
    let error = read(&aws, "mx").await.expect_err("no document");
    assert_eq!(error.reason(), Reason::Login);
    assert!(!format!("{error:?}").contains("the-file-with-a-key"), "{error:?}");
    assert!(server.requests().is_empty());
}
