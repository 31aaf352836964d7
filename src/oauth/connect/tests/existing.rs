//! Connections without a browser, and their end.

use super::{
    super::{existing::Revocation, *},
    World,
    world::{NOW, secret, wanted},
};
use crate::oauth::{
    connection::{Consent, Tokens},
    store::{Kept, Taken},
};

#[tokio::test]
async fn a_refresh_token_becomes_a_connection() {
    let world = World::new().await;
    let id = world.connector.import(&wanted(), secret("canary-imported")).await.unwrap();
    let stored = world.store.load(id).await.unwrap().unwrap().connection;
    let tokens = Tokens { access: None, refresh: Some(secret("canary-imported")), ends: None };
    assert_eq!(stored.consent, Consent::Live(tokens));
    assert_eq!((stored.purpose, stored.created), (wanted(), NOW));
    assert!(redaction::held().masker().is_hit(b"canary-imported"));
    for (wrong, token) in [
        (Purpose { provider: "nobody".into(), ..wanted() }, "canary-imported"),
        (Purpose { scopes: vec!["admin".into()], ..wanted() }, "canary-imported"),
        (wanted(), "canary with blanks"),
        (wanted(), &"x".repeat(8193)),
    ] {
        assert!(world.connector.import(&wrong, secret(token)).await.is_err(), "{wrong:?}");
    }
    assert_eq!(world.store.list().await.unwrap().len(), 1);
    assert!(world.seen.has("Imported"));
}

#[tokio::test]
async fn a_connection_ends_at_the_provider_first() {
    let world = World::new().await;
    let id = world.connects().await;
    world.bank.asked.lock().unwrap().clear();
    let done = world.connector.disconnect(id, false).await.unwrap();
    assert!(matches!(done, Disconnected { revocation: Revocation::Done }), "{done:?}");
    let forms: Vec<_> = world.bank.asked().into_iter().map(|(path, form)| format!("{path} {form}")).collect();
    assert_eq!(forms.len(), 2);
    assert!(forms[0].contains("/revoke") && forms[0].contains("token=canary-refresh-1"), "{forms:?}");
    assert!(forms[1].contains("/revoke") && forms[1].contains("token=canary-access-1"), "{forms:?}");
    assert_eq!(world.store.load(id).await.unwrap(), None);
    assert!(matches!(world.connector.disconnect(id, true).await, Err(Error::NoConnection)));
}

#[tokio::test]
async fn a_provider_that_does_not_take_it_back_is_reported_and_can_be_overridden() {
    let world = World::new().await;
    let id = world.connects().await;
    world.bank.says(503, "c4n4ry");
    let error = world.connector.disconnect(id, false).await.unwrap_err();
    assert!(matches!(error, Error::NotRevoked(_)), "{error}");
    assert!(!crate::vault::chain(&error).contains("c4n4ry"));
    assert!(world.store.load(id).await.unwrap().is_some());
    world.connector.configure(Settings { providers: BTreeMap::new(), ..world.settings.clone() });
    assert!(matches!(world.connector.disconnect(id, false).await, Err(Error::ProviderGone)));
    world.connector.configure(world.settings.clone());
    world.bank.says(503, "c4n4ry");
    let lease = world.store.take_lease(id, "refresher", world.time.now(), Duration::from_secs(10)).await;
    let Ok(Taken::Lease(lease)) = lease else { panic!("nobody has to wait: {lease:?}") };
    assert_eq!(lease.abandoned_by, None);
    world.store.give_back(&lease).await.unwrap();
    let done = world.connector.disconnect(id, true).await.unwrap();
    assert!(matches!(done.revocation, Revocation::Failed(_)), "{done:?}");
    assert_eq!(world.store.load(id).await.unwrap(), None);
}

/// As providers do that take back access tokens only, or have taken the refresh token back already.
#[tokio::test]
async fn an_access_token_is_given_up_also_when_the_refresh_token_is_not() {
    let world = World::new().await;
    let id = world.connects().await;
    world.bank.says(400, r#"{"error":"unsupported_token_type"}"#);
    assert!(matches!(world.connector.disconnect(id, false).await, Err(Error::NotRevoked(_))));
    let (path, form) = world.bank.asked().pop().unwrap();
    assert!(path == "/revoke" && form.contains("token=canary-access-1"), "{path} {form}");
    world.bank.says(200, "");
    world.bank.says(400, r#"{"error":"unsupported_token_type"}"#);
    let done = world.connector.disconnect(id, false).await.unwrap();
    assert!(matches!(done.revocation, Revocation::Done), "it ends by itself: {done:?}");
}

#[tokio::test]
async fn where_nothing_can_be_given_up_it_is_forgotten() {
    let world = World::new().await;
    let shop = Purpose { provider: "shop".into(), ..wanted() };
    let id = world.connector.import(&shop, secret("canary-imported")).await.unwrap();
    let done = world.connector.disconnect(id, false).await.unwrap();
    assert!(matches!(done.revocation, Revocation::NotOffered), "{done:?}");
    let id = world.connector.import(&wanted(), secret("canary-imported")).await.unwrap();
    world.connector.configure(Settings { providers: BTreeMap::new(), ..world.settings.clone() });
    let done = world.connector.disconnect(id, true).await.unwrap();
    assert!(matches!(done.revocation, Revocation::NoProvider), "{done:?}");
    assert_eq!(world.bank.asked(), []);
}

#[tokio::test]
async fn a_refresh_that_runs_is_waited_for_and_one_in_doubt_stays_so() {
    let world = World::new().await;
    let id = world.connects().await;
    let take =
        async || world.store.take_lease(id, "refresher", world.time.now(), Duration::from_secs(10)).await;
    let Ok(Taken::Lease(lease)) = take().await else { panic!("nobody has it") };
    // It ends without a word, so that its next holder is in doubt; and is given back to whoever comes then.
    world.bank.says(503, "");
    assert!(matches!(world.connector.disconnect(id, false).await, Err(Error::NotRevoked(_))));
    assert!(world.time.now() >= NOW + 10);
    assert_eq!(
        world.store.renew(&lease, world.time.now(), Duration::from_secs(10)).await.unwrap(),
        Kept::Lost
    );
    assert!(matches!(take().await, Ok(Taken::Held(_))), "the doubt is left to its end");
    world.waits(10);
    let Ok(Taken::Lease(next)) = take().await else { panic!("it is over") };
    assert!(next.abandoned_by.is_some());
}
