//! A stand-in for AWS, the one that `tests/setup` installs: Secrets Manager and STS at one port, in memory. It checks no
//! signature. It listens on a free loopback port; dropping it ends it. Everything is asked of it with curl.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::free_address::free_address;

/// The longest that anything may take; a start is a few seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub const REGION: &str = "eu-central-1";

pub struct Server {
    folder: TempDir,
    address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = Self { folder, address: free_address(), child: None };
        server.run();
        server
    }

    /// Starts the process, without any secret.
    pub fn run(&mut self) {
        let log = fs::File::options().append(true).create(true).open(self.folder.path().join("server.log"));
        let log = log.expect("a file");
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.work/aws/bin/moto_server");
        assert!(program.exists(), "the stand-in for AWS is not installed here: run tests/setup");
        let child = Command::new(program)
            .args(["-H", &self.address.ip().to_string(), "-p", &self.address.port().to_string()])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("it starts"));
        let end = Instant::now() + PATIENCE;
        while self.try_ask("ListSecrets", &json!({})).is_none() {
            assert!(Instant::now() < end, "it never answered; it said:\n{}", self.log());
            thread::yield_now();
        }
    }

    /// Ends the process, at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `STOP`: it takes connections and answers none, until `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let done = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(done.expect("kill runs").success());
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("server.log")).expect("a log")
    }

    /// How many requests it has answered.
    pub fn answered(&self) -> usize {
        self.log().matches("\"POST / HTTP/1.1\"").count()
    }

    /// Makes a secret; its ARN.
    pub fn create(&self, name: &str, text: &str) -> String {
        let made = self.ask("CreateSecret", &json!({ "Name": name, "SecretString": text }));
        made["ARN"].as_str().expect("a text").to_owned()
    }

    /// Writes a new version, which is the current one from then on.
    pub fn put(&self, name: &str, text: &str) {
        self.ask("PutSecretValue", &json!({ "SecretId": name, "SecretString": text }));
    }

    /// A request of its administrator, which must succeed.
    pub fn ask(&self, operation: &str, body: &Value) -> Value {
        let (status, answer) = self.try_ask(operation, body).expect("an answer");
        assert_eq!(status, 200, "{operation}: {answer}");
        answer
    }

    /// Status and answer, when there is one.
    fn try_ask(&self, operation: &str, body: &Value) -> Option<(u16, Value)> {
        let scope =
            format!("AWS4-HMAC-SHA256 Credential=AKIDTEST/20260101/{REGION}/secretsmanager/aws4_request");
        let mut child = Command::new("curl")
            .args(["-s", "--max-time", "20", "-w", "\n%{http_code}", "--data-binary", "@-"])
            .args(["-H", &format!("Authorization: {scope}, SignedHeaders=host, Signature=0")])
            .args(["-H", &format!("X-Amz-Target: secretsmanager.{operation}")])
            .args(["-H", "Content-Type: application/x-amz-json-1.1"])
            .arg(self.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl is installed here");
        child.stdin.take().expect("piped").write_all(body.to_string().as_bytes()).expect("it reads");
        let said = child.wait_with_output().expect("it ends").stdout;
        let said = String::from_utf8(said).expect("UTF-8");
        let (answer, status) = said.rsplit_once('\n').expect("a status");
        let status = status.parse().expect("a number");
        (status != 0).then(|| (status, serde_json::from_str(answer).unwrap_or_default()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
