//! The keys are two fields of one secret of AWS Secrets Manager, as a stand-in for it has it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{assert_done, no_request_fails, text, vault::Rotating};
use crate::{aws::server::Server, harness::API_KEY};

#[test]
fn under_load_no_request_fails_and_the_fields_of_others_stay() {
    let server = Arc::new(Server::start());
    let rotating = Rotating::in_aws(&server, "load");
    let told = rotating.rotate(&["--status"]);
    assert!(text(&told).contains("0 days old"), "{}", text(&told));
    no_request_fails(rotating);
    let answer =
        server.ask("GetSecretValue", &json!({ "SecretId": "mx/load", "VersionStage": "AWSCURRENT" }));
    let document: Value = serde_json::from_str(answer["SecretString"].as_str().unwrap()).unwrap();
    let names: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!(names, ["api_key", "mxgate_rotation_test", "note"]);
    assert_eq!(document["note"], "of others");
    assert_ne!(document["api_key"], API_KEY);
}

#[test]
fn of_many_at_once_one_rotates() {
    let server = Arc::new(Server::start());
    let rotating = Rotating::in_aws(&server, "many");
    let children: Vec<_> = (0..4).map(|_| rotating.spawn(&["--json"])).collect();
    let outcomes: Vec<Value> = children
        .into_iter()
        .map(|child| serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap_or_default())
        .collect();
    if !outcomes.iter().any(|outcome| outcome["outcome"] == "done") {
        assert_done(&rotating.rotate(&[]));
    }
    assert_eq!(rotating.mx.count("rotateApiKey"), 1, "{outcomes:#?}");
    rotating.over();
}
