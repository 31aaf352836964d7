//! How callers are known, and that no two are taken for each other.

use super::{SMALLEST, assert_accepted, assert_fault, lines, parse, with};

const TLS: &str = "tls = { certificate = \"/c\", key = \"/k\", client_ca = \"/ca\" }";

/// `SMALLEST` with another caller's criteria, with a file of tokens and with client certificates.
fn beside_ledger(criteria: &str) -> String {
    let other = format!("[[caller]]\nname = \"other\"\n{criteria}\ngrant = {{ production = [\"read\"] }}\n");
    let listener = format!("address = \"127.0.0.1:8080\"\n{TLS}");
    with("address = \"127.0.0.1:8080\"", &listener)
        .replace("127.0.0.0/8\"]\ngrant", "10.0.0.0/8\"]\ngrant")
        .replace("[[listener]]", &format!("{other}[[listener]]"))
        + "[tokens]\nfile = \"/t\"\n"
}

#[test]
fn two_callers_that_could_be_taken_for_each_other_are_a_fault_that_names_both() {
    let fault = ": caller[1].name: leaves caller other and caller ledger open: one request could be from either; \
                 give both one kind of criterion, with nothing in common";
    for criteria in ["networks = [\"10.1.0.0/16\"]", "networks = [\"11.0.0.0/8\", \"10.0.0.0/7\"]"] {
        assert_fault(&beside_ledger(criteria), fault);
    }
    for criteria in [
        "networks = [\"11.0.0.0/8\"]",
        "unix_uids = [1]",
        "token = true",
        "token = true\nnetworks = [\"10.0.0.0/8\"]",
        "tls_names = [\"dns:other\"]",
    ] {
        assert_accepted(&beside_ledger(criteria), &[]);
    }
    let two = |one: &str, other: &str| {
        beside_ledger(one).replace("networks = [\"10.0.0.0/8\"]\ngrant", &format!("{other}\ngrant"))
    };
    assert_fault(&two("token = true", "tls_names = [\"dns:ledger\"]"), fault);
    assert_accepted(&two("token = true", "tls_names = [\"dns:ledger\"]\ntoken = true"), &[]);
}

#[test]
fn a_criterion_that_can_never_hold_is_said() {
    let text = beside_ledger("token = true");
    assert_fault(
        &text.replace("[tokens]\nfile = \"/t\"\n", ""),
        ": caller[1].token: needs a [tokens] section; it names their file",
    );
    let text = beside_ledger("tls_names = [\"dns:other\"]");
    assert_accepted(
        &text.replace(", client_ca = \"/ca\"", ""),
        &["warning: caller[1].tls_names: never holds: no listener has tls.client_ca"],
    );
    let never = "never holds on a Unix socket, which unix_uids and unix_gids ask for";
    assert_fault(
        &beside_ledger("unix_uids = [1]\ntls_names = [\"dns:a\"]"),
        &format!(": caller[1].tls_names: {never}"),
    );
    assert_fault(&beside_ledger("tls_names = []"), "leave it out, or list some");
    assert_fault(
        &beside_ledger("token = true").replace("\"other\"", "\"list\""),
        "is the word `list` of `mxgate caller token`",
    );
}

#[test]
fn a_caller_known_by_loopback_alone_is_warned_of_unless_it_is_the_only_one() {
    assert_accepted(SMALLEST, &[]);
    let warning = "warning: caller[1].networks: are of this machine only, and nothing else tells this caller from \
                   others there; the containers of a pod share them: give it a token, or a Unix socket and unix_uids";
    for network in ["127.0.0.0/8", "127.0.0.5/32", "::1/128"] {
        assert_accepted(&beside_ledger(&format!("networks = [\"{network}\"]")), &[warning]);
        assert_accepted(&beside_ledger(&format!("networks = [\"{network}\"]\ntoken = true")), &[]);
    }
    assert_accepted(&beside_ledger("networks = [\"127.0.0.0/8\", \"11.0.0.0/8\"]"), &[]);
}

#[test]
fn a_token_and_a_bearer_token_that_passes_through_cannot_share_a_field() {
    let text = beside_ledger("token = true");
    let warning = "warning: caller[1].token: has to come in the header of [tokens] at production, where Authorization \
                   may be passed through";
    let passing = text.replace("[tokens]", "bearer_operations = \"pass-through\"\n[tokens]");
    assert_accepted(&passing, &[warning]);
    assert_accepted(&text, &[]);
    let handles = text.replace(
        "[tokens]",
        "token_handles = true\n[connections]\nkey = \"env:K\"\nfile = \"/store\"\n[tokens]",
    );
    assert_accepted(&handles, &[&warning.replace("be passed through", "hold a handle")]);
}

#[test]
fn client_certificates_need_tls_and_authorities() {
    let listener =
        |keys: &str| with("environment = \"production\"", &format!("environment = \"production\"\n{keys}"));
    let tls = "tls = { certificate = \"/c\", key = \"/k\", client_certificate = \"optional\" }";
    assert_fault(
        &listener(tls),
        ": listener[0].tls.client_certificate: needs client_ca; the authorities to verify it with",
    );
    assert_accepted(&listener(&tls.replace(" }", ", client_ca = \"/a\" }")), &[]);
    let unix = listener("tls = { certificate = \"/c\", key = \"/k\" }").replace("127.0.0.1:8080", "unix:/s");
    assert_fault(
        &unix,
        ": listener[0].tls: is not spoken on a Unix socket; leave it out: the kernel tells who is at the other end",
    );
}

#[test]
fn a_token_has_a_field_of_its_own() {
    let header = |name: &str| format!("{SMALLEST}[tokens]\nfile = \"/t\"\nheader = \"{name}\"\n");
    for name in ["x-mxgate-token", "X-App-Auth"] {
        assert_accepted(&header(name), &[]);
    }
    for name in ["authorization", "Host", "mx-api-key", "content-length", "a b", ""] {
        assert!(parse(&header(name)).is_err(), "{name}");
    }
}

/// As many callers as a company may have, in one file.
#[test]
fn ten_thousand_callers_are_read_and_compared_at_once() {
    let begin = std::time::Instant::now();
    let mut callers = String::new();
    for n in 0..10_000 {
        let network = format!("10.{}.{}.0/24", n >> 8, n & 255);
        callers += &format!(
            "[[caller]]\nname = \"c{n}\"\nnetworks = [\"{network}\"]\ngrant = {{ production = [\"read\"] }}\n"
        );
    }
    let many = SMALLEST.replace("[[listener]]", &format!("{callers}[[listener]]"));
    assert_eq!(lines(&parse(&many)).len(), 1, "ledger is known by loopback alone");
    let (first, last) = ("10.0.0.0/24", "10.39.15.0/24");
    assert_fault(&many.replace(last, first), "give both one kind of criterion, with nothing in common");
    assert!(begin.elapsed() < std::time::Duration::from_secs(30), "{:?}", begin.elapsed());
}
