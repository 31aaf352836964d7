//! A real PostgreSQL server in a folder of its own: with TLS on a free loopback port, and on a Unix socket, where
//! everybody is let in. Dropping it ends it. It refuses to run as root, so root runs it as another user.

use std::{
    fs::{self, File, Permissions},
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The role that the store has, and its password.
pub(super) const ROLE: &str = "mxgate";
pub(super) const PASSWORD: &str = "a-password-of-the-database";
pub(super) const DATABASE: &str = "connections";

/// Who may come in from where. `plain` has no TLS, and needs none here.
const HBA: &str = "local all all trust\n\
                   hostnossl all plain 127.0.0.1/32 trust\n\
                   hostssl all all 127.0.0.1/32 scram-sha-256\n";

/// A port may be taken between its choice and its use.
const STARTS: u32 = 5;

pub(super) struct Cluster {
    folder: TempDir,
    user: Option<u32>,
    port: u16,
    server: Option<Child>,
}

/// A certificate of the server's, and its key.
pub(super) struct Pems<'a> {
    pub(super) certificate: &'a str,
    pub(super) key: &'a str,
}

impl Cluster {
    pub(super) fn start(pems: &Pems<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let mut cluster = Self { folder, user: root.then(somebody), port: 0, server: None };
        cluster.own(cluster.folder.path());
        let data = cluster.path("data");
        let made = cluster
            .program("initdb")
            .args(["--auth=trust", "--username=admin", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .args(["--no-instructions", "-D"])
            .arg(&data)
            .output()
            .expect("PostgreSQL is installed: tests/setup");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::write(data.join("pg_hba.conf"), HBA).unwrap();
        cluster.put("server.pem", pems.certificate);
        cluster.put("server.key", pems.key);
        cluster.run();
        cluster.sql("postgres", &format!("CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'"));
        cluster.sql("postgres", "CREATE ROLE plain LOGIN");
        cluster.sql("postgres", &format!("CREATE DATABASE {DATABASE} OWNER {ROLE}"));
        cluster
    }

    /// Starts the server, and waits until it says that it is ready.
    pub(super) fn run(&mut self) {
        for _ in 0..STARTS {
            if self.port == 0 {
                let free = TcpListener::bind("127.0.0.1:0").unwrap();
                self.port = free.local_addr().unwrap().port();
            }
            let mut server = self.command().spawn().unwrap();
            let mut log = BufReader::new(server.stderr.take().unwrap());
            let mut said = String::new();
            while log.read_line(&mut said).unwrap() > 0 {
                if said.ends_with("database system is ready to accept connections\n") {
                    // A full pipe would stop it.
                    thread::spawn(move || log.read_to_end(&mut Vec::new()));
                    self.server = Some(server);
                    return;
                }
            }
            server.wait().unwrap();
            // What was killed may not be quite gone.
            let again = said.contains("pre-existing shared memory");
            assert!(again || said.contains("could not bind"), "{said}");
            self.port = if again { self.port } else { 0 };
        }
        panic!("no port is free");
    }

    fn command(&self) -> Command {
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.path("data")).arg("-k").arg(self.folder.path());
        command.args(["-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "fsync=off",
            "shared_buffers=16MB",
            "max_connections=60",
            "autovacuum=off",
            "ssl=on",
            // A default that a session must not have.
            "default_transaction_isolation=serializable",
        ] {
            command.args(["-c", setting]);
        }
        for (name, file) in [("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key")] {
            command.arg("-c").arg(format!("{name}={}", self.path(file).display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Ends the server in order, with what is on its way cut off.
    pub(super) fn stop(&mut self) {
        self.end(Signal::QUIT);
    }

    /// Ends it as a crash of the machine would: it, and each process that serves a connection.
    pub(super) fn crash(&mut self) {
        let all = self.sql("postgres", "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
        self.end(Signal::KILL);
        for pid in all.lines() {
            let _ = kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL);
        }
        // Until they are gone they have the shared memory, and another server does not start. A zombie has none.
        for pid in all.lines() {
            let is_there =
                || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
            while is_there() {
                thread::yield_now();
            }
        }
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw).unwrap();
            let _ = kill_process(pid, signal);
            let _ = server.wait();
        }
    }

    /// The Unix socket's.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What `statements` print, by the server's owner.
    pub(super) fn sql(&self, database: &str, statements: &str) -> String {
        self.sql_as("admin", database, statements).unwrap_or_else(|said| panic!("{said}"))
    }

    pub(super) fn sql_as(&self, user: &str, database: &str, statements: &str) -> Result<String, String> {
        let mut command = self.client("psql", user, database);
        command.args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-c"]).arg(statements);
        let done = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr)) }
    }

    /// The whole of `schema`, without the random word that newer versions put into each dump.
    pub(super) fn dump(&self, schema: &str) -> String {
        let done = self.client("pg_dump", "admin", DATABASE).args(["-n", schema]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let text = String::from_utf8(done.stdout).unwrap();
        text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict")).fold(
            String::new(),
            |mut all, line| {
                all.push_str(line);
                all.push('\n');
                all
            },
        )
    }

    fn client(&self, program: &str, user: &str, database: &str) -> Command {
        let mut command = Command::new(binary(program));
        command.env_clear().stdin(Stdio::null()).arg("-h").arg(self.folder.path());
        command.args(["-p", &self.port.to_string(), "-U", user, "-d", database]);
        command
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.path(name);
        drop(File::create(&path).unwrap());
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, text).unwrap();
        self.own(&path);
    }

    fn own(&self, path: &Path) {
        if let Some(user) = self.user {
            chown(path, Some(user), None).unwrap();
        }
    }

    /// A program of the server's, by its user.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(binary(name));
        command.env_clear().env("LC_ALL", "C").current_dir(self.folder.path());
        if let Some(user) = self.user {
            command.uid(user);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Debian keeps each version's programs in a folder of its own, and none of the server's on the path.
fn binary(name: &str) -> PathBuf {
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let newest = versions.filter_map(|entry| Some(entry.ok()?.path())).max_by_key(version);
    let debian = newest.map(|folder| folder.join("bin").join(name)).filter(|path| path.exists());
    debian.unwrap_or_else(|| name.into())
}

/// A user that is not root, by number.
fn somebody() -> u32 {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let number = |name: &str| {
        let user = users.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        user.split(':').nth(2)?.parse().ok()
    };
    number("postgres").or_else(|| number("nobody")).expect("a user who is not root")
}
