//! What a caller may ask beyond key and value, and how it is spelt on the wire.

use std::time::Duration;

/// How long a call may take unless it says otherwise: the server's own default.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// When a write is answered as done. `None` in the options leaves it to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// On the leader's disk. May be lost when the leader dies.
    Leader,
    /// On a majority's disks.
    Quorum,
    /// On every voter's disk.
    All,
}

impl Ack {
    fn as_str(self) -> &'static str {
        match self {
            Ack::Leader => "leader",
            Ack::Quorum => "quorum",
            Ack::All => "all",
        }
    }
}

/// What must hold for a write to take effect. Checked by the store in one step with
/// the write, so two writers can't both succeed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    #[default]
    Always,
    /// The key was last changed at this revision.
    IfMatch(u64),
    /// The key does not exist.
    IfAbsent,
}

#[derive(Clone, Debug)]
pub struct WriteOptions {
    pub condition: Condition,
    pub ack: Option<Ack>,
    pub timeout: Duration,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { condition: Condition::Always, ack: None, timeout: DEFAULT_TIMEOUT }
    }
}

impl WriteOptions {
    pub(crate) fn query(&self, remaining: Duration) -> String {
        let ack = self.ack.map(|ack| format!("&ack={}", ack.as_str())).unwrap_or_default();
        format!("timeout={}{ack}", millis(remaining))
    }

    /// The conditional header of HTTP, RFC 9110 section 13.1.
    pub(crate) fn header(&self) -> Option<(&'static str, String)> {
        match self.condition {
            Condition::Always => None,
            Condition::IfMatch(revision) => Some(("if-match", format!("\"{revision}\""))),
            Condition::IfAbsent => Some(("if-none-match", "*".to_owned())),
        }
    }
}

#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// At least as new as every write that was answered before the read began. Else the
    /// read is answered from what the node asked has applied, which may be old.
    pub linearizable: bool,
    /// Wait until the node has applied this revision: read your own writes anywhere.
    pub min_revision: Option<u64>,
    /// Ask for the bytes as stored; else a JSON value is expected.
    pub raw: bool,
    pub timeout: Duration,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { linearizable: false, min_revision: None, raw: false, timeout: DEFAULT_TIMEOUT }
    }
}

impl ReadOptions {
    pub(crate) fn query(&self, remaining: Duration) -> String {
        let consistency = if self.linearizable { "&consistency=linearizable" } else { "" };
        let revision = self.min_revision.map(|r| format!("&min_revision={r}")).unwrap_or_default();
        format!("timeout={}{consistency}{revision}", millis(remaining))
    }
}

/// The server takes durations with a unit. Never `0ms`, which could be read as "no limit".
fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_spelt_as_the_api_reads_them() {
        let write =
            WriteOptions { condition: Condition::IfMatch(7), ack: Some(Ack::All), ..Default::default() };
        assert_eq!(write.query(Duration::from_millis(1500)), "timeout=1500ms&ack=all");
        assert_eq!(write.header(), Some(("if-match", "\"7\"".to_owned())));
        let read = ReadOptions { linearizable: true, min_revision: Some(3), ..Default::default() };
        assert_eq!(read.query(Duration::ZERO), "timeout=1ms&consistency=linearizable&min_revision=3");
    }
}
