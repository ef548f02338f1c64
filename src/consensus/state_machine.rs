//! Our multi-version store under openraft's state-machine trait.
//!
//! The table is the snapshot: building one flushes the log, then the tail, and takes
//! a read transaction; nothing is copied until it is sent.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use prost::Message;
use tokio::sync::watch;

use crate::proto::log::CommandBatch;
use crate::storage::log::Log;
use crate::storage::mvcc::{AppliedState, ReceivedSnapshot, Reply, SnapshotImage, Store};
use crate::types::LogId;

use super::types::{
    RaftLogId, RaftSnapshot, SnapshotMeta, StoredMembership, TypeConfig, decode_membership_bytes,
    encode_membership, from_raft_id, to_raft_id,
};

/// A snapshot in openraft's hands: our own, not read yet, or one received from a leader.
pub enum SnapshotData {
    Image(Box<SnapshotImage>),
    Received(Box<ReceivedSnapshot>),
}

#[derive(Clone)]
pub struct StateMachine {
    store: Store,
    log: Log,
    /// What is applied, for readers that wait.
    applied: Arc<watch::Sender<Option<LogId>>>,
}

impl StateMachine {
    pub fn new(store: Store, log: Log) -> Self {
        let applied = watch::Sender::new(store.applied().last);
        Self { store, log, applied: Arc::new(applied) }
    }

    /// Follows what is applied.
    pub fn watch_applied(&self) -> watch::Receiver<Option<LogId>> {
        self.applied.subscribe()
    }

    fn apply_payload(
        &self,
        at: LogId,
        payload: EntryPayload<super::types::Batch, u64, super::types::Member>,
        answering: bool,
    ) -> io::Result<Vec<Reply>> {
        match payload {
            EntryPayload::Blank => self.store.apply_blank(at).map(|()| Vec::new()),
            EntryPayload::Normal(batch) => {
                let batch = CommandBatch::decode(batch.encoded).map_err(io::Error::other)?;
                self.store.apply(at, &batch, answering)
            }
            EntryPayload::Membership(membership) => {
                let bytes = Bytes::from(encode_membership(&membership).encode_to_vec());
                self.store.apply_membership(at, bytes).map(|()| Vec::new())
            }
        }
    }

    /// Tells the store how far the log is on disk: nothing beyond may reach the table.
    pub fn tell_durable(&self) {
        if let Some(durable) = self.log.durable_id() {
            self.store.log_is_durable_upto(durable.index);
        }
    }

    /// Everything applied goes to disk: the log first, then the table.
    pub async fn flush(&self) -> io::Result<()> {
        self.log.flush().await?;
        self.tell_durable();
        self.store.flush().await
    }

    /// Takes another store's image without a network in between.
    fn copy(&self, mut image: SnapshotImage) -> io::Result<ReceivedSnapshot> {
        let mut writer = self.store.receive()?;
        while let Some(chunk) = image.next_chunk()? {
            writer.write(&chunk)?;
        }
        writer.finish()
    }

    /// Our own snapshot, as new as what is durable; nothing is read from it yet.
    fn current(&self) -> io::Result<RaftSnapshot> {
        let image = self.store.image()?;
        let meta = snapshot_meta(image.applied())?;
        Ok(RaftSnapshot { meta, snapshot: SnapshotData::Image(Box::new(image)) })
    }
}

fn stored_membership(state: &AppliedState) -> io::Result<StoredMembership> {
    match state.membership.at {
        None => Ok(StoredMembership::default()),
        Some(at) => {
            let membership = decode_membership_bytes(&state.membership.bytes)?;
            Ok(StoredMembership::new(Some(to_raft_id(at)), membership))
        }
    }
}

fn snapshot_meta(state: &AppliedState) -> io::Result<SnapshotMeta> {
    Ok(SnapshotMeta { last_log_id: state.last.map(to_raft_id), last_membership: stored_membership(state)? })
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        self.flush().await?;
        self.current()
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<RaftLogId>, StoredMembership)> {
        let state = self.store.applied();
        Ok((state.last.map(to_raft_id), stored_membership(&state)?))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        // Before as well as after: what was truncated since is durable no longer.
        self.tell_durable();
        while let Some((entry, responder)) = entries.try_next().await? {
            let at = from_raft_id(entry.log_id);
            let replies = self.apply_payload(at, entry.payload, responder.is_some())?;
            self.applied.send_replace(Some(at));
            if let Some(responder) = responder {
                responder.send(replies);
            }
        }
        self.tell_durable();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let received = match snapshot {
            SnapshotData::Received(received) => *received,
            // openraft offers our own table back to us at start; it is already in place.
            SnapshotData::Image(image) if image.applied().last <= self.store.applied().last => return Ok(()),
            SnapshotData::Image(image) => self.copy(*image)?,
        };
        self.store.install(received).await?;
        self.applied.send_replace(self.store.applied().last);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        match self.store.durable().last {
            None => Ok(None),
            Some(_) => self.current().map(Some),
        }
    }
}
