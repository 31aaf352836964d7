//! `[[caller]]`.

use std::{
    collections::{BTreeMap, HashMap},
    time::SystemTime,
};

use ipnet::IpNet;

use super::{
    connections, environment::is_name, limits, network::network, observe, paths, tls_name::tls_name, users,
};
use crate::{
    config::{
        Api, Caller, CallerConnections, Environment,
        fault::Problem,
        limits::CallerLimits,
        walk::{Table, shown_key},
    },
    policy::grant::{
        Item, Malformed, Term,
        review::{Finding, review},
    },
};

/// A caller as far as it could be read.
pub(super) struct Draft<'a> {
    pub(super) table: Table<'a>,
    pub(super) name: Option<String>,
    pub(super) networks: Option<Vec<IpNet>>,
    pub(super) unix_uids: Option<Vec<u32>>,
    pub(super) unix_gids: Option<Vec<u32>>,
    pub(super) tls_names: Option<Vec<String>>,
    pub(super) token: bool,
    pub(super) connections: Option<CallerConnections>,
    limits: CallerLimits,
    /// Items with their places in their lists.
    pub(super) grant: BTreeMap<&'a str, Vec<(usize, Item)>>,
    users: users::Draft,
    observe_until: Option<SystemTime>,
}

impl Draft<'_> {
    /// `None` when something is missing, which was reported.
    pub(super) fn finish(mut self) -> Option<Caller> {
        Some(Caller {
            name: self.name?,
            networks: self.networks,
            unix_uids: self.unix_uids,
            unix_gids: self.unix_gids,
            tls_names: self.tls_names,
            token: self.token,
            connections: self.connections,
            limits: self.limits,
            grant: self
                .grant
                .into_iter()
                .map(|(name, items)| (name.to_owned(), without_places(items)))
                .collect(),
            users: self.users.users.take(),
            users_file: self.users.users_file.take(),
            mask_fields: std::mem::take(&mut self.users.mask_fields),
            end_user: self.users.end_user()?,
            observe_until: self.observe_until,
        })
    }
}

fn without_places(items: Vec<(usize, Item)>) -> Vec<Item> {
    items.into_iter().map(|(_, item)| item).collect()
}

pub(super) fn all<'a>(file: &Table<'a>) -> Vec<Draft<'a>> {
    file.sections("caller").into_iter().map(one).collect()
}

fn one(table: Table<'_>) -> Draft<'_> {
    let name = table.parsed("name", name);
    let networks = given(&table, "networks", |table| table.list("networks", network));
    let unix_uids = given(&table, "unix_uids", |table| ids(table, "unix_uids"));
    let unix_gids = given(&table, "unix_gids", |table| ids(table, "unix_gids"));
    let connections = connections::of_caller(&table);
    let limits = limits::caller(&table.section("limits"));
    let grant = grant(&table);
    let users = users::Draft::read(&table);
    let observe_until = observe::until(&table);
    let tls_names = given(&table, "tls_names", |table| table.list("tls_names", tls_name));
    let token = table.flag("token");
    let unix = unix_uids.is_some() || unix_gids.is_some();
    if networks.is_none() && !unix && tls_names.is_none() && !token {
        let allowed = "expected one or more of networks, unix_uids, unix_gids, tls_names and token";
        table.fault("name", Problem::new("can be recognised by nothing").allowed(allowed));
    }
    for (key, is_given) in [("networks", networks.is_some()), ("tls_names", tls_names.is_some())] {
        if is_given && unix {
            table.fault(key, "never holds on a Unix socket, which unix_uids and unix_gids ask for");
        }
    }
    // They are the words of `mxgate caller token`.
    if token && let Some(word @ ("list" | "revoke" | "help")) = name.as_deref() {
        table.fault("name", Problem::new(format!("is the word `{word}` of `mxgate caller token`")));
    }
    Draft {
        table,
        name,
        networks,
        unix_uids,
        unix_gids,
        tls_names,
        token,
        grant,
        connections,
        limits,
        users,
        observe_until,
    }
}

/// The lists by environment, without what is no item.
fn grant<'a>(table: &Table<'a>) -> BTreeMap<&'a str, Vec<(usize, Item)>> {
    let mut grant = BTreeMap::new();
    for (environment, texts) in table.named_lists("grant", |text| Ok(item(text))) {
        let key = format!("grant.{}", shown_key(environment));
        if texts.is_empty() {
            table.warn(&key, "is empty: it allows nothing");
        }
        let mut read = |(place, item): (usize, Result<Item, Problem>)| {
            let item = item.map_err(|problem| table.fault(&format!("{key}[{place}]"), problem));
            Some((place, item.ok()?))
        };
        grant.insert(environment, texts.into_iter().filter_map(&mut read).collect());
    }
    grant
}

/// A list that is written; one without an item would match nobody.
fn given<T>(table: &Table<'_>, key: &str, read: impl Fn(&Table<'_>) -> Vec<T>) -> Option<Vec<T>> {
    if table.is_empty_list(key) {
        table.fault(key, Problem::new("is empty: it matches nobody").allowed("leave it out, or list some"));
    }
    table.has(key).then(|| read(table))
}

fn ids(table: &Table<'_>, key: &str) -> Vec<u32> {
    table.integers(key).into_iter().filter_map(|id| u32::try_from(id).ok()).collect()
}

fn name(text: &str) -> Result<String, Problem> {
    if is_name(text) {
        return Ok(text.to_owned());
    }
    let form = "lower-case letters and digits, joined by single - or _, a letter first";
    Err(Problem::new("is a name of another form").allowed(form))
}

/// One item of a grant, as it stands in a list.
///
/// # Errors
/// What is wrong with it, and the nearest valid name.
pub fn item(text: &str) -> Result<Item, Problem> {
    Item::parse(text, paths::pattern)
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        let valid = malformed.valid.iter().map(String::as_str);
        let problem = Self::new(malformed.what).near(&malformed.written, valid);
        // All operations of MX are too many for a line.
        if problem.nearest.is_none() && malformed.valid.len() > 100 {
            return problem.allowed("`mxgate operations` lists them");
        }
        problem
    }
}

/// Names are unique, and each grant fits its environment.
pub(super) fn beside_each_other(
    file: &Table<'_>,
    callers: &[Draft<'_>],
    environments: &BTreeMap<String, Option<std::sync::Arc<Environment>>>,
) {
    if callers.is_empty() && !file.has("caller") {
        file.warn("caller", "is absent: nobody is served");
    }
    let mut seen = HashMap::new();
    for caller in callers {
        if let Some(name) = &caller.name
            && let Some(first) = seen.insert(name, caller.table.path_of("name"))
        {
            caller.table.fault("name", Problem::new(format!("is the same as {first}")));
        }
        if caller.grant.is_empty() && caller.table.has("grant") {
            caller.table.warn("grant", "names no environment: this caller may do nothing");
        }
        for (environment, items) in &caller.grant {
            let key = format!("grant.{}", shown_key(environment));
            let names = environments.keys().map(String::as_str);
            match environments.get(*environment) {
                None => caller.table.fault(&key, Problem::new("is no environment").near(environment, names)),
                Some(Some(environment)) => {
                    fits(caller, &key, items, &environment.api);
                    if caller.users.binds() {
                        users::useless(&caller.table, &key, items, &environment.api);
                    }
                }
                Some(None) => {}
            }
        }
        let granted = caller.grant.keys().copied();
        limits::within_budgets(&caller.table, &caller.limits, environments, granted);
    }
}

/// Whether the items of a grant mean something at their environment, and do something.
fn fits(caller: &Draft<'_>, key: &str, items: &[(usize, Item)], api: &Api) {
    let mut is_sound = true;
    for (place, item) in items {
        if let Err(problem) = fits_api(item, api) {
            is_sound = false;
            caller.table.fault(&format!("{key}[{place}]"), problem);
        }
    }
    if is_sound {
        odd(caller, key, items, api);
    }
}

/// Whether an item means something at an environment.
pub(super) fn fits_api(item: &Item, api: &Api) -> Result<(), Problem> {
    match (api, &item.term) {
        (Api::Platform, Term::Paths) => {
            Err("is for an environment that lists paths, and this one has MX's operations".into())
        }
        (Api::Paths(_), Term::Operation(_) | Term::Class(_) | Term::Tag(_) | Term::Bundle(_)) => {
            let problem = Problem::new("is of MX's Platform API, and this environment lists its own paths");
            Err(problem.allowed("expected \"paths\", \"path:\" with one of them, or \"method:\""))
        }
        (Api::Paths(listed), Term::Path(pattern)) if !listed.contains(pattern) => {
            let listed: Vec<String> =
                listed.iter().map(|one| format!("path:{} {}", one.method, one.template)).collect();
            let written = format!("path:{} {}", pattern.method, pattern.template);
            let problem = Problem::new("is none of its environment's paths");
            Err(problem.near(&written, listed.iter().map(String::as_str)))
        }
        _ => Ok(()),
    }
}

/// What is odd about a list whose items fit.
fn odd(caller: &Draft<'_>, key: &str, items: &[(usize, Item)], api: &Api) {
    let list = without_places(items.to_vec());
    let listed = if let Api::Paths(listed) = api { Some(listed.as_slice()) } else { None };
    for (place, finding) in review(&list, listed) {
        // For a caller that is bound to users, naming does something by itself; `users::useless` looks at the rest.
        if caller.users.binds() && matches!(finding, Finding::AddsNothing(_)) {
            continue;
        }
        // Places count in the file, where other items may have been unreadable.
        let in_file = |place: usize| items.get(place).map_or(place, |(in_file, _)| *in_file);
        let finding = if let Finding::Duplicate(first) = finding {
            Finding::Duplicate(in_file(first))
        } else {
            finding
        };
        let (key, problem) = (format!("{key}[{}]", in_file(place)), Problem::new(finding.to_string()));
        if finding.is_fault() {
            caller.table.fault(&key, problem);
        } else {
            caller.table.warn(&key, problem);
        }
    }
    if !list.is_empty() && list.iter().all(|item| item.excludes) {
        caller.table.warn(key, "allows nothing: it only excludes");
    }
}
