//! Over TLS, with a provider that others wrote: once by hand, and once in a browser that people use. `tests/setup`
//! installs both.

use tokio::net::TcpListener;

use super::{
    super::{existing::Revocation, *},
    world::{NOW, Seen, Time, secret},
};
use crate::{
    config::{self, Endpoints, ListenerTls, ProviderPlace},
    listener,
    oauth::{
        connection::Consent,
        provider::tests::running::{Running, SCOPES},
        seal::Keys,
        store::embedded::{Embedded, create},
        token_endpoint::{Fate, Grant},
    },
};

/// A gateway's half: the listener, at a name of its own.
struct Gateway {
    connector: Connector,
    store: Arc<dyn Store>,
    time: Arc<Time>,
    seen: Arc<Seen>,
    provider: Arc<Provider>,
    server: Running,
    _stop: watch::Sender<()>,
}

impl Gateway {
    /// `host` and `bank` are what a browser calls the two of them.
    async fn start(host: &str, bank: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{host}:{}/", listener.local_addr().unwrap().port());
        let callback = format!("{base}callback");
        let server = Running::with("provider.mjs", &[&callback, bank]);
        let here = |path: &str| Endpoint::parse(&format!("https://127.0.0.1:{}{path}", server.port)).unwrap();
        let issuer = format!("https://{bank}:{}", server.port);
        let place = ProviderPlace::Written(Endpoints {
            authorization: Some(Endpoint::parse(&format!("{issuer}/auth")).unwrap()),
            issuer: Some(issuer),
            names_itself: true,
            token: here("/token"),
            revocation: Some(here("/token/revocation")),
        });
        let provider = config::Provider {
            scopes: SCOPES.map(str::to_owned).to_vec(),
            redirect_uri: Some(callback),
            // So that who has consented once is sent through without a page.
            authorization_parameters: BTreeMap::new(),
            ..server.client("gateway", place)
        };
        let provider = Arc::new(Provider::new(Arc::new(provider), None));
        let at = |name: &str| server.folder.path().join(name);
        let keys = || Keys::new(&secret("0123456789abcdef0123456789abcdef"), []).unwrap();
        create(&at("connections"), &keys()).unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&at("connections"), keys()).unwrap());
        let settings = Settings {
            base: Some(Endpoint::parse(&base).unwrap()),
            return_urls: vec![],
            ticket_life: Duration::from_secs(600),
            attempt_life: Duration::from_secs(300),
            providers: [("bank".to_owned(), provider.clone())].into(),
        };
        let (time, seen) = (Arc::new(Time(NOW.into())), Arc::new(Seen::default()));
        let connector =
            Connector::new(store.clone(), time.clone(), seen.clone(), "this process".into(), settings);
        let files = ListenerTls { certificate: at("tls.pem"), key: at("tls.key") };
        let tls = listener::tls::load(&files, None).unwrap();
        let (stop, stopped) = watch::channel(());
        let served = connector.clone();
        tokio::spawn(async move { serve(&served, listener, || Some(tls.clone()), stopped).await });
        Self { connector, store, time, seen, provider, server, _stop: stop }
    }

    fn returns_to(&self, url: &str) {
        let settings = Settings { return_urls: vec![url.into()], ..(*self.connector.settings()).clone() };
        self.connector.configure(settings);
    }

    async fn ticket(&self, url: &str) -> String {
        let wanted = Purpose::usual();
        let back = Return { url: url.into(), state: Some("session-1".into()) };
        self.connector.ticket(&wanted, &back, None).await.unwrap().url
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_connected_and_disconnected() {
    let gateway = Gateway::start("127.0.0.1", "127.0.0.1").await;
    let server = &gateway.server;
    gateway.returns_to("https://app.example/done");
    let ticket = gateway.ticket("https://app.example/done").await;
    assert!(server.curl(&[&ticket]).contains("Continue to bank"));
    let page = server.curl(&["--request", "POST", "--header", "Sec-Fetch-Site: same-origin", &ticket]);
    let (_, rest) = page.split_once(r#"content="0; url="#).unwrap();
    let url = rest.split_once('"').unwrap().0.replace("&amp;", "&");
    let callback = format!("{}callback", gateway.connector.settings().base.as_ref().unwrap());
    let back = server.until_back(&url, &callback);
    let end = server.follow(&back, &[]);
    let id = end.strip_prefix("https://app.example/done?connection=").unwrap();
    let id: ConnectionId = id.strip_suffix("&state=session-1").unwrap().parse().unwrap();
    // Once more, and without the cookie.
    assert_eq!(server.follow(&back, &[]), "");
    let connection = gateway.store.load(id).await.unwrap().unwrap().connection;
    assert!(connection.purpose.scopes.contains(&"mx:read".to_owned()));
    let Consent::Live(tokens) = connection.consent else { panic!("gone") };
    let sent = tokens.refresh.unwrap();
    let grant = Grant::Refresh { token: &sent, scopes: &[] };
    let fresh = gateway.provider.tokens(&grant).await.unwrap();
    assert!(fresh.refresh.is_some());
    // The provider takes the former one for stolen then, so both are gone.
    let done = gateway.connector.disconnect(id, false).await.unwrap();
    assert!(matches!(done.revocation, Revocation::Done), "{done:?}");
    server.until("revoked");
    let last = fresh.refresh.unwrap();
    let over = gateway.provider.tokens(&Grant::Refresh { token: &last, scopes: &[] }).await.unwrap_err();
    assert_eq!(over.fate(), Fate::Gone, "{over}");
}

/// What is looked at there stands in the script: `tests/oauth/browser.mjs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_connected_in_a_browser() {
    let gateway = Gateway::start("connect.test", "bank.test").await;
    let base = gateway.connector.settings().base.as_ref().unwrap().to_string();
    let bank = format!("https://bank.test:{}/", gateway.server.port);
    let mut browser = Running::with("browser.mjs", &[&base, &bank]);
    let end = format!("https://app.test:{}/done?tab=2", browser.port);
    gateway.returns_to(&end);
    let mut is_done = false;
    while let Some(line) = browser.line() {
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("ticket", _) => gateway.ticket(&end).await,
            ("connections", _) => gateway.store.list().await.unwrap().len().to_string(),
            ("later", seconds) => {
                gateway.time.goes_on(seconds.parse().unwrap());
                String::new()
            }
            ("seen", event) => gateway.seen.has(event).to_string(),
            ("done", _) => {
                is_done = true;
                break;
            }
            other => panic!("{other:?}"),
        };
        browser.tell(&answer);
    }
    assert!(is_done, "{}", browser.errors());
}
