//! `[connections]`, and what stands elsewhere about them.

use super::{SMALLEST, assert_accepted, assert_fault, assert_warning, parse};
use crate::config::{ConnectionStore, Credential, OAuthGrant, Serves};

const PROVIDER: &str = "[provider.bank]\nclient_id = \"C\"\nclient_secret = \"env:S\"\nscopes = [\"a\", \"b\"]\n\
    token_endpoint = \"https://id.example/token\"\nredirect_uri = \"https://connect.example/callback\"\n";
const STORE: &str = "[connections]\nkey = \"env:K\"\nfile = \"/store\"\n";
const SERVING: &str = "[[listener]]\naddress = \"127.0.0.1:8099\"\nserves = \"connections\"\n";
const BROWSER: &str =
    "[connections.browser]\naddress = \"127.0.0.1:8443\"\nurl = \"https://connect.example\"\n";

fn file(parts: &[&str]) -> String {
    [&[SMALLEST], parts].concat().join("\n")
}

/// The smallest file with an environment beside its own, whose tokens a provider gives.
fn oauth(environment: &str) -> String {
    let environment = format!(
        "[[listener]]\naddress = \"127.0.0.1:8098\"\nenvironment = \"accounts\"\n[environment.accounts]\n\
         url = \"https://a.example\"\npaths = [\"GET /accounts\"]\n{environment}\n"
    );
    file(&[SERVING, &environment, PROVIDER, STORE])
}

#[test]
fn a_store_is_a_file_or_a_database_and_not_both() {
    assert_accepted(&file(&[SERVING, STORE]), &[]);
    let postgres = "[connections.postgres]\nhost = \"db.example\"\n";
    assert_fault(
        &file(&[SERVING, STORE, postgres]),
        "connections.file: stands beside postgres; write one of both",
    );
    let database = STORE.replace("file = \"/store\"\n", "");
    assert_fault(
        &file(&[SERVING, &database]),
        "connections.file: is required where postgres is not written; the file that they are kept in, as an absolute path",
    );
    let config = parse(&file(&[SERVING, &database, postgres])).unwrap().config;
    let ConnectionStore::Postgres(postgres) = config.connections.unwrap().store else { panic!() };
    assert_eq!((&*postgres.host, postgres.port, &*postgres.schema), ("db.example", 5432, "mxgate"));
    for wrong in ["schema = \"a b\"", "schema = \"pg_a\"", "schema = \"A\"", "host = \"a:1\"", "port = 0"] {
        let section = format!("[connections.postgres]\nhost = \"db.example\"\n{wrong}\n");
        let section = if wrong.starts_with("host") {
            section.replacen("host = \"db.example\"\n", "", 1)
        } else {
            section
        };
        assert!(parse(&file(&[SERVING, &database, &section])).is_err(), "{wrong}");
    }
}

#[test]
fn browsers_come_to_one_origin_and_go_back_to_what_is_listed() {
    let returning =
        STORE.replace("[connections]\n", "[connections]\nreturn_urls = [\"https://app.example/back\"]\n");
    assert_accepted(&file(&[SERVING, PROVIDER, &returning, BROWSER]), &[]);
    assert_warning(
        &file(&[SERVING, PROVIDER, STORE, BROWSER]),
        "connections.return_urls: is empty: nobody can consent",
    );
    for wrong in
        ["https://connect.example/a", "http://connect.example", "https://Connect.example", "connect.example"]
    {
        let browser = BROWSER.replace("https://connect.example", wrong);
        assert!(parse(&file(&[SERVING, &returning, &browser])).is_err(), "{wrong}");
    }
    for wrong in ["http://app.example/back", "app.example", "javascript:alert(1)", "https://app.example/#a"] {
        let returning = returning.replace("https://app.example/back", wrong);
        assert!(parse(&file(&[SERVING, &returning, BROWSER])).is_err(), "{wrong}");
    }
    let ticket = PROVIDER.replace("connect.example/callback", "connect.example/ticket/callback");
    assert_fault(
        &file(&[SERVING, &ticket, &returning, BROWSER]),
        "provider.bank.redirect_uri: is where tickets are opened; another path",
    );
    let elsewhere = PROVIDER.replace("connect.example", "elsewhere.example");
    assert_warning(
        &file(&[SERVING, &elsewhere, &returning, BROWSER]),
        "provider.bank.redirect_uri: is not under connections.browser.url, where browsers come back to; \
         expected \"https://connect.example/...\"",
    );
}

#[test]
fn a_listener_goes_to_an_environment_or_serves_connections() {
    let config = parse(&file(&[SERVING, STORE])).unwrap().config;
    assert_eq!(config.listeners.last().unwrap().serves, Serves::Connections);
    assert_fault(&file(&[SERVING]), "listener[1].serves: has nothing to serve; add a section [connections]");
    let neither = SERVING.replace("serves = \"connections\"\n", "");
    assert_fault(
        &file(&[&neither, STORE]),
        "listener[1].environment: is required; the environment that its requests go to",
    );
    assert_warning(
        &file(&[STORE]),
        "connections: no listener serves them: only `mxgate connections` can make any",
    );
}

#[test]
fn an_environment_may_get_a_providers_tokens() {
    let token = "credential = { kind = \"oauth2\", provider = \"bank\" }\n";
    assert_accepted(&oauth(token), &[]);
    let config = parse(&oauth(token)).unwrap().config;
    let Credential::OAuth2 { grant, .. } = &config.environments["accounts"].credential else { panic!() };
    assert_eq!(*grant, OAuthGrant::AuthorizationCode);
    assert_fault(
        &oauth(&token.replace("bank", "bnak")),
        "environment.accounts.credential.provider: names no provider; did you mean \"bank\"?",
    );
    let without = oauth(token).replace(STORE, "").replace(SERVING, "");
    assert_fault(
        &without,
        "environment.accounts.credential.provider: needs users' connections; add a section [connections]",
    );
    let own = "credential = { kind = \"oauth2\", provider = \"bank\", grant = \"client_credentials\" }\n";
    assert_accepted(&oauth(own).replace(STORE, "").replace(SERVING, ""), &[]);
}

#[test]
fn scopes_are_those_that_the_provider_is_asked_for() {
    let with = |scopes: &str| {
        oauth(&format!("credential = {{ kind = \"oauth2\", provider = \"bank\" }}\nscopes = {{ {scopes} }}"))
    };
    assert_accepted(&with("\"path:GET /accounts\" = [\"a\"], paths = [\"b\"]"), &[]);
    assert_fault(
        &with("paths = [\"c\"]"),
        "environment.accounts.scopes: needs c, which provider.bank does not ask for; one of \"a\", \"b\"",
    );
    assert_fault(
        &with("\"path:GET /other\" = [\"a\"]"),
        "environment.accounts.scopes: is none of its environment's paths; did you mean \"path:GET /accounts\"?",
    );
    assert_fault(
        &with("\"-paths\" = [\"a\"]"),
        "environment.accounts.scopes: takes away, which means nothing here; expected the words of a grant without -",
    );
}

#[test]
fn a_caller_uses_the_connections_of_providers_that_are_there() {
    let with = |connections: &str| {
        file(&[SERVING, PROVIDER, STORE])
            .replace("[[caller]]\n", &format!("[[caller]]\nconnections = {{ {connections} }}\n"))
    };
    assert_accepted(&with("providers = [\"bank\"]"), &[]);
    assert_fault(
        &with("providers = [\"bnak\"]"),
        "connections.providers: names no provider; did you mean \"bank\"?",
    );
    assert_fault(
        &with(""),
        "connections.providers: is required; The providers whose connections it may make and use",
    );
    assert_warning(&with("providers = [\"bank\"], of = [\"nobody\"]"), "connections.of: names no caller");
}

#[test]
fn handles_need_a_store_and_mxs_platform_api() {
    let with = |line: &str| {
        SMALLEST.replacen("[environment.production]\n", &format!("[environment.production]\n{line}\n"), 1)
    };
    let handles = with("token_handles = true");
    assert_fault(
        &handles,
        "environment.production.token_handles: needs a place for the tokens; add a section [connections]",
    );
    let stored = [handles.as_str(), STORE].join("\n");
    // No listener serves connections, and none has to.
    assert_accepted(&stored, &[]);
    assert!(parse(&stored).unwrap().config.environments["production"].token_handles);
    assert_accepted(&with("token_handles = false"), &[]);
    assert!(!parse(SMALLEST).unwrap().config.environments["production"].token_handles);
    let paths = "credential = { kind = \"oauth2\", provider = \"bank\" }\ntoken_handles = true\n";
    assert_fault(
        &oauth(paths),
        "environment.accounts.token_handles: is known of MX's Platform API only; leave it out beside paths",
    );
}
