//! Handles beside what else an environment and a caller may have.

use super::*;

#[test]
fn two_keys_and_handles_go_together() {
    let (mx, kept) = (mx(), Kept::new());
    let setup = Setup::new(&mx).credential(&format!(
        "kind = \"basic\", client_id = \"{CLIENT_ID}\", api_key = \"file:DIR/dead\", secondary_api_key = \"file:DIR/key\""
    ));
    setup.file("dead", "a-key-that-died-meanwhile");
    let gateway = kept.smallest(setup, "").start();
    assert_eq!(
        sent(&gateway, TEST, LEDGER, "GET /users HTTP/1.1").status,
        200,
        "sent again with the other key"
    );
    assert!(Path::new(&kept.store()).exists());
    until("the living key is preferred", || exchange(&gateway, TEST, LEDGER, "a-code").status == 200);
}

#[test]
fn a_handle_is_for_the_end_user_whose_code_brought_it() {
    let (mx, kept, signer) = (mx(), Kept::new(), Signer::ec("e"));
    let setup = Setup::new(&mx);
    let jwks = setup.file("jwks", &jwks(&[&signer]));
    let end_user = format!(
        "[caller.end_user]\nissuer = \"{ISSUER}\"\naudience = \"{AUDIENCE}\"\njwks = \"file:{}\"\n",
        jwks.display()
    );
    let mut setup = kept.smallest(setup, &end_user);
    // Operations without a user in the path have to be named.
    let named = "\"exchangeProcessorCode\", \"listTokens\", \"readAccountBalance\", \"read\"";
    let callers = setup.callers.take().unwrap();
    setup.callers = Some(callers.replacen(EVERYTHING, named, 1));
    let gateway = setup.start();
    let of = |user: &str, head: &str| {
        let token = signer.token(&claims(user));
        sent(&gateway, TEST, LEDGER, &format!("{head}\nx-mxgate-end-user: {token}"))
    };
    let code = "POST /token?grant_type=authorization_code&code=a-code HTTP/1.1";
    let answer = of("USR-1", code);
    let handle = answer.json()["access_token"].as_str().unwrap().to_owned();
    let used = format!("{} HTTP/1.1\nauthorization: Bearer {handle}", BEARER[3]);
    assert_eq!(of("USR-1", &used).status, 200);
    assert_eq!(outcome(&of("USR-2", &used)), no(403, "connection_denied"));
    let listed = of("USR-2", "GET /tokens HTTP/1.1").json()["tokens"][0]["access_token"].clone();
    assert!(is_handle(&listed) && listed != json!(handle), "{listed}");
    assert_eq!(of("USR-1", "GET /tokens HTTP/1.1").json()["tokens"][0]["access_token"], json!(handle));
}
