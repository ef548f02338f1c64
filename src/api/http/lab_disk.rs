//! `/v1/lab/disk`: a disk that fails on demand, on nodes started with `--lab`.

use http::StatusCode;
use http::request::Parts;
use serde::{Deserialize, Serialize};

use super::error::{ApiError, ApiResult};
use super::lab::require_lab;
use super::memory::Budget;
use super::{body, query, reply};
use crate::env::failing_disk::{Armed, Fault};
use crate::node::Node;
use crate::server::RequestBody;

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
enum FaultText {
    Sync,
    Full,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ArmedText {
    /// Null: nothing.
    fail: Option<FaultText>,
    #[serde(default)]
    path: String,
}

impl ArmedText {
    fn armed(self) -> Option<Armed> {
        let fault = match self.fail? {
            FaultText::Sync => Fault::Sync,
            FaultText::Full => Fault::Full,
        };
        Some(Armed { fault, path: self.path })
    }

    fn of(armed: Armed) -> Self {
        let fail = match armed.fault {
            Fault::Sync => FaultText::Sync,
            Fault::Full => FaultText::Full,
        };
        Self { fail: Some(fail), path: armed.path }
    }
}

#[derive(Serialize)]
struct DiskReply {
    armed: Option<ArmedText>,
    struck: u64,
}

/// What will fail, and how often something did.
pub fn get(node: &Node, parts: &Parts) -> ApiResult {
    query::parse(parts.uri.query(), &[])?;
    require_lab(node)?;
    let faults = node.disk_faults();
    let armed = faults.armed().map(ArmedText::of);
    Ok(reply::json(StatusCode::OK, &DiskReply { armed, struck: faults.struck() }))
}

/// Arms one fault, in the place of the last.
pub async fn fail(node: &Node, parts: &Parts, body: impl RequestBody, bodies: &Budget) -> ApiResult {
    query::parse(parts.uri.query(), &[])?;
    require_lab(node)?;
    let (text, _share) = body::read(&parts.headers, body, bodies).await?;
    let asked: ArmedText = serde_json::from_slice(&text).map_err(|error| {
        ApiError::invalid(format!("not a fault of a disk: {error}"))
            .with_hint(r#"such as {"fail":"sync","path":".seg"}; or "full", or null for nothing"#)
    })?;
    let armed = asked.armed();
    tracing::info!(?armed, "Lab: what the disk will fail");
    node.disk_faults().arm(armed);
    get(node, parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_documented() {
        let read = |text: &str| serde_json::from_str::<ArmedText>(text).map(ArmedText::armed);
        let log = Armed { fault: Fault::Sync, path: "log/".to_owned() };
        assert_eq!(read(r#"{"fail":"sync","path":"log/"}"#).expect("good"), Some(log));
        assert_eq!(read(r#"{"fail":null}"#).expect("good"), None);
        for bad in [r#"{"fail":"read"}"#, r#"{"fail":"sync","after":3}"#, "[]"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
