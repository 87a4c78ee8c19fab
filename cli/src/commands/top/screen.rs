//! What `top` shows, and what keys do to it.

use std::{collections::BTreeMap, sync::Arc};

use govc_image::Image;
use ratatui::{
    Frame,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row, Table, TableState, Tabs, Wrap},
};

use crate::{
    commands::{keys::duration, trial::returns},
    events::{
        board::{RuleRate, View},
        flows::Flow,
    },
    excerpt::Excerpt,
};

/// Lines below the table, for the chosen row.
const DETAIL_LINES: u16 = 10;

/// What a key asks of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To draw again.
    Nothing,
    /// To end.
    End,
    /// To open the chosen rule in an editor.
    Edit,
}

/// Lists that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tab {
    Flows,
    Denials,
    Rules,
    Pending,
}

const TABS: [(Tab, &str); 4] = [
    (Tab::Flows, "1 flows"),
    (Tab::Denials, "2 denials"),
    (Tab::Rules, "3 rules"),
    (Tab::Pending, "4 enforcing would"),
];

/// A row of a list: its cells, and the rule that it leads to.
struct Entry {
    cells: Vec<String>,
    tone: Tone,
    rule: Option<(String, u32)>,
    detail: String,
}

/// A column of a list.
struct Column {
    title: &'static str,
    width: Constraint,
    cut: Cut,
}

/// Which end of a text that is too long tells less.
#[derive(Clone, Copy)]
enum Cut {
    End,
    /// Names begin with what all of them share.
    Beginning,
    /// A number.
    Never,
}

const fn column(title: &'static str, width: Constraint, cut: Cut) -> Column {
    Column { title, width, cut }
}

#[derive(Clone, Copy)]
enum Tone {
    Good,
    Bad,
    Doubt,
    Plain,
}

/// The state of the screen.
pub struct Screen {
    coloured: bool,
    view: View,
    images: BTreeMap<String, Arc<Image>>,
    tab: usize,
    table: TableState,
    filter: String,
    typing: bool,
    paused: bool,
    said: Option<String>,
}

impl Screen {
    pub fn new(coloured: bool) -> Self {
        Self {
            coloured,
            view: View::default(),
            images: BTreeMap::new(),
            tab: 0,
            table: TableState::default().with_selected(0),
            filter: String::new(),
            typing: false,
            paused: false,
            said: None,
        }
    }

    /// Takes a new view, unless the old one is being looked at; whether it did.
    pub fn show(&mut self, view: View, images: BTreeMap<String, Arc<Image>>) -> bool {
        if self.paused {
            return false;
        }
        (self.view, self.images) = (view, images);
        // A table without rows forgets what was chosen.
        if self.table.selected().is_none() {
            self.table.select_first();
        }
        true
    }

    /// Tells something in the last line, until the next key.
    pub fn say(&mut self, text: String) {
        self.said = Some(text);
    }

    /// Does what a key means.
    pub fn key(&mut self, key: KeyEvent) -> Ask {
        self.said = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Ask::End } else { Ask::Nothing };
        }
        if self.typing {
            self.type_key(key.code);
            return Ask::Nothing;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Ask::End,
            KeyCode::Enter | KeyCode::Char('e') => return Ask::Edit,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p') | KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(TABS.len() - 1),
            KeyCode::Char(digit @ '1'..='4') => {
                let wanted = digit as usize - '1' as usize;
                self.turn(wanted + TABS.len() - self.tab);
            }
            KeyCode::Down | KeyCode::Char('j') => self.table.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.table.select_previous(),
            KeyCode::PageDown => self.table.scroll_down_by(10),
            KeyCode::PageUp => self.table.scroll_up_by(10),
            KeyCode::Home | KeyCode::Char('g') => self.table.select_first(),
            KeyCode::End | KeyCode::Char('G') => self.table.select_last(),
            _ => {}
        }
        // A list may be shorter than where one wanted to go.
        let last = self.entries().len().saturating_sub(1);
        let at = self.table.selected().unwrap_or(0).min(last);
        self.table.select(Some(at));
        Ask::Nothing
    }

    fn type_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        self.table.select_first();
    }

    fn turn(&mut self, by: usize) {
        self.tab = (self.tab + by) % TABS.len();
        self.table.select_first();
    }

    fn tab(&self) -> Tab {
        TABS.get(self.tab).map_or(Tab::Flows, |(tab, _)| *tab)
    }

    /// The rule that the chosen row leads to, with the image that names it.
    pub fn chosen_rule(&self) -> Option<(&Image, u32)> {
        let at = self.table.selected()?;
        let (image, rule) = self.entries().get(at)?.rule.clone()?;
        Some((self.images.get(&image)?, rule))
    }

    fn entries(&self) -> Vec<Entry> {
        let all: Vec<Entry> = match self.tab() {
            Tab::Flows => self.view.flows.iter().map(flow).collect(),
            Tab::Denials => self.denials(),
            Tab::Rules => self.rules(),
            Tab::Pending => self.pending(),
        };
        let wanted = self.filter.to_lowercase();
        let holds = |entry: &Entry| entry.cells.iter().any(|c| c.to_lowercase().contains(&wanted));
        all.into_iter().filter(holds).collect()
    }

    /// Denials by flow, where events told them, then by reason, exactly.
    fn denials(&self) -> Vec<Entry> {
        let flows = self.view.flows.iter().filter(|flow| flow.verdict == "deny").map(flow);
        let reasons = self.view.denials.iter().map(|one| Entry {
            cells: vec![
                one.per_s.to_string(),
                one.packets.to_string(),
                "deny".into(),
                String::new(),
                one.hook.into(),
                "all".into(),
                "all".into(),
                "-".into(),
                format!("{}: {}", one.reason, one.because),
            ],
            tone: Tone::Bad,
            rule: None,
            detail: format!("{} packets since the instance began", one.packets),
        });
        flows.chain(reasons).collect()
    }

    fn rules(&self) -> Vec<Entry> {
        let of = |rule: &RuleRate| Entry {
            cells: vec![
                (rule.per_s + rule.would_per_s).to_string(),
                (rule.packets + rule.would).to_string(),
                rule.action.into(),
                rule.rule.clone(),
                rule.place.clone(),
            ],
            tone: match rule.action {
                "permit" => Tone::Good,
                "deny" => Tone::Bad,
                action if action.starts_with("observe") => Tone::Doubt,
                _ => Tone::Plain,
            },
            rule: self.view.image.clone().map(|image| (image, rule.number)),
            detail: format!("{}  {}", rule.rule, rule.place),
        };
        self.view.rules.iter().map(of).collect()
    }

    /// What rules that only observe would change: enforced and pending verdict side by side.
    fn pending(&self) -> Vec<Entry> {
        let changed = self.view.flows.iter().filter(|flow| flow.would.is_some());
        let of = |flow: &Flow| Entry {
            cells: vec![
                flow.per_s.to_string(),
                flow.events.to_string(),
                flow.verdict.into(),
                flow.would.unwrap_or_default().into(),
                flow.from.clone(),
                flow.to.clone(),
                flow.operation.clone().unwrap_or_else(|| "-".into()),
                flow.would_rule.clone().unwrap_or_default(),
            ],
            tone: Tone::Doubt,
            rule: flow.image.clone().zip(flow.would_number),
            detail: flow.last.clone(),
        };
        changed.map(of).collect()
    }

    fn paint(&self, tone: Tone) -> Style {
        match tone {
            _ if !self.coloured => Style::new(),
            Tone::Good => Style::new().fg(Color::Green),
            Tone::Bad => Style::new().fg(Color::Red),
            Tone::Doubt => Style::new().fg(Color::Yellow),
            Tone::Plain => Style::new(),
        }
    }

    /// Draws everything; `source` is that of the chosen rule, or why there is none.
    pub fn draw(&mut self, frame: &mut Frame<'_>, source: Option<&Result<Excerpt, String>>) {
        let areas = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(1),
            Constraint::Min(3),
            Constraint::Length(DETAIL_LINES),
            Constraint::Length(1),
        ]);
        let [head, tabs, list, detail, foot] = areas.areas(frame.area());
        frame.render_widget(Paragraph::new(self.head()), head);
        let titles = TABS.map(|(_, title)| title);
        let chosen = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(
            Tabs::new(titles).select(self.tab).highlight_style(chosen).divider(" "),
            tabs,
        );
        let entries = self.entries();
        self.draw_list(frame, list, &entries);
        self.draw_detail(frame, detail, &entries, source);
        let text = match (&self.said, self.typing) {
            (Some(said), _) => said.clone(),
            (None, true) => format!("filter: {}_  (enter keeps it, esc clears it)", self.filter),
            (None, false) => {
                let filter = if self.filter.is_empty() {
                    String::new()
                } else {
                    format!("  filter `{}`", self.filter)
                };
                format!(
                    "tab list  ↑↓ choose  enter edit the rule  / filter  p pause  q end{filter}"
                )
            }
        };
        frame.render_widget(Paragraph::new(text), foot);
    }

    fn head(&self) -> Vec<Line<'static>> {
        let view = &self.view;
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let state = match (view.generation, self.paused) {
            (0, _) => "  no policy is in force".to_owned(),
            (_, true) => "  paused".to_owned(),
            _ => String::new(),
        };
        let trial = view.pending.map(|pending| {
            let left = duration(u64::try_from(pending.left_s).unwrap_or(0));
            format!("  trial: in {left} {}", returns(pending.before))
        });
        let first = Line::from(vec![
            Span::styled(format!("{} ", view.instance), bold),
            Span::raw(format!("{} generation {}", view.policy, view.generation)),
            Span::styled(format!("{state}{}", trial.unwrap_or_default()), self.paint(Tone::Doubt)),
        ]);
        let packets = view.packets;
        let lost = view.events.lost_rate + view.events.lost_full;
        let others = match view.others {
            0 => String::new(),
            others => format!(", {others} of flows that are not listed"),
        };
        let flows = match (view.permits, lost) {
            (false, _) => "  permitted packets are not reported: flows are denials".to_owned(),
            (true, 0) => format!("  {} events", view.events.read),
            (true, lost) => {
                format!("  {} events, {lost} lost: flows are a sample", view.events.read)
            }
        };
        let second = Line::from(vec![
            Span::styled(
                format!("{}/s permitted", packets.permitted_per_s),
                self.paint(Tone::Good),
            ),
            Span::raw("  "),
            Span::styled(format!("{}/s denied", packets.denied_per_s), self.paint(Tone::Bad)),
            Span::raw("  "),
            Span::styled(
                format!("{}/s would change", packets.would_per_s),
                self.paint(Tone::Doubt),
            ),
            Span::raw(flows),
            Span::raw(others),
        ]);
        vec![first, second]
    }

    fn draw_list(&mut self, frame: &mut Frame<'_>, area: Rect, entries: &[Entry]) {
        let columns = columns(self.tab(), area.width);
        let widths: Vec<Constraint> = columns.iter().map(|column| column.width).collect();
        // As the table lays them out: what does not fit is cut at the end that tells less.
        let places = Layout::horizontal(widths.clone()).spacing(1).split(area);
        let rows = entries.iter().map(|entry| {
            let cells = entry.cells.iter().zip(&columns).zip(places.iter());
            let cells = cells.map(|((text, column), place)| match column.cut {
                Cut::Never => Cell::from(Line::raw(text.as_str()).right_aligned()),
                cut => Cell::from(shortened(text, usize::from(place.width), cut)),
            });
            Row::new(cells).style(self.paint(entry.tone))
        });
        let titles = columns.iter().map(|column| column.title);
        let head = Row::new(titles).style(Style::new().add_modifier(Modifier::BOLD));
        let table = Table::new(rows, widths)
            .header(head)
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, &mut self.table);
    }

    fn draw_detail(
        &self,
        frame: &mut Frame<'_>,
        area: Rect,
        entries: &[Entry],
        source: Option<&Result<Excerpt, String>>,
    ) {
        let chosen = self.table.selected().and_then(|at| entries.get(at));
        let mut lines: Vec<Line<'_>> = Vec::new();
        if let Some(entry) = chosen {
            lines.push(Line::raw(entry.detail.as_str()));
        }
        match source {
            Some(Ok(source)) => {
                lines.push(Line::raw(source.file.as_str()));
                let numbered = source.numbered();
                lines.extend(numbered.map(|(at, text)| Line::raw(format!("{at:>5} | {text}"))));
            }
            Some(Err(why)) => lines.push(Line::raw(why.as_str())),
            None => {}
        }
        let block = Block::new().borders(Borders::TOP);
        frame.render_widget(Paragraph::new(lines).block(block).wrap(Wrap { trim: false }), area);
    }
}

/// The columns of a list in a terminal of this width.
fn columns(tab: Tab, width: u16) -> Vec<Column> {
    let narrow = width < 110;
    let count = |title| {
        let width = match title {
            "/S" if narrow => 5,
            _ if narrow => 7,
            _ => 9,
        };
        column(title, Constraint::Length(width), Cut::Never)
    };
    let word = |title, width| column(title, Constraint::Length(width), Cut::End);
    let name = |title, share| column(title, Constraint::Fill(share), Cut::Beginning);
    let start = [count("/S"), count("TOTAL")];
    let rest = match tab {
        Tab::Flows | Tab::Denials => vec![
            word("VERDICT", 7),
            word("PENDING", 7),
            word("HOOK", if narrow { 4 } else { 7 }),
            name("FROM", 4),
            name("TO", 4),
            name("OPERATION", 2),
            name("BY", 5),
        ],
        Tab::Rules => vec![word("ACTION", 14), name("RULE", 1), name("PLACE", 1)],
        Tab::Pending => vec![
            word("ENFORCED", 8),
            word("PENDING", 7),
            name("FROM", 4),
            name("TO", 4),
            name("OPERATION", 2),
            name("BY", 5),
        ],
    };
    start.into_iter().chain(rest).collect()
}

/// A text in no more than so many letters. What says that a name is a claim only stays.
fn shortened(text: &str, width: usize, cut: Cut) -> String {
    let letters = text.chars().count();
    if letters <= width {
        return text.to_owned();
    }
    if let (Some(claimed), Cut::Beginning) = (text.strip_prefix(CLAIMS), cut) {
        let rest = width.saturating_sub(CLAIMS.len());
        return format!("{CLAIMS}{}", shortened(claimed, rest, cut)).chars().take(width).collect();
    }
    let kept = width.saturating_sub(1);
    match cut {
        // A sentence, or what a name is followed by.
        Cut::Beginning if !text.contains(' ') => {
            let tail: String = text.chars().skip(letters - kept).collect();
            format!("…{tail}")
        }
        _ => format!("{}…", text.chars().take(kept).collect::<String>()),
    }
}

/// How a name begins that nobody has verified.
const CLAIMS: &str = "claims ";

fn flow(flow: &Flow) -> Entry {
    let tone = match (flow.would_break(), flow.verdict) {
        (true, _) => Tone::Doubt,
        (false, "permit") => Tone::Good,
        (false, _) => Tone::Bad,
    };
    Entry {
        cells: vec![
            flow.per_s.to_string(),
            flow.events.to_string(),
            flow.verdict.into(),
            flow.would.unwrap_or_default().into(),
            flow.hook.into(),
            flow.from.clone(),
            flow.to.clone(),
            flow.operation.clone().unwrap_or_else(|| "-".into()),
            match &flow.rule {
                Some(rule) if flow.reason == "rule" => rule.clone(),
                Some(rule) => format!("{} of {rule}", flow.reason),
                None => flow.reason.into(),
            },
        ],
        tone,
        rule: flow.image.clone().zip(flow.rule_number),
        detail: match (&flow.rule, &flow.would_rule) {
            (None, _) => format!("{}: {}", flow.last, flow.because),
            (Some(_), Some(would)) => {
                format!("{}; {would} would {}", flow.last, flow.would.unwrap_or("decide"))
            }
            (Some(_), None) => flow.last.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_where_they_tell_less() {
        let name = |text, width| shortened(text, width, Cut::Beginning);
        assert_eq!(name("acme.payments.api", 17), "acme.payments.api");
        assert_eq!(name("acme.payments.api", 12), "…ayments.api");
        assert_eq!(name("acme.payments.ledger", 12), "…ents.ledger");
        assert_eq!(name("claims acme.payments.api", 12), "claims ….api");
        assert_eq!(name("claims acme.payments.api", 4), "clai");
        assert_eq!(name("no_rule: no rule permits it", 10), "no_rule: …");
        assert_eq!(shortened("ingress", 3, Cut::End), "in…");
    }

    /// The words of a list in a terminal of 80 columns.
    #[test]
    fn scopes_are_told_apart_in_a_small_terminal() {
        let area = Rect::new(0, 0, 80, 10);
        let columns = columns(Tab::Flows, area.width);
        let widths = columns.iter().map(|column| column.width);
        let places = Layout::horizontal(widths).spacing(1).split(area);
        let at = |title| columns.iter().position(|column| column.title == title).unwrap();
        let width = |title| usize::from(places[at(title)].width);
        let cut = |title, text| shortened(text, width(title), columns[at(title)].cut);
        for title in ["FROM", "TO"] {
            assert!(width(title) >= 11, "{title}: {}", width(title));
            assert!(cut(title, "acme.payments.api").ends_with(".api"));
            assert!(cut(title, "acme.payments.ledger").ends_with(".ledger"));
            assert!(cut(title, "claims acme.payments.api").starts_with("claims …"));
        }
        assert!(cut("BY", "ledger.telnet").ends_with("telnet"));
    }
}
