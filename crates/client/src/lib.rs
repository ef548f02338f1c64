//! A client for Bellwether that follows the leader and repeats only what is safe to
//! repeat.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use bellwether_client::{Client, ReadOptions, Value, WriteOptions};
//!
//! let client = Client::new(["http://localhost:4001", "http://localhost:4002"])?;
//! client.put("name", Value::json(r#""Alice""#)?, &WriteOptions::default()).await?;
//! let entry = client.get("name", &ReadOptions::default()).await?;
//! # Ok(()) }
//! ```
//!
//! How a call flows: [`Client`] picks a node (`route`), sends one request over a pooled
//! HTTP/1.1 connection (`transport`), and reads the reply's meaning (`reply`): done,
//! refused without effect, or unknown. Only the middle one is tried again.
//!
//! **Reads** change nothing, so any node may be asked, and another one after a failure.
//! **Writes** go to the leader. One that was refused without effect (the reply says
//! `not_applied`), or that never left because nobody accepted the connection, is sent
//! again until the deadline. One whose fate is not known is *never* sent again:
//! [`Error::Unknown`] goes to the caller, who alone can tell whether repeating is safe
//! (a conditional write with [`Condition::IfMatch`] makes it so).

mod client;
mod error;
mod key;
mod options;
mod reply;
mod transport;
mod value;

pub use client::Client;
pub use error::Error;
pub use key::{InvalidKey, encode_key};
pub use options::{Ack, Condition, ReadOptions, WriteOptions};
pub use reply::{Entry, MemberStatus, NodeStatus, Written};
pub use value::{InvalidJson, Value};
