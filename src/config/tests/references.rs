//! Where secrets are, and where they may go.

use super::{SMALLEST, assert_accepted, assert_fault, with};

const KEY: &str = "\"env:MX_API_KEY\"";

#[test]
fn a_reference_may_carry_its_hosts_which_hold_its_environments_own() {
    for hosts in ["[\"api.mx.com\"]", "[\"API.mx.com\", \"other.example\"]"] {
        assert_accepted(&with(KEY, &format!("{{ from = \"file:/key\", hosts = {hosts} }}")), &[]);
    }
    assert_accepted(&with(KEY, "{ from = \"file:/key#api_key\" }"), &[]);
    let faulty = |toml: &str, expected: &str| {
        let key = "environment.production.credential.api_key";
        assert_fault(&with(KEY, toml), &format!("{key}{expected}"));
    };
    faulty(
        "{ from = \"file:/key\", hosts = [\"int-api.mx.com\"] }",
        ".hosts: may not be sent to the host of its environment; expected that host among them",
    );
    faulty(
        "{ from = \"file:/key\", hosts = [] }",
        ".hosts: holds no host; leave it out for the environment's own",
    );
    faulty(
        "{ from = \"file:/key\", hosts = [\"https://api.mx.com\"] }",
        ".hosts[0]: a host is a name or an address in plain ASCII, without scheme, port, path or final dot",
    );
    faulty("{ hosts = [\"api.mx.com\"] }", ".from: is required; The reference");
    faulty(
        "{ from = \"file:/key\", host = [\"api.mx.com\"] }",
        ".host: unknown key; did you mean \"hosts\"?",
    );
}

#[test]
fn a_secret_belongs_to_one_environment_whatever_stands_beside_it() {
    let other = |reference: &str| {
        let sandbox = format!(
            "[environment.sandbox]\ncredential = {{ kind = \"bearer\", token = {reference} }}\n\
             [[listener]]\naddress = \"127.0.0.1:8081\"\nenvironment = \"sandbox\"\n"
        );
        format!("{}{sandbox}", with(KEY, "{ from = \"file:/key#a\", hosts = [\"api.mx.com\"] }"))
    };
    assert_accepted(&other("\"file:/key#b\""), &[]);
    assert_fault(
        &other("{ from = \"file:/key#a\", hosts = [\"int-api.mx.com\"] }"),
        "is the secret that environment.production.credential.api_key uses; a secret belongs to one environment; \
         store one for each",
    );
}

#[test]
fn a_command_is_an_absolute_path_that_is_configured() {
    let exec = |table: &str| format!("{}{table}", with(KEY, "\"exec:mx-key#api_key\""));
    assert_accepted(
        &exec("[exec.mx-key]\ncommand = [\"/bin/key\", \"--now\"]\nvariables = [\"HOME\"]\n"),
        &[],
    );
    let key = "environment.production.credential.api_key";
    assert_fault(&exec(""), &format!("{key}: names a command that is not configured"));
    assert_fault(
        &exec("[exec.mx-keys]\ncommand = [\"/bin/key\"]\n"),
        &format!("{key}: names a command that is not configured; did you mean \"mx-keys\"?"),
    );
    for (table, expected) in [
        ("command = [\"key\"]", "exec.mx-key.command[0]: is not an absolute path; it starts with /"),
        ("command = []", "exec.mx-key.command: is empty; expected an absolute path and its arguments"),
        (
            "",
            "exec.mx-key.command: is required; An absolute path and its arguments; no shell, and no secret among the arguments",
        ),
        (
            "command = [\"/bin/key\"]\nvariables = [\"HOME=/root\"]",
            "exec.mx-key.variables[0]: is no name of a variable; letters, digits and _, without a value",
        ),
    ] {
        assert_fault(&exec(&format!("[exec.mx-key]\n{table}\n")), expected);
    }
}

#[test]
fn a_source_that_is_not_there_is_named() {
    let key = "environment.production.credential.api_key";
    assert_fault(
        &with(KEY, "\"vault:a\""),
        &format!("{key}: needs a vault; add a [vault] section, or write env:NAME or file:/PATH"),
    );
    assert_fault(
        &with(KEY, "\"openbao:secret/mx\""),
        "has no usable name after its scheme; write openbao:MOUNT/PATH#FIELD",
    );
    assert_fault(
        &with(KEY, "\"file:/key#\""),
        "has no usable name of a field after its #; write letters, digits, _, - or .",
    );
}

#[test]
fn a_grace_that_ends_before_the_next_look_is_probably_not_meant() {
    let file = |keys: &str| format!("{SMALLEST}[file]\n{keys}\n");
    assert_accepted(&file("refresh_ms = 1000\ngrace_ms = 1001"), &[]);
    assert_accepted(&file("refresh_ms = 1000\ngrace_ms = 1000\nafter_grace = \"keep\""), &[]);
    assert_accepted(
        &file("refresh_ms = 1000\ngrace_ms = 1000"),
        &[
            "warning: file.grace_ms: is not longer than refresh_ms: its secrets end before they are read again",
        ],
    );
}
