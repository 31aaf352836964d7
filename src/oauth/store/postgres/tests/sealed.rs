//! What is in the database, and what is refused and changes nothing there.

use super::*;
use crate::{oauth::store::cases::holds_a_token, vault};

/// The text of a dump, and all bytes that it writes in hex.
pub(super) fn bytes_of(dump: &str) -> Vec<u8> {
    let mut bytes = dump.as_bytes().to_vec();
    for part in dump.split("\\x").skip(1) {
        let digits: Vec<u8> =
            part.bytes().map_while(|byte| char::from(byte).to_digit(16)).map(|digit| digit as u8).collect();
        bytes.push(b'\n');
        bytes.extend(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]));
    }
    bytes
}

async fn with_one_connection(cluster: &Cluster, schema: &str) {
    let store = open(cluster, schema).await;
    store.insert(&connection(id(1), 1)).await.unwrap();
}

/// Why the store in `schema` is refused with `keys`; and its dump stays.
async fn refusal(cluster: &Cluster, schema: &str, keys: Keys) -> Error {
    let before = cluster.dump(schema);
    let error = Postgres::open(settings(cluster, schema), keys).await.unwrap_err();
    assert_eq!(cluster.dump(schema), before);
    error
}

#[test]
fn a_dump_holds_no_token() {
    let cluster = cluster();
    run(async {
        with_one_connection(&cluster, "shared").await;
        let store = open(&cluster, "shared").await;
        let lease = lease(&store, 1).await;
        seam(&store).commit(&lease, Version(1), &connection(id(1), 2)).await.unwrap();
    });
    let dump = cluster.dump("shared");
    assert!(dump.contains("ledger") && !holds_a_token(&bytes_of(&dump)));
    for token in ["'canary-refresh-2'", "'\\x63616e6172792d61'", "'..Y2FuYXJ5LXJlZnJlc2gtMg=='"] {
        cluster.sql(DATABASE, &format!("CREATE TABLE shared.canary AS SELECT {token}::text"));
        assert!(holds_a_token(&bytes_of(&cluster.dump("shared"))), "the check finds {token}");
        cluster.sql(DATABASE, "DROP TABLE shared.canary");
    }
}

#[test]
fn a_wrong_key_a_later_version_and_what_is_no_store_are_refused_and_left_as_they_are() {
    let cluster = cluster();
    let other_id = keys(KEY).sealing().to_string();
    run(async {
        with_one_connection(&cluster, "shared").await;
        let error = refusal(&cluster, "shared", keys(OTHER)).await;
        assert!(
            matches!(error, Error::WrongKey { .. }) && vault::chain(&error).contains(&other_id),
            "{error}"
        );
        // An empty store knows its key, too.
        drop(open(&cluster, "empty").await);
        assert!(matches!(refusal(&cluster, "empty", keys(OTHER)).await, Error::WrongKey { .. }));
        // The store is another key's now, and its record the old one's still.
        let both = Keys::new(&secret(OTHER), &[secret(KEY)]).unwrap();
        drop(Postgres::open(settings(&cluster, "shared"), both).await.unwrap());
        let error = refusal(&cluster, "shared", keys(OTHER)).await;
        assert!(
            matches!(error, Error::WrongKey { .. }) && vault::chain(&error).contains(&other_id),
            "{error}"
        );

        cluster.sql(DATABASE, "INSERT INTO empty.mxgate_version (version) VALUES (2)");
        // Of a later version nothing else is known.
        cluster.sql(DATABASE, "DROP TABLE empty.mxgate_store");
        assert!(matches!(refusal(&cluster, "empty", keys(KEY)).await, Error::Newer { found: 2, .. }));

        cluster.sql(DATABASE, &format!("CREATE SCHEMA strange AUTHORIZATION {ROLE}"));
        cluster.sql(DATABASE, "CREATE TABLE strange.mxgate_version (version integer)");
        cluster.sql(DATABASE, &format!("GRANT ALL ON strange.mxgate_version TO {ROLE}"));
        assert!(matches!(refusal(&cluster, "strange", keys(KEY)).await, Error::NotAStore { .. }));
    });
}

#[test]
fn a_later_version_that_was_made_meanwhile_is_found_with_the_next_connection() {
    let cluster = cluster();
    run(async {
        let store = open(&cluster, "shared").await;
        store.insert(&connection(id(1), 1)).await.unwrap();
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mxgate'";
        cluster.sql(DATABASE, "INSERT INTO shared.mxgate_version (version) VALUES (2)");
        assert_eq!(generation(&store, id(1), 1).await, Some(Version(1)), "what is open goes on");
        cluster.sql(DATABASE, end);
        let told = loop {
            match store.load(id(1)).await {
                Err(error) if vault::chain(&error).contains("version 2") => break error,
                Err(error) => println!("{error:?}"),
                Ok(_) => {}
            }
        };
        assert!(matches!(told, store::Error::Unread { .. }));
        // The same of another store in its place.
        cluster.sql(DATABASE, "DELETE FROM shared.mxgate_version WHERE version = 2");
        assert_eq!(generation(&store, id(1), 1).await, Some(Version(1)));
        cluster.sql(DATABASE, "UPDATE shared.mxgate_store SET id = decode(repeat('09', 16), 'hex')");
        cluster.sql(DATABASE, end);
        let told = loop {
            match store.insert(&connection(id(2), 1)).await {
                Err(error) if vault::chain(&error).contains("another store") => break error,
                Err(error) => println!("{error:?}"),
                Ok(()) => panic!("written to another store"),
            }
        };
        assert!(matches!(told, store::Error::Unwritten { .. }));
    });
}

/// The file of the first version, as somebody with rights runs it, and what the documentation grants.
#[test]
fn a_role_without_the_right_to_make_tables_says_so_and_uses_those_that_others_made() {
    let cluster = cluster();
    cluster.sql(DATABASE, "CREATE ROLE poor LOGIN; REVOKE ALL ON SCHEMA public FROM public");
    let poor = || Settings { user: "poor".into(), ..settings(&cluster, "made") };
    run(async {
        let error = Postgres::open(poor(), keys(KEY)).await.unwrap_err();
        assert!(matches!(error, Error::NoRight { .. }), "{}", vault::chain(&error));
        assert!(error.to_string().contains("docs/oauth.md"), "{error}");
        cluster.sql(DATABASE, "CREATE SCHEMA made");
        let error = Postgres::open(poor(), keys(KEY)).await.unwrap_err();
        assert!(matches!(error, Error::NoRight { .. }), "{}", vault::chain(&error));
        let script = include_str!("../migrations/0001.sql");
        cluster.sql(DATABASE, &format!("SET search_path = made; BEGIN; {script} COMMIT"));
        let error = Postgres::open(poor(), keys(KEY)).await.unwrap_err();
        assert!(matches!(error, Error::NoRight { .. }), "{}", vault::chain(&error));
        cluster.sql(
            DATABASE,
            "GRANT USAGE ON SCHEMA made TO poor; GRANT SELECT ON made.mxgate_version TO poor; \
             GRANT SELECT, INSERT, UPDATE ON made.mxgate_store TO poor; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON made.mxgate_connections, made.mxgate_pending TO poor",
        );
        let store = Postgres::open(poor(), keys(KEY)).await.unwrap();
        store.insert(&connection(id(1), 1)).await.unwrap();
        let held = lease(&store, 1).await;
        let done = seam(&store).commit(&held, Version(1), &connection(id(1), 2)).await.unwrap();
        assert_eq!(done, Committed::Stored(Version(2)));
        let lease = lease(&store, 1).await;
        assert_eq!(seam(&store).remove(&lease).await.unwrap(), Kept::Done);
    });
}

#[test]
fn a_schema_that_would_have_to_be_quoted_is_refused() {
    let cluster = cluster();
    run(async {
        for schema in ["", "Upper", "a b", "1st", "a\"b", "a,b", "a;b", &"x".repeat(64)] {
            let refused = Postgres::open(settings(&cluster, schema), keys(KEY)).await;
            assert!(matches!(refused, Err(Error::Schema { .. })), "{schema}");
        }
        // A word of SQL's is none of these.
        drop(open(&cluster, "user").await);
        drop(open(&cluster, "user").await);
    });
    assert_eq!(cluster.sql(DATABASE, "SELECT count(*) FROM \"user\".mxgate_store"), "1\n");
}
