//! Against servers that others wrote: one that is certified, and one that answers whatever it is told to. `tests/setup`
//! installs both.

use std::{fs, io::Write};

use self::running::{Running, SCOPES, SECRET};
use super::*;
use crate::{
    config::ClientAuthentication,
    oauth::token_endpoint::{Code, Fate},
    vault::reference::Reference,
};

mod refreshing;
pub(in crate::oauth) mod running;

impl Running {
    /// A user's first tokens.
    async fn connect(&self, provider: &Provider) -> Granted {
        // Each with cookies of its own.
        let _ = fs::remove_file(self.folder.path().join("cookies"));
        let authorization = provider.authorization(&SCOPES.map(str::to_owned)).await.unwrap();
        let back = self.consent(&authorization);
        assert_eq!(*authorization.state, secret(&back["state"]));
        assert!(provider.is_issuer(Some(&back["iss"])).await.unwrap());
        for stranger in [None, Some("https://id.example")] {
            assert!(!provider.is_issuer(stranger).await.unwrap(), "{stranger:?}");
        }
        let code = secret(&back["code"]);
        redaction::held().remember([&Arc::new(secret(&back["code"]))]);
        let other = secret(&"v".repeat(43));
        let stranger = provider.tokens(&Grant::Code { code: &code, verifier: &other }).await.unwrap_err();
        assert_eq!(stranger.fate(), Fate::Gone, "without the verifier: {stranger}");
        provider.tokens(&Grant::Code { code: &code, verifier: &authorization.verifier }).await.unwrap()
    }
}

fn secret(text: &str) -> Secret {
    Secret::new(text.into()).unwrap()
}

async fn refresh(provider: &Provider, token: &Secret) -> Result<Granted, Fault> {
    provider.tokens(&Grant::Refresh { token, scopes: &[] }).await
}

/// All that is logged, as it is before anything is masked.
#[derive(Clone, Default)]
pub(in crate::oauth) struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logged {
    /// Of this thread, which is all of a test's.
    pub(in crate::oauth) fn listen(&self) -> tracing::subscriber::DefaultGuard {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(in crate::oauth) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    #[expect(clippy::disallowed_methods, reason = "looks for it")]
    fn has(&self, secret: &Secret) -> bool {
        let logged = self.0.lock().unwrap();
        logged.windows(secret.expose().len()).any(|window| window == secret.expose())
    }
}

#[tokio::test]
async fn a_user_consents_tokens_rotate_and_a_reused_one_ends_the_grant() {
    let logged = Logged::default();
    let listening = logged.listen();
    let server = Running::start("provider.mjs");
    let provider = Provider::new(Arc::new(server.client("gateway", server.discovered())), None);
    let first = server.connect(&provider).await;
    assert_eq!(first.life, Some(Duration::from_secs(5)));
    assert!(first.scopes.as_ref().unwrap().contains(&"mx:read".to_owned()));
    let used = first.refresh.clone().unwrap();
    let second = refresh(&provider, &used).await.unwrap();
    let next = second.refresh.clone().unwrap();
    assert!(next != used && second.access != first.access);
    let third = refresh(&provider, &next).await.unwrap();
    // A second use of one that was used.
    let reused = refresh(&provider, &used).await.unwrap_err();
    assert!(matches!(reused, Fault::Refused(_, Code::InvalidGrant)), "{reused}");
    server.until("revoked");
    let after = refresh(&provider, third.refresh.as_ref().unwrap()).await.unwrap_err();
    assert_eq!(after.fate(), Fate::Gone, "{after}");

    tracing::info!(reason = vault::chain(&reused), "so that there is something");
    drop(listening);
    assert!(logged.has(&secret("something")));
    let tokens =
        [&first, &second, &third].into_iter().flat_map(|one| [Some(&one.access), one.refresh.as_ref()]);
    for token in tokens.flatten() {
        assert!(!logged.has(token), "a token is in the log");
        #[expect(clippy::disallowed_methods, reason = "asks whether it would be masked")]
        let is_masked = redaction::held().masker().is_hit(token.expose());
        assert!(is_masked);
    }
    assert!(!logged.has(&secret(SECRET)));
}

#[tokio::test]
async fn a_revoked_token_is_taken_no_longer() {
    let server = Running::start("provider.mjs");
    let provider = Provider::new(Arc::new(server.client("gateway", server.discovered())), None);
    let granted = server.connect(&provider).await;
    let token = granted.refresh.unwrap();
    provider.revoke(Revoked::Refresh(&token)).await.unwrap();
    assert_eq!(refresh(&provider, &token).await.unwrap_err().fate(), Fate::Gone);
    // It is gone, and that is what was wanted.
    provider.revoke(Revoked::Refresh(&token)).await.unwrap();
}

#[tokio::test]
async fn the_last_document_of_discovery_serves_on_while_there_is_no_other() {
    let mut server = Running::start("provider.mjs");
    let provider = || Provider::new(Arc::new(server.client("gateway", server.discovered())), None);
    let (provider, late) = (provider(), provider());
    let known = provider.endpoints().await.unwrap();
    let next_look = || provider.discovered().clone().unwrap().0;
    let is_due = || *provider.discovered() = Some((Instant::now(), known.clone()));
    let begun = Instant::now();
    is_due();
    assert_eq!(provider.endpoints().await.unwrap().token, known.token);
    assert!(next_look() >= begun + DISCOVERED_AGE_MAX);
    server.end();
    let begun = Instant::now();
    is_due();
    assert_eq!(provider.endpoints().await.unwrap().token, known.token);
    assert!(next_look() >= begun + DISCOVER_AGAIN && next_look() < begun + DISCOVERED_AGE_MAX);
    let fault = late.endpoints().await.unwrap_err();
    assert!(matches!(fault, Fault::Discovery(discovery::Fault::NotHad(_))), "{fault}");
}

#[tokio::test]
async fn a_client_shows_its_secret_as_it_is_registered_and_nobody_else_is_asked() {
    let server = Running::start("provider.mjs");
    let scopes = ["mx:read".to_owned()];
    let client = |id: &str, how: ClientAuthentication| config::Provider {
        client_authentication: how,
        ..server.client(id, server.discovered())
    };
    let ask = async |settings: config::Provider| {
        Provider::new(Arc::new(settings), None).tokens(&Grant::Client { scopes: &scopes }).await
    };
    for (id, how) in
        [("gateway-basic", ClientAuthentication::Basic), ("gateway-post", ClientAuthentication::Post)]
    {
        let granted = ask(client(id, how)).await.unwrap();
        assert_eq!((granted.refresh, granted.scopes), (None, Some(scopes.to_vec())));
        let wrong = config::Provider { client_secret: "env:PATH".parse().unwrap(), ..client(id, how) };
        let refused = ask(wrong).await.unwrap_err();
        assert!(matches!(refused, Fault::Refused(_, Code::InvalidClient)), "{refused}");
    }
    // Nobody whom the system trusts has signed its certificate.
    let stranger = config::Provider { ca_file: None, ..client("gateway-basic", ClientAuthentication::Basic) };
    let fault = ask(stranger).await.unwrap_err();
    assert!(matches!(fault, Fault::Discovery(discovery::Fault::NotHad(_))), "{fault}");
    let ProviderPlace::Discovered { url, hosts, .. } = server.discovered() else { unreachable!() };
    let place = ProviderPlace::Discovered { url, hosts, issuer: "https://id.example".into() };
    let fault = ask(server.client("gateway-basic", place)).await.unwrap_err();
    assert!(matches!(fault, Fault::Discovery(discovery::Fault::Issuer(_))), "{fault}");
    let elsewhere = Reference::file(server.folder.path().join("secret")).for_hosts(vec!["id.example".into()]);
    let sealed =
        config::Provider { client_secret: elsewhere, ..client("gateway-basic", ClientAuthentication::Basic) };
    let fault = ask(sealed).await.unwrap_err();
    assert!(matches!(fault, Fault::ClientSecret(vault::Error::NotFor(_))), "{fault}");
}

#[tokio::test]
async fn whatever_is_no_token_answer_is_a_failed_attempt() {
    let mut server = Running::start("odd.mjs");
    let place = ProviderPlace::Written(Endpoints {
        issuer: None,
        names_itself: false,
        authorization: None,
        token: Endpoint::parse(&format!("http://127.0.0.1:{}/token", server.port)).unwrap(),
        revocation: None,
    });
    let settings = server.client("gateway", place);
    let patient = Provider::new(Arc::new(settings.clone()), None);
    let hasty = config::Provider { read_timeout: Duration::from_millis(200), ..settings };
    let hasty = Provider::new(Arc::new(hasty), None);
    let ask = async |provider: &Provider, word: &str| {
        provider.tokens(&Grant::Client { scopes: &[word.to_owned()] }).await
    };
    assert!(ask(&patient, "plain").await.is_ok());
    for (word, fate) in [
        ("unavailable", Fate::Untouched),
        ("limited", Fate::Untouched),
        ("bad_gateway", Fate::Doubtful),
        ("redirect", Fate::Doubtful),
        ("nothing", Fate::Doubtful),
        ("object", Fate::Doubtful),
        ("list", Fate::Doubtful),
        ("number", Fate::Doubtful),
        ("empty_token", Fate::Doubtful),
        ("text_life", Fate::Doubtful),
        ("negative_life", Fate::Doubtful),
        ("mac", Fate::Doubtful),
        ("html", Fate::Doubtful),
        ("form", Fate::Doubtful),
        ("cut", Fate::Doubtful),
        ("huge", Fate::Doubtful),
        ("error_in_200", Fate::Doubtful),
        ("hang_up", Fate::Doubtful),
        ("invalid_grant", Fate::Gone),
        ("invalid_client", Fate::Untouched),
        ("html_400", Fate::Untouched),
    ] {
        let fault = ask(&patient, word).await.unwrap_err();
        assert_eq!(fault.fate(), fate, "{word}: {fault}");
        assert!(!format!("{fault:?} {}", vault::chain(&fault)).contains("c4n4ry"), "{word}: {fault:?}");
    }
    for word in ["slow", "slow_body"] {
        let fault = ask(&hasty, word).await.unwrap_err();
        assert!(matches!(fault, Fault::Lost(_)), "{word}: {fault}");
    }
    server.end();
    assert!(matches!(ask(&patient, "plain").await.unwrap_err(), Fault::Unreached(_)));
}

/// The crate that reads these has no tables of Unicode (`idna_adapter` in Cargo.toml).
#[test]
fn a_host_is_ascii_and_another_one_is_written_in_punycode() {
    let reads = |url: &str| oauth2::AuthUrl::new(url.to_owned()).is_ok();
    for url in ["https://bank.example/a", "https://BANK.example:8443", "https://xn--bcher-kva.example/a"] {
        assert!(reads(url), "{url}");
    }
    assert!(!reads("https://b\u{fc}cher.example/a"));
}
