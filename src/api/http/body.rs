//! Reading a request's body: bounded in size and in time.

use std::time::Duration;

use axum::body::Bytes;
use bytes::BytesMut;
use http::{HeaderMap, header};
use http_body_util::BodyExt;

use super::MAX_BODY_BYTES;
use super::error::ApiError;
use super::memory::{Budget, Share};
use crate::server::RequestBody;

/// For a whole body. 1.5 MiB in 10 s is 150 KB/s; a slower client would hold one of the
/// places for requests at once from those that are ready.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The body, and its part of what all bodies may hold: to be kept as long as it.
pub async fn read(
    headers: &HeaderMap,
    body: impl RequestBody,
    bodies: &Budget,
) -> Result<(Bytes, Share), ApiError> {
    read_within(BODY_TIMEOUT, headers, body, bodies).await
}

async fn read_within(
    timeout: Duration,
    headers: &HeaderMap,
    body: impl RequestBody,
    bodies: &Budget,
) -> Result<(Bytes, Share), ApiError> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if declared.and_then(|value| value.parse::<usize>().ok()).is_some_and(|bytes| bytes > MAX_BODY_BYTES) {
        // Before the client has sent it: with `Expect: 100-continue` it never does.
        return Err(ApiError::too_large());
    }
    let collecting = tokio::time::timeout(timeout, collect(body, bodies));
    collecting.await.unwrap_or_else(|_| Err(ApiError::slow_body()))
}

async fn collect(mut body: impl RequestBody, bodies: &Budget) -> Result<(Bytes, Share), ApiError> {
    let mut share = bodies.nothing();
    let (mut whole, mut parts) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ApiError::invalid(format!("the body broke off: {}", error.into())))?;
        let Ok(data) = frame.into_data() else { continue };
        let bytes = whole.len() + parts.len() + data.len();
        if bytes > MAX_BODY_BYTES {
            return Err(ApiError::too_large());
        }
        share.grow_to(bytes)?;
        if bytes == data.len() {
            // Most bodies arrive at once and need no copy.
            whole = data;
            continue;
        }
        parts.extend_from_slice(&std::mem::take(&mut whole));
        parts.extend_from_slice(&data);
    }
    let body = if parts.is_empty() { whole } else { parts.freeze() };
    Ok((body, share))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use axum::body::Body;

    use super::*;
    use crate::api::http::memory::MAX_BODY_BYTES_HELD;

    fn room() -> Budget {
        Budget::new(MAX_BODY_BYTES_HELD)
    }

    fn refusal(read: Result<(Bytes, Share), ApiError>) -> StatusCode {
        match read {
            Ok((body, _)) => panic!("{} bytes were taken", body.len()),
            Err(error) => error.status(),
        }
    }

    #[tokio::test]
    async fn unfinished_bodies_share_one_budget() {
        let (none, bodies) = (HeaderMap::new(), Budget::new(MAX_BODY_BYTES));
        let half = || Bytes::from(vec![b'1'; MAX_BODY_BYTES / 2]);
        let parts = || futures::stream::iter([Ok::<_, std::io::Error>(half()), Ok(half())]);
        let first = read(&none, Body::from_stream(parts()), &bodies).await;
        assert_eq!(
            refusal(read(&none, Body::from_stream(parts()), &bodies).await),
            StatusCode::TOO_MANY_REQUESTS
        );
        assert_eq!(read(&none, Body::from("1"), &bodies).await.expect("small ones pass").0, "1");
        assert_eq!(first.expect("fits").0.len(), MAX_BODY_BYTES);
        assert!(read(&none, Body::from_stream(parts()), &bodies).await.is_ok(), "given back");
    }

    #[tokio::test]
    async fn size_and_time_are_bounded() {
        let none = HeaderMap::new();
        let exact = Body::from(vec![b'1'; MAX_BODY_BYTES]);
        assert_eq!(read(&none, exact, &room()).await.expect("at the limit").0.len(), MAX_BODY_BYTES);
        let large = Body::from(vec![b'1'; MAX_BODY_BYTES + 1]);
        assert_eq!(refusal(read(&none, large, &room()).await), StatusCode::PAYLOAD_TOO_LARGE);
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let late = read_within(Duration::from_millis(1), &none, silent, &room()).await;
        assert_eq!(refusal(late), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn a_declared_length_is_refused_unread() {
        let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, (MAX_BODY_BYTES + 1).into())]);
        let unread = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(refusal(read(&headers, unread, &room()).await), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
