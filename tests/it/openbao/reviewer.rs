//! What stands in for the part of Kubernetes that OpenBao's own method asks: whose a service account's token is. There is
//! no API server here, so this one knows one token.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};

pub struct Reviewer {
    pub address: SocketAddr,
    last: Arc<Mutex<String>>,
}

impl Reviewer {
    /// One that takes `token` to be the account's that `subject` names, and any other to be nobody's.
    pub fn start(subject: &str, token: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, last) = (listener.local_addr().unwrap(), Arc::<Mutex<String>>::default());
        let user = json!({ "username": subject, "uid": "u-1", "groups": ["system:serviceaccounts"] });
        let known = review(json!({ "authenticated": true, "user": user, "audiences": ["mxgate-test"] }));
        let unknown = review(json!({ "authenticated": false }));
        let (seen, token) = (last.clone(), format!("\"{token}\""));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = request(&mut stream);
                let review = if request.contains(&token) { &known } else { &unknown };
                *seen.lock().unwrap() = request;
                let length = review.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
                     connection: close\r\n\r\n{review}"
                );
            }
        });
        Self { address, last }
    }

    /// The last request that it was asked.
    pub fn last(&self) -> String {
        self.last.lock().unwrap().clone()
    }
}

fn review(status: Value) -> String {
    json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status }).to_string()
}

/// Head and body.
fn request(stream: &mut TcpStream) -> String {
    let mut stream = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    while !request.ends_with("\r\n\r\n") && stream.read_line(&mut request).unwrap() > 0 {
        let line = request.lines().last().unwrap().to_ascii_lowercase();
        length = line.strip_prefix("content-length: ").map_or(length, |digits| digits.parse().unwrap());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    request + std::str::from_utf8(&body).unwrap()
}
