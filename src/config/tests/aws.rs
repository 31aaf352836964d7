//! `[aws]`: its section, its references, and a build that has neither.

use super::{assert_fault, with};

const SECTION: &str = "[aws]\nregion = \"eu-central-1\"\n";

fn key(reference: &str) -> String {
    with("\"env:MX_API_KEY\"", &format!("\"{reference}\""))
}

#[cfg(feature = "aws")]
mod built {
    use super::{super::assert_accepted, *};

    #[test]
    fn a_reference_needs_the_section_and_the_section_a_region() {
        assert_fault(&key("aws:mx#api_key"), "api_key: needs a section [aws]; add one");
        assert_accepted(&(key("aws:mx#api_key") + SECTION), &[]);
        assert_fault(
            &(key("aws:mx") + "[aws]\nregion = \"somewhere else\"\n"),
            "aws.region: is no region; expected one such as \"eu-central-1\"",
        );
    }

    #[test]
    fn what_opens_the_vault_may_be_there() {
        let vault = "[vault]\nkind = \"file\"\npath = \"/v.age\"\nidentity = \"aws:mx/identity\"\n";
        assert_accepted(&(key("vault:a") + SECTION + vault), &[]);
        assert_fault(&(key("vault:a") + vault), "vault.identity: needs a section [aws]; add one");
    }

    #[test]
    fn an_arn_is_of_the_configured_region() {
        let arn =
            |region: &str| format!("aws:arn:aws:secretsmanager:{region}:123456789012:secret:mx-AbCdEf#key");
        assert_accepted(&(key(&arn("eu-central-1")) + SECTION), &[]);
        assert_fault(
            &(key(&arn("eu-west-1")) + SECTION),
            "api_key: is in another region than aws.region; name a secret of that region, such as a replica",
        );
    }

    #[test]
    fn an_endpoint_is_asked_over_tls_or_on_this_machine() {
        let with_endpoint = |url: &str| key("aws:mx") + SECTION + &format!("endpoint = \"{url}\"\n");
        assert_accepted(&with_endpoint("https://vpce-1.secretsmanager.eu-central-1.vpce.amazonaws.com"), &[]);
        assert_accepted(&with_endpoint("http://127.0.0.1:5000"), &[]);
        assert_fault(
            &with_endpoint("http://10.0.0.1:5000"),
            "aws.endpoint: would send secrets without TLS to another machine; expected \"https://HOST\" or \
             \"https://HOST:PORT\", with http:// only for localhost and loopback addresses",
        );
    }

    /// A reader copies it.
    #[test]
    fn the_documented_example_is_accepted() {
        let text = include_str!("../../../docs/vault.md");
        let (_, section) = text.split_once("\n## AWS Secrets Manager\n").unwrap();
        let (_, example) = section.split_once("```toml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let (before, _) = super::super::SMALLEST.split_once("[environment.production]").unwrap();
        assert_accepted(&format!("{before}{example}"), &[]);
    }

    #[test]
    fn two_versions_are_two_secrets() {
        let two = "{ kind = \"basic\", client_id = \"ID\", api_key = \"aws:mx#k\", \
                   secondary_api_key = \"aws:mx?stage=AWSPREVIOUS#k\" }";
        let one = "{ kind = \"basic\", client_id = \"CLIENT-ID\", api_key = \"env:MX_API_KEY\" }";
        assert_accepted(&(with(one, two) + SECTION), &[]);
    }
}

#[cfg(not(feature = "aws"))]
#[test]
fn a_build_without_it_says_which_build_has_it() {
    const WHICH: &str = "needs AWS Secrets Manager, and this mxgate was built without it; \
                         use one that was built with: cargo build --release --features aws";
    assert_fault(&key("aws:mx#api_key"), &format!("api_key: {WHICH}"));
    assert_fault(&(super::SMALLEST.to_owned() + SECTION), &format!("aws: {WHICH}"));
}
