//! Clients that share a connection, and who drives it.
//!
//! On one thread, tasks run in the order in which they were woken: the connections would read
//! all that has come, then all clients take their answers and ask again, then all connections
//! write. Servers would wait for each other's clients and get everything at once. So each
//! connection has a queue of its own for its clients and itself: what it read is answered,
//! asked anew and written before another connection has its turn. On two cores three nodes
//! serve a sixth more local reads, and etcd's a twentieth.

use anyhow::Result;
use tokio::task::{JoinHandle, LocalSet};

/// One connection's clients.
pub struct Group<S> {
    /// Where their tasks, and the connection's, must run.
    pub tasks: LocalSet,
    pub sessions: Vec<S>,
}

/// Runs what `work` makes of each session and its number, beside the session's connection;
/// all of it in `tasks`.
pub fn spawn_each<S, F: Future<Output: 'static> + 'static>(
    groups: Vec<Group<S>>,
    tasks: &LocalSet,
    mut work: impl FnMut(S, usize) -> Result<F>,
) -> Result<Vec<JoinHandle<F::Output>>> {
    let mut running = Vec::new();
    for group in groups {
        for session in group.sessions {
            running.push(group.tasks.spawn_local(work(session, running.len())?));
        }
        tasks.spawn_local(group.tasks);
    }
    Ok(running)
}

/// How many of `clients` each of so many connections serves, by the connection's number.
pub(super) fn spread(clients: usize, connections: usize) -> impl ExactSizeIterator<Item = (usize, usize)> {
    let connections = connections.clamp(1, clients.max(1));
    (0..connections).map(move |connection| (connection, (connection..clients).step_by(connections).len()))
}

/// Who drives a connection.
#[derive(Clone, Copy, Debug)]
pub enum Driver {
    /// The runtime, as any task.
    Runtime,
    /// The group within whose tasks it is opened.
    Group,
}

impl Driver {
    pub(super) fn drive(self, connection: impl Future<Output: Send> + Send + 'static) {
        match self {
            Self::Runtime => drop(tokio::spawn(connection)),
            Self::Group => drop(tokio::task::spawn_local(connection)),
        }
    }
}
