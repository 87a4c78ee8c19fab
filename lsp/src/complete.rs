//! What can be written at a place: by the tokens before it, since what is being typed does not
//! parse yet.

use govc_abi::label::radius;
use govc_compiler::index::{Definition, Kind};
use govc_compiler::pages;
use govc_grammar::Token;
use lsp_types as lsp;

use crate::hover;
use crate::workspace::Workspace;

/// Proposals that one answer holds at most; the editor asks again as more is typed.
const PROPOSALS_MAX: usize = 1000;

impl Workspace<'_> {
    pub(crate) fn complete(
        &mut self,
        params: &lsp::CompletionParams,
    ) -> Option<lsp::CompletionResponse> {
        let at = &params.text_document_position;
        let file = self.file(&at.text_document.uri)?;
        let (id, byte) = (file.id, file.byte(at.position, self.encoding));
        let typed = Typed::before(file.text.get(..byte)?);
        let start =
            file.lines.position(&file.text, u32::try_from(typed.start).ok()?, self.encoding);
        let range = lsp::Range::new(start, at.position);
        let mut proposals = Proposals { range, items: Vec::new() };
        let wanted = typed.wanted();
        for word in &wanted.words {
            proposals.word(word);
        }
        if wanted.codes {
            pages::codes().for_each(|code| proposals.plain(code.id, code.title));
        }
        let prefix = typed.path.join(".");
        let unit = self.unit_of(id)?;
        let fits = |definition: &&Definition| wanted.kinds.contains(&definition.kind);
        for definition in unit.visible_from(id).filter(fits) {
            proposals.name(definition, &prefix);
        }
        if wanted.packages {
            let mut known: Vec<String> =
                unit.index.packages.iter().map(ToString::to_string).collect();
            known.extend(self.files.all().filter_map(|file| file.package()));
            let rest = |package: &'_ String| match prefix.as_str() {
                "" => Some(package.clone()),
                prefix => Some(package.strip_prefix(prefix)?.strip_prefix('.')?.to_owned()),
            };
            known.iter().filter_map(rest).for_each(|rest| proposals.plain(&rest, "package"));
        }
        let is_incomplete = proposals.items.len() >= PROPOSALS_MAX;
        let list = lsp::CompletionList { is_incomplete, items: proposals.items };
        Some(lsp::CompletionResponse::List(list))
    }
}

struct Proposals {
    /// What is replaced.
    range: lsp::Range,
    items: Vec<lsp::CompletionItem>,
}

impl Proposals {
    fn add(
        &mut self,
        label: &str,
        kind: lsp::CompletionItemKind,
        detail: &str,
        more: Option<String>,
    ) {
        if self.items.len() >= PROPOSALS_MAX || self.items.iter().any(|item| item.label == label) {
            return;
        }
        let documentation = more.map(|value| {
            let kind = lsp::MarkupKind::Markdown;
            lsp::Documentation::MarkupContent(lsp::MarkupContent { kind, value })
        });
        self.items.push(lsp::CompletionItem {
            label: label.to_owned(),
            kind: Some(kind),
            detail: Some(detail.to_owned()),
            documentation,
            text_edit: Some(lsp::CompletionTextEdit::Edit(lsp::TextEdit {
                range: self.range,
                new_text: label.to_owned(),
            })),
            ..lsp::CompletionItem::default()
        });
    }

    fn word(&mut self, word: &str) {
        let first = word.split(' ').next().unwrap_or(word);
        let meaning = hover::keyword(first).unwrap_or_default();
        self.add(word, lsp::CompletionItemKind::KEYWORD, meaning, None);
    }

    fn plain(&mut self, name: &str, detail: &str) {
        self.add(name, lsp::CompletionItemKind::MODULE, detail, None);
    }

    /// A name in full; or, behind the beginning of its path, the next part of it.
    fn name(&mut self, definition: &Definition, prefix: &str) {
        let rest = match prefix {
            "" => Some(definition.full.as_str()),
            _ => definition.full.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')),
        };
        let Some(rest) = rest else { return };
        let whole = prefix.is_empty() || !rest.contains('.');
        let label = if whole { rest } else { rest.split('.').next().unwrap_or(rest) };
        let kind = match definition.kind {
            Kind::Scope | Kind::OperationGroup => lsp::CompletionItemKind::CLASS,
            Kind::Domain | Kind::Package | Kind::Policy => lsp::CompletionItemKind::MODULE,
            Kind::Operation => lsp::CompletionItemKind::METHOD,
            Kind::Rule => lsp::CompletionItemKind::FUNCTION,
            Kind::Prefixes | Kind::Ports => lsp::CompletionItemKind::CONSTANT,
            Kind::Zone | Kind::Tier => lsp::CompletionItemKind::PROPERTY,
            _ => lsp::CompletionItemKind::ENUM_MEMBER,
        };
        let facts = whole.then(|| definition.facts.join("\n\n"));
        self.add(label, kind, definition.kind.noun(), facts);
    }
}

/// What can be written at a place.
#[derive(Default)]
struct Wanted {
    words: Vec<&'static str>,
    kinds: Vec<Kind>,
    packages: bool,
    codes: bool,
}

impl Wanted {
    fn words(words: &[&'static str]) -> Self {
        Self { words: words.to_vec(), ..Self::default() }
    }

    fn kinds(kinds: &[Kind]) -> Self {
        Self { kinds: kinds.to_vec(), ..Self::default() }
    }

    fn and(mut self, words: &[&'static str]) -> Self {
        self.words.extend(words);
        self
    }
}

/// The text before a place.
struct Typed<'t> {
    /// Tokens before the path that is being typed.
    before: Vec<(Token, &'t str)>,
    /// Names of that path, each followed by a dot.
    path: Vec<&'t str>,
    /// Where the word that is being typed starts.
    start: usize,
    /// Positions of the open braces in `before`.
    open: Vec<usize>,
    /// Position of the keyword that the item starts with.
    item: usize,
}

impl<'t> Typed<'t> {
    fn before(text: &'t str) -> Self {
        let mut before: Vec<(Token, &str)> = Vec::new();
        let mut starts = Vec::new();
        for (token, range) in govc_grammar::tokens(text) {
            starts.push(range.start);
            before.push((token, text.get(range).unwrap_or_default()));
        }
        let mut start = text.len();
        if before.last().is_some_and(|(token, word)| token.is_word() && text.ends_with(word)) {
            before.pop();
            start = starts.pop().unwrap_or(start);
        }
        let mut path = Vec::new();
        while let [.., (name, text), (Token::Dot, _)] = before.as_slice()
            && name.is_word()
        {
            path.insert(0, *text);
            before.truncate(before.len() - 2);
        }
        let items: Vec<usize> = govc_grammar::item_starts(text);
        let item = items.last().and_then(|item| starts.iter().position(|start| start == item));
        let mut open = Vec::new();
        let item = item.unwrap_or(before.len());
        for (at, (token, _)) in before.iter().enumerate().skip(item) {
            match token {
                Token::LeftBrace => open.push(at),
                Token::RightBrace => drop(open.pop()),
                _ => {}
            }
        }
        Self { before, path, start, open, item }
    }

    fn at(&self, position: usize) -> (Option<Token>, &'t str) {
        self.before.get(position).map_or((None, ""), |(token, text)| (Some(*token), *text))
    }

    /// The token so many places before the end, 1 being the last.
    fn back(&self, places: usize) -> (Option<Token>, &'t str) {
        self.before.len().checked_sub(places).map_or((None, ""), |at| self.at(at))
    }

    /// The word that the item starts with.
    fn item_word(&self) -> &'t str {
        let mut words = (self.item..).map(|at| self.at(at).1);
        words.find(|word| !matches!(*word, "observe" | "private")).unwrap_or_default()
    }

    fn wanted(&self) -> Wanted {
        let mut wanted = self.wanted_here();
        // Behind a dot a path goes on, which no word of the language does.
        wanted.words.retain(|_| self.path.is_empty());
        wanted
    }

    fn wanted_here(&self) -> Wanted {
        let (last, text) = self.back(1);
        if self.path.is_empty() && text == "@" {
            return Wanted::words(&["expect", "deprecated"]);
        }
        if text == "expect" && self.back(2).0 == Some(Token::AtSign) {
            return Wanted { codes: true, ..Wanted::default() };
        }
        if let Some(brace) = self.open.last()
            && let Some(wanted) = self.in_set(*brace)
        {
            return wanted;
        }
        // Behind a comma, the list goes on: the word that it belongs to governs.
        let mut at = self.before.len();
        if last == Some(Token::Comma) {
            at = self.list_start(at);
        }
        let governing = at.checked_sub(1).map_or((None, ""), |at| self.at(at)).1;
        self.value_of(governing, at).unwrap_or_else(|| self.part().and(self.narrowings()))
    }

    /// Where the list starts that goes up to a position.
    fn list_start(&self, end: usize) -> usize {
        let mut at = end;
        while at > 0 && !self.governs(at - 1) {
            at -= 1;
        }
        at
    }

    /// What can take something out of the list before this place.
    fn narrowings(&self) -> &'static [&'static str] {
        let start = self.list_start(self.before.len());
        let is_list = start < self.before.len();
        match (self.at(start.wrapping_sub(1)).1, self.item_word()) {
            _ if !is_list => &[],
            ("let", "let") => &["within", "except"],
            ("within", "let") => &["except"],
            ("from" | "to" | "operation", "policy" | "template" | "assert")
                if !self.open.is_empty() =>
            {
                &["except"]
            }
            _ => &[],
        }
    }

    /// Whether a list can follow the token at a position.
    fn governs(&self, at: usize) -> bool {
        let keyword = |token: Token| token.is_word() && token != Token::Word;
        let is_name = |at| matches!(self.at(at).0, Some(Token::Dot | Token::Comma));
        self.at(at).0.is_none_or(|token| token == Token::LeftBrace || keyword(token))
            && !is_name(at + 1)
            && !at.checked_sub(1).is_some_and(is_name)
    }

    /// Names inside `{finance, audit}`.
    fn in_set(&self, brace: usize) -> Option<Wanted> {
        let word = self.at(brace.checked_sub(1)?).1;
        match word {
            "in" => Some(Wanted::kinds(&[Kind::Compartment])),
            "compartments" if self.item_word() != "domain" => {
                Some(Wanted::kinds(&[Kind::Compartment]))
            }
            "constraints" => Some(Wanted::kinds(&[Kind::Constraint])),
            "is" | "has" | "includes" | "within" | "==" | "!=" => self.value_of(word, brace),
            _ => None,
        }
    }

    /// What can follow a word that takes a value; `at` is the position behind it.
    fn value_of(&self, word: &str, at: usize) -> Option<Wanted> {
        let outside = self.open.is_empty();
        let before = |places: usize| at.checked_sub(places).map_or("", |at| self.at(at).1);
        let declares = at.checked_sub(1) == Some(self.item);
        Some(match word {
            "use" => Wanted { packages: true, ..Wanted::default() },
            "like" => Wanted::kinds(&[Kind::Template]),
            "quarantine" => Wanted::kinds(&[Kind::Zone]),
            "since" | "until" => Wanted::default(),
            "at" if self.in_packet() => Wanted::default(),
            "package" | "policy" | "template" | "test" | "assert" | "domain" | "let"
            | "constraint" => Wanted::default(),
            "operation" | "residency" | "route" | "tier" | "zone" if outside && declares => {
                Wanted::default()
            }
            "scope" => Wanted::kinds(&[Kind::Domain]),
            "from" if self.item_word() == "legacy" => Wanted::kinds(&[Kind::Prefixes]),
            "from" if outside => Wanted::words(&["zone"]),
            "from" => Wanted::kinds(&[Kind::Scope, Kind::Domain]).and(&[
                "anyone",
                "labelled",
                "legacy",
                "unlabelled",
            ]),
            "carriage" => Wanted::words(&["tunnel", "option"]),
            "to" if self.item_word() == "carriage" => Wanted::kinds(&[Kind::Prefixes]),
            "to" | "subject" | "object" => Wanted::kinds(&[Kind::Scope, Kind::Domain]),
            "operation" => Wanted::kinds(&[Kind::Operation, Kind::OperationGroup]),
            "level" if before(2) == "where" || joins(before(2)) => Wanted::words(&ORDER),
            "level" | "at" => Wanted::kinds(&[Kind::Level]),
            "max" => Wanted::words(&["level"]),
            "residency" if before(2) == "where" || joins(before(2)) => {
                Wanted::words(&["within", "is"])
            }
            "residency" => Wanted::kinds(&[Kind::Residency]),
            "route" => Wanted::kinds(&[Kind::Route]),
            "radius" if before(2) == "where" || joins(before(2)) => Wanted::words(&ORDER),
            "radius" => Wanted::words(&radius::NAMES),
            "compartments" | "constraints" if before(2) == "where" || joins(before(2)) => {
                Wanted::words(&["has", "includes", "within", "is"])
            }
            "tier" => Wanted::kinds(&[Kind::Tier]).and(&["default"]),
            "on" if outside => Wanted::kinds(&[Kind::Zone]),
            "on" => Wanted::words(&["ingress", "egress", "forward"]),
            "zone" if before(3) == "where" || joins(before(3)) => Wanted::words(&["is"]),
            "zone" => Wanted::kinds(&[Kind::Zone]),
            "ingress" | "egress" if before(2) == "where" || joins(before(2)) => {
                Wanted::words(&["zone"])
            }
            "proto" => Wanted::words(&["tcp", "udp", "sctp", "icmp", "icmpv6"]),
            "port" | "type" | "code" => Wanted::kinds(&[Kind::Ports]),
            "source" => Wanted::kinds(&[Kind::Prefixes]).and(&["port"]),
            "destination" | "address" => Wanted::kinds(&[Kind::Prefixes]),
            "by" => Wanted::kinds(&[Kind::Policy, Kind::Rule]).and(&["default"]),
            "expect" => Wanted::words(&["permit", "deny"]),
            "never" | "always" => Wanted::words(&["permit"]),
            "when" => Wanted::words(&["cgroup", "address", "from zone"]),
            "where" => Wanted::words(&ATTRIBUTES),
            "and" if outside => Wanted::words(&["cgroup", "address", "from zone"]),
            word if joins(word) => Wanted::words(&ATTRIBUTES),
            "within" | "except" if self.item_word() == "let" => {
                Wanted::kinds(&[Kind::Prefixes, Kind::Ports])
            }
            "is" | "has" | "includes" | "within" | "==" | "!=" | "<" | "<=" | ">" | ">=" => {
                compared_with(before(2))
            }
            "=" if self.item_word() == "zone" => Wanted::words(&["interface"]),
            "=" => Wanted::kinds(&[Kind::Prefixes, Kind::Ports]),
            "except" => {
                let start = self.list_start(at.checked_sub(1)?);
                return self.value_of(self.at(start.checked_sub(1)?).1, start);
            }
            "observe" if outside => Wanted::words(&["policy"]),
            "observe" => Wanted::words(&["permit", "deny"]),
            "permit" | "deny" | "pass" if self.item_word() == "policy" => Wanted::default(),
            _ => return None,
        })
    }

    /// What can start here: an item, or a part of the innermost block.
    fn part(&self) -> Wanted {
        let opener = self.open.last().map(|brace| self.at(brace.saturating_sub(1)).1);
        match (self.item_word(), self.open.len(), opener) {
            (_, _, Some("packet")) => Wanted::words(&PACKET),
            (_, 0, _) => self.item_or_head(),
            ("policy", 1, _) => Wanted::words(&["on", "tier", "permit", "deny", "pass", "observe"]),
            ("policy" | "template", ..) => Wanted::words(&CLAUSES),
            ("stamp", ..) => Wanted::words(&LABEL).and(&["subject", "fragments"]),
            ("legacy", ..) => Wanted::words(&LABEL).and(&["subject", "max level"]),
            ("deliver", ..) => Wanted::words(&["object"]),
            ("test", ..) => Wanted::words(&["packet", "expect"]),
            ("assert", ..) => {
                Wanted::words(&["on", "never permit", "always permit", "unless"]).and(&CLAUSES)
            }
            ("domain", 1, _) => Wanted::words(&["level", "compartments"]),
            ("scope", ..) => Wanted::words(&["at", "in"]),
            _ => Wanted::default(),
        }
    }

    /// Whether the innermost block is a packet.
    fn in_packet(&self) -> bool {
        let opener = self.open.last().map(|brace| self.at(brace.saturating_sub(1)).1);
        opener == Some("packet")
    }

    fn item_or_head(&self) -> Wanted {
        let head: &[&str] = match self.item_word() {
            "stamp" | "deliver" => &["when", "and"],
            "legacy" => &["on"],
            "carriage" => &["to", "on"],
            "zone" => &["encrypted"],
            "tier" => &["ordered"],
            _ => &[],
        };
        Wanted::words(head).and(&ITEMS)
    }
}

fn joins(word: &str) -> bool {
    matches!(word, "and" | "or" | "not" | "," | "(")
}

/// The names that an attribute is compared with.
fn compared_with(attribute: &str) -> Wanted {
    match attribute {
        "level" => Wanted::kinds(&[Kind::Level]),
        "compartments" => Wanted::kinds(&[Kind::Compartment]),
        "constraints" => Wanted::kinds(&[Kind::Constraint]),
        "residency" => Wanted::kinds(&[Kind::Residency]),
        "route" => Wanted::kinds(&[Kind::Route]),
        "operation" => Wanted::kinds(&[Kind::Operation]),
        "radius" => Wanted::words(&radius::NAMES),
        "zone" => Wanted::kinds(&[Kind::Zone]).and(&["encrypted"]),
        _ => Wanted::default(),
    }
}

const ORDER: [&str; 6] = ["is", "!=", "<", "<=", ">", ">="];

const ATTRIBUTES: [&str; 10] = [
    "level",
    "compartments",
    "constraints",
    "residency",
    "route",
    "radius",
    "operation",
    "ingress zone",
    "egress zone",
    "not",
];

const CLAUSES: [&str; 15] = [
    "from",
    "to",
    "operation",
    "where",
    "proto",
    "source",
    "destination",
    "like",
    "log",
    "reject",
    "quarantine",
    "fragments",
    "options",
    "since",
    "until",
];

const LABEL: [&str; 8] =
    ["level", "compartments", "constraints", "operation", "residency", "route", "radius", "life"];

const PACKET: [&str; 18] = [
    "at",
    "from",
    "to",
    "operation",
    "proto",
    "source",
    "destination",
    "fragment",
    "options",
    "on",
    "ingress zone",
    "egress zone",
    "level",
    "compartments",
    "constraints",
    "residency",
    "route",
    "radius",
];

const ITEMS: [&str; 20] = [
    "template",
    "private",
    "package",
    "use",
    "domain",
    "scope",
    "constraint",
    "operation",
    "residency",
    "route",
    "zone",
    "tier",
    "let",
    "stamp",
    "deliver",
    "legacy",
    "carriage",
    "policy",
    "test",
    "assert",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> (Vec<&'static str>, Vec<Kind>) {
        let wanted = Typed::before(text).wanted();
        (wanted.words, wanted.kinds)
    }

    #[test]
    fn names_are_proposed_by_place() {
        let rule = "package a\npolicy p {\n on ingress\n permit r { ";
        let scopes = vec![Kind::Scope, Kind::Domain];
        for (text, kinds) in [
            ("to ", scopes.clone()),
            ("to acme.b, acme.", scopes.clone()),
            ("from acme.b, c", scopes.clone()),
            ("operation le", vec![Kind::Operation, Kind::OperationGroup]),
            ("where level >= ", vec![Kind::Level]),
            ("where residency within eu and level is ", vec![Kind::Level]),
            ("where compartments has {fin", vec![Kind::Compartment]),
            ("where constraints includes {a, ", vec![Kind::Constraint]),
            ("where egress zone is ", vec![Kind::Zone]),
            ("proto tcp port ", vec![Kind::Ports]),
            ("proto tcp port 80, ", vec![Kind::Ports]),
            ("source 10.0.0.0/8, ", vec![Kind::Prefixes]),
            ("from acme.** except ", scopes.clone()),
            ("to acme.b, acme.c except acme.b.d, ", scopes),
            ("operation ledger.* except ", vec![Kind::Operation, Kind::OperationGroup]),
        ] {
            assert_eq!(wanted(&format!("{rule}{text}")).1, kinds, "{text}");
        }
        assert_eq!(wanted("package a\nstamp on ").1, [Kind::Zone]);
        assert_eq!(wanted("package a\nscope d { a at ").1, [Kind::Level]);
        assert_eq!(wanted("package a\ntest \"t\" { packet { } expect permit by ").1.len(), 2);
    }

    #[test]
    fn no_word_goes_on_with_a_path() {
        let rule = "package a\npolicy p {\n on ingress\n permit r { ";
        for text in
            ["from acme.payments.", "from acme.b, acme.pay", "operation ledger.", "where acme."]
        {
            assert!(wanted(&format!("{rule}{text}")).0.is_empty(), "{text}");
        }
        assert_eq!(wanted(&format!("{rule}from acme.payments.")).1, [Kind::Scope, Kind::Domain]);
        assert!(wanted("package a\ntest \"t\" { packet { } expect permit by p.").0.is_empty());
    }

    #[test]
    fn words_are_proposed_by_block() {
        assert_eq!(wanted("").0, ITEMS);
        assert_eq!(wanted("package a\npol").0, ITEMS);
        assert!(wanted("package a\npolicy p { ").0.contains(&"permit"));
        assert_eq!(wanted("package a\npolicy p { on ingress permit r { ").0, CLAUSES);
        let narrowed = [&CLAUSES[..], &["except"]].concat();
        assert_eq!(wanted("package a\npolicy p { permit r { from a.b  lo").0, narrowed);
        assert_eq!(
            wanted("package a\npolicy p { permit r { from a.b proto tcp ").0.last(),
            CLAUSES.last()
        );
        let sets = vec![Kind::Prefixes, Kind::Ports];
        assert!(wanted("package a\nlet a = b ").0.ends_with(&["within", "except"]));
        assert_eq!(wanted("package a\nlet a = b within c except ").1, sets);
        assert_eq!(wanted("package a\nprivate ").0, ITEMS);
        assert_eq!(wanted("package a\npolicy p { permit r { where ").0, ATTRIBUTES);
        assert_eq!(wanted("package a\ntest \"t\" { packet { ").0, PACKET);
        assert_eq!(wanted("package a\n@").0, ["expect", "deprecated"]);
        assert!(Typed::before("package a\n@expect G").wanted().codes);
        assert!(Typed::before("package a\nuse ").wanted().packages);
    }
}
