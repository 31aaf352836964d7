//! `users`, `users_file` and `[caller.end_user]`: each fault beside its yes.

use super::{SMALLEST, assert_accepted, assert_fault, with};

const GRANT: &str = "grant = { production = [\"read\"] }\n";

/// `SMALLEST` with these keys behind its caller's grant.
fn caller(toml: &str) -> String {
    with(GRANT, &format!("{GRANT}{toml}\n"))
}

fn end_user(toml: &str) -> String {
    caller(&format!(
        "[caller.end_user]\nissuer = \"https://id.example\"\naudience = \"mxgate\"\njwks = \"file:/jwks\"\n{toml}"
    ))
}

#[test]
fn users_are_literals_and_beginnings() {
    assert_accepted(&caller("users = [\"USR-1\", \"USR-*\"]\nusers_file = \"/users\""), &[]);
    assert_fault(
        &caller("users = [\"USR-*-1\"]"),
        "caller[0].users[0]: is neither a user such as \"USR-123\" nor the beginning of some such as \"USR-*\"",
    );
    assert_fault(
        &caller("users = []"),
        "caller[0].users: is empty: it lets the caller reach nobody; leave it out, or list some",
    );
    assert_fault(
        &caller("users_file = \"users\""),
        "caller[0].users_file: is not an absolute path; it starts with /",
    );
}

#[test]
fn an_end_users_token_needs_an_issuer_an_audience_and_keys() {
    assert_accepted(&end_user("algorithms = [\"ES256\"]\nleeway_s = 0\nuser_map_file = \"/map\""), &[]);
    for key in ["issuer", "audience", "jwks"] {
        let text = end_user("");
        let line = text.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        let left_out = text.replace(line, "");
        assert!(
            super::lines(&super::parse(&left_out))
                .iter()
                .any(|one| one.contains(&format!("end_user.{key}: is required")))
        );
    }
    assert_fault(&end_user("claim = \"\""), "caller[0].end_user.claim: is empty");
    assert_fault(
        &end_user("algorithms = [\"HS256\"]"),
        "caller[0].end_user.algorithms[0]: is no asymmetric algorithm that is verified here; one of \"RS256\", \
         \"RS384\", \"RS512\", \"PS256\", \"PS384\", \"PS512\", \"ES256\", \"ES384\", \"EdDSA\"",
    );
    assert_fault(
        &end_user("algorithms = []"),
        "caller[0].end_user.algorithms: is empty: no token would be right; leave it out",
    );
    assert_fault(
        &end_user("header = \"authorization\""),
        "caller[0].end_user.header: means something else already; \
         a field that carries the token and nothing else, such as \"x-mxgate-end-user\"",
    );
    assert_fault(
        &end_user("ca_file = \"/ca\""),
        "caller[0].end_user.ca_file: is for jwks at https://, and these are in a file",
    );
    assert_fault(
        &end_user("").replace("file:/jwks", "http://id.example/jwks"),
        "caller[0].end_user.jwks: is neither a file nor an https address; expected \"file:/PATH\" or \"https://HOST/PATH\"",
    );
}

#[test]
fn what_is_of_no_use_to_a_caller_that_is_bound_is_warned_of() {
    let grant =
        |items: &str, more: &str| with(GRANT, &format!("grant = {{ production = [{items}] }}\n{more}\n"));
    let useless = "warning: caller[0].grant.production[1]: allows nothing: the caller is bound to users, and none of \
         these has {user_guid} in its path; name what is meant one by one";
    assert_accepted(&grant("\"read\", \"tag:institutions\"", "users = [\"*\"]"), &[useless]);
    assert_accepted(&grant("\"read\", \"tag:institutions\"", "users_file = \"/users\""), &[useless]);
    let nothing_new = "warning: caller[0].grant.production[1]: adds nothing to \"read\"";
    assert_accepted(&grant("\"read\", \"tag:institutions\"", ""), &[nothing_new]);
    assert_accepted(&grant("\"read\", \"listInstitutions\", \"-tag:merchants\"", "users = [\"*\"]"), &[]);
    let other_name =
        "warning: caller[0].grant.production[0]: is bound to no user: call the user's segment {user_guid}";
    assert_accepted(&grant("\"path:GET /users/{id}/new\"", "users = [\"*\"]"), &[other_name]);
    assert_accepted(&grant("\"path:GET /users/{user_guid}/new\"", "users = [\"*\"]"), &[]);
    assert_accepted(SMALLEST, &[]);
}
