//! `mxgate connections`: users' consents, listed, made and ended in a running gateway.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Subcommand;
use mxgate::{
    control::{
        client::Client,
        consents::{Backup, Import, Order, TicketOrder},
    },
    status::{ShownConnection, ShownConnections},
    vault::source::file::{SECRET_BYTES_MAX, read_bounded},
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Configured, out};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    configured: Configured,
    #[command(subcommand)]
    command: Command,
}

impl Args {
    /// Where the gateway's configuration is, when that was said; `restore`, which needs no socket, has its own.
    pub(super) fn config(&self) -> Option<&Path> {
        match self.command {
            Command::Restore { .. } => None,
            _ => self.configured.config.as_deref(),
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// List them: whose, what for, and whether the consent still holds; never a token.
    List,
    /// Make a ticket: a URL that the user's browser opens once.
    Ticket {
        #[command(flatten)]
        whose: Whose,
        /// Where the browser goes in the end, one of return_urls.
        #[arg(long, value_name = "URL")]
        return_url: String,
    },
    /// Make a connection of a refresh token that was had elsewhere; it is read from standard input.
    Import {
        #[command(flatten)]
        whose: Whose,
        /// Read the refresh token from this file.
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
    },
    /// Revoke a connection's tokens at its provider, and forget it.
    End {
        /// mxc_ and 32 hex digits.
        id: String,
        /// Forget it also when the provider does not take the tokens back.
        #[arg(long)]
        force: bool,
    },
    /// Copy all of them, sealed as they are, to a new file on the gateway's machine.
    Backup {
        /// A file that is not there yet, as the gateway sees it.
        to: PathBuf,
    },
    /// Put a copy in the place of a store that is not there; the gateway must not run.
    Restore {
        /// The gateway's configuration, which says where the store is and what its key is.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// What `backup` made.
        from: PathBuf,
    },
}

#[derive(clap::Args)]
struct Whose {
    /// The provider's name in the configuration.
    #[arg(long)]
    provider: String,
    /// The environment that the tokens are for.
    #[arg(long)]
    environment: String,
    /// The caller that the connection is made for.
    #[arg(long)]
    caller: String,
    /// The user at MX.
    #[arg(long)]
    user_guid: Option<String>,
    /// One of the provider's scopes; repeatable. Without any: all of them.
    #[arg(long = "scope")]
    scopes: Vec<String>,
}

impl From<Whose> for Order {
    fn from(whose: Whose) -> Self {
        let Whose { provider, environment, caller, user_guid, scopes } = whose;
        Self { provider, environment, caller, user_guid, scopes }
    }
}

/// Runs the command on the gateway at `socket`, or on its files.
pub(super) fn run(args: Args, socket: &Path, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop could be made")?;
    runtime.block_on(run_on(&Client::new(socket), args.command, json, out))
}

async fn run_on(client: &Client, command: Command, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    match command {
        Command::List => {
            let list = client.consents().await?;
            show(&list, &list_text(&list), json, out)
        }
        Command::Ticket { whose, return_url } => {
            let ticket = client.ticket(&TicketOrder { order: whose.into(), return_url }).await?;
            let text =
                format!("{}\nThe user opens it once, until {}.\n", ticket.ticket_url, time(ticket.expires));
            show(&ticket, &text, json, out)
        }
        Command::Import { whose, from_file } => {
            let refresh_token = refresh_token(from_file.as_deref())?;
            let made = client.import_consent(&Import { order: whose.into(), refresh_token }).await?;
            show(&made, &format!("{}\n", made.id), json, out)
        }
        Command::End { id, force } => {
            let done = client.end_consent(&id, force).await?;
            show(&done, &format!("{}\n", done.done), json, out)
        }
        Command::Backup { to } => {
            if !to.is_absolute() {
                bail!("write the whole path: the gateway may run in another folder");
            }
            let done = client.back_up_consents(&Backup { to }).await?;
            show(&done, &format!("{}\n", done.done), json, out)
        }
        Command::Restore { config, from } => {
            let restored = mxgate::connections::restore(&config, &from).await?;
            show(&restored, &restored.to_string(), json, out)
        }
    }
}

fn refresh_token(from: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
    let bytes = match from {
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
            read_bounded(file, SECRET_BYTES_MAX).with_context(|| path.display().to_string())?
        }
        None if io::stdin().is_terminal() => {
            let text = rpassword::prompt_password("refresh token: ").context("no terminal to ask at")?;
            Some(Zeroizing::new(text.into_bytes()))
        }
        None => read_bounded(io::stdin().lock(), SECRET_BYTES_MAX).context("standard input")?,
    };
    let bytes = bytes.context("the refresh token is larger than any secret")?;
    let text = std::str::from_utf8(&bytes).ok().map(str::trim_end).filter(|text| !text.is_empty());
    text.map(|text| Zeroizing::new(text.to_owned())).context("the refresh token is empty, or no text")
}

fn show(what: &impl Serialize, text: &str, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        return Ok(writeln!(out, "{}", out::ascii(&serde_json::to_string_pretty(what)?))?);
    }
    Ok(out.write_all(text.as_bytes())?)
}

fn list_text(list: &ShownConnections) -> String {
    if list.connections.is_empty() {
        return "There are no connections.\n".to_owned();
    }
    let mut text = String::new();
    for one in &list.connections {
        let user =
            one.user_guid.as_deref().map_or(String::new(), |user| format!(", user {}", user.escape_debug()));
        let ShownConnection { id, provider, environment, caller, created, .. } = one;
        text.push_str(&format!(
            "{id}  {}\n    {provider} for {environment}, made by {caller} {}{user}; scopes {}\n",
            state(one),
            time(*created),
            if one.scopes.is_empty() {
                "not told".to_owned()
            } else {
                one.scopes.join(" ").escape_debug().to_string()
            },
        ));
    }
    text
}

fn state(one: &ShownConnection) -> String {
    match (one.state.as_str(), one.expires, one.ends, one.since) {
        ("gone", .., Some(since)) => format!("gone since {}: the user must connect again", time(since)),
        (_, _, Some(ends), _) => format!("live, ends {}", time(ends)),
        (_, Some(expires), ..) => format!("live, its access token expires {}", time(expires)),
        _ => "live".to_owned(),
    }
}

fn time(seconds: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_whose_and_whether_it_holds() {
        let live = ShownConnection {
            id: "mxc_1".into(),
            provider: "bank".into(),
            environment: "accounts".into(),
            caller: "ledger".into(),
            user_guid: Some("USR-1".into()),
            scopes: vec!["a".into(), "b".into()],
            created: 0,
            state: "live".into(),
            expires: Some(60),
            ends: None,
            since: None,
            reason: None,
        };
        let gone = ShownConnection {
            state: "gone".into(),
            expires: None,
            since: Some(120),
            user_guid: None,
            ..live.clone()
        };
        let text = list_text(&ShownConnections { connections: vec![live, gone] });
        assert_eq!(
            text,
            "mxc_1  live, its access token expires 1970-01-01T00:01:00Z\n    bank for accounts, made by ledger \
             1970-01-01T00:00:00Z, user USR-1; scopes a b\n\
             mxc_1  gone since 1970-01-01T00:02:00Z: the user must connect again\n    bank for accounts, made by ledger \
             1970-01-01T00:00:00Z; scopes a b\n"
        );
        assert_eq!(list_text(&ShownConnections { connections: Vec::new() }), "There are no connections.\n");
    }
}
