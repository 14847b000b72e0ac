//! Where output goes: how wide it is, whether it may be coloured, and whether somebody sits there to be asked.

use std::io::{IsTerminal, Write, stderr, stdin, stdout};

use comfy_table::{ContentArrangement, Table};

use super::failure::Failure;
use crate::rollout::Weight;

/// How many characters a bar of shares has.
const BAR: u64 = 20;

/// Narrower screens have no bars.
const WIDTH_WITH_BARS: u16 = 72;

/// Standard output.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// In characters; none where lines may be as long as they like.
    width: Option<u16>,
    colour: bool,
}

/// How words look on a terminal with colours.
#[derive(Debug, Clone, Copy)]
pub enum Look {
    /// A name.
    Bold,
    /// Beside the point.
    Dim,
    /// What goes; what is wrong.
    Red,
    /// What comes; what is well.
    Green,
    /// What wants attention.
    Yellow,
}

impl Look {
    const fn code(self) -> &'static str {
        match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
        }
    }
}

impl Screen {
    /// Looks at standard output and the environment: `COLUMNS`, `NO_COLOR`, `TERM`.
    pub fn detect() -> Self {
        let terminal = stdout().is_terminal();
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        let size = || terminal_size::terminal_size().map(|(width, _)| width.0);
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            width: columns
                .filter(|n| *n > 0)
                .or_else(|| if terminal { size() } else { None }),
            colour: terminal && !plain,
        }
    }

    /// Whether there is room for bars beside the words.
    pub fn has_room(&self) -> bool {
        self.width.is_none_or(|width| width >= WIDTH_WITH_BARS)
    }

    /// Words in a look, where there are colours.
    pub fn paint(&self, look: Look, text: &str) -> String {
        if self.colour {
            format!("\x1b[{}m{text}\x1b[0m", look.code())
        } else {
            text.to_owned()
        }
    }

    /// Rows under a header, as wide as the screen at most.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<String>>) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING).force_no_tty();
        if let Some(width) = self.width {
            table
                .set_width(width)
                .set_content_arrangement(ContentArrangement::Dynamic);
        }
        let titled = !header.is_empty();
        if titled {
            table.set_header(header.to_vec());
        }
        table.add_rows(rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        if let (true, Some(first)) = (titled, lines.first_mut()) {
            *first = self.paint(Look::Dim, first);
        }
        lines.join("\n")
    }
}

/// A share as a bar: filled for it, light for the rest.
pub fn bar(share: Weight) -> String {
    let filled = u64::from(share.parts_per_million()) * BAR / u64::from(Weight::ALL.parts_per_million());
    // The smallest share is still to be seen, and the smallest rest too.
    let filled = match share.parts_per_million() {
        0 => 0,
        part if part == Weight::ALL.parts_per_million() => BAR,
        _ => filled.clamp(1, BAR - 1),
    };
    (0..BAR).map(|n| if n < filled { '█' } else { '░' }).collect()
}

/// `1,204`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 rollout`, `1,204 rollouts`
pub fn counted(number: usize, thing: &str) -> String {
    let many = if number == 1 { "" } else { "s" };
    format!("{} {thing}{many}", grouped(number as u64))
}

/// Prints a text and ends the line.
///
/// # Errors
/// When it cannot be written.
pub fn put(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.is_empty() && !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Whether somebody sits there.
pub fn attended() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

/// Asks whether to go on.
///
/// # Errors
/// When the answer is not yes.
pub fn confirm(question: &str) -> Result<(), Failure> {
    let mut err = stderr().lock();
    write!(err, "{question} [y/N] ")?;
    err.flush()?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Declined),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_the_smallest_share_and_the_smallest_rest() {
        let drawn = |text: &str| bar(Weight::parse(text).expect("share")).matches('█').count();
        let expected = [
            ("0%", 0),
            ("0.0001%", 1),
            ("12.5%", 2),
            ("50%", 10),
            ("99.9999%", 19),
            ("100%", 20),
        ];
        for (share, filled) in expected {
            assert_eq!(drawn(share), filled, "{share}");
        }
    }

    #[test]
    fn numbers_are_grouped_by_threes() {
        assert_eq!(
            [0, 999, 1_000, 98_201, 1_234_567].map(grouped),
            ["0", "999", "1,000", "98,201", "1,234,567"]
        );
    }

    #[test]
    fn tables_keep_to_the_width_and_pipe_without_one() {
        let rows = || vec![vec!["a".to_owned(), "one two three four five six seven".to_owned()]];
        let narrow = Screen {
            width: Some(24),
            colour: false,
        }
        .table(&["N", "TEXT"], rows());
        assert!(
            narrow.lines().count() > 2 && narrow.lines().all(|line| line.chars().count() <= 24),
            "{narrow}"
        );
        let wide = Screen {
            width: None,
            colour: false,
        }
        .table(&["N", "TEXT"], rows());
        assert_eq!(wide, "N  TEXT\na  one two three four five six seven");
    }
}
