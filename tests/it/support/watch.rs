//! Watching through etcd's protocol.

use bellwether::proto::etcdserverpb::watch_client::WatchClient;
use bellwether::proto::etcdserverpb::watch_request::RequestUnion;
use bellwether::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, WatchCancelRequest, WatchCreateRequest,
    WatchProgressRequest, WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Request, Status, Streaming};

use super::PATIENCE;
use super::etcd::{CONNECT_TIMEOUT, Etcd};

impl Etcd {
    /// One connection to one node that listens.
    pub async fn connect(port: u16) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("a URL");
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        Ok(Self(endpoint.connect().await.map_err(|error| error.to_string())?))
    }

    /// The revision that it made.
    pub async fn write(&self, key: impl Into<String>, value: impl Into<String>) -> Result<i64, Status> {
        let (key, value) = (key.into().into(), value.into().into());
        let reply = self.kv().put(PutRequest { key, value, ..PutRequest::default() }).await?;
        Ok(reply.into_inner().header.expect("a header").revision)
    }

    pub async fn delete(&self, key: &'static str) -> Result<i64, Status> {
        let request = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
        Ok(self.kv().delete_range(request).await?.into_inner().header.expect("a header").revision)
    }

    pub async fn compact(&self, revision: i64) -> Result<(), Status> {
        self.kv().compact(CompactionRequest { revision, physical: false }).await.map(drop)
    }

    pub async fn watch(&self) -> Result<Watch, Status> {
        self.watch_with(false).await
    }

    /// `needs_leader`: the stream is to end when the member has no leader.
    pub async fn watch_with(&self, needs_leader: bool) -> Result<Watch, Status> {
        let (requests, queue) = mpsc::unbounded_channel();
        let mut request = Request::new(UnboundedReceiverStream::new(queue));
        if needs_leader {
            request.metadata_mut().insert("hasleader", "true".parse().expect("metadata"));
        }
        let mut client = WatchClient::new(self.0.clone());
        let responses = client.watch(request).await?.into_inner();
        Ok(Watch { requests, responses })
    }
}

/// One stream of watches.
pub struct Watch {
    requests: mpsc::UnboundedSender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Watch {
    fn send(&self, request: RequestUnion) {
        // A stream that has ended says so when it is read.
        let _ = self.requests.send(WatchRequest { request_union: Some(request) });
    }

    pub fn create(&self, request: WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(request));
    }

    pub fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }

    pub fn ask_progress(&self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    }

    pub async fn try_next(&mut self) -> Result<WatchResponse, Status> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        next.expect("a response in time")?.ok_or_else(|| Status::unavailable("the stream ended"))
    }

    pub async fn next(&mut self) -> WatchResponse {
        self.try_next().await.expect("the stream goes on")
    }

    /// Creates a watch, and expects that it was.
    pub async fn created(&mut self, request: WatchCreateRequest) -> i64 {
        self.create(request);
        let response = self.next().await;
        assert!(response.created && !response.canceled, "{response:?}");
        response.watch_id
    }
}
