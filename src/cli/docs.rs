//! `docs/configuration.md`, written from the settings themselves so that it can't be wrong.

use clap::{Args, Command};

use crate::config::Settings;

const HEAD: &str = "\
# Configuration

Every setting of `bellwether serve` is a flag and an environment variable; the flag wins. All are
checked at start: a wrong one ends the process with exit code 2 and says how to mend it.

<!-- Written by `bellwether docs`; a test compares it with the code. -->

| variable | flag | default | meaning |
|---|---|---|---|
";

/// The page as it must stand in the repository.
pub fn configuration() -> String {
    let command = Settings::augment_args(Command::new("serve"));
    let rows = command.get_arguments().filter(|arg| !arg.is_hide_set()).map(row);
    let mut page = HEAD.to_owned();
    page.extend(rows);
    page
}

fn row(arg: &clap::Arg) -> String {
    let variable = arg.get_env().map(|env| env.to_string_lossy()).unwrap_or_default();
    let flag = arg.get_long().unwrap_or_default();
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = default.join(",");
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    // A default that depends on another setting stands in the help, as clap would write it.
    let (help, default) = match help.split_once(" [default: ") {
        Some((help, default)) => (help.to_owned(), default.trim_end_matches(']').to_owned()),
        None => (help, default),
    };
    let default = if default.is_empty() { "none".to_owned() } else { format!("`{default}`") };
    format!("| `{variable}` | `--{flag}` | {default} | {help}{} |\n", choices(arg))
}

fn choices(arg: &clap::Arg) -> String {
    if !arg.get_action().takes_values() {
        return String::new();
    }
    let describe = |value: &clap::builder::PossibleValue| {
        let help = value.get_help().map(|help| format!(": {}", help.to_string().replace('\n', " ")));
        format!("<br>`{}`{}", value.get_name(), help.unwrap_or_default())
    };
    arg.get_possible_values().iter().map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(page == configuration(), "mend it with: cargo run -- docs > docs/configuration.md");
    }

    #[test]
    fn every_setting_has_a_variable_and_a_flag() {
        let command = Settings::augment_args(Command::new("serve"));
        for arg in command.get_arguments() {
            assert!(arg.get_env().is_some() && arg.get_long().is_some(), "{}", arg.get_id());
            assert!(arg.get_help().is_some(), "{}", arg.get_id());
        }
    }
}
