//! A server that gives every request the same answer, for what the stand-in for AWS does not do: it denies nobody,
//! knows every login and is never busy.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

pub struct Answering {
    pub address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Default)]
struct Inside {
    /// Status, more header lines, and body; `None`: no answer comes.
    answer: Option<(u16, String, String)>,
    requests: Vec<String>,
    /// Those that wait for an answer, so that they stay open.
    waiting: Vec<TcpStream>,
}

impl Answering {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let inside = Arc::<Mutex<Inside>>::default();
        let answering = Self { address, inside: inside.clone() };
        // It ends with the process.
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| serve(stream, &inside)));
        answering
    }

    /// What it answers from now on.
    pub fn answer(&self, status: u16, body: &str) {
        self.answer_with(status, "", body);
    }

    /// The same with more header lines, each with its end.
    pub fn answer_with(&self, status: u16, lines: &str, body: &str) {
        self.inside.lock().expect("no panic").answer = Some((status, lines.to_owned(), body.to_owned()));
    }

    /// An error as AWS writes one.
    pub fn fail(&self, status: u16, code: &str, message: &str) {
        let body = serde_json::json!({ "__type": code, "message": message });
        self.answer_with(status, "Content-Type: application/x-amz-json-1.1\r\n", &body.to_string());
    }

    /// It takes requests, and no answer comes from now on.
    pub fn be_silent(&self) {
        self.inside.lock().expect("no panic").answer = None;
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.inside.lock().expect("no panic").requests.clone()
    }
}

fn serve(mut stream: TcpStream, inside: &Mutex<Inside>) {
    let Some(request) = read(&mut stream) else { return };
    let mut inside = inside.lock().expect("no panic");
    inside.requests.push(request);
    match inside.answer.clone() {
        Some((status, lines, body)) => {
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n{lines}\r\n", body.len());
            // Whoever asked may be gone.
            let _ = stream.write_all((head + &body).as_bytes());
        }
        None => inside.waiting.push(stream),
    }
}

/// A whole request with a `Content-Length`.
fn read(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        let mut part = [0; 4096];
        match stream.read(&mut part) {
            Ok(count @ 1..) => bytes.extend_from_slice(part.get(..count)?),
            _ => return None,
        }
    }
}
