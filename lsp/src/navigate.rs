//! Definitions, references, renaming.

use std::collections::BTreeSet;

use govc_compiler::index::{Definition, Kind};
use govc_grammar::Token;
use govc_grammar::span::Span;
use lsp_types as lsp;

use crate::workspace::{Unit, Workspace};

impl Workspace<'_> {
    /// The span of the name at a position, and where it is defined.
    fn name_at(&mut self, at: &lsp::TextDocumentPositionParams) -> Option<(Span, Span)> {
        let place = self.file(&at.text_document.uri)?.place(at.position, self.encoding);
        let (span, definition) = self.named_at(place)?;
        Some((span, definition.span))
    }

    pub(crate) fn location(&self, span: Span) -> Option<lsp::Location> {
        let file = self.files.get(span.file)?;
        Some(lsp::Location::new(file.uri.clone(), file.range(span, self.encoding)))
    }

    pub(crate) fn definition(
        &mut self,
        params: &lsp::GotoDefinitionParams,
    ) -> Option<lsp::GotoDefinitionResponse> {
        let (_, definition) = self.name_at(&params.text_document_position_params)?;
        self.location(definition).map(lsp::GotoDefinitionResponse::Scalar)
    }

    /// All places in the workspace that name what is defined at a place.
    fn places(&mut self, definition: Span) -> BTreeSet<Span> {
        self.all_units().flat_map(|unit| unit.index.places(definition)).collect()
    }

    pub(crate) fn references(
        &mut self,
        params: &lsp::ReferenceParams,
    ) -> Option<Vec<lsp::Location>> {
        let (_, definition) = self.name_at(&params.text_document_position)?;
        let wanted = |span: &Span| params.context.include_declaration || *span != definition;
        let places = self.places(definition);
        Some(places.into_iter().filter(wanted).filter_map(|span| self.location(span)).collect())
    }

    pub(crate) fn highlights(
        &mut self,
        params: &lsp::DocumentHighlightParams,
    ) -> Option<Vec<lsp::DocumentHighlight>> {
        let (here, definition) = self.name_at(&params.text_document_position_params)?;
        let unit = self.unit_of(here.file)?;
        let places: BTreeSet<Span> =
            unit.index.places(definition).filter(|span| span.file == here.file).collect();
        let file = self.files.get(here.file)?;
        let highlight = |span| lsp::DocumentHighlight {
            range: file.range(span, self.encoding),
            kind: Some(lsp::DocumentHighlightKind::TEXT),
        };
        Some(places.into_iter().map(highlight).collect())
    }

    /// What would be renamed at a position.
    pub(crate) fn prepare_rename(
        &mut self,
        params: &lsp::TextDocumentPositionParams,
    ) -> Option<lsp::PrepareRenameResponse> {
        let place = self.file(&params.text_document.uri)?.place(params.position, self.encoding);
        let (span, definition) = self.named_at(place)?;
        if definition.kind == Kind::Package {
            return None;
        }
        let file = self.files.get(span.file)?;
        Some(lsp::PrepareRenameResponse::RangeWithPlaceholder {
            range: file.range(span, self.encoding),
            placeholder: file.text_of(span).to_owned(),
        })
    }

    /// Edits that give a name another one, everywhere.
    ///
    /// # Errors
    /// The new name cannot be one, or is taken; or nothing has a name here.
    pub(crate) fn rename(
        &mut self,
        params: &lsp::RenameParams,
    ) -> Result<lsp::WorkspaceEdit, String> {
        let at = &params.text_document_position;
        let place = self.file(&at.text_document.uri);
        let place = place.map(|file| file.place(at.position, self.encoding));
        let named = place.and_then(|place| self.named_at(place));
        let Some((_, definition)) = named else { return Err("there is no name here".to_owned()) };
        if definition.kind == Kind::Package {
            return Err("a package is found by its path: rename its file and folder".to_owned());
        }
        let new = params.new_name.trim();
        check_name(new)?;
        let old = self.files.get(definition.span.file).map(|file| file.text_of(definition.span));
        let old = old.unwrap_or_default().to_owned();
        let full = definition.full.strip_suffix(old.as_str()).unwrap_or_default();
        let full = format!("{full}{new}");
        if new != old && self.all_units().any(|unit| is_taken(unit, &definition, &full)) {
            let what = definition.kind.with_article();
            return Err(format!("there is {what} named `{full}` already"));
        }
        let places = self.places(definition.span);
        let same = |span: &Span| self.files.get(span.file).is_some_and(|f| f.text_of(*span) == old);
        if !places.iter().all(same) {
            return Err(format!("`{old}` goes by other names as well"));
        }
        let changes = places.into_iter().map(|span| (span, new.to_owned())).collect();
        Ok(self.edits(changes))
    }
}

/// Whether a unit that knows the definition has the other name for something of its kind.
fn is_taken(unit: &Unit, definition: &Definition, full: &str) -> bool {
    let all = &unit.index.definitions;
    let Some(here) = all.iter().find(|one| one.span == definition.span) else { return false };
    // These are known under one name in all packages.
    let everywhere = matches!(here.kind, Kind::Zone | Kind::Tier | Kind::Policy | Kind::Rule);
    all.iter().any(|other| {
        other.kind.noun() == here.kind.noun()
            && other.full == full
            && (everywhere || other.package == here.package)
    })
}

/// Words with a meaning are names in many places, and confuse in all of them.
fn check_name(name: &str) -> Result<(), String> {
    let mut tokens = govc_grammar::tokens(name);
    match (tokens.next(), tokens.next()) {
        (Some((Token::Word, range)), None) if range.len() == name.len() => Ok(()),
        (Some((token, range)), None) if token.is_word() && range.len() == name.len() => {
            Err(format!("`{name}` has a meaning in the language"))
        }
        _ => Err(format!("`{name}` is no name: write letters, digits, `_` and inner `-`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "web-ports", "_x9"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "9a", "a.b", "policy", "from", "a//b", "ü", "\"a\""] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
