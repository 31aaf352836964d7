use std::sync::{Mutex, atomic::AtomicBool, atomic::Ordering::Relaxed};

use serde_json::{Value, json};

use super::*;
use crate::{
    config::{Config, overrides::Overrides},
    rotation::state::Lock,
    vault::{
        embedded::{self, Identity},
        source::Reading,
    },
};

/// A server with one document, whose versions count from 1.
#[derive(Debug)]
struct Server {
    held: Mutex<(u64, Option<String>)>,
    /// Somebody writes between our read and our write, once.
    raced: AtomicBool,
}

impl Server {
    fn holding(document: Option<Value>) -> Arc<Self> {
        let held = Mutex::new((1, document.map(|document| document.to_string())));
        Arc::new(Self { held, raced: AtomicBool::new(false) })
    }

    fn document(&self) -> Value {
        serde_json::from_str(self.held.lock().unwrap().1.as_deref().unwrap()).unwrap()
    }
}

impl Source for Server {
    fn read<'a>(&'a self, place: &'a str) -> Reading<'a, Document> {
        assert_eq!(place, "secret/mx");
        let (version, text) = self.held.lock().unwrap().clone();
        let written = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(77));
        let document = text.map(|text| {
            let (bytes, version) = (text.into_bytes().into(), Some(version.to_string()));
            Document { bytes, version, written }
        });
        Box::pin(std::future::ready(document.ok_or(source::Error::Absent)))
    }

    fn as_writable(&self) -> Option<&dyn Writable> {
        Some(self)
    }
}

impl Writable for Server {
    fn write<'a>(
        &'a self,
        _place: &'a str,
        document: &'a [u8],
        expected: Option<&'a str>,
    ) -> Reading<'a, source::Written> {
        let mut held = self.held.lock().unwrap();
        let (version, text) = &mut *held;
        if self.raced.swap(false, Relaxed) {
            *version += 1;
        }
        let written = if expected == Some(&*version.to_string()) {
            *version += 1;
            *text = Some(String::from_utf8(document.to_vec()).unwrap());
            source::Written::Stored(version.to_string())
        } else {
            source::Written::Conflict
        };
        Box::pin(std::future::ready(Ok(written)))
    }
}

/// A configuration with that pair, and an embedded vault in `folder` that has no entry.
fn config(folder: &std::path::Path) -> Config {
    let folder = folder.display();
    let text = format!(
        "allow = [\"127.0.0.0/8\"]\n[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"test\"\n\
         [environment.test]\nurl = \"https://int-api.mx.com\"\n\
         credential = {{ kind = \"basic\", client_id = \"c\", {PAIR} }}\n\
         [openbao]\nurl = \"https://bao.example\"\nlogin = {{ kind = \"token\", token = \"env:T\" }}\n\
         [vault]\nkind = \"file\"\npath = \"{folder}/vault.age\"\nidentity = \"file:{folder}/identity\"\n"
    );
    Config::parse(&text, "f", &Overrides::none()).map_err(|faults| faults.to_string()).unwrap().config
}

const PAIR: &str =
    "api_key = \"openbao:secret/mx#api_key\", secondary_api_key = \"openbao:secret/mx#second\"";

struct World {
    folder: tempfile::TempDir,
    server: Arc<Server>,
    store: InDocument,
}

fn holding(document: Option<Value>) -> World {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::create(&folder.path().join("identity")).unwrap();
    embedded::create(&folder.path().join("vault.age"), &identity).unwrap();
    let config = config(folder.path());
    let environment = &config.environments["test"];
    let pair = [environment.credential.reference().unwrap(), environment.credential.secondary().unwrap()];
    let server = Server::holding(document);
    let store = InDocument::open(server.clone(), config.vault.as_ref().unwrap(), environment, pair).unwrap();
    World { folder, server, store }
}

fn world(document: Value) -> World {
    holding(Some(document))
}

fn key(text: &str) -> Arc<Secret> {
    Arc::new(Secret::new(text.into()).unwrap())
}

const OLD: &str = "the-old-key-0001";
const NEW: &str = "the-new-key-0002";

#[tokio::test]
async fn keys_and_record_change_in_one_write_and_the_fields_of_others_stay() {
    let World { server, store, .. } = world(json!({ "note": 1.50, "api_key": OLD, "z": [null] }));
    let mut contents = store.load().await.unwrap();
    assert_eq!((&contents.primary, &contents.secondary), (&Some(key(OLD)), &None));
    assert_eq!((&contents.record, contents.primary_since), (&Record::default(), Some(77)));

    contents.record.lock = Some(Lock { owner: "me".into(), until: 9 });
    contents.secondary = Some(key(NEW));
    assert_eq!(store.store(&contents).await.unwrap(), Written::Stored("2".into()));
    let document = server.document();
    assert_eq!((&document["note"], &document["z"]), (&json!(1.5), &json!([null])));
    assert_eq!((&document["api_key"], &document["second"]), (&json!(OLD), &json!(NEW)));

    let found = store.load().await.unwrap();
    assert_eq!((&found.record, &found.secondary, &*found.version), (&contents.record, &Some(key(NEW)), "2"));
    assert_eq!(found.primary_since, None, "the date of our own write is no key's");

    // An emptied slot is no field.
    let emptied = Contents { primary: Some(key(NEW)), secondary: None, ..found };
    assert_eq!(store.store(&emptied).await.unwrap(), Written::Stored("3".into()));
    let document = server.document();
    assert_eq!((&document["api_key"], document.get("second")), (&json!(NEW), None));
}

#[tokio::test]
async fn what_was_read_before_somebody_wrote_is_not_written() {
    let World { server, store, .. } = world(json!({ "api_key": OLD }));
    let contents = store.load().await.unwrap();
    let stale = Contents { version: "0".into(), ..contents.clone() };
    assert_eq!(store.store(&stale).await.unwrap(), Written::Conflict);
    server.raced.store(true, Relaxed);
    assert_eq!(store.store(&contents).await.unwrap(), Written::Conflict);
    assert_eq!(server.document(), json!({ "api_key": OLD }));
    let contents = store.load().await.unwrap();
    assert_eq!(store.store(&contents).await.unwrap(), Written::Stored("3".into()));
}

#[tokio::test]
async fn a_second_field_with_the_same_key_is_no_second_key() {
    let World { store, .. } = world(json!({ "api_key": OLD, "second": OLD }));
    assert_eq!(store.load().await.unwrap().secondary, None);
}

#[tokio::test]
async fn what_is_no_such_document_is_told() {
    for (document, said) in [
        (None, "openbao:secret/mx does not exist"),
        (Some(json!({ "api_key": 1 })), "no text"),
        (Some(json!({ "api_key": "" })), "not usable as a secret"),
    ] {
        let World { store, .. } = holding(document);
        let Err(Error::Unread(why)) = store.load().await else { panic!("it was read") };
        let why = crate::vault::chain(&*why);
        assert!(why.contains(said), "{why}");
    }
    for record in [json!("text"), json!({}), json!("{\"format\":2}")] {
        let World { store, .. } = world(json!({ "api_key": OLD, "mxgate_rotation_test": record }));
        assert!(matches!(store.load().await, Err(Error::NoRecord { .. })), "{record}");
    }
    let World { store, .. } = world(json!({ "second": OLD }));
    assert_eq!(store.load().await.unwrap().primary, None);
}

#[tokio::test]
async fn a_key_that_the_server_cannot_take_is_sealed_beside_the_embedded_vault() {
    let World { folder, store, .. } = world(json!({ "api_key": OLD }));
    assert!(store.rescue(&key(NEW)).await.is_err(), "nobody has looked at the vault");
    store.prepare_rescue().await.unwrap();
    // At the worst moment the vault itself may be gone.
    let vault = folder.path().join("vault.age");
    std::fs::rename(&vault, folder.path().join("gone")).unwrap();
    let place = store.rescue(&key(NEW)).await.unwrap();
    assert!(place.ends_with("vault.age.recovery-test"), "{place}");
    assert!(std::fs::read(&place).unwrap().starts_with(b"age-encryption.org/v1"));
    std::fs::rename(folder.path().join("gone"), &vault).unwrap();
    assert_eq!(store.rescued().await.unwrap(), Some(key(NEW)));
    store.forget_rescue().await.unwrap();
    assert_eq!(store.rescued().await.unwrap(), None);
}
