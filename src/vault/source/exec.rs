//! `exec:NAME`: a command whose standard output is the secret, or a JSON document with it.
//!
//! No shell: the command is an absolute path and arguments. It gets the variables that are configured and no others,
//! nothing to read, no descriptor of ours, `/` as its folder and a process group of its own, which is killed as a whole
//! when it runs for too long or prints too much, and when nobody waits for it any more. What it writes to standard error
//! may hold secrets: only its length is told.
//!
//! What must never happen: a program that others could have changed is run; what a command started outlives its
//! time-out; a command that failed changes a secret, unless it says with [`GONE`] that there is none.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    task::spawn_blocking,
    time::timeout,
};
use zeroize::Zeroizing;

use super::{Document, Reading, Reason, Source};
use crate::config::{
    Exec,
    permissions::{self, Untrusted},
};

/// The exit status by which a command says that its secret is gone. No shell, signal or usual tool ends with it.
const GONE: i32 = 200;

/// The configured commands, by name.
#[derive(Debug)]
pub(super) struct Commands(pub(super) BTreeMap<String, Exec>);

/// Why a command gave no secret. It names the program, never what that printed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("there is no such command")]
    NotConfigured,
    #[error("{} {source}", .program.display())]
    Untrusted { program: PathBuf, source: Untrusted },
    #[error("{} could not be started", .program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("it ran longer than {} ms and was killed", .0.as_millis())]
    Timeout(Duration),
    #[error("it printed more than {0} bytes and was killed")]
    Excess(usize),
    #[error("its output could not be read")]
    Output(#[from] io::Error),
    #[error(
        "it ended with {status}; what it wrote to standard error ({stderr_bytes} bytes) may hold secrets and is not shown"
    )]
    Failed { status: ExitStatus, stderr_bytes: u64 },
}

impl From<Error> for super::Error {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::Failed { status, .. } if status.code() == Some(GONE) => return Self::Absent,
            Error::Untrusted { source: Untrusted::Owner { .. } | Untrusted::Writable { .. }, .. } => {
                Reason::Untrusted
            }
            Error::Timeout(_) => Reason::Timeout,
            Error::Excess(_) => Reason::TooLarge,
            _ => Reason::Unreachable,
        };
        Self::unreachable(reason, error)
    }
}

impl Source for Commands {
    fn read<'a>(&'a self, place: &'a str) -> Reading<'a, Document> {
        Box::pin(async {
            let settings = self.0.get(place).ok_or(Error::NotConfigured)?;
            let run = timeout(settings.timeout, run(settings)).await;
            let bytes = run.unwrap_or(Err(Error::Timeout(settings.timeout)))?;
            Ok(Document { bytes, version: None })
        })
    }
}

/// Dropped before its end, it kills the command.
async fn run(settings: &Exec) -> Result<Zeroizing<Vec<u8>>, Error> {
    // On a thread of its own: its volume may hang.
    let (program, spawn) = spawning(settings);
    let start = |source| Error::Start { program: program.clone(), source };
    let mut child = spawn_blocking(spawn).await.map_err(|broken| start(broken.into()))??;
    // Declared after the child: the group is killed while the child still holds its number.
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else { return Err(Error::NotConfigured) };
    let counted = async { Ok(length(stderr).await) };
    let (bytes, stderr_bytes) = tokio::try_join!(whole(stdout, settings.output_bytes_max), counted)?;
    let status = child.wait().await?;
    // Its number may be another's from now on.
    group.0 = None;
    match status.code() {
        Some(0) => Ok(bytes),
        _ => Err(Error::Failed { status, stderr_bytes }),
    }
}

/// What starts the command, for a thread that may wait.
fn spawning(settings: &Exec) -> (PathBuf, impl FnOnce() -> Result<Child, Error> + Send + use<>) {
    let (program, arguments) =
        settings.command.split_first().map_or((None, &[][..]), |(first, rest)| (Some(first), rest));
    let program = PathBuf::from(program.cloned().unwrap_or_default());
    let mut command = Command::new(&program);
    command
        .args(arguments)
        .env_clear()
        .envs(settings.variables.iter().filter_map(|name| Some((name, variable(name)?))))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let spawn = {
        let program = program.clone();
        move || {
            permissions::check(&program)
                .map_err(|source| Error::Untrusted { program: program.clone(), source })?;
            // Ours close by themselves; those that whoever started us left open would not.
            close_fds::set_fds_cloexec(3, &[]);
            command.spawn().map_err(|source| Error::Start { program, source })
        }
    };
    (program, spawn)
}

#[expect(clippy::disallowed_methods, reason = "what a command gets of the environment is configured by name")]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// All that comes, if that is at most `max` bytes.
async fn whole(mut from: impl AsyncRead + Unpin, max: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    // One allocation that never grows: growing would leave an unwiped copy behind.
    let mut bytes = Zeroizing::new(vec![0; max + 1]);
    let mut length = 0;
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match from.read(room).await? {
            0 => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            more => length += more,
        }
    }
    Err(Error::Excess(max))
}

/// How many bytes come.
async fn length(mut from: impl AsyncRead + Unpin) -> u64 {
    let mut bytes = Zeroizing::new(vec![0; 4096]);
    let mut length = 0;
    while let Ok(more @ 1..) = from.read(&mut bytes).await {
        length += more as u64;
    }
    length
}

/// A command and all that it has started, unless they left its process group. Dropped, it is killed.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
