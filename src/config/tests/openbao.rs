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
