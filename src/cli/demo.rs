//! `mxgate demo`: the main job with everything embedded, and nothing left behind.

use std::{fs, io, net::SocketAddr, path::Path};

use anyhow::{Context, anyhow};
use clap::Args as ClapArgs;
use mxgate::{
    app::{self, App},
    config::Config,
    log, process,
    stand_in::{self, StandIn, options},
    vault::{
        embedded::{self, Identity},
        reference::Reference,
        secret::Secret,
    },
};

use super::out;

/// `mxgate demo`
#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Where the gateway listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Also print the access record of each request.
    #[arg(long)]
    records: bool,
}

const CLIENT_ID: &str = "demo-client";
const ENTRY: &str = "demo/api_key";

/// Runs until Ctrl-C.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    process::harden();
    let folder = tempfile::Builder::new().prefix("mxgate-demo-").tempdir().context("cannot make a folder")?;
    let key = stand_in::random_key()?;
    let token = stand_in::random_key()?;
    let mx = stand_in(&key, &token)?;

    let path = folder.path().join("mxgate.toml");
    fs::write(&path, configuration(args, folder.path(), mx.address()))?;
    fs::write(folder.path().join("ca.pem"), mx.authority_pem())?;
    fill_vault(folder.path(), &[(ENTRY, key), ("demo/processor_token", token)])?;

    let loaded = Config::load(&path).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let log = log::init(&loaded.config.log, io::stderr()).context("cannot start the log")?;
    let app = App::bind(loaded.config, &path, log).map_err(with_advice)?;
    let address = app.addresses().first().copied().unwrap_or(args.listen);
    out::line(introduction(address))?;
    app.run()?;
    drop(mx);
    Ok(())
}

/// The port is often taken: what is tried out is not the only program on this machine.
fn with_advice(error: app::Error) -> anyhow::Error {
    match &error {
        app::Error::Bind { .. } => anyhow!("{error}; --listen ADDRESS takes another"),
        _ => error.into(),
    }
}

fn stand_in(key: &str, token: &str) -> anyhow::Result<stand_in::Running> {
    let mut environment = options::Environment::new(CLIENT_ID, key);
    environment.bearer_tokens = vec![token.to_owned()];
    let mut options = options::Options::new(vec![environment]);
    options.header_switches = true;
    options.mask_echo = true;
    Ok(StandIn::spawn(options)?)
}

fn configuration(args: &Args, folder: &Path, mx: SocketAddr) -> String {
    let folder = folder.display();
    let records = if args.records { "stdout" } else { "off" };
    format!(
        "allow = [\"127.0.0.0/8\", \"::1/128\"]\n\
         [[caller]]\nname = \"demo\"\nnetworks = [\"127.0.0.0/8\", \"::1/128\"]\n\
         grant = {{ demo = [\"read\", \"write\", \"destructive\", \"bank-data\", \"mints-access\", \"carries-bank-login\", \"money\"] }}\n\
         [[listener]]\naddress = \"{}\"\nenvironment = \"demo\"\n\
         [vault]\nkind = \"file\"\npath = \"{folder}/vault.age\"\nidentity = \"file:{folder}/identity\"\n\
         [environment.demo]\nurl = \"https://{mx}\"\nca_file = \"{folder}/ca.pem\"\n\
         credential = {{ kind = \"basic\", client_id = \"{CLIENT_ID}\", api_key = \"vault:{ENTRY}\" }}\n\
         bearer_operations = {{ token = \"vault:demo/processor_token\" }}\n\
         [log]\nfilter = \"warn\"\n[record]\ndestination = \"{records}\"\n",
        args.listen
    )
}

/// The throw-away vault, sealed for the stand-in's host.
fn fill_vault(folder: &Path, entries: &[(&str, String)]) -> anyhow::Result<()> {
    let identity_path = folder.join("identity");
    Identity::create(&identity_path)?;
    let identity = Identity::load(&Reference::file(identity_path))?;
    let vault = folder.join("vault.age");
    embedded::create(&vault, &identity)?;
    for (name, value) in entries {
        let secret = Secret::new(value.clone().into_bytes())?;
        embedded::set(&vault, &identity, name, secret, Some(vec!["127.0.0.1".to_owned()]))?;
    }
    Ok(())
}

fn introduction(address: SocketAddr) -> String {
    format!(
        "mxgate listens on http://{address}; behind it is a stand-in for MX, over TLS. Nothing here is real.\n\n\
         Allowed: a service sends no credential, and MX sees the right one\n\
         \x20 curl http://{address}/users\n\n\
         Refused: nobody takes the API key away through the gateway\n\
         \x20 curl -X POST http://{address}/clients/CLT-1/api_keys/rotate\n\n\
         What MX received: the caller's credential is gone, ours is there (shown masked)\n\
         \x20 curl -u not:mine -H 'X-Stand-In-Echo: true' http://{address}/users/USR-1\n\n\
         Ctrl-C stops it."
    )
}
