//! `[[listener]]`.

use super::network::{host_name, listen_address, origin};
use crate::config::{ClientCa, ListenAddress, Listener, ListenerTls, Serves, fault::Problem, walk::Table};

/// A listener as far as it could be read.
pub(super) struct Draft<'a> {
    pub(super) table: Table<'a>,
    pub(super) address: Option<ListenAddress>,
    pub(super) serves: Option<Serves>,
    pub(super) proxy_protocol: bool,
    tls: Option<ListenerTls>,
    pub(super) client_ca: Option<ClientCa>,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Draft<'_> {
    pub(super) fn environment(&self) -> Option<&str> {
        self.serves.as_ref()?.environment()
    }

    /// `None` when something is missing, which was reported.
    pub(super) fn finish(self) -> Option<Listener> {
        Some(Listener {
            address: self.address?,
            serves: self.serves?,
            tls: self.tls,
            client_ca: self.client_ca,
            proxy_protocol: self.proxy_protocol,
            hosts: self.hosts,
            origins: self.origins,
        })
    }
}

pub(super) fn all<'a>(file: &Table<'a>) -> Vec<Draft<'a>> {
    file.sections("listener").into_iter().map(one).collect()
}

fn one(table: Table<'_>) -> Draft<'_> {
    let address = table.parsed("address", listen_address);
    let serves = serves(&table);
    let tls_table = table.section("tls");
    let (tls, client_ca) = (certificate(&tls_table), client_ca(&tls_table));
    let proxy_protocol = table.flag("proxy_protocol");
    let hosts = table.list("hosts", host_name);
    let origins = table.list("origins", origin);
    if let Some(ListenAddress::Tcp(address)) = &address
        && !address.ip().is_loopback()
        && !table.has("tls")
    {
        let problem = Problem::new("is reachable from other machines without TLS");
        table.warn("address", problem.allowed(
            "set tls, or listen on a loopback address or a Unix socket; if neither, list in hosts the names it is \
             called by, so that no web page reaches it by DNS rebinding",
        ));
    }
    if matches!(address, Some(ListenAddress::Unix(_))) && table.has("tls") {
        let problem = Problem::new("is not spoken on a Unix socket");
        table.fault("tls", problem.allowed("leave it out: the kernel tells who is at the other end"));
    }
    Draft { table, address, serves, proxy_protocol, tls, client_ca, hosts, origins }
}

fn serves(table: &Table<'_>) -> Option<Serves> {
    let environment = table.parsed("environment", |name| Ok(name.to_owned()));
    if table.choice("serves") == "connections" {
        if table.has("environment") {
            table.warn("environment", "means nothing here: this listener serves connections");
        }
        return Some(Serves::Connections);
    }
    if !table.has("environment") {
        let problem = Problem::new("is required");
        table.fault("environment", problem.allowed("the environment that its requests go to"));
    }
    environment.map(Serves::Environment)
}

/// Whose client certificates are taken.
fn client_ca(tls: &Table<'_>) -> Option<ClientCa> {
    let required = tls.choice("client_certificate") == "required";
    if tls.has("client_certificate") && !tls.has("client_ca") {
        tls.fault(
            "client_certificate",
            Problem::new("needs client_ca").allowed("the authorities to verify it with"),
        );
    }
    tls.path("client_ca").map(|file| ClientCa { file, required })
}

/// `{ certificate, key }`; `None` when it is not written, or faulty.
pub(super) fn certificate(table: &Table<'_>) -> Option<ListenerTls> {
    if !table.is_written() {
        return None;
    }
    let (certificate, key) = (table.path("certificate"), table.path("key"));
    Some(ListenerTls { certificate: certificate?, key: key? })
}
