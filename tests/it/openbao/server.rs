//! A real OpenBao server, the one that `tests/setup` installs: TLS, raft storage, a KV engine of version 2 at `secret`
//! and one at `team/kv`, AppRole, one audit log. It listens on a free loopback port; dropping it ends it. Everything is asked of it with curl.

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use mxgate::stand_in::certificate::{Authority, Validity};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::free_address::free_addresses;

/// The longest that anything may take; a start is a few seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Server {
    folder: TempDir,
    address: SocketAddr,
    child: Option<Child>,
    unseal_key: String,
    root_token: String,
}

/// Who may log in, and what for.
pub struct Role {
    pub role_id: String,
    pub secret_id: String,
}

impl Server {
    /// Started, unsealed and set up. The policy `mxgate` lets its holder read and write below `mx` in both engines.
    pub fn start() -> Self {
        let [address, cluster] = free_addresses();
        let authority = Authority::new().expect("an authority");
        let certificate =
            authority.issue(&[&address.ip().to_string()], Validity::Valid).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().display().to_string();
        fs::create_dir(folder.path().join("data")).expect("a folder");
        for (name, text) in
            [("ca.pem", authority.pem()), ("tls.pem", certificate.pem()), ("tls.key", certificate.key_pem())]
        {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        let settings = format!(
            "ui = false\ndisable_mlock = true\n\
             api_addr = \"https://{address}\"\ncluster_addr = \"https://{cluster}\"\n\
             storage \"raft\" {{\n path = \"{at}/data\"\n node_id = \"n1\"\n}}\n\
             listener \"tcp\" {{\n address = \"{address}\"\n tls_cert_file = \"{at}/tls.pem\"\n\
             tls_key_file = \"{at}/tls.key\"\n tls_min_version = \"tls12\"\n}}\n\
             audit \"file\" \"main\" {{\n options {{\n file_path = \"{at}/audit.log\"\n }}\n}}\n"
        );
        fs::write(folder.path().join("bao.hcl"), settings).expect("a file");
        let mut server =
            Self { folder, address, child: None, unseal_key: String::new(), root_token: String::new() };
        server.run();
        server.until("it answers", |server| server.status() == 501);
        let (_, made) =
            server.ask("PUT", "sys/init", "", &json!({ "secret_shares": 1, "secret_threshold": 1 }));
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        server.unseal_key = text(&made["keys_base64"][0]);
        server.root_token = text(&made["root_token"]);
        server.unseal();
        server.set_up();
        server
    }

    fn set_up(&self) {
        for mount in ["secret", "team/kv"] {
            self.root(
                "POST",
                &format!("sys/mounts/{mount}"),
                json!({ "type": "kv", "options": { "version": "2" } }),
            );
            // It refuses writes until it has made its own tables.
            self.until("the engine works", |server| {
                let document = json!({ "data": { "a": "b" } });
                server.ask("POST", &format!("{mount}/data/warm"), &server.root_token, &document).0 == 200
            });
        }
        self.set_policy("mxgate", &["secret/data/mx/*", "team/kv/data/mx/*"]);
        self.root("POST", "sys/auth/approle", json!({ "type": "approle" }));
    }

    /// Starts the process; it is sealed then.
    pub fn run(&mut self) {
        let log = fs::File::options().append(true).create(true).open(self.folder.path().join("server.log"));
        let log = log.expect("a file");
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.work/openbao/server");
        assert!(program.exists(), "OpenBao is not installed here: run tests/setup");
        let child = Command::new(program)
            .arg("server")
            .arg(format!("-config={}", self.folder.path().join("bao.hcl").display()))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("it starts"));
    }

    /// Ends the process, at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Of a server that may just have been started; it is active afterwards.
    pub fn unseal(&self) {
        self.until("it is unsealed", |server| {
            server.ask("PUT", "sys/unseal", "", &json!({ "key": server.unseal_key })).0 == 200
        });
        self.until("it is active", |server| server.status() == 200);
    }

    pub fn seal(&self) {
        self.root("PUT", "sys/seal", Value::Null);
    }

    /// The status of its health page: 200 active, 503 sealed, 501 without anything; 0 when it is not there.
    fn status(&self) -> u16 {
        self.ask("GET", "sys/health", "", &Value::Null).0
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Everything that it has written down.
    pub fn audit_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("audit.log")).expect("an audit log")
    }

    /// How many requests to this path it has written down.
    pub fn audited(&self, path: &str) -> usize {
        let log = self.audit_log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["type"] == "request" && line["request"]["path"] == path).count()
    }

    /// How a text stands in the audit log.
    pub fn hash(&self, text: &str) -> String {
        let hash = self.root("POST", "sys/audit-hash/main", json!({ "input": text }));
        hash["data"]["hash"].as_str().expect("a hash").to_owned()
    }

    /// Lets who has it read and write these paths.
    pub fn set_policy(&self, name: &str, paths: &[&str]) {
        let rule = |path: &&str| {
            format!("path \"{path}\" {{ capabilities = [\"read\", \"create\", \"update\"] }}\n")
        };
        let policy: String = paths.iter().map(rule).collect();
        self.root("PUT", &format!("sys/policies/acl/{name}"), json!({ "policy": policy }));
    }

    /// An AppRole with the policy `mxgate`, and more settings.
    pub fn role(&self, settings: Value) -> Role {
        let mut role = json!({ "token_policies": "mxgate", "token_ttl": "60s" });
        role.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
        self.root("POST", "auth/approle/role/mxgate", role);
        let text = |value: Value, name: &str| value["data"][name].as_str().expect("a text").to_owned();
        Role {
            role_id: text(self.root("GET", "auth/approle/role/mxgate/role-id", Value::Null), "role_id"),
            secret_id: text(self.root("POST", "auth/approle/role/mxgate/secret-id", json!({})), "secret_id"),
        }
    }

    /// Writes a new version of an entry.
    pub fn put(&self, path: &str, document: Value) {
        self.root("POST", path, json!({ "data": document }));
    }

    /// Changes fields of an entry, if nobody writes at the same time; whether it did.
    pub fn patch(&self, path: &str, fields: Value) -> bool {
        let found = self.root("GET", path, Value::Null)["data"].clone();
        let mut document = found["data"].clone();
        document.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        let body = json!({ "options": { "cas": found["metadata"]["version"] }, "data": document });
        self.ask("POST", path, &self.root_token, &body).0 == 200
    }

    /// The newest version of an entry.
    pub fn get(&self, path: &str) -> Value {
        self.root("GET", path, Value::Null)["data"]["data"].clone()
    }

    /// A request of its administrator, which must succeed.
    pub fn root(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, &self.root_token, &body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// Status and answer; status 0 when there is none.
    fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let mut curl = Command::new("curl");
        curl.args([
            "-s",
            "--max-time",
            "20",
            "-w",
            "\n%{http_code}",
            "-X",
            method,
            "--config",
            "-",
            "--cacert",
        ]);
        curl.arg(self.ca_file()).arg(format!("{}/v1/{path}", self.url()));
        if !body.is_null() {
            curl.args(["-d", &body.to_string()]);
        }
        let mut child =
            curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("curl is installed here");
        let config =
            if token.is_empty() { String::new() } else { format!("header = \"X-Vault-Token: {token}\"\n") };
        child.stdin.take().expect("piped").write_all(config.as_bytes()).expect("it reads");
        let said = child.wait_with_output().expect("it ends").stdout;
        let said = String::from_utf8(said).expect("UTF-8");
        let (answer, status) = said.rsplit_once('\n').expect("a status");
        (status.parse().expect("a number"), serde_json::from_str(answer).unwrap_or_default())
    }

    fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds(self) {
            let log = || fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
            assert!(Instant::now() < end, "it never became true that {what}; it said:\n{}", log());
            thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
