//! Outlines of files, names of the workspace, colours, folds.

use govc_compiler::index::Kind;
use govc_grammar::Token;
use govc_grammar::ast::{self, Item};
use govc_grammar::span::Span;
use lsp_types as lsp;
use rustc_hash::FxHashMap;

use crate::files::File;
use crate::positions::Encoding;
use crate::workspace::Workspace;

/// Names that one answer holds at most.
const SYMBOLS_MAX: usize = 500;

/// How editors draw a kind of name.
fn symbol_kind(kind: Kind) -> lsp::SymbolKind {
    match kind {
        Kind::Package => lsp::SymbolKind::PACKAGE,
        Kind::Domain => lsp::SymbolKind::NAMESPACE,
        Kind::Scope => lsp::SymbolKind::CLASS,
        Kind::Policy => lsp::SymbolKind::MODULE,
        Kind::Rule | Kind::Template => lsp::SymbolKind::FUNCTION,
        Kind::Parameter => lsp::SymbolKind::VARIABLE,
        Kind::Operation => lsp::SymbolKind::METHOD,
        Kind::OperationGroup => lsp::SymbolKind::INTERFACE,
        Kind::Zone => lsp::SymbolKind::PROPERTY,
        Kind::Tier => lsp::SymbolKind::ENUM,
        Kind::Prefixes | Kind::Ports => lsp::SymbolKind::CONSTANT,
        Kind::Level | Kind::Compartment | Kind::Constraint | Kind::Residency | Kind::Route => {
            lsp::SymbolKind::ENUM_MEMBER
        }
    }
}

impl Workspace<'_> {
    /// The outline of a file.
    pub(crate) fn document_symbols(
        &self,
        params: &lsp::DocumentSymbolParams,
    ) -> Option<lsp::DocumentSymbolResponse> {
        let file = self.file(&params.text_document.uri)?;
        let mut outline = Outline { file, encoding: self.encoding, symbols: Vec::new() };
        file.tree.items.iter().for_each(|item| outline.item(item));
        Some(lsp::DocumentSymbolResponse::Nested(outline.symbols))
    }

    /// Names of the workspace that contain the query.
    #[expect(deprecated, reason = "the protocol's type has a field that is no longer used")]
    pub(crate) fn workspace_symbols(
        &mut self,
        params: &lsp::WorkspaceSymbolParams,
    ) -> lsp::WorkspaceSymbolResponse {
        let query = params.query.to_lowercase();
        let mut found: FxHashMap<Span, (String, Kind)> = FxHashMap::default();
        for unit in self.all_units() {
            for definition in &unit.index.definitions {
                if found.len() < SYMBOLS_MAX && definition.full.to_lowercase().contains(&query) {
                    let named = (definition.full.to_string(), definition.kind);
                    found.entry(definition.span).or_insert(named);
                }
            }
        }
        let mut symbols: Vec<_> = found.into_iter().collect();
        symbols.sort_unstable_by_key(|(span, _)| *span);
        let symbol = |(span, (name, kind)): (Span, (String, Kind))| {
            Some(lsp::SymbolInformation {
                name,
                kind: symbol_kind(kind),
                tags: None,
                deprecated: None,
                location: self.location(span)?,
                container_name: None,
            })
        };
        lsp::WorkspaceSymbolResponse::Flat(symbols.into_iter().filter_map(symbol).collect())
    }

    /// Braces over several lines.
    pub(crate) fn folds(&self, params: &lsp::FoldingRangeParams) -> Option<Vec<lsp::FoldingRange>> {
        let file = self.file(&params.text_document.uri)?;
        let mut open = Vec::new();
        let mut folds = Vec::new();
        let line = |byte: usize| {
            let byte = u32::try_from(byte).unwrap_or(u32::MAX);
            file.lines.position(&file.text, byte, self.encoding).line
        };
        for (token, range) in govc_grammar::tokens(&file.text) {
            match token {
                Token::LeftBrace => open.push(line(range.start)),
                Token::RightBrace => {
                    let Some(start_line) = open.pop() else { continue };
                    // The closing brace stays in sight.
                    let end_line = line(range.start).saturating_sub(1);
                    if start_line < end_line {
                        folds.push(lsp::FoldingRange {
                            start_line,
                            end_line,
                            ..lsp::FoldingRange::default()
                        });
                    }
                }
                _ => {}
            }
        }
        Some(folds)
    }

    /// What every token of a file is.
    pub(crate) fn semantic_tokens(
        &mut self,
        uri: &lsp::Uri,
        range: Option<lsp::Range>,
    ) -> Option<lsp::SemanticTokensResult> {
        let id = self.file(uri)?.id;
        let mut names: FxHashMap<u32, (u32, Kind, bool)> = FxHashMap::default();
        let unit = self.unit_of(id)?;
        for (span, definition) in unit.index.uses.iter().filter(|(span, _)| span.file == id) {
            let Some(definition) = unit.index.definitions.get(*definition) else { continue };
            names.insert(span.start, (span.end, definition.kind, definition.span == *span));
        }
        let file = self.files.get(id)?;
        let all = lsp::Range::new(lsp::Position::new(0, 0), lsp::Position::new(u32::MAX, 0));
        let wanted = file.lines.span(&file.text, id, range.unwrap_or(all), self.encoding);
        let mut painter = Painter { file, encoding: self.encoding, last: (0, 0), data: Vec::new() };
        let mut gap = 0;
        let mut package: Option<u32> = None;
        for (token, range) in govc_grammar::tokens(&file.text) {
            let (Ok(start), Ok(end)) = (u32::try_from(range.start), u32::try_from(range.end))
            else {
                break;
            };
            let seen = start < wanted.end && wanted.start < end;
            if seen || gap < wanted.end && wanted.start < start {
                painter.comments(gap, start);
            }
            gap = end;
            if !seen {
                continue;
            }
            // A package is one name with dots in it.
            package = package.filter(|end| start < *end);
            if let Some((end, Kind::Package, _)) = names.get(&start) {
                package = Some(*end);
            }
            let kind = names.get(&start).map(|(_, kind, defined)| (name_type(*kind), *defined));
            match (kind, token) {
                _ if package.is_some() && token.is_word() => {
                    painter.paint(start, end, NAMESPACE, 0)
                }
                (Some((kind, defined)), _) => painter.paint(start, end, kind, u32::from(defined)),
                (None, Token::Int | Token::Prefix) => painter.paint(start, end, NUMBER, 0),
                (None, Token::Text) => painter.paint(start, end, STRING, 0),
                (None, Token::Word) => painter.paint(start, end, VARIABLE, 0),
                (None, token) if token.is_word() => painter.paint(start, end, KEYWORD, 0),
                _ => {}
            }
        }
        let end = u32::try_from(file.text.len()).unwrap_or(u32::MAX).min(wanted.end);
        painter.comments(gap, end.max(gap));
        let tokens = lsp::SemanticTokens { result_id: None, data: painter.data };
        Some(lsp::SemanticTokensResult::Tokens(tokens))
    }
}

const NAMESPACE: u32 = 0;
const KEYWORD: u32 = 8;
const NUMBER: u32 = 9;
const STRING: u32 = 10;
const COMMENT: u32 = 11;
const VARIABLE: u32 = 6;

/// The kinds of tokens, by their number in answers.
pub(crate) fn legend() -> lsp::SemanticTokensLegend {
    lsp::SemanticTokensLegend {
        token_types: vec![
            lsp::SemanticTokenType::NAMESPACE,
            lsp::SemanticTokenType::CLASS,
            lsp::SemanticTokenType::ENUM_MEMBER,
            lsp::SemanticTokenType::METHOD,
            lsp::SemanticTokenType::PROPERTY,
            lsp::SemanticTokenType::ENUM,
            lsp::SemanticTokenType::VARIABLE,
            lsp::SemanticTokenType::FUNCTION,
            lsp::SemanticTokenType::KEYWORD,
            lsp::SemanticTokenType::NUMBER,
            lsp::SemanticTokenType::STRING,
            lsp::SemanticTokenType::COMMENT,
        ],
        token_modifiers: vec![lsp::SemanticTokenModifier::DECLARATION],
    }
}

/// Position of a name's kind in the legend.
fn name_type(kind: Kind) -> u32 {
    match kind {
        Kind::Package | Kind::Domain | Kind::Policy => NAMESPACE,
        Kind::Scope | Kind::OperationGroup => 1,
        Kind::Level | Kind::Compartment | Kind::Constraint | Kind::Residency | Kind::Route => 2,
        Kind::Operation => 3,
        Kind::Zone => 4,
        Kind::Tier => 5,
        Kind::Prefixes | Kind::Ports | Kind::Parameter => VARIABLE,
        Kind::Rule | Kind::Template => 7,
    }
}

/// Writes tokens as the protocol wants them: each relative to the one before.
struct Painter<'f> {
    file: &'f File,
    encoding: Encoding,
    last: (u32, u32),
    data: Vec<lsp::SemanticToken>,
}

impl Painter<'_> {
    fn paint(&mut self, start: u32, end: u32, token_type: u32, modifiers: u32) {
        let at = self.file.lines.position(&self.file.text, start, self.encoding);
        let text = self.file.text.get(start as usize..end as usize).unwrap_or_default();
        let (line, column) = self.last;
        self.data.push(lsp::SemanticToken {
            delta_line: at.line - line,
            delta_start: if at.line == line { at.character - column } else { at.character },
            length: self.encoding.width(text),
            token_type,
            token_modifiers_bitset: modifiers,
        });
        self.last = (at.line, at.character);
    }

    /// Comments between two tokens.
    fn comments(&mut self, start: u32, end: u32) {
        let text = self.file.text.get(start as usize..end as usize).unwrap_or_default();
        let mut at = start;
        for line in text.split_inclusive('\n') {
            let width = |text: &str| u32::try_from(text.len()).unwrap_or(0);
            if let Some(begin) = line.find("//") {
                let begin = at + u32::try_from(begin).unwrap_or(0);
                let end = at + width(line.trim_end());
                self.paint(begin, end, COMMENT, 0);
            }
            at += width(line);
        }
    }
}

/// The outline of a file while it is made.
struct Outline<'f> {
    file: &'f File,
    encoding: Encoding,
    symbols: Vec<lsp::DocumentSymbol>,
}

impl Outline<'_> {
    #[expect(deprecated, reason = "the protocol's type has a field that is no longer used")]
    fn symbol(
        &self,
        name: &str,
        kind: lsp::SymbolKind,
        all: Span,
        named: Span,
        children: Vec<lsp::DocumentSymbol>,
    ) -> lsp::DocumentSymbol {
        lsp::DocumentSymbol {
            name: if name.is_empty() { "?".to_owned() } else { name.to_owned() },
            detail: None,
            kind,
            tags: None,
            deprecated: None,
            range: self.file.range(all.to(named), self.encoding),
            selection_range: self.file.range(named, self.encoding),
            children: (!children.is_empty()).then_some(children),
        }
    }

    fn plain(&self, kind: Kind, name: &ast::Name) -> lsp::DocumentSymbol {
        self.symbol(&name.text, symbol_kind(kind), name.span, name.span, Vec::new())
    }

    fn item(&mut self, item: &Item) {
        let symbol = match item {
            Item::Domain(domain) => {
                let levels = domain.levels.iter().map(|name| self.plain(Kind::Level, name));
                let compartments = domain.compartments.iter();
                let compartments = compartments.map(|name| self.plain(Kind::Compartment, name));
                let children = levels.chain(compartments).collect();
                let kind = symbol_kind(Kind::Domain);
                self.symbol(&domain.name.text, kind, domain.span, domain.name.span, children)
            }
            Item::Scope(root) => {
                let children = root.entries.iter().map(|scope| self.scope(scope)).collect();
                let kind = symbol_kind(Kind::Domain);
                self.symbol(&root.domain.text, kind, root.span, root.domain.span, children)
            }
            Item::Policy(policy) => {
                let rule = |rule: &ast::Rule| {
                    let kind = symbol_kind(Kind::Rule);
                    self.symbol(&rule.name.text, kind, rule.span, rule.name.span, Vec::new())
                };
                let children = policy.rules.iter().map(rule).collect();
                let kind = symbol_kind(Kind::Policy);
                self.symbol(&policy.name.text, kind, policy.span, policy.name.span, children)
            }
            Item::Test(test) => {
                let kind = lsp::SymbolKind::EVENT;
                self.symbol(&test.title.text, kind, test.span, test.title.span, Vec::new())
            }
            Item::Assert(assertion) => {
                let (name, kind) = (&assertion.name, lsp::SymbolKind::BOOLEAN);
                self.symbol(&name.text, kind, assertion.span, name.span, Vec::new())
            }
            _ => return self.several(item),
        };
        self.symbols.push(symbol);
    }

    /// Items that define several names.
    fn several(&mut self, item: &Item) {
        let symbols: Vec<_> = match item {
            Item::Constraint(names) => {
                names.iter().map(|name| self.plain(Kind::Constraint, name)).collect()
            }
            Item::Route(names) => names.iter().map(|name| self.plain(Kind::Route, name)).collect(),
            Item::Residency(list) => {
                list.iter().map(|one| self.plain(Kind::Residency, &one.name)).collect()
            }
            Item::Zone(zones) => {
                zones.iter().map(|zone| self.plain(Kind::Zone, &zone.name)).collect()
            }
            Item::Tier(tiers) => {
                tiers.iter().map(|tier| self.plain(Kind::Tier, &tier.name)).collect()
            }
            Item::Template(template) => vec![self.plain(Kind::Template, &template.name)],
            Item::Let(sets) => {
                sets.iter().map(|set| self.plain(Kind::Prefixes, &set.name)).collect()
            }
            Item::Operation(groups) => {
                let group = |group: &ast::OperationGroup| {
                    let names = group.operations.iter();
                    let last = group.operations.last().map_or(group.name.span, |name| name.span);
                    let names = names.map(|name| self.plain(Kind::Operation, name)).collect();
                    let kind = symbol_kind(Kind::OperationGroup);
                    self.symbol(&group.name.text, kind, last, group.name.span, names)
                };
                groups.iter().map(group).collect()
            }
            _ => Vec::new(),
        };
        self.symbols.extend(symbols);
    }

    fn scope(&self, scope: &ast::Scope) -> lsp::DocumentSymbol {
        let children = scope.children.iter().map(|child| self.scope(child)).collect();
        let kind = symbol_kind(Kind::Scope);
        self.symbol(&scope.name.text, kind, scope.span, scope.name.span, children)
    }
}
