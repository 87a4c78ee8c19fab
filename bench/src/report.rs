//! Tables for people, in a terminal and as Markdown.

use std::fmt::Write as _;

/// Everything that was found out.
pub struct Report {
    /// One line about the machine.
    pub machine: String,
    /// In the order in which they are read.
    pub sections: Vec<Section>,
}

/// A table with what has to be said about it.
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// Paragraphs above the table.
    pub notes: Vec<String>,
    /// Columns; without any there is no table.
    pub head: Vec<String>,
    /// As many cells as columns each.
    pub rows: Vec<Vec<String>>,
}

impl Report {
    /// For a terminal.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.machine);
        for section in &self.sections {
            let _ = write!(text, "\n{}\n", section.title);
            for note in &section.notes {
                wrap(&mut text, note);
            }
            section.columns(&mut text);
        }
        text
    }

    /// For the manual.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# Performance\n\nWritten by `cargo run --release -p govc-bench -- --write`; do not \
             edit.\n\n{}\n",
            self.machine
        );
        for section in &self.sections {
            let _ = write!(text, "\n## {}\n", section.title);
            for note in &section.notes {
                text.push('\n');
                wrap(&mut text, note);
            }
            if section.head.is_empty() {
                continue;
            }
            let _ = write!(text, "\n| {} |\n|", section.head.join(" | "));
            for column in 0..section.head.len() {
                text.push_str(if column == 0 { " --- |" } else { " ---: |" });
            }
            text.push('\n');
            for row in &section.rows {
                let _ = writeln!(text, "| {} |", row.join(" | "));
            }
        }
        text
    }
}

impl Section {
    /// The table in columns, the first one to the left, the others to the right.
    fn columns(&self, text: &mut String) {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..self.head.len()).filter_map(width).collect();
        for row in all().filter(|row| !row.is_empty()) {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(text, "  {cell:<width$}"),
                    _ => write!(text, "  {cell:>width$}"),
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
}

/// Adds a paragraph in lines of up to 100 characters.
fn wrap(text: &mut String, paragraph: &str) {
    let mut used = 0;
    for word in paragraph.split_whitespace() {
        let len = word.chars().count();
        if used > 0 && used + 1 + len > 100 {
            text.push('\n');
            used = 0;
        } else if used > 0 {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += len;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_their_columns() {
        let cells = |list: [&str; 2]| list.map(str::to_owned).to_vec();
        let report = Report {
            machine: "a machine".to_owned(),
            sections: vec![Section {
                title: "Floors",
                notes: vec!["Nobody can do it for less.".to_owned()],
                head: cells(["program", "ns"]),
                rows: vec![cells(["empty", "9.5"]), cells(["parse", "10.0"])],
            }],
        };
        let text = "a machine\n\nFloors\nNobody can do it for less.\n  program    ns\n  empty     \
                    9.5\n  parse    10.0\n";
        assert_eq!(report.text(), text);
        let markdown = report.markdown();
        assert!(markdown.ends_with(
            "\n## Floors\n\nNobody can do it for less.\n\n| program | ns |\n| --- | ---: |\n| \
             empty | 9.5 |\n| parse | 10.0 |\n"
        ));
    }

    #[test]
    fn long_notes_are_wrapped() {
        let mut text = String::new();
        wrap(&mut text, &"word ".repeat(50));
        assert!(text.lines().all(|line| line.len() <= 100));
        assert_eq!(text.split_whitespace().count(), 50);
    }
}
