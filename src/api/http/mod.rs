//! JSON over HTTP: the chapter's routes, ours under `/v1`, health and metrics.
//!
//! A request goes through [`Api::dispatch`]: [`route`] finds the handler by method and path,
//! [`Admission`] turns away what is too much, [`memory`] counts what bodies and replies
//! hold, [`turns`] keeps long work from crowding out the rest, the handler ([`key`], [`status`], [`v1`],
//! [`health`]) parses, makes one call on the node and builds its reply with [`reply`], and
//! every refusal is an [`error::ApiError`]. On the way out the reply gets its CORS
//! headers, also a refusal, and its time is counted.
//!
//! The whole API is one fallback instead of a route each: keys are taken from the raw
//! path (axum decodes them and allocates for it), and 404, 405 and CORS have one place.
//! Other protocols on the same port are routes beside it. They must not bring a
//! fallback of their own. Requests for keys may come without the router: [`Api`].
//!
//! `docs/http-api.md` is the users' page of all this; a change here is a change there.

mod body;
mod conditions;
mod cors;
#[cfg(test)]
mod docs_tests;
mod error;
#[cfg(test)]
mod fuzz;
mod health;
mod key;
mod lab;
mod lab_disk;
mod memory;
mod percent;
mod query;
mod reply;
mod route;
mod scrape;
mod status;
mod turns;
mod v1;
mod value;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use http::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use super::admission::Admission;
use crate::metrics::RequestLabels;
use crate::node::Node;
use crate::server::RequestBody;
use error::{ApiError, ApiResult};
use memory::Budget;
use route::Route;
use turns::Turns;
/// For `benches`.
#[doc(hidden)]
pub use value::{parse_json, show};

/// The longest key in bytes, after percent-decoding. Long enough for a path-like key,
/// short enough that an index of a million keys stays in memory.
pub const MAX_KEY_BYTES: usize = 4096;
/// The largest value in bytes: one log entry must fit one peer message (4 MiB) with room
/// for others beside it.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// The largest request body: a value and the white space around it.
pub const MAX_BODY_BYTES: usize = MAX_VALUE_BYTES + MAX_VALUE_BYTES / 2;

/// What gRPC's calls say that they are.
const GRPC: &str = "application/grpc";

/// What all handlers share.
struct App {
    node: Node,
    admission: Arc<Admission>,
    /// What bodies hold that are still coming.
    bodies: Budget,
    /// What replies hold that are not sent yet.
    replies: Budget,
    /// For long pages and values.
    turns: Turns,
    /// For hashes of the whole store, each in a thread of its own.
    hashes: Turns,
    scrape: scrape::Scrape,
}

/// Everything clients speak over plain HTTP; clones share it.
#[derive(Clone)]
pub struct Api(Arc<App>);

impl Api {
    pub fn new(node: Node, admission: Arc<Admission>) -> Self {
        let scrape = scrape::Scrape::new(node.clone());
        let bodies = Budget::new(memory::MAX_BODY_BYTES_HELD);
        let replies = Budget::new(memory::MAX_REPLY_BYTES_HELD);
        let (turns, hashes) = (Turns::default(), Turns::default());
        Self(Arc::new(App { node, admission, bodies, replies, turns, hashes, scrape }))
    }

    /// The API as a router's fallback, with room for other protocols beside it.
    pub fn router(&self) -> axum::Router {
        let dispatch = |State(api): State<Self>, request: Request<Body>| api.dispatch(request);
        axum::Router::new().fallback(dispatch).with_state(self.clone())
    }

    /// Whether it is one of the requests that are asked so often, for a key, that
    /// [`Api::dispatch`] should get them without a router in between.
    pub fn is_for_a_key<B>(request: &Request<B>) -> bool {
        request.uri().path().starts_with(route::KEY_PREFIX)
    }

    pub async fn dispatch<B: RequestBody>(self, request: Request<B>) -> Response<Body> {
        dispatch(&self.0, request).await
    }
}

async fn dispatch<B: RequestBody>(app: &App, request: Request<B>) -> Response<Body> {
    let began = Instant::now();
    let method = request.method().clone();
    let route = route::find(&method, request.uri().path());
    if route == Route::Unknown && reply::has_type(request.headers(), GRPC) {
        return unknown_call(request.uri().path());
    }
    let mut response = match answer(app, route, request).await {
        Ok(response) => response,
        Err(error) => refuse(&app.node, route, error),
    };
    if method == Method::HEAD {
        reply::strip_body(&mut response);
    }
    let held = memory::hold(&app.replies, response, !route.is_write());
    let mut response = held.unwrap_or_else(|error| refuse(&app.node, route, error));
    cors::allow(response.headers_mut());
    let labels = RequestLabels {
        method: route::method_label(&method),
        route: route.label(),
        status: reply::status_class(&response),
    };
    app.node.metrics().request_seconds.get_or_create(&labels).observe(began.elapsed().as_secs_f64());
    response
}

/// A gRPC call that no service took: its client understands nothing but a gRPC answer.
fn unknown_call(path: &str) -> Response<Body> {
    let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    tonic::Status::unimplemented(format!("unknown service {service}")).into_http()
}

/// Refusals say where they come from, too, but not those of an overload: they must cost
/// next to nothing.
fn refuse(node: &Node, route: Route, error: ApiError) -> Response<Body> {
    let mut response = error.into_response(route.is_write(), route.is_v1());
    if route.is_limited() && response.status() != StatusCode::TOO_MANY_REQUESTS {
        reply::placed(node, &mut response);
    }
    response
}

/// One line a route: the API's table of contents. What is asked rarely is on the heap, or
/// every request would carry the state of the longest.
async fn answer<B: RequestBody>(app: &App, route: Route, request: Request<B>) -> ApiResult {
    let _permit = if route.is_limited() { Some(app.admission.enter()?) } else { None };
    let (mut parts, body) = request.into_parts();
    let node = &app.node;
    match route {
        Route::Status => status::get(node, &parts),
        Route::GetKey => key::get(node, &mut parts, &app.turns).await,
        Route::PutKey => key::put(app, &mut parts, body).await,
        Route::DeleteKey => Box::pin(key::delete(node, &parts)).await,
        Route::Keys => Box::pin(v1::keys(node, &parts, &app.turns)).await,
        Route::Changes => Box::pin(v1::changes(node, &parts, &app.turns)).await,
        Route::Compact => Box::pin(v1::compact(node, &parts)).await,
        Route::StateHash => Box::pin(v1::state_hash(node, &app.hashes)).await,
        Route::LabNetwork => lab::network(node, &parts),
        Route::LabLink => Box::pin(lab::set_link(node, &parts, body, &app.bodies)).await,
        Route::LabHeal => lab::heal(node, &parts),
        Route::LabDisk => lab_disk::get(node, &parts),
        Route::LabFailDisk => Box::pin(lab_disk::fail(node, &parts, body, &app.bodies)).await,
        Route::LabCorrupt => Box::pin(lab::corrupt(node, &parts)).await,
        Route::Live => health::live(node),
        Route::Ready => health::ready(node, &parts),
        Route::Health => health::health(node),
        Route::Version => health::version(),
        Route::Metrics => app.scrape.page(),
        Route::Preflight => Ok(cors::preflight()),
        Route::WrongMethod { allow } => Err(ApiError::method_not_allowed(allow)),
        Route::Unknown => Err(ApiError::not_found()),
    }
}
