//! "Did you mean": the candidate that a misspelt name is most like.

use govc_grammar::diagnostic::{Applicability, Diagnostic};
use govc_grammar::span::Span;
use smol_str::SmolStr;

/// A name that was probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Near {
    pub(crate) name: SmolStr,
    /// Nothing else can have been meant.
    pub(crate) sure: bool,
}

impl Near {
    /// Offers `name` in place of what stands at `span`.
    pub(crate) fn offer(&self, diagnostic: Diagnostic, span: Span) -> Diagnostic {
        diagnostic.replace(span, self.name.as_str(), self.applicability())
    }

    pub(crate) fn applicability(&self) -> Applicability {
        if self.sure { Applicability::MachineApplicable } else { Applicability::MaybeIncorrect }
    }
}

/// The distance up to which a misspelling is a slip of the fingers.
const SLIP_MAX: usize = 2;

/// The name nearest to `text`. What is spelt otherwise may not be declared yet, and another name
/// gives other rights: only one that differs in nothing but its letters' case is sure.
pub(crate) fn near<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<Near> {
    let name = nearest(text, candidates.clone())?;
    let wanted = text.to_lowercase();
    let same = candidates.into_iter().filter(|other| other.to_lowercase() == wanted);
    Some(Near { name: name.into(), sure: same.take(2).count() == 1 })
}

/// The word nearest to `text` among all that the language knows in a place: a slip of the fingers
/// that only one of them is near to is sure.
pub(crate) fn near_word<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<Near> {
    let name = nearest(text, candidates.clone())?;
    let wanted = text.to_lowercase();
    let distance = |other: &str| strsim::osa_distance(&wanted, &other.to_lowercase());
    let best = distance(name);
    let mut rivals = candidates.into_iter().filter(|other| *other != name && *other != text);
    let sure = best <= SLIP_MAX
        && !rivals.any(|other| other.len().abs_diff(text.len()) <= best && distance(other) <= best);
    Some(Near { name: name.into(), sure })
}

/// The candidate nearest to `text`, when one is near enough to be meant. Of equally near ones
/// the first wins. Case does not count.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wanted = text.to_lowercase();
    let length = wanted.chars().count();
    // Between two-letter names, one other letter says nothing.
    let mut distance_max = if length < 3 { 0 } else { length / 3 };
    let mut best = None;
    for candidate in candidates {
        // The distance is at least the difference in length: most candidates end here.
        if candidate.len().abs_diff(wanted.len()) > distance_max.max(wanted.len() - length) {
            continue;
        }
        let distance = strsim::osa_distance(&wanted, &candidate.to_lowercase());
        if distance <= distance_max && candidate != text {
            best = Some(candidate);
            let Some(closer) = distance.checked_sub(1) else { break };
            distance_max = closer;
        }
    }
    best
}

/// `a`, `b` and `c`, each in backticks; at most `names_max` of them.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>, names_max: usize) -> String {
    let quoted: Vec<String> =
        names.into_iter().take(names_max + 1).map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] if quoted.len() <= names_max => {
            format!("{} and {last}", first.join(", "))
        }
        [first @ .., _] => format!("{} and others", first.join(", ")),
    }
}

/// `the levels here are ..` or `the only level here is ..`; nothing when there is none.
pub(crate) fn there_are<'a>(
    (one, several): (&str, &str),
    place: &str,
    names: impl IntoIterator<Item = &'a str>,
    names_max: usize,
) -> Option<String> {
    let mut names = names.into_iter().peekable();
    let first = names.next()?;
    if names.peek().is_none() {
        return Some(format!("the only {one}{place} is `{first}`"));
    }
    let all = list(std::iter::once(first).chain(names), names_max);
    Some(format!("the {several}{place} are {all}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_wins() {
        assert_eq!(
            nearest("acme.payments.apii", ["acme.web", "acme.payments.api"]),
            Some("acme.payments.api")
        );
        assert_eq!(nearest("intrenal", ["public", "internal"]), Some("internal"));
        assert_eq!(nearest("EU", ["us", "eu"]), Some("eu"));
        assert_eq!(nearest("abcdef", ["xyz", "qrstuv"]), None);
        assert_eq!(nearest("", [""]), None);
    }

    #[test]
    fn only_the_case_of_a_names_letters_is_sure() {
        let sure = |text, names: &[&'static str]| near(text, names.iter().copied()).map(|n| n.sure);
        assert_eq!(sure("EU", &["us", "eu"]), Some(true));
        assert_eq!(sure("EU", &["eu", "Eu"]), Some(false));
        assert_eq!(sure("intrenal", &["public", "internal"]), Some(false));
        assert_eq!(sure("acme.payments.api2", &["acme.payments.api"]), Some(false));
    }

    #[test]
    fn only_the_one_word_in_reach_is_sure() {
        let sure =
            |text, names: &[&'static str]| near_word(text, names.iter().copied()).map(|n| n.sure);
        assert_eq!(sure("intrenal", &["public", "internal"]), Some(true));
        assert_eq!(sure("n3", &["n1", "n2"]), None);
        assert_eq!(sure("node3", &["node1", "node2"]), Some(false));
        assert_eq!(sure("EU", &["us", "eu"]), Some(true));
        assert_eq!(sure("confidentaly_xy", &["confidential_z"]), Some(false));
    }

    #[test]
    fn lists_read_like_sentences() {
        assert_eq!(list(["a"], 8), "`a`");
        assert_eq!(list(["a", "b", "c"], 8), "`a`, `b` and `c`");
        assert_eq!(list(["a", "b", "c"], 2), "`a`, `b` and others");
        let there_are = |names: &[&'static str]| {
            there_are(("rule", "rules"), " here", names.iter().copied(), 8)
        };
        assert_eq!(there_are(&["a", "b"]).as_deref(), Some("the rules here are `a` and `b`"));
        assert_eq!(there_are(&["a"]).as_deref(), Some("the only rule here is `a`"));
        assert_eq!(there_are(&[]), None);
    }
}
