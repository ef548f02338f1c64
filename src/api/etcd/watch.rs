//! The Watch service: requests create and cancel watches, responses tell what happened.
//!
//! One task a stream reads the requests and writes the responses. While its client does
//! not read, it stands still, and nothing gathers for it: see `node/watch`. The events come
//! encoded, shared by all who watch the same, so the response's message is our own
//! ([`Response`]); on the wire it is etcd's.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;

use axum::body::Body;
use bytes::Bytes;
use futures::Stream;
use tonic::server::Grpc;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use super::long_calls::leaderless;
use super::{Answer, Api, Refused, requires_leader};
use crate::error::Error;
use crate::node::watch::{Delivery, Ended, RefusedWatch, Subject, WatchSpec, WatchStream};
use crate::proto::etcdserverpb::watch_create_request::FilterType;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest};
use crate::storage::mvcc::KeyRange;
use crate::types::Revision;

/// Where it lives; a stream there may last for ever.
pub const PATH: &str = "/etcdserverpb.Watch/Watch";
/// A response of more bytes is cut for a client that can put it together: what etcd lets
/// a request have.
const FRAGMENT_BYTES: usize = 2 << 20;
/// The id of what concerns no watch, or all of a stream.
const NO_WATCH: i64 = -1;

/// `etcdserverpb.WatchResponse`, with events that are encoded already.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    watch_id: i64,
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(bool, tag = "4")]
    canceled: bool,
    #[prost(int64, tag = "5")]
    compact_revision: i64,
    #[prost(string, tag = "6")]
    cancel_reason: String,
    #[prost(bool, tag = "7")]
    fragment: bool,
    #[prost(bytes = "bytes", repeated, tag = "11")]
    events: Vec<Bytes>,
}

type Responses = Pin<Box<dyn Stream<Item = Result<Response, Status>> + Send>>;

/// The service as the router takes it. Not the generated one, whose responses hold events
/// that are to be encoded for each watcher.
pub fn service(
    api: Api,
    read_bytes: usize,
) -> impl Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(move |request| {
        let api = api.clone();
        async move {
            let codec = ProstCodec::<Response, WatchRequest>::default();
            let mut grpc =
                Grpc::new(codec).max_decoding_message_size(read_bytes).max_encoding_message_size(usize::MAX);
            let opening = tower::service_fn(move |request| open(api.clone(), request));
            Ok(grpc.streaming(opening, request).await.map(Body::new))
        }
    })
}

async fn open(api: Api, request: Request<Streaming<WatchRequest>>) -> Answer<Responses> {
    api.require_leader(request.metadata().as_ref())?;
    let watches = api.node.watch(api.timeout()).await.map_err(Refused::from)?;
    let needs_leader = requires_leader(request.metadata().as_ref());
    let session =
        Session { api, watches, requests: request.into_inner(), needs_leader, fragmented: BTreeSet::new() };
    Ok(tonic::Response::new(Box::pin(session.run())))
}

/// One stream.
struct Session {
    api: Api,
    watches: WatchStream,
    requests: Streaming<WatchRequest>,
    needs_leader: bool,
    /// Watches whose responses may be cut.
    fragmented: BTreeSet<i64>,
}

impl Session {
    fn run(mut self) -> impl Stream<Item = Result<Response, Status>> + Send {
        async_stream::stream! {
            let mut leaderless = Box::pin(leaderless(self.api.node.clone(), self.needs_leader));
            // A client that asks for nothing more may go on listening.
            let mut asks = true;
            loop {
                let responses = tokio::select! { biased;
                    () = leaderless.as_mut() => Err(Refused::NoLeader.into()),
                    request = self.requests.message(), if asks => match request {
                        Ok(Some(request)) => Ok(self.answer(request)),
                        Ok(None) => {
                            asks = false;
                            Ok(Vec::new())
                        }
                        Err(status) => Err(status),
                    },
                    delivery = self.watches.next() => match delivery {
                        Ok(delivery) => Ok(self.tell(delivery)),
                        Err(why) => Err(ended(why)),
                    },
                };
                match responses {
                    Ok(responses) => for response in responses {
                        yield Ok(response);
                    },
                    Err(status) => {
                        yield Err(status);
                        return;
                    }
                }
            }
        }
    }

    fn answer(&mut self, request: WatchRequest) -> Vec<Response> {
        let revision = self.watches.revision();
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => {
                let fragmented = request.fragment;
                let created = create(request).and_then(|spec| Ok(self.watches.create(spec)?));
                vec![match created {
                    Ok(watch_id) => {
                        if fragmented {
                            self.fragmented.insert(watch_id);
                        }
                        Response { watch_id, created: true, ..self.response(revision) }
                    }
                    Err(NotCreated(cancel_reason)) => Response {
                        watch_id: NO_WATCH,
                        created: true,
                        canceled: true,
                        cancel_reason,
                        ..self.response(revision)
                    },
                }]
            }
            Some(RequestUnion::CancelRequest(request)) => {
                let watch_id = request.watch_id;
                if !self.watches.cancel(watch_id) {
                    return Vec::new();
                }
                self.fragmented.remove(&watch_id);
                vec![Response { watch_id, canceled: true, ..self.response(revision) }]
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.watches.ask_progress();
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn tell(&mut self, delivery: Delivery) -> Vec<Response> {
        match delivery {
            Delivery::Events { id, events, revision } => {
                let whole = Response { watch_id: id, events, ..self.response(revision) };
                if self.fragmented.contains(&id) { fragments(whole, FRAGMENT_BYTES) } else { vec![whole] }
            }
            Delivery::Progress { id, revision } => {
                vec![Response { watch_id: id.unwrap_or(NO_WATCH), ..self.response(revision) }]
            }
            Delivery::Compacted { id, oldest } => {
                self.fragmented.remove(&id);
                vec![Response {
                    watch_id: id,
                    canceled: true,
                    compact_revision: oldest.cast_signed(),
                    cancel_reason: Refused::Compacted.to_string(),
                    ..self.response(self.watches.revision())
                }]
            }
        }
    }

    fn response(&self, revision: Revision) -> Response {
        Response { header: self.api.header(revision), ..Response::default() }
    }
}

fn ended(why: Ended) -> Status {
    match why {
        Ended::Stopping => Refused::Other(Error::stopping()).into(),
        // Not data loss, as on other calls: that would make clients give up, and another
        // member can go on with this watch.
        Ended::Unsound => Status::unavailable("etcdserver: corrupt cluster"),
    }
}

/// The words with which etcd says that there is no such watch.
#[derive(Debug, PartialEq)]
struct NotCreated(String);

impl From<RefusedWatch> for NotCreated {
    fn from(refused: RefusedWatch) -> Self {
        Self(match refused {
            RefusedWatch::DuplicateId => "mvcc: duplicate watch ID provided on the WatchStream".to_owned(),
            // etcd has no such limits.
            other => format!("etcdserver: too many requests: {other}"),
        })
    }
}

fn create(request: WatchCreateRequest) -> Result<WatchSpec, NotCreated> {
    let range = range(request.key.clone(), request.range_end.clone())?;
    let filtered = |filter: FilterType| request.filters().any(|other| other == filter);
    let subject = Subject {
        range,
        puts: !filtered(FilterType::Noput),
        deletes: !filtered(FilterType::Nodelete),
        previous: request.prev_kv,
    };
    // Before the first revision there is nothing to see.
    let start = (request.start_revision != 0).then(|| u64::try_from(request.start_revision).unwrap_or(1));
    let id = (request.watch_id != 0).then_some(request.watch_id);
    Ok(WatchSpec { id, subject, start, progress: request.progress_notify })
}

fn range(key: Bytes, end: Bytes) -> Result<KeyRange, NotCreated> {
    // No key is the smallest one, as in etcd.
    let key = if key.is_empty() { Bytes::from_static(&[0]) } else { key };
    match KeyRange::of_request(&key, &end) {
        KeyRange::Between(key, end) if key >= end => {
            Err(NotCreated("mvcc: watcher range is empty".to_owned()))
        }
        range => Ok(range),
    }
}

/// Cuts a response between events, so that no piece is longer than it may be, if its
/// events allow that.
fn fragments(whole: Response, most: usize) -> Vec<Response> {
    let mut pieces = Vec::new();
    let mut events = Vec::new();
    let mut bytes = 0;
    for event in &whole.events {
        if bytes + event.len() > most && !events.is_empty() {
            let events = std::mem::take(&mut events);
            bytes = 0;
            pieces.push(Response { events, fragment: true, ..head(&whole) });
        }
        bytes += event.len();
        events.push(event.clone());
    }
    pieces.push(Response { events, ..head(&whole) });
    pieces
}

/// All but the events.
fn head(response: &Response) -> Response {
    let Response { header, watch_id, .. } = response;
    Response { header: *header, watch_id: *watch_id, ..Response::default() }
}
