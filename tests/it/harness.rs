//! Starts a gateway and an upstream in a few lines, and speaks raw HTTP to them.
//!
//! Everything is blocking and bounded by [`PATIENCE`]; nothing sleeps. The gateway is the built binary with a
//! configuration in a folder of its own; dropping it ends it.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use mxgate::{
    stand_in::{Running, StandIn, journal::Request, options},
    vault::{
        embedded::{self, Identity},
        secret::Secret,
    },
};
use serde_json::Value;
use tempfile::TempDir;

/// The longest that any test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub const CLIENT_ID: &str = "test-client";
pub const API_KEY: &str = "k3y-of-the-test-environment";
pub const TOKEN: &str = "t0ken-of-one-account";

/// A stand-in for MX that takes [`CLIENT_ID`] and [`API_KEY`], and obeys `x-stand-in-*` headers.
pub fn mx() -> Running {
    mx_with(|_| {})
}

/// The same, changed.
pub fn mx_with(change: impl FnOnce(&mut options::Options)) -> Running {
    let mut environment = options::Environment::new(CLIENT_ID, API_KEY);
    environment.bearer_tokens = vec![TOKEN.into()];
    let mut options = options::Options::new(vec![environment]);
    options.header_switches = true;
    change(&mut options);
    StandIn::spawn(options).expect("the stand-in starts")
}

/// The last request that the stand-in received.
pub fn last(mx: &Running) -> Arc<Request> {
    mx.requests().pop().expect("a request")
}

/// Its header lines as they were on the wire, sorted, without the request line.
pub fn lines(request: &Request) -> Vec<String> {
    let head = String::from_utf8_lossy(&request.head).into_owned();
    let mut lines: Vec<String> =
        head.split("\r\n").skip(1).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    assert!(!lines.is_empty(), "the head was not kept");
    lines.sort_unstable();
    lines
}

/// Runs the built command to its end, with these variables and no others.
pub fn mxgate(arguments: &[&str], variables: &[(&str, &str)]) -> std::process::Output {
    Command::new("/usr/bin/timeout")
        .arg(PATIENCE.as_secs().to_string())
        .arg(env!("CARGO_BIN_EXE_mxgate"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the command runs")
}

/// A grant of every operation but the administration of keys.
pub const EVERYTHING: &str =
    r#""read", "write", "destructive", "bank-data", "mints-access", "carries-bank-login", "money""#;

/// What a gateway is started with. Its parts are TOML, put together in the order that TOML needs.
pub struct Setup {
    /// Top-level keys.
    pub top: String,
    /// Every `[[listener]]`, with its header.
    pub listeners: String,
    /// Every `[environment.NAME]`, with its header.
    pub environments: String,
    /// Every `[[caller]]`; `None`: everybody at every environment, but for the administration of keys.
    pub callers: Option<String>,
    /// All other tables.
    pub tables: String,
    /// Variables of the process's environment.
    pub variables: Vec<(String, String)>,
    /// A shell's commands before the gateway, in the same process: `ulimit -n 128`.
    pub prelude: String,
    folder: TempDir,
}

impl Setup {
    /// One listener on a free loopback port, one environment `test` at `mx`, the key and the token in files.
    pub fn new(mx: &Running) -> Self {
        Self::at(mx.address(), mx.authority_pem())
    }

    /// The same for an upstream of any kind, at `address` with a certificate of `authority_pem`.
    pub fn at(address: SocketAddr, authority_pem: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut setup = Self {
            top: "allow = [\"127.0.0.0/8\"]\n".into(),
            listeners: "[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"test\"\n".into(),
            environments: String::new(),
            callers: None,
            tables: "[log]\nformat = \"json\"\nfilter = \"info\"\n[health]\naddress = \"127.0.0.1:0\"\n"
                .into(),
            variables: Vec::new(),
            prelude: String::new(),
            folder,
        };
        setup.file("key", API_KEY);
        setup.file("token", TOKEN);
        setup.file("ca.pem", authority_pem);
        setup.environments = setup.environment("test", address);
        setup
    }

    /// The same, with the key in a vault as `test/api_key`.
    pub fn with_vault(mx: &Running) -> Self {
        let mut setup = Self::new(mx);
        let folder = setup.folder().display().to_string();
        let (vault, identity) = (setup.folder().join("vault.age"), setup.folder().join("identity"));
        let identity = Identity::create(&identity).expect("an identity");
        embedded::create(&vault, &identity).expect("a vault");
        let key = Secret::new(API_KEY.into()).expect("a secret");
        let hosts = Some(vec![mx.address().ip().to_string()]);
        embedded::set(&vault, &identity, "test/api_key", key, hosts).expect("an entry");
        setup.environments = setup.environments.replace(&format!("file:{folder}/key"), "vault:test/api_key");
        setup.table(&format!(
            "[vault]\nkind = \"file\"\npath = \"{folder}/vault.age\"\nidentity = \"file:{folder}/identity\""
        ))
    }

    /// An environment's TOML, with Basic and a token for the Bearer operations.
    pub fn environment(&self, name: &str, address: SocketAddr) -> String {
        let folder = self.folder.path().display();
        format!(
            "[environment.{name}]\nurl = \"https://{address}\"\nca_file = \"{folder}/ca.pem\"\n\
             credential = {{ kind = \"basic\", client_id = \"{CLIENT_ID}\", api_key = \"file:{folder}/key\" }}\n\
             bearer_operations = {{ token = \"file:{folder}/token\" }}\n"
        )
    }

    /// Replaces the last environment's `credential`; `DIR` stands for the gateway's folder.
    pub fn credential(mut self, toml: &str) -> Self {
        let at = self.environments.rfind("credential = ").expect("an environment");
        let end = at + self.environments[at..].find('\n').expect("a line");
        let toml = toml.replace("DIR", &self.folder.path().display().to_string());
        self.environments.replace_range(at..end, &format!("credential = {{ {toml} }}"));
        self
    }

    /// Replaces the last environment's `bearer_operations`.
    pub fn bearer_operations(mut self, toml: &str) -> Self {
        let at = self.environments.rfind("bearer_operations = ").expect("an environment");
        let end = at + self.environments[at..].find('\n').expect("a line");
        self.environments.replace_range(at..end, &format!("bearer_operations = {toml}"));
        self
    }

    /// The same with secret files of its own, since a secret belongs to one environment.
    pub fn other_environment(&self, name: &str, address: SocketAddr) -> String {
        self.file("other-key", API_KEY);
        self.file("other-token", TOKEN);
        let toml = self.environment(name, address);
        toml.replace("/key\"", "/other-key\"").replace("/token\"", "/other-token\"")
    }

    /// Adds keys to the last environment.
    pub fn in_environment(mut self, toml: &str) -> Self {
        _ = writeln!(self.environments, "{toml}");
        self
    }

    /// Adds keys to the last listener.
    pub fn in_listener(mut self, toml: &str) -> Self {
        _ = writeln!(self.listeners, "{toml}");
        self
    }

    /// Adds a table.
    pub fn table(mut self, toml: &str) -> Self {
        _ = writeln!(self.tables, "{toml}");
        self
    }

    /// Adds a control socket, for [`Gateway::command`].
    pub fn control(self) -> Self {
        let table = format!("[control]\nsocket = \"{}\"", self.control_socket().display());
        self.table(&table)
    }

    /// Where that is.
    pub fn control_socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    /// Replaces the top-level keys.
    pub fn top(mut self, toml: &str) -> Self {
        self.top = format!("{toml}\n");
        self
    }

    /// A file in the gateway's folder, 0600; its path.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        path
    }

    /// The gateway's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file's text.
    pub fn configuration(&self) -> String {
        let everybody = || everybody(&self.environments, self.folder.path());
        let callers = self.callers.clone().unwrap_or_else(everybody);
        format!("{}{callers}{}{}{}", self.top, self.listeners, self.environments, self.tables)
    }

    /// Starts the gateway and waits until its sockets are bound.
    pub fn start(self) -> Gateway {
        Gateway::start(self)
    }
}

/// Callers who may do everything but administer keys: one from every address, one who is this user.
fn everybody(environments: &str, folder: &Path) -> String {
    let tables = environments.split("[environment.").skip(1);
    let grants: Vec<String> = tables
        .map(|table| {
            let name = table.split(']').next().expect("a name");
            let items = if table.contains("\npaths = ") { r#""paths""# } else { EVERYTHING };
            format!("{name} = [{items}]")
        })
        .collect();
    let (grant, uid) = (grants.join(", "), fs::metadata(folder).expect("a folder").uid());
    format!(
        "[[caller]]\nname = \"everybody\"\nnetworks = [\"0.0.0.0/0\", \"::/0\"]\ngrant = {{ {grant} }}\n\
         [[caller]]\nname = \"this-user\"\nunix_uids = [{uid}]\ngrant = {{ {grant} }}\n"
    )
}

/// A running gateway.
pub struct Gateway {
    child: Child,
    /// Its listeners' TCP addresses, in order; a Unix socket has none.
    pub addresses: Vec<SocketAddr>,
    /// Its health and metrics listener.
    pub health: Option<SocketAddr>,
    /// Every byte of its standard error so far.
    pub stderr: Output,
    /// Every byte of its standard output so far: access records.
    pub stdout: Output,
    /// What it was started with; the files are still there.
    pub setup: Setup,
}

impl Gateway {
    fn start(setup: Setup) -> Self {
        let path = setup.file("mxgate.toml", &setup.configuration());
        const MXGATE: &str = env!("CARGO_BIN_EXE_mxgate");
        let mut command = Command::new(if setup.prelude.is_empty() { MXGATE } else { "/bin/sh" });
        if !setup.prelude.is_empty() {
            command.args(["-c", &format!("{}\nexec \"$@\"", setup.prelude), "sh", MXGATE]);
        }
        let mut child = command
            .args(["run", "--config"])
            .arg(path)
            // A core dump, were there one, would be found in its folder.
            .current_dir(setup.folder())
            .env_clear()
            .envs(setup.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the gateway starts");
        let stdout = Output::collect(child.stdout.take().expect("piped"));
        let stderr = Output::collect(child.stderr.take().expect("piped"));
        let mut gateway = Self { child, addresses: Vec::new(), health: None, stderr, stdout, setup };
        let up = gateway.stderr.wait_for(|line| line.contains("mxgate is up"));
        let listeners = log_field(&up, "listeners").expect("its listeners");
        gateway.addresses = listeners.split(", ").filter_map(|address| address.parse().ok()).collect();
        gateway.health = log_field(&up, "health").and_then(|address| address.parse().ok());
        gateway
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that it has in use.
    pub fn resident(&self) -> u64 {
        let status = self.of_kernel("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Processor time that it has used, of all threads; the kernel counts hundredths of a second.
    pub fn cpu(&self) -> Duration {
        let stat = self.of_kernel("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("its fields").split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// Descriptors that it has open. The kernel tells root and nobody else; it tells others itself, on the health page,
    /// whose connection is not counted.
    pub fn descriptors(&self) -> usize {
        match fs::read_dir(format!("/proc/{}/fd", self.pid())) {
            Ok(descriptors) => descriptors.count(),
            Err(_) => self.metric("process_open_fds") as usize - 1,
        }
    }

    fn of_kernel(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("it runs")
    }

    /// Sends it a signal by name (`TERM`, `HUP`).
    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(done.expect("kill runs").success());
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < end, "the gateway does not end");
            thread::yield_now();
        }
    }

    /// Writes its configuration file anew, from what `setup` says now.
    pub fn reconfigure(&self) {
        self.setup.file("mxgate.toml", &self.setup.configuration());
    }

    /// Runs a command on its control socket: its standard output, or its standard error and exit code.
    pub fn command(&self, arguments: &[&str]) -> Result<String, (String, i32)> {
        let socket = self.setup.control_socket();
        let socket = ["--socket", socket.to_str().expect("UTF-8")];
        let output = mxgate(&[&socket, arguments].concat(), &[]);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        match output.status.code() {
            Some(0) => Ok(text(output.stdout)),
            code => Err((text(output.stderr), code.unwrap_or(-1))),
        }
    }

    /// What `mxgate status --json` shows.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.command(&["status", "--json"]).expect("a status")).expect("JSON")
    }

    /// A connection to its first TCP listener.
    pub fn connect(&self) -> Client {
        Client::connect(self.addresses[0])
    }

    /// The same with a small buffer in the kernel, so that what is not read soon stays with the gateway.
    pub fn connect_small(&self) -> Client {
        let address = self.addresses[0];
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)
            .expect("a socket");
        socket.set_recv_buffer_size(16 << 10).expect("an option");
        socket.connect(&address.into()).expect("it listens");
        Client::of(socket.into())
    }

    /// One request on a connection of its own. `head` has bare line feeds, for convenience, and no `Host`:
    /// `"GET /users HTTP/1.1\nX: y"`.
    pub fn send(&self, head: &str, body: &str) -> Answer {
        let mut client = self.connect();
        client.request(head, body);
        client.answer()
    }

    /// `GET` with these header lines.
    pub fn get(&self, path: &str, lines: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\n{lines}"), "")
    }

    /// The page of its health listener.
    pub fn page(&self, path: &str) -> Answer {
        let mut client = Client::connect(self.health.expect("a health listener"));
        client.request(&format!("GET {path} HTTP/1.1"), "");
        client.answer()
    }

    /// The sum of a metric's samples whose line contains `what`.
    pub fn metric(&self, what: &str) -> f64 {
        let text = self.page("/metrics").text();
        let samples = text.lines().filter(|line| !line.starts_with('#') && line.contains(what));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits for an access record that fits.
    pub fn record(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let parse = |line: &str| serde_json::from_str::<Value>(line).ok();
        let line = self.stdout.wait_for(|line| parse(line).is_some_and(|record| fits(&record)));
        parse(&line).expect("a record")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the gateway's standard error ---\n{}", self.stderr.text());
        }
    }
}

/// A field of a log line in either format.
fn log_field(line: &str, name: &str) -> Option<String> {
    if let Ok(line) = serde_json::from_str::<Value>(line) {
        return line["fields"][name].as_str().map(str::to_owned);
    }
    let value = line.split_once(&format!(" {name}="))?.1;
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split(' ').next(),
    };
    value.map(str::to_owned)
}

/// What a process writes, collected by a thread.
#[derive(Clone)]
pub struct Output(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Default)]
struct Collected {
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    pub fn collect(from: impl Read + Send + 'static) -> Self {
        let output = Self(Arc::default());
        let writer = output.clone();
        thread::spawn(move || {
            let mut reader = BufReader::new(from);
            loop {
                let mut line = Vec::new();
                let ended = !matches!(reader.read_until(b'\n', &mut line), Ok(1..));
                let (state, changed) = &*writer.0;
                let mut state = state.lock().expect("no panic with the lock");
                state.bytes.extend_from_slice(&line);
                state.ended = ended;
                changed.notify_all();
                if ended {
                    return;
                }
            }
        });
        output
    }

    /// Everything so far.
    pub fn bytes(&self) -> Vec<u8> {
        // A test that fails while it waits has the lock, and its output is wanted all the more.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).bytes.clone()
    }

    /// Everything so far, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Waits until a text is there so many times.
    pub fn wait_for_count(&self, text: &str, count: usize) {
        let (state, changed) = &*self.0;
        let end = Instant::now() + PATIENCE;
        let mut state = state.lock().expect("no panic with the lock");
        while String::from_utf8_lossy(&state.bytes).matches(text).count() < count {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !state.ended, "{text} is there fewer than {count} times");
            state = changed.wait_timeout(state, left).expect("no panic with the lock").0;
        }
    }

    /// The first line, earlier or later, that fits.
    pub fn wait_for(&self, fits: impl Fn(&str) -> bool) -> String {
        let (state, changed) = &*self.0;
        let end = Instant::now() + PATIENCE;
        let mut state = state.lock().expect("no panic with the lock");
        loop {
            let text = String::from_utf8_lossy(&state.bytes).into_owned();
            if let Some(line) = text.lines().find(|line| fits(line)) {
                return line.to_owned();
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !state.ended, "no such line; there is:\n{text}");
            state = changed.wait_timeout(state, left).expect("no panic with the lock").0;
        }
    }
}

/// Waits until `holds`, asking again and again.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never became true that {what}");
        thread::yield_now();
    }
}

/// A raw connection.
pub struct Client {
    /// For whatever the helpers do not do.
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).expect("it listens"))
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        Self { stream, read: Vec::new() }
    }

    /// A connection from an address of this machine's choice, such as `127.0.0.5`.
    pub fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)
            .expect("a socket");
        socket.bind(&SocketAddr::new(source, 0).into()).expect("an address of this machine");
        socket.connect(&address.into()).expect("it listens");
        Self::of(socket.into())
    }

    /// Sends `head` (bare line feeds, `Host: localhost` added) and `body` with its length, if it has one.
    pub fn request(&mut self, head: &str, body: &str) {
        let mut text = head.trim_end().replace('\n', "\r\n");
        text.push_str("\r\nHost: localhost\r\n");
        if !body.is_empty() {
            _ = write!(text, "Content-Length: {}\r\n", body.len());
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.raw(text.as_bytes());
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it takes them");
    }

    /// Reads one final answer; its body by its framing. Interim answers are left out.
    pub fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    /// Reads one final answer to `HEAD`.
    pub fn answer_to_head(&mut self) -> Answer {
        self.answer_to(true)
    }

    fn answer_to(&mut self, head_only: bool) -> Answer {
        loop {
            let answer = self.one_answer(head_only);
            if answer.status >= 200 {
                return answer;
            }
        }
    }

    /// Reads one answer, also an interim one (1xx).
    pub fn one_answer(&mut self, head_only: bool) -> Answer {
        let (status, headers, len) = loop {
            let mut fields = [httparse::EMPTY_HEADER; 128];
            let mut parsed = httparse::Response::new(&mut fields);
            if let httparse::Status::Complete(len) = parsed.parse(&self.read).expect("a well-formed answer") {
                let field = |field: &httparse::Header<'_>| {
                    (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned())
                };
                break (parsed.code.expect("a status"), parsed.headers.iter().map(field).collect(), len);
            }
            assert!(
                self.more(),
                "the connection ended inside a head: {:?}",
                String::from_utf8_lossy(&self.read)
            );
        };
        self.read.drain(..len);
        let mut answer = Answer { status, headers, body: Vec::new(), whole: true };
        if head_only || status < 200 || status == 204 || status == 304 {
            return answer;
        }
        if answer.header("transfer-encoding").is_some() {
            self.chunks(&mut answer);
        } else if let Some(length) =
            answer.header("content-length").map(|length| length.parse().expect("a number"))
        {
            while self.read.len() < length && self.more() {}
            answer.whole = self.read.len() >= length;
            answer.body = self.read.drain(..length.min(self.read.len())).collect();
        } else {
            while self.more() {}
            answer.body = std::mem::take(&mut self.read);
        }
        answer
    }

    fn chunks(&mut self, answer: &mut Answer) {
        loop {
            let Some(line) = self.line() else {
                answer.whole = false;
                return;
            };
            let size = usize::from_str_radix(&line, 16).expect("a chunk size");
            while self.read.len() < size && self.more() {}
            answer.whole &= self.read.len() >= size;
            answer.body.extend(self.read.drain(..size.min(self.read.len())));
            if !answer.whole {
                return;
            }
            if size == 0 {
                break;
            }
            self.line();
        }
        while let Some(line) = self.line().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").expect("a trailer");
            answer.headers.push((format!("trailer:{}", name.to_ascii_lowercase()), value.to_owned()));
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Reads what has come; false at the end or a reset.
    fn more(&mut self) -> bool {
        let mut piece = [0; 64 * 1024];
        match self.stream.read(&mut piece) {
            Ok(count) => {
                self.read.extend_from_slice(&piece[..count]);
                count > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came within {PATIENCE:?}: {error}"),
        }
    }

    /// Everything until the connection ends.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.read)
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case; trailers as `trailer:name`.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body came to its framing's end.
    pub whole: bool,
}

impl Answer {
    /// Every value of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The first value of a field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The stable code of one of our own answers; empty for the upstream's.
    pub fn code(&self) -> String {
        match self.header("content-type") {
            Some("application/problem+json") => self.json()["code"].as_str().unwrap_or_default().to_owned(),
            _ => String::new(),
        }
    }
}
