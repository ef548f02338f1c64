//! One engine that follows a leader of which there is only the port.

use std::collections::BTreeMap;

use super::*;
use crate::consensus::network::faults::Faults;
use crate::consensus::network::server::RaftServer;
use crate::consensus::types::vote_to_pb;
use crate::consensus::{Consensus, Options, seed};
use crate::env::clock::SystemClock;
use crate::env::fake_disk::FakeDisk;
use crate::env::net::{Listener, Net, RealNet};
use crate::env::{Disk, Workers, World};
use crate::proto::peer as pb;
use crate::storage::log::{Log, LogOptions};
use crate::storage::mvcc::Store;
use crate::types::{ClusterId, MemberId};

const ME: u64 = 1;
const LEADER: u64 = 2;
const OTHER: u64 = 3;
/// All that the log holds: who founded the cluster.
const LAST: pb::LogId = pb::LogId { term: 0, index: 0 };
/// The lease of a test does not run out.
const LONG: Duration = Duration::from_secs(3600);

async fn follower_of(leader: &dyn Listener, early_election: bool) -> RaftServer {
    let disk: Arc<dyn Disk> = Arc::new(FakeDisk::default());
    let workers = Workers::Tasks { delay: || Duration::ZERO };
    let log_options = LogOptions { segment_bytes: 64 * 1024, cache_bytes: 1024, reserve_bytes: 0 };
    let log = Log::open(disk.clone(), &workers, log_options, Arc::default()).expect("a log");
    let store = Store::open(disk.clone(), &workers, 0, Arc::default()).expect("a store");
    let url = format!("http://{}", leader.local_addr().expect("bound"));
    let member = |id| (MemberId(id), Member { url: url.clone(), ..Member::default() });
    seed(&log, &BTreeMap::from([ME, LEADER, OTHER].map(member))).await.expect("a log");
    let options = Options {
        cluster: ClusterId(1),
        me: MemberId(ME),
        run: pb::Run { starts: 1, nonce: 1 },
        heartbeat: LONG / 10,
        election_timeout: LONG,
        engine_elects: false,
        early_election,
        snapshot_every: 1000,
        log_keep: 1000,
    };
    let world = World { net: Arc::new(RealNet), disk, clock: Arc::new(SystemClock), workers };
    let started = Consensus::start(options, &world, log, store, Faults::default()).await;
    let server = started.expect("an engine").0.server();
    speak(&server).await;
    server
}

/// The leader's word.
async fn speak(server: &RaftServer) {
    let vote = Some(vote_to_pb(&RaftVote::new_committed(1, LEADER)));
    let word = pb::AppendRequest { vote, prev: Some(LAST), ..pb::AppendRequest::default() };
    server.heartbeat(word).await.expect("it follows");
}

async fn would_vote(server: &RaftServer) -> bool {
    let vote = Some(vote_to_pb(&RaftVote::new(2, OTHER)));
    let question = pb::VoteRequest { vote, last: Some(LAST), ..pb::VoteRequest::default() };
    server.pre_vote(question).await.expect("an answer").granted
}

/// `0`: any free one.
async fn listen(port: u16) -> Box<dyn Listener> {
    RealNet.bind("127.0.0.1", port).await.expect("the port is free")
}

#[tokio::test]
async fn a_leader_is_protected_until_its_port_is_closed() {
    let port = listen(0).await;
    let server = follower_of(&*port, true).await;
    assert!(!would_vote(&server).await);
    drop(port);
    assert!(would_vote(&server).await);

    let port = listen(0).await;
    let blind = follower_of(&*port, false).await;
    drop(port);
    assert!(!would_vote(&blind).await, "only silence counts here");
}

#[tokio::test]
async fn a_leader_that_speaks_again_is_protected_again() {
    let port = listen(0).await;
    let server = follower_of(&*port, true).await;
    let number = port.local_addr().expect("bound").port();
    drop(port);
    assert!(would_vote(&server).await);
    let _port = listen(number).await;
    speak(&server).await;
    assert!(!would_vote(&server).await);
}

#[tokio::test]
async fn the_end_of_a_stream_is_looked_into() {
    let port = listen(0).await;
    let server = follower_of(&*port, true).await;
    let ended = server.detector.leader_ended();
    drop(port);
    drop(server.detector.guard_stream());
    ended.await;
    assert!(would_vote(&server).await);
}
