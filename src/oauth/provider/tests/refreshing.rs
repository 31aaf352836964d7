//! Refreshers on one store, against a provider that ends a grant when a token is used twice.

use std::collections::BTreeMap;

use tokio::task::JoinSet;

use super::*;
use crate::oauth::{
    connection::{Access, Connection, ConnectionId, Consent, Purpose, Tokens},
    refresh::{Because, Clock, Guard, Outcome, Refresher, SystemClock},
    seal::Keys,
    store::{
        Doing, Store, Version,
        embedded::{Embedded, create},
    },
};

const ROUNDS: u64 = 5;

/// No token expires because this machine is slow.
struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> u64 {
        1_700_000_000
    }

    fn sleep(&self, time: Duration) -> Doing<'_, ()> {
        SystemClock.sleep(time)
    }
}

fn connection(granted: &Granted, provider: &Provider) -> Connection {
    Connection {
        id: ConnectionId::random().unwrap(),
        purpose: Purpose { scopes: granted.scopes.clone().unwrap(), ..Purpose::usual() },
        issuer: provider.identity(),
        created: 1,
        consent: Consent::Live(Tokens {
            access: Some(Access { token: granted.access.clone(), expires: Some(1) }),
            refresh: granted.refresh.clone(),
            ends: None,
        }),
    }
}

fn tokens(outcome: &Outcome) -> Tokens {
    let Outcome::Fresh(stored) = outcome else { panic!("{outcome:?}") };
    let Consent::Live(tokens) = &stored.connection.consent else { panic!("{outcome:?}") };
    tokens.clone()
}

#[tokio::test]
async fn many_callers_of_two_refreshers_use_each_token_once() {
    let server = Running::start("provider.mjs");
    let provider = Arc::new(Provider::new(Arc::new(server.client("gateway", server.discovered())), None));
    let connection = connection(&server.connect(&provider).await, &provider);
    let path = server.folder.path().join("connections");
    let key = Arc::new(secret("0123456789abcdef0123456789abcdef"));
    create(&path, &Keys::new(&key, []).unwrap()).unwrap();
    let store: Arc<dyn Store> = Arc::new(Embedded::open(&path, Keys::new(&key, []).unwrap()).unwrap());
    store.insert(&connection).await.unwrap();
    let refreshers = ["one", "another"].map(|owner| {
        let guards: BTreeMap<_, _> = [("bank".to_owned(), Guard::new(provider.clone()))].into();
        Refresher::new(store.clone(), Arc::new(guards), Arc::new(StandingClock), owner.into())
    });
    for round in 1..=ROUNDS {
        let mut callers = JoinSet::new();
        for n in 0..8 {
            let refresher = refreshers[n % 2].clone();
            let id = connection.id;
            let caller =
                callers.spawn(async move { refresher.refresh(id, Because::Refused(Version(round))).await });
            // Some hang up, the first of all among them.
            if n % 3 == 0 {
                tokio::task::yield_now().await;
                caller.abort();
            }
        }
        let mut seen: Vec<Tokens> = Vec::new();
        while let Some(ended) = callers.join_next().await {
            seen.extend(ended.ok().map(|outcome| tokens(&outcome)));
        }
        assert!(seen.len() >= 5 && seen.windows(2).all(|two| two[0] == two[1]), "{seen:?}");
    }
    let stored = store.load(connection.id).await.unwrap().unwrap();
    assert_eq!(stored.version, Version(ROUNDS + 1), "one refresh a round");
    let Consent::Live(tokens) = stored.connection.consent else { panic!("gone") };
    assert!(refresh(&provider, &tokens.refresh.unwrap()).await.is_ok());
    assert!(!server.lines.try_iter().any(|line| line == "revoked"));

    // That refresh was nobody's whom the store knows: the stored token is a used one now.
    let outcome = refreshers[0].refresh(connection.id, Because::Refused(stored.version)).await;
    assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
    server.until("revoked");
}
