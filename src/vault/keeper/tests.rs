//! Whose sources are asked, and what becomes of what they say.

use std::cell::OnceCell;

use tokio::time::Instant;

use super::*;
use crate::config::overrides::Overrides;

/// A clock that stands still unless tokio's paused time is moved on.
pub(crate) fn paused() -> Moment {
    thread_local! { static BEGUN: OnceCell<(Instant, Moment)> = const { OnceCell::new() }; }
    let (begun, moment) = BEGUN.with(|begun| *begun.get_or_init(|| (Instant::now(), Moment::now())));
    moment.after(begun.elapsed())
}

/// A configuration with the commands `key` and, for another environment, `other`.
pub(crate) fn config(program: &str, keys: &str) -> Config {
    let text = format!(
        "allow = []\n[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"production\"\n\
         [environment.production]\n\
         credential = {{ kind = \"mx-api-key\", client_id = \"id\", api_key = \"exec:key\" }}\n\
         [environment.sandbox]\n\
         credential = {{ kind = \"mx-api-key\", client_id = \"id\", api_key = \"exec:other\" }}\n\
         [exec.key]\ncommand = [\"{program}\"]\n{keys}\n[exec.other]\ncommand = [\"{program}\"]\n{keys}\n"
    );
    Config::parse(&text, "mxgate.toml", &Overrides::none()).unwrap().config
}

pub(crate) fn document(place: &str) -> DocumentAt {
    DocumentAt { scheme: Scheme::Exec, place: place.into() }
}

fn source_of(keeper: &Keeper, place: &str) -> Arc<dyn Source> {
    let found = keeper.documents().into_iter().find(|(found, _)| *found == document(place));
    found.expect("a source").1
}

#[test]
fn a_configuration_that_is_only_considered_asks_its_own_sources_for_what_is_new_and_no_more() {
    let keeper = Keeper::new();
    let used = config("/bin/one", "");
    keeper.adopt(&used);
    let before = source_of(&keeper, "key");

    // The same command with another program, and a reference that is new.
    let mut considered = config("/bin/two", "refresh_ms = 100");
    let more = config("/bin/two", "").exec["key"].clone();
    considered.exec.insert("new".into(), more);
    let mut production = crate::config::Environment::clone(&considered.environments["production"]);
    production.bearer_operations = crate::config::BearerOperations::Token("exec:new".parse().unwrap());
    considered.environments.insert("production".into(), Arc::new(production));
    keeper.consider(&considered);
    assert!(Arc::ptr_eq(&before, &source_of(&keeper, "key")));
    assert!(!Arc::ptr_eq(&before, &source_of(&keeper, "new")));
    assert_eq!(keeper.interval(&document("key")), Duration::from_secs(300));

    // Another one is considered instead: what only the last one named is forgotten.
    keeper.consider(&used);
    assert!(keeper.documents().iter().all(|(document, _)| document.place != "new"));
    assert!(Arc::ptr_eq(&before, &source_of(&keeper, "key")));

    keeper.consider(&considered);
    let candidate = source_of(&keeper, "new");
    keeper.adopt(&considered);
    assert!(Arc::ptr_eq(&candidate, &source_of(&keeper, "key")), "made once");
    assert_eq!(keeper.interval(&document("key")), Duration::from_millis(100));
}

#[test]
fn what_was_not_read_yet_is_told_apart_from_what_has_no_source() {
    let keeper = Keeper::new();
    let config = config("/bin/one", "");
    keeper.consider(&config);
    let gathered = keeper.gathered(&config);
    let error = |reference: &str| gathered.resolve(&reference.parse().unwrap()).unwrap_err().to_string();
    assert_eq!(error("exec:key"), "exec:key has not been read yet; its source has not answered");
    let vault: Reference = "vault:a".parse().unwrap();
    let state = keeper.state();
    assert_eq!(state.missing(&vault).to_string(), "vault:a needs a section [vault], and none is configured");
}

#[test]
fn what_one_source_gave_does_not_go_where_only_another_ones_would() {
    let keeper = Keeper::new();
    let at = |program: &str, host: &str| {
        let mut config = config(program, "");
        let mut production = Environment::clone(&config.environments["production"]);
        production.host = host.into();
        config.environments.insert("production".into(), Arc::new(production));
        config
    };
    let key: Reference = "exec:key".parse().unwrap();
    let gathered = |config: &Config| keeper.gathered(config).resolve(&key).map(drop);
    let read = |value: &str| {
        let found = Document { bytes: value.as_bytes().to_vec().into(), version: None, written: None };
        let ways = keeper.state().ways();
        keeper.note(BTreeMap::from([(document("key"), Ok(found))]), None, ways);
    };
    keeper.adopt(&at("/bin/one", "mx.example"));
    read("k3y-of-the-first");
    for (program, host) in [("/bin/one", "mx.example"), ("/bin/one", "b.example"), ("/bin/two", "mx.example")]
    {
        let considered = at(program, host);
        keeper.consider(&considered);
        assert!(gathered(&considered).is_ok(), "{program} {host}");
    }
    let both = at("/bin/two", "b.example");
    keeper.consider(&both);
    let refused = gathered(&both).unwrap_err();
    assert!(matches!(*refused, Error::Moved { .. }), "{refused}");

    // Nor in two steps, as long as the other one has said nothing.
    keeper.adopt(&at("/bin/two", "mx.example"));
    assert!(gathered(&both).is_err());
    read("k3y-of-the-other");
    assert!(gathered(&both).is_ok());
}
