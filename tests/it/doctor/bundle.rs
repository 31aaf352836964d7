//! The support bundle, searched for every secret in every form.

use std::{fs, os::unix::fs::PermissionsExt};

use mxgate::vault::{
    embedded::{self, Identity},
    secret::Secret,
};
use serde_json::Value;

use crate::{
    canary::search::{Canary, Search},
    connect_proxy::{ConnectProxy, Deed},
    free_address::free_address,
    harness::{CLIENT_ID, Setup, mx, mx_with, mxgate},
};

const PASSWORD: &str = r#"q"9\Wd/x+R&t<Vz'o=J%b~M>p?s;Yk!3"#;
// Without words in them, of which pieces could be anywhere.
const IN_VAULT: &str = "bE3nVx7KpR5tZy1WqL9mHc2JfD8sGa4U";
/// It does not look like one, and is known by value.
const PASSPHRASE: &str = "plumage-orbit-walnut";
const IN_COMMENT: &str = "7d1f0c5e9ab23846fb70e1d4c8a5923b6e0f1d7a";
const MISPLACED: &str = "Zk8rQ2mXw5Tn1LbV9cHs4JyDgA7pUe3F";

#[test]
fn a_bundle_tells_much_and_holds_no_secret() {
    let mx = mx_with(|options| options.environments[0].api_keys = vec![IN_VAULT.into()]);
    let proxy = ConnectProxy::that(Deed::Tunnel(mx.address()));
    let mut setup = Setup::with_vault(&mx).control();
    let identity = format!("file:{}/identity", setup.folder().display()).parse().unwrap();
    let identity = Identity::load(&identity).unwrap();
    let key = Secret::new(IN_VAULT.into()).unwrap();
    embedded::set(&setup.folder().join("vault.age"), &identity, "test/api_key", key, None).unwrap();
    setup.file("token", PASSPHRASE);
    // A port that is free now: the bundle finds the page by the configuration.
    let health = free_address();
    setup.tables = setup
        .tables
        .replace("[health]\naddress = \"127.0.0.1:0\"", &format!("[health]\naddress = \"{health}\""));
    // Where people leave keys: in a comment, as an identifier, as a name.
    let records = setup.folder().join(PASSPHRASE).display().to_string();
    let mut setup = setup.table(&format!("[record]\ndestination = \"file:{records}\""));
    setup.top = format!("# the old key was {IN_COMMENT}\n{}", setup.top);
    setup.variables.push(("PROXY_PASSWORD".into(), PASSWORD.into()));
    let setup = setup.in_environment(&format!(
        "proxy = {{ url = \"http://{}\", username = \"{MISPLACED}\", password = \"env:PROXY_PASSWORD\" }}",
        proxy.address
    ));
    let canaries = [
        Canary::new("the key in the vault", IN_VAULT),
        Canary::new("a token, which is also the name of a file", PASSPHRASE),
        Canary::new("the proxy's password in the environment", PASSWORD),
        Canary::new("a key in a comment", IN_COMMENT),
        Canary::new("a key as a user's name", MISPLACED),
    ];
    let search = Search::new(&canaries);
    let gateway = setup.start();
    assert_eq!(gateway.get("/users", "").status, 200);

    let folder = gateway.setup.folder();
    let (config, to) = (folder.join("mxgate.toml"), folder.join("bundle.json"));
    assert!(search.first(&fs::read(&config).unwrap()).is_some(), "the search finds what is there");
    let (config, to) = (config.to_str().unwrap(), to.to_str().unwrap());
    let variables = [("PROXY_PASSWORD", PASSWORD)];
    let run = || mxgate(&["doctor", "--config", config, "--bundle", to], &variables);
    let output = run();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(&format!("the support bundle is {to}; read it before you send it")), "{said}");

    let bytes = fs::read(to).unwrap();
    for (place, bytes) in [("the bundle", &bytes), ("stdout", &output.stdout), ("stderr", &output.stderr)] {
        search.assert_clean(place, bytes);
    }
    assert_eq!(fs::metadata(to).unwrap().permissions().mode() & 0o777, 0o600);
    let bundle: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(bundle["mxgate"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        bundle["configuration"]["set"]["environment"]["test"]["credential"]["api_key"],
        "vault:test/api_key"
    );
    assert_eq!(
        bundle["configuration"]["set"]["environment"]["test"]["credential"]["client_id"],
        "(left out)"
    );
    assert!(!String::from_utf8_lossy(&bytes).contains(CLIENT_ID));
    // A stranger could try passwords until one has the same.
    let fingerprint = |value: &str| Secret::new(value.into()).unwrap().fingerprint().to_string();
    for place in ["doctor", "status"] {
        let text = bundle[place].to_string();
        assert!(text.contains(&fingerprint(IN_VAULT)) && !text.contains(&fingerprint(PASSWORD)), "{text}");
    }
    assert_eq!(bundle["doctor"]["ok"], true);
    assert_eq!(bundle["status"]["environments"][0]["name"], "test");
    let metrics = bundle["metrics"].as_str().unwrap();
    assert!(metrics.contains("mxgate_config_generation 1"), "{metrics}");

    // What is there is not written over.
    let again = run();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not written"));
    assert_eq!(fs::read(to).unwrap(), bytes);
}

#[test]
fn without_a_gateway_it_says_what_is_not_to_be_had() {
    let mx = mx();
    let setup = Setup::new(&mx).control();
    setup.file("key", "wr0ng-k3y-of-the-test");
    let config = setup.file("mxgate.toml", &setup.configuration());
    let to = setup.folder().join("bundle.json");
    let arguments = ["doctor", "--config", config.to_str().unwrap(), "--bundle", to.to_str().unwrap()];
    assert_eq!(mxgate(&arguments, &[]).status.code(), Some(1));
    let bundle: Value = serde_json::from_slice(&fs::read(to).unwrap()).unwrap();
    for part in ["status", "metrics"] {
        assert!(bundle[part].as_str().unwrap().starts_with("not to be had: "), "{bundle:#}");
    }
    assert_eq!(bundle["doctor"]["ok"], false);
    Search::new(&[Canary::new("the key", "wr0ng-k3y-of-the-test")])
        .assert_clean("the bundle", bundle.to_string().as_bytes());
}

#[test]
fn paths_are_shown_whatever_their_folders_are_called() {
    let mx = mx();
    let mut setup = Setup::with_vault(&mx).control();
    let folder = setup.folder().join("mount-4f9a1c07b2e85d36");
    fs::create_dir(&folder).unwrap();
    for name in ["vault.age", "identity", "ca.pem"] {
        fs::rename(setup.folder().join(name), folder.join(name)).unwrap();
    }
    let (from, folder) = (setup.folder().display().to_string(), folder.display().to_string());
    for text in [&mut setup.tables, &mut setup.environments] {
        for name in ["vault.age", "identity", "ca.pem", "control.sock"] {
            *text = text.replace(&format!("{from}/{name}"), &format!("{folder}/{name}"));
        }
    }
    let config = setup.file("mxgate.toml", &setup.configuration());
    let to = setup.folder().join("bundle.json");
    let arguments = ["doctor", "--config", config.to_str().unwrap(), "--bundle", to.to_str().unwrap()];
    assert!(mxgate(&arguments, &[]).status.success());
    let bundle: Value = serde_json::from_slice(&fs::read(to).unwrap()).unwrap();
    let set = &bundle["configuration"]["set"];
    for (shown, expected) in [
        (&set["control"]["socket"], format!("{folder}/control.sock")),
        (&set["vault"]["path"], format!("{folder}/vault.age")),
        (&set["vault"]["identity"], format!("file:{folder}/identity")),
        (&set["environment"]["test"]["ca_file"], format!("{folder}/ca.pem")),
    ] {
        assert_eq!(shown, &Value::from(expected));
    }
}
