//! A Kubernetes secret volume, made exactly as kubelet makes one, and swapped again and again under load.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use mxgate::{stand_in::Running, vault::secret::Secret};
use serde_json::Value;

use crate::{
    harness::{CLIENT_ID, Client, Gateway, mx_with, until},
    secret_sources::{generation, two},
};

/// A folder as kubelet makes it for a secret: `KEY -> ..data/KEY`, `..data -> ..TIME`, swapped by a rename.
struct Volume(PathBuf);

impl Volume {
    fn write(&self, version: usize, files: &[(&str, &str)]) {
        let folder = format!("..2026_11_30_00_00_00.{version:09}");
        fs::create_dir(self.0.join(&folder)).unwrap();
        fs::set_permissions(self.0.join(&folder), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, text) in files {
            let path = self.0.join(&folder).join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        let old = fs::read_link(self.0.join("..data"));
        symlink(&folder, self.0.join("..data_tmp")).unwrap();
        fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
        for (name, _) in files.iter().filter(|(name, _)| !self.0.join(name).exists()) {
            symlink(format!("..data/{name}"), self.0.join(name)).unwrap();
        }
        // kubelet removes the old folder right after the swap.
        if let Ok(old) = old {
            fs::remove_dir_all(self.0.join(old)).unwrap();
        }
    }
}

const SWAPS: usize = 200;

/// Keys come again after so many swaps: the gateway masks all that it has had of late, which takes time in a debug build.
const VERSIONS: usize = 8;

/// Keys of one version in every environment of one volume, never of two.
#[test]
fn two_hundred_swaps_of_a_kubernetes_volume_under_load_fail_nothing_and_mix_nothing() {
    let mx = mx_with(|options| {
        options.requests_kept = 40_000;
        let environment = &mut options.environments[0];
        for version in 0..VERSIONS {
            environment.api_keys.extend([key("a", version), key("b", version)]);
        }
        environment.bearer_tokens.extend((0..VERSIONS).map(|version| key("t", version)));
    });
    let mut setup = two(&mx);
    let folder = setup.folder().join("volume");
    fs::create_dir(&folder).unwrap();
    let volume = Volume(folder.clone());
    let write = |version: usize| {
        let keys = [key("a", version), key("b", version), key("t", version)];
        volume.write(version, &[("a", &keys[0]), ("b", &keys[1]), ("t", &keys[2])]);
    };
    write(0);
    for (from, to) in [("other-key", "b"), ("key", "a"), ("token", "t")] {
        let own = format!("file:{}/{from}\"", setup.folder().display());
        setup.environments = setup.environments.replace(&own, &format!("file:{}/{to}\"", folder.display()));
    }
    // Looks at every tenth of a second, so that the test does not take minutes.
    let gateway = setup.table("[file]\nrefresh_ms = 100").start();
    let load = Load::start(&gateway);
    let mut waits = Vec::new();
    for version in 1..=SWAPS {
        let swapped = Instant::now();
        write(version);
        let wanted = ["a", "b"].map(|name| fingerprint(&key(name, version)));
        until("the swap is in force", || {
            // What is in use, not what was read.
            let status = gateway.status();
            let used =
                status["environments"].as_array().unwrap().iter().map(|one| one["fingerprint"].clone());
            let mut used: Vec<Value> = used.collect();
            // By their names: "other" and "test".
            used.reverse();
            used == wanted
        });
        waits.push(swapped.elapsed());
    }
    let before = load.served.load(Relaxed);
    until("the last version carries requests", || load.served.load(Relaxed) > before + 10);
    let served = load.end();
    waits.sort_unstable();
    let (median, slowest) = (waits[SWAPS / 2], waits[SWAPS - 1]);
    println!("{SWAPS} swaps under {served} requests; in force after {median:?} (median) to {slowest:?}");
    // Not the slowest: other tests may hold both cores for a while.
    assert!(median < Duration::from_secs(2), "{median:?}");
    assert!(served >= SWAPS as u64, "hardly any traffic: {served}");
    assert_eq!(gateway.metric("mxgate_failures_total") + gateway.metric("mxgate_refusals_total"), 0.0);
    assert_eq!(generation(&gateway), SWAPS as u64 + 1, "one swap, one snapshot");
    mixed_nothing(&mx);
}

fn key(name: &str, version: usize) -> String {
    format!("k3y-{name}-{:03}-of-the-volume", version % VERSIONS)
}

fn fingerprint(value: &str) -> String {
    Secret::new(value.into()).unwrap().fingerprint().to_string()
}

/// In the order in which they came, keys only ever become newer, in both environments alike.
fn mixed_nothing(mx: &Running) {
    // Counted on from version to version, although their keys come again.
    let (mut newest, mut seen) = (0, 0);
    for request in mx.requests() {
        let sent = request.headers["authorization"].to_str().unwrap();
        let pair = STANDARD.decode(sent.strip_prefix("Basic ").unwrap()).unwrap();
        let pair = String::from_utf8(pair).unwrap();
        let key = pair.strip_prefix(&format!("{CLIENT_ID}:k3y-")).expect("a key of the volume");
        let environment = request.headers["x-environment"].to_str().unwrap();
        assert_eq!(&key[..1], environment, "a key of another environment");
        let version: usize = key[2..5].parse().unwrap();
        match (version + VERSIONS - newest % VERSIONS) % VERSIONS {
            0 => {}
            // Of before the swap, and overtaken by one of after it.
            behind if behind == VERSIONS - 1 => {}
            // No request may have come while a version was in force.
            ahead => newest += ahead,
        }
        seen += 1;
    }
    assert!(newest == SWAPS && seen > SWAPS, "{newest} {seen}");
}

/// Requests to both environments until it is told to end; each must succeed.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(gateway: &Gateway) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let run = |(environment, address): (&'static str, SocketAddr)| {
            let (stop, served) = (stop.clone(), served.clone());
            thread::spawn(move || {
                let mut client = Client::connect(address);
                while !stop.load(Relaxed) {
                    client.request(&format!("GET /users HTTP/1.1\nX-Environment: {environment}"), "");
                    let answer = client.answer();
                    assert!(answer.status == 200 && answer.whole, "{answer:?}");
                    served.fetch_add(1, Relaxed);
                    // 200 requests a second each are load enough beside the swaps.
                    thread::park_timeout(Duration::from_millis(5));
                }
            })
        };
        let threads = ["a", "b"].into_iter().zip(gateway.addresses.clone()).map(run).collect();
        Self { stop, served, threads }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|one| one.join().expect("no request failed"));
        self.served.load(Relaxed)
    }
}
