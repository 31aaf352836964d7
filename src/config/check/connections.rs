//! `[connections]`, and what stands elsewhere about them.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    listener::{self, certificate},
    network,
    provider::{scope, visible},
};
use crate::config::{
    BrowserListener, CallerConnections, ConnectionStore, Connections, Endpoint, Environment, OAuthGrant,
    Postgres, Provider, Serves, fault::Problem, walk::Table,
};

/// `None` when it is not written, or faulty.
pub(super) fn connections(file: &Table<'_>) -> Option<Connections> {
    let table = file.section("connections");
    if !table.is_written() {
        return None;
    }
    let (key, former_key) = (table.reference("key"), table.reference("former_key"));
    if key.is_some() && key == former_key {
        let problem = Problem::new("is the same as key");
        table.fault("former_key", problem.allowed("expected what tokens were sealed with before"));
    }
    let store = store(&table);
    let return_urls = table.list("return_urls", return_url);
    let browser_table = table.section("browser");
    let browser = browser_table.is_written().then(|| browser(&browser_table));
    match (browser.is_some(), return_urls.is_empty()) {
        (true, true) => table.warn("return_urls", "is empty: nobody can consent"),
        (false, false) => table.warn("return_urls", "is for a browser listener, and there is none"),
        _ => {}
    }
    Some(Connections {
        key: key?,
        former_key,
        store: store?,
        return_urls,
        browser: browser.map_or(Some(None), |browser| browser.map(Some))?,
    })
}

fn store(table: &Table<'_>) -> Option<ConnectionStore> {
    let (file, postgres) = (table.path("file"), table.section("postgres"));
    match (table.has("file"), postgres.is_written()) {
        (true, false) => file.map(ConnectionStore::File),
        (false, true) => self::postgres(&postgres).map(ConnectionStore::Postgres),
        (true, true) => {
            table.fault("file", Problem::new("stands beside postgres").allowed("write one of both"));
            None
        }
        (false, false) => {
            let problem = Problem::new("is required where postgres is not written");
            table.fault("file", problem.allowed("the file that they are kept in, as an absolute path"));
            None
        }
    }
}

fn postgres(table: &Table<'_>) -> Option<Postgres> {
    let host = table.parsed("host", database_host);
    let port = u16::try_from(table.count("port")).ok();
    let (database, user) = (table.parsed("database", visible), table.parsed("user", visible));
    let (password, schema) = (table.reference("password"), table.parsed("schema", schema));
    let ca_file = table.path("ca_file");
    if ca_file.is_some() && host.as_deref().is_some_and(|host| host.starts_with('/')) {
        table.warn("ca_file", "is for TLS, which is not spoken on a Unix socket");
    }
    Some(Postgres {
        host: host?,
        port: port?,
        database: database?,
        user: user?,
        password,
        schema: schema?,
        ca_file,
        connect_timeout: table.millis("connect_timeout_ms"),
        statement_timeout: table.millis("statement_timeout_ms"),
    })
}

fn database_host(text: &str) -> Result<String, Problem> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    network::host_name(&text.to_ascii_lowercase())
}

/// A name that SQL takes without quotes.
fn schema(text: &str) -> Result<String, Problem> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = text.starts_with(|first: char| first.is_ascii_lowercase());
    match begins && text.len() <= 63 && text.bytes().all(is_plain) && !text.starts_with("pg_") {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("is no plain name of a schema")
            .allowed("lower-case letters, digits and _, a letter first, not pg_")),
    }
}

/// `None` when it is faulty.
fn browser(table: &Table<'_>) -> Option<BrowserListener> {
    let (address, url) = (table.parsed("address", network::socket_address), table.parsed("url", origin));
    let tls_table = table.section("tls");
    let tls = certificate(&tls_table);
    if tls.is_some() && url.as_ref().is_some_and(|url: &Endpoint| !url.tls) {
        table.fault("url", Problem::new("is without TLS, and the listener has it").allowed("https://HOST"));
    }
    Some(BrowserListener {
        address: address?,
        url: url?,
        tls: if tls_table.is_written() { Some(tls?) } else { None },
        ticket_life: table.millis("ticket_life_ms"),
        consent_life: table.millis("consent_life_ms"),
    })
}

/// As browsers write it, and no other machine without TLS.
fn origin(text: &str) -> Result<Endpoint, Problem> {
    let origin = network::origin(text)?;
    let form = "expected \"https://HOST\" or \"https://HOST:PORT\", with http:// only for this machine";
    Endpoint::parse(&origin).map_err(|fault| Problem::new(fault.to_string()).allowed(form))
}

fn return_url(text: &str) -> Result<String, Problem> {
    let form = "expected \"https://HOST/PATH\", with http:// only for this machine";
    match Endpoint::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(fault) => Err(Problem::new(fault.to_string()).allowed(form)),
    }
}

/// `connections` of a caller.
pub(super) fn of_caller(caller: &Table<'_>) -> Option<CallerConnections> {
    let table = caller.section("connections");
    let word = |text: &str| Ok(text.to_owned());
    let (providers, of) = (table.list("providers", word), table.list("of", word));
    if table.is_empty_list("providers") {
        table.warn("providers", "is empty: it may use no connection");
    }
    table.is_written().then_some(CallerConnections { providers, of })
}

/// What is said elsewhere fits what is there.
pub(super) struct Across<'a> {
    pub(super) file: &'a Table<'a>,
    pub(super) connections: Option<&'a Connections>,
    pub(super) providers: &'a BTreeMap<String, Option<Provider>>,
    pub(super) environments: &'a BTreeMap<String, Option<Arc<Environment>>>,
}

impl Across<'_> {
    /// Environments and the provider whose tokens they get.
    pub(super) fn environments(&self) {
        for environment in self.environments.values().flatten() {
            let path = |key: &str| format!("environment.{}.{key}", environment.name);
            let mut used = Vec::new();
            for (key, name, grant) in environment.oauth() {
                used.push(name);
                self.provider(&path(key), name);
                if grant == OAuthGrant::AuthorizationCode && !self.file.has("connections") {
                    let problem = Problem::new("needs users' connections");
                    self.file.fault(&path(key), problem.allowed("add a section [connections]"));
                }
            }
            if environment.token_handles && !self.file.has("connections") {
                let problem = Problem::new("needs a place for the tokens");
                self.file.fault(&path("token_handles"), problem.allowed("add a section [connections]"));
            }
            if used.is_empty() && !environment.scopes.is_empty() {
                self.file.warn(&path("scopes"), "is for tokens of a provider, and none are attached here");
            }
            let known = |name: &&str| self.providers.get(*name).and_then(Option::as_ref);
            for provider in used.iter().filter_map(known).filter(|provider| !provider.scopes.is_empty()) {
                let scopes = environment.scopes.iter().flat_map(|needed| &needed.scopes);
                for scope in scopes.filter(|scope| !provider.scopes.contains(scope)) {
                    let problem = Problem::new(format!(
                        "needs {scope}, which provider.{} does not ask for",
                        provider.name
                    ));
                    let listed = provider.scopes.iter().map(String::as_str);
                    self.file.fault(&path("scopes"), problem.near(scope, listed));
                }
            }
        }
    }

    /// Callers and whose connections they may use.
    pub(super) fn callers(&self, callers: &[super::caller::Draft<'_>]) {
        let names: Vec<&str> = callers.iter().filter_map(|caller| caller.name.as_deref()).collect();
        for caller in callers {
            let Some(connections) = &caller.connections else { continue };
            for name in &connections.providers {
                if !self.providers.contains_key(name) {
                    let known = self.providers.keys().map(String::as_str);
                    caller.table.fault("connections.providers", no_provider(name, known));
                }
            }
            // It may have been one, whose connections are still there.
            for name in connections.of.iter().filter(|name| !names.contains(&name.as_str())) {
                let problem = Problem::new("names no caller").near(name, names.iter().copied());
                caller.table.warn("connections.of", problem);
            }
        }
    }

    /// Listeners for callers, and where providers send browsers back to.
    pub(super) fn listeners(&self, listeners: &[listener::Draft<'_>]) {
        let serving = |listener: &&listener::Draft<'_>| listener.serves == Some(Serves::Connections);
        let mut serving = listeners.iter().filter(serving).peekable();
        // Handles need none.
        let wants_one = !self.environments.values().flatten().any(|environment| environment.token_handles);
        if self.connections.is_some() && wants_one && serving.peek().is_none() {
            self.file.warn("connections", "no listener serves them: only `mxgate connections` can make any");
        }
        for listener in serving.filter(|_| !self.file.has("connections")) {
            let problem = Problem::new("has nothing to serve").allowed("add a section [connections]");
            listener.table.fault("serves", problem);
        }
        let Some(browser) = self.connections.and_then(|connections| connections.browser.as_ref()) else {
            return;
        };
        for provider in self.providers.values().flatten() {
            let ours = browser.url.to_string();
            let tickets = format!("{ours}ticket/");
            if provider.redirect_uri.as_ref().is_some_and(|uri| uri.starts_with(&tickets)) {
                let key = format!("provider.{}.redirect_uri", provider.name);
                self.file.fault(&key, Problem::new("is where tickets are opened").allowed("another path"));
            }
            if provider.redirect_uri.as_ref().is_some_and(|uri| !uri.starts_with(&ours)) {
                let problem =
                    Problem::new("is not under connections.browser.url, where browsers come back to");
                let key = format!("provider.{}.redirect_uri", provider.name);
                self.file.warn(&key, problem.allowed(format!("expected \"{ours}...\"")));
            }
        }
    }

    /// A provider that sends a browser back with another's code (RFC 9700, 4.4) is told apart by where it sends it, since not
    /// all of them name themselves.
    pub(super) fn redirects(&self) {
        let mut seen = BTreeMap::new();
        for provider in self.providers.values().flatten() {
            let Some(uri) = &provider.redirect_uri else { continue };
            if let Some(first) = seen.insert(uri, &provider.name) {
                let problem = Problem::new(format!("is that of provider.{first}"));
                let key = format!("provider.{}.redirect_uri", provider.name);
                self.file.fault(
                    &key,
                    problem.allowed("another path for each, so that none can answer for another"),
                );
            }
        }
    }

    fn provider(&self, key: &str, name: &str) {
        if !self.providers.contains_key(name) {
            self.file.fault(key, no_provider(name, self.providers.keys().map(String::as_str)));
        }
    }
}

fn no_provider<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Problem {
    Problem::new("names no provider").near(name, known)
}

/// `scopes` of an environment, item by item.
pub(super) fn scopes(table: &Table<'_>, api: &crate::config::Api) -> Vec<crate::config::NeededScopes> {
    let mut needed = Vec::new();
    for (written, scopes) in table.named_lists("scopes", scope) {
        let scopes: Vec<String> = scopes.into_iter().map(|(_, scope)| scope).collect();
        let item =
            super::caller::item(written).and_then(|item| super::caller::fits_api(&item, api).map(|()| item));
        match item {
            Ok(item) if item.excludes => {
                let problem = Problem::new("takes away, which means nothing here");
                table.fault("scopes", problem.allowed("expected the words of a grant without -"));
            }
            Ok(item) => needed.push(crate::config::NeededScopes { item, scopes }),
            Err(problem) => table.fault("scopes", problem),
        }
    }
    needed
}
