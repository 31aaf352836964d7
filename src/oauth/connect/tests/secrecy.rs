//! What must not be seen is not, wherever one looks.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    super::*,
    World, id_in,
    world::{Page, back, wanted},
};
use crate::oauth::{
    connection::{Connection, Summary},
    store::{Committed, Doing, Kept, Lease, Stored, Taken, Version, embedded::Embedded},
};

#[tokio::test]
async fn nothing_secret_is_logged_shown_or_stored_as_it_is() {
    let log = provider::tests::Logged::default();
    let listening = log.listen();
    let world = World::new().await;
    let ticket = world.ticket().await;
    let shown = world.get(&ticket, "").await;
    let browsing = world.away_with(&ticket).await;
    let page = world.comes_back(&browsing, "code=canary-code").await;
    id_in(&page);
    let again = world.comes_back(&browsing, "code=canary-code").await;
    let refused = world.comes_back(&world.away().await, "error=server_error").await;
    drop(listening);

    let (_, form) = world.bank.asked().remove(0);
    let verifier = form.split('&').find_map(|pair| pair.strip_prefix("code_verifier=")).unwrap();
    let (code, cookie) = (&ticket["/ticket/".len()..], browsing.cookie.split_once('=').unwrap().1);
    let secrets = [
        code,
        cookie,
        verifier,
        &browsing.state,
        "canary-code",
        "canary-access-1",
        "canary-refresh-1",
        "canary-client-secret",
        "session &1",
    ];
    let log = log.text();
    assert!(log.contains("a user was connected"), "{log}");
    let events = world.events().join("\n");
    let whole = |page: &Page| format!("{}\n{}", page.head, page.body);
    for secret in secrets {
        assert!(!log.contains(secret), "the log has {secret}");
        assert!(!events.contains(secret), "an event has {secret}");
        for (name, page) in [("ticket", &shown), ("back", &page), ("again", &again), ("refused", &refused)] {
            assert!(!whole(page).contains(secret), "the page {name} has {secret}");
        }
        let masked = redaction::held().masker().is_hit(secret.as_bytes());
        assert!(
            masked || ["session &1", "canary-client-secret"].contains(&secret),
            "{secret} would not be masked"
        );
    }
    for entry in std::fs::read_dir(world.folder.path()).unwrap().map(Result::unwrap) {
        let bytes = std::fs::read(entry.path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let is_secret_file = entry.file_name() == "secret";
        assert!(is_secret_file || secrets.iter().all(|secret| !text.contains(secret)), "{entry:?}");
    }
}

#[tokio::test]
async fn a_stranger_fills_neither_the_store_nor_the_memory_nor_the_log() {
    let log = provider::tests::Logged::default();
    let listening = log.listen();
    let world = World::new().await;
    let size = || std::fs::metadata(world.folder.path().join("connections")).unwrap().len();
    let before = size();
    for n in 0..300 {
        let text = format!("{n:043}");
        world.get(&format!("/ticket/{text}"), "").await;
        world.press(&format!("/ticket/{text}")).await;
        world
            .get(&format!("/callback?state={text}&code=canary-{text}"), &format!("Cookie: a={text}\r\n"))
            .await;
        world.get(&format!("/{text}"), "").await;
    }
    drop(listening);
    assert_eq!(size(), before);
    let masker = redaction::held().masker();
    // The newest, which would be forgotten last.
    let last = format!("{:043}", 299);
    assert!(!masker.is_hit(last.as_bytes()) && !masker.is_hit(b"canary-0000"));
    let log = log.text();
    let lines = log.lines().filter(|line| line.contains("was turned away")).count();
    assert_eq!(lines, 3, "one for each kind: {log}");
    assert_eq!(world.events().len(), 1200);
}

/// A store that writes no connections while it is told so.
struct Full {
    store: Embedded,
    is_full: Arc<AtomicBool>,
}

impl Full {
    fn check(&self) -> Result<(), store::Error> {
        match self.is_full.load(Ordering::Relaxed) {
            true => Err(store::Error::Unwritten { place: "memory".into(), source: "it is full".into() }),
            false => Ok(()),
        }
    }
}

impl Store for Full {
    fn load(&self, id: ConnectionId) -> Doing<'_, Result<Option<Stored>, store::Error>> {
        self.store.load(id)
    }

    fn list(&self) -> Doing<'_, Result<Vec<Summary>, store::Error>> {
        self.store.list()
    }

    fn insert<'a>(&'a self, connection: &'a Connection) -> Doing<'a, Result<(), store::Error>> {
        Box::pin(async move {
            self.check()?;
            self.store.insert(connection).await
        })
    }

    fn take_lease<'a>(
        &'a self,
        id: ConnectionId,
        owner: &'a str,
        now: u64,
        lasts: Duration,
    ) -> Doing<'a, Result<Taken, store::Error>> {
        self.store.take_lease(id, owner, now, lasts)
    }

    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        now: u64,
        lasts: Duration,
    ) -> Doing<'a, Result<Kept, store::Error>> {
        self.store.renew(lease, now, lasts)
    }

    fn give_back<'a>(&'a self, lease: &'a Lease) -> Doing<'a, Result<(), store::Error>> {
        self.store.give_back(lease)
    }

    fn commit<'a>(
        &'a self,
        lease: &'a Lease,
        expected: Version,
        connection: &'a Connection,
    ) -> Doing<'a, Result<Committed, store::Error>> {
        Box::pin(async move {
            self.check()?;
            self.store.commit(lease, expected, connection).await
        })
    }

    fn remove<'a>(&'a self, lease: &'a Lease) -> Doing<'a, Result<Kept, store::Error>> {
        self.store.remove(lease)
    }

    fn put_pending<'a>(&'a self, pending: &'a Pending, now: u64) -> Doing<'a, Result<(), store::Error>> {
        self.store.put_pending(pending, now)
    }

    fn look_pending(
        &self,
        name: PendingName,
        now: u64,
    ) -> Doing<'_, Result<Option<Arc<Secret>>, store::Error>> {
        self.store.look_pending(name, now)
    }

    fn take_pending(
        &self,
        name: PendingName,
        now: u64,
    ) -> Doing<'_, Result<Option<Arc<Secret>>, store::Error>> {
        self.store.take_pending(name, now)
    }
}

#[tokio::test]
async fn tokens_that_cannot_be_stored_are_given_up_unless_former_ones_would_end_with_them() {
    let is_full = Arc::new(AtomicBool::new(false));
    let told = is_full.clone();
    let world = World::with(|store| Arc::new(Full { store, is_full: told })).await;
    let id = world.connects().await;
    is_full.store(true, Ordering::Relaxed);
    let page = world.comes_back(&world.away().await, "code=canary-code").await;
    assert!(page.status() == 503 && page.body.contains("not_stored"), "{}", page.body);
    world.bank.takes_back(2);
    let renewal = world.ticket_for(&wanted(), Some(id)).await.unwrap();
    let browsing = world.away_with(&renewal).await;
    let page = world.comes_back(&browsing, "code=canary-code").await;
    assert!(page.status() == 503 && page.body.contains("not_stored"), "{}", page.body);
    let (path, form) = world.bank.asked().pop().unwrap();
    assert!(path == "/token" && form.contains("code=canary-code"), "{path} {form}");
    assert_eq!(world.store.list().await.unwrap().len(), 1);
    is_full.store(false, Ordering::Relaxed);
    let ticket = world.connector.ticket(&wanted(), &back(), Some(id)).await;
    assert!(ticket.is_ok(), "the one of before is as it was");
}
