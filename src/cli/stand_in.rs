//! `mxgate stand-in`: a simulated MX on this machine, to test a service or a gateway against.
//!
//! Its credentials are made up: read from a file, or made at the start and shown once. Serves until it is
//! interrupted. Nothing here is for production.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use ipnet::IpNet;
use mxgate::stand_in::{
    self, Handle, StandIn,
    options::{Environment, Options, Scheme},
    random_key,
    switches::{SWITCHES, Switches},
};
use tokio::signal::unix::{SignalKind, signal};

use super::out;

/// How the stand-in listens, whom it believes, and what it does differently.
#[derive(Debug, clap::Args)]
#[command(after_help = switches_help())]
pub(crate) struct Args {
    /// Where it listens for TLS.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: SocketAddr,
    /// Where it listens without TLS as well.
    #[arg(long, value_name = "ADDRESS")]
    plain: Option<SocketAddr>,
    /// Write the root certificate that clients must trust to this file.
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
    /// The host name that it answers to; may be given several times. Default: any.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// The client id that it accepts.
    #[arg(long, value_name = "ID", default_value = "stand-in-client")]
    client_id: String,
    /// A file with the API key that it accepts; made if there is none. Default: a new key, shown once.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// A file with the token that it accepts on Bearer operations; made if there is none. Default: they are refused.
    #[arg(long, value_name = "FILE")]
    bearer_token_file: Option<PathBuf>,
    /// How the key may be sent; may be given several times.
    #[arg(long, value_enum, default_value = "basic")]
    credential: Vec<Kind>,
    /// Networks that may call, others get 403; may be given several times. Default: all.
    #[arg(long, value_name = "NETWORK")]
    allow: Vec<IpNet>,
    /// Do something differently on every request; may be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = switch)]
    switch: Vec<(String, String)>,
    /// Let each request do so too, by headers `x-stand-in-NAME: VALUE`.
    #[arg(long)]
    header_switches: bool,
    /// Show credentials in echoes.
    #[arg(long)]
    unmasked: bool,
    /// Answer 400 to what no gateway should send: cookies, hop-by-hop fields, repeated fields.
    #[arg(long)]
    strict: bool,
    /// Answer paths that are none of MX's with an empty object instead of 404.
    #[arg(long)]
    any_path: bool,
    /// Do not insist on Accept-Version.
    #[arg(long)]
    version_optional: bool,
    /// Records in every paginated list.
    #[arg(long, value_name = "COUNT", default_value_t = 12)]
    list_entries: usize,
    /// Status reads until a job on a member is finished; 0: at once.
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    job_reads: u32,
    /// Print a line for every request.
    #[arg(long)]
    log: bool,
}

/// How a key may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// `Authorization: Basic`
    Basic,
    /// `Authorization: API_KEY` and `MX-Client-ID`
    ApiKey,
    /// `MX-API-Key` and `MX-Client-ID`
    MxApiKey,
    /// `?api_key=` and `client_id=`
    Query,
    /// `Authorization: Bearer`, with the token of the file, on all operations
    Bearer,
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// When a file cannot be read or written, a switch is none, or an address is taken.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?
        .block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    // Before anybody hears that it is there, and may end it.
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let log = args.log;
    let ca_out = args.ca_out.clone();
    let key = Key::of(args.api_key_file.as_deref())?;
    let (address, plain) = (args.listen, args.plain);
    let stand_in = StandIn::bind(options(args, &key)?).await.map_err(|error| match &error {
        stand_in::Error::Bind(taken, _) => {
            let flag = if *taken == address || Some(*taken) != plain { "--listen" } else { "--plain" };
            anyhow!("{error}; {flag} ADDRESS takes another")
        }
        _ => error.into(),
    })?;
    let handle = stand_in.handle();
    if let Some(path) = &ca_out {
        fs::write(path, handle.authority_pem())
            .with_context(|| format!("cannot write the root certificate to {}", path.display()))?;
    }
    announce(&handle, &key, ca_out.as_deref())?;
    let stop = async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    tokio::select! {
        () = stand_in.serve(stop) => Ok(()),
        fault = print_requests(handle), if log => fault,
    }
}

fn options(args: Args, key: &Key) -> anyhow::Result<Options> {
    let mut switches = Switches::default();
    for (name, value) in &args.switch {
        switches.set(name, value)?;
    }
    let tokens = match &args.bearer_token_file {
        Some(path) => vec![Key::of(Some(path))?.value],
        None if args.credential.contains(&Kind::Bearer) => {
            bail!("--credential bearer needs --bearer-token-file")
        }
        None => Vec::new(),
    };
    let environment = Environment {
        schemes: args.credential.iter().map(|kind| kind.scheme()).collect(),
        bearer_tokens: tokens,
        any_path: args.any_path,
        ..Environment::new(args.client_id, &key.value)
    };
    let environments = match args.host.as_slice() {
        [] => vec![environment],
        hosts => hosts.iter().map(|host| environment.clone().at(host)).collect(),
    };
    Ok(Options {
        address: args.listen,
        plain_address: args.plain,
        allow: (!args.allow.is_empty()).then_some(args.allow),
        accept_version_required: !args.version_optional,
        header_switches: args.header_switches,
        switches,
        mask_echo: !args.unmasked,
        strict: args.strict,
        list_entries: args.list_entries,
        job_reads: args.job_reads,
        ..Options::new(environments)
    })
}

impl Kind {
    fn scheme(self) -> Scheme {
        match self {
            Self::Basic => Scheme::Basic,
            Self::ApiKey => Scheme::ApiKey,
            Self::MxApiKey => Scheme::MxApiKey,
            Self::Query => {
                Scheme::Query { client_id_name: "client_id".to_owned(), api_key_name: "api_key".to_owned() }
            }
            Self::Bearer => Scheme::Bearer,
        }
    }
}

/// A made-up key or token, and whether anybody but us knows it.
struct Key {
    value: String,
    in_file: bool,
}

impl Key {
    /// What `path` holds; a new one, written there, if there is no such file; a new one without a path.
    fn of(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self { value: random_key()?, in_file: false }) };
        let value = match fs::read_to_string(path) {
            Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => write_new(path)?,
            Err(fault) => {
                return Err(fault).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        if value.is_empty() || value.chars().any(char::is_control) {
            bail!("{} must hold one line with a made-up key", path.display());
        }
        Ok(Self { value, in_file: true })
    }
}

fn write_new(path: &Path) -> anyhow::Result<String> {
    let value = random_key()?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    writeln!(file, "{value}").with_context(|| format!("cannot write {}", path.display()))?;
    Ok(value)
}

fn announce(handle: &Handle, key: &Key, ca_out: Option<&Path>) -> anyhow::Result<()> {
    out::line(format!("stand-in for MX at https://{}", handle.address()))?;
    if let Some(address) = handle.plain_address() {
        out::line(format!("and at http://{address}"))?;
    }
    match ca_out {
        Some(path) => out::line(format!("its root certificate is in {}", path.display()))?,
        None => out::line("its root certificate is not written anywhere; --ca-out FILE does so")?,
    }
    if !key.in_file {
        out::line(format!("its made-up API key is {}", key.value))?;
    }
    Ok(())
}

/// One line for each request; ends only when it cannot print.
async fn print_requests(handle: Handle) -> anyhow::Result<()> {
    let mut printed = 0;
    loop {
        handle.wait_until_received(printed + 1).await;
        let received = handle.received();
        let requests = handle.requests();
        let new = usize::try_from(received - printed).unwrap_or(usize::MAX);
        for request in requests.iter().skip(requests.len().saturating_sub(new)) {
            let status = request.status.map_or("-".to_owned(), |status| status.as_u16().to_string());
            let path = request.target.split('?').next().unwrap_or_default();
            let operation = request.operation.unwrap_or("-");
            out::line(format!(
                "{status} {} {path} {operation} connection {}",
                request.method, request.connection
            ))?;
        }
        printed = received;
    }
}

/// A switch that there is, so that a mistyped one is a usage error.
fn switch(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Switches::default().set(name, value).map_err(|fault| fault.to_string())?;
    Ok((name.to_owned(), value.to_owned()))
}

fn switches_help() -> String {
    let lines =
        SWITCHES.iter().map(|(name, value, what)| format!("  {:<28} {what}", format!("{name}={value}")));
    format!("Switches:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn options_of(arguments: &[&str]) -> anyhow::Result<Options> {
        let command = Command::try_parse_from([&["stand-in"], arguments].concat())?;
        options(command.args, &Key { value: "key-one".to_owned(), in_file: true })
    }

    #[test]
    fn the_defaults_are_loopback_basic_and_masked() {
        let options = options_of(&[]).unwrap();
        assert!(options.address.ip().is_loopback() && options.mask_echo && !options.header_switches);
        assert_eq!(options.environments[0].schemes, [Scheme::Basic]);
        assert_eq!(options.environments[0].host, None);
    }

    #[test]
    fn hosts_share_the_key_and_switches_are_checked() {
        let options = options_of(&["--host", "API.mx.com", "--host", "b", "--switch", "status=503"]).unwrap();
        let hosts: Vec<_> = options.environments.iter().map(|e| e.host.as_deref()).collect();
        assert_eq!(hosts, [Some("api.mx.com"), Some("b")]);
        assert_ne!(options.switches, Switches::default());
        for wrong in [["--switch", "statuss=503"], ["--switch", "status"], ["--credential", "bearer"]] {
            assert!(options_of(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_key_file_is_read_or_made_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let made = Key::of(Some(&path)).unwrap().value;
        assert_eq!(Key::of(Some(&path)).unwrap().value, made);
        fs::write(&path, "\n").unwrap();
        assert!(Key::of(Some(&path)).is_err());
        assert_ne!(Key::of(None).unwrap().value, made);
    }
}
