//! Makes the outputs of two correct clusters equal: takes out ids, addresses, sizes, times.
//!
//! Ids are numbered in the order in which a side shows them, decimal and hexadecimal
//! alike, so that it still counts whether two outputs mean the same one.

use regex::{Captures, Regex};

/// Ids of members, clusters and leases have so many hexadecimal digits at least; a smaller
/// number is something else.
const ID_DIGITS: &str = "13,16";

/// One side's outputs in one tour.
pub struct Plain {
    /// In the order in which they were shown.
    ids: Vec<u64>,
    hex: Regex,
    decimal: Regex,
    rules: Vec<(Regex, &'static str)>,
}

/// What is replaced before the ids are.
const RULES: [(&str, &str); 15] = [
    // Warnings of the client's own: times, attempts, the whole status again.
    (r#"(?m)^\{"level":.*\n?"#, ""),
    (r"(?:https?://)?127\.0\.0\.1:\d+", "ADDRESS"),
    (r"\b(?:etcd|node)-(\d)\b", "member-$1"),
    (r"\d+(?:\.\d+)?(?:ns|µs|ms)\b|\d+\.\d+s\b", "TIME"),
    (r"\d+(?:\.\d+)? [kM]?B\b", "SIZE"),
    (
        r#"(?i)("?(?:raft_?term|raft_?index|raft_?applied_?index|db_?size|db_?size_?in_?use)"? ?: ?)"?\d+"?"#,
        "${1}NUMBER",
    ),
    // Any member may have answered.
    (r#"(?i)("(?:cluster_?id|member_?id|leader)" ?: ?)"?\d+"?"#, "${1}MEMBER"),
    (r"remaining\(\d+s\)", "remaining(SECONDS)"),
    (r#"("ttl" ?: ?)[1-9]\d*"#, "${1}SECONDS"),
    (r#"("TTL" : )[1-9]\d*"#, "${1}SECONDS"),
    (r#"("hash" ?: ?)\d+"#, "${1}HASH"),
    // Two yes or no, then term and indexes.
    (r"\b((?:true|false)[,| ]+(?:true|false)[,| ]+)\d+[,| ]+\d+[,| ]+\d+", "${1}NUMBERS"),
    // Where in memory the client's own code was when it gave up.
    (r"(?ms)^goroutine .*?^(\(exit|\z)", "$1"),
    // Tables are as wide as what is in them.
    (r"-{2,}", "-"),
    (r" {2,}", " "),
];

impl Plain {
    pub fn new() -> Result<Self, regex::Error> {
        let rules = RULES.iter().map(|(pattern, with)| Ok((Regex::new(pattern)?, *with)));
        Ok(Self {
            ids: vec![],
            hex: Regex::new(&format!(r"\b[0-9a-f]{{{ID_DIGITS}}}\b"))?,
            decimal: Regex::new(r"\b[1-9]\d{15,19}\b")?,
            rules: rules.collect::<Result<_, regex::Error>>()?,
        })
    }

    /// The ids so far, for the tour's own lines.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    pub fn plain(&mut self, text: &str, any_order: bool) -> String {
        let mut text = text.to_owned();
        for (rule, with) in &self.rules {
            text = rule.replace_all(&text, *with).into_owned();
        }
        let ids = &mut self.ids;
        // Members come in the order of their ids, so which is which differs.
        let mut name = |id: Option<u64>| match id {
            Some(id) if !any_order => numbered(ids, id),
            _ => "ID".to_owned(),
        };
        let text = self.decimal.replace_all(&text, |found: &Captures| name(found[0].parse().ok()));
        let text =
            self.hex.replace_all(&text, |found: &Captures| name(u64::from_str_radix(&found[0], 16).ok()));
        if !any_order {
            return text.into_owned();
        }
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

fn numbered(ids: &mut Vec<u64>, id: u64) -> String {
    let at = ids.iter().position(|known| *known == id).unwrap_or_else(|| {
        ids.push(id);
        ids.len() - 1
    });
    format!("ID{}", at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(texts: &[&str]) -> Vec<String> {
        let mut plain = Plain::new().expect("the rules are patterns");
        texts.iter().map(|text| plain.plain(text, false)).collect()
    }

    #[test]
    fn an_id_keeps_its_number_in_either_notation() {
        let shown =
            plain(&["lease 694d8b1c5f2a3b07 granted", "\"ID\":7587873901161102087", "694d8b1c5f2a3b08"]);
        assert_eq!(shown, ["lease ID1 granted", "\"ID\":ID1", "ID2"]);
    }

    #[test]
    fn what_machines_decide_is_taken_out() {
        let health = "http://127.0.0.1:40123 is healthy: successfully committed proposal: took = 1.234ms";
        assert_eq!(plain(&[health]), ["ADDRESS is healthy: successfully committed proposal: took = TIME"]);
        assert_eq!(plain(&["| node-2 | 20 kB |  3.5.1  |"]), ["| member-2 | SIZE | 3.5.1 |"]);
        assert_eq!(
            plain(&["granted with TTL(600s), remaining(598s)"]),
            ["granted with TTL(600s), remaining(SECONDS)"]
        );
        assert_eq!(plain(&["\"revision\":12,\"raft_term\":2"]), ["\"revision\":12,\"raft_term\":NUMBER"]);
    }
}
