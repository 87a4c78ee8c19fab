//! Applying fixes to texts.

use std::collections::BTreeMap;

use govc_grammar::diagnostic::{Applicability, Diagnostic, Edit, Fix};
use govc_grammar::span::FileId;

use crate::sources::Source;

/// The fixes that may be applied without asking: of each diagnostic the first such one.
pub fn sure(diagnostics: &[Diagnostic]) -> impl Iterator<Item = &Fix> {
    diagnostics.iter().filter_map(|diagnostic| {
        let mut fixes = diagnostic.fixes.iter();
        fixes.find(|fix| fix.applicability == Applicability::MachineApplicable)
    })
}

/// The texts that change, by file. A fix is applied whole or not at all: one that would touch
/// what an earlier one changes is left for the next time.
#[must_use]
pub fn apply<'f>(
    sources: &[Source],
    fixes: impl IntoIterator<Item = &'f Fix>,
) -> BTreeMap<FileId, String> {
    let mut accepted: Vec<&Edit> = Vec::new();
    for fix in fixes {
        let in_text = |edit: &Edit| text_of(sources, edit).is_some();
        let free = |edit: &Edit| !accepted.iter().any(|other| collide(edit, other));
        if fix.edits.iter().all(|edit| in_text(edit) && free(edit)) {
            accepted.extend(&fix.edits);
        }
    }
    accepted.sort_by_key(|edit| edit.span);
    let mut texts: BTreeMap<FileId, String> = BTreeMap::new();
    // From the end to the beginning, so that no place moves before its turn.
    for edit in accepted.into_iter().rev() {
        let Some(source) = sources.get(edit.span.file.0 as usize) else { continue };
        let text = texts.entry(edit.span.file).or_insert_with(|| source.text.clone());
        let range = range(text, edit);
        if text.get(range.clone()).is_some() {
            text.replace_range(range, &edit.replacement);
        }
    }
    texts
}

/// The bytes of a text that an edit replaces: what is removed takes the blanks around it along.
#[must_use]
pub fn range(text: &str, edit: &Edit) -> std::ops::Range<usize> {
    let range = edit.span.start as usize..edit.span.end as usize;
    if edit.replacement.is_empty() { with_blanks(text, range) } else { range }
}

fn text_of<'s>(sources: &'s [Source], edit: &Edit) -> Option<&'s str> {
    let source = sources.get(edit.span.file.0 as usize)?;
    source.text.get(edit.span.start as usize..edit.span.end as usize)
}

/// Whether two edits touch: neighbours do as well, since the blanks around go with what is removed.
fn collide(one: &Edit, other: &Edit) -> bool {
    one.span.file == other.span.file
        && one.span.start <= other.span.end
        && other.span.start <= one.span.end
}

/// What is removed goes with its line when nothing else stands there, and else with the blanks
/// before it.
fn with_blanks(text: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let blank = |c: char| c == ' ' || c == '\t';
    let before = text.get(..range.start).unwrap_or_default().trim_end_matches(blank);
    let behind = text.get(range.end..).unwrap_or_default();
    let rest = behind.trim_start_matches(blank);
    let line_end = ["\r\n", "\n"].into_iter().find(|end| rest.starts_with(end));
    let starts_line = before.is_empty() || before.ends_with('\n');
    match line_end {
        Some(end) if starts_line => before.len()..text.len() - rest.len() + end.len(),
        _ if starts_line => range.start..text.len() - rest.len(),
        _ => before.len()..range.end,
    }
}

#[cfg(test)]
mod tests {
    use govc_grammar::span::Span;

    use super::*;

    fn fix(edits: &[(u32, u32, &str)]) -> Fix {
        let edit = |&(start, end, text): &(u32, u32, &str)| Edit {
            span: Span::new(FileId(0), start, end),
            replacement: text.to_owned(),
        };
        Fix {
            title: "change it".into(),
            applicability: Applicability::MachineApplicable,
            edits: edits.iter().map(edit).collect(),
        }
    }

    fn applied(text: &str, fixes: &[Fix]) -> String {
        let sources = [Source { name: "a".into(), text: text.into() }];
        apply(&sources, fixes).remove(&FileId(0)).unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn fixes_do_not_disturb_each_other() {
        let fixes = [fix(&[(6, 9, "X")]), fix(&[(0, 1, "ABC")]), fix(&[(3, 3, ",")])];
        assert_eq!(applied("a bc def", &fixes[1..]), "ABC b,c def");
        assert_eq!(applied("a bc d ef", &fixes), "ABC b,c dX");
    }

    #[test]
    fn fixes_that_overlap_wait() {
        let fixes = [fix(&[(0, 3, "x")]), fix(&[(2, 4, "y"), (6, 7, "z")]), fix(&[(6, 7, "w")])];
        assert_eq!(applied("abcdefg", &fixes), "xdefw");
        // An edit behind the end, or inside a character, changes nothing.
        assert_eq!(applied("abc", &[fix(&[(2, 9, "x")])]), "abc");
        assert_eq!(applied("é", &[fix(&[(1, 2, "x")])]), "é");
    }

    #[test]
    fn what_is_removed_leaves_no_blanks() {
        assert_eq!(applied("a\n  log\nb", &[fix(&[(4, 7, "")])]), "a\nb");
        assert_eq!(applied("a  log\nb", &[fix(&[(3, 6, "")])]), "a\nb");
        assert_eq!(applied("log  a\n", &[fix(&[(0, 3, "")])]), "a\n");
        assert_eq!(applied("a, to b", &[fix(&[(1, 2, "")])]), "a to b");
        assert_eq!(applied("a\r\n;\r\nb", &[fix(&[(3, 4, "")])]), "a\r\nb");
    }
}
