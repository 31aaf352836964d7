//! The way out: what is taken, what contradicts, and each beside its yes.

use super::{SMALLEST, assert_accepted, assert_fault, parse, with};
use crate::config::{Environment, Reach};

const PINS: &str = r#""sha256/ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=""#;
const PROXY: &str =
    r#"proxy = { url = "http://proxy.internal:3128", username = "mxgate", password = "env:PROXY" }"#;

fn production(lines: &str) -> String {
    format!("{SMALLEST}{lines}\n")
}

fn environment(lines: &str) -> std::sync::Arc<Environment> {
    let loaded = parse(&production(lines)).unwrap();
    loaded.config.environments["production"].clone()
}

#[test]
fn a_way_out_is_taken_as_written() {
    let egress = environment("").egress.clone();
    assert_eq!(egress, crate::config::Egress::default());
    let lines = format!("bind = \"10.0.0.5\"\n{PROXY}\npins = [{PINS}]");
    assert_accepted(&production(&lines), &[]);
    let production = environment(&lines);
    let (egress, proxy) = (&production.egress, production.egress.proxy.as_ref().unwrap());
    assert_eq!(egress.bind, Some("10.0.0.5".parse().unwrap()));
    assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.internal", 3128));
    assert_eq!(proxy.login.as_ref().unwrap().username, "mxgate");
    assert_eq!(egress.pins.len(), 2);
    assert_eq!(production.references().count(), 2);
    assert_eq!(production.proxy_password().unwrap().to_string(), "env:PROXY");
}

#[test]
fn a_url_with_an_address_or_localhost_says_that_it_is_private() {
    for (lines, reach) in [
        ("", Reach::Public),
        ("private_addresses = \"refused\"", Reach::Public),
        ("private_addresses = \"allowed\"", Reach::Any),
        ("url = \"https://mx.internal\"", Reach::Public),
        ("url = \"https://localhost.example\"", Reach::Public),
        ("url = \"https://127.0.0.1:8443\"", Reach::Any),
        ("url = \"https://LOCALHOST:8443\"", Reach::Loopback),
        ("url = \"https://localhost\"\nprivate_addresses = \"allowed\"", Reach::Any),
    ] {
        assert_eq!(environment(lines).egress.reach, reach, "{lines}");
    }
    for host in ["10.0.0.1", "localhost"] {
        assert_fault(
            &production(&format!("url = \"https://{host}\"\nprivate_addresses = \"refused\"")),
            ": environment.production.private_addresses: contradicts url, which names an address or localhost; \
             leave it out, or name a host in url",
        );
    }
}

#[test]
fn a_source_address_fits_what_is_dialled() {
    for lines in [
        "bind = \"10.0.0.5\"\nip_family = \"ipv4\"",
        "bind = \"fd00::5\"\nip_family = \"ipv6\"",
        "bind = \"127.0.0.2\"\nurl = \"https://127.0.0.1\"",
        // The proxy's address is dialled, and the proxy dials the other.
        "bind = \"fd00::5\"\nurl = \"https://127.0.0.1\"\nproxy = { url = \"http://proxy.internal:1\" }",
    ] {
        assert_accepted(&production(lines), &[]);
    }
    let contradicts = ": environment.production.bind: is of another family than ip_family; \
                       leave ip_family out, or make it that of bind";
    assert_fault(&production("bind = \"10.0.0.5\"\nip_family = \"ipv6\""), contradicts);
    assert_fault(&production("bind = \"fd00::5\"\nip_family = \"ipv4\""), contradicts);
    let other =
        ": environment.production.bind: is of another family than the address that would be dialled from it";
    assert_fault(&production("bind = \"fd00::5\"\nurl = \"https://127.0.0.1\""), other);
    assert_fault(&production("bind = \"fd00::5\"\nproxy = { url = \"http://127.0.0.1:1\" }"), other);
    assert_fault(
        &production("bind = \"0.0.0.0\""),
        ": environment.production.bind: is no address that a machine can have; \
         expected an address of this machine, such as \"10.0.0.5\" or \"fd00::5\"",
    );
}

#[test]
fn a_proxys_user_and_password_go_together_and_are_no_key_of_mx() {
    assert_accepted(&production("proxy = { url = \"http://proxy.internal:3128\" }"), &[]);
    let key = ": environment.production.proxy";
    for (lines, expected) in [
        ("username = \"u\"", ".username: goes with password, which is missing"),
        ("password = \"env:P\"", ".password: goes with username, which is missing"),
        (
            "username = \"u:v\", password = \"env:P\"",
            ".username: holds a colon; Basic authentication would split the pair there",
        ),
        (
            "username = \"u\", password = \"pw\"",
            ".password: is not a reference; write vault:NAME, env:NAME or file:/PATH, or openbao:, aws: or exec:, \
             never the secret itself",
        ),
        (
            "username = \"u\", password = \"env:MX_API_KEY\"",
            ".password: is the secret that environment.production.credential.api_key uses; \
             what a proxy is told is no secret of MX's; store one for each",
        ),
    ] {
        let proxy = format!("proxy = {{ url = \"http://proxy.internal:3128\", {lines} }}");
        assert_fault(&production(&proxy), &format!("{key}{expected}"));
    }
    assert_fault(
        &production("proxy = { username = \"u\", password = \"env:P\" }"),
        "\"http://HOST:PORT\"; the proxy is asked in clear text, and what it carries is TLS",
    );
    // Two environments may go out through one proxy.
    let sandbox = "[environment.sandbox]\ncredential = { kind = \"bearer\", token = \"env:OTHER\" }\n";
    let both =
        with("[environment.production]", &format!("{sandbox}{PROXY}\n[environment.production]\n{PROXY}"));
    let both = both.replace(
        "[[listener]]",
        "[[listener]]\naddress = \"127.0.0.1:1\"\nenvironment = \"sandbox\"\n[[listener]]",
    );
    assert_accepted(&both, &[]);
    assert_accepted(
        &production(&format!("private_addresses = \"allowed\"\n{PROXY}")),
        &["warning: environment.production.private_addresses: has no effect beside proxy: \
           the proxy looks the host up and connects"],
    );
}

#[test]
fn a_proxy_that_is_told_a_password_is_no_host_that_keys_are_sealed_for() {
    let other = "[environment.other]\nurl = \"https://mx.internal\"\n\
                 credential = { kind = \"bearer\", token = \"env:OTHER\" }\n\
                 [[listener]]\naddress = \"127.0.0.1:1\"\nenvironment = \"other\"\n";
    let through = |host: &str, login: &str| {
        let url = if host == "127.0.0.1" { "url = \"https://127.0.0.1\"\n" } else { "" };
        production(&format!("{url}proxy = {{ url = \"http://{host}:80\"{login} }}\n{other}"))
    };
    let login = ", username = \"u\", password = \"env:P\"";
    for host in ["api.mx.com", "int-api.mx.com", "mx.internal"] {
        assert_fault(
            &through(host, login),
            ": environment.production.proxy.url: is a host that keys are sealed for, and would be told a password in \
             clear text; expected another host, or no username and password",
        );
        assert_accepted(&through(host, ""), &[]);
    }
    for host in ["proxy.internal", "127.0.0.1"] {
        assert_accepted(&through(host, login), &[]);
    }
}

#[test]
fn the_hosts_beside_a_proxys_password_name_the_proxy() {
    let with = |hosts: &str| {
        let password = format!("{{ from = \"env:P\", hosts = [\"{hosts}\"] }}");
        let login = format!("username = \"u\", password = {password}");
        production(&format!("proxy = {{ url = \"http://proxy.internal:3128\", {login} }}"))
    };
    assert_accepted(&with("proxy.internal"), &[]);
    assert_fault(
        &with("api.mx.com"),
        ": environment.production.proxy.password.hosts: may not be sent to the proxy of its environment; \
         expected that host among them",
    );
}

#[test]
fn pins_are_two_at_least_since_one_may_be_lost() {
    assert_accepted(&production(&format!("pins = [{PINS}]")), &[]);
    let one = PINS.split(", ").next().unwrap();
    let few = ": environment.production.pins: holds fewer than two different pins; \
               add one of a key that is kept as a backup";
    for pins in [String::new(), one.to_owned(), format!("{one}, {one}")] {
        assert_fault(&production(&format!("pins = [{pins}]")), few);
    }
    assert_fault(
        &production(&format!("pins = [{PINS}, \"sha256/AAAA\"]")),
        ": environment.production.pins[2]: is no pin; \
         expected \"sha256/\" and the 44 characters of the digest in Base64",
    );
}
