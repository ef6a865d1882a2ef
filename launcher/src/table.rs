//! Text in columns. Pure: no terminal is asked.

use clap::builder::styling::{AnsiColor, Style};

/// Of a cell that is as it should be.
pub const OK: Style = AnsiColor::Green.on_default();

/// Of one that wants a look.
pub const WARN: Style = AnsiColor::Yellow.on_default();

/// Of one that is bad.
pub const BAD: Style = AnsiColor::Red.on_default();

/// Spaces between two columns.
pub const GAP: usize = 2;

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its heading.
    pub title: &'static str,
    /// Whether its cells stand to the right, as numbers do.
    pub right: bool,
    /// On a narrow screen columns with higher numbers go first; those with 0 stay.
    pub leaves: u8,
}

impl Column {
    /// Words, which stay.
    pub const fn text(title: &'static str) -> Self {
        Self { title, right: false, leaves: 0 }
    }

    /// Numbers, which stay.
    pub const fn number(title: &'static str) -> Self {
        Self { title, right: true, leaves: 0 }
    }

    /// The same, but leaving narrow screens.
    pub const fn leaving(self, leaves: u8) -> Self {
        Self { leaves, ..self }
    }
}

/// One cell. All text here counts one column per character: names are ASCII.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// In which colour.
    pub style: Style,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), style: Style::new() }
    }
}

/// A heading and one line for each row, without trailing spaces. Columns leave until the lines fit
/// into `width`, if one is given.
pub fn render(columns: &[Column], rows: &[Vec<Cell>], width: Option<usize>) -> String {
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells = rows.iter().filter_map(|row| row.get(index));
            cells.map(|cell| chars(&cell.text)).chain([chars(column.title)]).max().unwrap_or(0)
        })
        .collect();
    let shown = shown(columns, &widths, width);
    let titles: Vec<Cell> = columns.iter().map(|column| column.title.into()).collect();
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for (position, &index) in shown.iter().enumerate() {
            if position > 0 {
                line.push_str(&" ".repeat(GAP));
            }
            if let Some(cell) = row.get(index) {
                push(&mut line, cell, widths[index], columns[index].right);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Which columns fit, by their places.
pub fn shown(columns: &[Column], widths: &[usize], width: Option<usize>) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let Some(width) = width else { return shown };
    loop {
        let gaps = GAP * shown.len().saturating_sub(1);
        let needed = shown.iter().map(|&index| widths[index]).sum::<usize>() + gaps;
        let next = shown.iter().copied().max_by_key(|&index| columns[index].leaves);
        match next {
            Some(next) if needed > width && columns[next].leaves > 0 => {
                shown.retain(|&index| index != next);
            }
            _ => return shown,
        }
    }
}

fn push(line: &mut String, cell: &Cell, width: usize, right: bool) {
    let padding = " ".repeat(width.saturating_sub(chars(&cell.text)));
    let (before, after) = if right { (padding.as_str(), "") } else { ("", padding.as_str()) };
    let style = cell.style;
    line.push_str(&format!("{before}{style}{}{style:#}{after}", cell.text));
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] =
        [Column::text("NAME"), Column::number("N").leaving(1), Column::text("PLACE").leaving(2)];

    fn rows() -> Vec<Vec<Cell>> {
        vec![
            vec!["a".into(), "7".into(), "here".into()],
            vec!["longer".into(), "12".into(), "".into()],
        ]
    }

    #[test]
    fn numbers_stand_right_and_no_line_ends_in_spaces() {
        assert_eq!(
            render(&COLUMNS, &rows(), None),
            "NAME     N  PLACE\na        7  here\nlonger  12\n"
        );
    }

    #[test]
    fn columns_leave_a_narrow_screen_one_after_the_other() {
        assert_eq!(render(&COLUMNS, &rows(), Some(17)).lines().next(), Some("NAME     N  PLACE"));
        assert_eq!(render(&COLUMNS, &rows(), Some(16)).lines().next(), Some("NAME     N"));
        assert_eq!(render(&COLUMNS, &rows(), Some(1)).lines().next(), Some("NAME"));
    }
}
