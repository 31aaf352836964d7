//! `mxgate health`: whether a gateway is ready, for health checks where no other program is at hand, such as in
//! its own container.
//!
//! Asks the health listener as any probe does, and reads no configuration: a file that is being edited must
//! not make a gateway look ill that still serves the one it has loaded.
//! Exit code 0: ready (or alive); 1: not, or nobody answered in time.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use mxgate::{https::Stream, log};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use super::out;

/// `mxgate health`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The gateway's `health.address`.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    address: SocketAddr,
    /// Ask only whether its event loops still turn, as a decision about a restart does.
    #[arg(long)]
    live: bool,
}

/// For the whole exchange. Short of the three seconds after which the image's own check gives up.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The gateway answers one line.
const ANSWER_BYTES_MAX: usize = 4096;

/// Asks once and prints what the gateway says of itself.
///
/// # Errors
/// It is not ready (or not alive), or there was no answer.
pub(crate) fn run(args: &Args, json: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no event loop could be made")?;
    let (healthy, text) = runtime.block_on(ask(args))?;
    if json {
        out::json(&json!({ "healthy": healthy, "text": text }))?;
    } else if healthy {
        out::line(&text)?;
    }
    if healthy { Ok(()) } else { Err(anyhow!("not {}: {text}", args.asked())) }
}

impl Args {
    fn path(&self) -> &'static str {
        if self.live { "/livez" } else { "/readyz" }
    }

    fn asked(&self) -> &'static str {
        if self.live { "alive" } else { "ready" }
    }
}

/// The gateway's answer: yes or no, and its words for it.
async fn ask(args: &Args) -> anyhow::Result<(bool, String)> {
    let address = reachable(args.address);
    let (status, text) = timeout(TIMEOUT, get(address, args.path()))
        .await
        .map_err(|_| anyhow!("no answer within {} s", TIMEOUT.as_secs()))
        .flatten()
        .with_context(|| format!("the health listener at {address} cannot be asked"))?;
    match status {
        StatusCode::OK => Ok((true, text)),
        StatusCode::SERVICE_UNAVAILABLE => Ok((false, text)),
        // Another program's port, or a host name that the listener does not answer to.
        other => bail!("{address} answered {other}, which no health listener of mxgate's should: {text}"),
    }
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let request =
        Request::get(path).header(header::HOST, address.to_string()).body(Full::new(Bytes::new()))?;
    let stream: Box<dyn Stream> = Box::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow!(error))?.to_bytes();
        Ok((status, log::masked_line(String::from_utf8_lossy(&body).trim_end())))
    };
    // Driven beside the exchange; when it ends first, the exchange says why.
    let drive = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        answer = exchange => answer,
        never = drive => never,
    }
}

/// A gateway that listens on every address is asked at this machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// What `health` makes of this answer, and what it sent.
    async fn asked_of(answer: &str, live: bool) -> (anyhow::Result<(bool, String)>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let args = Args { address: listener.local_addr().unwrap(), live };
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let count = stream.read(&mut head).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&head[..count]).into_owned()
        };
        tokio::join!(ask(&args), server)
    }

    fn with_body(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn ready_and_alive_are_different_questions() {
        let (answer, request) = asked_of(&with_body("200 OK", "ready\n"), false).await;
        assert_eq!(answer.unwrap(), (true, "ready".to_owned()));
        assert!(request.starts_with("GET /readyz HTTP/1.1\r\nhost: 127.0.0.1:"), "{request}");
        let (answer, request) = asked_of(&with_body("200 OK", "live\n"), true).await;
        assert_eq!(answer.unwrap(), (true, "live".to_owned()));
        assert!(request.starts_with("GET /livez HTTP/1.1\r\n"), "{request}");
    }

    #[tokio::test]
    async fn a_no_carries_the_gateways_words_in_one_line() {
        let (answer, _) = asked_of(&with_body("503 Service Unavailable", "dra\x1b[1mining\n"), false).await;
        let (healthy, text) = answer.unwrap();
        assert!(!healthy && text.starts_with("dra") && !text.contains('\x1b'), "{text}");
    }

    #[tokio::test]
    async fn anything_else_is_not_healthy() {
        let long = with_body("200 OK", &"x".repeat(ANSWER_BYTES_MAX + 1));
        for answer in [
            "",
            "nonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nrea",
            &with_body("204 No Content", ""),
            &with_body("302 Found", ""),
            &with_body("404 Not Found", "ready"),
            &long,
        ] {
            assert!(asked_of(answer, false).await.0.is_err(), "{answer}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_not_healthy() {
        let address = crate::free_address::free_address();
        let error = ask(&Args { address, live: false }).await.unwrap_err();
        assert!(format!("{error:#}").contains(&address.to_string()), "{error:#}");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_not_healthy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error = ask(&Args { address: listener.local_addr().unwrap(), live: true }).await.unwrap_err();
        assert!(format!("{error:#}").ends_with("no answer within 2 s"), "{error:#}");
    }

    #[test]
    fn a_wildcard_address_is_asked_at_loopback() {
        for (configured, asked) in
            [("0.0.0.0:9090", "127.0.0.1:9090"), ("[::]:9090", "[::1]:9090"), ("10.1.2.3:1", "10.1.2.3:1")]
        {
            assert_eq!(reachable(configured.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
