//! Several stores on one database, at once.

use tokio::task::JoinSet;

use super::*;
use crate::oauth::store::postgres::rows;

const REPLICAS: u8 = 8;

#[test]
fn replicas_that_start_at_once_on_an_empty_database_open_one_store() {
    let cluster = cluster();
    run(async {
        let mut all = JoinSet::new();
        for _ in 0..REPLICAS {
            let cluster = cluster.clone();
            all.spawn(async move { open(&cluster, "shared").await });
        }
        let stores = all.join_all().await;
        assert!(stores.iter().all(|store| store.id == stores[0].id));
        // What one keeps, the others read.
        stores[0].insert(&connection(id(1), 1)).await.unwrap();
        assert_eq!(generation(&stores[7], id(1), 1).await, Some(Version(1)));
    });
    assert_eq!(cluster.sql(DATABASE, "SELECT version FROM shared.mxgate_version"), "1\n");
    assert_eq!(cluster.sql(DATABASE, "SELECT count(*) FROM shared.mxgate_store"), "1\n");
}

#[test]
fn of_many_who_want_a_lease_one_gets_it_and_whoever_lost_it_cannot_write() {
    let cluster = cluster();
    run(async {
        let stores = with_one_connection(&cluster).await;
        let mut before: Option<Lease> = None;
        for round in 1..=20 {
            let taken = all_at_once(&stores, |n, store| async move {
                store.take_lease(id(1), &n.to_string(), LASTS).await.unwrap()
            });
            let (won, held): (Vec<_>, Vec<_>) =
                taken.await.into_iter().partition(|taken| matches!(taken, Taken::Lease(_)));
            let [Taken::Lease(lease)] = won.as_slice() else { panic!("{won:?}") };
            assert!(held.iter().all(|taken| matches!(taken, Taken::Held(_))), "{held:?}");
            assert_eq!(lease.fence, round);
            assert_eq!(lease.abandoned_by.is_some(), before.is_some());
            if let Some(lost) = &before {
                let next = connection(id(1), 99);
                let store: &dyn Store = &*stores[0];
                assert_eq!(store.commit(lost, Version(1), &next).await.unwrap(), Committed::Lost);
                assert_eq!(store.renew(lost, NOW, LASTS).await.unwrap(), Kept::Lost);
                assert_eq!(store.remove(lost).await.unwrap(), Kept::Lost);
                store.give_back(lost).await.unwrap();
            }
            pass(&cluster, "shared", LASTS);
            before = won.into_iter().find_map(|taken| match taken {
                Taken::Lease(lease) => Some(lease),
                _ => None,
            });
        }
        assert_eq!(generation(&*stores[7], id(1), 1).await, Some(Version(1)));
    });
}

#[test]
fn of_many_writes_by_one_lease_one_is_done() {
    let cluster = cluster();
    run(async {
        let stores = with_one_connection(&cluster).await;
        for version in 1..10 {
            let lease = lease(&*stores[0], 1).await;
            let named = super::super::named(&lease);
            let done = all_at_once(&stores, |n, store| async move {
                let next = connection(id(1), version * 100 + u64::from(n));
                (n, store.commit(named, Version(version), &next).await.unwrap())
            });
            let done = done.await;
            let stored: Vec<_> = done.iter().filter(|(_, done)| *done != Committed::Lost).collect();
            let [(winner, Committed::Stored(Version(there)))] = stored.as_slice() else {
                panic!("{stored:?}")
            };
            assert_eq!(*there, version + 1);
            let kept = generation(&*stores[7], id(1), version * 100 + u64::from(*winner)).await;
            assert_eq!(kept, Some(Version(version + 1)));
        }
    });
}

/// Each a replica's.
async fn with_one_connection(cluster: &Cluster) -> Vec<Arc<Postgres>> {
    let mut stores = Vec::new();
    for _ in 0..REPLICAS {
        stores.push(Arc::new(open(cluster, "shared").await));
    }
    stores[0].insert(&connection(id(1), 1)).await.unwrap();
    stores
}

/// What each store makes of it, all at one time.
async fn all_at_once<T, F>(stores: &[Arc<Postgres>], work: impl Fn(u8, Arc<Postgres>) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut all = JoinSet::new();
    for (n, store) in (0..).zip(stores) {
        all.spawn(work(n, store.clone()));
    }
    all.join_all().await
}

#[test]
fn a_lease_ends_by_the_databases_clock_and_not_by_its_callers() {
    let cluster = cluster();
    run(async {
        let store = open(&cluster, "shared").await;
        store.insert(&connection(id(1), 1)).await.unwrap();
        let (store, late): (&dyn Store, _) = (&store, NOW * 2);
        let lease = cases::lease(store, id(1), 0, LASTS).await;
        let taken = store.take_lease(id(1), "ahead", late, LASTS).await.unwrap();
        assert!(matches!(taken, Taken::Held(_)), "{taken:?}");
        pass(&cluster, "shared", LASTS);
        // As long as nobody took over, it is there again.
        assert_eq!(store.renew(&lease, 0, LASTS).await.unwrap(), Kept::Done);
        let taken = store.take_lease(id(1), "ahead", late, LASTS).await.unwrap();
        assert!(matches!(taken, Taken::Held(_)), "{taken:?}");
        // A clock that was set back, or a lease for years, keeps nobody out for longer than an hour.
        cluster
            .sql(DATABASE, "UPDATE shared.mxgate_connections SET lease_until = now() + interval '2 hours'");
        let taken = store.take_lease(id(1), "behind", 0, Duration::MAX).await.unwrap();
        assert!(matches!(&taken, Taken::Lease(lease) if lease.abandoned_by.is_some()), "{taken:?}");
        pass(&cluster, "shared", Duration::from_secs(3600));
        let taken = store.take_lease(id(1), "behind", 0, LASTS).await.unwrap();
        assert!(matches!(taken, Taken::Lease(_)), "{taken:?}");
    });
}

#[test]
fn a_new_key_takes_over_in_batches_while_others_write() {
    let cluster = cluster();
    let both = || Keys::new(&secret(OTHER), &[secret(KEY)]).unwrap();
    run(async {
        let old = open(&cluster, "shared").await;
        for n in 1..=250 {
            old.insert(&connection(id(n), 1)).await.unwrap();
        }
        let new = Postgres::open(settings(&cluster, "shared"), both()).await.unwrap();
        // One is written between the look at it and its turn: that write stays, and so does one by a lease of before.
        let lease = lease(&new, 1).await;
        let seen = rows::sealed_before(&new.line, keys(OTHER).sealing(), None, 1).await.unwrap();
        assert_eq!(seen[0].0, id(1));
        let next = connection(id(1), 2);
        assert_eq!(
            seam(&new).commit(&lease, Version(1), &next).await.unwrap(),
            Committed::Stored(Version(2))
        );
        assert!(!new.reseal_one(id(1), &seen[0].1).await.unwrap());
        // One cannot be opened, and holds up no other.
        let sql =
            "UPDATE shared.mxgate_connections SET header = replace(header, 'ledger', 'thieves') WHERE id = ";
        cluster.sql(DATABASE, &format!("{sql}decode(repeat('02', 16), 'hex')"));
        let told = new.reseal().await.unwrap_err();
        assert!(matches!(told, store::Error::Unusable { id, .. } if id == cases::id(2)), "{told}");
        let lease = self::lease(&new, 2).await;
        assert!(
            seam(&new).commit(&lease, Version(1), &connection(id(2), 2)).await.is_err(),
            "nor overwritten"
        );
        assert_eq!(seam(&new).remove(&lease).await.unwrap(), Kept::Done);
        assert_eq!(new.reseal().await.unwrap(), 0);
        let only_new = Postgres::open(settings(&cluster, "shared"), keys(OTHER)).await.unwrap();
        assert_eq!(generation(&only_new, id(1), 2).await, Some(Version(2)));
        assert_eq!(generation(&only_new, id(250), 1).await, Some(Version(1)));
        // Whoever has the former key alone cannot use them, and says so.
        assert!(matches!(old.load(id(3)).await, Err(store::Error::Unusable { .. })));
    });
}

/// Between the two statements of a commit.
#[test]
fn a_record_that_was_sealed_anew_meanwhile_is_written_nevertheless() {
    let cluster = cluster();
    let proxy = Proxy::before(cluster.folder(), cluster.port());
    let both = || Keys::new(&secret(OTHER), &[secret(KEY)]).unwrap();
    run(async {
        let other = Postgres::open(settings(&cluster, "shared"), both()).await.unwrap();
        let store = open_behind(&proxy, &cluster, both()).await;
        open_with_former(&cluster).await;
        let lease = lease(&store, 1).await;
        proxy.stop(Stop::Held(2), false);
        let next = connection(id(1), 2);
        let (done, ()) = tokio::join!(seam(&store).commit(&lease, Version(1), &next), async {
            proxy.stopped().await;
            assert_eq!(other.reseal().await.unwrap(), 1);
            proxy.release();
        });
        assert_eq!(done.unwrap(), Committed::Stored(Version(2)));
        assert_eq!(proxy.seen(), 4, "once in vain");
        assert_eq!(generation(&other, id(1), 2).await, Some(Version(2)));
    });
}

/// Between the same two, and whoever took it has written nothing yet.
#[test]
fn a_lease_that_is_taken_over_while_its_holder_writes_is_lost() {
    let cluster = cluster();
    let proxy = Proxy::before(cluster.folder(), cluster.port());
    run(async {
        let other = open(&cluster, "shared").await;
        other.insert(&connection(id(1), 1)).await.unwrap();
        let store = open_behind(&proxy, &cluster, keys(KEY)).await;
        let slow = lease(&store, 1).await;
        proxy.stop(Stop::Held(2), false);
        let (slow_next, next) = (connection(id(1), 2), connection(id(1), 3));
        let (done, taken) = tokio::join!(seam(&store).commit(&slow, Version(1), &slow_next), async {
            proxy.stopped().await;
            pass(&cluster, "shared", LASTS);
            let taken = lease(&other, 1).await;
            proxy.release();
            taken
        });
        assert_eq!(done.unwrap(), Committed::Lost);
        assert!(taken.abandoned_by.is_some());
        assert_eq!(
            seam(&other).commit(&taken, Version(1), &next).await.unwrap(),
            Committed::Stored(Version(2))
        );
        assert_eq!(generation(&other, id(1), 3).await, Some(Version(2)));
    });
}

/// One connection that the former key sealed.
async fn open_with_former(cluster: &Cluster) {
    let both = Keys::new(&secret(KEY), &[secret(OTHER)]).unwrap();
    let store = Postgres::open(settings(cluster, "shared"), both).await.unwrap();
    store.insert(&connection(id(1), 1)).await.unwrap();
}
