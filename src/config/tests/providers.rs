//! `[provider.NAME]`.

use super::{SMALLEST, assert_accepted, assert_fault, parse};
use crate::config::{Provider, ProviderPlace};

const CLIENT: &str = "client_id = \"C\"\nclient_secret = \"env:CLIENT_SECRET\"\n";
const WRITTEN: &str = "token_endpoint = \"https://id.example/token\"\n";

/// A configuration with one provider, whose client is known.
fn provider(toml: &str) -> String {
    format!("{SMALLEST}[provider.bank]\n{CLIENT}{toml}\n")
}

fn parsed(toml: &str) -> Provider {
    let config = parse(&provider(toml)).unwrap().config;
    Provider::clone(&config.providers["bank"])
}

#[test]
fn a_provider_is_in_a_document_or_written_and_not_both() {
    assert_accepted(&provider(WRITTEN), &[]);
    assert_accepted(&provider("discovery = \"https://id.example/.well-known/openid-configuration\""), &[]);
    assert_fault(
        &provider(""),
        "token_endpoint: is required without discovery; expected \"https://HOST/PATH\", with http:// only for localhost \
         and loopback addresses",
    );
    let both = format!("discovery = \"https://id.example/.well-known/openid-configuration\"\n{WRITTEN}");
    assert_fault(&provider(&both), "token_endpoint: is said by the document of discovery; write one of both");
    let hosts = format!("{WRITTEN}hosts = [\"b.example\"]");
    assert_fault(&provider(&hosts), "hosts: is for discovery, and there is none");
}

#[test]
fn a_document_must_call_itself_what_its_place_says() {
    for (url, expected) in [
        ("https://id.example/.well-known/openid-configuration", "https://id.example"),
        ("https://id.example:8443/a/.well-known/openid-configuration", "https://id.example:8443/a"),
        ("https://id.example/.well-known/oauth-authorization-server/a", "https://id.example/a"),
        ("http://localhost:1/.well-known/oauth-authorization-server", "http://localhost:1"),
    ] {
        let place = parsed(&format!("discovery = \"{url}\"")).place;
        let ProviderPlace::Discovered { issuer, .. } = place else { panic!("{place:?}") };
        assert_eq!(issuer, expected, "{url}");
    }
    let elsewhere = "discovery = \"https://id.example/metadata\"";
    assert_fault(
        &provider(elsewhere),
        "issuer: is needed: the URL of discovery does not end in a well-known path; what the document calls itself",
    );
    assert_accepted(&provider(&format!("{elsewhere}\nissuer = \"https://id.example/\"")), &[]);
}

#[test]
fn nothing_is_sent_in_clear_text_to_another_machine() {
    for key in
        ["token_endpoint", "authorization_endpoint", "revocation_endpoint", "discovery", "redirect_uri"]
    {
        let text = provider(&format!("{key} = \"http://id.example/a\""));
        assert_fault(
            &text,
            &format!(
                "provider.bank.{key}: would send secrets without TLS to another machine; expected \
                 \"https://HOST/PATH\", with http:// only for localhost and loopback addresses"
            ),
        );
    }
    assert_accepted(&provider("token_endpoint = \"http://127.0.0.1:1/token\""), &[]);
}

#[test]
fn the_protocols_own_parameters_cannot_be_set() {
    for name in ["grant_type", "code_verifier", "client_secret", "scope", "state", "code_challenge_method"] {
        for list in ["token_parameters", "authorization_parameters"] {
            let text = provider(&format!("{WRITTEN}{list} = {{ {name} = \"x\" }}"));
            assert_fault(
                &text,
                &format!(
                    "{list}.{name}: is a parameter of the protocol; it has a key of its own, or is set by the \
                     gateway alone"
                ),
            );
        }
    }
    let accepted = parsed(&format!("{WRITTEN}token_parameters = {{ tenant = \"x y\" }}"));
    assert_eq!(accepted.token_parameters["tenant"], "x y");
    let empty = provider(&format!("{WRITTEN}token_parameters = {{ tenant = \"\" }}"));
    assert_fault(&empty, "token_parameters.tenant: is empty, or holds a byte that is not printable ASCII");
}

#[test]
fn a_secret_goes_to_the_token_endpoint_or_nowhere() {
    let of = |host: &str| {
        let secret = format!("{{ from = \"env:CLIENT_SECRET\", hosts = [\"{host}\"] }}");
        provider(WRITTEN).replacen("\"env:CLIENT_SECRET\"", &secret, 1)
    };
    assert_accepted(&of("id.example"), &[]);
    assert_fault(
        &of("other.example"),
        "provider.bank.client_secret.hosts: may not be sent to the provider; expected the token endpoint's host among them",
    );
    let elsewhere = provider(WRITTEN).replacen("env:CLIENT_SECRET", "exec:a", 1);
    assert_fault(
        &elsewhere,
        "provider.bank.client_secret: is at a server or a command, and this secret cannot be yet; expected \
         env:NAME, file:/PATH or vault:NAME",
    );
}

#[test]
fn what_is_mistyped_is_told_its_nearest_name() {
    assert_fault(
        &provider("token_endpont = \"https://id.example/token\""),
        "provider.bank.token_endpont: unknown key; did you mean \"token_endpoint\"?",
    );
    assert_fault(
        &provider(&format!("{WRITTEN}client_authentication = \"client_secret_past\"")),
        "client_authentication: unknown value; one of \"client_secret_basic\", \"client_secret_post\"; did you mean \
         \"client_secret_post\"?",
    );
    let consent = format!("{WRITTEN}authorization_endpoint = \"https://id.example/auth\"");
    assert_fault(
        &provider(&consent),
        "redirect_uri: is needed where users consent; write it as it is registered at the provider",
    );
    for scope in ["", "a b", "a\\\\b"] {
        let text = provider(&format!("{WRITTEN}scopes = [\"{scope}\"]"));
        assert_fault(&text, "scopes[0]: is no scope; one word of printable ASCII, without \" and \\");
    }
}

/// A reader copies it.
#[test]
fn the_provider_in_the_documentation_is_accepted() {
    let document = include_str!("../../../docs/oauth.md");
    let mut examples = document.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let whole = examples.next().unwrap();
    let provider = examples.find(|one| one.starts_with("[provider.bank]")).unwrap();
    let vault = "[vault]\nkind = \"file\"\npath = \"/v.age\"\nidentity = \"file:/i\"\n";
    assert_accepted(whole, &[]);
    assert_accepted(&format!("{SMALLEST}{vault}{provider}"), &[]);
}
