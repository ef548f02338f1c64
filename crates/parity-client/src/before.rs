//! With all three nodes: every call once, and something held of each kind.

use anyhow::{Context, Result, ensure};
use etcd_client::{
    Client, Compare, CompareOp, DeleteOptions, GetOptions, LeaderKey, LockOptions, Txn, TxnOp,
};
use tokio::task::JoinHandle;

use crate::{TTL_SECONDS, passed, retry};

/// What is to survive the leader.
pub struct Held {
    /// Watches begin behind it.
    pub revision: i64,
    pub lease: i64,
    pub lock_key: Vec<u8>,
    /// Waits for the same lock; ends with its key.
    pub next_lock: JoinHandle<Vec<u8>>,
    pub leader: LeaderKey,
}

pub async fn take(client: &Client, patient: &Client) -> Result<Held> {
    keys(client).await?;
    passed("put, get and delete");
    let revision = transactions(client).await?;
    passed("transactions");
    let lease = lease(client).await?;
    passed("a lease is granted and kept alive");
    let lock_key =
        client.clone().lock("lock", Some(LockOptions::new().with_lease(lease))).await?.key().to_vec();
    // Granted by now, for a grant that is under way when the leader dies may fail.
    let next_lease = client.clone().lease_grant(TTL_SECONDS, None).await?.id();
    let next_lock = tokio::spawn(lock_again(patient.clone(), next_lease));
    passed("a lock is held");
    let leader = campaign(client, lease).await?;
    passed("an election is won");
    Ok(Held { revision, lease, lock_key, next_lock, leader })
}

async fn keys(client: &Client) -> Result<()> {
    let mut client = client.clone();
    for key in ["k/1", "k/2", "k/3"] {
        client.put(key, "value", None).await?;
    }
    let all = client.get("k/", Some(GetOptions::new().with_prefix())).await?;
    ensure!(all.count() == 3 && all.kvs()[1].key() == b"k/2", "{all:?}");
    let deleted = client.delete("k/3", Some(DeleteOptions::new().with_prev_key())).await?;
    ensure!(deleted.deleted() == 1 && deleted.prev_kvs()[0].value() == b"value", "{deleted:?}");
    Ok(())
}

/// Returns the revision after the last of them.
async fn transactions(client: &Client) -> Result<i64> {
    let mut client = client.clone();
    let swap = |old: &str, new: &str| {
        Txn::new()
            .when([Compare::value("k/1", CompareOp::Equal, old)])
            .and_then([TxnOp::put("k/1", new, None)])
            .or_else([TxnOp::get("k/1", None)])
    };
    ensure!(client.txn(swap("value", "swapped")).await?.succeeded(), "the value was as expected");
    let refused = client.txn(swap("value", "again")).await?;
    ensure!(!refused.succeeded(), "the value was another");
    Ok(refused.header().context("a header")?.revision())
}

async fn lease(client: &Client) -> Result<i64> {
    let mut client = client.clone();
    let lease = client.lease_grant(TTL_SECONDS, None).await?.id();
    let options = etcd_client::PutOptions::new().with_lease(lease);
    client.put("leased", "value", Some(options)).await?;
    let (mut keeper, mut kept) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    let ttl = kept.message().await?.context("an answer")?.ttl();
    ensure!(ttl == TTL_SECONDS, "kept alive for {ttl} s");
    Ok(lease)
}

/// A wait that its node took to the grave begins anew.
async fn lock_again(client: Client, lease: i64) -> Vec<u8> {
    loop {
        let options = LockOptions::new().with_lease(lease);
        match client.clone().lock("lock", Some(options)).await {
            Ok(locked) => return locked.key().to_vec(),
            Err(_) => tokio::time::sleep(crate::PAUSE).await,
        }
    }
}

async fn campaign(client: &Client, lease: i64) -> Result<LeaderKey> {
    let won = client.clone().campaign("election", "first", lease).await?;
    let seen = retry("who leads", || {
        let mut client = client.clone();
        async move { client.leader("election").await }
    });
    ensure!(seen.await?.kv().context("a leader")?.value() == b"first", "another leads");
    Ok(won.leader().context("a leader's key")?.clone())
}
