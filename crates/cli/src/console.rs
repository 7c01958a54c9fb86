//! Colours, tables, and one way out to standard output.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use clap::ColorChoice;
use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{
    Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, presets,
};

use crate::figures;

/// Where output goes and how it may look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    /// Standard output takes colour.
    pub(crate) out_colour: bool,
    /// Standard error does.
    pub(crate) error_colour: bool,
}

/// What a piece of text says by its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    /// A heading or the one number to look at.
    Strong,
    /// Less important than what stands around it.
    Faint,
    Good,
    Warning,
    Bad,
    /// A name.
    Name,
}

impl Console {
    pub(crate) fn new(choice: ColorChoice) -> Self {
        Self {
            out_colour: wants_colour(choice, io::stdout().is_terminal()),
            error_colour: wants_colour(choice, io::stderr().is_terminal()),
        }
    }

    /// A warning on standard error.
    pub(crate) fn warn(self, text: &str) {
        say(&format!("{} {text}", paint(self.error_colour, Tone::Warning, "warning:")));
    }

    /// Something worth knowing, on standard error.
    pub(crate) fn note(self, text: &str) {
        say(&format!("{} {text}", paint(self.error_colour, Tone::Name, "note:")));
    }
}

/// A line on standard error. Nobody may be listening any more, and what runs goes on all the same.
fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Says which folder above an output is not there yet: it will be made, and a slip of the pen should not go unseen.
pub(crate) fn note_new_folder(out: &Path, console: Console) {
    let above = out.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty());
    if let Some(missing) = above.take_while(|dir| !dir.exists()).last() {
        console.note(&format!("{} is not there yet and will be made", missing.display()));
    }
}

/// `--color` as written, before anything is parsed: help and usage errors come in colour too.
pub(crate) fn colour_asked_for() -> ColorChoice {
    let words: Vec<String> = std::env::args_os().filter_map(|word| word.into_string().ok()).collect();
    let next = |at: usize| words.get(at + 1).map(String::as_str);
    let written = words.iter().enumerate().find_map(|(at, word)| match word.as_str() {
        "--color" => next(at),
        word => word.strip_prefix("--color="),
    });
    written.and_then(|word| word.parse().ok()).unwrap_or(ColorChoice::Auto)
}

fn wants_colour(choice: ColorChoice, is_terminal: bool) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            is_terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
        }
    }
}

/// `text` in its tone, if colour is wanted.
pub(crate) fn paint(colour: bool, tone: Tone, text: impl Display) -> String {
    let style = match tone {
        Tone::Plain => Style::new(),
        Tone::Strong => Style::new().bold(),
        Tone::Faint => Style::new().dimmed(),
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Warning => AnsiColor::Yellow.on_default().bold(),
        Tone::Bad => AnsiColor::Red.on_default().bold(),
        Tone::Name => AnsiColor::Cyan.on_default(),
    };
    if colour { format!("{style}{text}{style:#}") } else { text.to_string() }
}

/// A table's cell in its tone.
pub(crate) fn cell(tone: Tone, text: impl ToString) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Plain => cell,
        Tone::Strong => cell.add_attribute(Attribute::Bold),
        Tone::Faint => cell.add_attribute(Attribute::Dim),
        Tone::Good => cell.fg(Color::DarkGreen),
        Tone::Warning => cell.fg(Color::DarkYellow),
        Tone::Bad => cell.fg(Color::DarkRed).add_attribute(Attribute::Bold),
        Tone::Name => cell.fg(Color::DarkCyan),
    }
}

/// A cell whose content stands at the right, as numbers do.
pub(crate) fn number(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// A count, grouped by thousands.
pub(crate) fn count(value: u64) -> Cell {
    number(figures::count(value))
}

/// A borderless table with a faint heading line.
pub(crate) fn table<'h>(headings: impl IntoIterator<Item = &'h str>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    let headings: Vec<Cell> = headings.into_iter().map(|heading| cell(Tone::Faint, heading)).collect();
    if !headings.is_empty() {
        table.set_header(headings);
    }
    table
}

/// What a command has to say, collected and written at once.
pub(crate) struct Page {
    console: Console,
    text: String,
}

/// How far tables stand from the left edge, in columns.
const INDENT: u16 = 2;
/// Between two columns of a table.
const GAP: u16 = 2;
/// Columns up to this width are never wrapped: numbers, bars, single words. Wider ones share what is left.
const NARROW: u16 = 26;

impl Page {
    pub(crate) fn new(console: Console) -> Self {
        Self { console, text: String::new() }
    }

    pub(crate) fn paint(&self, tone: Tone, text: impl Display) -> String {
        paint(self.console.out_colour, tone, text)
    }

    /// A line of text.
    pub(crate) fn line(&mut self, text: impl Display) {
        self.text.push_str(&format!("{text}\n"));
    }

    /// A bold word or two, what it is about, and a blank line above unless it comes first.
    pub(crate) fn heading(&mut self, heading: &str, about: impl Display) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let heading = self.paint(Tone::Strong, heading);
        self.line(format!("{heading}  {about}").trim_end());
    }

    /// Names and what is to be said about each; those with nothing to say are left out.
    pub(crate) fn facts<'n>(&mut self, facts: impl IntoIterator<Item = (&'n str, String)>) {
        let mut list = table([]);
        for (name, fact) in facts.into_iter().filter(|(_, fact)| !fact.is_empty()) {
            list.add_row([cell(Tone::Faint, name), cell(Tone::Plain, fact)]);
        }
        self.table(list);
    }

    /// A table, indented. Cells wrap at the terminal's width; in a file they do not wrap at all.
    pub(crate) fn table(&mut self, table: Table) {
        for line in self.lines_of(table) {
            self.indented(&line);
        }
    }

    /// A table with long names in front, which stand on lines of their own where the terminal is too narrow.
    pub(crate) fn table_of_names(&mut self, headings: &[&str], rows: Vec<(String, Vec<Cell>)>) {
        let name_width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut rest = table(headings.iter().skip(1).copied());
        rest.add_rows(rows.iter().map(|(_, cells)| cells.clone()));
        let rest_width: u16 = rest.column_max_content_widths().iter().map(|width| width + GAP).sum();
        let needed = usize::from(INDENT + GAP + rest_width) + name_width;
        if rest.width().is_none_or(|width| needed <= usize::from(width)) {
            let mut whole = table(headings.iter().copied());
            for (name, cells) in rows {
                whole.add_row(std::iter::once(cell(Tone::Plain, name)).chain(cells));
            }
            return self.table(whole);
        }
        // One line a row: where columns wrap even without the names, let the terminal cut them.
        rest.set_content_arrangement(ContentArrangement::Disabled);
        let mut lines = self.lines_of(rest).into_iter();
        lines.next().iter().for_each(|heading| self.indented(&format!("  {heading}")));
        for ((name, _), line) in rows.iter().zip(lines) {
            self.indented(name);
            self.indented(&format!("  {line}"));
        }
    }

    fn lines_of(&self, mut table: Table) -> Vec<String> {
        let widths = table.column_max_content_widths();
        for (column, width) in table.column_iter_mut().zip(widths) {
            column.set_padding((0, GAP));
            if width <= NARROW {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        if let Some(width) = table.width() {
            table.set_width(width.saturating_sub(INDENT));
        }
        if self.console.out_colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.lines().collect()
    }

    fn indented(&mut self, line: &str) {
        let line = format!("{:indent$}{line}", "", indent = usize::from(INDENT));
        self.line(line.trim_end());
    }

    /// Writes it all to standard output.
    pub(crate) fn print(self) -> anyhow::Result<()> {
        print(&self.text)
    }
}

/// Writes a JSON document to standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// Writes to standard output. A reader who has seen enough (`| head`) is no failure.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
