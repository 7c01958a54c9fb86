//! The bar on standard error.

use std::fmt::Write;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::figures;

/// The bar of a merge, on standard error; nothing is drawn where that is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
}

/// Wide enough to see it move, narrow enough for 80 columns with all that stands beside it.
const TEMPLATE: &str = "  {bar:24.green/8} {percent:>3}%  {done}  {rate}  {left}";

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        // Whoever captures standard error wants messages, not a bar; nor can a dumb terminal move its cursor back.
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let drawn = !quiet && !dumb && std::io::stderr().is_terminal();
        let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bar: ProgressBar::with_draw_target(None, target) }
    }

    /// Says what is being waited for, until [`finish`](Self::finish).
    pub(crate) fn wait(&self, what: &'static str) {
        if let Ok(style) = ProgressStyle::with_template("  {spinner:.green} {msg}") {
            self.bar.set_style(style);
        }
        self.bar.set_message(what);
        self.bar.enable_steady_tick(std::time::Duration::from_millis(200));
    }

    /// Shows the bar for so many elements of so many bytes each.
    pub(crate) fn start(&self, elements: u64, bytes_per_element: f64) {
        let of_elements = move |elements: u64| figures::bytes(elements as f64 * bytes_per_element);
        let done = move |state: &ProgressState, out: &mut dyn Write| {
            let all = of_elements(state.len().unwrap_or(0));
            let _ = write!(out, "{:>7} of {all}", of_elements(state.pos()));
        };
        let rate = move |state: &ProgressState, out: &mut dyn Write| {
            let _ = write!(out, "{:>7}/s", figures::bytes(state.per_sec() * bytes_per_element));
        };
        let left = |state: &ProgressState, out: &mut dyn Write| {
            // The last bytes are on their way to the disk once all elements are done.
            let _ = match state.len() == Some(state.pos()) {
                true => write!(out, "writing"),
                false => write!(out, "{} left", figures::duration(state.eta())),
            };
        };
        self.bar.reset();
        self.bar.set_length(elements);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            let style = style.with_key("done", done).with_key("rate", rate).with_key("left", left);
            self.bar.set_style(style.progress_chars("━━╌"));
        }
        self.bar.enable_steady_tick(std::time::Duration::from_millis(200));
    }

    /// Shows how many of so many evaluations are done.
    pub(crate) fn count(&self, all: usize, done: usize) {
        self.bar.reset();
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        if let Ok(style) = ProgressStyle::with_template("  {bar:24.green/8} {pos} of {len}  {msg}") {
            self.bar.set_style(style.progress_chars("━━╌"));
        }
        self.bar.enable_steady_tick(std::time::Duration::from_millis(200));
    }

    /// Says what is being done.
    pub(crate) fn message(&self, what: String) {
        self.bar.set_message(what);
    }

    pub(crate) fn advance(&self, elements: u64) {
        self.bar.inc(elements);
    }

    /// Prints lines without tearing the bar.
    pub(crate) fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
