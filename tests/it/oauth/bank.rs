//! A bank: `tests/oauth/bank.mjs`, an OAuth server that others wrote with an API beside it.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use mxgate::stand_in::certificate::ServerCertificate;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Output, Setup};

pub const CLIENT_SECRET: &str = "gateway-secret:/+%0123456789";

/// Ends when it is dropped.
pub struct Bank {
    child: Child,
    pub address: SocketAddr,
    authority_pem: String,
    /// What it said of token calls, and of bad calls of its API.
    pub said: Output,
    _folder: TempDir,
}

impl Bank {
    /// One whose access tokens live so many seconds.
    pub fn start(life: u32) -> Self {
        Self::failing(life, "0", "0", None)
    }

    /// The same, which fails and is slow, on a port that it had before.
    pub fn failing(life: u32, failing: &str, delay_ms: &str, callback: Option<&str>) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules = root.join("tests/.work/oauth/node_modules");
        assert!(modules.exists(), "the OAuth servers are not installed here: run tests/setup");
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let tls = ServerCertificate::for_default_names().expect("a certificate");
        fs::write(at.join("tls.pem"), tls.pem()).expect("a file");
        fs::write(at.join("tls.key"), tls.key_pem()).expect("a file");
        // Node looks for modules beside the script.
        fs::copy(root.join("tests/oauth/bank.mjs"), at.join("bank.mjs")).expect("the script");
        std::os::unix::fs::symlink(modules, at.join("node_modules")).expect("a link");
        let mut child = Command::new("node")
            .args(["bank.mjs", "tls.pem", "tls.key", failing, delay_ms])
            .current_dir(at)
            .env("ACCESS_TOKEN_LIFE", life.to_string())
            .envs(callback.map(|url| ("CALLBACK", url)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node starts");
        let said = Output::collect(child.stdout.take().expect("piped"));
        let port = said.wait_for(|line| line.starts_with("port "));
        let port: u16 = port["port ".len()..].parse().expect("a port");
        let address = ([127, 0, 0, 1], port).into();
        Self { child, address, authority_pem: tls.authority_pem().to_owned(), said, _folder: folder }
    }

    /// A refresh token of an account of that name, as a move from elsewhere would bring it along.
    pub fn mint(&self, account: &str) -> String {
        let url = format!("https://{}/mint?account={account}", self.address);
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--insecure", "--request", "POST", &url])
            .output()
            .expect("curl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a token")
    }

    /// Uses a refresh token as somebody else would. Gives the status.
    pub fn use_up(&self, refresh_token: &str) -> String {
        let output = Command::new("curl")
            .args(["--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}"])
            .args(["--user", "gateway:gateway-secret%3A%2F%2B%250123456789"])
            .args(["--data", "grant_type=refresh_token"])
            .args(["--data-urlencode", &format!("refresh_token={refresh_token}")])
            .arg(format!("https://{}/token", self.address))
            .output()
            .expect("curl");
        String::from_utf8(output.stdout).expect("a status")
    }

    /// It takes the access tokens that it gave no longer.
    pub fn forget_access_tokens(&self) {
        let output = Command::new("curl")
            .args(["--silent", "--fail", "--insecure", "--request", "POST"])
            .arg(format!("https://{}/forget", self.address))
            .output()
            .expect("curl");
        assert!(output.status.success());
    }

    /// It is there no longer.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What it said so far, line by line.
    pub fn lines(&self) -> Vec<Value> {
        self.said.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How often it said that.
    pub fn count(&self, key: &str, value: &str) -> usize {
        self.lines().iter().filter(|line| line[key] == value).count()
    }

    /// Calls of its API that no good token came with.
    pub fn bad_calls(&self) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line.get("api").is_some()).collect()
    }

    /// A gateway's setup with the environment `accounts` at its API, the provider `bank`, and connections in a file; one
    /// listener for each.
    pub fn setup(&self, more: &str) -> Setup {
        let setup = Setup::at(self.address, &self.authority_pem).control();
        let folder = setup.folder().display().to_string();
        setup.file("client-secret", CLIENT_SECRET);
        setup.file("store-key", "0123456789abcdef0123456789abcdef");
        let address = self.address;
        let mut setup = setup.table(&format!(
            "[provider.bank]\ndiscovery = \"https://{address}/.well-known/openid-configuration\"\nca_file = \"{folder}/ca.pem\"\n\
             client_id = \"gateway\"\nclient_secret = \"file:{folder}/client-secret\"\n\
             scopes = [\"openid\", \"offline_access\", \"accounts:read\", \"accounts:write\"]\n\
             redirect_uri = \"https://127.0.0.1:18099/callback\"\n\
             [connections]\nkey = \"file:{folder}/store-key\"\nfile = \"{folder}/connections\"\n"
        ));
        setup.listeners = "[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"accounts\"\n\
                           [[listener]]\naddress = \"127.0.0.1:0\"\nserves = \"connections\"\n"
            .into();
        setup.environments = format!(
            "[environment.accounts]\nurl = \"https://{address}\"\nca_file = \"{folder}/ca.pem\"\n\
             paths = [\"GET /api/accounts\", \"POST /api/accounts\", \"GET /api/users/{{user_guid}}/accounts\"]\n\
             credential = {{ kind = \"oauth2\", provider = \"bank\" }}\n{more}\n"
        );
        setup.callers = Some(
            "[[caller]]\nname = \"ledger\"\nnetworks = [\"127.0.0.1/32\"]\ngrant = { accounts = [\"paths\"] }\n\
             connections = { providers = [\"bank\"] }\n\
             [[caller]]\nname = \"report\"\nnetworks = [\"127.0.0.2/32\"]\ngrant = { accounts = [\"paths\"] }\n\
             connections = { providers = [\"bank\"], of = [\"ledger\"] }\n\
             [[caller]]\nname = \"other\"\nnetworks = [\"127.0.0.3/32\"]\ngrant = { accounts = [\"paths\"] }\n\
             connections = { providers = [\"bank\"] }\n\
             [[caller]]\nname = \"none\"\nnetworks = [\"127.0.0.4/32\"]\ngrant = { accounts = [\"paths\"] }\n"
                .into(),
        );
        setup
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
