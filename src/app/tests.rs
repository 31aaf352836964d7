//! What becomes of the gateway when one of its workers does not do its work. That takes a defect, so a worker is told
//! to have one, in a child process: a whole gateway with real sockets.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    process::{Command, Output},
    sync::atomic::Ordering::SeqCst,
    time::Instant as Clock,
};

use rustix::process::{Signal as Kill, getpid, kill_process};

use super::*;
use crate::{
    config::overrides::Overrides,
    control::health::SILENCE_MAX,
    metrics::TICK,
    worker::tests::{ORDER, PANIC, STICK, STUCK},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn in_a_child(test: &str) -> (Output, String) {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("app::tests::{test}"), "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    (run, said)
}

#[test]
fn when_a_worker_ends_no_connection_is_lost_and_the_process_ends_in_order() {
    let (run, said) = in_a_child("in_a_child_a_worker_ends");
    assert!(run.status.success(), "{said}");
    assert!(said.contains("panicked at src/worker.rs"), "{said}");
    assert!(said.contains("ERROR") && said.contains("a worker or a listener has ended by itself"), "{said}");
}

#[test]
fn a_stuck_worker_makes_the_gateway_not_live_until_it_goes_on() {
    let (run, said) = in_a_child("in_a_child_a_worker_is_stuck");
    assert!(run.status.success(), "{said}");
}

#[test]
#[ignore = "runs in a child process: it ends a gateway"]
fn in_a_child_a_worker_ends() {
    let (app, at) = gateway("drain_delay_ms = 1500");
    let asking = beside(move || {
        let mut kept = vec![ask(at.listener).unwrap()];
        ORDER.store(PANIC, SeqCst);
        while ORDER.load(SeqCst) != 0 {
            thread::yield_now();
        }
        // The dead worker has the fewest connections from now on, since the other's are kept.
        let begun = Clock::now();
        while begun.elapsed() < Duration::from_secs(1) {
            match ask(at.listener) {
                Ok(answered) => kept.push(answered),
                // The one that was handed over while it died may be lost.
                Err(error) => assert!(begun.elapsed() < Duration::from_millis(200), "lost: {error}"),
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        kept.len()
    });
    let ended = app.run();
    assert!(matches!(ended, Err(Error::Lost)), "{ended:?}");
    assert!(asking.join().unwrap() > 20);
}

#[test]
#[ignore = "runs in a child process: it ends a gateway"]
fn in_a_child_a_worker_is_stuck() {
    let (app, at) = gateway("");
    let asking = beside(move || {
        assert_eq!(status(at.health), 200);
        ORDER.store(STICK, SeqCst);
        let begun = Clock::now();
        until(503, at.health);
        // It came round the last time up to a tick before.
        assert!(begun.elapsed() > SILENCE_MAX - 2 * TICK, "{:?}", begun.elapsed());
        assert!(begun.elapsed() < STUCK, "{:?}", begun.elapsed());
        until(200, at.health);
        assert!(begun.elapsed() > STUCK - Duration::from_millis(100), "{:?}", begun.elapsed());
        kill_process(getpid(), Kill::TERM).unwrap();
    });
    app.run().unwrap();
    asking.join().unwrap();
}

#[derive(Clone, Copy)]
struct At {
    listener: SocketAddr,
    health: SocketAddr,
}

/// Two workers, and an environment that nobody asks for anything. The process ends if it does not end by itself.
fn gateway(process: &str) -> (App, At) {
    thread::spawn(|| {
        let begun = Clock::now();
        while let Some(left) = PATIENCE.checked_sub(begun.elapsed()) {
            thread::park_timeout(left);
        }
        std::process::exit(1);
    });
    let folder = tempfile::tempdir().unwrap().keep();
    std::fs::write(folder.join("key"), "k3y").unwrap();
    let text = format!(
        "allow = [\"127.0.0.0/8\"]\n[[caller]]\nname = \"test\"\nnetworks = [\"127.0.0.0/8\"]\ngrant = {{ test = [\"read\"] }}\n[[listener]]\naddress = \"127.0.0.1:0\"\nenvironment = \"test\"\n\
         [environment.test]\nurl = \"https://127.0.0.1:1\"\n\
         credential = {{ kind = \"basic\", client_id = \"id\", api_key = \"file:{}/key\" }}\n\
         [health]\naddress = \"127.0.0.1:0\"\n[record]\ndestination = \"off\"\n\
         [process]\nworkers = 2\n{process}\n",
        folder.display()
    );
    let config = Config::parse(&text, "mxgate.toml", &Overrides::none()).unwrap().config;
    let log = crate::log::init(&config.log, io::stderr()).unwrap();
    let app = App::bind(config, &folder.join("mxgate.toml"), log).unwrap();
    let health = app.control.health.as_ref().unwrap().0.local_addr().unwrap();
    let at = At { listener: app.addresses()[0], health };
    (app, at)
}

/// A thread whose failure fails the process: nobody would end the gateway otherwise.
fn beside<T: Send + 'static>(asking: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(|| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(asking))
            .unwrap_or_else(|_| std::process::exit(1))
    })
}

/// The status of an answer, and the connection that it came on.
fn ask(address: SocketAddr) -> io::Result<(u16, TcpStream)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let text = std::str::from_utf8(&head).map_err(io::Error::other)?;
    let status = text.rsplit(' ').next().unwrap_or_default().parse().map_err(io::Error::other)?;
    Ok((status, stream))
}

fn status(address: SocketAddr) -> u16 {
    ask(address).unwrap().0
}

fn until(wanted: u16, health: SocketAddr) {
    let begun = Clock::now();
    while status(health) != wanted {
        assert!(begun.elapsed() < PATIENCE, "it never became {wanted}");
        thread::park_timeout(Duration::from_millis(20));
    }
}
