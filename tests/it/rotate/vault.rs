//! A vault with a key that is to be rotated, a stand-in for MX, and the command.

use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use mxgate::{
    stand_in::Running,
    vault::{
        embedded::{self, Entry, Identity},
        secret::Secret,
    },
};
use serde_json::{Value, json};

use crate::{
    harness::{API_KEY, CLIENT_ID, Gateway, PATIENCE, Setup, mx},
    openbao::server::{Role, Server},
};

/// A server, and who may log in there.
pub(super) struct Bao {
    pub(super) server: Arc<Server>,
    role: Role,
}

impl Bao {
    pub(super) fn start() -> Self {
        let server = Arc::new(Server::start());
        Self { role: server.role(json!({})), server }
    }
}

type Elsewhere = Box<dyn Fn() -> Value + Send + Sync>;

pub(super) struct Rotating {
    pub(super) mx: Running,
    setup: Option<Setup>,
    folder: std::path::PathBuf,
    /// The server's document with the keys, if they are not in the embedded vault.
    elsewhere: Option<Elsewhere>,
    /// Variables of the commands' environment.
    variables: Vec<(String, String)>,
}

impl Rotating {
    /// A lock that is soon over, and no more of a wait than the vault needs.
    pub(super) fn new() -> Self {
        Self::with(|setup| setup, "wait_min_ms = 0, lease_ms = 12_000")
    }

    pub(super) fn with(change: impl FnOnce(Setup) -> Setup, rotation: &str) -> Self {
        let mx = mx();
        let keys = "api_key = \"vault:test/api_key\", secondary_api_key = \"vault:test/secondary\"";
        let setup = Setup::with_vault(&mx)
            .credential(&format!("kind = \"basic\", client_id = \"{CLIENT_ID}\", {keys}"))
            .in_environment(&format!("rotation = {{ client_guid = \"CLT-1\", {rotation} }}"));
        let mut setup = change(setup);
        // As short a wait as there can be: what is tested is what is done after it.
        setup.tables =
            setup.tables.replace("[vault]\n", "[vault]\nrefresh_ms = 100\nafter_grace = \"keep\"\n");
        Self::of(mx, setup)
    }

    pub(super) fn of(mx: Running, setup: Setup) -> Self {
        setup.file("mxgate.toml", &setup.configuration());
        let folder = setup.folder().to_owned();
        let variables = setup.variables.clone();
        Self { mx, setup: Some(setup), folder, elsewhere: None, variables }
    }

    /// With the keys in two fields of the server's entry `mx/NAME`, of which the second is not there.
    pub(super) fn in_openbao(Bao { server, role }: &Bao, name: &str) -> Self {
        let mx = mx();
        server.put(&format!("secret/data/mx/{name}"), json!({ "note": "of others", "api_key": API_KEY }));
        let at = format!("openbao:secret/mx/{name}");
        let keys = format!("api_key = \"{at}#api_key\", secondary_api_key = \"{at}#secondary\"");
        let Role { role_id, secret_id } = role;
        let setup = Setup::with_vault(&mx)
            .credential(&format!("kind = \"basic\", client_id = \"{CLIENT_ID}\", {keys}"))
            .in_environment("rotation = { client_guid = \"CLT-1\", wait_min_ms = 0, lease_ms = 12_000 }")
            .control();
        let folder = setup.folder().display().to_string();
        let setup = setup.table(&format!(
            "[openbao]\nurl = \"{}\"\nca_file = \"{}\"\nrefresh_ms = 200\nafter_grace = \"keep\"\n\
             login = {{ kind = \"approle\", role_id = \"{role_id}\", secret_id = \"file:{folder}/secret-id\" }}",
            server.url(),
            server.ca_file().display(),
        ));
        setup.file("secret-id", secret_id);
        let (server, path) = (Arc::clone(server), format!("secret/data/mx/{name}"));
        Self { elsewhere: Some(Box::new(move || server.get(&path))), ..Self::of(mx, setup) }
    }

    /// With the keys in two fields of the secret `mx/NAME` of AWS Secrets Manager.
    #[cfg(feature = "aws")]
    pub(super) fn in_aws(server: &Arc<crate::aws::server::Server>, name: &str) -> Self {
        let (mx, name) = (mx(), format!("mx/{name}"));
        server.create(&name, &json!({ "note": "of others", "api_key": API_KEY }).to_string());
        let keys = format!("api_key = \"aws:{name}#api_key\", secondary_api_key = \"aws:{name}#secondary\"");
        let mut setup = Setup::with_vault(&mx)
            .credential(&format!("kind = \"basic\", client_id = \"{CLIENT_ID}\", {keys}"))
            .in_environment("rotation = { client_guid = \"CLT-1\", wait_min_ms = 0, lease_ms = 12_000 }")
            .control()
            .table(&format!(
                "[aws]\nregion = \"{}\"\nendpoint = \"{}\"\nrefresh_ms = 200\nafter_grace = \"keep\"",
                crate::aws::server::REGION,
                server.url()
            ));
        setup.variables.extend(crate::aws::credentials());
        let server = Arc::clone(server);
        let document = move || {
            let answer =
                server.ask("GetSecretValue", &json!({ "SecretId": name, "VersionStage": "AWSCURRENT" }));
            serde_json::from_str(answer["SecretString"].as_str().expect("a text")).expect("JSON")
        };
        Self { elsewhere: Some(Box::new(document)), ..Self::of(mx, setup) }
    }

    /// The server's entry with the keys.
    pub(super) fn document(&self) -> Value {
        self.elsewhere.as_ref().expect("keys at a server")()
    }

    /// The gateway of this vault, which keeps the folder from now on.
    pub(super) fn start(&mut self) -> Gateway {
        self.setup.take().expect("it was not started").start()
    }

    pub(super) fn setup(&self) -> &Setup {
        self.setup.as_ref().expect("it was not started")
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mxgate"));
        self.arguments(&mut command, arguments);
        command
    }

    pub(super) fn arguments(&self, command: &mut Command, arguments: &[&str]) {
        command
            .args(["rotate", "--config"])
            .arg(self.folder.join("mxgate.toml"))
            .args(arguments)
            .env_clear()
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    pub(super) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(&[&["test"], arguments].concat()).spawn().expect("it starts")
    }

    /// To its end.
    pub(super) fn rotate(&self, arguments: &[&str]) -> Output {
        self.rotate_as_it_is(&[&["test"], arguments].concat())
    }

    pub(super) fn rotate_as_it_is(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("/usr/bin/timeout");
        command.arg((4 * PATIENCE.as_secs()).to_string()).arg(env!("CARGO_BIN_EXE_mxgate"));
        self.arguments(&mut command, arguments);
        command.output().expect("it runs")
    }

    pub(super) fn status(&self) -> Value {
        let output = self.rotate(&["--status", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Seals an entry for a host.
    pub(super) fn set(&self, name: &str, value: &str, host: &str) {
        let secret = Secret::new(value.into()).expect("a secret");
        let vault = self.folder.join("vault.age");
        embedded::set(&vault, &self.identity(), name, secret, Some(vec![host.into()])).expect("an entry");
    }

    fn identity(&self) -> Identity {
        let identity =
            format!("file:{}", self.folder.join("identity").display()).parse().expect("a reference");
        Identity::load(&identity).expect("the identity")
    }

    fn entry(&self, name: &str) -> Option<Entry> {
        let opened =
            embedded::peek(&self.folder.join("vault.age"), &self.identity()).expect("a vault that opens");
        opened.entries.get(name).cloned()
    }

    #[expect(clippy::disallowed_methods, reason = "compares made-up keys with those of the stand-in")]
    fn key(&self, name: &str) -> Option<String> {
        let entry = self.entry(name)?;
        Some(String::from_utf8(entry.secret.expose().to_vec()).expect("UTF-8"))
    }

    pub(super) fn primary(&self) -> String {
        match &self.elsewhere {
            Some(_) => self.document()["api_key"].as_str().expect("a primary key").to_owned(),
            None => self.key("test/api_key").expect("a primary key"),
        }
    }

    /// The vault file's bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.folder.join("vault.age")).expect("a vault")
    }

    /// The vault's primary key works at MX.
    #[track_caller]
    pub(super) fn assert_works(&self) {
        assert!(self.mx.takes_api_key(0, self.primary().as_bytes()), "the vault's key does not work");
    }

    /// One key is left, in the vault and at MX, and nothing is open; that key.
    #[track_caller]
    pub(super) fn over(&self) -> String {
        self.assert_works();
        let status = self.status();
        assert_eq!(
            (&status["step"], &status["secondary"], &status["locked"]),
            (&"idle".into(), &Value::Null, &Value::Null)
        );
        assert!(!self.folder.join("vault.age.recovery-test").exists(), "no recovery file is left");
        self.primary()
    }
}
