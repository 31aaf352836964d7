//! Tickets, their page and its button.

use super::{
    super::*,
    world::{self, NOW, RETURN, World, back, wanted},
};

#[tokio::test]
async fn a_caller_gets_what_is_configured_and_nothing_else() {
    let world = World::new().await;
    let ticket = world.connector.ticket(&wanted(), &back(), None).await.unwrap();
    assert_eq!(ticket.expires, NOW + 600);
    assert_eq!(ticket.url.strip_prefix("https://connect.example/ticket/").unwrap().len(), 43);
    assert!(!format!("{ticket:?}").contains("https"));
    let ask = async |wanted: Purpose| world.connector.ticket(&wanted, &back(), None).await.map(drop);
    let all = world.ticket_for(&Purpose { scopes: vec![], ..wanted() }, None).await.unwrap();
    let page = world.get(&all, "").await;
    assert!(page.body.contains("<code>read</code></li><li><code>write</code>"), "{}", page.body);
    assert!(world.away_with(&all).await.url.ends_with("&scope=read+write"));
    let none = Purpose { provider: "nobody".into(), ..wanted() };
    assert!(matches!(ask(none).await, Err(Error::NoProvider)));
    let elsewhere = Purpose { provider: "elsewhere".into(), ..wanted() };
    assert!(matches!(ask(elsewhere).await, Err(Error::NoCallback(_))));
    let more = Purpose { scopes: vec!["read".into(), "admin".into()], ..wanted() };
    assert!(matches!(ask(more).await, Err(Error::Scope)));
}

#[tokio::test]
async fn a_return_url_is_one_of_the_list_byte_for_byte() {
    let world = World::new().await;
    let ask = async |url: &str, state: Option<&str>| {
        let back = Return { url: url.into(), state: state.map(str::to_owned) };
        world.connector.ticket(&wanted(), &back, None).await.map(drop)
    };
    assert!(ask(RETURN, None).await.is_ok());
    assert!(ask("https://app.example/other", None).await.is_ok());
    for url in [
        "",
        "/done?tab=2",
        "https://app.example/done",
        "https://app.example/done?tab=2&a=b",
        "https://app.example/done?tab=2#a",
        "https://APP.example/done?tab=2",
        "https://app.example/other/",
        "https://app.example/other/../done?tab=2",
        "https://app.example.evil.example/other",
        "https://app.example@evil.example/other",
        "javascript:alert(1)",
    ] {
        assert!(matches!(ask(url, None).await, Err(Error::ReturnUrl)), "{url}");
    }
    assert!(ask(RETURN, Some(&"s".repeat(512))).await.is_ok());
    for state in ["", &"s".repeat(513), "a\nb", "ä"] {
        assert!(matches!(ask(RETURN, Some(state)).await, Err(Error::State)), "{state}");
    }
}

#[tokio::test]
async fn a_caller_that_asks_in_a_loop_leaves_room_for_the_others() {
    let world = World::new().await;
    let ask = async |caller: &str| {
        let wanted = Purpose { caller: caller.into(), ..wanted() };
        world.connector.ticket(&wanted, &back(), None).await.map(drop)
    };
    for _ in 0..PER_CALLER {
        ask("loop").await.unwrap();
    }
    let more = ask("loop").await;
    assert!(matches!(more, Err(Error::Tickets { wait }) if wait == Duration::from_secs(600)), "{more:?}");
    assert!(ask("ledger").await.is_ok());
    world.waits(600);
    assert!(ask("loop").await.is_ok());
}

#[tokio::test]
async fn a_ticket_that_is_used_leaves_room_when_its_user_is_back_or_stays_away() {
    let world = World::new().await;
    let (browsing, last) = (world.away().await, world.ticket().await);
    // The others need no disk.
    for n in 2..PER_CALLER {
        let name = PendingName::of(Kind::Ticket, &world::secret(&format!("canary-ticket-{n}")));
        assert_eq!(world.connector.0.outstanding.ordered("ledger", name, NOW, NOW + 600), Ok(()));
    }
    let wait = async || match world.connector.ticket(&wanted(), &back(), None).await {
        Err(Error::Tickets { wait }) => wait.as_secs(),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait().await, 300, "the consent, which ends before the tickets");
    world.comes_back(&browsing, "error=access_denied").await;
    world.ticket().await;
    assert_eq!(wait().await, 600);
    world.away_with(&last).await;
    world.waits(299);
    assert_eq!(wait().await, 1, "instead of its ticket");
    world.waits(1);
    world.ticket().await;
    assert_eq!(wait().await, 300, "the tickets");
}

#[tokio::test]
async fn opening_takes_nothing_and_the_button_takes_it_once() {
    let world = World::new().await;
    let ticket = world.ticket().await;
    for _ in 0..3 {
        let page = world.get(&ticket, "").await;
        assert_eq!(page.status(), 200);
        for text in [
            "<strong>ledger</strong>",
            "<strong>bank</strong>",
            "<code>read</code>",
            r#"<form method="post">"#,
        ] {
            assert!(page.body.contains(text), "{text}: {}", page.body);
        }
        assert!(page.field("set-cookie").is_none());
    }
    let head = world.raw(&format!("HEAD {ticket} HTTP/1.1\r\nHost: connect.example\r\n\r\n")).await;
    assert_eq!((head.status(), head.body.as_str()), (200, ""));
    let away = world.away_with(&ticket).await;
    assert!(
        away.url.contains("code_challenge_method=S256") && away.url.ends_with("&scope=read"),
        "{}",
        away.url
    );
    assert_eq!(world.press(&ticket).await.status(), 404);
    assert_eq!(world.get(&ticket, "").await.status(), 404);
    assert!(world.seen.has("TicketMade") && world.seen.has("TicketUsed"), "{:?}", world.events());
}

#[tokio::test]
async fn of_many_browsers_one_begins() {
    let world = World::new().await;
    let ticket = world.ticket().await;
    let pages = futures_of(16, |_| world.press(&ticket)).await;
    let away = pages.iter().filter(|page| page.status() == 200).count();
    assert_eq!((away, pages.len()), (1, 16));
}

/// All of them at once.
async fn futures_of<T>(count: usize, make: impl Fn(usize) -> T) -> Vec<T::Output>
where
    T: Future,
{
    let mut all: Vec<_> = (0..count).map(|n| Box::pin(make(n))).collect();
    let mut done: Vec<Option<T::Output>> = (0..count).map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, place) in all.iter_mut().zip(&mut done).filter(|(_, place)| place.is_none()) {
            if let std::task::Poll::Ready(output) = future.as_mut().poll(cx) {
                *place = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn unknown_used_and_expired_ones_look_alike() {
    let world = World::new().await;
    let (used, expired) = (world.ticket().await, world.ticket().await);
    world.away_with(&used).await;
    let unknown = format!("/ticket/{}", "A".repeat(43));
    let pages =
        [world.get(&unknown, "").await, world.get(&used, "").await, world.get("/ticket/short", "").await];
    world.waits(599);
    assert_eq!(world.get(&expired, "").await.status(), 200);
    world.waits(1);
    let late = world.get(&expired, "").await;
    let pressed = world.press(&expired).await;
    let date =
        |head: &str| head.lines().filter(|line| !line.starts_with("date")).collect::<Vec<_>>().join("\n");
    for page in &pages {
        assert_eq!(page.status(), 404);
        assert_eq!((date(&page.head), &page.body), (date(&late.head), &late.body));
    }
    assert_eq!((date(&pressed.head), pressed.body), (date(&late.head), late.body));
    assert!(world.seen.has("TurnedAway(Ticket)"));
}

#[tokio::test]
async fn another_sites_page_takes_no_ticket() {
    let world = World::new().await;
    let ticket = world.ticket().await;
    for fields in [
        "",
        "Origin: null\r\n",
        "Origin: https://evil.example\r\n",
        "Sec-Fetch-Site: cross-site\r\nOrigin: https://connect.example\r\n",
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Dest: iframe\r\n",
    ] {
        let page = world.post(&ticket, fields).await;
        assert_eq!(page.status(), 403, "{fields}");
        assert!(page.field("set-cookie").is_none());
    }
    assert!(world.seen.has("TurnedAway(CrossSite)"));
    world.away_with(&ticket).await;
}

#[tokio::test]
async fn a_request_of_another_kind_does_nothing() {
    let world = World::new().await;
    let ticket = world.ticket().await;
    let send = async |request: String| world.raw(&request).await.status();
    let same = "Sec-Fetch-Site: same-origin";
    assert_eq!(
        send(format!("POST {ticket} HTTP/1.1\r\nHost: evil.example\r\n{same}\r\nContent-Length: 0\r\n\r\n"))
            .await,
        421
    );
    assert_eq!(send(format!("POST {ticket} HTTP/1.0\r\n{same}\r\n\r\n")).await, 421);
    let with_body =
        format!("POST {ticket} HTTP/1.1\r\nHost: connect.example\r\n{same}\r\nContent-Length: 3\r\n\r\na=b");
    assert_eq!(send(with_body).await, 413);
    let chunked = format!(
        "POST {ticket} HTTP/1.1\r\nHost: connect.example\r\n{same}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    assert_eq!(send(chunked).await, 413);
    assert_eq!(
        send(format!(
            "PUT {ticket} HTTP/1.1\r\nHost: connect.example\r\n{same}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await,
        405
    );
    assert_eq!(
        send("POST /callback HTTP/1.1\r\nHost: connect.example\r\nContent-Length: 0\r\n\r\n".into()).await,
        405
    );
    for target in ["/", "/ticket", "/callback/", "/favicon.ico", "/callback/elsewhere"] {
        assert_eq!(world.get(target, "").await.status(), 404, "{target}");
    }
    let huge = format!("Cookie: {}\r\n", "x".repeat(100_000));
    assert_eq!(world.get(&ticket, &huge).await.status(), 431);
    let cookies = format!("Cookie: {}\r\n", "x".repeat(20_000));
    assert_eq!(world.get(&ticket, &cookies).await.status(), 200);
    world.away_with(&ticket).await;
}

#[tokio::test]
async fn every_answer_is_for_this_window_and_this_moment_only() {
    let world = World::new().await;
    let ticket = world.ticket().await;
    let shown = world.get(&ticket, "").await;
    let away = world.press(&ticket).await;
    let unknown = world.get(&ticket, "").await;
    let turned = world.get("/", "").await;
    let misdirected = world.raw("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    let browsing = world.away().await;
    let back = world.comes_back(&browsing, "code=canary-code").await;
    assert_eq!(back.status(), 303);
    for page in [&shown, &away, &unknown, &turned, &misdirected, &back] {
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("strict-transport-security", "max-age=31536000"),
        ] {
            assert_eq!(page.field(name), Some(value), "{}", page.head);
        }
        let policy = page.field("content-security-policy").unwrap();
        for part in ["default-src 'none'; ", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert_eq!(policy.contains("form-action 'self'"), page.head == shown.head, "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    }
    for page in [&shown, &away, &unknown, &turned] {
        assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.body.matches("<h1>").count(), 1);
        assert!(page.body.starts_with(r#"<!DOCTYPE html><html lang="en">"#));
        assert!(!page.body.contains("<script") && !page.body.contains("<img") && !page.body.contains("src="));
    }
}

#[tokio::test]
async fn a_ticket_of_another_version_of_mxgate_is_told_to_the_operator() {
    let world = World::new().await;
    let (path, code) = ("/ticket/", "A".repeat(43));
    let name = PendingName::of(Kind::Ticket, &world::secret(&code));
    let pending = Pending { name, ends: NOW + 60, content: world::secret("{\"later\": true}") };
    world.store.put_pending(&pending, NOW).await.unwrap();
    assert_eq!(world.get(&format!("{path}{code}"), "").await.status(), 503);
    assert!(world.seen.has("StoreFailed(PendingUnusable"), "{:?}", world.events());
}

#[tokio::test]
async fn a_ticket_of_a_provider_that_cannot_be_asked_stays_good() {
    let world = World::new().await;
    let ticket = world.ticket().await;
    let without = Settings { providers: BTreeMap::new(), ..world.settings.clone() };
    world.connector.configure(without);
    let page = world.press(&ticket).await;
    assert_eq!(page.status(), 502);
    assert!(page.body.contains("provider_not_configured"), "{}", page.body);
    world.connector.configure(Settings { return_urls: vec![], ..world.settings.clone() });
    let page = world.press(&ticket).await;
    assert!(
        page.body.contains("return_url_not_configured") && !page.body.contains("app.example"),
        "{}",
        page.body
    );
    world.connector.configure(world.settings.clone());
    world.away_with(&ticket).await;
}

#[test]
fn parameters_come_behind_those_that_a_url_has() {
    let with = |url: &str| with_parameters(url, &[("connection", "mxc_1"), ("state", "a b&c=d#é")]);
    let added = "connection=mxc_1&state=a+b%26c%3Dd%23%C3%A9";
    assert_eq!(with("https://a.example/"), format!("https://a.example/?{added}"));
    assert_eq!(with("https://a.example/?"), format!("https://a.example/?{added}"));
    assert_eq!(with("https://a.example/?x=y"), format!("https://a.example/?x=y&{added}"));
    assert_eq!(with("https://a.example/?x=y&"), format!("https://a.example/?x=y&{added}"));
    assert_eq!(with("https://a.example/?x#top"), format!("https://a.example/?x&{added}#top"));
    assert_eq!(with("https://a.example/#?x"), format!("https://a.example/?{added}#?x"));
}

#[test]
fn what_is_no_code_of_ours_is_not_looked_for() {
    assert!(shown(&"Aa0-_".repeat(9)[..43]).is_some());
    for text in [
        "",
        "short",
        &"A".repeat(42),
        &"A".repeat(44),
        &format!("{}=", "A".repeat(42)),
        &format!("{}%", "A".repeat(42)),
    ] {
        assert!(shown(text).is_none(), "{text}");
    }
}
