//! How another terminal reaches a running `up`: a Unix socket in its directory, one
//! JSON line each way. Who may open the directory may control the cluster.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::cli::Failure;

const SOCKET: &str = "control.sock";
/// A request is one short line; more is not ours.
const MAX_LINE_BYTES: u64 = 4096;
/// Above the time a node may drain, after which it is killed.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// SIGKILL: no goodbye, as in a crash
    Kill,
    /// SIGTERM: drains, hands leadership over, ends
    Stop,
    /// Start it again with its data
    Start,
    /// Stop (if it runs), then start
    Restart,
    /// SIGSTOP: it answers nobody, but keeps its connections
    Pause,
    /// SIGCONT: goes on where it was paused
    Resume,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub action: Action,
    pub node: String,
}

/// Done, in words; or why not, with the mend.
pub type Reply = Result<String, String>;

/// A request on its way to the supervisor, and the way back.
pub struct Asked {
    pub request: Request,
    pub reply: oneshot::Sender<Reply>,
}

/// Opens the socket. The caller holds the directory's lock, so an old file is a leftover.
pub fn open(dir: &Path) -> Result<UnixListener, Failure> {
    let path = dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(no_socket(&path, &error)),
        _ => {}
    }
    UnixListener::bind(&path).map_err(|error| no_socket(&path, &error))
}

fn no_socket(path: &Path, error: &std::io::Error) -> Failure {
    // The kernel's limit is 108 bytes, a deep directory reaches it.
    Failure::error(format!("the control socket {} can't be made: {error}", path.display()))
        .hint("choose another --data-dir, with a short path, on a local disk")
}

/// Takes requests until the supervisor is gone.
pub async fn serve(listener: UnixListener, asked: mpsc::UnboundedSender<Asked>) {
    while !asked.is_closed() {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, asked.clone()))),
            // Out of file descriptors, for one: don't spin until it passes.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut stream: UnixStream, asked: mpsc::UnboundedSender<Asked>) {
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader.take(MAX_LINE_BYTES));
    if reader.read_line(&mut line).await.is_err() {
        return;
    }
    let reply = match serde_json::from_str::<Request>(&line) {
        Err(error) => {
            Err(format!("the request is not understood: {error}; use the same version of bellwether"))
        }
        Ok(request) => pass_on(request, &asked).await,
    };
    if let Ok(mut line) = serde_json::to_string(&reply) {
        line.push('\n');
        // Whoever asked may have left; the order is carried out all the same.
        let _ = writer.write_all(line.as_bytes()).await;
    }
}

async fn pass_on(request: Request, asked: &mpsc::UnboundedSender<Asked>) -> Reply {
    let (reply, answer) = oneshot::channel();
    let gone = || "`bellwether up` is ending".to_owned();
    asked.send(Asked { request, reply }).map_err(|_| gone())?;
    answer.await.unwrap_or_else(|_| Err(gone()))
}

/// The other end: asks the `up` that runs in `dir`.
pub fn ask(dir: &Path, request: &Request) -> Result<String, Failure> {
    let stream = StdUnixStream::connect(socket_path(dir)).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            Failure::error(format!("no `bellwether up` runs in {}", dir.display()))
                .hint("start one with `bellwether up`, or name its directory with --data-dir")
        }
        _ => Failure::error(format!("the `bellwether up` in {} can't be reached: {error}", dir.display())),
    })?;
    let broken = |error: std::io::Error| Failure::error(format!("`bellwether up` did not answer: {error}"));
    let reply = exchange(&stream, request).map_err(broken)?;
    reply.map_err(Failure::error)
}

/// `up` binds the full path; the same one fits here although the given one may be relative.
fn socket_path(dir: &Path) -> PathBuf {
    dir.canonicalize().unwrap_or_else(|_| dir.to_owned()).join(SOCKET)
}

fn exchange(mut stream: &StdUnixStream, request: &Request) -> std::io::Result<Reply> {
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply)?;
    Ok(serde_json::from_str(&reply)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Exit;

    fn request() -> Request {
        Request { action: Action::Kill, node: "node-1".to_owned() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_request_reaches_the_supervisor_and_its_word_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        // A leftover of a killed `up` is in the way.
        std::fs::write(dir.path().join(SOCKET), "").expect("written");
        let (sender, mut asked) = mpsc::unbounded_channel();
        tokio::spawn(serve(open(dir.path()).expect("opens"), sender));
        let path = dir.path().to_owned();
        let asking = tokio::task::spawn_blocking(move || ask(&path, &request()));
        let Asked { request, reply } = asked.recv().await.expect("asked");
        assert_eq!((request.action, request.node.as_str()), (Action::Kill, "node-1"));
        reply.send(Ok("node-1 was killed".to_owned())).expect("waits");
        assert_eq!(asking.await.expect("no panic").expect("done"), "node-1 was killed");
    }

    #[test]
    fn without_an_up_the_mend_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let failure = ask(dir.path(), &request()).expect_err("nobody there");
        assert_eq!(failure.exit(), Exit::Error);
        assert!(format!("{failure:?}").contains("bellwether up"));
    }
}
