//! The token's life.

use tokio::task::JoinSet;

use super::*;
use crate::config::BaoLogin;

const SECOND: Duration = Duration::from_secs(1);

/// Reads every second for so long; how many reads failed.
async fn reads(bao: &OpenBao<Fake>, seconds: u32) -> u32 {
    let mut failed = 0;
    for _ in 0..seconds {
        failed += u32::from(read(bao, "secret/mx").await.is_err());
        sleep(SECOND).await;
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn those_who_come_at_once_share_one_login() {
    let fake = Fake::new();
    let bao = Arc::new(fake.source());
    let mut all = JoinSet::new();
    for _ in 0..20 {
        let bao = bao.clone();
        all.spawn(async move { read(&bao, "secret/mx").await.unwrap() });
    }
    assert_eq!(all.join_all().await, [KEY; 20]);
    assert_eq!((fake.count("login"), fake.count("read")), (1, 20));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_at_two_thirds_of_its_life() {
    let fake = Fake::new();
    let bao = fake.source();
    assert!(read(&bao, "secret/mx").await.is_ok());
    sleep(37 * SECOND).await;
    assert_eq!(fake.count("renew"), 0);
    sleep(6 * SECOND).await;
    assert_eq!(fake.count("renew"), 1);
    assert_eq!(reads(&bao, 150).await, 0);
    assert_eq!((fake.count("login"), fake.count("lookup")), (1, 0));
    assert!((4..=5).contains(&fake.count("renew")), "{}", fake.count("renew"));
}

#[tokio::test(start_paused = true)]
async fn near_its_longest_life_there_is_a_new_login_before_the_old_token_ends() {
    let fake = Fake::new();
    let bao = fake.source();
    assert_eq!(reads(&bao, 3000).await, 0);
    // Each token lives for 300 s at most, and no read was refused with an ended one.
    assert!((10..=13).contains(&fake.count("login")), "{}", fake.count("login"));
    assert_eq!(fake.count("read"), 3000);
}

#[tokio::test(start_paused = true)]
async fn it_does_so_while_nobody_reads() {
    let fake = Fake::new();
    let bao = fake.source();
    assert!(read(&bao, "secret/mx").await.is_ok());
    sleep(299 * SECOND).await;
    assert_eq!((fake.count("login"), fake.count("read")), (2, 1));
    assert!(read(&bao, "secret/mx").await.is_ok());
    assert_eq!(fake.count("login"), 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_renewed_is_replaced_in_time() {
    for not_renewable in [true, false] {
        let fake = Fake::new();
        if not_renewable {
            fake.inside().renewable = false;
        } else {
            fake.inside().may_renew = false;
        }
        let bao = fake.source();
        assert_eq!(reads(&bao, 300).await, 0);
        assert!((7..=8).contains(&fake.count("login")), "{}", fake.count("login"));
        assert_eq!(fake.count("read"), 300);
        assert_eq!(fake.count("renew") == 0, not_renewable);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_used_after_its_end() {
    let fake = Fake::new();
    let bao = fake.source();
    assert!(read(&bao, "secret/mx").await.is_ok());
    fake.set_state(fake::State::Down);
    sleep(61 * SECOND).await;
    fake.set_state(fake::State::Up);
    assert!(read(&bao, "secret/mx").await.is_ok());
    assert_eq!((fake.count("login"), fake.count("read")), (2, 2));
    // Nobody asked for one in between.
    assert_eq!(fake.count("renew"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_for_a_while_costs_no_login() {
    let fake = Fake::new();
    let bao = fake.source();
    assert!(read(&bao, "secret/mx").await.is_ok());
    sleep(30 * SECOND).await;
    fake.set_state(fake::State::Sealed);
    sleep(20 * SECOND).await;
    fake.set_state(fake::State::Up);
    sleep(9 * SECOND).await;
    assert_eq!(fake.count("renew"), 1, "tried again before the end");
    assert_eq!(reads(&bao, 60).await, 0);
    assert_eq!(fake.count("login"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_replaced_once() {
    let fake = Fake::new();
    let bao = fake.source();
    assert!(read(&bao, "secret/mx").await.is_ok());
    fake.revoke_all();
    assert!(read(&bao, "secret/mx").await.is_ok());
    assert_eq!((fake.count("login"), fake.count("read")), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn what_is_denied_does_not_log_in_again_and_again() {
    let fake = Fake::new();
    let bao = fake.source();
    for _ in 0..25 {
        assert_eq!(reason(read(&bao, "closed/mx").await), Reason::Denied);
        sleep(SECOND).await;
    }
    assert_eq!(fake.count("login"), 2);
    assert_eq!((fake.count("revoke"), fake.tokens()), (1, 1), "none is left behind");
    sleep(6 * SECOND).await;
    // A policy that was added to the role comes with a new token.
    assert_eq!(reason(read(&bao, "closed/mx").await), Reason::Denied);
    assert_eq!(fake.count("login"), 3);
    assert!(read(&bao, "secret/mx").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_not_hammered_and_a_new_secret_is_tried_at_once() {
    let fake = Fake::new();
    fake.inside().found = "wrong-secret-id".into();
    let bao = fake.source();
    for _ in 0..25 {
        assert_eq!(reason(read(&bao, "secret/mx").await), Reason::Login);
        sleep(SECOND).await;
    }
    assert_eq!(fake.count("login"), 1);
    fake.inside().found = "right-secret-id".into();
    assert!(read(&bao, "secret/mx").await.is_ok());

    let fake = Fake::new();
    fake.inside().secret = None;
    let bao = fake.source();
    assert_eq!(reason(read(&bao, "secret/mx").await), Reason::Login);
    fake.inside().secret = Some("right-secret-id".into());
    sleep(29 * SECOND).await;
    assert_eq!(reason(read(&bao, "secret/mx").await), Reason::Login);
    sleep(SECOND).await;
    assert!(read(&bao, "secret/mx").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_down_is_asked_every_time() {
    let fake = Fake::new();
    fake.set_state(fake::State::Down);
    let bao = fake.source();
    assert_eq!(reason(read(&bao, "secret/mx").await), Reason::Unreachable);
    fake.set_state(fake::State::Up);
    assert!(read(&bao, "secret/mx").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_of_somebody_else_is_renewed_and_followed_when_it_is_replaced() {
    let fake = Fake::new();
    fake.give("s.of-the-agent", 60 * SECOND);
    fake.inside().found = "s.of-the-agent".into();
    let bao = fake.source_with(BaoLogin::Token { token: "file:/token".parse().unwrap() });
    assert_eq!(reads(&bao, 290).await, 0);
    assert_eq!((fake.count("login"), fake.count("lookup")), (0, 1));
    assert!(fake.count("renew") >= 5);
    // Its longest life is over, and nobody has brought another.
    sleep(20 * SECOND).await;
    assert_eq!(reason(read(&bao, "secret/mx").await), Reason::Login);
    fake.give("s.the-next-one", 60 * SECOND);
    fake.inside().found = "s.the-next-one".into();
    assert!(read(&bao, "secret/mx").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_renewed_is_used_to_its_end() {
    let fake = Fake::new();
    fake.inside().renewable = false;
    fake.give("s.for-a-minute", 60 * SECOND);
    fake.inside().found = "s.for-a-minute".into();
    let bao = fake.source_with(BaoLogin::Token { token: "file:/token".parse().unwrap() });
    assert_eq!(reads(&bao, 59).await, 0);
    sleep(2 * SECOND).await;
    assert_eq!(reason(read(&bao, "secret/mx").await), Reason::Login);
    assert!(fake.count("lookup") < 15, "{}", fake.count("lookup"));
}

#[tokio::test(start_paused = true)]
async fn a_jwt_is_sent_as_such() {
    let fake = Fake::new();
    let jwt = "file:/jwt".parse().unwrap();
    let bao = fake.source_with(BaoLogin::Jwt { mount: "kubernetes".into(), role: "mxgate".into(), jwt });
    assert!(read(&bao, "secret/mx").await.is_ok());
    assert_eq!(fake.count("login"), 1);
}

#[tokio::test(start_paused = true)]
async fn tokens_and_what_they_are_had_with_are_masked() {
    let fake = Fake::new();
    let bao = fake.source();
    assert!(read(&bao, "secret/mx").await.is_ok());
    let masker = crate::redaction::held().masker();
    assert!(masker.is_hit(b"s.token-001") && masker.is_hit(b"right-secret-id"));
    assert!(!masker.is_hit(b"s.token-999"));
}
