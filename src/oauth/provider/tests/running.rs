//! Servers of Node's, and a user who consents.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use tempfile::TempDir;

use super::Authorization;
use crate::{
    config::{self, ClientAuthentication, Endpoint, ProviderPlace},
    stand_in::certificate::{Authority, Validity},
    vault::reference::Reference,
};

pub(in crate::oauth) const SECRET: &str = "gateway-secret:/+%0123456789";
pub(in crate::oauth) const CALLBACK: &str = "https://127.0.0.1:18099/callback";
pub(in crate::oauth) const SCOPES: [&str; 3] = ["openid", "offline_access", "mx:read"];
pub(in crate::oauth) const PATIENCE: Duration = Duration::from_secs(60);

/// What certificates are for.
const NAMES: [&str; 5] = ["localhost", "127.0.0.1", "connect.test", "bank.test", "app.test"];

/// A program of Node's that prints its port; dropping it ends it.
pub(in crate::oauth) struct Running {
    pub(in crate::oauth) folder: TempDir,
    child: Child,
    pub(in crate::oauth) lines: mpsc::Receiver<String>,
    pub(in crate::oauth) port: u16,
}

impl Running {
    pub(in crate::oauth) fn start(script: &str) -> Self {
        Self::with(script, &[])
    }

    /// With further arguments behind the certificate and its key.
    pub(in crate::oauth) fn with(script: &str, arguments: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let modules = root.join("tests/.work/oauth/node_modules");
        assert!(modules.exists(), "the OAuth servers are not installed here: run tests/setup");
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let tls = Authority::new().unwrap().issue(&NAMES, Validity::Valid).unwrap();
        for (name, text) in [
            ("ca.pem", tls.authority_pem()),
            ("tls.pem", tls.pem()),
            ("tls.key", tls.key_pem()),
            ("secret", SECRET),
        ] {
            fs::write(at.join(name), text).unwrap();
        }
        // Node looks for modules beside the script.
        fs::copy(root.join("tests/oauth").join(script), at.join(script)).unwrap();
        std::os::unix::fs::symlink(modules, at.join("node_modules")).unwrap();
        let mut child = Command::new("node")
            .args([script, "tls.pem", "tls.key"])
            .args(arguments)
            .current_dir(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(at.join("errors")).unwrap())
            .spawn()
            .unwrap();
        let (said, lines) = mpsc::channel();
        let output = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
        let port = loop {
            let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("{}", fs::read_to_string(at.join("errors")).unwrap());
            });
            if let Some(port) = line.strip_prefix("port ") {
                break port.parse().unwrap();
            }
        };
        Self { folder, child, lines, port }
    }

    /// The next line that it says; `None`: it has ended.
    pub(in crate::oauth) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("silent: {}", self.errors()),
        }
    }

    /// Writes a line to it.
    pub(in crate::oauth) fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// What it complained of.
    pub(in crate::oauth) fn errors(&self) -> String {
        fs::read_to_string(self.folder.path().join("errors")).unwrap()
    }

    /// Waits for what it says.
    pub(in crate::oauth) fn until(&self, said: &str) {
        while self.lines.recv_timeout(PATIENCE).unwrap() != said {}
    }

    pub(in crate::oauth) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(in crate::oauth) fn client(&self, client_id: &str, place: ProviderPlace) -> config::Provider {
        config::Provider {
            name: "bank".into(),
            place,
            client_id: client_id.into(),
            client_secret: Reference::file(self.folder.path().join("secret")),
            client_authentication: ClientAuthentication::Basic,
            scopes: vec![],
            audience: None,
            resource: None,
            authorization_parameters: [("prompt".to_owned(), "consent".to_owned())].into(),
            token_parameters: BTreeMap::new(),
            redirect_uri: Some(CALLBACK.into()),
            reuse_grace: Duration::ZERO,
            ca_file: Some(self.folder.path().join("ca.pem")),
            connect_timeout: PATIENCE,
            read_timeout: PATIENCE,
        }
    }

    pub(in crate::oauth) fn discovered(&self) -> ProviderPlace {
        let issuer = format!("https://127.0.0.1:{}", self.port);
        let url = Endpoint::parse(&format!("{issuer}/.well-known/openid-configuration")).unwrap();
        ProviderPlace::Discovered { url, issuer, hosts: vec!["127.0.0.1".into()] }
    }

    /// What a browser is sent on to.
    pub(in crate::oauth) fn follow(&self, url: &str, form: &[&str]) -> String {
        let form: Vec<_> = form.iter().flat_map(|field| ["--data", field]).collect();
        let page = "/dev/null";
        self.curl(&[&form, &["--output", page, "--write-out", "%{redirect_url}", url][..]].concat())
    }

    /// What curl prints, with the cookies of before.
    pub(in crate::oauth) fn curl(&self, arguments: &[&str]) -> String {
        let at = |name: &str| self.folder.path().join(name);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error"]);
        curl.arg("--cacert").arg(at("ca.pem"));
        curl.arg("--cookie").arg(at("cookies")).arg("--cookie-jar").arg(at("cookies"));
        let output = curl.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Consents as a user does; gives the parameters that come back.
    pub(in crate::oauth) fn consent(&self, authorization: &Authorization) -> BTreeMap<String, String> {
        let url = self.until_back(&authorization.url, CALLBACK);
        let (_, query) = url.split_once('?').unwrap();
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    /// From the provider's first page to where it sends the user back to.
    pub(in crate::oauth) fn until_back(&self, url: &str, callback: &str) -> String {
        let mut url = self.follow(url, &[]);
        for form in [&["prompt=login", "login=alice", "password=x"][..], &[], &["prompt=consent"], &[]] {
            // Who is logged in already is asked for consent at once.
            if url.starts_with(callback) {
                break;
            }
            url = self.follow(&url, form);
        }
        assert!(url.starts_with(callback), "{url}");
        url
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
