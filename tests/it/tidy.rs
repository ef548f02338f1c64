//! The house rules that a machine can check, over our own sources.

use std::fs;
use std::path::{Path, PathBuf};

/// Past this a file has two subjects.
const MAX_LINES: usize = 600;

struct Source {
    /// Relative to the repository, with `/`.
    path: String,
    /// Without comments and without the tests at the end.
    code: String,
    lines: usize,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    rust_files(&root().join("src"), &mut files);
    files.sort();
    assert!(files.len() > 20, "the walk over src/ found only {files:?}");
    files.iter().map(|file| read(file)).collect()
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of the repository") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn read(file: &Path) -> Source {
    let text = fs::read_to_string(file).expect("sources are text");
    let path = file.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
    let is_test_file = path.ends_with("/tests.rs") || path.contains("/tests/");
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    let code = if is_test_file { String::new() } else { code.collect::<Vec<_>>().join("\n") };
    Source { path, code, lines: text.lines().count() }
}

/// Every line of code below `within`, but outside `except`, that has one of `words`.
fn offences(within: &[&str], except: &[&str], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources() {
        let inside = within.iter().any(|dir| source.path.starts_with(dir));
        if !inside || except.iter().any(|dir| source.path.starts_with(dir)) {
            continue;
        }
        let bad = source.code.lines().filter(|line| words.iter().any(|word| line.contains(word)));
        found.extend(bad.map(|line| format!("{}: {}", source.path, line.trim())));
    }
    found
}

#[track_caller]
fn nowhere(rule: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{rule}:\n{}", offences.join("\n"));
}

#[test]
fn files_have_one_subject() {
    let long = sources().into_iter().filter(|source| source.lines > MAX_LINES);
    nowhere("split these files", long.map(|s| format!("{}: {} lines", s.path, s.lines)).collect());
}

/// `cli → api → node → consensus → storage`, and nothing points back.
#[test]
fn data_flows_one_way() {
    let upward: [(&str, &[&str]); 4] = [
        ("src/storage", &["crate::consensus", "crate::node", "crate::api", "crate::server", "crate::cli"]),
        ("src/consensus", &["crate::node", "crate::api", "crate::server", "crate::cli", "axum::"]),
        ("src/node", &["crate::api", "crate::server", "crate::cli", "axum::"]),
        ("src/api", &["crate::consensus", "crate::cli"]),
    ];
    for (layer, above) in upward {
        nowhere(&format!("{layer} knows what stands on it"), offences(&[layer], &[], above));
    }
}

#[test]
fn only_consensus_names_the_engine() {
    nowhere("openraft leaks", offences(&["src/"], &["src/consensus"], &["openraft"]));
}

/// What a simulation must be able to replace goes through the seams.
#[test]
fn the_world_is_behind_seams() {
    let world = [
        "std::thread",
        "thread::spawn",
        "spawn_blocking",
        "tokio::net",
        "std::net::Tcp",
        "std::fs",
        "tokio::fs",
        "SystemTime::now",
        "std::time::Instant",
        "rand::rng()",
        "rand::random",
        "Uuid::new_v4",
    ];
    let allowed = ["src/env", "src/cli", "src/serve.rs", "src/main.rs"];
    nowhere("use crate::env instead", offences(&["src/"], &allowed, &world));
    // tokio's clock is the simulation's; std's is not.
    let imports = offences(&["src/"], &allowed, &["use std::time::"]);
    let clocks = imports.into_iter().filter(|line| line.contains("Instant") || line.contains("SystemTime"));
    nowhere("tokio::time::Instant is the clock", clocks.collect());
}

#[test]
fn nothing_is_unwrapped_or_left_undone() {
    let words = [".unwrap()", "todo!(", "unimplemented!(", "dbg!("];
    nowhere("say what the invariant is, or handle it", offences(&["src/"], &[], &words));
}

/// The commands that the README shows are commands the binary has.
#[test]
fn the_readme_names_real_commands() {
    // Written with the README itself; until then there is nothing to be wrong.
    let Ok(readme) = fs::read_to_string(root().join("README.md")) else { return };
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_bellwether")).arg("--help").output();
    let help = String::from_utf8(help.expect("the binary runs").stdout).expect("help is text");
    for line in readme.lines().map(|line| line.trim().trim_start_matches("$ ")) {
        let Some(rest) = line.strip_prefix("bellwether ") else { continue };
        let command = rest.split_whitespace().next().unwrap_or_default();
        let plain = command.chars().all(|c| c.is_ascii_lowercase());
        assert!(!plain || help.contains(&format!("  {command}")), "README shows {line:?}");
    }
}
