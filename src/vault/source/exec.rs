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
            Ok(Document { bytes, version: None, written: None })
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Instant};

    use rustix::process::test_kill_process;

    use super::*;
    use crate::config::Refresh;

    /// A script, run with `/bin/sh`, that may be changed.
    struct Script(tempfile::TempDir);

    impl Script {
        fn new(text: &str) -> Self {
            let script = Self(tempfile::tempdir().unwrap());
            fs::write(script.path("script"), format!("#!/bin/sh\n{text}\n")).unwrap();
            script.mode(0o700);
            script
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn mode(&self, mode: u32) {
            fs::set_permissions(self.path("script"), fs::Permissions::from_mode(mode)).unwrap();
        }

        /// The settings of the command that runs it with its folder as argument.
        fn settings(&self) -> Exec {
            let text = |path: &Path| path.display().to_string();
            Exec {
                command: vec![text(&self.path("script")), text(self.0.path())],
                variables: Vec::new(),
                timeout: Duration::from_secs(20),
                output_bytes_max: 1000,
                refresh: Refresh::NEVER,
            }
        }
    }

    async fn read(settings: Exec) -> Result<String, super::super::Error> {
        let commands = Commands([("a".to_owned(), settings)].into());
        let document = commands.read("a").await?;
        Ok(String::from_utf8(document.bytes.to_vec()).unwrap())
    }

    /// Reason and text of a failure.
    async fn fault(settings: Exec) -> (Reason, String) {
        let error = read(settings).await.unwrap_err();
        (error.reason(), crate::vault::chain(&error))
    }

    /// Waits until the process is no more.
    async fn is_gone(pid: &str) -> bool {
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while test_kill_process(pid).is_ok() && !is_zombie(pid) {
            if Instant::now() > end {
                return false;
            }
            tokio::task::yield_now().await;
        }
        true
    }

    /// Whoever takes in orphans here may be slow to.
    fn is_zombie(pid: Pid) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        status.is_ok_and(|status| status.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    }

    #[tokio::test]
    async fn what_it_prints_is_the_document_and_standard_error_is_nobodys() {
        let script = Script::new("echo \"$1\" >&2; printf '{\"key\":\"%s\"}' v4lue");
        assert_eq!(read(script.settings()).await.unwrap(), "{\"key\":\"v4lue\"}");
    }

    #[tokio::test]
    async fn it_gets_no_variable_no_descriptor_and_no_input_that_it_was_not_given() {
        let script =
            Script::new("/usr/bin/env; /bin/ls -l /proc/self/fd; /bin/cat; pwd; ps -o pgid= -p $$; echo $$");
        // A descriptor as a careless parent would leave it open.
        let leaked = fs::File::open("/etc/hostname").unwrap();
        rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
        let said = read(Exec {
            variables: vec!["CARGO_PKG_NAME".into(), "MXGATE_NO_SUCH".into()],
            ..script.settings()
        });
        let said = said.await.unwrap();
        assert!(said.contains("CARGO_PKG_NAME=mxgate\n"), "{said}");
        assert!(!said.contains("CARGO_MANIFEST_DIR") && !said.contains("MXGATE_NO_SUCH"), "{said}");
        assert!(said.contains(" 0 -> /dev/null") && said.contains(" 1 -> pipe:"), "{said}");
        // `ls` itself has the folder open, as 3.
        assert!(!said.contains("hostname") && !said.contains(" 4 -> "), "{said}");
        let lines: Vec<&str> = said.lines().rev().map(str::trim).collect();
        assert_eq!(lines[0], lines[1], "it leads a group of its own: {said}");
        assert_eq!(lines[2], "/");
        drop(leaked);
    }

    #[tokio::test]
    async fn one_that_runs_too_long_is_killed_with_all_that_it_started() {
        let script = Script::new("/bin/sleep 100 & echo $! >$1/child; echo $$ >$1/own; wait");
        let begun = Instant::now();
        let (reason, said) = fault(Exec { timeout: Duration::from_millis(500), ..script.settings() }).await;
        assert_eq!(
            (reason, &*said),
            (Reason::Timeout, "could not be read: it ran longer than 500 ms and was killed")
        );
        assert!(begun.elapsed() < Duration::from_secs(10));
        for pid in ["child", "own"] {
            assert!(is_gone(&fs::read_to_string(script.path(pid)).unwrap()).await, "{pid}");
        }
    }

    #[tokio::test]
    async fn one_that_prints_too_much_is_killed_and_one_byte_less_is_not_too_much() {
        let script = Script::new("echo $$ >$1/own; printf '%1000d' 7; /bin/cat $1/more; exec /bin/sleep 100");
        fs::write(script.path("more"), "x").unwrap();
        let (reason, said) = fault(script.settings()).await;
        assert_eq!(reason, Reason::TooLarge, "{said}");
        assert!(said.ends_with("it printed more than 1000 bytes and was killed"), "{said}");
        assert!(is_gone(&fs::read_to_string(script.path("own")).unwrap()).await);
        let script = Script::new("printf '%1000d' 7");
        assert_eq!(read(script.settings()).await.unwrap().len(), 1000);
    }

    #[tokio::test]
    async fn one_that_nobody_waits_for_any_more_is_killed() {
        let script = Script::new("echo $$ >$1/part; mv $1/part $1/own; exec /bin/sleep 100");
        let reading = tokio::spawn(read(script.settings()));
        while !script.path("own").exists() {
            tokio::task::yield_now().await;
        }
        reading.abort();
        assert!(is_gone(&fs::read_to_string(script.path("own")).unwrap()).await);
    }

    #[tokio::test]
    async fn a_failure_is_no_revocation_and_what_it_says_is_not_repeated() {
        let script = Script::new("echo s3cr3t; echo c4n4ry >&2; exit 3");
        let (reason, said) = fault(script.settings()).await;
        assert_eq!(reason, Reason::Unreachable);
        assert!(said.contains("exit status: 3") && said.contains("(7 bytes)"), "{said}");
        assert!(!said.contains("s3cr3t") && !said.contains("c4n4ry"), "{said}");
        let (reason, said) = fault(Script::new("kill -9 $$").settings()).await;
        assert!(reason == Reason::Unreachable && said.contains("signal: 9"), "{said}");
        let gone = fault(Script::new("exit 200").settings()).await;
        assert_eq!(gone, (Reason::Absent, "does not exist".into()));
    }

    #[tokio::test]
    async fn a_program_that_others_may_change_or_that_is_not_there_is_not_run() {
        let script = Script::new("echo v4lue >$1/ran; echo v4lue-of-it");
        for mode in [0o720, 0o702] {
            script.mode(mode);
            let (reason, said) = fault(script.settings()).await;
            assert_eq!(reason, Reason::Untrusted, "{said}");
            assert!(said.contains("may be written by group or others"), "{said}");
        }
        assert!(!script.path("ran").exists());
        script.mode(0o755);
        assert!(read(script.settings()).await.is_ok() && script.path("ran").exists());
        fs::remove_file(script.path("script")).unwrap();
        assert_eq!(
            fault(script.settings()).await.0,
            Reason::Unreachable,
            "a helper that is gone revokes nothing"
        );
    }
}
