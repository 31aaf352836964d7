//! The store against a real server, which each test starts for itself.

mod cluster;
mod killed;
mod lost;
mod pending;
mod proxy;
mod refused;
mod sealed;
mod together;

use std::{sync::Arc, time::Duration};

use proptest::{prelude::*, test_runner::TestRunner};

use self::{
    cluster::{Cluster, DATABASE, PASSWORD, Pems, ROLE},
    proxy::{Proxy, Stop},
};
use super::{
    Error, Fault, Postgres,
    settings::{PasswordLookUp, Settings},
};
use crate::{
    oauth::{
        seal::Keys,
        store::{
            self, Committed, Doing, Kept, Lease, Store, Taken, Version,
            cases::{self, KEY, Kind, NOW, OTHER, Opened, connection, generation, id, keys, run, secret},
        },
    },
    stand_in::certificate::{Authority, Validity},
    vault,
};

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// A lease that outlives any test.
const LASTS: Duration = Duration::from_secs(3000);

/// A server whose certificate is for `localhost`; whoever signed it is in `ca.pem`.
fn cluster() -> Arc<Cluster> {
    Arc::new(cluster_of(&Authority::new().unwrap()))
}

fn cluster_of(authority: &Authority) -> Cluster {
    let certificate = authority.issue(&["localhost"], Validity::Valid).unwrap();
    let cluster = Cluster::start(&Pems { certificate: certificate.pem(), key: certificate.key_pem() });
    std::fs::write(cluster.path("ca.pem"), authority.pem()).unwrap();
    cluster
}

/// Over the Unix socket.
fn settings(cluster: &Cluster, schema: &str) -> Settings {
    Settings { schema: schema.into(), ..settings_at(&cluster.folder().display().to_string(), cluster.port()) }
}

fn settings_at(host: &str, port: u16) -> Settings {
    Settings {
        host: host.into(),
        port,
        database: DATABASE.into(),
        user: ROLE.into(),
        password: None,
        ca_file: None,
        connect_timeout: PATIENCE,
        statement_timeout: PATIENCE,
        schema: "shared".into(),
    }
}

/// A store behind `proxy`.
async fn open_behind(proxy: &Proxy, cluster: &Cluster, keys: Keys) -> Postgres {
    let settings = settings_at(&proxy.folder().display().to_string(), cluster.port());
    Postgres::open(settings, keys).await.unwrap()
}

async fn open(cluster: &Cluster, schema: &str) -> Postgres {
    Postgres::open(settings(cluster, schema), keys(KEY)).await.unwrap()
}

/// What everybody else sees of it.
fn seam(store: &Postgres) -> &dyn Store {
    store
}

async fn lease(store: &dyn Store, n: u8) -> Lease {
    cases::lease(store, id(n), NOW, LASTS).await
}

/// So much later, for all that ends in `schema`.
fn pass(cluster: &Cluster, schema: &str, time: Duration) {
    let time = format!("make_interval(secs => {})", time.as_secs_f64());
    let connections = format!("UPDATE {schema}.mxgate_connections SET lease_until = lease_until - {time}");
    let pending = format!("UPDATE {schema}.mxgate_pending SET until = until - {time}");
    cluster.sql(DATABASE, &format!("{connections}; {pending}"));
}

/// A store in a schema of its own.
struct InSchema {
    cluster: Arc<Cluster>,
    schema: String,
}

impl Kind for InSchema {
    fn open(&self, keys: Keys) -> Doing<'_, Arc<dyn Opened>> {
        let settings = settings(&self.cluster, &self.schema);
        Box::pin(async { Arc::new(Postgres::open(settings, keys).await.unwrap()) as Arc<dyn Opened> })
    }

    /// Nobody asks for it.
    fn now(&self) -> u64 {
        0
    }

    fn pass(&mut self, time: Duration) -> Doing<'_, ()> {
        pass(&self.cluster, &self.schema, time);
        Box::pin(async {})
    }

    fn unit(&self) -> Duration {
        Duration::from_secs(100)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn fill_pending(&self, count: u64, units: u64) {
        let (schema, life) = (&self.schema, units * self.unit().as_secs());
        let sql = format!(
            "INSERT INTO {schema}.mxgate_pending SELECT sha256(n::text::bytea), 0, now() + make_interval(secs => {life}), \
             'key', 'sealed' FROM generate_series(1, {count}) AS n"
        );
        self.cluster.sql(DATABASE, &sql);
    }

    fn pending_count(&self) -> u64 {
        let count = format!("SELECT count(*) FROM {}.mxgate_pending", self.schema);
        self.cluster.sql(DATABASE, &count).trim().parse().unwrap()
    }
}

#[test]
fn it_shows_what_every_store_must() {
    let cluster = cluster();
    let new = |schema: &str| InSchema { cluster: cluster.clone(), schema: schema.into() };
    run(async {
        let first = new("first");
        cases::what_was_stored_is_loaded_also_by_the_next_process_and_lists_show_no_token(&first).await;
        let canary = "canary-that-no-other-test-has-here";
        cases::tokens_are_masked_once_they_were_loaded(&new("second"), canary).await;
        cases::a_lost_lease_writes_nothing_and_renews_nothing(&mut new("third")).await;
        cases::an_id_is_inserted_once_and_a_removed_one_is_gone(&new("fourth")).await;
    });
}

#[test]
fn it_keeps_to_the_model() {
    let cluster = cluster();
    let mut schemas = 0..;
    let schemas = std::cell::RefCell::new(&mut schemas);
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let kept = TestRunner::new(config).run(&cases::model::steps(), |steps| {
        let schema = format!("case_{}", schemas.borrow_mut().next().unwrap());
        let kind = Box::new(InSchema { cluster: cluster.clone(), schema });
        run(cases::model::keeps_to_the_model(kind, &steps));
        Ok(())
    });
    kept.unwrap();
}
