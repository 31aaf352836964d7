//! A database that is down, goes away, or does not answer: an error within a time, and then it works again.

use super::*;

fn said(error: &(dyn std::error::Error + 'static)) -> String {
    vault::chain(error)
}

#[test]
fn a_database_that_is_down_is_an_error_and_one_that_comes_back_works_again() {
    let authority = Authority::new().unwrap();
    let mut cluster = cluster_of(&authority);
    cluster.stop();
    run(async {
        let refused = Postgres::open(settings(&cluster, "shared"), keys(KEY)).await.unwrap_err();
        assert!(said(&refused).contains("error connecting to server"), "{}", said(&refused));
        cluster.run();
        let store = open(&cluster, "shared").await;
        store.insert(&connection(id(1), 1)).await.unwrap();
        let lease = lease(&store, 1).await;
        for generation in 2..5 {
            cluster.crash();
            assert!(matches!(store.load(id(1)).await, Err(store::Error::Unread { .. })));
            let unwritten = seam(&store).renew(&lease, NOW, LASTS).await;
            assert!(matches!(unwritten, Err(store::Error::Unwritten { .. })), "{unwritten:?}");
            cluster.run();
            // What it answered before it was killed is there, and it works again.
            assert_eq!(cases::generation(&store, id(1), generation - 1).await, Some(Version(generation - 1)));
            let held = match seam(&store).renew(&lease, NOW, LASTS).await.unwrap() {
                Kept::Done => Lease { id: id(1), fence: lease.fence, abandoned_by: None },
                Kept::Lost => self::lease(&store, 1).await,
            };
            let next = connection(id(1), generation);
            let done = seam(&store).commit(&held, Version(generation - 1), &next).await.unwrap();
            assert_eq!(done, Committed::Stored(Version(generation)));
        }
    });
}

#[test]
fn a_connection_that_breaks_costs_one_error_and_what_was_not_answered_may_have_been_done() {
    let cluster = cluster();
    let proxy = Proxy::before(cluster.folder(), cluster.port());
    run(async {
        let store = open_behind(&proxy, &cluster, keys(KEY)).await;
        for (n, stop) in [(1, Stop::Before(1)), (2, Stop::After(1))] {
            proxy.stop(stop, false);
            let broken = store.insert(&connection(id(n), 1)).await.unwrap_err();
            assert!(matches!(broken, store::Error::Unwritten { .. }), "{broken:?}");
            let there = store.load(id(n)).await.unwrap();
            assert_eq!(there.is_some(), stop == Stop::After(1));
        }
    });
}

#[test]
fn an_answer_that_does_not_come_is_waited_for_within_a_time_and_the_connection_is_not_used_again() {
    let cluster = cluster();
    let proxy = Proxy::before(cluster.folder(), cluster.port());
    let host = proxy.folder().display().to_string();
    let settings =
        Settings { host, statement_timeout: Duration::from_secs(2), ..settings(&cluster, "shared") };
    run(async {
        open(&cluster, "shared").await.insert(&connection(id(1), 1)).await.unwrap();
        let store = Arc::new(Postgres::open(settings, keys(KEY)).await.unwrap());
        proxy.stop(Stop::Held(1), false);
        let silent = store.load(id(1)).await.unwrap_err();
        assert!(said(&silent).contains("no answer within 3000 ms"), "{}", said(&silent));
        // Neither by those that were on their way behind it, nor by who comes now.
        assert_eq!(generation(&*store, id(1), 1).await, Some(Version(1)));
        proxy.release();
        assert_eq!(generation(&*store, id(1), 1).await, Some(Version(1)));
    });
}

#[test]
fn a_statement_that_waits_for_a_lock_is_given_up_by_the_server_and_costs_no_connection() {
    let cluster = cluster();
    let quick = Settings { statement_timeout: Duration::from_secs(2), ..settings(&cluster, "shared") };
    run(async {
        let store = Postgres::open(quick, keys(KEY)).await.unwrap();
        store.insert(&connection(id(1), 1)).await.unwrap();
        let pid = "SELECT pid FROM pg_stat_activity WHERE application_name = 'mxgate'";
        let before = cluster.sql(DATABASE, pid);
        let (locking, driver) = tokio_postgres::Config::new()
            .host_path(cluster.folder())
            .port(cluster.port())
            .user("admin")
            .dbname(DATABASE)
            .connect(tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(driver);
        locking.batch_execute("BEGIN; LOCK TABLE shared.mxgate_connections").await.unwrap();
        let late = store.load(id(1)).await.unwrap_err();
        assert!(
            said(&late).contains("it took too long, and was given up (SQLSTATE 57014)"),
            "{}",
            said(&late)
        );
        locking.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(generation(&store, id(1), 1).await, Some(Version(1)));
        assert_eq!(cluster.sql(DATABASE, pid), before);
    });
}

#[test]
fn a_server_that_takes_connections_and_says_nothing_is_left_within_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let silent = std::os::unix::net::UnixListener::bind(folder.path().join(".s.PGSQL.5432")).unwrap();
    let settings = Settings {
        connect_timeout: Duration::from_millis(50),
        ..settings_at(&folder.path().display().to_string(), 5432)
    };
    let late = run(Postgres::open(settings, keys(KEY))).unwrap_err();
    assert!(said(&late).contains("no connection within 50 ms"), "{}", said(&late));
    drop(silent);
}

#[test]
fn a_standby_that_takes_no_writes_is_refused() {
    let cluster = cluster();
    run(async {
        drop(open(&cluster, "shared").await);
        cluster.sql("postgres", &format!("ALTER ROLE {ROLE} SET default_transaction_read_only = on"));
        let refused = Postgres::open(settings(&cluster, "shared"), keys(KEY)).await.unwrap_err();
        assert!(said(&refused).contains("database does not allow writes"), "{}", said(&refused));
    });
}

#[test]
fn a_session_has_its_own_settings_whatever_the_roles_defaults_are() {
    let cluster = cluster();
    let role = |setting: &str| cluster.sql("postgres", &format!("ALTER ROLE {ROLE} SET {setting}"));
    role("synchronous_commit = off");
    role("search_path = public");
    role("statement_timeout = 0");
    run(async {
        let store = open(&cluster, "shared").await;
        let rows = store.line.rows(
            "SELECT current_setting('synchronous_commit'), current_setting('search_path'), \
             current_setting('statement_timeout'), current_setting('transaction_isolation')",
            &[],
        );
        let rows = rows.await.unwrap();
        let said: Vec<&str> = (0..4).map(|column| rows[0].get(column)).collect();
        assert_eq!(said, ["on", "shared", "30s", "read committed"]);
    });
}
