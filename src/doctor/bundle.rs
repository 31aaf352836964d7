//! A support bundle: one JSON file that can be read before it is sent.
//!
//! An archive would need a crate, and hide from its owner what he gives away. In it: the version, the configuration
//! with references only, what the doctor found, and, if a gateway runs here, its status and its metrics.
//!
//! What must never happen: a secret in it. Everything in it is free of secrets already; when it is put together, each
//! text and then the whole are masked by value once more.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use super::Report;
use crate::{
    config::Config,
    control::client::Client,
    https::Stream,
    redaction::{Masker, held},
    tree::tree,
    vault::reference::Reference,
};

/// For each question to a running gateway.
const TIMEOUT: Duration = Duration::from_secs(5);

const METRICS_BYTES_MAX: usize = 4 << 20;

/// Writes what is known to a new file at `to`, which only its owner may read. `socket` is where a running gateway's
/// control socket would be.
///
/// # Errors
/// The file is there already, or cannot be written.
pub async fn write(
    to: &Path,
    config: &Config,
    path: &Path,
    report: &Report,
    socket: &Path,
) -> io::Result<()> {
    let bundle = json!({
        "mxgate": env!("CARGO_PKG_VERSION"),
        "written_at": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        "system": { "os": std::env::consts::OS, "architecture": std::env::consts::ARCH },
        "configuration": { "path": path.display().to_string(), "set": Config::shown(path) },
        "doctor": report.to_json(),
        "status": without_chosen(status(config.control_socket.as_deref().unwrap_or(socket)).await, config),
        "metrics": metrics(config).await,
    });
    let text = clean(bundle, &held().masker());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    file.write_all(&text)?;
    file.sync_all()
}

/// The file's bytes, masked. A form of a secret may be in a text, or only come about when texts are written as JSON.
fn clean(mut bundle: Value, masker: &Masker) -> Vec<u8> {
    mask(&mut bundle, masker);
    let mut text = format!("{bundle:#}\n").into_bytes();
    masker.mask(&mut text);
    text
}

fn mask(value: &mut Value, masker: &Masker) {
    match value {
        Value::String(text) => {
            let mut bytes = std::mem::take(text).into_bytes();
            masker.mask(&mut bytes);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        Value::Array(values) => values.iter_mut().for_each(|one| mask(one, masker)),
        Value::Object(entries) => entries.values_mut().for_each(|one| mask(one, masker)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

async fn status(socket: &Path) -> Value {
    match timeout(TIMEOUT, Client::new(socket).status()).await {
        Ok(Ok(status)) => serde_json::to_value(&status).unwrap_or_default(),
        Ok(Err(error)) => json!(format!("not to be had: {error}")),
        Err(_) => json!("not to be had: no answer in time"),
    }
}

/// Without the fingerprints of what people choose, of which few bits tell one from all others: passwords of proxies.
fn without_chosen(mut status: Value, config: &Config) -> Value {
    let environments = config.environments.values();
    let passwords = environments.filter_map(|environment| environment.proxy_password());
    let chosen: BTreeSet<String> = tree(passwords.map(Reference::to_string));
    let secrets = status.get_mut("secrets").and_then(Value::as_array_mut);
    for secret in secrets.into_iter().flatten().filter_map(Value::as_object_mut) {
        if secret.get("reference").and_then(Value::as_str).is_some_and(|one| chosen.contains(one)) {
            secret.remove("fingerprint");
        }
    }
    status
}

async fn metrics(config: &Config) -> Value {
    let Some(health) = &config.health else { return json!("not to be had: there is no [health]") };
    match timeout(TIMEOUT, page(reachable(health.address))).await {
        Ok(Ok(page)) => json!(page),
        Ok(Err(why)) => json!(format!("not to be had: {why}")),
        Err(_) => json!("not to be had: no answer in time"),
    }
}

/// The metrics page of the health listener.
async fn page(address: SocketAddr) -> Result<String, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let stream: Box<dyn Stream> = Box::new(TcpStream::connect(address).await.map_err(|error| said(&error))?);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
    // It ends with the sender and the body.
    tokio::spawn(connection);
    let request = Request::get("/metrics").header(header::HOST, address.to_string());
    let request = request.body(Full::new(Bytes::new())).map_err(|error| said(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| said(&error))?;
    if answer.status() != StatusCode::OK {
        return Err(format!("{address} answered {}", answer.status()));
    }
    let body =
        Limited::new(answer.into_body(), METRICS_BYTES_MAX).collect().await.map_err(|error| said(&error))?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

/// A gateway that listens on every address is asked at this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
