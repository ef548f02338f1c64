//! Connections to the other members: two each, one for entries and snapshots, one for
//! what must not wait behind them. Dialled when needed, dropped when they fail.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};

use crate::env::Net;
use crate::env::random::rng;
use crate::proto::peer::peer_client::PeerClient;
use crate::proto::peer::{Header, Run};
use crate::types::{ClusterId, LogId, MemberId, Term};

use super::super::types::Member;
use super::super::voice::Voice;
use super::ask::{Answer, Question, Questions};
use super::faults::{Faults, Link};
use super::{MAX_MESSAGE_BYTES, RefusalKind, refusal_kind};

/// How long a TCP connect and the HTTP/2 preface may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// After a failed connect the next one waits this long plus as much again at random:
/// a dead peer must not cost CPU, a returning one must be heard soon.
const REDIAL_PAUSE: Duration = Duration::from_millis(30);
/// Pings on a quiet connection, so that one whose packets vanish is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(1000);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long a connection remembers a call that was given up, to ignore its late answer: h2
/// measures it by the system's clock, which no simulation drives, so it should not matter.
const RESET_MEMORY: Duration = Duration::from_secs(24 * 60 * 60);
/// HTTP/2 windows: a full replication batch must fit without waiting for an update.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

pub type Client = PeerClient<Channel>;

/// Which of a peer's two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Log entries and snapshots.
    Bulk,
    /// Heartbeats, votes, read indexes, transfers.
    Control,
}

/// The host and port of `http://host:port`.
pub fn authority(url: &str) -> &str {
    url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/')
}

/// Connects once, without a pool: for peers whose member id is not known yet.
pub async fn dial(net: &Arc<dyn Net>, url: &str) -> Result<Client, tonic::transport::Error> {
    let authority = Arc::<str>::from(authority(url));
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .http2_reset_stream_duration(RESET_MEMORY)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let net = net.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (net, authority) = (net.clone(), authority.clone());
        async move {
            let connecting = tokio::time::timeout(CONNECT_TIMEOUT, net.connect(&authority));
            let stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let channel = endpoint.connect_with_connector(connector).await?;
    Ok(PeerClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// One other member.
pub struct Peer {
    pub id: MemberId,
    url: Mutex<String>,
    net: Arc<dyn Net>,
    header: Header,
    lanes: [tokio::sync::Mutex<Option<Client>>; 2],
    /// On the control lane.
    questions: Mutex<Option<Questions>>,
    /// The highest entry that this peer acknowledged to us as leader of that term.
    acknowledged: Mutex<(Term, Option<LogId>)>,
    /// It says that it is about to stop, or that its state is not sound.
    draining: AtomicBool,
    /// Nothing came of the last call.
    silent: AtomicBool,
    link: Option<Arc<Link>>,
    voice: Voice,
    refusals: mpsc::UnboundedSender<PeerRefusal>,
    returned: mpsc::UnboundedSender<MemberId>,
}

/// A peer refused us: for the node to judge.
#[derive(Clone, Debug)]
pub struct PeerRefusal {
    pub peer: MemberId,
    pub kind: RefusalKind,
    pub why: String,
}

impl Peer {
    pub fn id(&self) -> MemberId {
        self.id
    }

    /// Where faults between this node and the peer are, if there can be any.
    pub fn link(&self) -> Option<&Arc<Link>> {
        self.link.as_ref()
    }

    /// Asked before each word of a leader to this peer.
    pub fn may_lead(&self) -> Result<(), &'static str> {
        match self.voice.is_muted() {
            true => Err("no quorum answers: silent, so that the others may elect"),
            false => Ok(()),
        }
    }

    /// Asked before a snapshot goes to this peer.
    pub fn may_fill(&self) -> Result<(), &'static str> {
        match self.voice.is_unsound() {
            true => Err("this node's state is not sound: no snapshot leaves it"),
            false => self.may_lead(),
        }
    }

    /// One call, with what the link does to the message and to its answer. A lost one
    /// never returns: the caller has a deadline.
    pub async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        let Some(link) = &self.link else { return call.await };
        link.send.carry(Lane::Control).await;
        let answer = call.await;
        link.receive.carry(Lane::Control).await;
        answer
    }

    /// The same for a message that may come twice.
    pub async fn call_idempotent<T, F>(&self, call: impl Fn() -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        if self.link.as_ref().is_some_and(|link| link.send.doubles()) {
            tokio::spawn(call());
        }
        self.call(call()).await
    }

    pub fn header(&self) -> Header {
        self.header
    }

    pub fn url(&self) -> String {
        self.url.lock().clone()
    }

    /// The lane's client, dialled when there is none.
    pub async fn client(&self, lane: Lane) -> Result<Client, String> {
        let mut slot = self.lanes[lane as usize].lock().await;
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let url = self.url();
        match dial(&self.net, &url).await {
            Ok(client) => Ok(slot.insert(client).clone()),
            Err(error) => {
                self.silent.store(true, Ordering::Relaxed);
                let jitter = rand::RngExt::random_range(&mut rng(), 0..REDIAL_PAUSE.as_millis() as u64);
                tokio::time::sleep(REDIAL_PAUSE + Duration::from_millis(jitter)).await;
                Err(format!("cannot reach {url}: {}", root_cause(&error)))
            }
        }
    }

    /// Whether the system at the peer's address says that nobody listens there.
    pub async fn refuses(&self, patience: Duration) -> bool {
        let url = self.url();
        let connected = tokio::time::timeout(patience, self.net.connect(authority(&url))).await;
        matches!(connected, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Asks one question, over `control` when nothing was asked there before.
    pub async fn ask(&self, control: Client, question: Question) -> Result<Answer, tonic::Status> {
        let answer = {
            let mut questions = self.questions.lock();
            questions.take_if(|questions| questions.has_ended());
            questions.get_or_insert_with(|| Questions::open(control, self.header())).ask(question)
        };
        answer.await
    }

    /// Forgets the lane's connection; the next use dials again.
    pub async fn hang_up(&self, lane: Lane) {
        self.silent.store(true, Ordering::Relaxed);
        if lane == Lane::Control {
            *self.questions.lock() = None;
        }
        *self.lanes[lane as usize].lock().await = None;
    }

    /// What to do about a failed call: refusals are reported and keep the connection,
    /// all else drops it.
    pub async fn failed(&self, lane: Lane, status: &tonic::Status) -> String {
        match refusal_kind(status) {
            Some(kind) => {
                let why = status.message().to_owned();
                // The node may be stopping and not listen any more.
                let _ = self.refusals.send(PeerRefusal { peer: self.id, kind, why: why.clone() });
                why
            }
            None => {
                self.hang_up(lane).await;
                format!("{}: {}", self.url(), status.message())
            }
        }
    }

    /// Notes that the peer answered us as its leader. What waits for it need not wait longer.
    pub fn note_answer(&self) {
        if self.silent.load(Ordering::Relaxed) && self.silent.swap(false, Ordering::Relaxed) {
            // The node may be stopping and not listen any more.
            let _ = self.returned.send(self.id);
        }
    }

    pub fn note_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Notes that the peer has everything up to `last` on disk, in our `term`.
    pub fn note_acknowledged(&self, term: Term, last: Option<LogId>) {
        let mut acknowledged = self.acknowledged.lock();
        if acknowledged.0 != term {
            *acknowledged = (term, None);
        }
        acknowledged.1 = acknowledged.1.max(last);
    }

    /// True when the peer denies an entry that it acknowledged to us in this very term:
    /// its disk lost what it promised to keep.
    pub fn has_forgotten(&self, term: Term, denied: LogId) -> bool {
        let acknowledged = self.acknowledged.lock();
        acknowledged.0 == term && acknowledged.1.is_some_and(|last| denied.index <= last.index)
    }
}

/// The innermost error: the one that says what happened.
pub(super) fn root_cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// All other members, by id.
#[derive(Clone)]
pub struct PeerPool {
    net: Arc<dyn Net>,
    cluster: ClusterId,
    me: MemberId,
    run: Run,
    faults: Faults,
    voice: Voice,
    peers: Arc<Mutex<BTreeMap<MemberId, Arc<Peer>>>>,
    refusals: mpsc::UnboundedSender<PeerRefusal>,
    returned: mpsc::UnboundedSender<MemberId>,
}

/// What peers do that somebody must hear of.
pub struct PeerNews {
    pub refusals: mpsc::UnboundedReceiver<PeerRefusal>,
    /// Peers that answer again.
    pub returned: mpsc::UnboundedReceiver<MemberId>,
}

impl PeerPool {
    pub fn new(
        net: Arc<dyn Net>,
        cluster: ClusterId,
        me: MemberId,
        run: Run,
        faults: Faults,
    ) -> (Self, PeerNews) {
        let (refusals, refused) = mpsc::unbounded_channel();
        let (returned, returns) = mpsc::unbounded_channel();
        let voice = Voice::default();
        let pool = Self { net, cluster, me, run, faults, voice, peers: Arc::default(), refusals, returned };
        (pool, PeerNews { refusals: refused, returned: returns })
    }

    /// What this node says as a leader.
    pub fn voice(&self) -> &Voice {
        &self.voice
    }

    pub fn peer(&self, id: MemberId, member: &Member) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        let peer = peers.entry(id).or_insert_with(|| {
            Arc::new(Peer {
                id,
                url: Mutex::new(member.url.clone()),
                net: self.net.clone(),
                header: Header { cluster: self.cluster.0, from: self.me.0, to: id.0, run: Some(self.run) },
                lanes: [None, None].map(tokio::sync::Mutex::new),
                questions: Mutex::default(),
                acknowledged: Mutex::new((0, None)),
                draining: AtomicBool::new(false),
                silent: AtomicBool::new(false),
                link: self.faults.link(&member.name),
                voice: self.voice.clone(),
                refusals: self.refusals.clone(),
                returned: self.returned.clone(),
            })
        });
        peer.clone()
    }

    /// A member moved: later calls go to its new address.
    pub fn moved(&self, id: MemberId, url: &str) {
        if let Some(peer) = self.peers.lock().get(&id) {
            *peer.url.lock() = url.to_owned();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn authorities() {
        assert_eq!(authority("http://node1:4000"), "node1:4000");
        assert_eq!(authority("http://node1:4000/"), "node1:4000");
    }

    /// Of a node whose links have no faults.
    pub fn pool() -> (PeerPool, PeerNews) {
        let net: Arc<dyn Net> = Arc::new(crate::env::net::RealNet);
        PeerPool::new(net, ClusterId(1), MemberId(1), Run { starts: 1, nonce: 1 }, Faults::default())
    }

    #[tokio::test]
    async fn a_peer_that_answers_after_silence_has_returned_once() {
        let (pool, mut news) = pool();
        let peer = pool.peer(MemberId(2), &Member::default());
        peer.note_answer();
        assert!(news.returned.try_recv().is_err(), "it was never away");
        peer.hang_up(Lane::Bulk).await;
        peer.note_answer();
        peer.note_answer();
        assert_eq!(news.returned.try_recv(), Ok(MemberId(2)));
        assert!(news.returned.try_recv().is_err(), "told twice");
    }

    #[test]
    fn a_peer_that_denies_what_it_acknowledged_in_this_term_has_forgotten() {
        let (pool, _news) = pool();
        let peer = pool.peer(MemberId(2), &Member::default());
        peer.note_acknowledged(3, Some(LogId { term: 3, index: 9 }));
        assert!(peer.has_forgotten(3, LogId { term: 3, index: 9 }));
        assert!(!peer.has_forgotten(3, LogId { term: 3, index: 10 }));
        // Another leader may have truncated it in between: no proof of loss.
        assert!(!peer.has_forgotten(4, LogId { term: 3, index: 9 }));
    }
}
