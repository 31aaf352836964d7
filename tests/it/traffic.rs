//! Requests that flow while something else happens.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::harness::Client;

/// Requests without a pause, until they are stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    failed: Arc<Mutex<Vec<(u16, String)>>>,
    thread: JoinHandle<()>,
}

impl Traffic {
    pub fn at(address: SocketAddr) -> Self {
        let (stop, served, failed) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<_>>>::default());
        let thread = {
            let (stop, served, failed) = (stop.clone(), served.clone(), failed.clone());
            thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    client.request("GET /users HTTP/1.1", "");
                    let answer = client.answer();
                    match answer.status {
                        200 => _ = served.fetch_add(1, Ordering::Relaxed),
                        status => failed.lock().unwrap().push((status, answer.code())),
                    }
                }
            })
        };
        Self { stop, served, failed, thread }
    }

    /// What failed.
    pub fn end(self) -> Vec<(u16, String)> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        eprintln!("{} requests were served", self.served.load(Ordering::Relaxed));
        self.failed.lock().unwrap().clone()
    }
}
