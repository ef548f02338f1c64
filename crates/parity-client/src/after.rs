//! After the leader's death: what was held is held, what was written is there.

use anyhow::{Context, Result, ensure};
use etcd_client::{
    Client, EventType, GetOptions, LeaderKey, LeaseTimeToLiveOptions, ProclaimOptions, ResignOptions,
    WatchOptions,
};
use tokio::time::timeout;

use crate::before::Held;
use crate::{PATIENCE, passed, retry};

/// Writes after the death of the leader, each awaited by the watch.
const WRITES: usize = 20;

pub async fn check(client: &Client, patient: &Client, held: Held) -> Result<()> {
    everything_is_writable(client).await?;
    passed("writes go on when the leader is killed");
    kept_keys(client).await?;
    passed("no acknowledged write is lost");
    watched(client, patient, held.revision).await?;
    passed("a watch tells every change once and in order");
    lease(client, held.lease).await?;
    passed("the lease and its keys are there");
    lock(client, held.lock_key, held.next_lock).await?;
    passed("the lock is held, then goes to who waits for it");
    election(client, held.leader, held.lease).await?;
    passed("the election's winner leads, proclaims and resigns");
    Ok(())
}

pub async fn everything_is_writable(client: &Client) -> Result<()> {
    for number in 0..WRITES {
        let put = || {
            let mut client = client.clone();
            async move { client.put(format!("w/{number:02}"), "value", None).await }
        };
        retry("a put", put).await?;
    }
    Ok(())
}

async fn kept_keys(client: &Client) -> Result<()> {
    let get = || {
        let mut client = client.clone();
        async move { client.get("k/", Some(GetOptions::new().with_prefix())).await }
    };
    let all = retry("a get", get).await?;
    ensure!(all.count() == 2 && all.kvs()[0].value() == b"swapped", "{all:?}");
    Ok(())
}

/// From before the leader's death on. A put may have been made twice, for its first answer
/// was lost; each is told, at growing revisions.
async fn watched(client: &Client, patient: &Client, revision: i64) -> Result<()> {
    let newest = retry("a get", || {
        let mut client = client.clone();
        async move { client.get("w/", Some(GetOptions::new().with_prefix())).await }
    });
    let newest = newest.await?.kvs().iter().map(etcd_client::KeyValue::mod_revision).max().context("keys")?;
    let options = || WatchOptions::new().with_prefix().with_start_revision(revision + 1).with_prev_key();
    let mut stream = retry("a watch", || {
        let mut client = patient.clone();
        async move { client.watch("w/", Some(options())).await }
    })
    .await?;
    let (mut last, mut keys) = (revision, std::collections::BTreeSet::new());
    while last < newest {
        let told = timeout(PATIENCE, stream.message()).await.context("nothing is told")??;
        for event in told.context("the stream ended")?.events() {
            let kv = event.kv().context("an event of a key")?;
            ensure!(
                event.event_type() == EventType::Put && kv.mod_revision() > last,
                "{event:?} after {last}"
            );
            last = kv.mod_revision();
            keys.insert(kv.key().to_vec());
        }
    }
    ensure!(keys.len() == WRITES, "{} of {WRITES} keys were told", keys.len());
    Ok(())
}

async fn lease(client: &Client, lease: i64) -> Result<()> {
    let left = || {
        let mut client = client.clone();
        async move { client.lease_time_to_live(lease, Some(LeaseTimeToLiveOptions::new().with_keys())).await }
    };
    let left = retry("a lease's time to live", left).await?;
    ensure!(left.ttl() > 0 && left.keys().iter().any(|key| key == b"leased"), "{left:?}");
    Ok(())
}

async fn lock(client: &Client, key: Vec<u8>, next: tokio::task::JoinHandle<Vec<u8>>) -> Result<()> {
    ensure!(!next.is_finished(), "two hold the lock: {:?}", next.await?);
    let held = retry("a get", || {
        let (mut client, key) = (client.clone(), key.clone());
        async move { client.get(key, None).await }
    });
    ensure!(held.await?.count() == 1, "the lock's key is gone");
    retry("an unlock", || {
        let (mut client, key) = (client.clone(), key.clone());
        async move { client.unlock(key).await }
    })
    .await?;
    let next = timeout(PATIENCE, next).await.context("nobody gets the lock")??;
    ensure!(next != key, "the next holder has a key of its own");
    Ok(())
}

async fn election(client: &Client, leader: LeaderKey, lease: i64) -> Result<()> {
    let leads = async |value: &'static str| -> Result<()> {
        let seen = retry("who leads", || {
            let mut client = client.clone();
            async move { client.leader("election").await }
        });
        let seen = seen.await?;
        ensure!(seen.kv().context("a leader")?.value() == value.as_bytes(), "{seen:?} instead of {value}");
        Ok(())
    };
    leads("first").await?;
    retry("a proclamation", || {
        let (mut client, leader) = (client.clone(), leader.clone());
        async move { client.proclaim("second", Some(ProclaimOptions::new().with_leader(leader))).await }
    })
    .await?;
    leads("second").await?;
    retry("a resignation", || {
        let (mut client, leader) = (client.clone(), leader.clone());
        async move { client.resign(Some(ResignOptions::new().with_leader(leader))).await }
    })
    .await?;
    retry("a campaign", || {
        let mut client = client.clone();
        async move { client.campaign("election", "third", lease).await }
    })
    .await?;
    leads("third").await
}
