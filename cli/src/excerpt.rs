//! The source of a rule, as long as its file is still the one that was compiled.

use std::{
    fs,
    path::{Path, PathBuf},
};

use govc_grammar::{Token, tokens};
use govc_image::Names;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::output::Style;

/// Lines of a rule that are shown at most.
const LINES_MAX: usize = 24;

/// A rule as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// As it was named to the compiler.
    pub file: String,
    /// Of the first line, from 1.
    pub line: u32,
    /// The lines.
    pub lines: Vec<String>,
}

/// Finds the source of a rule; file names are taken from `below`.
///
/// # Errors
/// Why it is not there, for people. A file that has changed since would show another rule.
pub fn excerpt(names: &Names, rule: u32, below: &Path) -> Result<Excerpt, String> {
    let rule = names.rules.get(rule as usize).ok_or("the image has no such rule")?;
    let file = names.files.get(rule.file as usize).ok_or("the image does not name its file")?;
    let path = path_of(&file.name, below);
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    if <[u8; 32]>::from(Sha256::digest(text.as_bytes())) != file.sha256 {
        return Err(format!("`{}` has changed since it was compiled", path.display()));
    }
    Ok(Excerpt { file: file.name.clone(), line: rule.line, lines: lines(&text, rule.line) })
}

/// Where a file is that an image names; file names are taken from `below`.
pub fn path_of(name: &str, below: &Path) -> PathBuf {
    if below == Path::new(".") { name.into() } else { below.join(name) }
}

/// The lines from one on up to where the first block that begins there is closed.
fn lines(text: &str, line: u32) -> Vec<String> {
    let first = line.saturating_sub(1) as usize;
    let start: usize = text.split_inclusive('\n').take(first).map(str::len).sum();
    let rest = text.get(start..).unwrap_or_default();
    let head = rest.find('\n').unwrap_or(rest.len());
    let (mut depth, mut end) = (0_usize, head);
    for (token, range) in tokens(rest) {
        if depth == 0 && range.start >= head {
            break;
        }
        match token {
            Token::LeftBrace => depth += 1,
            Token::RightBrace => depth = depth.saturating_sub(1),
            _ => {}
        }
        end = end.max(range.end);
    }
    rest.get(..end)
        .unwrap_or_default()
        .lines()
        .take(LINES_MAX)
        .map(|line| line.trim_end().to_owned())
        .collect()
}

impl Excerpt {
    /// The lines with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u32, &str)> {
        (self.line..).zip(self.lines.iter().map(String::as_str))
    }

    /// Text for a terminal, indented.
    pub fn text(&self, style: &Style) -> String {
        let line = |(number, text): (u32, &str)| {
            format!("  {} {text}\n", style.dim(format!("{number:>5} |")))
        };
        self.numbered().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use govc_image::{File, Rule};

    use super::*;

    #[test]
    fn a_rule_ends_with_its_block() {
        let text = "policy p {\n  permit a { from x  // }\n    proto tcp port { 1 }\n  }\n  deny b\n  \
                    deny c { }\n}\n";
        assert_eq!(lines(text, 2).len(), 3);
        assert_eq!(lines(text, 2)[2], "  }");
        assert_eq!(lines(text, 5), ["  deny b"]);
        assert_eq!(lines(text, 6), ["  deny c { }"]);
        assert_eq!(lines("policy p {\n  deny a {}\n}\n", 2), ["  deny a {}"]);
        assert_eq!(lines(text, 99), Vec::<String>::new());
        assert_eq!(lines("deny {\n", 1), ["deny {"]);
    }

    #[test]
    fn only_the_file_that_was_compiled_is_shown() {
        let scratch = tempfile::tempdir().unwrap();
        let text = "policy p {\n  deny a { proto tcp }\n}\n";
        let rule = Rule {
            policy: "p".into(),
            name: "a".into(),
            description: None,
            file: 0,
            line: 2,
            column: 3,
            meaning: [0; 8],
        };
        let sha256 = Sha256::digest(text.as_bytes()).into();
        let names = Names {
            files: vec![File { name: "p.gov".into(), sha256 }],
            rules: vec![rule],
            ..Names::default()
        };
        let missing = excerpt(&names, 0, scratch.path()).unwrap_err();
        assert!(missing.contains("cannot be read"), "{missing}");
        fs::write(scratch.path().join("p.gov"), text).unwrap();
        let found = excerpt(&names, 0, scratch.path()).unwrap();
        assert_eq!(
            (found.line, found.lines.as_slice()),
            (2, &["  deny a { proto tcp }".into()][..])
        );
        assert!(found.text(&Style::plain_text()).contains("    2 |   deny a"));
        assert!(excerpt(&names, 1, scratch.path()).is_err());
        fs::write(scratch.path().join("p.gov"), text.replace("deny", "permit")).unwrap();
        let changed = excerpt(&names, 0, scratch.path()).unwrap_err();
        assert!(changed.contains("has changed"), "{changed}");
    }
}
