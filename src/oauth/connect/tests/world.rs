//! A connector with a store on a disk, behind something that has TLS for it; a provider that answers as it is told; and a
//! browser that does what it is told.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};

use super::super::*;
use crate::{
    config::{self, ClientAuthentication, Endpoints, ProviderPlace},
    oauth::{
        seal::Keys,
        store::{
            Doing,
            embedded::{Embedded, create},
        },
    },
    vault::reference::Reference,
};

pub(super) const HOST: &str = "connect.example";
pub(super) const RETURN: &str = "https://app.example/done?tab=2";
pub(super) const ISSUER: &str = "https://id.bank.example";
pub(super) const NOW: u64 = 1_700_000_000;

/// A clock that goes on when somebody waits, and not otherwise.
pub(super) struct Time(pub(super) AtomicU64);

impl Time {
    pub(super) fn goes_on(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Clock for Time {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn sleep(&self, time: Duration) -> Doing<'_, ()> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.goes_on(time.as_secs().max(1));
        })
    }
}

/// Keeps what it is told, as text.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) events: Mutex<Vec<String>>,
    logged: Logged,
}

impl Witness for Seen {
    fn saw(&self, event: &Event<'_>) {
        self.events.lock().unwrap().push(format!("{event:?}"));
        self.logged.saw(event);
    }
}

impl Seen {
    pub(super) fn has(&self, text: &str) -> bool {
        self.events.lock().unwrap().iter().any(|event| event.contains(text))
    }
}

/// A provider's token and revocation endpoint.
pub(super) struct Bank {
    pub(super) port: u16,
    /// What was sent: the path, and the form.
    pub(super) asked: Mutex<Vec<(String, String)>>,
    /// What is answered next; nothing: tokens, or that they are revoked.
    pub(super) answers: Mutex<VecDeque<(u16, String)>>,
    /// Holds answers back until it is told.
    pub(super) held: Mutex<Option<Arc<Notify>>>,
    count: AtomicU64,
}

impl Bank {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bank = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            asked: Mutex::default(),
            answers: Mutex::default(),
            held: Mutex::default(),
            count: AtomicU64::new(0),
        });
        let served = Arc::clone(&bank);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let bank = Arc::clone(&served);
                tokio::spawn(async move { bank.answer(stream).await });
            }
        });
        bank
    }

    async fn answer(&self, mut stream: TcpStream) {
        let mut request = Vec::new();
        let whole = |request: &[u8]| {
            let text = String::from_utf8_lossy(request).into_owned();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            (body.len() >= length.unwrap_or(0)).then(|| (head.to_owned(), body.to_owned()))
        };
        let (head, body) = loop {
            if let Some(whole) = whole(&request) {
                break whole;
            }
            if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let path = head.split(' ').nth(1).unwrap().to_owned();
        self.asked.lock().unwrap().push((path.clone(), body));
        let held = self.held.lock().unwrap().clone();
        if let Some(held) = held {
            held.notified().await;
        }
        let next = self.answers.lock().unwrap().pop_front();
        let (status, text) = next.unwrap_or_else(|| match path.as_str() {
            "/token" => (200, self.tokens()),
            _ => (200, String::new()),
        });
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    fn tokens(&self) -> String {
        let n = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        format!(
            r#"{{"token_type":"Bearer","access_token":"canary-access-{n}","refresh_token":"canary-refresh-{n}","expires_in":600,"scope":"read"}}"#
        )
    }

    pub(super) fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }

    /// What it was asked last is to take these tokens back, both of them.
    pub(super) fn takes_back(&self, n: u64) {
        let asked = self.asked();
        for ((path, form), kind) in asked[asked.len() - 2..].iter().zip(["refresh", "access"]) {
            assert!(
                path == "/revoke" && form.contains(&format!("token=canary-{kind}-{n}&")),
                "{path} {form}"
            );
        }
    }

    /// Everything that is asked next is answered so.
    pub(super) fn says(&self, status: u16, text: &str) {
        self.answers.lock().unwrap().push_back((status, text.to_owned()));
    }
}

pub(super) struct World {
    pub(super) connector: Connector,
    pub(super) store: Arc<dyn Store>,
    pub(super) time: Arc<Time>,
    pub(super) seen: Arc<Seen>,
    pub(super) bank: Arc<Bank>,
    pub(super) folder: TempDir,
    pub(super) settings: Settings,
    port: u16,
    _stop: watch::Sender<()>,
    _serving: JoinHandle<()>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(|store| Arc::new(store)).await
    }

    /// With a store in front of the one on the disk.
    pub(super) async fn with(wrap: impl FnOnce(Embedded) -> Arc<dyn Store>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = || Keys::new(&secret("0123456789abcdef0123456789abcdef"), []).unwrap();
        let path = folder.path().join("connections");
        create(&path, &keys()).unwrap();
        std::fs::write(folder.path().join("secret"), "canary-client-secret").unwrap();
        let store = wrap(Embedded::open(&path, keys()).unwrap());
        let bank = Bank::start().await;
        let settings = settings(&folder, &bank);
        let (time, seen) = (Arc::new(Time(AtomicU64::new(NOW))), Arc::new(Seen::default()));
        let connector = Connector::new(
            Arc::clone(&store),
            time.clone(),
            seen.clone(),
            "this process".into(),
            settings.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = watch::channel(());
        let served = connector.clone();
        let serving = tokio::spawn(async move { serve(&served, listener, || None, stopped).await });
        Self { connector, store, time, seen, bank, folder, settings, port, _stop: stop, _serving: serving }
    }

    /// A ticket's path.
    pub(super) async fn ticket(&self) -> String {
        self.ticket_for(&wanted(), None).await.unwrap()
    }

    pub(super) async fn ticket_for(
        &self,
        wanted: &Purpose,
        renews: Option<ConnectionId>,
    ) -> Result<String, Error> {
        let ticket = self.connector.ticket(wanted, &back(), renews).await?;
        Ok(ticket.url.strip_prefix("https://connect.example").unwrap().to_owned())
    }

    pub(super) async fn dial(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    pub(super) async fn raw(&self, request: &str) -> Page {
        let mut stream = self.dial().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Page { head: head.to_owned(), body: body.to_owned() }
    }

    pub(super) async fn get(&self, target: &str, fields: &str) -> Page {
        self.raw(&format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).await
    }

    pub(super) async fn post(&self, target: &str, fields: &str) -> Page {
        let request = format!("POST {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n{fields}\r\n");
        self.raw(&request).await
    }

    /// Presses a ticket's button.
    pub(super) async fn press(&self, ticket: &str) -> Page {
        self.post(ticket, "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Dest: document\r\nOrigin: null\r\n").await
    }

    /// A browser that is at the provider.
    pub(super) async fn away(&self) -> Browsing {
        let ticket = self.ticket().await;
        self.away_with(&ticket).await
    }

    pub(super) async fn away_with(&self, ticket: &str) -> Browsing {
        let page = self.press(ticket).await;
        assert_eq!(page.status(), 200, "{}", page.body);
        let (_, rest) = page.body.split_once(r#"content="0; url="#).unwrap();
        let url = rest.split_once('"').unwrap().0.replace("&amp;", "&");
        let cookie = page.field("set-cookie").unwrap();
        let (cookie, attributes) = cookie.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Max-Age=300; Secure; HttpOnly; SameSite=Lax");
        let (_, query) = url.split_once('?').unwrap();
        let state = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "state").unwrap().1;
        Browsing { state: state.into_owned(), url: url.clone(), cookie: cookie.to_owned() }
    }

    /// The browser comes back with these parameters beside its state.
    pub(super) async fn comes_back(&self, browsing: &Browsing, parameters: &str) -> Page {
        let target = format!("/callback?{parameters}&iss={ISSUER}&state={}", browsing.state);
        self.get(&target, &format!("Sec-Fetch-Dest: document\r\nCookie: a=b; {}\r\n", browsing.cookie)).await
    }

    /// The whole way; gives the id.
    pub(super) async fn connects(&self) -> ConnectionId {
        let browsing = self.away().await;
        let page = self.comes_back(&browsing, "code=canary-code").await;
        id_in(&page)
    }

    pub(super) fn events(&self) -> Vec<String> {
        self.seen.events.lock().unwrap().clone()
    }

    pub(super) fn waits(&self, seconds: u64) {
        self.time.goes_on(seconds);
    }
}

/// The id in a redirect to the return URL.
pub(super) fn id_in(page: &Page) -> ConnectionId {
    assert_eq!(page.status(), 303, "{}", page.body);
    let location = page.field("location").unwrap();
    let rest = location.strip_prefix("https://app.example/done?tab=2&connection=").unwrap();
    rest.strip_suffix("&state=session+%261").unwrap().parse().unwrap()
}

pub(super) struct Browsing {
    pub(super) state: String,
    pub(super) url: String,
    pub(super) cookie: String,
}

pub(super) struct Page {
    pub(super) head: String,
    pub(super) body: String,
}

impl Page {
    pub(super) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(named, _)| *named == name)
            .map(|(_, value)| value)
    }
}

pub(super) fn secret(text: &str) -> Arc<Secret> {
    Arc::new(Secret::new(text.into()).unwrap())
}

pub(super) fn wanted() -> Purpose {
    Purpose::of_user()
}

pub(super) fn back() -> Return {
    Return { url: RETURN.into(), state: Some("session &1".into()) }
}

pub(super) fn settings(folder: &TempDir, bank: &Bank) -> Settings {
    let at = |path: &str| Endpoint::parse(&format!("http://127.0.0.1:{}{path}", bank.port)).unwrap();
    let provider = |name: &str, redirect_uri: &str, revocation: bool| {
        let settings = config::Provider {
            name: name.into(),
            place: ProviderPlace::Written(Endpoints {
                issuer: Some(ISSUER.into()),
                names_itself: true,
                authorization: Some(at("/authorize")),
                token: at("/token"),
                revocation: revocation.then(|| at("/revoke")),
            }),
            client_id: "gateway".into(),
            client_secret: Reference::file(folder.path().join("secret")),
            client_authentication: ClientAuthentication::Basic,
            scopes: vec!["read".into(), "write".into()],
            audience: None,
            resource: None,
            authorization_parameters: BTreeMap::new(),
            token_parameters: BTreeMap::new(),
            redirect_uri: Some(redirect_uri.into()),
            reuse_grace: Duration::ZERO,
            ca_file: None,
            connect_timeout: Duration::from_secs(60),
            // Longer than a browser is kept waiting.
            read_timeout: Duration::from_secs(300),
        };
        (name.to_owned(), Arc::new(Provider::new(Arc::new(settings), None)))
    };
    Settings {
        base: Some(Endpoint::parse("https://connect.example/").unwrap()),
        return_urls: vec![RETURN.into(), "https://app.example/other".into()],
        ticket_life: Duration::from_secs(600),
        attempt_life: Duration::from_secs(300),
        providers: [
            provider("bank", "https://connect.example/callback", true),
            provider("shop", "https://connect.example/callback/shop", false),
            provider("elsewhere", "https://other.example/callback", true),
        ]
        .into(),
    }
}
