//! What happened, in order: every event with its simulated time and host, hashed. Two
//! histories with one hash were the same history.
//!
//! The nodes' own log is the richest source, so a `tracing` layer turns each of its lines
//! into an event; clients, faults and the network add theirs. The same layer hears who
//! says that it became leader, which no poll can miss.
//!
//! Everything here belongs to one thread: a history runs in a thread of its own.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// FNV-1a, 64 bits: the point is to notice a difference, not an attacker.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_PRIME: u64 = 0x0100_0000_01b3;
/// What turmoil calls the span around a host's turn.
const HOST_SPAN: &str = "node";
/// The node's narration (`src/node/narrate.rs`) when it leads.
const LEADER_WORDS: &str = "Became LEADER for term ";

struct Trace {
    hash: u64,
    events: u64,
    /// Simulated milliseconds at the last event that knew the time.
    at_ms: u128,
    /// Whose turn it is; empty: the runner's own.
    host: String,
    file: Option<std::io::BufWriter<std::fs::File>>,
    leaders: Leaders,
}

/// Who led which term.
#[derive(Clone, Debug, Default)]
pub struct Leaders {
    pub by_term: BTreeMap<u64, BTreeSet<String>>,
    /// The last one that said so.
    pub last: Option<String>,
}

impl Leaders {
    fn note(&mut self, term: u64, host: &str) {
        self.by_term.entry(term).or_default().insert(host.to_owned());
        self.last = Some(host.to_owned());
    }
}

/// What is left of a trace when its history is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    pub hash: u64,
    pub events: u64,
}

thread_local! {
    static TRACE: RefCell<Trace> = RefCell::new(Trace::new(None));
}

impl Trace {
    fn new(file: Option<std::io::BufWriter<std::fs::File>>) -> Self {
        let (host, leaders) = (String::new(), Leaders::default());
        Self { hash: HASH_START, events: 0, at_ms: 0, host, file, leaders }
    }

    fn add(&mut self, what: &str) {
        // Between two turns, which is when faults strike, turmoil tells no time.
        self.at_ms = turmoil::sim_elapsed().map_or(self.at_ms, |at| at.as_millis());
        let line = format!("{:>7} {:<4} {what}\n", self.at_ms, self.host);
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(HASH_PRIME);
        }
        self.events += 1;
        self.write(&line);
    }

    fn write(&mut self, line: &str) {
        if let Some(file) = &mut self.file {
            file.write_all(line.as_bytes()).expect("the trace file can be written");
        }
    }
}

/// Begins a trace on this thread; `file` gets it in full.
pub fn begin(file: Option<&Path>) -> std::io::Result<()> {
    let file = file.map(std::fs::File::create).transpose()?.map(std::io::BufWriter::new);
    TRACE.set(Trace::new(file));
    Ok(())
}

pub fn event(what: impl FnOnce() -> String) {
    let what = what();
    TRACE.with_borrow_mut(|trace| trace.add(&what));
}

pub fn leaders() -> Leaders {
    TRACE.with_borrow(|trace| trace.leaders.clone())
}

pub fn end() -> Fingerprint {
    TRACE.with_borrow_mut(|trace| {
        // Dropping would swallow an error.
        if let Some(mut file) = trace.file.take() {
            file.flush().expect("the trace file can be written");
        }
        Fingerprint { hash: trace.hash, events: trace.events }
    })
}

/// The layer that turns the nodes' log into events. Only our own lines are hashed; with
/// `SIM_VERBOSE` set the engine's go into the trace file as well.
pub struct Listening {
    verbose: bool,
}

impl Listening {
    pub fn new() -> Self {
        Self { verbose: std::env::var_os("SIM_VERBOSE").is_some() }
    }
}

impl Default for Listening {
    fn default() -> Self {
        Self::new()
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("bellwether")
}

fn is_host_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.name() == HOST_SPAN && metadata.target().starts_with("turmoil")
}

/// A host's name, kept with its span.
struct HostName(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Listening {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let ours = is_ours(metadata) && *metadata.level() <= Level::DEBUG;
        let engine =
            self.verbose && metadata.target().starts_with("openraft") && *metadata.level() <= Level::DEBUG;
        is_host_span(metadata) || metadata.is_event() && (ours || engine)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut text = Text::default();
        attributes.record(&mut text);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(HostName(text.name));
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let extensions = span.extensions();
        let host = extensions.get::<HostName>().map(|host| host.0.clone()).unwrap_or_default();
        TRACE.with_borrow_mut(|trace| trace.host = host);
    }

    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        TRACE.with_borrow_mut(|trace| trace.host.clear());
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let line = format!("{} {}{}", metadata.level(), text.message, text.fields);
        TRACE.with_borrow_mut(|trace| {
            if !is_ours(metadata) {
                let host = trace.host.clone();
                return trace.write(&format!("        {host:<4} {} {line}\n", metadata.target()));
            }
            let term = text.message.split_once(LEADER_WORDS).and_then(|(_, term)| term.parse().ok());
            if let Some(term) = term {
                let host = trace.host.clone();
                trace.leaders.note(term, &host);
            }
            trace.add(&line);
        });
    }
}

#[derive(Default)]
struct Text {
    message: String,
    name: String,
    fields: String,
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "name" => value.clone_into(&mut self.name),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let (target, written) = match field.name() {
            "message" => (&mut self.message, format!("{value:?}")),
            "name" => (&mut self.name, format!("{value:?}")),
            other => (&mut self.fields, format!(" {other}={value:?}")),
        };
        // Writing to a string cannot fail.
        let _ = target.write_str(&written);
    }
}
