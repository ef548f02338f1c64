//! A toy node: HTTP/1.1 over TCP, each request answered as a closure says, and counted.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the toy does with a request.
#[derive(Clone, Debug)]
pub enum Act {
    Reply(u16, String),
    /// Reads it, then closes the connection: the client can't know what became of it.
    Break,
    /// Reads it and never answers, as a paused process does.
    Hang,
}

pub struct Toy {
    pub url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Toy {
    /// `answer` gets the request line (`PUT /key/a?timeout=5000ms`).
    pub async fn start(answer: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (seen, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let log = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, log.clone(), answer.clone()));
            }
        });
        Self { url, seen }
    }

    /// How many requests of this method arrived.
    pub fn count(&self, method: &str) -> usize {
        self.seen().iter().filter(|line| line.starts_with(method)).count()
    }

    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

/// A URL that refuses connections.
pub async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    format!("http://{}", listener.local_addr().expect("bound"))
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<String>>>,
    answer: Arc<impl Fn(&str) -> Act + Send + Sync>,
) {
    let mut buffer = Vec::new();
    while let Some(line) = request(&mut stream, &mut buffer).await {
        seen.lock().expect("not poisoned").push(line.clone());
        match answer(&line) {
            Act::Break => return,
            Act::Hang => std::future::pending::<()>().await,
            Act::Reply(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\netag: \"7\"\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Reads one request with its body; `None` at the end of the connection.
async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let total = end + 4 + length.map_or(0, |length| length.trim().parse().expect("a length"));
            if buffer.len() >= total {
                let line = String::from_utf8_lossy(&buffer[..end]);
                let line = line.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
                buffer.drain(..total);
                return Some(line);
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}
