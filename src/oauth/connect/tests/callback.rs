//! The way back.

use tokio::{io::AsyncWriteExt as _, sync::Notify};

use super::{
    super::*,
    Browsing, World, id_in,
    world::{ISSUER, NOW, secret, wanted},
};
use crate::oauth::connection::{Access, Connection, Consent, Tokens};

async fn tokens(world: &World, id: ConnectionId) -> Tokens {
    let stored = world.store.load(id).await.unwrap().unwrap();
    let Consent::Live(tokens) = stored.connection.consent else { panic!("gone") };
    tokens
}

async fn count(world: &World) -> usize {
    world.store.list().await.unwrap().len()
}

#[tokio::test]
async fn a_user_is_connected_and_sent_on_with_the_id() {
    let world = World::new().await;
    let browsing = world.away().await;
    let page = world.comes_back(&browsing, "code=canary-code").await;
    let id = id_in(&page);
    let stored = world.store.load(id).await.unwrap().unwrap();
    let tokens = Tokens {
        access: Some(Access { token: secret("canary-access-1"), expires: Some(NOW + 600) }),
        refresh: Some(secret("canary-refresh-1")),
        ends: None,
    };
    let should = Connection {
        id,
        purpose: wanted(),
        issuer: stored.connection.issuer.clone(),
        created: NOW,
        consent: Consent::Live(tokens),
    };
    assert_eq!(stored.connection, should);
    let (path, form) = world.bank.asked().remove(0);
    assert_eq!(path, "/token");
    for part in [
        "grant_type=authorization_code",
        "code=canary-code",
        "code_verifier=",
        "redirect_uri=https%3A%2F%2Fconnect.example%2Fcallback",
    ] {
        assert!(form.contains(part), "{form}");
    }
    let (name, _) = browsing.cookie.split_once('=').unwrap();
    let cleared = page.field("set-cookie").unwrap();
    assert!(cleared.starts_with(&format!("{name}=; ")) && cleared.contains("Max-Age=0"), "{cleared}");
    assert!(world.seen.has("Connected"));
}

#[tokio::test]
async fn a_state_is_used_once_and_ends() {
    let world = World::new().await;
    let browsing = world.away().await;
    id_in(&world.comes_back(&browsing, "code=canary-code").await);
    assert_eq!(world.comes_back(&browsing, "code=canary-code").await.status(), 404);
    let late = world.away().await;
    world.waits(300);
    assert_eq!(world.comes_back(&late, "code=canary-code").await.status(), 404);
    let never = Browsing { state: "A".repeat(43), ..late };
    assert_eq!(world.comes_back(&never, "code=canary-code").await.status(), 404);
    assert_eq!((count(&world).await, world.bank.asked().len()), (1, 1));
    assert!(world.seen.has("TurnedAway(State)"));
}

#[tokio::test]
async fn another_browser_can_neither_use_it_nor_use_it_up() {
    let world = World::new().await;
    let (mine, other) = (world.away().await, world.away().await);
    let value = |cookie: &str| cookie.split_once('=').unwrap().1.to_owned();
    let (name, _) = mine.cookie.split_once('=').unwrap();
    let thief = |cookie: String| Browsing { state: mine.state.clone(), url: String::new(), cookie };
    for cookie in [
        String::new(),
        other.cookie.clone(),
        format!("{name}={}", value(&other.cookie)),
        format!("{name}="),
        format!("{}; {}", mine.cookie, mine.cookie),
        mine.cookie.to_uppercase(),
    ] {
        let page = world.comes_back(&thief(cookie.clone()), "code=canary-code").await;
        assert_eq!(page.status(), 404, "{cookie}");
    }
    assert!(world.seen.has("TurnedAway(OtherBrowser)"));
    assert_eq!(world.bank.asked(), []);
    // Both of one browser at once, in any order.
    let both = |one: &Browsing| Browsing {
        state: one.state.clone(),
        url: String::new(),
        cookie: format!("{}; {}", mine.cookie, other.cookie),
    };
    let first = id_in(&world.comes_back(&both(&other), "code=canary-code").await);
    let second = id_in(&world.comes_back(&both(&mine), "code=canary-code").await);
    assert_ne!(first, second);
}

#[tokio::test]
async fn of_many_that_come_back_at_once_one_gets_a_connection() {
    let world = World::new().await;
    let browsing = world.away().await;
    let comes = || world.comes_back(&browsing, "code=canary-code");
    let pages = tokio::join!(comes(), comes(), comes(), comes());
    let mut statuses = [&pages.0, &pages.1, &pages.2, &pages.3].map(|page| page.status());
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 404, 404, 404]);
    assert_eq!((count(&world).await, world.bank.asked().len()), (1, 1));
}

#[tokio::test]
async fn another_issuer_gets_no_code() {
    let world = World::new().await;
    for iss in
        ["iss=https://id.evil.example", "", &format!("iss={ISSUER}/"), &format!("iss={ISSUER}&iss={ISSUER}")]
    {
        for what in ["code=canary-code", "error=access_denied"] {
            let browsing = world.away().await;
            let target = format!("/callback?{what}&{iss}&state={}", browsing.state);
            let page = world.get(&target, &format!("Cookie: {}\r\n", browsing.cookie)).await;
            assert_eq!(page.status(), 502, "{iss}");
            assert!(page.body.contains("issuer_mismatch"), "{}", page.body);
        }
    }
    assert_eq!(world.bank.asked(), []);
    id_in(&world.comes_back(&world.away().await, "code=canary-code").await);
}

#[tokio::test]
async fn a_refusal_is_said_in_our_words() {
    let world = World::new().await;
    let browsing = world.away().await;
    let page = world
        .comes_back(
            &browsing,
            "error=access_denied&error_description=c4n4ry&error_uri=https://c4n4ry.example",
        )
        .await;
    assert_eq!(page.status(), 200);
    let back = r#"href="https://app.example/done?tab=2&amp;error=access_denied&amp;state=session+%261""#;
    assert!(page.body.contains(back) && page.body.contains("Not connected"), "{}", page.body);
    assert!(page.field("set-cookie").unwrap().contains("Max-Age=0"));
    for (error, told, code) in [
        ("invalid_scope", "invalid_scope", "invalid_scope"),
        ("temporarily_unavailable", "temporarily_unavailable", "temporarily_unavailable"),
        ("%3Cscript%3Ec4n4ry", "server_error", "other_error"),
        ("access_denied&error=server_error", "server_error", "other_error"),
    ] {
        let page = world.comes_back(&world.away().await, &format!("error={error}&code=canary-code")).await;
        assert!(page.status() >= 502, "{error}");
        assert!(page.body.contains(&format!("error={told}&amp;")), "{error}: {}", page.body);
        assert!(page.body.contains(&format!("<code>{code}</code>")), "{error}: {}", page.body);
        assert!(!page.body.contains("c4n4ry") && !page.body.contains("<script"), "{}", page.body);
    }
    assert!(!world.events().concat().contains("c4n4ry"));
    assert!(world.seen.has("Refused"));
    assert_eq!((count(&world).await, world.bank.asked()), (0, vec![]));
}

#[tokio::test]
async fn what_came_twice_or_not_at_all_does_not_count() {
    let world = World::new().await;
    for wrong in ["a=b", "code=canary-code&code=canary-code", "code=", "code=short", "code=canary%0Acode"] {
        let page = world.comes_back(&world.away().await, wrong).await;
        assert!(page.status() == 502 && page.body.contains("incomplete_answer"), "{wrong}: {}", page.body);
    }
    let browsing = world.away().await;
    let cookie = format!("Cookie: {}\r\n", browsing.cookie);
    let state = &browsing.state;
    for target in [
        format!("/callback?code=canary-code&iss={ISSUER}"),
        format!("/callback?code=canary-code&iss={ISSUER}&state={state}&state={state}"),
        format!("/callback?code=canary-code&iss={ISSUER}&state={state}x"),
        format!("/callback/shop?code=canary-code&iss={ISSUER}&state={state}"),
    ] {
        assert_eq!(world.get(&target, &cookie).await.status(), 404, "{target}");
    }
    let target = format!("/callback?code=canary-code&iss={ISSUER}&state={state}");
    for framed in ["iframe", "image", "empty"] {
        let page = world.get(&target, &format!("{cookie}Sec-Fetch-Dest: {framed}\r\n")).await;
        assert_eq!(page.status(), 403, "{framed}");
    }
    assert_eq!(world.bank.asked(), []);
    id_in(&world.get(&target, &cookie).await);
}

#[tokio::test]
async fn what_is_not_configured_any_more_is_not_used() {
    let world = World::new().await;
    let come = async |settings: Settings| {
        let browsing = world.away().await;
        world.connector.configure(settings);
        // Its callback is another provider's, too.
        let page = world.comes_back(&browsing, "code=canary-code").await;
        world.connector.configure(world.settings.clone());
        page
    };
    let page =
        come(Settings { return_urls: vec!["https://app.example/other".into()], ..world.settings.clone() })
            .await;
    assert!(page.status() == 502 && page.body.contains("return_url_not_configured"), "{}", page.body);
    assert!(!page.body.contains("app.example"), "{}", page.body);
    let mut providers = world.settings.providers.clone();
    let shared = providers.remove("bank").unwrap();
    providers.insert("renamed".into(), shared);
    let page = come(Settings { providers, ..world.settings.clone() }).await;
    assert!(page.status() == 502 && page.body.contains("provider_not_configured"), "{}", page.body);
    assert_eq!((count(&world).await, world.bank.asked()), (0, vec![]));
}

#[tokio::test]
async fn a_provider_that_fails_leaves_no_connection() {
    let world = World::new().await;
    for (status, text, code, told) in [
        (400, r#"{"error":"invalid_grant","error_description":"c4n4ry"}"#, "code_refused", "server_error"),
        (401, r#"{"error":"invalid_client"}"#, "client_refused", "server_error"),
        (503, "c4n4ry", "exchange_failed", "temporarily_unavailable"),
        (200, r#"{"access_token":"canary-access"}"#, "exchange_failed", "server_error"),
        (302, "", "exchange_failed", "server_error"),
    ] {
        world.bank.says(status, text);
        let page = world.comes_back(&world.away().await, "code=canary-code").await;
        assert!(
            page.status() >= 502 && page.body.contains(&format!("<code>{code}</code>")),
            "{text}: {}",
            page.body
        );
        assert!(page.body.contains(&format!("error={told}&amp;")), "{text}: {}", page.body);
        assert!(!page.body.contains("c4n4ry") && page.field("location").is_none(), "{}", page.body);
        assert!(page.field("set-cookie").unwrap().contains("Max-Age=0"));
    }
    assert_eq!(count(&world).await, 0);
    // An odd success may have left a grant behind.
    world.bank.says(200, r#"{"access_token":7,"refresh_token":"canary-refresh-odd"}"#);
    world.comes_back(&world.away().await, "code=canary-code").await;
    let (path, form) = world.bank.asked().pop().unwrap();
    assert!(path == "/revoke" && form.contains("token=canary-refresh-odd"), "{path} {form}");
}

#[tokio::test]
async fn a_browser_that_leaves_changes_nothing() {
    let world = World::new().await;
    let browsing = world.away().await;
    let go = Arc::new(Notify::new());
    *world.bank.held.lock().unwrap() = Some(go.clone());
    let target = format!("/callback?code=canary-code&iss={ISSUER}&state={}", browsing.state);
    let mut stream = world.dial().await;
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: connect.example\r\nCookie: {}\r\n\r\n", browsing.cookie);
    stream.write_all(request.as_bytes()).await.unwrap();
    while world.bank.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(stream);
    assert_eq!(count(&world).await, 0);
    go.notify_one();
    world.connector.idle().await;
    assert_eq!(count(&world).await, 1);
    assert!(world.seen.has("Connected"));
}

#[tokio::test]
async fn a_browser_waits_for_so_long_and_the_exchange_goes_on() {
    let world = World::new().await;
    let browsing = world.away().await;
    let go = Arc::new(Notify::new());
    *world.bank.held.lock().unwrap() = Some(go.clone());
    let asked = async {
        while world.bank.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        // From here on nothing but the browser's patience is waited for.
        tokio::time::pause();
        tokio::time::advance(super::super::callback::PATIENCE).await;
        tokio::time::resume();
    };
    let (page, ()) = tokio::join!(world.comes_back(&browsing, "code=canary-code"), asked);
    assert!(page.status() == 503 && page.body.contains("<code>slow</code>"), "{}", page.body);
    go.notify_one();
    world.connector.idle().await;
    assert_eq!(count(&world).await, 1);
}

#[tokio::test]
async fn a_connection_is_renewed_and_keeps_its_id() {
    let world = World::new().await;
    let id = world.connects().await;
    let lease = world.store.take_lease(id, "refresher", NOW, Duration::from_secs(10)).await.unwrap();
    assert!(matches!(lease, store::Taken::Lease(_)), "a refresh is at it, and dies");
    let anonymous = Purpose { user_guid: None, ..wanted() };
    let ticket = world.ticket_for(&anonymous, Some(id)).await.unwrap();
    assert!(world.get(&ticket, "").await.body.contains("Renew your connection"));
    let browsing = world.away_with(&ticket).await;
    assert_eq!(id_in(&world.comes_back(&browsing, "code=canary-code").await), id);
    assert_eq!(tokens(&world, id).await.refresh, Some(secret("canary-refresh-2")));
    let list = world.store.list().await.unwrap();
    assert_eq!((list.len(), list[0].purpose.user_guid.as_deref()), (1, Some("USR-1")));
    assert!(world.seen.has("renewed: true"));
}

#[tokio::test]
async fn nobody_renews_what_is_not_theirs() {
    let world = World::new().await;
    let id = world.connects().await;
    let ask = async |wanted: Purpose, id| world.ticket_for(&wanted, Some(id)).await.map(drop);
    assert!(matches!(
        ask(Purpose { caller: "other".into(), ..wanted() }, id).await,
        Err(Error::NoConnection)
    ));
    let absent = ConnectionId::from_bytes([9; 16]);
    assert!(matches!(ask(wanted(), absent).await, Err(Error::NoConnection)));
    assert!(matches!(
        ask(Purpose { provider: "shop".into(), ..wanted() }, id).await,
        Err(Error::Differs("provider"))
    ));
    let elsewhere = Purpose { environment: "production".into(), ..wanted() };
    assert!(matches!(ask(elsewhere, id).await, Err(Error::Differs("environment"))));
    let another = Purpose { user_guid: Some("USR-2".into()), ..wanted() };
    assert!(matches!(ask(another, id).await, Err(Error::Differs("user"))));
    // Gone while its user was at the provider: what that gave is given up again.
    let ticket = world.ticket_for(&wanted(), Some(id)).await.unwrap();
    let browsing = world.away_with(&ticket).await;
    world.connector.disconnect(id, false).await.unwrap();
    let page = world.comes_back(&browsing, "code=canary-code").await;
    assert!(page.status() == 502 && page.body.contains("connection_gone"), "{}", page.body);
    world.bank.takes_back(2);
    assert_eq!(count(&world).await, 0);
}
