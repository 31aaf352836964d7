//! `[openbao]`: the server, and where what a login sends may be.

use super::{assert_accepted, assert_fault, parse, with};
use crate::config::BaoLogin;

const KEY: &str = "\"openbao:secret/mx#api_key\"";

/// A configuration whose key is at a server.
fn server(section: &str) -> String {
    with("\"env:MX_API_KEY\"", KEY) + section
}

fn login(toml: &str) -> String {
    server(&format!("[openbao]\nurl = \"https://bao.example\"\nlogin = {{ {toml} }}\n"))
}

#[test]
fn a_reference_to_a_server_needs_one() {
    assert_fault(&server(""), "api_key: needs a section [openbao]; add one");
    assert_accepted(&login("kind = \"token\", token = \"file:/t\""), &[]);
}

#[test]
fn what_a_login_sends_is_on_this_machine() {
    let vault = "[vault]\nkind = \"file\"\npath = \"/v.age\"\nidentity = \"file:/i\"\n";
    for (from, more) in [("file:/t", ""), ("env:T", ""), ("vault:bao", vault)] {
        assert_accepted(&(login(&format!("kind = \"token\", token = \"{from}\"")) + more), &[]);
    }
    let command = "[exec.t]\ncommand = [\"/bin/t\"]\n";
    for (from, more) in [("openbao:secret/t#t", ""), ("aws:t", ""), ("exec:t", command)] {
        let text = login(&format!("kind = \"token\", token = \"{from}\"")) + more;
        assert_fault(
            &text,
            "openbao.login.token: is at a server or a command, and is needed to log in; \
             expected env:NAME, file:/PATH or vault:NAME",
        );
    }
    assert_fault(
        &login("kind = \"token\", token = \"vault:bao\""),
        "; add a [vault] section, or write env:NAME or file:/PATH",
    );
}

#[test]
fn a_pod_need_not_say_where_its_token_is() {
    let loaded = parse(&login("kind = \"kubernetes\", role = \"mxgate\"")).unwrap();
    let login = loaded.config.openbao.unwrap().login;
    let BaoLogin::Jwt { mount, role, jwt } = &login else { panic!("{login:?}") };
    assert_eq!((mount.as_str(), role.as_str()), ("kubernetes", "mxgate"));
    assert_eq!(jwt.to_string(), "file:/var/run/secrets/kubernetes.io/serviceaccount/token");
    assert_eq!(login.to_string(), "auth/kubernetes");
}

#[test]
fn certificates_are_for_tls() {
    let text = server(
        "[openbao]\nurl = \"http://localhost:8200\"\nca_file = \"/ca.pem\"\n\
         login = { kind = \"token\", token = \"file:/t\" }\n",
    );
    assert_fault(&text, "openbao.ca_file: is for https://, and the url begins with http://");
}

#[test]
fn what_opens_the_vault_is_not_behind_a_login_that_the_vault_holds() {
    let vault = |key: &str, opener: &str| {
        let identity = if key == "passphrase" { "identity = \"file:/i\"\n" } else { "" };
        format!("[vault]\nkind = \"file\"\npath = \"/v.age\"\n{identity}{key} = \"{opener}\"\n")
    };
    let logins = [
        ("token", "kind = \"token\", token = \"FROM\""),
        ("secret_id", "kind = \"approle\", role_id = \"r\", secret_id = \"FROM\""),
        ("jwt", "kind = \"jwt\", role = \"r\", jwt = \"FROM\""),
    ];
    for key in ["identity", "passphrase"] {
        for (sent, text) in logins {
            let at = |from: &str, opener: &str| login(&text.replace("FROM", from)) + &vault(key, opener);
            assert_accepted(&at("file:/t", "openbao:secret/opener#text"), &[]);
            assert_accepted(&at("vault:bao", "file:/opener"), &[]);
            let command = "[exec.opener]\ncommand = [\"/bin/opener\"]\n";
            assert_accepted(&(at("vault:bao", "exec:opener#text") + command), &[]);
            assert_fault(
                &at("vault:bao", "openbao:secret/opener#text"),
                &format!(
                    "vault.{key}: is at a server where openbao.login.{sent} logs in, which is in the vault that it opens; \
                     expected openbao.login.{sent} at env:NAME or file:/PATH, or this one elsewhere"
                ),
            );
        }
    }
}

#[test]
fn what_opens_the_vault_has_a_source() {
    let vault = |identity: &str| {
        let vault = "[vault]\nkind = \"file\"\npath = \"/v.age\"\n";
        with("\"env:MX_API_KEY\"", "\"vault:a\"") + vault + &format!("identity = \"{identity}\"\n")
    };
    assert_fault(&vault("openbao:secret/mx#identity"), "vault.identity: needs a section [openbao]; add one");
    assert_fault(&vault("exec:mx"), "vault.identity: names a command that is not configured");
    let command = "[exec.mx]\ncommand = [\"/bin/mx\"]\n";
    assert_accepted(&(vault("exec:mx") + command), &[]);
}

#[test]
fn another_way_to_what_opens_the_vault_waits_for_a_restart() {
    let config = |command: &str, more: &str| {
        let vault = "[vault]\nkind = \"file\"\npath = \"/v.age\"\nidentity = \"exec:mx\"\n";
        let text = format!("{vault}[exec.mx]\ncommand = [\"{command}\"]\n{more}");
        parse(&(with("\"env:MX_API_KEY\"", "\"vault:a\"") + &text)).unwrap().config
    };
    let running = config("/bin/mx", "");
    let fresher = config("/bin/mx", "refresh_ms = 1000\n[exec.other]\ncommand = [\"/bin/other\"]\n");
    assert!(running.restart_only_changes(&fresher).is_empty());
    let mut other = config("/bin/elsewhere", "");
    assert_eq!(running.restart_only_changes(&other), ["vault"]);
    other.keep_restart_only(&running);
    assert!(running.restart_only_changes(&other).is_empty() && other.exec != running.exec);
}
