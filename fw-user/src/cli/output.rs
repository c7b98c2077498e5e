//! What goes to the terminal: colour, tables, numbers.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use indicatif::ProgressBar;
use serde::Serialize;

/// A colour of the eight that every terminal has.
#[derive(Clone, Copy)]
pub(super) enum Paint {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Plain = 0,
}

/// True if `stream` is a terminal and the user has not asked for plain text (no-color.org).
pub(super) fn colored(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Colours text for standard output.
pub(super) fn paint(text: &str, paint: Paint) -> String {
    if colored(&io::stdout()) {
        format!("\x1b[{}m{text}\x1b[0m", paint as u8)
    } else {
        text.to_owned()
    }
}

/// Prints an error with its causes on standard error.
pub(super) fn error(error: &anyhow::Error) {
    let label = if colored(&io::stderr()) {
        "\x1b[31merror\x1b[0m"
    } else {
        "error"
    };
    eprintln!("{label}: {error:#}");
}

/// Prints one JSON document, or one line of many.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// A table without lines, so that columns can be cut and compared.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    if colored(&io::stdout()) {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(
        header
            .iter()
            .map(|text| Cell::new(text).add_attribute(Attribute::Bold)),
    );
    table
}

/// A coloured cell: the table knows its width without the colour.
pub(super) fn cell(text: &str, paint: Paint) -> Cell {
    let cell = Cell::new(text);
    match paint {
        Paint::Red => cell.fg(Color::Red),
        Paint::Green => cell.fg(Color::Green),
        Paint::Yellow => cell.fg(Color::Yellow),
        Paint::Plain => cell,
    }
}

/// Aligns these columns to the right: numbers.
pub(super) fn right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Prints a table without blanks at the ends of lines.
pub(super) fn print(table: &mut Table) {
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 2));
    });
    let mut text = String::new();
    for line in table.lines() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    print!("{text}");
}

/// A number with its noun.
pub(super) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Bytes with a binary unit.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let step = bytes.ilog2() / 10;
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let scaled = bytes as f64 / (1_u64 << (10 * step)) as f64;
    format!("{scaled:.1} {}", UNITS[step as usize - 1])
}

/// Seconds as people say them.
pub(super) fn seconds(seconds: f64) -> String {
    #[expect(clippy::cast_sign_loss, reason = "negative ages are clamped")]
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86400, whole / 3600 % 24),
    }
}

/// How long something may take without a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says on standard error what takes longer than a second: a line with a clock on a terminal, a sentence elsewhere.
/// It is gone when this value is dropped.
pub(super) struct Progress {
    done: Arc<(Mutex<bool>, Condvar)>,
    teller: Option<JoinHandle<()>>,
}

impl Progress {
    /// Begins; `what` is said as it stands: `compiling policy.yaml`.
    pub(super) fn start(what: String) -> Self {
        let done = Arc::new((Mutex::new(false), Condvar::new()));
        let told = Arc::clone(&done);
        let teller = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || tell(&what, &told))
            // Without a thread nobody tells, which is no reason not to do it.
            .ok();
        Self { done, teller }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let (done, changed) = &*self.done;
        *done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
        if let Some(teller) = self.teller.take() {
            let _ = teller.join();
        }
    }
}

/// Waits for the end; says something if it does not come soon.
fn tell(what: &str, (done, changed): &(Mutex<bool>, Condvar)) {
    let wait = |patience| {
        let guard = done.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(guard, patience, |done| !*done);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    };
    if wait(PATIENCE) {
        return;
    }
    if !io::stderr().is_terminal() {
        eprintln!("dpufw: {what} takes a while");
        return;
    }
    let begun = Instant::now();
    let line = ProgressBar::new_spinner();
    line.set_message(what.to_owned());
    while !wait(Duration::from_millis(100)) {
        let seconds = (begun.elapsed() + PATIENCE).as_secs();
        line.set_message(format!("{what} ({seconds} s)"));
        line.tick();
    }
    line.finish_and_clear();
}

#[cfg(test)]
mod tests {
    use super::{bytes, seconds};

    #[test]
    fn numbers_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(seconds(-1.0), "0s");
        assert_eq!(seconds(61.9), "1m01s");
        assert_eq!(seconds(7_260.0), "2h01m");
        assert_eq!(seconds(90_000.0), "1d01h");
    }
}
