//! The one stream on the terminal: each node's lines behind its name, a colour a node,
//! and `up`'s own words between them. Colours vanish with NO_COLOR and in pipes.

use std::borrow::Cow;

use anstyle::{AnsiColor, Color, Style};

/// Told apart on dark and light backgrounds; red is left to errors.
const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Magenta,
    AnsiColor::Green,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
];

/// One line of a node's own narration.
pub fn node_line(index: usize, name: &str, line: &str) {
    let style = Style::new().fg_color(Some(Color::Ansi(COLOURS[index % COLOURS.len()])));
    let said = without_name(name, line);
    anstream::println!("{style}[{name}]{style:#} {said}");
}

/// What `up` itself has to say.
pub fn say(text: &str) {
    let style = Style::new().bold();
    anstream::println!("{style}{text}{style:#}");
}

/// Text to be copied: without any style.
pub fn plain(text: &str) {
    anstream::println!("{text}");
}

/// Human lines bring the name along; JSON lines and panics don't.
fn without_name<'a>(name: &str, line: &'a str) -> Cow<'a, str> {
    let rest = line
        .strip_prefix('[')
        .and_then(|line| line.strip_prefix(name))
        .and_then(|line| line.strip_prefix("] "));
    rest.unwrap_or(line).into()
}

/// The block printed when the cluster is ready: what to try, aimed at the nodes as they
/// are now. `data_dir` is given when it is not the default.
pub fn what_to_try(leader: (&str, u16), follower: Option<(&str, u16)>, data_dir: Option<&str>) -> String {
    let (name, port) = leader;
    let other = follower.unwrap_or(leader);
    let dir = data_dir.map(|dir| format!(" --data-dir {dir}")).unwrap_or_default();
    format!(
        "
  write to the leader      curl -X PUT http://localhost:{port}/key/name -H 'Content-Type: application/json' -d '\"Alice\"'
  read from {:<14} curl http://localhost:{}/key/name
  ask {:<20} curl http://localhost:{}/status
  kill the leader, watch   bellwether node kill {name}{dir}
  bring it back            bellwether node start {name}{dir}
",
        other.0, other.1, other.0, other.1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_shown_once() {
        assert_eq!(without_name("node-1", "[node-1] hello"), "hello");
        assert_eq!(without_name("node-1", "[node-10] hello"), "[node-10] hello");
        assert_eq!(without_name("node-1", "{\"level\":1}"), "{\"level\":1}");
    }

    #[test]
    fn the_curl_lines_aim_at_the_leader_and_a_follower() {
        let text = what_to_try(("node-2", 4002), Some(("node-1", 4001)), Some("/tmp/x"));
        assert!(text.contains("PUT http://localhost:4002/key/name"));
        assert!(text.contains("curl http://localhost:4001/key/name"));
        assert!(text.contains("node kill node-2 --data-dir /tmp/x"));
    }
}
