//! Environments whose requests carry a provider's tokens: what can be seen without a user's consent.

use std::fs;

use super::{Seen, at, doctor, mx};
use crate::{
    consents::{CLIENT_SECRET, STORE_KEY, consenting, store_key, without_store_key},
    harness::{Setup, mxgate},
};

fn said(seen: &Seen, environment: &str, stage: &str) -> String {
    seen.found(environment, stage).into_iter().map(|(_, said)| said + "\n").collect()
}

#[test]
fn the_way_is_gone_and_no_call_is_made_with_a_users_token() {
    let mx = mx();
    let setup = consenting(&mx);
    let seen = doctor(&setup, &["test"]);
    assert_eq!(seen.code, 0, "{:#}", seen.json);
    for (stage, count) in [("vault", 1), ("dns", 1), ("tcp", 1), ("tls", 2)] {
        assert_eq!(seen.codes("test", stage), vec!["fine"; count], "{stage}");
    }
    assert!(said(&seen, "test", "vault").contains("provider.bank.client_secret: file:"), "{:#}", seen.json);
    assert!(said(&seen, "", "vault").contains("connections.key: vault:connections/key"), "{:#}", seen.json);
    for key in ["connections.browser.tls", "provider.bank.ca_file"] {
        assert!(said(&seen, "", "tls").contains(&format!("{key} can be used")), "{:#}", seen.json);
    }
    assert_eq!(seen.codes("test", "call"), ["not_tried"]);
    let call = said(&seen, "test", "call");
    assert!(call.contains("tokens of provider bank") && call.contains("nor was one asked for"), "{call}");
    let way = said(&seen, "test", "oauth");
    assert_eq!(way, format!("bank: https://{}/token is reached; nothing was sent there\n", mx.address()));
    assert_eq!(mx.received(), 0);
    // Nothing of a secret that people could have chosen.
    assert!(
        ![CLIENT_SECRET, STORE_KEY].iter().any(|one| seen.json.to_string().contains(one)),
        "{:#}",
        seen.json
    );
    let config = setup.folder().join("mxgate.toml").display().to_string();
    let text = String::from_utf8(mxgate(&["doctor", "--config", &config], &[]).stdout).unwrap();
    assert!(text.contains("\nenvironment test\n") && text.ends_with("\nfine\n"), "{text}");
}

#[test]
fn a_host_that_is_not_there_and_a_secret_that_is_absent_are_both_told() {
    let mx = mx();
    let elsewhere = || {
        let mut setup = consenting(&mx);
        let here = format!("https://{}", mx.address());
        setup.environments = setup.environments.replace(&here, "https://name.invalid");
        setup
    };
    assert_eq!(doctor(&elsewhere(), &[]).failure(), at("dns", "name_not_resolved"));
    let setup = elsewhere();
    fs::remove_file(setup.folder().join("client-secret")).unwrap();
    let seen = doctor(&setup, &[]);
    assert_eq!(seen.code, 1);
    assert_eq!(seen.codes("test", "vault"), ["secret_absent"], "{:#}", seen.json);
    // The way does not need it.
    assert_eq!(seen.codes("test", "dns"), ["name_not_resolved"]);
}

#[test]
fn the_way_to_a_provider_is_gone_whatever_is_with_the_host() {
    let mx = mx();
    let here = format!("https://{}", mx.address());
    let spoilt = |spoil: &dyn Fn(&mut Setup)| {
        let mut setup = consenting(&mx);
        spoil(&mut setup);
        doctor(&setup, &[])
    };
    let replace = |setup: &mut Setup, from: &str, to: &str| {
        assert!(setup.tables.contains(from), "{from}");
        setup.tables = setup.tables.replace(from, to);
    };
    let token = format!("token_endpoint = \"{here}/token\"");
    let nowhere =
        |setup: &mut Setup| replace(setup, &token, "token_endpoint = \"https://name.invalid/token\"");
    assert_eq!(spoilt(&nowhere).failure(), at("oauth", "provider_unreached"));
    let untrusted = |setup: &mut Setup| {
        let authority = format!("ca_file = \"{}/ca.pem\"\n", setup.folder().display());
        replace(setup, &authority, "");
    };
    assert_eq!(spoilt(&untrusted).failure(), at("oauth", "provider_unreached"));
    // It answers, and publishes nothing.
    let discovery = format!("discovery = \"{here}/.well-known/openid-configuration\"");
    let document = |setup: &mut Setup| {
        replace(setup, "authorization_endpoint = \"https://id.example/authorize\"\n", "");
        replace(setup, &token, &discovery);
    };
    assert_eq!(spoilt(&document).failure(), at("oauth", "provider_document"));
    let both = spoilt(&|setup| {
        nowhere(setup);
        setup.environments = setup.environments.replace(&here, "https://name.invalid");
    });
    assert_eq!(both.codes("test", "dns"), ["name_not_resolved"], "{:#}", both.json);
    assert_eq!(both.codes("test", "oauth"), ["provider_unreached"], "{:#}", both.json);
}

#[test]
fn what_the_store_and_browsers_need_is_looked_at() {
    let mx = mx();
    let setup = consenting(&mx);
    without_store_key(&setup);
    let seen = doctor(&setup, &[]);
    assert_eq!(seen.failure(), at("vault", "secret_absent"));
    assert!(said(&seen, "", "vault").contains("connections.key: vault:connections/key does not exist"));
    let setup = consenting(&mx);
    store_key(&setup, "too-short-a-key", "localhost");
    assert_eq!(doctor(&setup, &[]).failure(), at("vault", "secret_unfit"));
    let setup = consenting(&mx);
    store_key(&setup, STORE_KEY, "api.mx.com");
    assert_eq!(doctor(&setup, &[]).failure(), at("vault", "secret_wrong_host"));
    let setup = consenting(&mx);
    fs::remove_file(setup.folder().join("browser.pem")).unwrap();
    assert_eq!(doctor(&setup, &[]).failure(), at("tls", "tls_files"));
}

#[test]
fn a_providers_secret_that_others_can_read_and_its_certificate_that_they_can_change_are_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let mx = mx();
    for (file, mode, codes) in [
        ("client-secret", 0o600, &["fine"][..]),
        ("client-secret", 0o644, &["file_readable", "fine"]),
        ("browser-key.pem", 0o644, &["file_readable", "fine"]),
        ("browser.pem", 0o644, &["fine"]),
        ("browser.pem", 0o664, &["file_mode", "fine"]),
    ] {
        let setup = consenting(&mx);
        fs::set_permissions(setup.folder().join(file), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(doctor(&setup, &[]).codes("", "files"), codes, "{file} {mode:o}");
    }
}
