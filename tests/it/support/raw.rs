//! A client that says whatever bytes a test likes, and hears what comes back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// A server that stops reading has decided; what it did not take is not sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);
/// More than any reply that a test waits for.
const MAX_HEARD_BYTES: usize = 1 << 20;

/// One connection.
pub struct Raw(TcpStream);

/// What came back.
#[derive(Debug, Default)]
pub struct Heard {
    pub bytes: Vec<u8>,
    /// The server closed the connection, or reset it.
    pub closed: bool,
}

impl Heard {
    /// The first reply's status; `None` when there is no reply.
    pub fn status(&self) -> Option<u16> {
        let line = self.bytes.split(|byte| *byte == b'\r').next()?;
        let line = std::str::from_utf8(line).ok()?;
        line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

impl Raw {
    pub async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// False when the server did not take it all: it closed, or stopped reading.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(SEND_TIMEOUT, self.0.write_all(bytes)).await, Ok(Ok(())))
    }

    /// Says that nothing more will come; replies can still be read.
    pub async fn half_close(&mut self) {
        // It may be gone already.
        let _ = self.0.shutdown().await;
    }

    /// Reads until `enough`, the end, or the end of patience.
    pub async fn hear(&mut self, enough: impl Fn(&[u8]) -> bool) -> Heard {
        let mut heard = Heard::default();
        let reading = async {
            while !enough(&heard.bytes) && heard.bytes.len() < MAX_HEARD_BYTES {
                match self.0.read_buf(&mut heard.bytes).await {
                    Ok(0) | Err(_) => {
                        heard.closed = true;
                        return;
                    }
                    Ok(_) => {}
                }
            }
        };
        // Silence shows in what was heard.
        let _ = timeout(PATIENCE, reading).await;
        heard
    }

    /// The head of the next reply, or the end.
    pub async fn hear_head(&mut self) -> Heard {
        self.hear(|bytes| bytes.windows(4).any(|end| end == b"\r\n\r\n")).await
    }

    /// Everything until the server closes.
    pub async fn hear_end(&mut self) -> Heard {
        self.hear(|_| false).await
    }

    /// Sends `request` so often without waiting, and counts `answer` in what comes back.
    pub async fn pipeline(mut self, request: &str, times: usize, answer: &str) -> usize {
        let requests = request.repeat(times);
        let (mut read, mut write) = self.0.split();
        let (mut heard, mut answers) = (Vec::new(), 0);
        let sending = async { drop(write.write_all(requests.as_bytes()).await) };
        let hearing = async {
            while answers < times && read.read_buf(&mut heard).await.is_ok_and(|bytes| bytes > 0) {
                while let Some(at) = heard.windows(answer.len()).position(|found| found == answer.as_bytes())
                {
                    answers += 1;
                    heard.drain(..at + answer.len());
                }
            }
        };
        let _ = timeout(PATIENCE, async { tokio::join!(sending, hearing) }).await;
        answers
    }

    /// Sends and listens at once, as a client must to whom the server answers early.
    pub async fn exchange(port: u16, bytes: &[u8]) -> Heard {
        let Ok(mut raw) = Self::connect(port).await else {
            return Heard { closed: true, ..Heard::default() };
        };
        let (mut read, mut write) = raw.0.split();
        let mut heard = Vec::new();
        let sending = async { drop(timeout(SEND_TIMEOUT, write.write_all(bytes)).await) };
        let hearing = async {
            loop {
                match read.read_buf(&mut heard).await {
                    Ok(0) | Err(_) => return true,
                    Ok(_) if heard.windows(4).any(|end| end == b"\r\n\r\n") => return false,
                    Ok(_) => {}
                }
            }
        };
        let (_, closed) = tokio::join!(sending, timeout(PATIENCE, hearing));
        Heard { bytes: heard, closed: closed.unwrap_or(false) }
    }
}
