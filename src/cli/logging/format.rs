//! The two forms of a log line.
//!
//! Human, as the chapter prints it: `[node-1] 👑 Became LEADER for term 1 votes=2`, the
//! level only when it is not `info`. JSON: one object a line, fields beside `message`.

use std::fmt;

use anstyle::{AnsiColor, Style};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::line::{Line, harmless};
use crate::config::{LogFormat, LogSettings};

pub struct NodeFormat {
    node: String,
    format: LogFormat,
    time: bool,
    colours: bool,
}

impl NodeFormat {
    pub fn new(settings: &LogSettings, node: &str, colours: bool) -> Self {
        Self { node: node.to_owned(), format: settings.log_format, time: settings.log_time, colours }
    }

    fn style(&self, style: Style) -> Style {
        if self.colours { style } else { Style::new() }
    }

    fn human(&self, level: Level, line: &Line, out: &mut Writer<'_>) -> fmt::Result {
        if self.time {
            SystemTime.format_time(out)?;
            out.write_char(' ')?;
        }
        let name = self.style(AnsiColor::Cyan.on_default());
        write!(out, "{name}[{}]{name:#} ", self.node)?;
        if level != Level::INFO {
            let style = self.style(level_style(level));
            write!(out, "{style}{}:{style:#} ", level.as_str().to_ascii_lowercase())?;
        }
        out.write_str(&harmless(&line.message))?;
        let dim = self.style(Style::new().dimmed());
        for (name, value) in &line.fields {
            let value = match value {
                serde_json::Value::String(text) => harmless(text),
                other => other.to_string(),
            };
            write!(out, " {dim}{name}={dim:#}{value}")?;
        }
        writeln!(out)
    }

    fn json(&self, level: Level, target: &str, line: Line, out: &mut Writer<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut object = serde_json::Map::new();
        // Fields first: what names the line itself can't be overwritten by one of them.
        object.extend(line.fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
        object.insert("time".to_owned(), time.into());
        object.insert("level".to_owned(), level.as_str().to_ascii_lowercase().into());
        object.insert("node".to_owned(), self.node.clone().into());
        object.insert("target".to_owned(), target.into());
        object.insert("message".to_owned(), line.message.into());
        writeln!(out, "{}", serde_json::Value::Object(object))
    }
}

fn level_style(level: Level) -> Style {
    match level {
        Level::ERROR => AnsiColor::Red.on_default().bold(),
        Level::WARN => AnsiColor::Yellow.on_default(),
        _ => Style::new().dimmed(),
    }
}

impl<S, N> FormatEvent<S, N> for NodeFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let line = Line::of(event);
        match self.format {
            LogFormat::Human => self.human(level, &line, &mut out),
            LogFormat::Json => self.json(level, target, line, &mut out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            message: "👑 Became LEADER for term 1".to_owned(),
            fields: vec![("votes", 2.into()), ("key", "a\n[node-9] forged\u{1b}[2J".into())],
        }
    }

    fn format(format: LogFormat, level: Level, colours: bool) -> String {
        let format = NodeFormat { node: "node-1".to_owned(), format, time: false, colours };
        let mut text = String::new();
        let mut out = Writer::new(&mut text);
        match format.format {
            LogFormat::Human => format.human(level, &line(), &mut out).expect("writes"),
            LogFormat::Json => format.json(level, "bellwether::node", line(), &mut out).expect("writes"),
        }
        text
    }

    #[test]
    fn people_read_what_the_chapter_prints() {
        let text = format(LogFormat::Human, Level::INFO, false);
        assert_eq!(text, "[node-1] 👑 Became LEADER for term 1 votes=2 key=a\\n[node-9] forged\\u{1b}[2J\n");
        assert!(format(LogFormat::Human, Level::WARN, false).starts_with("[node-1] warn: "));
        assert!(format(LogFormat::Human, Level::WARN, true).contains("\u{1b}[33mwarn:"));
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = format(LogFormat::Json, Level::ERROR, false);
        let object: serde_json::Value = serde_json::from_str(&text).expect("one object");
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(
            (&object["node"], &object["level"], &object["votes"]),
            (&"node-1".into(), &"error".into(), &2.into())
        );
        assert!(object["time"].as_str().is_some_and(|time| time.ends_with('Z')));
    }
}
