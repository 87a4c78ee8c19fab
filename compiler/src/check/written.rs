//! The clauses of a rule as it says them: those that templates brought along come from a `like` of
//! the rule, which a message has to name, since the template knows nothing of the rule.

use govc_grammar::ast::Clause;
use govc_grammar::diagnostic::{Code, Diagnostic};
use govc_grammar::span::Span;

/// Clauses with the `like` that each comes from.
#[derive(Clone, Copy)]
pub(crate) struct Written<'e> {
    pub(crate) list: &'e [Clause],
    /// By position in the list; empty where nothing is `like` a template.
    likes: &'e [Option<Span>],
}

/// Where something is said.
#[derive(Clone, Copy)]
pub(crate) struct Said {
    pub(crate) span: Span,
    /// The `like` of the rule, where it is said in a template.
    pub(crate) like: Option<Span>,
}

impl<'e> Written<'e> {
    pub(crate) fn new(list: &'e [Clause], likes: &'e [Option<Span>]) -> Self {
        Self { list, likes }
    }

    /// The clauses with their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'e Clause, Said)> + use<'e> {
        let likes = self.likes.iter().copied().chain(std::iter::repeat(None));
        self.list.iter().zip(likes).map(|(clause, like)| (clause, Said { span: clause.span, like }))
    }
}

/// What is said where it was said before; `help` is for what the rule itself says twice.
pub(crate) fn said_again(
    code: Code,
    message: String,
    second: Said,
    first: Said,
    help: String,
) -> Diagnostic {
    let in_one_template = second.like.is_some() && second.like == first.like;
    let told = match second.like.filter(|_| !in_one_template) {
        Some(like) => Diagnostic::new(code, message, like, "says it again")
            .and(second.span, "this is what it says"),
        None => Diagnostic::new(code, message, second.span, "already said"),
    };
    let told = match (first.like, in_one_template) {
        (Some(like), true) => {
            told.and(first.span, "first said here").and(like, "the rule is like it")
        }
        (Some(like), false) => told.and(like, "first said by this"),
        (None, _) => told.and(first.span, "first said here"),
    };
    match (second.like, first.like) {
        (None, None) => told.help(help),
        _ => told.help("clauses of a template count as the rule's own: let one of the two say it"),
    }
}
