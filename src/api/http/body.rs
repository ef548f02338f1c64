//! Reading a request's body: bounded in size and in time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::MAX_BODY_BYTES;
use super::error::ApiError;

/// For a whole body. 1.5 MiB in 10 s is 150 KB/s; a slower client would hold one of the
/// places for requests at once from those that are ready.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    read_within(BODY_TIMEOUT, headers, body).await
}

async fn read_within(timeout: Duration, headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if declared.and_then(|value| value.parse::<usize>().ok()).is_some_and(|bytes| bytes > MAX_BODY_BYTES) {
        // Before the client has sent it: with `Expect: 100-continue` it never does.
        return Err(ApiError::too_large());
    }
    let collected = tokio::time::timeout(timeout, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large()),
        Ok(Err(error)) => Err(ApiError::invalid(format!("the body broke off: {error}"))),
        Err(_) => Err(ApiError::slow_body()),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn size_and_time_are_bounded() {
        let none = HeaderMap::new();
        let exact = Body::from(vec![b'1'; MAX_BODY_BYTES]);
        assert_eq!(read(&none, exact).await.expect("at the limit").len(), MAX_BODY_BYTES);
        let large = Body::from(vec![b'1'; MAX_BODY_BYTES + 1]);
        assert_eq!(read(&none, large).await.expect_err("too large").status(), StatusCode::PAYLOAD_TOO_LARGE);
        let silent = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(
            read_within(Duration::from_millis(1), &none, silent).await.expect_err("too slow").status(),
            StatusCode::REQUEST_TIMEOUT
        );
    }

    #[tokio::test]
    async fn a_declared_length_is_refused_unread() {
        let headers = HeaderMap::from_iter([(header::CONTENT_LENGTH, (MAX_BODY_BYTES + 1).into())]);
        let unread = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(
            read(&headers, unread).await.expect_err("declared").status(),
            StatusCode::PAYLOAD_TOO_LARGE
        );
    }
}
