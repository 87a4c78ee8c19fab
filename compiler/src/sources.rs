//! Source texts as the caller hands them over.

/// One source file. Its [`govc_grammar::span::FileId`] is its position in the caller's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What diagnostics call it, usually a path.
    pub name: String,
    /// The whole text.
    pub text: String,
}
