//! The file's tree to a [`Config`]: every key is read once, every fault is reported.
//!
//! Out comes `None` when something that has no default is absent or wrong; the report then says what.

mod across;
mod aws;
mod caller;
mod connections;
mod credential;
mod egress;
mod environment;
mod exec;
mod limits;
mod listener;
mod network;
mod observe;
mod openbao;
mod overlap;
mod paths;
mod provider;
mod recognition;
mod refresh;
mod rotation;
mod tls_name;
mod tokens;
mod users;

use std::sync::Arc;

pub(super) use self::network::is_loopback;
pub use self::{caller::item as grant_item, rotation::client_guid};
use super::{
    Config, ForwardedHeader, Health, Limits, Log, Process, RecordDestination, Refresh, Refreshing, VaultFile,
    document::Node,
    fault::{Problem, Report},
    schema::keys::FILE,
    walk::{Table, absolute_path},
};
use crate::{tree::tree_of_all, vault::elsewhere::Elsewhere};

/// Reads the whole file.
pub(super) fn config(root: &Node, report: &Report<'_>) -> Option<Config> {
    let file = Table::root(root, FILE, report);
    let allow = file.list("allow", network::network);
    let trusted_proxies = file.list("trusted_proxies", network::network);
    let forwarded_header = match file.choice("forwarded_header") {
        "forwarded" => ForwardedHeader::Forwarded,
        "none" => ForwardedHeader::None,
        _ => ForwardedHeader::XForwardedFor,
    };
    let listeners = listener::all(&file);
    let limits = limits(&file.section("limits"));
    let (vault, of_vault) = vault(&file);
    let of_files = refresh::refresh(&file.section("file"));
    // Without a vault its own means nothing.
    let refresh = Refreshing { vault: of_vault.unwrap_or(of_files), file: of_files };
    let exec = exec::all(&file);
    let openbao = openbao::openbao(&file.section("openbao"));
    let aws = aws::aws(&file);
    let callers = caller::all(&file);
    let tokens = tokens::tokens(&file.section("tokens"));
    let providers = provider::all(&file);
    let connections = connections::connections(&file);
    let environments = environment::all(&file);
    let health = health(&file.section("health"));
    let control_socket = file.section("control").path("socket");
    let log = log(&file.section("log"));
    let record = file.section("record").parsed("destination", destination);
    let process = process(&file.section("process"));

    // In a file that could not be read to its end, parts would seem to be missing.
    if report.is_whole() {
        let names: Vec<&str> = environments.keys().map(String::as_str).collect();
        across::environments(&file, &listeners, &names);
        caller::beside_each_other(&file, &callers, &environments);
        recognition::recognisable(&file, &callers, &listeners, &environments);
        across::references(report, &file, &exec, aws.as_ref(), &environments);
        across::what_opens_the_vault(report);
        across::proxies(report, &environments);
        across::networks(&file, &allow, &trusted_proxies, &listeners);
        across::addresses(
            report,
            &listeners,
            health.as_ref(),
            control_socket.as_deref(),
            connections.as_ref(),
        );
        let parts = connections::Across {
            file: &file,
            connections: connections.as_ref(),
            providers: &providers,
            environments: &environments,
        };
        parts.environments();
        parts.callers(&callers);
        parts.listeners(&listeners);
        parts.redirects();
    }
    let exec = tree_of_all(exec.into_iter().map(|(name, one)| Some((name, one?))))?;
    let vault = vault.map(|vault| VaultFile {
        elsewhere: Elsewhere::new(vault.opened_with(), &exec, openbao.as_ref(), aws.as_ref()),
        ..vault
    });
    Some(Config {
        allow,
        trusted_proxies,
        forwarded_header,
        listeners: listeners.into_iter().map(listener::Draft::finish).collect::<Option<_>>()?,
        limits,
        vault,
        refresh,
        exec,
        openbao,
        aws,
        callers: callers.into_iter().map(caller::Draft::finish).collect::<Option<_>>()?,
        tokens,
        providers: tree_of_all(providers.into_iter().map(|(name, one)| Some((name, Arc::new(one?)))))?,
        connections,
        environments: tree_of_all(environments.into_iter().map(|(name, one)| Some((name, one?))))?,
        health,
        control_socket,
        log: log?,
        record: record?,
        process,
    })
}

fn limits(table: &Table<'_>) -> Limits {
    Limits {
        connections_max: table.size("connections_max"),
        connections_per_address_max: table.size("connections_per_address_max"),
        header_bytes_max: table.size("header_bytes_max"),
        header_count_max: table.size("header_count_max"),
        request_line_bytes_max: table.size("request_line_bytes_max"),
        body_bytes_max: table.count("body_bytes_max"),
        header_read_timeout: table.millis("header_read_timeout_ms"),
        idle_timeout: table.millis("idle_timeout_ms"),
        upload_timeout: table.millis("upload_timeout_ms"),
    }
}

fn vault(file: &Table<'_>) -> (Option<VaultFile>, Option<Refresh>) {
    // `file` is the one kind so far.
    let Some((_, table)) = file.variant("vault") else { return (None, None) };
    let (path, identity) = (table.path("path"), table.reference("identity"));
    let (passphrase, elsewhere) = (table.reference("passphrase"), Elsewhere::nowhere());
    let vault = path.zip(identity);
    let vault = vault.map(|(path, identity)| VaultFile { path, identity, passphrase, elsewhere });
    (vault, Some(refresh::refresh(&table)))
}

fn health(table: &Table<'_>) -> Option<Health> {
    let address = table.parsed("address", network::socket_address);
    let hosts = table.list("hosts", network::host_name);
    let ready_needs_vault = table.flag("ready_needs_vault");
    if !table.is_written() {
        return None;
    }
    Some(Health { address: address?, hosts, ready_needs_vault })
}

fn log(table: &Table<'_>) -> Option<Log> {
    let filter = table.parsed("filter", log_filter);
    let json = table.choice("format") == "json";
    Some(Log { filter: filter?, json })
}

/// Levels, and levels of single modules. A bare word would otherwise be taken for a module's name, and a
/// mistyped level would silently switch the log off.
pub(crate) fn log_filter(text: &str) -> Result<String, Problem> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in text.split(',') {
        let (target, level) =
            part.split_once('=').map_or((None, part), |(target, level)| (Some(target), level));
        if !LEVELS.contains(&level) {
            return Err(Problem::new("holds a word that is no level").near(level, LEVELS));
        }
        if target.is_some_and(|target| target.is_empty() || target.contains(|c: char| !is_target(c))) {
            let form = "expected a level, or a list such as \"info,mxgate::upstream=debug\"";
            return Err(Problem::new("holds a word that is no module").allowed(form));
        }
    }
    Ok(text.to_owned())
}

fn is_target(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn destination(text: &str) -> Result<RecordDestination, Problem> {
    match text {
        "stdout" => Ok(RecordDestination::Stdout),
        "off" => Ok(RecordDestination::Off),
        _ => match text.strip_prefix("file:") {
            Some(path) => absolute_path(path).map(RecordDestination::File),
            None => {
                Err(Problem::new("unknown value").allowed("expected \"stdout\", \"off\" or \"file:/PATH\""))
            }
        },
    }
}

fn process(table: &Table<'_>) -> Process {
    Process {
        workers: table.has("workers").then(|| table.size("workers")),
        drain_delay: table.millis("drain_delay_ms"),
        drain_total: table.millis("drain_total_ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_made_of_levels() {
        for text in ["info", "off", "info,mxgate::upstream=debug", "mxgate=trace,warn"] {
            assert!(log_filter(text).is_ok(), "{text}");
            assert!(text.parse::<tracing_subscriber::filter::Targets>().is_ok(), "{text}");
        }
        for text in ["", "inof", "INFO", "info,", "mxgate", "=info", "mxgate=", "a[b]=info", "info, warn"] {
            assert!(log_filter(text).is_err(), "{text}");
        }
        assert_eq!(log_filter("inof").unwrap_err().nearest.as_deref(), Some("info"));
    }

    #[test]
    fn records_go_to_one_of_three_places() {
        assert_eq!(destination("file:/a").ok(), Some(RecordDestination::File("/a".into())));
        for text in ["stdout", "off"] {
            assert!(destination(text).is_ok());
        }
        for text in ["file:a", "/a", "none", ""] {
            assert!(destination(text).is_err(), "{text}");
        }
    }
}
