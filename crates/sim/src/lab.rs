//! Spoils single messages between nodes, through the nodes' own laboratory
//! (`/v1/lab/network`), and counts what befell them.
//!
//! The network below is turmoil's and keeps whole connections in order; loss, doubles,
//! delays and overtaking of single peer messages are made where they leave and arrive.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use http::Method;
use serde_json::json;

use crate::cluster::{authority, host};
use crate::http::Request;
use crate::plan::Spoilt;
use crate::trace;
use crate::workload::Workload;

/// Between two looks for orders.
const PERIOD: Duration = Duration::from_millis(20);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(400);
/// What the laboratory counts, and what a report calls it.
const COUNTS: [(&str, &str); 4] = [
    ("lost", "message lost"),
    ("duplicated", "message doubled"),
    ("reordered", "message overtaken"),
    ("delayed", "message delayed"),
];

#[derive(Clone, Copy)]
enum Order {
    Spoil(usize, Spoilt),
    Heal,
}

pub struct Lab {
    nodes: usize,
    orders: RefCell<VecDeque<Order>>,
    /// The highest count that each node told in one life; a restart begins anew.
    told: RefCell<BTreeMap<(usize, &'static str), u64>>,
    struck: RefCell<BTreeMap<&'static str, u64>>,
}

impl Lab {
    pub fn new(nodes: usize) -> Self {
        let (orders, told, struck) = Default::default();
        Self { nodes, orders, told, struck }
    }

    pub fn spoil(&self, node: usize, spoilt: Spoilt) {
        self.orders.borrow_mut().push_back(Order::Spoil(node, spoilt));
    }

    pub fn heal(&self) {
        self.orders.borrow_mut().push_back(Order::Heal);
    }

    /// How many messages were struck, by what struck them.
    pub fn struck(&self) -> BTreeMap<&'static str, u64> {
        self.struck.borrow().clone()
    }

    /// Carries orders out until the clients have ended and every node is healed.
    pub async fn run(self: Rc<Self>, workload: Rc<Workload>) {
        let mut left: BTreeSet<usize> = (0..self.nodes).collect();
        while !left.is_empty() {
            let order = self.orders.borrow_mut().pop_front();
            match order {
                Some(Order::Spoil(node, spoilt)) => self.spoil_links(node, spoilt).await,
                Some(Order::Heal) => drop(self.heal_links(&(0..self.nodes).collect()).await),
                None if workload.is_stopped() => left = self.heal_links(&left).await,
                None => {}
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn spoil_links(&self, node: usize, spoilt: Spoilt) {
        let Spoilt { loss, duplicate, reorder, delay_ms } = spoilt;
        let chance = |percent: u8| f64::from(percent) / 100.0;
        let rules = json!({
            "loss": chance(loss), "duplicate": chance(duplicate), "reorder": chance(reorder), "delayMs": delay_ms
        });
        let body = json!({"send": rules, "receive": rules}).to_string();
        for other in (0..self.nodes).filter(|other| *other != node) {
            let target = format!("/v1/lab/network/{}", host(other));
            let request = Request { body: body.clone(), ..Request::new(Method::PUT, target) };
            let status = request.send(&authority(node), ANSWER_TIMEOUT).await.map(|reply| reply.status);
            trace::event(|| format!("lab: {} to {} {spoilt:?}: {status:?}", host(node), host(other)));
        }
    }

    /// Those that did not answer.
    async fn heal_links(&self, nodes: &BTreeSet<usize>) -> BTreeSet<usize> {
        let mut left = BTreeSet::new();
        for node in nodes {
            let request = Request::new(Method::DELETE, "/v1/lab/network");
            match request.send(&authority(*node), ANSWER_TIMEOUT).await {
                Ok(reply) if reply.status == 200 => self.count(*node, &reply.json()),
                _ => drop(left.insert(*node)),
            }
        }
        left
    }

    fn count(&self, node: usize, reply: &serde_json::Value) {
        let links = reply["links"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (field, name) in COUNTS {
            let counts = links.iter().flat_map(|link| [&link["send"], &link["receive"]]);
            let now: u64 = counts.filter_map(|way| way["counts"][field].as_u64()).sum();
            let before = self.told.borrow_mut().insert((node, field), now).unwrap_or(0);
            *self.struck.borrow_mut().entry(name).or_default() +=
                if now >= before { now - before } else { now };
        }
    }
}
