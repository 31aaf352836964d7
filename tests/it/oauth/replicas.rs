//! Three gateways on one database, killed and started again while requests go on, with a bank that fails and is slow: no
//! consent is lost but those whose answer came to a process that was killed before it could store it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use mxgate::stand_in::certificate::ServerCertificate;
use serde_json::Value;

use super::bank::Bank;
use crate::harness::{Output, PATIENCE, Setup, mxgate};

#[expect(dead_code, reason = "its other users are the store's own tests")]
#[path = "../../../src/oauth/store/postgres/tests/cluster.rs"]
mod cluster;

use self::cluster::{Cluster, DATABASE, PASSWORD, Pems, ROLE};

const REPLICAS: usize = 3;

/// Access tokens live so many seconds.
const LIFE: u32 = 5;

/// Between two kills, at most.
const PAUSE_MAX: u64 = 4000;

/// A short one here; `tests/full` runs a longer one by setting `MXGATE_TEST_REPLICAS_SECONDS`, with 100 connections.
#[expect(clippy::disallowed_methods, reason = "this is no gateway: it is how long the test runs")]
fn measure() -> (usize, Duration) {
    match std::env::var("MXGATE_TEST_REPLICAS_SECONDS").ok().and_then(|text| text.parse().ok()) {
        Some(seconds) => (100, Duration::from_secs(seconds)),
        None => (12, Duration::from_secs(20)),
    }
}

/// One gateway, which is killed and comes back.
struct Replica {
    setup: Setup,
    number: usize,
    running: Mutex<Option<Child>>,
    /// Its proxy's address; it may be down.
    address: Mutex<SocketAddr>,
    said: Mutex<String>,
}

impl Replica {
    fn new(bank: &Bank, database: &Cluster, number: usize) -> Self {
        let setup = bank.setup("");
        setup.file("db-password", PASSWORD);
        setup.file("db-ca.pem", &std::fs::read_to_string(database.path("ca.pem")).unwrap());
        let folder = setup.folder().display().to_string();
        let store = format!("file = \"{folder}/connections\"\n");
        let postgres = format!(
            "[connections.postgres]\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"{DATABASE}\"\nuser = \"{ROLE}\"\n\
             password = \"file:{folder}/db-password\"\nca_file = \"{folder}/db-ca.pem\"\n",
            database.port()
        );
        let mut setup = setup.table(&postgres);
        setup.tables = setup.tables.replace(&store, "").replace(
            "client_id = \"gateway\"",
            &format!("client_id = \"gateway\"\ntoken_parameters = {{ replica = \"{number}\" }}"),
        );
        setup.file("mxgate.toml", &setup.configuration());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        Self { setup, number, running: Mutex::default(), address: nowhere.into(), said: Mutex::default() }
    }

    fn start(&self) {
        let config = self.setup.folder().join("mxgate.toml");
        let mut child = Command::new(env!("CARGO_BIN_EXE_mxgate"))
            .args(["run", "--config"])
            .arg(config)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Output::collect(child.stderr.take().unwrap());
        let up = said.wait_for(|line| line.contains("mxgate is up"));
        let up: Value = serde_json::from_str(&up).unwrap();
        let listeners = up["fields"]["listeners"].as_str().unwrap();
        *self.address.lock().unwrap() = listeners.split(", ").next().unwrap().parse().unwrap();
        *self.running.lock().unwrap() = Some(child);
        let before = said.text();
        self.said.lock().unwrap().push_str(&before);
    }

    /// Kills it; when that was, in milliseconds since 1970.
    fn kill(&self) -> u64 {
        let mut child = self.running.lock().unwrap().take().unwrap();
        let at = now();
        child.kill().unwrap();
        child.wait().unwrap();
        at
    }

    /// What a command said; in `Err` that of one that failed.
    fn command(&self, arguments: &[&str]) -> Result<String, String> {
        let socket = self.setup.control_socket();
        let done = mxgate(&[&["--socket", socket.to_str().unwrap()], arguments].concat(), &[]);
        let said = |bytes| String::from_utf8(bytes).unwrap();
        if done.status.success() { Ok(said(done.stdout)) } else { Err(said(done.stderr)) }
    }

    /// Status and code of a `GET`; `None`: nobody was there, or it went away.
    fn get(&self, id: &str, hang_up: bool) -> Option<(u16, String)> {
        let address = *self.address.lock().unwrap();
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "GET /api/accounts HTTP/1.1\r\nHost: localhost\r\nx-mxgate-connection: {id}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).ok()?;
        if hang_up {
            return None;
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let code = answer.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next());
        Some((status, code.unwrap_or_default().to_owned()))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Numbers that look random, and are the same for one seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What is known in the end.
struct Seen {
    /// Which replica was killed, and when.
    kills: Vec<(usize, u64)>,
    /// How often requests were answered so.
    answers: BTreeMap<(u16, String), u64>,
    /// Accounts whose user has to consent again.
    lost: BTreeSet<String>,
}

/// A connection, and the bank's account that it is for. One that is lost gives its place to another, so that as many are at
/// risk in the end as in the beginning.
type Place = Mutex<(String, String)>;

fn database() -> Cluster {
    let tls = ServerCertificate::for_default_names().unwrap();
    let cluster = Cluster::start(&Pems { certificate: tls.pem(), key: tls.key_pem() });
    std::fs::write(cluster.path("ca.pem"), tls.authority_pem()).unwrap();
    cluster
}

/// Consents anew until a replica that lives has stored it: a consent whose import was cut off is of no further use.
fn imported(replicas: &[Replica], bank: &Bank, number: &AtomicU64) -> (String, String) {
    let end = Instant::now() + PATIENCE;
    for replica in replicas.iter().cycle() {
        let account = format!("account-{}", number.fetch_add(1, Relaxed));
        let file: PathBuf = replica.setup.file("refresh-token", &bank.mint(&account));
        let whose = ["--provider", "bank", "--environment", "accounts", "--caller", "ledger", "--from-file"];
        let arguments = [&["connections", "import"], &whose[..], &[file.to_str().unwrap()]].concat();
        match replica.command(&arguments) {
            Ok(id) => return (account, id.trim().to_owned()),
            Err(said) => assert!(Instant::now() < end, "nobody imports: {said}"),
        }
    }
    unreachable!("there are replicas")
}

fn traffic(replicas: &[Replica], bank: &Bank, count: usize, lasts: Duration) -> (Vec<Place>, Seen) {
    let (over, seeds, numbers) = (AtomicBool::new(false), AtomicU64::new(now() | 1), AtomicU64::new(0));
    let places: Vec<Place> = (0..count).map(|_| imported(replicas, bank, &numbers).into()).collect();
    let answers = Mutex::new(BTreeMap::<_, u64>::new());
    let (mut kills, lost) = (Vec::new(), Mutex::new(BTreeSet::new()));
    let (lose, lose_now) = mpsc::channel::<(String, usize)>();
    thread::scope(|scope| {
        scope.spawn(|| {
            for (account, place) in lose_now {
                // Several requests may have seen it.
                if lost.lock().unwrap().insert(account) {
                    *places[place].lock().unwrap() = imported(replicas, bank, &numbers);
                }
            }
        });
        for _ in 0..6 {
            let lose = lose.clone();
            let (over, seeds, places, answers) = (&over, &seeds, &places, &answers);
            scope.spawn(move || {
                let mut dice = Dice(seeds.fetch_add(0x9e37_79b9, Relaxed));
                while !over.load(Relaxed) {
                    let replica = &replicas[dice.below(REPLICAS as u64) as usize];
                    let place = dice.below(count as u64) as usize;
                    let (account, id) = places[place].lock().unwrap().clone();
                    if let Some(answer) = replica.get(&id, dice.below(5) == 0) {
                        if answer.0 == 409 {
                            let _ = lose.send((account, place));
                        }
                        *answers.lock().unwrap().entry(answer).or_default() += 1;
                    }
                }
            });
        }
        drop(lose);
        let (end, mut dice) = (Instant::now() + lasts, Dice(now() | 1));
        while Instant::now() < end {
            // Not a wait for something: it is what the test does, one after the other at odd times.
            thread::park_timeout(Duration::from_millis(200 + dice.below(PAUSE_MAX)));
            let replica = &replicas[dice.below(REPLICAS as u64) as usize];
            kills.push((replica.number, replica.kill()));
            replica.start();
        }
        over.store(true, Relaxed);
    });
    (places, Seen { kills, answers: answers.into_inner().unwrap(), lost: lost.into_inner().unwrap() })
}

/// Asks for each connection until it is known whether it is lost: rests of refreshes that failed take up to a minute.
fn lost(replicas: &[Replica], places: &[Place]) -> BTreeSet<String> {
    let mut lost = BTreeSet::new();
    for place in places {
        let (account, id) = &*place.lock().unwrap();
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            match replicas[0].get(id, false) {
                Some((200, _)) => break,
                Some((409, code)) if code == "reconnect_required" => {
                    lost.insert(account.clone());
                    break;
                }
                other => assert!(Instant::now() < end, "{account}: {other:?}"),
            }
            thread::park_timeout(Duration::from_millis(200));
        }
    }
    lost
}

/// Accounts whose last answer of the bank came to a process that was killed before the token in it was used or stored: when
/// somebody sent the token of before once more, that process was dead. The others that the bank knows no more are told.
fn answered_to_the_dead(bank: &Bank, kills: &[(usize, u64)]) -> (BTreeSet<String>, Vec<String>) {
    let lines = bank.lines();
    let at = |line: &Value| line["at"].as_u64().unwrap();
    let given = || lines.iter().filter(|line| line["token"] == "given" && line["type"] == "refresh_token");
    let used: BTreeSet<&str> = given().filter_map(|line| line["used"].as_str()).collect();
    // The grant of a token, which the bank does not know any more when it has ended.
    let grant_of = |token: &str| {
        let line = lines.iter().find(|line| line["jti"] == token || line["next"] == token)?;
        line.get("minted").or_else(|| line.get("grant"))?.as_str()
    };
    let ended = |grant: &str, by| lines.iter().any(|line| line["revoked"] == grant && at(line) <= by);
    let (mut explained, mut others) = (BTreeSet::new(), Vec::new());
    for refused in lines.iter().filter(|line| line["token"] == "invalid_grant") {
        let last = given().rfind(|line| line["grant"] == refused["grant"] && at(line) <= at(refused));
        let Some(last) = last else {
            // The process that was told of its end was killed then, and the next one asked.
            let grant = refused["sent"].as_str().and_then(grant_of);
            if !grant.is_some_and(|grant| ended(grant, at(refused))) {
                others.push(format!("{refused} of a grant that has not ended"));
            }
            continue;
        };
        let is_used = last["next"].as_str().is_some_and(|next| used.contains(next));
        let replica = last["replica"].as_str().unwrap_or_default();
        // The bank may have been at it already when the process died, and answered a while later.
        let was_killed = kills.iter().any(|(number, when)| {
            number.to_string() == replica && *when + 5000 > at(last) && *when <= at(refused)
        });
        if !is_used && was_killed {
            explained.insert(last["account"].as_str().unwrap().to_owned());
        } else {
            others.push(format!("{last} {refused}"));
        }
    }
    (explained, others)
}

#[test]
fn no_consent_is_lost_but_what_was_answered_to_a_process_that_was_killed() {
    let (count, lasts) = measure();
    let (bank, database) = (Bank::failing(LIFE, "0.1", "400", None), database());
    let replicas: Vec<Replica> =
        (1..=REPLICAS).map(|number| Replica::new(&bank, &database, number)).collect();
    replicas.iter().for_each(Replica::start);
    let (places, mut seen) = traffic(&replicas, &bank, count, lasts);
    seen.lost.append(&mut lost(&replicas, &places));

    let revoked = bank
        .lines()
        .iter()
        .filter_map(|line| line["revoked"].as_str().map(str::to_owned))
        .collect::<BTreeSet<_>>();
    let (explained, others) = answered_to_the_dead(&bank, &seen.kills);
    let refreshes = bank.count("token", "given");
    eprintln!(
        "{} s, {count} connections: {} kills, {refreshes} refreshes, {} of them failed, answers {:?}; lost {}, answered to a \
         process that was killed {}, grants ended by reuse {}",
        lasts.as_secs(),
        seen.kills.len(),
        bank.count("token", "failed"),
        seen.answers,
        seen.lost.len(),
        explained.len(),
        revoked.len(),
    );
    assert_eq!(others, [] as [String; 0], "of the kills {:?}", seen.kills);
    assert_eq!(seen.lost, explained, "what is lost is what was answered to the dead");
    assert_eq!(revoked.len(), seen.lost.len(), "no grant was ended by reuse beside these");
    let bad: Vec<Value> = bank.bad_calls().into_iter().filter(|line| line["api"] != "unknown").collect();
    assert_eq!(bad, [] as [Value; 0], "no request was bare, or had an expired token");
    assert!(refreshes > count && seen.kills.len() > 2, "something happened");
    assert!(
        seen.answers.get(&(200, String::new())).is_some_and(|served| *served > 100),
        "{:?}",
        seen.answers
    );
    for (status, code) in seen.answers.keys() {
        let expected = [(200, ""), (503, "token_unavailable"), (409, "reconnect_required")];
        assert!(expected.contains(&(*status, code.as_str())), "{status} {code}");
    }
    let dump = database.dump("mxgate");
    let tokens = bank.lines();
    let tokens = tokens
        .iter()
        .flat_map(|line| ["jti", "used", "next"].map(|key| line[key].as_str().map(str::to_owned)));
    let mut tokens = tokens.flatten().peekable();
    assert!(tokens.peek().is_some());
    tokens.for_each(|token| assert!(!dump.contains(&token), "a token is in the database"));
}
