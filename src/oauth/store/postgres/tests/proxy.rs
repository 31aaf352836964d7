//! What stands between a replica and the database, and stops the replica at one of its statements.
//!
//! It reads just enough of the protocol to know where a statement ends (a `Sync`, or a simple query) and where its
//! answer does (`ReadyForQuery`).

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
};

use tempfile::TempDir;
use tokio::sync::Notify;

/// What happens at a statement, counted from 1 after [`Proxy::stop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The connection breaks, and the database never sees it.
    Before(usize),
    /// The database has done it, and the connection breaks instead of its answer.
    After(usize),
    /// It waits on its way until [`Proxy::release`].
    Held(usize),
}

impl Stop {
    pub(super) fn place(self) -> usize {
        let (Self::Before(place) | Self::After(place) | Self::Held(place)) = self;
        place
    }
}

pub(super) struct Proxy {
    folder: TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    server: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
    /// Told when the statement to stop at was reached.
    stopped: Notify,
}

#[derive(Default)]
struct State {
    stop: Option<Stop>,
    seen: usize,
    is_held: bool,
    /// The process behind it is dead, or the database is not reached: no connection is passed on.
    is_shut: bool,
    shuts: bool,
}

impl Proxy {
    /// Before the server whose Unix socket for `port` is in `folder`.
    pub(super) fn before(folder: &Path, port: u16) -> Self {
        let name = format!(".s.PGSQL.{port}");
        let shared = Arc::new(Shared {
            server: folder.join(&name),
            state: Mutex::default(),
            changed: Condvar::new(),
            stopped: Notify::new(),
        });
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(name)).unwrap();
        let all = shared.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let shared = all.clone();
                thread::spawn(move || shared.connection(client));
            }
        });
        Self { folder, shared }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// From now on statements are counted. `shuts`: whoever is cut off does not come back.
    pub(super) fn stop(&self, stop: Stop, shuts: bool) {
        *self.shared.state() = State { stop: Some(stop), shuts, ..State::default() };
    }

    /// How many there were.
    pub(super) fn seen(&self) -> usize {
        self.shared.state().seen
    }

    /// The statement to stop at was reached.
    pub(super) async fn stopped(&self) {
        self.shared.stopped.notified().await;
    }

    /// Whatever was held goes on.
    pub(super) fn release(&self) {
        self.shared.state().is_held = false;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn connection(&self, client: UnixStream) {
        if self.state().is_shut {
            return;
        }
        let Ok(server) = UnixStream::connect(&self.server) else { return };
        let withheld = Mutex::new(false);
        thread::scope(|scope| {
            let answers = scope.spawn(|| self.answers(&server, &client, &withheld));
            let _ = self.statements(&client, &server, &withheld);
            cut(&client, &server);
            let _ = answers.join();
        });
    }

    fn statements(
        &self,
        client: &UnixStream,
        mut server: &UnixStream,
        withheld: &Mutex<bool>,
    ) -> std::io::Result<()> {
        // What begins a session has no kind.
        let mut batch = message(client, false)?;
        loop {
            server.write_all(&batch)?;
            batch.clear();
            loop {
                let next = message(client, true)?;
                let kind = next[0];
                batch.extend(next);
                match kind {
                    b'S' | b'Q' => break,
                    // Neither is answered.
                    b'X' | b'p' => server.write_all(&std::mem::take(&mut batch))?,
                    _ => {}
                }
            }
            if !self.passes(withheld) {
                return Ok(());
            }
        }
    }

    /// Whether this statement goes on to the server; it may wait.
    fn passes(&self, withheld: &Mutex<bool>) -> bool {
        let mut state = self.state();
        let Some(stop) = state.stop else { return !state.is_shut };
        state.seen += 1;
        if state.seen != stop.place() {
            return !state.is_shut;
        }
        match stop {
            Stop::Before(_) => {
                state.is_shut = state.shuts;
                self.stopped.notify_one();
                false
            }
            Stop::After(_) => {
                *withheld.lock().unwrap() = true;
                true
            }
            Stop::Held(_) => {
                state.is_held = true;
                self.stopped.notify_one();
                drop(self.changed.wait_while(state, |state| state.is_held).unwrap());
                true
            }
        }
    }

    fn answers(&self, server: &UnixStream, mut client: &UnixStream, withheld: &Mutex<bool>) {
        while let Ok(answer) = message(server, true) {
            if !*withheld.lock().unwrap() {
                if client.write_all(&answer).is_err() {
                    break;
                }
            } else if answer[0] == b'Z' {
                let mut state = self.state();
                state.is_shut = state.shuts;
                self.stopped.notify_one();
                break;
            }
        }
        cut(client, server);
    }
}

fn cut(client: &UnixStream, server: &UnixStream) {
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

/// One message: its kind, if it has one, its length with itself, and the rest.
fn message(mut from: &UnixStream, has_kind: bool) -> std::io::Result<Vec<u8>> {
    let mut head = vec![0; 4 + usize::from(has_kind)];
    from.read_exact(&mut head)?;
    let length: [u8; 4] = head[head.len() - 4..].try_into().unwrap();
    let start = head.len();
    head.resize(start + u32::from_be_bytes(length) as usize - 4, 0);
    from.read_exact(&mut head[start..])?;
    Ok(head)
}
