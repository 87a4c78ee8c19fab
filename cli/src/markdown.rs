//! Manual pages in a terminal: Markdown with ANSI styles, or as plain text.

use govc_grammar::Token;
use pulldown_cmark::{CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::output::Style;

/// A page for people, as wide as `style` says. Code is never wrapped.
pub fn render(markdown: &str, style: &Style) -> String {
    let mut page =
        Page { style, text: String::new(), line: String::new(), state: State::default() };
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        page.take(event);
    }
    page.text.trim_end().to_owned() + "\n"
}

/// Where in the page the text is.
#[derive(Default)]
struct State {
    /// The ANSI style of the words around.
    ansi: Option<&'static str>,
    /// The code block has this language.
    code: Option<String>,
    /// Cells of the table, row by row.
    rows: Vec<Vec<String>>,
    in_table: bool,
    in_list: bool,
}

struct Page<'s> {
    style: &'s Style,
    text: String,
    /// The paragraph that goes on.
    line: String,
    state: State,
}

/// How far code and tables are indented.
const INDENT: &str = "    ";

impl Page<'_> {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) => self.words(&text),
            Event::Code(code) => self.inline_code(&code),
            Event::SoftBreak | Event::HardBreak => self.line.push(' '),
            _ => {}
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { level, .. } => {
                self.state.ansi = Some(if level == HeadingLevel::H1 { "1;4" } else { "1" });
            }
            Tag::Emphasis => self.state.ansi = Some("3"),
            Tag::Strong => self.state.ansi = Some("1"),
            Tag::CodeBlock(CodeBlockKind::Fenced(info)) => {
                self.state.code = Some(info.split(',').next().unwrap_or_default().to_owned());
            }
            Tag::CodeBlock(CodeBlockKind::Indented) => self.state.code = Some(String::new()),
            Tag::List(_) => self.state.in_list = true,
            Tag::Table(_) => self.state.in_table = true,
            Tag::TableHead | Tag::TableRow => self.state.rows.push(Vec::new()),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                self.state.ansi = None;
                self.paragraph("", "");
                self.text.push('\n');
            }
            TagEnd::Emphasis | TagEnd::Strong => self.state.ansi = None,
            TagEnd::Paragraph => {
                self.paragraph("", "");
                self.text.push('\n');
            }
            TagEnd::Item => self.paragraph("  ", "    "),
            TagEnd::List(_) => {
                self.state.in_list = false;
                self.text.push('\n');
            }
            TagEnd::CodeBlock => {
                self.state.code = None;
                self.text.push('\n');
            }
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.line);
                self.state.rows.last_mut().into_iter().for_each(|row| row.push(cell.clone()));
            }
            TagEnd::Table => self.table(),
            _ => {}
        }
    }

    fn words(&mut self, text: &str) {
        if let Some(language) = &self.state.code {
            let gov = language == "gov";
            for line in text.lines() {
                let shown = if gov { self.highlighted(line) } else { line.to_owned() };
                self.text.push_str(format!("{INDENT}{shown}").trim_end());
                self.text.push('\n');
            }
            return;
        }
        match self.state.ansi {
            Some(ansi) => {
                // Each word has its own style, so that lines can be wrapped between them.
                let styled: Vec<String> =
                    text.split(' ').map(|word| self.style.paint_word(ansi, word)).collect();
                self.line.push_str(&styled.join(" "));
            }
            None => self.line.push_str(text),
        }
    }

    fn inline_code(&mut self, code: &CowStr<'_>) {
        let words: Vec<String> = if self.style.is_coloured() {
            code.split(' ').map(|word| self.style.paint_word("36", word)).collect()
        } else {
            vec![format!("`{code}`")]
        };
        self.line.push_str(&words.join(" "));
    }

    /// Ends the paragraph, wrapped.
    fn paragraph(&mut self, first: &str, next: &str) {
        let text = std::mem::take(&mut self.line);
        let options = textwrap::Options::new(self.style.width())
            .initial_indent(first)
            .subsequent_indent(next)
            .break_words(false);
        for line in textwrap::wrap(&text, options) {
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }

    fn table(&mut self) {
        self.state.in_table = false;
        let rows = std::mem::take(&mut self.state.rows);
        let width = |text: &str| textwrap::core::display_width(text);
        let widest = rows.iter().filter_map(|row| row.first()).map(|cell| width(cell)).max();
        for row in rows {
            let mut cells = row.into_iter();
            let first = cells.next().unwrap_or_default();
            let gap = " ".repeat(widest.unwrap_or(0) - width(&first) + 2);
            let rest: Vec<String> = cells.collect();
            self.text.push_str(format!("{INDENT}{first}{gap}{}", rest.join("  ")).trim_end());
            self.text.push('\n');
        }
        self.text.push('\n');
    }

    /// A line of policy source with its keywords, texts and comments told apart.
    fn highlighted(&self, line: &str) -> String {
        let mut shown = String::new();
        let mut end = 0;
        for (token, range) in govc_grammar::tokens(line) {
            // Comments are no tokens: they stand in the gaps.
            self.push_gap(line.get(end..range.start).unwrap_or_default(), &mut shown);
            let text = line.get(range.clone()).unwrap_or_default();
            shown.push_str(&match token {
                Token::Text => self.style.good(text),
                Token::Int | Token::Prefix => self.style.paint("36", text),
                Token::Permit | Token::Deny | Token::Pass | Token::Observe => self.style.bold(text),
                token if token != Token::Word && token.is_word() => self.style.paint("34", text),
                _ => text.to_owned(),
            });
            end = range.end;
        }
        self.push_gap(line.get(end..).unwrap_or_default(), &mut shown);
        shown
    }

    fn push_gap(&self, gap: &str, shown: &mut String) {
        match gap.find("//") {
            Some(at) => {
                let (space, comment) = gap.split_at(at);
                shown.push_str(space);
                shown.push_str(&self.style.dim(comment));
            }
            None => shown.push_str(gap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Title of `it`\n\nSome *styled words* that go on\nand on.\n\n- one\n- two\n\n\
        | a | b |\n| --- | --- |\n| `x` | y |\n\n```gov,fails\npermit read { log } // why\n```\n";

    #[test]
    fn plain_text_has_no_escapes_and_loses_nothing() {
        let text = render(PAGE, &Style::plain(60));
        assert_eq!(
            text,
            "Title of `it`\n\nSome styled words that go on and on.\n\n  one\n  two\n\n    a    b\n    `x`  y\n\n    \
             permit read { log } // why\n"
        );
    }

    #[test]
    fn colours_change_no_text() {
        let style = Style::coloured(60);
        let coloured = render(PAGE, &style);
        assert!(coloured.contains("\u{1b}[1mpermit\u{1b}[0m"), "{coloured:?}");
        assert!(coloured.contains("\u{1b}[2m// why\u{1b}[0m"), "{coloured:?}");
        let mut stripped = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, behind)) = rest.split_once('\u{1b}') {
            stripped.push_str(before);
            rest = behind.split_once('m').unwrap().1;
        }
        stripped.push_str(rest);
        let plain = render(PAGE, &Style::plain(60)).replace('`', "");
        // The first column is as wide as its widest cell, quotes included.
        assert_eq!(stripped.replace("a  b", "a    b"), plain);
    }

    #[test]
    fn paragraphs_are_wrapped() {
        let text = render(&"word ".repeat(40), &Style::plain(60));
        assert!(text.lines().count() > 3 && text.lines().all(|line| line.len() <= 60), "{text}");
    }
}
