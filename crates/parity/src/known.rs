//! Where Bellwether differs from etcd on purpose, each with its reason.
//!
//! The one list: comparisons rewrite what it names, and `docs/etcd-compatibility.md` shows
//! it (a test checks that).

use regex::Regex;

/// A difference that is meant.
pub struct Known {
    /// What differs, as the page says it.
    pub what: &'static str,
    /// Why, as the page says it.
    pub why: &'static str,
    /// How outputs that show it are made equal; empty where no comparison meets it.
    rewrites: &'static [Rewrite],
}

/// Applied to both sides' outputs.
struct Rewrite {
    /// Only to outputs of lines, or of kinds of request, that have this text.
    of: &'static str,
    pattern: &'static str,
    with: &'static str,
}

/// Nothing of these outputs is compared.
const fn all(of: &'static str) -> Rewrite {
    Rewrite { of, pattern: r"(?s).*", with: "" }
}

pub const KNOWN: &[Known] = &[
    Known {
        what: "Users, roles and authentication are not served: `Unimplemented`.",
        why: "Access control comes with an issue of its own.",
        rewrites: &[all("etcdctl user"), all("etcdctl role"), all("etcdctl auth")],
    },
    Known {
        what: "Members are not added, removed, changed or promoted by request: `Unimplemented`.",
        why: "A cluster has the members it was founded with; one that lost its disk comes back by itself.",
        rewrites: &[all("member remove"), all("member promote")],
    },
    Known {
        what: "The hash of `HashKV` is another function of the keys.",
        why: "It compares members of one cluster, and is made of the state hash that the nodes compare themselves.",
        rewrites: &[Rewrite { of: "hashkv", pattern: r"ADDRESS, \d+", with: "ADDRESS, HASH" }],
    },
    Known {
        what: "`/version` has a field more, `bellwether`.",
        why: "To tell what answers.",
        rewrites: &[Rewrite { of: "/version", pattern: r#","bellwether":"[^"]*""#, with: "" }],
    },
    Known {
        what: "A sort target that does not exist means the key.",
        why: "etcd 3.5.1 ends with a panic.",
        rewrites: &[],
    },
    Known {
        what: "A put that is to keep a key's value or lease finds none when its transaction deleted all keys from one on \
               before it.",
        why: "etcd 3.5.1 ends with a panic.",
        rewrites: &[],
    },
    Known {
        what: "A watch from the very revision compacted at hears of that revision's deletions, too. The cancel of a \
               watch from before it tells the reason, and the store's revision.",
        why: "Deletions at the revision compacted at are kept until the next compaction: whoever resumes there misses \
              nothing. etcd 3.5.1 may have forgotten them, gives no reason, and 0.",
        rewrites: &[Rewrite {
            of: "watched events",
            pattern: r#"(?s)(ended: Some\(.*?revision: )\d+(,.*?compact_revision: )\d+(,\s+cancel_reason: )"[^"]*""#,
            with: "${1}0${2}0${3}",
        }],
    },
    Known {
        what: "A watch that the server has cancelled is gone: cancelling it is not answered, and its id may be given out \
               again.",
        why: "etcd 3.5.1 keeps it, and says `canceled` a second time.",
        rewrites: &[],
    },
    Known {
        what: "MoveLeader and Snapshot are not served: `Unimplemented`.",
        why: "A node that is stopped hands over first; a backup is the data directory of a stopped node.",
        rewrites: &[all("move-leader")],
    },
    Known {
        what: "An endpoint is not answered when a client sends its whole URL as the HTTP/2 authority: `endpoint status`, \
               `endpoint hashkv`, `defrag` and `move-leader` of etcdctl 3.4 want `--endpoints` without `http://`.",
        why: "The HTTP/2 library refuses an authority that is none; newer clients send a right one.",
        rewrites: &[],
    },
    Known {
        what: "A transaction that fails changes nothing, on any member.",
        why: "When a write of it succeeds and a read of it fails, etcd 3.5.1's members come to hold different keys: \
              only the member that was asked notices the failure.",
        rewrites: &[],
    },
];

/// What is known to differ, in a form in which it is equal.
pub fn rewrite(of: &str, output: &str) -> String {
    let mut output = output.to_owned();
    let rewrites = KNOWN.iter().flat_map(|known| known.rewrites);
    for rewrite in rewrites.filter(|rewrite| of.contains(rewrite.of)) {
        if let Ok(pattern) = Regex::new(rewrite.pattern) {
            output = pattern.replace_all(&output, rewrite.with).into_owned();
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../../docs/etcd-compatibility.md");

    #[test]
    fn the_page_has_every_difference() {
        for Known { what, why, .. } in KNOWN {
            assert!(PAGE.contains(&format!("| {what} | {why} |")), "the page lacks: | {what} | {why} |");
        }
    }

    #[test]
    fn the_page_has_no_other_differences() {
        let rows = PAGE.split("## What differs").nth(1).and_then(|rest| rest.split("\n## ").next());
        let rows = rows.unwrap_or_default().lines().filter(|line| line.starts_with("| ")).count();
        assert_eq!(rows, KNOWN.len() + 1, "a row for each, and the head");
    }

    #[test]
    fn every_pattern_is_one() {
        for rewrite in KNOWN.iter().flat_map(|known| known.rewrites) {
            assert!(Regex::new(rewrite.pattern).is_ok(), "{}", rewrite.pattern);
        }
    }
}
