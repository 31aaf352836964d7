//! Against a real server: what a made-up one could get wrong of check-and-set, deletion and denial.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::server::Server;
use super::*;
use crate::{
    config::{BaoLogin, Refresh},
    vault::reference::Reference,
};

#[allow(dead_code, unreachable_pub, reason = "shared with the integration tests")]
#[path = "../../../../../tests/it/openbao/server.rs"]
mod server;

const PLACE: &str = "team/kv/mx/new";

struct Bao(OpenBao);

impl Bao {
    async fn read(&self, place: &str) -> Result<(Value, String), Error> {
        let document = self.0.read(place).await?;
        Ok((serde_json::from_slice(&document.bytes).unwrap(), document.version.unwrap()))
    }

    async fn write(&self, place: &str, document: Value, expected: Option<&str>) -> Result<Written, Error> {
        self.0.write(place, document.to_string().as_bytes(), expected).await
    }
}

fn stored(version: &str) -> Written {
    Written::Stored(version.into())
}

#[tokio::test]
async fn entries_are_written_by_check_and_set_and_only_where_a_policy_lets_us() {
    let server = Server::start();
    let role = server.role(json!({}));
    let folder = tempfile::tempdir().unwrap();
    let secret_id = folder.path().join("secret-id");
    std::fs::write(&secret_id, &role.secret_id).unwrap();
    let settings = config::OpenBao {
        host: server.address().ip().to_string(),
        port: server.address().port(),
        tls: true,
        mounts: vec!["team/kv".into()],
        ca_file: Some(server.ca_file()),
        namespace: None,
        login: BaoLogin::AppRole {
            mount: "approle".into(),
            role_id: role.role_id,
            secret_id: Reference::file(&secret_id),
        },
        refresh: Refresh::NEVER,
        connect_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(10),
    };
    let bao = Bao(OpenBao::new(&settings, None));

    let kept = json!({ "api_key": "k-1", "note": "of somebody else", "n": 1.5 });
    assert_eq!(bao.read(PLACE).await.unwrap_err().reason(), Reason::Absent);
    assert_eq!(bao.write(PLACE, kept.clone(), None).await.unwrap(), stored("1"));
    assert_eq!(bao.write(PLACE, json!({}), None).await.unwrap(), Written::Conflict);
    assert_eq!(bao.read(PLACE).await.unwrap(), (kept, "1".into()));

    // Of many who have read one version, one writes.
    let bao = Arc::new(bao);
    let mut all = JoinSet::new();
    for n in 0..8 {
        let bao = bao.clone();
        all.spawn(async move { bao.write(PLACE, json!({ "n": n }), Some("1")).await.unwrap() });
    }
    let written = all.join_all().await;
    assert_eq!(written.iter().filter(|one| **one == stored("2")).count(), 1, "{written:?}");
    assert_eq!(written.iter().filter(|one| **one == Written::Conflict).count(), 7, "{written:?}");

    // A deleted version is absent, and yet the next one has the number after it.
    server.root("DELETE", "team/kv/data/mx/new", Value::Null);
    assert_eq!(bao.read(PLACE).await.unwrap_err().reason(), Reason::Absent);
    assert_eq!(bao.write(PLACE, json!({ "a": "b" }), None).await.unwrap(), stored("3"));
    assert_eq!(bao.read(PLACE).await.unwrap(), (json!({ "a": "b" }), "3".into()));

    for place in ["secret/closed", "nowhere/mx"] {
        assert_eq!(bao.read(place).await.unwrap_err().reason(), Reason::Denied, "{place}");
        let refused = bao.write(place, json!({ "a": "b" }), None).await;
        assert_eq!(refused.unwrap_err().reason(), Reason::Denied, "{place}");
    }

    // Nobody whom the system trusts has signed its certificate.
    let stranger = OpenBao::new(&config::OpenBao { ca_file: None, ..settings }, None);
    assert_eq!(stranger.read(PLACE).await.err().unwrap().reason(), Reason::Untrusted);
}
