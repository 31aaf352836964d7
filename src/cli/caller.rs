//! `mxgate caller token`: make, revoke and list the tokens that this gateway issues to its callers.
//!
//! A token is shown once, alone on standard output, so that it can be piped to where it belongs; what is said about
//! it goes to standard error. A running gateway takes changes up by itself.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow, bail};
use mxgate::{
    config::Config,
    tokens::{self, Token, TokenId},
};
use serde_json::json;

use super::out;

/// `mxgate caller ...`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a token for a caller; it is shown once. With `list` or `revoke`: what became of them.
    Token(TokenArgs),
}

#[derive(clap::Args)]
#[command(subcommand_negates_reqs = true)]
struct TokenArgs {
    /// The caller's name in the configuration, which says `token = true` there.
    #[arg(required = true)]
    name: Option<String>,
    /// When it ends by itself, such as 90d; without it: when it is revoked.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires_in: Option<Duration>,
    /// The configuration, whose [tokens] names the file.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/mxgate/mxgate.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<TokenCommand>,
}

#[derive(clap::Subcommand)]
enum TokenCommand {
    /// End a token now.
    Revoke {
        /// Its 12 digits, as `list` shows them.
        #[arg(value_parser = id)]
        id: TokenId,
    },
    /// Show all tokens: whose, since when and until when. Never the token itself.
    List {
        /// Only those that end within this time, and have not yet.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expiring: Option<Duration>,
    },
}

/// Runs one `mxgate caller` command.
pub(crate) fn run(args: Args, json: bool) -> anyhow::Result<()> {
    let Command::Token(TokenArgs { name, expires_in, config: path, command }) = args.command;
    let config = Config::load(&path).map_err(|faults| anyhow!("{faults}"))?.config;
    let file =
        &config.tokens.as_ref().context("the configuration has no [tokens], which names their file")?.file;
    let now = SystemTime::now();
    match (command, name) {
        (Some(_), Some(_)) => bail!("`list` and `revoke` take no caller's name"),
        (Some(TokenCommand::Revoke { id }), _) => revoke(file, id, now, json),
        (Some(TokenCommand::List { expiring }), _) => list(file, expiring, now, json),
        (None, Some(name)) => {
            is_known_by_tokens(&config, &name)?;
            issue(file, &name, expires_in, now, json, &path)
        }
        (None, None) => bail!("name a caller"),
    }
}

fn is_known_by_tokens(config: &Config, name: &str) -> anyhow::Result<()> {
    match config.callers.iter().find(|caller| caller.name == name) {
        Some(caller) if caller.token => Ok(()),
        Some(_) => bail!("caller {name} is not known by a token; write `token = true` in its [[caller]]"),
        None => {
            let with_token = config.callers.iter().filter(|caller| caller.token);
            let names: Vec<&str> = with_token.map(|caller| caller.name.as_str()).take(20).collect();
            bail!("there is no such caller; known by tokens are: {}", names.join(", "))
        }
    }
}

fn issue(
    file: &Path,
    caller: &str,
    expires_in: Option<Duration>,
    now: SystemTime,
    json: bool,
    config: &Path,
) -> anyhow::Result<()> {
    let expires =
        expires_in.map(|time| now.checked_add(time).context("that is too far ahead")).transpose()?;
    let issued = tokens::issue(file, caller, expires, now)?;
    if json {
        let mut shown = described(&issued.token, now);
        shown["token"] = issued.text.as_str().into();
        return Ok(out::json(&shown)?);
    }
    let end = issued
        .token
        .expires
        .map_or_else(|| "until it is revoked".to_owned(), |end| format!("until {}", time(end)));
    let id = issued.token.id;
    writeln!(
        io::stderr(),
        "mxgate: token {id} for {caller}, {end}; it is shown this once. `mxgate caller token revoke {id} --config {}` ends it.",
        config.display()
    )?;
    Ok(out::line(issued.text.as_str())?)
}

fn revoke(file: &Path, id: TokenId, now: SystemTime, json: bool) -> anyhow::Result<()> {
    let token = tokens::revoke(file, id, now)?;
    if json {
        return Ok(out::json(&described(&token, now))?);
    }
    Ok(out::line(format!("token {id} of {} is revoked", token.caller))?)
}

fn list(file: &Path, expiring: Option<Duration>, now: SystemTime, json: bool) -> anyhow::Result<()> {
    let mut tokens = tokens::read(file)?;
    if let Some(within) = expiring {
        let until = now.checked_add(within).context("that is too far ahead")?;
        tokens.retain(|token| {
            token.over_since(now).is_none() && token.expires.is_some_and(|expires| expires <= until)
        });
    }
    tokens.sort_by(|a, b| (&a.caller, a.created).cmp(&(&b.caller, b.created)));
    if json {
        let all: Vec<_> = tokens.iter().map(|token| described(token, now)).collect();
        return Ok(out::json(&all.into())?);
    }
    if tokens.is_empty() {
        return Ok(out::line("none")?);
    }
    let width = tokens.iter().map(|token| token.caller.len()).max().unwrap_or(0).max("CALLER".len());
    let mut text = format!("{:12}  {:width$}  {:20}  {:20}  STATE", "ID", "CALLER", "CREATED", "EXPIRES");
    for token in &tokens {
        let (id, caller, created) = (token.id, &token.caller, time(token.created));
        let expires = token.expires.map_or_else(|| "never".to_owned(), time);
        write!(text, "\n{id}  {caller:width$}  {created:20}  {expires:20}  {}", state(token, now))?;
    }
    Ok(out::line(text)?)
}

fn described(token: &Token, now: SystemTime) -> serde_json::Value {
    json!({
        "id": token.id.to_string(),
        "caller": token.caller,
        "created": time(token.created),
        "expires": token.expires.map(time),
        "revoked": token.revoked.map(time),
        "state": state(token, now),
    })
}

fn state(token: &Token, now: SystemTime) -> &'static str {
    match (token.revoked, token.over_since(now)) {
        (Some(_), _) => "revoked",
        (None, Some(_)) => "expired",
        (None, None) => "valid",
    }
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    const MOST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    if duration < Duration::from_secs(1) || duration > MOST {
        return Err("it has to be 1s to 100y".into());
    }
    Ok(duration)
}

/// A whole token is not taken: an argument is no place for it.
fn id(text: &str) -> Result<TokenId, String> {
    TokenId::parse(text.as_bytes()).ok_or_else(|| "it is the 12 digits after mxg_, and nothing else".into())
}
