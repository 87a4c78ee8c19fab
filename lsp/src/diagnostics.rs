//! Diagnostics and their fixes, as editors take them.

use std::collections::HashMap;

use govc_compiler::{codes, fixes};
use govc_grammar::diagnostic::{Applicability, Diagnostic, Fix, Severity};
use govc_grammar::span::{FileId, Span};
use lsp_types as lsp;

use crate::files::File;
use crate::workspace::{Unit, Workspace};

impl Workspace<'_> {
    /// What there is to say about a file of a unit.
    pub(crate) fn diagnostics(&self, unit: &Unit, file: &File) -> Vec<lsp::Diagnostic> {
        let about = |diagnostic: &&Diagnostic| place(diagnostic, &unit.roots, file.id).is_some();
        unit.told().iter().filter(about).filter_map(|one| self.convert(one, unit, file)).collect()
    }

    fn convert(
        &self,
        diagnostic: &Diagnostic,
        unit: &Unit,
        file: &File,
    ) -> Option<lsp::Diagnostic> {
        let span = place(diagnostic, &unit.roots, file.id)?;
        let severity = match diagnostic.severity() {
            Severity::Error => lsp::DiagnosticSeverity::ERROR,
            Severity::Warning => lsp::DiagnosticSeverity::WARNING,
            Severity::Advice => lsp::DiagnosticSeverity::INFORMATION,
        };
        let mut message = diagnostic.message.clone();
        if let Some(help) = &diagnostic.help {
            message.push_str("\nhelp: ");
            message.push_str(help);
        }
        let related = diagnostic.labels.iter().filter(|label| label.span != span);
        let related = related.filter_map(|label| {
            let other = self.files.get(label.span.file)?;
            let text = if label.text.is_empty() { "here" } else { &label.text };
            Some(lsp::DiagnosticRelatedInformation {
                location: lsp::Location::new(
                    other.uri.clone(),
                    other.range(label.span, self.encoding),
                ),
                message: text.to_owned(),
            })
        });
        let page = self.host.page_url(diagnostic.code).and_then(|url| url.parse().ok());
        let unused = diagnostic.code == codes::UNUSED;
        Some(lsp::Diagnostic {
            range: file.range(span, self.encoding),
            severity: Some(severity),
            code: Some(lsp::NumberOrString::String(diagnostic.code.id.to_owned())),
            code_description: page.map(|href| lsp::CodeDescription { href }),
            source: Some("govc".to_owned()),
            message,
            related_information: Some(related.collect()),
            tags: unused.then(|| vec![lsp::DiagnosticTag::UNNECESSARY]),
            data: None,
        })
    }

    /// Fixes of what is wrong in a range.
    pub(crate) fn code_actions(
        &mut self,
        params: &lsp::CodeActionParams,
    ) -> Option<lsp::CodeActionResponse> {
        if let Some(only) = &params.context.only {
            let wanted = |kind: &lsp::CodeActionKind| {
                kind.as_str().is_empty() || *kind == lsp::CodeActionKind::QUICKFIX
            };
            if !only.iter().any(wanted) {
                return None;
            }
        }
        let file = self.file(&params.text_document.uri)?;
        let asked = file.lines.span(&file.text, file.id, params.range, self.encoding);
        let id = file.id;
        self.unit_of(id)?;
        let (_, unit) = self.units().find(|(_, unit)| unit.roots.contains(&id))?;
        let file = self.files.get(id)?;
        let mut actions = Vec::new();
        for diagnostic in unit.told() {
            let touches = |span: Span| span.start <= asked.end && asked.start <= span.end;
            if !place(diagnostic, &unit.roots, id).is_some_and(touches) {
                continue;
            }
            let told = self.convert(diagnostic, unit, file);
            for fix in &diagnostic.fixes {
                let Some(edit) = self.workspace_edit(fix) else { continue };
                let sure = fix.applicability == Applicability::MachineApplicable;
                actions.push(lsp::CodeActionOrCommand::CodeAction(lsp::CodeAction {
                    title: capitalised(&fix.title),
                    kind: Some(lsp::CodeActionKind::QUICKFIX),
                    diagnostics: told.clone().map(|told| vec![told]),
                    edit: Some(edit),
                    is_preferred: Some(sure),
                    ..lsp::CodeAction::default()
                }));
            }
        }
        Some(actions)
    }

    fn workspace_edit(&self, fix: &Fix) -> Option<lsp::WorkspaceEdit> {
        let mut changes: Changes = Vec::new();
        for edit in &fix.edits {
            let file = self.files.get(edit.span.file)?;
            let range = fixes::range(&file.text, edit);
            let start = u32::try_from(range.start).ok()?;
            let span = Span::new(file.id, start, u32::try_from(range.end).ok()?);
            changes.push((span, edit.replacement.clone()));
        }
        Some(self.edits(changes))
    }

    /// Changes by file. Versions of open files are left out: the editor knows what it shows.
    #[expect(clippy::mutable_key_type, reason = "the protocol's type; nothing changes a key")]
    pub(crate) fn edits(&self, changes: Changes) -> lsp::WorkspaceEdit {
        let mut by_file: HashMap<lsp::Uri, Vec<lsp::TextEdit>> = HashMap::new();
        for (span, text) in changes {
            let Some(file) = self.files.get(span.file) else { continue };
            let range = file.range(span, self.encoding);
            by_file.entry(file.uri.clone()).or_default().push(lsp::TextEdit::new(range, text));
        }
        lsp::WorkspaceEdit::new(by_file)
    }
}

/// Places with the text that belongs there.
pub(crate) type Changes = Vec<(Span, String)>;

/// Where a diagnostic is told in a file: at its own place; if that is in a file that is only used,
/// which nobody may be looking at, at the first that is in a file of the unit.
fn place(diagnostic: &Diagnostic, roots: &[FileId], file: FileId) -> Option<Span> {
    let mut labels = diagnostic.labels.iter().map(|label| label.span);
    let place = labels.find(|span| roots.contains(&span.file));
    place.filter(|span| span.file == file)
}

fn capitalised(title: &str) -> String {
    let mut chars = title.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
