//! Nothing of a consent leaks: a user connects, tokens are refreshed, a grant ends, a connection is ended; then every byte that
//! came out of the gateway is searched for every token, code and secret that the bank knows of.

use std::{collections::BTreeSet, fs};

use serde_json::json;

use super::{
    LEDGER, asked,
    bank::{Bank, CLIENT_SECRET},
    connecting::{Browser, parameter, prepared, ticket},
    get, import, no, outcome,
};
use crate::{
    canary::search::{Canary, Search},
    harness::{Gateway, until},
};

/// Where something came out, and what.
type Evidence = Vec<(&'static str, Vec<u8>)>;

/// All that the bank gave or was sent, which is nobody's but the gateway's.
fn canaries(bank: &Bank) -> Vec<Canary> {
    let mut all = vec![
        Canary::new("the client's secret", CLIENT_SECRET),
        Canary::new("the store's key", "0123456789abcdef0123456789abcdef"),
    ];
    for name in ["jti", "used", "next", "access", "sent", "code", "verifier"] {
        let told: BTreeSet<String> =
            bank.lines().iter().filter_map(|line| line[name].as_str().map(str::to_owned)).collect();
        assert!(!told.is_empty(), "the bank tells of {name}");
        all.extend(told.into_iter().map(|value| Canary::new(name, value)));
    }
    all
}

/// A user consents, in a browser. The connection's id.
fn connected(gateway: &Gateway, base: &str, evidence: &mut Evidence) -> String {
    let order =
        json!({ "return_url": format!("{base}/after"), "user_guid": "USR-1", "state": "of-the-session" });
    let ticket_url = ticket(gateway, order);
    let browser = Browser::new(gateway.setup.folder(), "jar");
    let (_, _, page) = browser.open(&ticket_url, &["--include"]);
    evidence.push(("the ticket's page", page.into()));
    let onward = browser.press(&ticket_url).expect("the way to the bank");
    evidence.push(("the way to the bank", onward.clone().into()));
    let (_, end) = browser.consent(&onward, "alice");
    evidence.push(("where the browser ends", end.clone().into()));
    // What is asked again, and what nobody ordered.
    let (status, _, page) = browser.open(&format!("{base}/callback?code=odd&state=odd"), &["--include"]);
    assert_eq!(status, 404, "{page}");
    evidence.push(("the page of refusal", page.into()));
    parameter(&end, "connection").expect("an id").to_owned()
}

#[test]
fn no_token_code_or_secret_of_a_consent_comes_out_anywhere() {
    let (bank, mut setup, base) = prepared(2);
    setup.tables = setup.tables.replace("filter = \"info\"", "filter = \"trace\"");
    let mut gateway = setup.start();
    let mut evidence = Evidence::new();

    let id = connected(&gateway, &base, &mut evidence);
    let given = bank.count("token", "given");
    until("its token was refreshed twice", || {
        let answer = get(&gateway, LEDGER, "/api/users/USR-1/accounts", &id);
        assert_eq!(answer.status, 200, "{}", answer.text());
        evidence.push(("an answer of the API", answer.text().into()));
        bank.count("token", "given") >= given + 2
    });
    // A grant that somebody else has used up.
    let token = bank.mint("bob");
    assert_eq!((bank.use_up(&token), bank.use_up(&token)), ("200".into(), "400".into()));
    let gone = import(&gateway, &token, &[]);
    fs::remove_file(gateway.setup.folder().join("refresh-token")).expect("it was put there");
    let refused = get(&gateway, LEDGER, "/api/accounts", &gone);
    assert_eq!(outcome(&refused), no(409, "reconnect_required"));
    evidence.push(("a refusal", refused.text().into()));

    for line in
        ["GET /connections", &format!("GET /connections/{id}"), &format!("DELETE /connections/{gone}")]
    {
        evidence.push(("the connections' listener", asked(&gateway, LEDGER, line, "").text().into()));
    }
    for arguments in [&["connections", "list"][..], &["connections", "list", "--json"], &["status", "--json"]]
    {
        evidence.push(("a command", gateway.command(arguments).unwrap().into()));
    }
    evidence.push(("the metrics", gateway.page("/metrics").text().into()));
    let ended = asked(&gateway, LEDGER, &format!("DELETE /connections/{id}"), "");
    assert_eq!(ended.status, 200, "{}", ended.text());
    evidence.push(("the connections' listener", ended.text().into()));

    gateway.signal("TERM");
    assert!(gateway.wait().success());
    evidence.push(("standard error", gateway.stderr.bytes()));
    evidence.push(("the records", gateway.stdout.bytes()));
    evidence.push(("the store", fs::read(gateway.setup.folder().join("connections")).expect("a store")));

    let canaries = canaries(&bank);
    let search = Search::new(&canaries);
    for (place, bytes) in &evidence {
        assert!(!bytes.is_empty(), "{place}");
        search.assert_clean(place, bytes);
    }
    // The search finds each of them, and the places say what they should.
    for canary in &canaries {
        assert!(search.first(canary.value.as_bytes()).is_some(), "{}", canary.name);
    }
    let said = gateway.stderr.text();
    assert!(said.contains("a user was connected") && said.contains("\"DEBUG\""), "{said}");
}
