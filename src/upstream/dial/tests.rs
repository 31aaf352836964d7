//! Names that lead inside, over real sockets; what a look-up finds is the test's to say.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use super::DialTarget;
use crate::{
    config::{Config, overrides::Overrides},
    refusal::Failure,
    stand_in::{Running, StandIn, options},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn mx() -> Running {
    StandIn::spawn(options::Options::new(vec![options::Environment::new("client", "k3y-of-client")])).unwrap()
}

/// MX's production by its name, verified by `mx`'s authority.
fn target(mx: &Running, lines: &str) -> Arc<DialTarget> {
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), mx.authority_pem()).unwrap();
    let text = format!(
        "allow = []\n[[listener]]\naddress = \"127.0.0.1:1\"\nenvironment = \"production\"\n\
         [environment.production]\nca_file = \"{}\"\n{lines}\n\
         credential = {{ kind = \"bearer\", token = \"env:T\" }}\n",
        ca.path().display()
    );
    let config = Config::parse(&text, "f", &Overrides::none()).unwrap().config;
    DialTarget::new(&config.environments["production"], None, None).unwrap()
}

async fn dial(target: &DialTarget, found: &[SocketAddr]) -> Result<(), Failure> {
    target.addresses.find(found);
    target.dial(PATIENCE, PATIENCE).await.map(drop)
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_dialled_unless_that_was_said() {
    let mx = mx();
    let (refused, allowed) = (target(&mx, ""), target(&mx, "private_addresses = \"allowed\""));
    assert_eq!(dial(&allowed, &[mx.address()]).await, Ok(()));
    let before = mx.connections();
    assert_eq!(dial(&refused, &[mx.address()]).await, Err(Failure::UpstreamAddressRefused));
    assert_eq!(mx.connections(), before, "it was dialled");
}

#[tokio::test]
async fn what_is_judged_is_the_address_of_now_and_each_address() {
    let inside = TcpListener::bind("127.0.0.1:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let mx = mx();
    // Of this machine, so that nothing leaves it, and not in the table: the reach of localhost takes it, and takes
    // nothing else.
    let target = target(&mx, "url = \"https://localhost\"");
    assert_eq!(dial(&target, &[mx.address()]).await, Ok(()));
    // The name is now said to be elsewhere; where it was before does not count.
    let elsewhere = SocketAddr::new("10.255.255.1".parse().unwrap(), inside.local_addr().unwrap().port());
    assert_eq!(dial(&target, &[elsewhere]).await, Err(Failure::UpstreamAddressRefused));
    // Of several the ones that may be dialled are.
    assert_eq!(dial(&target, &[elsewhere, mx.address()]).await, Ok(()));
    assert_eq!(inside.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[tokio::test]
async fn only_addresses_of_the_family_of_the_source_address_are_dialled() {
    let mx = mx();
    let from = |bind: &str| target(&mx, &format!("url = \"https://localhost\"\nbind = \"{bind}\""));
    // Looked up for real: localhost has an IPv4 address everywhere.
    let target = from("127.0.0.9");
    target.addresses.refresh().await;
    assert!(target.addresses.get().await.iter().all(SocketAddr::is_ipv4));
    assert_eq!(dial(&target, &[mx.address()]).await, Ok(()));
    let target = from("::1");
    target.addresses.refresh().await;
    let none = tokio::time::timeout(Duration::from_millis(1), target.addresses.get()).await;
    assert!(none.is_err() || none.is_ok_and(|found| found.iter().all(SocketAddr::is_ipv6)));
}
