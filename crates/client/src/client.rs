//! The client itself: which node is asked, and what is tried again.
//!
//! A write: find the leader (remembered, or the one that says so of itself) → send →
//! done, final, or refused without effect; in the last case go where the refusal
//! points and try again, with growing pauses, until the deadline. A read: the endpoint
//! that answered last, then the others in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::reply::{self, Meaning, NodeStatus, Refusal};
use crate::transport::{self, Ask, SendError, Transport};
use crate::value::OCTETS;
use crate::{Entry, Error, ReadOptions, Value, WriteOptions, Written, encode_key};

/// The first pause after a refusal: about one round of replication.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The longest pause: well below an election, so that a new leader is found soon.
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// How much longer than the server a write waits: the server's own word on the outcome
/// says more than our clock's.
const ANSWER_GRACE: Duration = Duration::from_millis(250);
/// How long a node may take to say who leads. One that is paused must not hold up the rest.
const STATUS_TIMEOUT: Duration = Duration::from_millis(1000);
/// The least time a read gives one node before it asks the next.
const LEAST_READ_SHARE: Duration = Duration::from_millis(250);

/// A handle to a cluster. Clones share connections and what is known of the leader.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    transport: Transport,
    /// At least one, normalised.
    endpoints: Vec<String>,
    /// The leader's URL as last heard; a guess, checked by using it.
    leader: Mutex<Option<String>>,
    /// The index of the endpoint that answered the last read.
    reader: AtomicUsize,
}

/// When to stop, and how long to pause until then.
struct Deadline {
    at: Instant,
    pause: Duration,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, pause: FIRST_PAUSE }
    }

    fn remaining(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Pauses, at least as long as the server asked for; false when the time is up.
    async fn pause(&mut self, asked: Option<Duration>) -> bool {
        let pause = self.pause.max(asked.unwrap_or_default());
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        if pause >= self.remaining() {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }
}

impl Client {
    /// `endpoints` are URLs of some nodes of one cluster, such as `http://localhost:4001`.
    pub fn new<I, S>(endpoints: I) -> Result<Self, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let endpoints: Vec<String> =
            endpoints.into_iter().map(|text| transport::endpoint(text.as_ref())).collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            let why = "give at least one, such as http://localhost:4001".to_owned();
            return Err(Error::BadEndpoint { text: String::new(), why });
        }
        let (transport, leader) = (Transport::new(), Mutex::new(None));
        Ok(Self { inner: Arc::new(Inner { transport, endpoints, leader, reader: AtomicUsize::new(0) }) })
    }

    /// The endpoints, normalised to `http://host:port`.
    pub fn endpoints(&self) -> &[String] {
        &self.inner.endpoints
    }

    /// The value under `key`, or `None` when there is none.
    pub async fn get(&self, key: &str, options: &ReadOptions) -> Result<Option<Entry>, Error> {
        let path = key_path(key)?;
        let mut deadline = Deadline::after(options.timeout);
        let mut last: Option<Error> = None;
        loop {
            let (response, failure) = self.read_round(&path, options, &deadline).await;
            match (response, failure) {
                (Some(response), _) => return read_reply(&response),
                (None, Some(Round::Final(error))) => return Err(error),
                (None, Some(Round::Again(error))) => last = Some(error),
                (None, None) => {}
            }
            if !deadline.pause(None).await {
                let why = "no node answered".to_owned();
                return Err(last.unwrap_or(Error::Timeout { why }));
            }
        }
    }

    /// Stores `value` under `key`.
    pub async fn put(&self, key: &str, value: Value, options: &WriteOptions) -> Result<Written, Error> {
        let headers = vec![("content-type", value.content_type().to_owned())];
        let response = self.write(Method::PUT, key, headers, value.into_body(), options).await?;
        match response {
            Some(response) => reply::written(&response),
            None => Err(Error::Server { status: 404, message: "a write found no key".to_owned() }),
        }
    }

    /// Removes `key`; `None` when there was none.
    pub async fn delete(&self, key: &str, options: &WriteOptions) -> Result<Option<Written>, Error> {
        let response = self.write(Method::DELETE, key, Vec::new(), Bytes::new(), options).await?;
        response.map(|response| reply::written(&response)).transpose()
    }

    /// What each endpoint says of itself, in the order they were given.
    pub async fn status(&self) -> Vec<(String, Result<NodeStatus, Error>)> {
        // Asked at once: a paused node must not delay what the others say.
        let asked: Vec<_> = self
            .inner
            .endpoints
            .iter()
            .map(|endpoint| {
                let (client, endpoint) = (self.clone(), endpoint.clone());
                tokio::spawn(async move { client.status_of(&endpoint).await })
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (endpoint, answer) in self.inner.endpoints.iter().zip(asked) {
            let lost = |_| Err(Error::Timeout { why: "the question was dropped".to_owned() });
            answers.push((endpoint.clone(), answer.await.unwrap_or_else(lost)));
        }
        answers
    }

    /// What the node at `endpoint` says of itself.
    pub async fn status_of(&self, endpoint: &str) -> Result<NodeStatus, Error> {
        reply::parse(&self.ask(endpoint, "/status").await?)
    }

    /// Whether the node at `endpoint` is ready to serve (`/readyz`); else its reason.
    pub async fn readiness_of(&self, endpoint: &str) -> Result<Result<(), String>, Error> {
        let response = self.ask(endpoint, "/readyz").await?;
        if response.status().is_success() {
            return Ok(Ok(()));
        }
        Ok(Err(String::from_utf8_lossy(response.body()).trim().to_owned()))
    }

    async fn ask(&self, endpoint: &str, target: &str) -> Result<Response<Bytes>, Error> {
        let sent = self.inner.transport.send(endpoint, &Ask::get(target), STATUS_TIMEOUT).await;
        sent.map_err(|error| match error {
            SendError::NotSent(_) => Error::Unreachable { why: error.why(endpoint) },
            _ => Error::Timeout { why: error.why(endpoint) },
        })
    }

    /// Asks each endpoint once. Reads change nothing, so whatever goes wrong, the next
    /// one is asked.
    async fn read_round(
        &self,
        path: &str,
        options: &ReadOptions,
        deadline: &Deadline,
    ) -> (Option<Response<Bytes>>, Option<Round>) {
        let count = self.inner.endpoints.len();
        let first = self.inner.reader.load(Ordering::Relaxed);
        let mut failures = Failures::default();
        for step in 0..count {
            let index = (first + step) % count;
            // The time left is shared, so that a paused node leaves some to the others.
            let share = (deadline.remaining() / (count - step) as u32).max(LEAST_READ_SHARE);
            let share = share.min(deadline.remaining());
            if share.is_zero() {
                break;
            }
            let node = &self.inner.endpoints[index];
            match self.inner.transport.send(node, &read_ask(path, options, share), share).await {
                Err(error) => failures.unanswered(node, error),
                Ok(response) => match reply::meaning(&response, false) {
                    Meaning::Done | Meaning::NotFound => {
                        self.inner.reader.store(index, Ordering::Relaxed);
                        return (Some(response), None);
                    }
                    Meaning::Again(refusal) => failures.refused(refusal.error),
                    Meaning::Final(error @ Error::Timeout { .. }) => failures.refused(error),
                    Meaning::Final(error) => return (None, Some(Round::Final(error))),
                },
            }
        }
        (None, failures.verdict(count))
    }

    /// Sends a write until it is done, final, or the deadline passes; `None` is "no such key".
    async fn write(
        &self,
        method: Method,
        key: &str,
        mut headers: Vec<(&'static str, String)>,
        body: Bytes,
        options: &WriteOptions,
    ) -> Result<Option<Response<Bytes>>, Error> {
        let path = key_path(key)?;
        headers.extend(options.header());
        let mut ask = Ask { method, target: String::new(), headers, body };
        let mut deadline = Deadline::after(options.timeout);
        loop {
            let leader = self.leader().await;
            let refusal = match leader {
                Err(error @ Error::Unreachable { .. }) => return Err(error),
                Err(error) => Refusal { leader_url: None, retry_after: None, error },
                // Looking for the leader took all the time there was.
                Ok(_) if deadline.remaining().is_zero() => {
                    return Err(Error::NoLeader { why: "it was not found in time".to_owned() });
                }
                Ok(node) => {
                    ask.target = format!("{path}?{}", options.query(deadline.remaining()));
                    match self.write_once(&node, &ask, deadline.remaining()).await? {
                        Attempt::Answered(response) => return Ok(response),
                        Attempt::Refused(refusal) => refusal,
                    }
                }
            };
            if !deadline.pause(refusal.retry_after).await {
                return Err(refusal.error);
            }
        }
    }

    /// One attempt. An error is final; a refusal changed nothing.
    async fn write_once(&self, node: &str, ask: &Ask, remaining: Duration) -> Result<Attempt, Error> {
        let response = match self.inner.transport.send(node, ask, remaining + ANSWER_GRACE).await {
            Ok(response) => response,
            Err(error) => {
                self.remember(None);
                let why = error.why(node);
                return match error {
                    SendError::NotSent(_) => Ok(Attempt::Refused(Refusal {
                        leader_url: None,
                        retry_after: None,
                        error: Error::NoLeader { why },
                    })),
                    SendError::Broken(_) | SendError::Late => Err(Error::Unknown { why }),
                };
            }
        };
        match reply::meaning(&response, true) {
            Meaning::Done => Ok(Attempt::Answered(Some(response))),
            Meaning::NotFound => Ok(Attempt::Answered(None)),
            Meaning::Final(error) => Err(error),
            Meaning::Again(refusal) => {
                // A busy leader is still the leader; anything else points elsewhere or nowhere.
                if response.status() != http::StatusCode::TOO_MANY_REQUESTS {
                    self.remember(refusal.leader_url.as_deref().filter(|url| *url != node));
                }
                Ok(Attempt::Refused(refusal))
            }
        }
    }

    /// The leader as remembered, else as the endpoints report it.
    async fn leader(&self) -> Result<String, Error> {
        let known = self.inner.leader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(url) = known {
            return Ok(url);
        }
        let url = self.find_leader().await?;
        self.remember(Some(&url));
        Ok(url)
    }

    /// The first node to say that it leads, so that a paused one costs nothing; else the
    /// best of what the others know. A stale claim is harmless: it refuses, or points on.
    async fn find_leader(&self) -> Result<String, Error> {
        let mut asked = JoinSet::new();
        for endpoint in self.inner.endpoints.clone() {
            let client = self.clone();
            asked.spawn(async move {
                let answer = client.status_of(&endpoint).await;
                (endpoint, answer)
            });
        }
        let mut answers = Vec::with_capacity(self.inner.endpoints.len());
        while let Some(answer) = asked.join_next().await {
            // A question can only be lost when the runtime is going down.
            let Ok((url, answer)) = answer else { continue };
            if answer.as_ref().is_ok_and(NodeStatus::leads) {
                return Ok(url);
            }
            answers.push((url, answer));
        }
        told_leader(&answers)
    }

    fn remember(&self, leader: Option<&str>) {
        let leader = leader.and_then(|url| transport::endpoint(url).ok());
        *self.inner.leader.lock().unwrap_or_else(PoisonError::into_inner) = leader;
    }
}

enum Attempt {
    /// `None`: there is no such key.
    Answered(Option<Response<Bytes>>),
    Refused(Refusal),
}

/// How a round over all endpoints ended without an answer.
enum Round {
    Again(Error),
    Final(Error),
}

/// What went wrong in one round of reading, the most telling first.
#[derive(Default)]
struct Failures {
    /// A node answered, but not with the value.
    refused: Option<Error>,
    /// A node took the request and gave no answer.
    silent: Option<String>,
    unreachable: Vec<String>,
}

impl Failures {
    fn refused(&mut self, error: Error) {
        self.refused = Some(error);
    }

    fn unanswered(&mut self, node: &str, error: SendError) {
        let why = error.why(node);
        match error {
            SendError::NotSent(_) => self.unreachable.push(why),
            SendError::Broken(_) | SendError::Late => self.silent = Some(why),
        }
    }

    /// When nobody even accepts a connection, waiting will not help: say so at once.
    fn verdict(self, count: usize) -> Option<Round> {
        match (self.refused, self.silent) {
            (Some(error), _) => Some(Round::Again(error)),
            (None, Some(why)) => Some(Round::Again(Error::Timeout { why })),
            (None, None) if self.unreachable.len() == count => {
                Some(Round::Final(Error::Unreachable { why: self.unreachable.join("; ") }))
            }
            (None, None) => None,
        }
    }
}

/// Where to write when nobody we reached leads: the address others give for the leader,
/// newest term first. Second choice, because where nodes know each other by names of
/// their own network (containers), that address may mean nothing here.
fn told_leader(answers: &[(String, Result<NodeStatus, Error>)]) -> Result<String, Error> {
    let heard = || answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    let told = heard().filter_map(|status| status.leader_url.as_ref().map(|url| (status.term, url)));
    if let Some((_, url)) = told.max_by_key(|(term, _)| *term) {
        return Ok(url.clone());
    }
    let why = answers.iter().filter_map(|(_, answer)| answer.as_ref().err().map(ToString::to_string));
    let why = why.collect::<Vec<_>>().join("; ");
    if answers.iter().all(|(_, answer)| matches!(answer, Err(Error::Unreachable { .. }))) {
        return Err(Error::Unreachable { why: why.replace("no node can be reached: ", "") });
    }
    let why = if why.is_empty() { "no node knows one".to_owned() } else { why };
    Err(Error::NoLeader { why })
}

fn key_path(key: &str) -> Result<String, Error> {
    let path = encode_key(key).map_err(|error| Error::Invalid { message: error.to_string(), hint: None })?;
    Ok(format!("/key/{path}"))
}

fn read_ask(path: &str, options: &ReadOptions, share: Duration) -> Ask {
    let mut ask = Ask::get(format!("{path}?{}", options.query(share)));
    if options.raw {
        ask.headers.push(("accept", OCTETS.to_owned()));
    }
    ask
}

fn read_reply(response: &Response<Bytes>) -> Result<Option<Entry>, Error> {
    match response.status() {
        http::StatusCode::NOT_FOUND => Ok(None),
        _ => reply::entry(response).map(Some),
    }
}
