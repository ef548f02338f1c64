//! One side's watch stream in one sequence.
//!
//! etcd answers requests on a stream in their order, so a progress request behind each
//! request is a fence: what was to be answered has been when its answer is there. Events
//! come when they come; [`WatchStream::settle`] waits until each watch has told a change
//! that was made after everything else, so what it told before is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::proto::*;

/// Requests that wait for the stream to open: a request and its fence.
const QUEUE: usize = 8;
/// Past this a fence or an event is not coming.
const PATIENCE: Duration = Duration::from_secs(6);
/// The id that answers to progress requests carry.
const NO_WATCH: i64 = -1;

/// What one watch told since it was last asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Watched {
    pub watch_id: i64,
    pub events: Vec<Event>,
    /// How the server ended it, if it did.
    pub ended: Option<WatchResponse>,
    /// Events of one revision came in several responses.
    pub torn: bool,
    /// It never told the last change, though it should have.
    pub silent: bool,
}

impl Watched {
    fn new(watch_id: i64) -> Self {
        Self { watch_id, events: vec![], ended: None, torn: false, silent: false }
    }

    fn add(&mut self, events: Vec<Event>) {
        let last = self.events.last().map(revision);
        self.torn |= last.is_some() && last == events.first().map(revision);
        self.events.extend(events);
    }

    fn has_told(&self, revision_due: i64) -> bool {
        self.ended.is_some() || self.events.last().is_some_and(|event| revision(event) >= revision_due)
    }
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

/// The changes that prove a watch complete: its key is put, then deleted.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    pub put: i64,
    pub deleted: i64,
}

struct Live {
    request: WatchCreateRequest,
}

impl Live {
    /// The last of the marks that this watch shows, if it shows any.
    fn due(&self, marks: &BTreeMap<Bytes, Marks>) -> Option<i64> {
        let hides = |filter: FilterType| self.request.filters.contains(&(filter as i32));
        let shown = |marks: &Marks| match (hides(FilterType::Noput), hides(FilterType::Nodelete)) {
            (_, false) => Some(marks.deleted),
            (false, true) => Some(marks.put),
            (true, true) => None,
        };
        let within = marks.iter().filter(|(key, _)| self.covers(key));
        within.filter_map(|(_, marks)| shown(marks)).max().filter(|last| *last >= self.request.start_revision)
    }

    fn covers(&self, key: &[u8]) -> bool {
        let first = first_key(&self.request);
        match self.request.range_end.as_ref() {
            b"" => key == first,
            b"\0" => key >= first.as_ref(),
            end => (first.as_ref()..end).contains(&key),
        }
    }
}

pub struct WatchStream {
    pub node: usize,
    requests: mpsc::Sender<WatchRequest>,
    /// Servers open their half with the first answer, so not before the first request.
    replies: Streaming<WatchResponse>,
    live: BTreeMap<i64, Live>,
    told: BTreeMap<i64, Watched>,
    /// Ended by the server. What a client that goes on with them hears is known to differ.
    ended: BTreeSet<i64>,
    /// A watch from the past has an id that the client chose: the server may have ended it.
    chosen_may_have_ended: bool,
}

impl WatchStream {
    /// Opens a stream with its first request; a fence follows it.
    pub async fn open(
        node: usize,
        client: &mut WatchClient<Channel>,
        first: WatchRequest,
    ) -> Result<(Self, Vec<WatchResponse>), tonic::Status> {
        let (requests, queue) = mpsc::channel(QUEUE);
        for request in [first.clone(), fence()] {
            requests.try_send(request).map_err(|_| tonic::Status::internal("the queue is too short"))?;
        }
        let opening = client.watch(ReceiverStream::new(queue));
        let replies = tokio::time::timeout(PATIENCE, opening)
            .await
            .map_err(|_| tonic::Status::deadline_exceeded("the watch stream did not open"))??
            .into_inner();
        let mut stream = Self {
            node,
            requests,
            replies,
            live: BTreeMap::new(),
            told: BTreeMap::new(),
            ended: BTreeSet::new(),
            chosen_may_have_ended: false,
        };
        let control = stream.until_fence(&first).await?;
        Ok((stream, control))
    }

    /// Sends one request, and returns what answered it.
    pub async fn control(&mut self, request: WatchRequest) -> Result<Vec<WatchResponse>, tonic::Status> {
        let request = if self.is_about_an_ended_one(&request) { fence() } else { request };
        for request in [request.clone(), fence()] {
            let sent = self.requests.send(request).await;
            sent.map_err(|_| tonic::Status::unavailable("the watch stream is closed"))?;
        }
        self.until_fence(&request).await
    }

    /// Keys whose changes prove a watch complete.
    pub fn keys(&self) -> Vec<Bytes> {
        let mut keys: Vec<_> = self.live.values().map(|live| first_key(&live.request)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Waits until each watch has told its marks, and returns all that was told.
    pub async fn settle(&mut self, marks: &BTreeMap<Bytes, Marks>) -> Result<Vec<Watched>> {
        let due = self.live.iter().filter_map(|(id, live)| Some((*id, live.due(marks)?)));
        let due: Vec<(i64, i64)> = due.collect();
        let patience = Instant::now() + PATIENCE;
        while let Some(silent) = due.iter().find(|(id, revision)| !self.has_told(*id, *revision)) {
            match timeout_at(patience, self.replies.message()).await {
                Ok(Ok(Some(reply))) => drop(self.file(reply)),
                Ok(Ok(None)) => bail!("the watch stream ended"),
                Ok(Err(status)) => return Err(status).context("watching"),
                Err(_) => {
                    self.entry(silent.0).silent = true;
                    break;
                }
            }
        }
        let told = std::mem::take(&mut self.told);
        for ended in told.values().filter(|watched| watched.ended.is_some()) {
            self.live.remove(&ended.watch_id);
            self.ended.insert(ended.watch_id);
        }
        Ok(told.into_values().collect())
    }

    fn is_about_an_ended_one(&self, request: &WatchRequest) -> bool {
        match &request.request_union {
            // 0 lets the server choose, which may be one that the client chose before.
            Some(WatchUnion::CreateRequest(create)) => match create.watch_id {
                0 => self.chosen_may_have_ended,
                id => self.ended.contains(&id),
            },
            Some(WatchUnion::CancelRequest(cancel)) => self.ended.contains(&cancel.watch_id),
            _ => false,
        }
    }

    fn has_told(&self, id: i64, revision: i64) -> bool {
        self.told.get(&id).is_some_and(|watched| watched.has_told(revision))
    }

    fn entry(&mut self, id: i64) -> &mut Watched {
        self.told.entry(id).or_insert_with(|| Watched::new(id))
    }

    async fn until_fence(&mut self, request: &WatchRequest) -> Result<Vec<WatchResponse>, tonic::Status> {
        // A progress request is its own fence, and another follows it.
        let mut fences =
            1 + usize::from(matches!(request.request_union, Some(WatchUnion::ProgressRequest(_))));
        let mut control = Vec::new();
        let patience = Instant::now() + PATIENCE;
        while fences > 0 {
            let reply = timeout_at(patience, self.replies.message()).await;
            let reply =
                reply.map_err(|_| tonic::Status::deadline_exceeded("a progress request had no answer"))??;
            let reply = reply.ok_or_else(|| tonic::Status::unavailable("the watch stream ended"))?;
            fences -= usize::from(is_fence(&reply));
            control.extend(self.file(reply));
        }
        self.note(request, &control);
        Ok(control)
    }

    /// Keeps what a watch told; returns what answers a request.
    fn file(&mut self, reply: WatchResponse) -> Option<WatchResponse> {
        if reply.canceled && reply.compact_revision != 0 {
            let id = reply.watch_id;
            self.entry(id).ended = Some(reply);
            return None;
        }
        if reply.created || reply.canceled || is_fence(&reply) {
            return Some(reply);
        }
        self.entry(reply.watch_id).add(reply.events);
        None
    }

    /// Which watches there are now.
    fn note(&mut self, request: &WatchRequest, control: &[WatchResponse]) {
        for reply in control {
            match &request.request_union {
                Some(WatchUnion::CreateRequest(create)) if reply.created && !reply.canceled => {
                    self.chosen_may_have_ended |= create.watch_id != 0 && create.start_revision != 0;
                    self.live.insert(reply.watch_id, Live { request: create.clone() });
                }
                // One that was never created has the id that stands for none.
                _ if reply.canceled && !reply.created => drop(self.live.remove(&reply.watch_id)),
                _ => {}
            }
        }
    }
}

/// The watch's own first key; the empty key means the smallest.
fn first_key(request: &WatchCreateRequest) -> Bytes {
    if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key.clone() }
}

fn fence() -> WatchRequest {
    WatchRequest { request_union: Some(WatchUnion::ProgressRequest(WatchProgressRequest {})) }
}

fn is_fence(reply: &WatchResponse) -> bool {
    reply.watch_id == NO_WATCH && !reply.created && !reply.canceled && reply.events.is_empty()
}
