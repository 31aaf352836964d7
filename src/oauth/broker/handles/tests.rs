//! Tokens that are kept, in a store on a real disk.

use tokio::runtime::Handle as Runtime;

use super::*;
use crate::{
    config::{ConnectionStore, Connections},
    oauth::{
        broker::open::Kind,
        seal::Keys,
        store::embedded::{self, Embedded},
    },
    vault::secret::Secret,
};

/// A broker with an empty store, in this folder.
fn broker(folder: &tempfile::TempDir) -> Arc<Broker> {
    let path = folder.path().join("connections");
    let keys = || Keys::new(&Secret::new(vec![b'k'; 32]).unwrap(), []).unwrap();
    if !path.exists() {
        embedded::create(&path, &keys()).unwrap();
    }
    let kind = Kind::Embedded(Embedded::open(&path, keys()).unwrap());
    let broker = Broker::new(Runtime::current());
    let settings = Connections {
        key: "env:K".parse().unwrap(),
        former_key: None,
        store: ConnectionStore::File(path),
        return_urls: Vec::new(),
        browser: None,
    };
    broker.open(kind, &settings);
    broker
}

fn whose(caller: &str) -> Whose {
    let (environment, host) = ("sandbox".into(), "api.mx.test".into());
    Whose { caller: caller.into(), environment, host, user: None }
}

fn given(token: &str, ends: Option<u64>) -> Given {
    Given { token: Arc::new(Secret::new(token.into()).unwrap()), ends }
}

fn now() -> u64 {
    seconds(SystemTime::now())
}

async fn state(broker: &Arc<Broker>, handle: Handle) -> Option<State> {
    broker.summary(handle.id()).await.unwrap().map(|one| one.state)
}

async fn kept(broker: &Arc<Broker>, token: &str, ends: Option<u64>) -> Handle {
    let handles = broker.keep(whose("ledger"), vec![given(token, ends)]).await.unwrap();
    assert_eq!(handles.len(), 1);
    handles[0]
}

fn end(state: Option<State>) -> u64 {
    match state {
        Some(State::Live { expires, can_refresh: false, ends: Some(ends) }) => {
            assert_eq!(expires, Some(ends));
            ends
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_same_token_is_kept_once_and_handles_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let broker = self::broker(&folder);
    let all =
        vec![given("canary-token-1", None), given("canary-token-2", None), given("canary-token-1", None)];
    let handles = broker.keep(whose("ledger"), all.clone()).await.unwrap();
    assert!(handles[0] == handles[2] && handles[0] != handles[1]);
    let others = broker.keep(whose("report"), all.clone()).await.unwrap();
    assert_ne!(others[0], handles[0]);
    assert_eq!(broker.list(|_| true).await.unwrap().len(), 4);
    let one = broker.summary(handles[0].id()).await.unwrap().unwrap();
    let Purpose { provider, caller, environment, .. } = &one.purpose;
    assert_eq!((provider.as_str(), caller.as_str(), environment.as_str()), ("mx:token", "ledger", "sandbox"));
    drop(broker);
    let broker = self::broker(&folder);
    assert_eq!(broker.keep(whose("ledger"), all).await.unwrap(), handles);
    assert_eq!(broker.list(|_| true).await.unwrap().len(), 4);
    let cell = broker.cell(handles[0].id()).await.unwrap();
    assert!(cell.usable().is_some_and(|token| token.due.is_none()), "nobody refreshes it");
}

#[tokio::test]
async fn an_end_is_sixty_days_away_until_an_answer_says_another() {
    let folder = tempfile::tempdir().unwrap();
    let broker = self::broker(&folder);
    let handle = kept(&broker, "canary-token", None).await;
    let usual = end(state(&broker, handle).await);
    assert!((now() + LIFE - 60..=now() + LIFE).contains(&usual), "{usual}");
    let cell = broker.cell(handle.id()).await.unwrap();
    let said = now() + 3600;
    assert_eq!(kept(&broker, "canary-token", Some(said)).await, handle);
    assert_eq!(end(state(&broker, handle).await), said);
    assert_eq!(cell.usable().and_then(|token| token.expires), Some(said), "whoever has it is told");
    // Silence changes nothing.
    assert_eq!(kept(&broker, "canary-token", None).await, handle);
    assert_eq!(end(state(&broker, handle).await), said);
    // Over, and then given anew.
    kept(&broker, "canary-token", Some(1)).await;
    assert!(matches!(state(&broker, handle).await, Some(State::Gone { why: Why::Ended, .. })));
    kept(&broker, "canary-token", None).await;
    assert!(matches!(state(&broker, handle).await, Some(State::Gone { .. })));
    kept(&broker, "canary-token", Some(said)).await;
    assert_eq!(end(state(&broker, handle).await), said);
}

#[tokio::test]
async fn a_token_ends_and_its_end_is_forgotten_after_a_month() {
    let folder = tempfile::tempdir().unwrap();
    let broker = self::broker(&folder);
    let ends = now() + 3600;
    let handle = kept(&broker, "canary-token", Some(ends)).await;
    let tidy = async |at| {
        broker.look().await.unwrap();
        broker.tidy_handles(at).await;
    };
    tidy(ends - 1).await;
    assert_eq!(end(state(&broker, handle).await), ends);
    tidy(ends).await;
    let over = Some(State::Gone { since: ends, why: Why::Ended });
    assert_eq!(state(&broker, handle).await, over);
    let stored = broker.opened().unwrap().store.load(handle.id()).await.unwrap().unwrap();
    assert!(matches!(stored.connection.consent, Consent::Gone { .. }), "its token is not there any more");
    tidy(ends + REMEMBERED - 1).await;
    assert_eq!(state(&broker, handle).await, over);
    tidy(ends + REMEMBERED).await;
    assert_eq!(state(&broker, handle).await, None);
}

#[tokio::test]
async fn without_a_store_nothing_is_kept() {
    let broker = Broker::new(Runtime::current());
    let kept = broker.keep(whose("ledger"), vec![given("canary-token", None)]).await;
    assert_eq!(kept, Err(Unavailable::Later));
}
