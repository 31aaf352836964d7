//! Callers and upstreams that take much and give nothing: meanwhile good requests go on, memory is bounded, nothing
//! spins, and afterwards every descriptor is back.
//!
//! Bounds on memory are for the build that tests run, and far below what an unbounded buffer would take. A thread that
//! spins has a core, or its share of a busy one: a tenth of a core over the time of a look is far below either.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use mxgate::stand_in::Running;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::{
    harness::{Client, Gateway, Setup, mx, until},
    raw_upstream::{RawUpstream, ok},
};

const GET: &str = "GET /users HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// How long the processor time is looked at, and how much of it a gateway may use that only waits.
const LOOK: Duration = Duration::from_millis(1500);
const LOOK_CPU_MAX: Duration = Duration::from_millis(150);

/// A gateway, what it used before, and a caller who is no burden.
struct Pressed {
    gateway: Gateway,
    good: Client,
    descriptors: usize,
    resident: u64,
}

impl Pressed {
    fn start(setup: Setup) -> Self {
        let gateway = setup.start();
        let mut pressed = Self { good: gateway.connect(), gateway, descriptors: 0, resident: 0 };
        pressed.good_requests_go_on();
        pressed.descriptors = pressed.gateway.descriptors();
        pressed.resident = pressed.gateway.resident();
        pressed
    }

    /// On the old connection and on new ones.
    fn good_requests_go_on(&mut self) {
        let begun = Instant::now();
        for _ in 0..20 {
            self.a_good_request();
            let mut new = self.gateway.connect();
            new.raw(GET.as_bytes());
            assert_eq!(new.answer().status, 200);
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "40 good requests took {:?}", begun.elapsed());
    }

    fn a_good_request(&mut self) {
        self.good.raw(GET.as_bytes());
        assert_eq!(self.good.answer().status, 200);
    }

    /// Bytes more than before.
    fn memory_is_bounded(&self, growth_max: u64) -> u64 {
        let growth = self.gateway.resident().saturating_sub(self.resident);
        assert!(growth < growth_max, "{} KiB more memory", growth >> 10);
        growth
    }

    /// The time that it used while nothing happened.
    fn nothing_spins(&self) -> Duration {
        let before = self.gateway.cpu();
        wait(LOOK);
        let used = self.gateway.cpu() - before;
        assert!(used <= LOOK_CPU_MAX, "{used:?} of processor time in {LOOK:?}: something spins");
        used
    }

    fn descriptors_come_back(&self) {
        // The pool may keep a connection for each worker.
        let pooled = thread::available_parallelism().map_or(1, usize::from);
        until("descriptors are back", || self.gateway.descriptors() <= self.descriptors + pooled);
    }

    fn open(&self) -> f64 {
        self.gateway.metric("mxgate_caller_connections_open ")
    }
}

/// Lets time pass, where the passing of time is what the test is about.
fn wait(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

fn with_limits(mx: &Running, limits: &str) -> Setup {
    Setup::new(mx).table(&format!("[limits]\n{limits}"))
}

fn reset(client: Client) {
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Whether this process may have so many descriptors; it takes what it may have.
fn may_open(descriptors: u64) -> bool {
    let most = getrlimit(Resource::Nofile).maximum;
    // Each test has a process of its own, or shares it with others that want no fewer.
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    most.is_none_or(|most| most >= descriptors)
}

#[test]
fn five_hundred_slow_heads() {
    let mx = mx();
    let mut pressed = Pressed::start(with_limits(&mx, "header_read_timeout_ms = 6000"));
    let mut slow: Vec<_> = (0..500).map(|_| pressed.gateway.connect()).collect();
    for client in &mut slow {
        client.raw(b"GET /users HTTP/1.1\r\nX: y");
    }
    until("all are open", || pressed.open() >= 501.0);
    pressed.good_requests_go_on();
    let used = pressed.nothing_spins();
    let growth = pressed.memory_is_bounded(32 << 20);
    println!("500 slow heads: {} KiB more memory, {used:?} in {LOOK:?}", growth >> 10);
    for client in &mut slow {
        assert_eq!(client.answer().status, 408);
    }
    drop(slow);
    pressed.descriptors_come_back();
    assert_eq!(pressed.gateway.metric("mxgate_refusals_total{code=\"head_timeout\"}"), 500.0);
}

/// Half of them have had an answer, half have never said a word.
#[test]
fn five_thousand_idle_connections() {
    const COUNT: usize = 5_000;
    if !may_open(COUNT as u64 + 200) {
        eprintln!("NOT TESTED: this process may not open {COUNT} connections (ulimit -Hn)");
        return;
    }
    let mx = mx();
    let limits = "connections_max = 6000\nconnections_per_address_max = 6000\n\
                  idle_timeout_ms = 300000\nheader_read_timeout_ms = 300000";
    let mut pressed = Pressed::start(with_limits(&mx, limits));
    let mut idle: Vec<_> = (0..COUNT).map(|_| pressed.gateway.connect()).collect();
    for client in idle.iter_mut().step_by(2) {
        client.raw(GET.as_bytes());
        assert_eq!(client.answer().status, 200);
    }
    until("all are open", || pressed.open() >= COUNT as f64);
    pressed.good_requests_go_on();
    // Their buffers are given back after half a second.
    wait(Duration::from_secs(1));
    let used = pressed.nothing_spins();
    let growth = pressed.memory_is_bounded(COUNT as u64 * (16 << 10));
    println!("5000 idle: {} KiB more memory, {used:?} in {LOOK:?}", growth >> 10);
    // They are as good as new.
    for client in idle.iter_mut().step_by(500) {
        client.raw(GET.as_bytes());
        assert_eq!(client.answer().status, 200);
    }
    drop(idle);
    pressed.descriptors_come_back();
}

#[test]
fn readers_that_stall_on_16_mb() {
    const COUNT: usize = 16;
    let mx = mx();
    let mut pressed =
        Pressed::start(with_limits(&mx, "idle_timeout_ms = 300000\nheader_read_timeout_ms = 300000"));
    let request = "GET /users HTTP/1.1\r\nHost: localhost\r\nx-stand-in-big: 16000000\r\n\r\n";
    let mut stalled: Vec<_> = (0..COUNT).map(|_| pressed.gateway.connect()).collect();
    for client in &mut stalled {
        client.raw(request.as_bytes());
        assert_eq!(client.stream.read(&mut [0; 1]).unwrap(), 1);
    }
    pressed.good_requests_go_on();
    let used = pressed.nothing_spins();
    // A quarter of a gigabyte is under way. What is allowed is what `mxgate check` counts for each.
    let growth = pressed.memory_is_bounded(COUNT as u64 * ((128 + 384) << 10));
    println!("16 stalled readers: {} KiB more memory, {used:?} in {LOOK:?}", growth >> 10);
    // Who reads on gets all of it.
    let mut patient = stalled.pop().unwrap();
    let mut rest = 0;
    let mut piece = vec![0; 1 << 20];
    while rest < 16_000_000 {
        rest += patient.stream.read(&mut piece).unwrap();
    }
    drop(stalled);
    until("MX has nobody to answer", || pressed.open() <= 2.0);
    drop(patient);
    pressed.descriptors_come_back();
}

/// As much as a caller can make the gateway hold without MX: a request that waits in line, and others behind it.
#[test]
fn callers_that_wait_in_line_and_send_on() {
    const COUNT: usize = 200;
    let mx = mx();
    let setup = with_limits(&mx, "").in_environment("connections_max = 1\nconnect_timeout_ms = 60000");
    let gateway = setup.table("[process]\nworkers = 1").start();
    let mut first = gateway.connect();
    first.raw(GET.as_bytes());
    assert_eq!(first.answer().status, 200);
    let (descriptors, resident) = (gateway.descriptors(), gateway.resident());
    first.raw(b"GET /users HTTP/1.1\r\nHost: localhost\r\nx-stand-in-slow-head: 60000\r\n\r\n");
    until("the only place is taken", || mx.received() == 2);
    let behind =
        format!("GET /users HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "y".repeat(8_000)).repeat(64);
    let waiting: Vec<_> = (0..COUNT)
        .map(|_| {
            let mut client = gateway.connect();
            client.stream.set_nonblocking(true).unwrap();
            // Until the kernel takes no more either.
            let _ = client.stream.write_all(behind.as_bytes());
            client
        })
        .collect();
    until("all wait", || gateway.metric("mxgate_caller_connections_open ") > COUNT as f64);
    let before = gateway.cpu();
    wait(LOOK);
    let used = gateway.cpu() - before;
    let growth = gateway.resident().saturating_sub(resident);
    println!("200 in line: {} KiB more memory, {used:?} in {LOOK:?}", growth >> 10);
    // What `mxgate check` counts for each.
    assert!(growth < (COUNT as u64 * 128) << 10, "{} KiB more memory", growth >> 10);
    assert!(used <= LOOK_CPU_MAX, "{used:?}: something spins");
    // An orderly end would wait, unseen, behind what nobody takes.
    waiting.into_iter().for_each(reset);
    until("they are forgotten", || gateway.metric("mxgate_caller_connections_open ") <= 1.0);
    drop(first);
    until("descriptors are back", || gateway.descriptors() <= descriptors);
    assert_eq!(mx.received(), 2, "who left the line was not asked for");
}

#[test]
fn a_thousand_connects_that_reset() {
    let mx = mx();
    let mut pressed = Pressed::start(with_limits(&mx, ""));
    for number in 0..1_000 {
        let mut client = pressed.gateway.connect();
        match number % 4 {
            0 => {}
            1 => client.raw(b"GET /users HTTP/1.1\r\nHo"),
            2 => client.raw(GET.as_bytes()),
            _ => client.raw(b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"),
        }
        reset(client);
        if number % 50 == 0 {
            pressed.a_good_request();
        }
    }
    pressed.good_requests_go_on();
    until("they are gone", || pressed.open() <= 2.0);
    let used = pressed.nothing_spins();
    let growth = pressed.memory_is_bounded(24 << 20);
    println!("1000 resets: {} KiB more memory, {used:?} in {LOOK:?}", growth >> 10);
    pressed.descriptors_come_back();
}

#[test]
fn uploads_and_downloads_that_are_aborted() {
    const COUNT: usize = 200;
    let mx = mx();
    let mut pressed = Pressed::start(with_limits(&mx, ""));
    let upload = [
        b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n".to_vec(),
        vec![b' '; 100_000],
    ]
    .concat();
    let download = b"GET /users HTTP/1.1\r\nHost: localhost\r\nx-stand-in-big: 16000000\r\n\r\n";
    for number in 0..2 * COUNT {
        let mut client = pressed.gateway.connect();
        if number % 2 == 0 {
            client.raw(&upload);
        } else {
            client.raw(download);
            assert!(client.stream.read(&mut [0; 4096]).unwrap() > 0);
        }
        if number % 4 < 2 {
            reset(client);
        }
        if number % 40 == 0 {
            pressed.a_good_request();
        }
    }
    pressed.good_requests_go_on();
    until("they are gone", || pressed.open() <= 2.0);
    let used = pressed.nothing_spins();
    let growth = pressed.memory_is_bounded(32 << 20);
    println!("400 aborted: {} KiB more memory, {used:?} in {LOOK:?}", growth >> 10);
    pressed.descriptors_come_back();
    let whole = mx.requests().iter().filter(|request| request.body.len() >= 5_000_000).count();
    assert_eq!(whole, 0, "half an upload is none");
}

/// The limit as a container would set it: at the start, for good. 64 descriptors are for the process, half of the
/// others for callers, so that there is one for what each of them asks; and half of those for one address.
#[test]
fn with_128_descriptors_a_flood_does_not_stop_good_requests() {
    let mx = mx();
    let mut setup = with_limits(&mx, "idle_timeout_ms = 300000\nheader_read_timeout_ms = 300000");
    setup.prelude = "ulimit -n 128".into();
    let mut pressed = Pressed::start(setup);
    let address = pressed.gateway.addresses[0];
    let flooding = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    let mut flood: Vec<Client> = (0..300).map(|_| Client::connect_from(flooding, address)).collect();
    wait(Duration::from_millis(300));
    pressed.good_requests_go_on();
    // The pool's connections close, so each of these needs a descriptor for a new one.
    for _ in 0..5 {
        mx.close_connections();
        pressed.a_good_request();
    }
    let used = pressed.nothing_spins();
    let lines = pressed.gateway.stderr.text().matches("cannot accept connections").count();
    assert!(lines <= 2, "{lines} lines");
    println!("128 descriptors: {} open, {used:?} in {LOOK:?}", pressed.gateway.descriptors());
    // Who came in stays in, and the others were told at once.
    let mut answered = 0;
    for client in &mut flood {
        let _ = client.stream.write_all(GET.as_bytes());
        answered += usize::from(client.stream.read(&mut [0; 12]).is_ok_and(|count| count > 0));
    }
    assert_eq!(answered, 16, "a quarter of what is free");
    drop(flood);
    until("they are gone", || pressed.gateway.descriptors() < 40);
    pressed.good_requests_go_on();
    pressed.descriptors_come_back();
}

/// The limit becomes lower than what is in use already: no cap of ours can foresee it.
#[test]
fn without_descriptors_it_waits_quietly_and_serves_again() {
    let mx = mx();
    let mut pressed = Pressed::start(with_limits(&mx, ""));
    let limit = pressed.gateway.descriptors() as u64 + 10;
    let pid = Pid::from_raw(pressed.gateway.pid().try_into().unwrap());
    let bounds = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(pid, Resource::Nofile, bounds).unwrap();
    let mut clients: Vec<_> = (0..40).map(|_| pressed.gateway.connect()).collect();
    pressed.gateway.stderr.wait_for(|line| line.contains("cannot accept connections"));
    // The kernel has completed the last one; nobody can serve it for now.
    let mut last = clients.pop().unwrap();
    last.raw(GET.as_bytes());
    let used = pressed.nothing_spins();
    last.stream.set_nonblocking(true).unwrap();
    assert_eq!(last.stream.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    last.stream.set_nonblocking(false).unwrap();
    let lines = pressed.gateway.stderr.text().matches("cannot accept connections").count();
    assert!(lines <= 2, "{lines} lines in a second or two");
    pressed.a_good_request();
    println!("no descriptors: {used:?} in {LOOK:?}");

    drop(clients);
    assert_eq!(last.answer().status, 200);
    drop(last);
    pressed.good_requests_go_on();
    pressed.descriptors_come_back();
}

/// They have said all they will, and do not go.
#[test]
fn half_closed_peers_are_let_go_and_cost_nothing_meanwhile() {
    let mx = mx();
    let mut pressed = Pressed::start(with_limits(&mx, ""));
    let starts: [&[u8]; 4] = [
        b"",
        b"GET /users HTTP/1.1\r\nHo",
        b"GET /users HTTP/1.1\r\nHost: localhost\r\nx-stand-in-slow-head: 60000\r\n\r\n",
        b"POST /users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    ];
    let mut halves: Vec<_> = (0..100)
        .map(|number| {
            let mut client = pressed.gateway.connect();
            client.raw(starts[number % starts.len()]);
            client.stream.shutdown(Shutdown::Write).unwrap();
            client
        })
        .collect();
    let used = pressed.nothing_spins();
    pressed.good_requests_go_on();
    until("they are let go", || pressed.open() <= 2.0);
    println!("half-closed callers: {used:?} in {LOOK:?}");
    pressed.descriptors_come_back();
    for client in &mut halves {
        let said = client.rest();
        assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn half_closed_upstreams_are_let_go_and_cost_nothing_meanwhile() {
    // It answers, says that it will say no more, and does not go.
    let upstream = RawUpstream::start(|_, wire| {
        wire.head()?;
        wire.say(ok("{}"))?;
        wire.tls.sock.shutdown(Shutdown::Write)?;
        wire.peer_leaves();
        Ok(())
    });
    let gateway = upstream.setup().table("[process]\nworkers = 1").start();
    // Its worker has come round: it has all that it has when idle.
    assert_eq!(gateway.get("/nothing", "").code(), "unknown_operation");
    let before = gateway.descriptors();
    let mut clients: Vec<_> = (0..20).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.raw(GET.as_bytes());
        assert_eq!(client.answer().status, 200);
    }
    let cpu = gateway.cpu();
    wait(LOOK);
    let used = gateway.cpu() - cpu;
    assert!(used <= LOOK_CPU_MAX, "{used:?}");
    println!("half-closed upstreams: {used:?} in {LOOK:?}");
    upstream.wait_for_ends(upstream.connections());
    drop(clients);
    until("descriptors are back", || gateway.descriptors() <= before + 1);
}

/// Each address has its own bound, and one that is at it takes nothing from another.
#[test]
fn a_flood_from_one_address_leaves_room_for_another() {
    let mx = mx();
    let limits = "connections_max = 100\nconnections_per_address_max = 50";
    let mut pressed = Pressed::start(with_limits(&mx, limits));
    let address: SocketAddr = pressed.gateway.addresses[0];
    let flood: Vec<_> =
        (0..500).map(|_| Client::connect_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)), address)).collect();
    until("it is at its bound", || pressed.open() >= 50.0);
    pressed.good_requests_go_on();
    let used = pressed.nothing_spins();
    println!("500 from one address: {used:?} in {LOOK:?}");
    drop(flood);
    pressed.descriptors_come_back();
}
