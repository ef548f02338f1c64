//! One task a child process: it owns the process, so a signal can only go to a process
//! that has not been reaped, never to a stranger that got its number.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::narrate;
use super::plan::NodeSpec;

/// How long a node may drain after SIGTERM before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How long the last lines of a dead node may take to arrive. A grandchild could hold
/// the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Kill,
    /// SIGTERM, and SIGKILL when it is not obeyed in [`STOP_GRACE`].
    Stop,
    Pause,
    Resume,
}

/// A node's process ended.
#[derive(Debug)]
pub struct Ended {
    pub index: usize,
    pub status: io::Result<ExitStatus>,
}

/// Starts the node; orders go into the channel, its end comes out of `ended`.
pub fn start(
    index: usize,
    spec: &NodeSpec,
    ended: mpsc::UnboundedSender<Ended>,
) -> io::Result<mpsc::UnboundedSender<Order>> {
    let mut child = Command::new(&spec.program)
        .args(&spec.args)
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A group of its own: Ctrl-C reaches `up` alone, which then stops the nodes in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let (orders, inbox) = mpsc::unbounded_channel();
    let words = child.stderr.take().map(|stderr| tokio::spawn(relay(index, spec.name.clone(), stderr)));
    tokio::spawn(tend(index, child, words, inbox, ended));
    Ok(orders)
}

/// Passes what the node says on to the terminal, line by line.
async fn relay(index: usize, name: String, stderr: impl AsyncRead + Unpin) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    // Bytes, not `lines()`: one bad byte in a panic message must not end the narration.
    while matches!(reader.read_until(b'\n', &mut line).await, Ok(read) if read > 0) {
        narrate::node_line(index, &name, String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

/// Carries out orders until the process ends.
async fn tend(
    index: usize,
    mut child: Child,
    words: Option<JoinHandle<()>>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    ended: mpsc::UnboundedSender<Ended>,
) {
    // `wait` would close standard input, by whose end the node knows that `up` is gone.
    let stdin = child.stdin.take();
    let mut kill_at: Option<Instant> = None;
    let status = loop {
        let overdue = async {
            match kill_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            status = child.wait() => break status,
            Some(order) = orders.recv() => {
                carry_out(&child, order);
                if order == Order::Stop {
                    kill_at = Some(Instant::now() + STOP_GRACE);
                }
            }
            () = overdue => {
                carry_out(&child, Order::Kill);
                kill_at = None;
            }
        }
    };
    drop(stdin);
    if let Some(words) = words {
        let _ = tokio::time::timeout(LAST_WORDS, words).await;
    }
    // The receiver is gone only when `up` itself ends.
    let _ = ended.send(Ended { index, status });
}

fn carry_out(child: &Child, order: Order) {
    let signals: &[Signal] = match order {
        Order::Kill => &[Signal::KILL],
        // A paused process takes its SIGTERM only when it runs again.
        Order::Stop => &[Signal::TERM, Signal::CONT],
        Order::Pause => &[Signal::STOP],
        Order::Resume => &[Signal::CONT],
    };
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    for signal in signals {
        // Failing means that it has just ended, which `wait` reports.
        let _ = pid.map(|pid| kill_process(pid, *signal));
    }
}

/// How it ended, in words.
pub fn describe(status: &io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(9)) => "was killed (-9)".to_owned(),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        Err(error) => format!("is lost: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a shell script as a node, gives it `orders`, and says how it ended.
    async fn fate(script: &str, given: &[Order]) -> String {
        let spec = NodeSpec {
            name: "node-1".to_owned(),
            port: 0,
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: Vec::new(),
        };
        let (ended, mut ends) = mpsc::unbounded_channel();
        let orders = start(3, &spec, ended).expect("a shell");
        given.iter().for_each(|order| orders.send(*order).expect("it runs"));
        let end = ends.recv().await.expect("it ends");
        assert_eq!(end.index, 3);
        describe(&end.status)
    }

    #[tokio::test]
    async fn ends_are_told_apart() {
        assert_eq!(fate("exit 7", &[]).await, "ended with exit code 7");
        assert_eq!(fate("exec sleep 600", &[Order::Kill]).await, "was killed (-9)");
        assert_eq!(fate("exec sleep 600", &[Order::Stop]).await, "was ended by signal 15");
    }

    #[tokio::test]
    async fn a_paused_node_can_be_stopped() {
        assert_eq!(fate("exec sleep 600", &[Order::Pause, Order::Stop]).await, "was ended by signal 15");
    }

    #[tokio::test]
    async fn standard_input_stays_open_while_the_node_is_tended() {
        let fate = tokio::time::timeout(Duration::from_millis(200), fate("read line; exit 1", &[])).await;
        assert!(fate.is_err(), "the node saw the end of its input: {fate:?}");
    }
}
