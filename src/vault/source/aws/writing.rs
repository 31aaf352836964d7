//! A new version in the place of one that was read, and of no other.
//!
//! Secrets Manager has no compare-and-swap, and yet one step that is one. The new version is put under a label of ours,
//! which nobody reads by; then `AWSCURRENT` is moved from the version that was expected to the new one. AWS documents
//! of that step that it fails when the label is attached to another version than the one that it is to be taken from,
//! or to any when none is named; so of many writers who have read one version, one wins. A loser leaves a version
//! without a label, which nothing reads and AWS removes in time. `AWSPREVIOUS` follows `AWSCURRENT` by itself.
//!
//! What is not guaranteed: a write whose answer is lost may have happened; who reads again sees. The label is one for
//! all: a writer that dies leaves at most one version with it, and the next writer takes the label from it.

use aws_sdk_secretsmanager::{
    Client,
    error::SdkError,
    operation::{
        create_secret::CreateSecretError, describe_secret::DescribeSecretError,
        update_secret_version_stage::UpdateSecretVersionStageError,
    },
    primitives::Blob,
};

use super::{Aws, CURRENT, Fault};
use crate::vault::{
    reference::AwsPlace,
    source::{Written, file::SECRET_BYTES_MAX},
};

/// What a version is called until it is the current one.
const PENDING: &str = "mxgate-pending";

/// What is written: a text where it is one, as the console shows it.
enum Value<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl Aws {
    pub(super) async fn store(
        &self,
        place: &str,
        document: &[u8],
        expected: Option<&str>,
    ) -> Result<Written, Fault> {
        let AwsPlace { id, is_previous } = AwsPlace::of(place).ok_or(Fault::Parameter)?;
        if is_previous {
            return Err(Fault::Unwritable("the version before is what was current once"));
        }
        if document.is_empty() || document.len() > SECRET_BYTES_MAX {
            return Err(Fault::Unwritable("it is empty, or larger than Secrets Manager takes"));
        }
        let value = match std::str::from_utf8(document) {
            Ok(text) => Value::Text(text),
            Err(_) => Value::Bytes(document),
        };
        let client = self.client().await;
        match expected {
            // No version of theirs has an id of another length.
            Some(version) if !(32..=64).contains(&version.len()) => Ok(Written::Conflict),
            Some(_) => replace(&client, id, &value, expected).await,
            None => match create(&client, id, &value).await? {
                Some(version) => Ok(Written::Stored(version)),
                // Somebody has made it, perhaps without a value, as tools that describe infrastructure do.
                None => match current(&client, id).await? {
                    Some(_) => Ok(Written::Conflict),
                    None => replace(&client, id, &value, None).await,
                },
            },
        }
    }
}

/// The new secret's version; `None` when there is a secret already.
async fn create(client: &Client, id: &str, value: &Value<'_>) -> Result<Option<String>, Fault> {
    // An ARN is given to a secret when it is made.
    if id.starts_with("arn:") {
        return Ok(None);
    }
    let request = client.create_secret().name(id).client_request_token(fresh_id()?);
    let request = match value {
        Value::Text(text) => request.secret_string(*text),
        Value::Bytes(bytes) => request.secret_binary(Blob::new(*bytes)),
    };
    match request.send().await {
        Ok(made) => made.version_id.ok_or(Fault::Malformed).map(Some),
        Err(error)
            if error.as_service_error().is_some_and(CreateSecretError::is_resource_exists_exception) =>
        {
            Ok(None)
        }
        Err(error) => Err(match Fault::of(&error) {
            Fault::Absent => {
                Fault::Unwritable("a secret of that name is marked for deletion; restore it first")
            }
            other => other,
        }),
    }
}

/// Puts a new version in the place of `expected`, or where none is current.
async fn replace(
    client: &Client,
    id: &str,
    value: &Value<'_>,
    expected: Option<&str>,
) -> Result<Written, Fault> {
    let new = fresh_id()?;
    let request = client.put_secret_value().secret_id(id).client_request_token(&new).version_stages(PENDING);
    let request = match value {
        Value::Text(text) => request.secret_string(*text),
        Value::Bytes(bytes) => request.secret_binary(Blob::new(*bytes)),
    };
    request.send().await.map_err(|error| Fault::of(&error))?;
    let moved = move_label(client, id, CURRENT, expected, Some(&new)).await;
    let written = match moved {
        Ok(()) => Ok(Written::Stored(new.clone())),
        Err(error) => lost(client, id, expected, error).await,
    };
    // Another writer may have taken it already, and who writes next takes it for certain.
    if let Err(error) = move_label(client, id, PENDING, Some(&new), None).await {
        let error = Fault::of(&error);
        tracing::debug!(secret = id, %error, "a version keeps the label {PENDING}");
    }
    written
}

/// What a refused move means: AWS gives one code for a label that is elsewhere and for other faults, so it is looked where
/// the label is.
async fn lost(
    client: &Client,
    id: &str,
    expected: Option<&str>,
    error: SdkError<UpdateSecretVersionStageError>,
) -> Result<Written, Fault> {
    let fault = Fault::of(&error);
    match fault {
        Fault::Parameter | Fault::State | Fault::Absent => match current(client, id).await? {
            current if current.as_deref() != expected => Ok(Written::Conflict),
            _ => Err(fault),
        },
        _ => Err(fault),
    }
}

async fn move_label(
    client: &Client,
    id: &str,
    label: &str,
    from: Option<&str>,
    to: Option<&str>,
) -> Result<(), SdkError<UpdateSecretVersionStageError>> {
    let request = client.update_secret_version_stage().secret_id(id).version_stage(label);
    let request = request.set_remove_from_version_id(from.map(Into::into));
    request.set_move_to_version_id(to.map(Into::into)).send().await.map(|_| ())
}

/// The current version of a secret that exists; `None` when it has none yet.
async fn current(client: &Client, id: &str) -> Result<Option<String>, Fault> {
    let told = client.describe_secret().secret_id(id).send().await;
    let told = told.map_err(|error: SdkError<DescribeSecretError>| Fault::of(&error))?;
    if told.deleted_date.is_some() {
        return Err(Fault::Absent);
    }
    let mut versions = told.version_ids_to_stages.unwrap_or_default().into_iter();
    Ok(versions.find(|(_, labels)| labels.iter().any(|label| label == CURRENT)).map(|(version, _)| version))
}

/// The id of a version that is not there yet. It is ours to choose, and so known even when an answer is lost.
fn fresh_id() -> Result<String, Fault> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Fault::Unwritable("this system gives no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
