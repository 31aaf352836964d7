//! Busy connections are spread over the workers, whatever else is open.
//!
//! Which worker served a request is told by its id: the upper 16 bits of the second half.

use crate::harness::{Answer, Client, Gateway, Setup, mx, until};

/// What is asked of two workers that share four busy connections.
const SHARE_MIN: f64 = 0.35;

fn gateway(mx: &mxgate::stand_in::Running, workers: usize) -> Gateway {
    Setup::new(mx).table(&format!("[process]\nworkers = {workers}")).start()
}

fn worker(answer: &Answer) -> usize {
    let id = answer.header("x-mxgate-request-id").expect("an id");
    usize::from_str_radix(&id[16..20], 16).expect("hex digits")
}

/// A connection with a request in flight, until [`finish`]: the gateway waits for its body.
fn busy(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    begin(&mut client);
    client
}

fn begin(client: &mut Client) {
    client.request("POST /users HTTP/1.1\nExpect: 100-continue\nContent-Length: 11", "");
    assert_eq!(client.one_answer(false).status, 100);
}

/// Its worker.
fn finish(client: &mut Client) -> usize {
    client.raw(b"{\"user\":{}}");
    worker(&client.answer())
}

/// A connection that has nothing to do, as far as its worker knows: both have come round since it was opened.
fn idle(gateway: &Gateway, probes: &mut [Client; 2]) -> Client {
    let open = gateway.metric("mxgate_caller_connections_open");
    let client = gateway.connect();
    until("it has a worker", || gateway.metric("mxgate_caller_connections_open") == open + 1.0);
    come_round(probes);
    client
}

/// Both workers have served a request since.
fn come_round(probes: &mut [Client; 2]) {
    let workers = probes.each_mut().map(get);
    assert_ne!(workers[0], workers[1], "a probe on each worker");
}

fn get(client: &mut Client) -> usize {
    client.request("GET /users HTTP/1.1", "");
    let answer = client.answer();
    assert_eq!(answer.status, 200);
    worker(&answer)
}

/// The smaller of two workers' parts of these connections' requests.
fn smallest_share(clients: &mut [Client]) -> f64 {
    let mut requests = [0.0_f64, 0.0];
    for client in clients.iter_mut() {
        requests[finish(client)] += 1.0;
    }
    for _ in 0..10 {
        for client in clients.iter_mut() {
            requests[get(client)] += 1.0;
        }
    }
    requests[0].min(requests[1]) / (requests[0] + requests[1])
}

#[test]
fn four_that_are_opened_one_after_another() {
    let mx = mx();
    let gateway = gateway(&mx, 2);
    let mut clients: Vec<Client> = (0..4).map(|_| busy(&gateway)).collect();
    assert!(smallest_share(&mut clients) >= SHARE_MIN);
}

#[test]
fn with_one_worker_the_share_shows_it() {
    let mx = mx();
    let gateway = gateway(&mx, 1);
    let mut clients: Vec<Client> = (0..4).map(|_| busy(&gateway)).collect();
    assert!(smallest_share(&mut clients) < SHARE_MIN);
}

#[test]
fn four_among_others_that_have_nothing_to_do() {
    let mx = mx();
    let gateway = gateway(&mx, 2);
    let mut probes = [gateway.connect(), gateway.connect()];
    come_round(&mut probes);
    let mut idlers = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..4 {
        idlers.push(idle(&gateway, &mut probes));
        clients.push(busy(&gateway));
    }
    assert!(smallest_share(&mut clients) >= SHARE_MIN);
}

/// A pool that its owner fills before it asks for anything, while one other request is in flight.
#[test]
fn many_that_are_opened_before_they_are_used() {
    let mx = mx();
    let gateway = gateway(&mx, 2);
    let mut clients = vec![busy(&gateway)];
    let mut pool = Vec::new();
    for open in 2..=40 {
        pool.push(gateway.connect());
        until("it has a worker", || gateway.metric("mxgate_caller_connections_open") == f64::from(open));
    }
    pool.iter_mut().for_each(begin);
    clients.extend(pool);
    assert!(smallest_share(&mut clients) >= SHARE_MIN);
}

#[test]
fn two_take_the_places_of_two_that_were_closed() {
    let mx = mx();
    let gateway = gateway(&mx, 2);
    let mut clients: Vec<Client> = (0..4).map(|_| busy(&gateway)).collect();
    let workers: Vec<usize> = clients.iter_mut().map(finish).collect();
    let of_another = clients.into_iter().zip(&workers).filter(|&(_, worker)| *worker != workers[0]);
    let mut left: Vec<Client> = of_another.map(|(client, _)| client).collect();
    assert_eq!(left.len(), 2);
    until("two are gone", || gateway.metric("mxgate_caller_connections_open") == 2.0);
    left.iter_mut().for_each(begin);
    left.extend([busy(&gateway), busy(&gateway)]);
    assert!(smallest_share(&mut left) >= SHARE_MIN);
}
