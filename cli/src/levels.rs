//! `--deny`, `--warn` and `--allow`: how grave a code counts in one run.

use std::str::FromStr;

use govc_compiler::pages;
use govc_grammar::diagnostic::{Code, Diagnostic, Severity};

use crate::failure::Failure;

/// What a level is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every warning whose own code is not named.
    Warnings,
    /// One code.
    Code(Code),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("warnings") {
            return Ok(Self::Warnings);
        }
        pages::find(text).map(Self::Code).map_err(|near| match near {
            Some(near) => format!("there is no such code, did you mean {}?", near.id),
            None => "give a code such as GOV4101, or `warnings`".into(),
        })
    }
}

/// Codes that count as something else than they are.
#[derive(Clone, Debug, Default)]
pub struct Levels {
    /// `None` leaves the diagnostic out.
    codes: Vec<(Code, Option<Severity>)>,
    warnings: Option<Option<Severity>>,
}

impl Levels {
    /// The levels of the command line.
    ///
    /// # Errors
    /// A target is named twice, or an error is to be less than an error.
    pub fn new(deny: &[Target], warn: &[Target], allow: &[Target]) -> Result<Self, Failure> {
        let mut levels = Self::default();
        let given = [
            ("--deny", deny, Some(Severity::Error)),
            ("--warn", warn, Some(Severity::Warning)),
            ("--allow", allow, None),
        ];
        for (option, targets, level) in given {
            for target in targets {
                levels.set(option, *target, level)?;
            }
        }
        Ok(levels)
    }

    fn set(
        &mut self,
        option: &str,
        target: Target,
        level: Option<Severity>,
    ) -> Result<(), Failure> {
        let twice = |what: &str| Failure::Usage {
            message: format!("{what} has two levels"),
            help: "Name it once, behind --deny, --warn or --allow.".into(),
        };
        match target {
            Target::Warnings => match self.warnings.replace(level) {
                Some(before) if before != level => Err(twice("`warnings`")),
                _ => Ok(()),
            },
            Target::Code(code) => {
                if code.severity == Severity::Error && level != Some(Severity::Error) {
                    return Err(Failure::Usage {
                        message: format!("{option} {}: it is an error", code.id),
                        help: "A policy with errors has no meaning; only warnings have levels."
                            .into(),
                    });
                }
                match self.codes.iter().find(|(other, _)| *other == code) {
                    Some((_, before)) if *before != level => Err(twice(code.id)),
                    Some(_) => Ok(()),
                    None => {
                        self.codes.push((code, level));
                        Ok(())
                    }
                }
            }
        }
    }

    /// The diagnostics with these levels.
    #[must_use]
    pub fn apply(&self, diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
        let level = |diagnostic: &Diagnostic| -> Option<Severity> {
            let own = diagnostic.severity();
            if own == Severity::Error {
                return Some(own);
            }
            let named = self.codes.iter().find(|(code, _)| *code == diagnostic.code);
            match (named, self.warnings) {
                (Some((_, level)), _) => *level,
                (None, Some(level)) if own == Severity::Warning => level,
                (None, _) => Some(own),
            }
        };
        diagnostics
            .into_iter()
            .filter_map(|diagnostic| {
                level(&diagnostic).map(|severity| Diagnostic { severity, ..diagnostic })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use govc_compiler::codes;
    use govc_grammar::span::{FileId, Span};

    use super::*;

    fn severities(deny: &[&str], warn: &[&str], allow: &[&str]) -> Vec<Severity> {
        let targets = |texts: &[&str]| -> Vec<Target> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let levels = Levels::new(&targets(deny), &targets(warn), &targets(allow)).unwrap();
        let span = Span::new(FileId(0), 0, 0);
        let all = [codes::UNUSED, codes::OVERLAP, codes::UNKNOWN_SCOPE]
            .map(|code| Diagnostic::new(code, "x", span, ""));
        levels.apply(all.to_vec()).iter().map(Diagnostic::severity).collect()
    }

    #[test]
    fn a_named_code_is_stronger_than_all_warnings() {
        use Severity::{Error, Warning};
        assert_eq!(severities(&[], &[], &[]), [Warning, Warning, Error]);
        assert_eq!(severities(&["warnings"], &[], &[]), [Error, Error, Error]);
        assert_eq!(severities(&["warnings"], &["4101"], &[]), [Warning, Error, Error]);
        assert_eq!(severities(&["gov4104"], &[], &["warnings"]), [Error, Error]);
        assert_eq!(severities(&["warnings"], &[], &["GOV4101"]), [Error, Error]);
    }

    #[test]
    fn contradictions_are_refused() {
        let code = Target::Code(codes::UNUSED);
        assert!(Levels::new(&[code], &[], &[code]).is_err());
        assert!(Levels::new(&[Target::Warnings], &[Target::Warnings], &[]).is_err());
        assert!(Levels::new(&[], &[], &[Target::Code(codes::UNKNOWN_SCOPE)]).is_err());
        assert!(Levels::new(&[code, code], &[], &[]).is_ok());
        assert!("GOV9999".parse::<Target>().is_err());
    }
}
