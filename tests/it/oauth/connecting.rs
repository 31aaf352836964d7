//! A user is connected through the whole gateway: a caller's ticket, a browser's way to the bank and back (curl with a jar of
//! cookies; a real browser is in the tests of `oauth/connect`), and requests with the new connection.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use mxgate::stand_in::certificate::ServerCertificate;
use serde_json::{Value, json};

use super::{LEDGER, asked, bank::Bank, get, no, outcome};
use crate::{
    free_address::free_address,
    harness::{Gateway, Setup, until},
    tokens::now,
};

/// A browser, as far as it goes: it keeps cookies and follows redirects.
pub struct Browser {
    jar: PathBuf,
}

impl Browser {
    pub fn new(folder: &Path, name: &str) -> Self {
        Self { jar: folder.join(name) }
    }

    /// The status, where it ended, and the page.
    pub fn open(&self, url: &str, more: &[&str]) -> (u16, String, String) {
        let jar = self.jar.to_str().unwrap();
        let output = Command::new("curl")
            .args([
                "--silent",
                "--insecure",
                "--location",
                "--max-time",
                "60",
                "--cookie",
                jar,
                "--cookie-jar",
                jar,
            ])
            .args(["--write-out", "\n%{http_code} %{url_effective}"])
            .args(more)
            .arg(url)
            .output()
            .expect("curl");
        let text = String::from_utf8(output.stdout).unwrap();
        let (page, last) = text.rsplit_once('\n').unwrap();
        let (status, url) = last.split_once(' ').unwrap();
        (status.parse().unwrap(), url.to_owned(), page.to_owned())
    }

    /// Presses the ticket's button; gives where its page goes on to.
    pub fn press(&self, ticket: &str) -> Result<String, u16> {
        let origin = ticket.split("/ticket/").next().unwrap();
        let (status, _, page) = self.open(ticket, &["--data", "", "--header", &format!("origin: {origin}")]);
        let onward = page.split("url=").nth(1).and_then(|rest| rest.split('"').next());
        onward.map(|url| url.replace("&amp;", "&")).ok_or(status)
    }

    /// Signs in at the bank and consents; gives where that ends.
    pub fn consent(&self, onward: &str, account: &str) -> (u16, String) {
        let (_, login, _) = self.open(onward, &[]);
        let (_, consent, _) =
            self.open(&login, &["--data", &format!("prompt=login&login={account}&password=x")]);
        let (status, end, _) = self.open(&consent, &["--data", "prompt=consent"]);
        (status, end)
    }
}

/// A gateway with a listener for browsers, and a bank that sends them back there.
fn connecting() -> (Bank, Gateway, String) {
    let (bank, setup, base) = prepared(60);
    (bank, setup.start(), base)
}

/// The same, not started yet, with access tokens that live so many seconds.
pub fn prepared(life: u32) -> (Bank, Setup, String) {
    let address = free_address();
    let base = format!("https://{address}");
    let bank = Bank::failing(life, "0", "0", Some(&format!("{base}/callback")));
    let setup = bank.setup("");
    let tls = ServerCertificate::for_default_names().unwrap();
    setup.file("tls.pem", tls.pem());
    setup.file("tls.key", tls.key_pem());
    let folder = setup.folder().display().to_string();
    let mut setup = setup.table(&format!(
        "return_urls = [\"{base}/after\"]\n[connections.browser]\naddress = \"{address}\"\nurl = \"{base}\"\n\
         tls = {{ certificate = \"{folder}/tls.pem\", key = \"{folder}/tls.key\" }}"
    ));
    setup.tables = setup.tables.replace("https://127.0.0.1:18099/callback", &format!("{base}/callback"));
    setup.tables = setup.tables.replace(
        "client_id = \"gateway\"",
        "client_id = \"gateway\"\nauthorization_parameters = { prompt = \"consent\" }",
    );
    (bank, setup, base)
}

pub fn ticket(gateway: &Gateway, more: Value) -> String {
    let mut order = json!({ "provider": "bank", "environment": "accounts" });
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = asked(gateway, LEDGER, "POST /connections", &order.to_string());
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["ticket_url"].as_str().unwrap().to_owned()
}

pub fn parameter<'u>(url: &'u str, name: &str) -> Option<&'u str> {
    url.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn a_user_consents_once_and_services_act_for_that_user() {
    let (bank, gateway, base) = connecting();
    let order =
        json!({ "return_url": format!("{base}/after"), "user_guid": "USR-1", "state": "of-the-session" });
    let ticket_url = ticket(&gateway, order);
    let browser = Browser::new(gateway.setup.folder(), "jar");
    let (status, _, page) = browser.open(&ticket_url, &[]);
    assert!(status == 200 && page.contains("ledger") && page.contains("bank"), "{page}");
    let onward = browser.press(&ticket_url).expect("the way to the bank");
    assert!(onward.starts_with(&format!("https://{}/auth?", bank.address)), "{onward}");
    assert_eq!(browser.press(&ticket_url), Err(404), "a ticket is good once");
    let (_, end) = browser.consent(&onward, "alice");
    assert!(end.starts_with(&format!("{base}/after?")), "{end}");
    assert_eq!(parameter(&end, "state"), Some("of-the-session"));
    let id = parameter(&end, "connection").expect("an id");
    let answer = get(&gateway, LEDGER, "/api/users/USR-1/accounts", id);
    assert_eq!((answer.status, &answer.json()["account"]), (200, &json!("alice")), "{}", answer.text());
    let listed = asked(&gateway, LEDGER, "GET /connections?user_guid=USR-1", "").json();
    assert_eq!(
        (&listed["connections"][0]["id"], &listed["connections"][0]["state"]),
        (&json!(id), &json!("live"))
    );
    assert_eq!(gateway.metric("mxgate_consent_events_total{event=\"connected\""), 1.0);
    // What came by browsers is in no log.
    let said = format!("{}{}", gateway.stderr.text(), gateway.stdout.text());
    let state = parameter(&onward, "state").unwrap();
    for secret in [ticket_url.rsplit('/').next().unwrap(), state, "code="] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}

#[test]
fn a_user_whose_consent_is_gone_connects_again_under_the_same_id() {
    let (bank, gateway, base) = connecting();
    let token = bank.mint("alice");
    assert_eq!((bank.use_up(&token), bank.use_up(&token)), ("200".into(), "400".into()));
    let id = super::import(&gateway, &token, &["--user-guid", "USR-1"]);
    assert_eq!(outcome(&get(&gateway, LEDGER, "/api/accounts", &id)), no(409, "reconnect_required"));
    // The new consent is of another second, so what the gateway keeps of the old one is of no use, and found to be.
    let then = now();
    until("a second has passed", || now() > then);
    let ticket_url = ticket(
        &gateway,
        json!({ "return_url": format!("{base}/after"), "connection": id, "user_guid": "USR-1" }),
    );
    let browser = Browser::new(gateway.setup.folder(), "jar");
    let onward = browser.press(&ticket_url).expect("the way to the bank");
    let (_, end) = browser.consent(&onward, "alice");
    assert_eq!(parameter(&end, "connection"), Some(&*id), "{end}");
    assert_eq!(get(&gateway, LEDGER, "/api/accounts", &id).status, 200);
}

#[test]
fn it_ends_when_it_is_told_to_also_while_the_certificate_for_browsers_is_missing() {
    let (_bank, setup, _) = prepared(60);
    std::fs::remove_file(setup.folder().join("tls.key")).unwrap();
    let mut gateway = setup.start();
    gateway.stderr.wait_for(|line| line.contains("connections.browser.tls cannot be used"));
    gateway.signal("TERM");
    assert!(gateway.wait().success());
}

#[test]
fn an_order_that_is_wrong_is_told_what_is_and_one_of_others_is_denied() {
    let (_bank, gateway, base) = connecting();
    let after = format!("{base}/after");
    let order = |change: Value| {
        let mut order = json!({ "provider": "bank", "environment": "accounts", "return_url": after });
        order.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        order.to_string()
    };
    let unknown = "mxc_0123456789abcdef0123456789abcdef";
    for (from, body, expected) in [
        (LEDGER, order(json!({ "return_url": "https://evil.example/" })), no(400, "invalid_connection")),
        (LEDGER, order(json!({ "return_url": format!("{after}?a") })), no(400, "invalid_connection")),
        (LEDGER, order(json!({ "scopes": ["admin"] })), no(400, "invalid_connection")),
        (LEDGER, order(json!({ "state": "a\nb" })), no(400, "invalid_connection")),
        (LEDGER, order(json!({ "surplus": 1 })), no(400, "invalid_connection")),
        (LEDGER, order(json!({ "user_guid": "USR-1\u{1b}[2J" })), no(400, "invalid_connection")),
        (LEDGER, order(json!({ "user_guid": "U".repeat(10_000) })), no(400, "invalid_connection")),
        (LEDGER, "no json".into(), no(400, "invalid_connection")),
        (LEDGER, "x".repeat(20_000), no(413, "body_too_large")),
        (LEDGER, order(json!({ "provider": "other" })), no(403, "connection_denied")),
        (LEDGER, order(json!({ "environment": "other" })), no(403, "connection_denied")),
        (LEDGER, order(json!({ "connection": unknown })), no(404, "unknown_connection")),
        ("127.0.0.4", order(json!({})), no(403, "connection_denied")),
    ] {
        let answer = asked(&gateway, from, "POST /connections", &body);
        assert_eq!(outcome(&answer), expected, "{from} {body:.200} {}", answer.text());
        assert!(!answer.text().contains("evil") && !answer.text().contains("admin"), "{}", answer.text());
    }
    until("nothing was made", || gateway.metric("mxgate_consent_events_total{event=\"ticket_made\"") == 0.0);
}
