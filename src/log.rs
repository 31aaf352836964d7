//! The last stage before any log or error is written.
//!
//! In go events (ours and our dependencies'), panics and final error texts; out come single lines in which every
//! secret that this process holds is masked by value and every character that could move a terminal's cursor
//! or fake a line is escaped (`line`). A thread of its own writes them, one call each: a reader of
//! standard error that stops reading stops no request. Lines that found the queue full are lost, counted and
//! told as soon as there is room again (`sink`).
//! What must never happen: text reaches a writer by another way than through this module.
//!
//! There is no colour: escape sequences do not pass, so none of ours would.

use std::{
    io::{self, Write},
    panic::{self, PanicHookInfo},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use tracing::Subscriber;
use tracing_subscriber::{Layer as _, Registry, filter::Targets, fmt, layer::SubscriberExt as _, reload};

use crate::{
    config,
    redaction::{Held, held},
};
use line::Shape;
use sink::Sink;

pub mod flood;
mod line;
mod sink;

/// How long a panic waits for its line to be written: it may be the last.
const PANIC_WAIT: Duration = Duration::from_millis(100);
/// How long the final error waits for the lines before it.
const FINAL_WAIT: Duration = Duration::from_secs(1);

/// The log of this process, once [`init`] was called.
static LOG: OnceLock<Log> = OnceLock::new();

/// The running log: its level, its losses.
#[derive(Debug, Clone)]
pub struct Log {
    filter: reload::Handle<Targets, Registry>,
    sink: Arc<Sink>,
}

/// Why there is no log, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be read.
    #[error(
        "log filter: {0}; write a level (error, warn, info, debug, trace, off) or a list such as info,mxgate::upstream=debug"
    )]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The thread that writes could not be started.
    #[error("log: the writing thread could not be started: {0}")]
    Thread(#[from] io::Error),
    /// [`init`] was called before, or something else had installed a subscriber.
    #[error("log: there is one already")]
    Twice,
    /// The subscriber is gone.
    #[error("log: the level cannot be changed: {0}")]
    Gone(#[from] reload::Error),
}

/// Starts the log of this process: events and panics go to `destination` (standard error) from now on.
/// Secrets that [`held`] learns later are masked from then on.
///
/// # Errors
/// [`Error`]: an unreadable filter, no thread, or a second call.
pub fn init(config: &config::Log, destination: impl Write + Send + 'static) -> Result<Log, Error> {
    let (log, subscriber) = start(config, Box::new(destination), held())?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| Error::Twice)?;
    LOG.set(log.clone()).map_err(|_| Error::Twice)?;
    guard_panics();
    Ok(log)
}

/// From now on a panic is one line that says where, in the log or, without one, on standard error. Rust's own line
/// would hold the panic's text unmasked. Call it first in `main`; [`init`] does, too.
pub fn guard_panics() {
    panic::set_hook(Box::new(|panic| match LOG.get() {
        Some(log) => {
            log.sink.own_line("ERROR", "mxgate::panic", &panic_text(panic));
            log.sink.flush(PANIC_WAIT);
        }
        None => error_line(&format!("mxgate: {}", panic_text(panic))),
    }));
}

/// Writes the program's last words to standard error: one line, masked, after all lines of the log.
/// It works without [`init`], too.
pub fn error_line(text: &str) {
    if let Some(log) = LOG.get() {
        log.flush(FINAL_WAIT);
    }
    // Nobody is left to tell when even this cannot be written.
    let _ = io::stderr().write_all((masked_line(text) + "\n").as_bytes());
}

/// `text` as one line that may be shown: every held secret masked, control characters escaped. For what a command
/// prints about an error.
#[must_use]
pub fn masked_line(text: &str) -> String {
    line::clean(text.as_bytes(), &held().masker())
}

impl Log {
    /// Replaces the filter, for example with `debug`. Whoever raises the level lowers it again.
    ///
    /// # Errors
    /// [`Error::Filter`]; the old filter stays.
    pub fn set_filter(&self, filter: &str) -> Result<(), Error> {
        Ok(self.filter.reload(parse(filter)?)?)
    }

    /// Lines that were lost because the queue was full or the destination gave an error, since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sink.lost()
    }

    /// Waits until every line logged before this call is written or lost, at most `wait`; whether that was so.
    pub fn flush(&self, wait: Duration) -> bool {
        self.sink.flush(wait)
    }
}

fn start(
    config: &config::Log,
    destination: Box<dyn Write + Send>,
    held: &'static Held,
) -> Result<(Log, impl Subscriber + Send + Sync), Error> {
    let (filter, handle) = reload::Layer::new(parse(&config.filter)?);
    let shape = if config.json { Shape::Json } else { Shape::Text };
    let sink = Arc::new(Sink::start(destination, shape, held)?);
    // Escaping is ours, after masking; the formatter's own would hide a secret from it.
    let layer = fmt::layer()
        .with_writer(Arc::clone(&sink))
        .with_ansi(false)
        .with_ansi_sanitization(false)
        .log_internal_errors(false);
    let layer = match shape {
        Shape::Text => layer.boxed(),
        Shape::Json => layer.json().with_span_list(false).boxed(),
    };
    // At `trace` it writes down whole answers, with secrets that the masker cannot know yet; and at `warn` lines of
    // AWS's own files, with keys in them. What is wrong is told by the source, in its own words.
    #[cfg(feature = "aws")]
    let layer =
        layer.with_filter(tracing_subscriber::filter::filter_fn(|of| !of.target().starts_with("aws_")));
    Ok((Log { filter: handle, sink }, Registry::default().with(filter).with(layer)))
}

fn parse(filter: &str) -> Result<Targets, Error> {
    Ok(filter.parse()?)
}

/// The place, the thread and the message, when that is a text of the source. One that was put together at run time may
/// hold anything: what a slice out of bounds says quotes the text, a path or a line of the configuration.
fn panic_text(panic: &PanicHookInfo<'_>) -> String {
    let message = panic.payload().downcast_ref::<&str>().copied().unwrap_or("(its text is not shown)");
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    format!(
        "panicked at {place} in thread {}: {message}",
        thread::current().name().unwrap_or("without a name")
    )
}

#[cfg(test)]
mod tests;
