//! Where `tracing` events go: to standard error, as narration for people or as JSON.
//!
//! An event becomes one [`Line`](line::Line) (message and fields, control characters
//! made harmless), which [`mod@format`] writes in either form. Filtering is `tracing`'s own;
//! only libraries are kept quieter than `LOG_LEVEL` alone would.

mod format;
mod line;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

use crate::config::LogSettings;

/// Libraries that talk much, each with the level it is held to unless `LOG_LEVEL` names
/// it. The engine reports every failed attempt to reach a dead peer as a warning, many a
/// second; this crate narrates the same events once.
const QUIET: [(&str, &str); 5] = [
    (crate::consensus::ENGINE_LOG_TARGET, "error"),
    ("hyper", "warn"),
    ("h2", "warn"),
    ("tonic", "warn"),
    ("tower", "warn"),
];

/// Installs the process's log. `settings` have been validated.
pub fn init(settings: &LogSettings, node: &str) {
    let colours = std::io::stderr().is_terminal()
        && anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let format = format::NodeFormat::new(settings, node, colours);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .event_format(format)
        // A log nobody reads any more (its pipe is closed) must not end the node: the
        // complaint about it would go to the same pipe, and panic.
        .log_internal_errors(false);
    let subscriber = tracing_subscriber::registry().with(filter(&settings.log_level)).with(layer);
    // Only a second call could fail, and then the first one's log serves as well.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

fn filter(level: &str) -> EnvFilter {
    let filter = EnvFilter::builder().parse_lossy(level);
    let chatty = filter.max_level_hint().is_none_or(|hint| hint > tracing::level_filters::LevelFilter::WARN);
    let quiet = QUIET.iter().filter(|(library, _)| chatty && !level.contains(library));
    quiet.fold(filter, |filter, (library, held_to)| match format!("{library}={held_to}").parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_named() {
        assert!(filter("info").to_string().contains("openraft=error"));
        assert!(filter("debug,openraft=debug").to_string().contains("openraft=debug"));
        assert!(!filter("debug,openraft=debug").to_string().contains("openraft=error"));
        assert_eq!(filter("error").to_string(), "error");
    }
}
