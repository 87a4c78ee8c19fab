//! What the thing under the pointer is.

use govc_compiler::index::{Definition, Kind};
use govc_compiler::pages;
use govc_grammar::Token;
use lsp_types as lsp;

use crate::workspace::Workspace;

impl Workspace<'_> {
    pub(crate) fn hover(&mut self, params: &lsp::HoverParams) -> Option<lsp::Hover> {
        let at = &params.text_document_position_params;
        let place = self.file(&at.text_document.uri)?.place(at.position, self.encoding);
        let (span, text) = match self.named_at(place) {
            Some((span, definition)) => (span, self.describe(place.file, &definition)),
            None => self.word_at(place)?,
        };
        let range = self.files.get(span.file)?.range(span, self.encoding);
        let value = lsp::MarkupContent { kind: lsp::MarkupKind::Markdown, value: text };
        Some(lsp::Hover { contents: lsp::HoverContents::Markup(value), range: Some(range) })
    }

    fn describe(&mut self, file: govc_grammar::span::FileId, definition: &Definition) -> String {
        let mut text = headline(definition);
        if let Some(instead) = &definition.deprecated {
            text.push_str(&format!("\n**deprecated**: {instead}\n"));
        }
        if let Some(said) = &definition.documentation {
            text.push_str(&format!("\n{said}\n"));
        }
        for fact in &definition.facts {
            text.push_str(&format!("\n- {fact}"));
        }
        let package = self
            .unit_of(file)
            .and_then(|unit| unit.index.packages.get(definition.package).cloned());
        if let Some(package) = package.filter(|_| definition.kind != Kind::Package) {
            text.push_str(&format!("\n\nof package `{package}`"));
        }
        text
    }

    /// A word with a meaning, or the code of a diagnostic.
    fn word_at(
        &self,
        place: govc_grammar::span::Span,
    ) -> Option<(govc_grammar::span::Span, String)> {
        let file = self.files.get(place.file)?;
        let at = place.start as usize;
        let (token, range) = govc_grammar::tokens(&file.text)
            .take_while(|(_, range)| range.start <= at)
            .filter(|(_, range)| at <= range.end)
            .last()?;
        let word = file.text.get(range.clone())?;
        let text = match token {
            Token::Word => pages::page(word)?.to_owned(),
            _ => format!("`{word}`: {}", keyword(word)?),
        };
        let (start, end) = (u32::try_from(range.start).ok()?, u32::try_from(range.end).ok()?);
        Some((govc_grammar::span::Span::new(place.file, start, end), text))
    }
}

/// The kind and name of something, as a headline.
pub(crate) fn headline(definition: &Definition) -> String {
    format!("**{}** `{}`\n", definition.kind.noun(), definition.full)
}

/// What a word of the language means.
pub(crate) fn keyword(word: &str) -> Option<&'static str> {
    let at = KEYWORDS.binary_search_by_key(&word, |(word, _)| word).ok()?;
    KEYWORDS.get(at).map(|(_, meaning)| *meaning)
}

/// All words with a meaning, ascending.
#[rustfmt::skip]
pub(crate) const KEYWORDS: &[(&str, &str)] = &[
    ("address", "the condition that an address lies in prefixes or sets"),
    ("always", "`always permit`: every packet that matches is let through"),
    ("and", "both hold"),
    ("anyone", "whoever it is, with a label or without"),
    ("assert", "something that holds for every packet that there can be"),
    ("at", "the level of a scope, which what lies below inherits; the time of a packet"),
    ("by", "the rule that decides, or `default` when none does"),
    ("carriage", "how labels ride to some addresses: `option`, inside IP headers, or `tunnel`"),
    ("cgroup", "the condition that the sender runs in a cgroup, by its path with `*`"),
    ("code", "ICMP codes"),
    ("compartments", "sets of subjects that a label belongs to"),
    ("constraint", "obligations that travel with the traffic, up to 16"),
    ("constraints", "the obligations that a label carries"),
    ("deliver", "names the local workload that arriving traffic is for"),
    ("deny", "drop what matches; in a tier, deny comes before pass and permit"),
    ("destination", "holds when the destination address is in one of these"),
    ("domain", "the owner of one vocabulary and key ring, with its number in labels"),
    ("egress", "leaving this node"),
    ("encrypted", "what leaves by the zone is encrypted on the wire"),
    ("except", "what is taken out of the list before it"),
    ("expect", "the verdict that a packet must get, or a warning that is known"),
    ("forward", "passing through this node"),
    ("fragment", "the packet is a fragment"),
    ("fragments", "fragments too, which show no ports; in a stamp rule: they are labelled, each by itself"),
    ("from", "who a packet is from: subjects, `anyone`, `labelled`, `legacy`, `unlabelled`"),
    ("has", "the set contains this, as `includes`"),
    ("icmp", "ICMP over IPv4, with `type` and `code`"),
    ("icmpv6", "ICMP over IPv6, with `type` and `code`"),
    ("in", "the compartments of a scope; what lies below inherits them"),
    ("includes", "the set contains all of these"),
    ("ingress", "arriving at this node"),
    ("interface", "the names of a zone's interfaces; `*` stands for any characters"),
    ("is", "exactly this"),
    ("labelled", "whoever has a valid label"),
    ("legacy", "neighbours that know no labels, and what their traffic counts as"),
    ("let", "a set of prefixes or of ports under a name"),
    ("level", "ordered trust of a sender, lowest first"),
    ("life", "how long a label is good: 2^n slots of two seconds"),
    ("like", "the clauses of a template, as `like web(who = acme.api  ports = 443)`"),
    ("log", "report each packet that matches, or `1 in N` of them"),
    ("max", "the highest level that neighbours without labels count as"),
    ("never", "`never permit`: no packet that matches is let through"),
    ("not", "it does not hold"),
    ("object", "the workload that a packet is for"),
    ("observe", "say what would be done, and decide nothing"),
    ("on", "where packets are decided: `ingress`, `egress`, `forward`; or the zone of a rule"),
    ("operation", "what a flow does, such as `ledger.read`; the origin attests it"),
    ("options", "packets with other IPv4 options or IPv6 extension headers too; they carry no label"),
    ("or", "one of both holds"),
    ("ordered", "in this tier the first rule that matches counts"),
    ("package", "the package that this file belongs to"),
    ("packet", "a packet to be decided in a test"),
    ("pass", "leave the decision to the next tier"),
    ("permit", "let through what matches; replies need no rule"),
    ("policy", "rules that hold at the same hooks, in one tier"),
    ("port", "destination ports: numbers, ranges `a..b`, sets"),
    ("private", "other packages do not see the names of the item behind it"),
    ("proto", "the transport: `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`, or a number"),
    ("quarantine", "what is denied leaves by this zone instead, as it came"),
    ("radius", "how far a label is good: `node`, `cluster`, `domain`, `federation`, `any`"),
    ("reject", "the sender of what is denied is told: TCP RST or ICMP"),
    ("residency", "jurisdictions in which the data may be"),
    ("route", "the class of routes that the traffic may take"),
    ("scope", "the tree of a domain's workloads"),
    ("sctp", "SCTP, with `port` and `source port`"),
    ("since", "the rule holds from this moment on: `since \"2026-12-01T00:00Z\"`"),
    ("source", "holds when the source address is in one of these; `source port`: source ports"),
    ("stamp", "chooses the label of what leaves by a zone; the first that matches counts"),
    ("subject", "the workload that traffic is from"),
    ("tcp", "TCP, with `port` and `source port`"),
    ("template", "clauses that rules share; names in parentheses stand for what a rule says"),
    ("test", "packets with the verdicts that they must get; `govc test` runs them"),
    ("tier", "policies are tried tier by tier"),
    ("to", "holds when the object is one of these; known on ingress"),
    ("type", "ICMP types"),
    ("udp", "UDP, with `port` and `source port`"),
    ("unlabelled", "no label, and no legacy rule speaks for it"),
    ("unless", "leaves out packets that match these clauses"),
    ("until", "the rule holds before this moment: `until \"2026-12-31T18:00Z\"`"),
    ("use", "makes the names of another package visible in this file"),
    ("when", "the conditions of a stamp or deliver rule"),
    ("where", "conditions that all have to hold"),
    ("within", "the set contains nothing else; or the jurisdiction lies inside"),
    ("zone", "interfaces under one name"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_language_is_told() {
        assert!(KEYWORDS.is_sorted());
        for (word, _) in KEYWORDS {
            let tokens: Vec<Token> = govc_grammar::tokens(word).map(|(token, _)| token).collect();
            assert!(matches!(tokens.as_slice(), [token] if *token != Token::Word), "{word}");
        }
        assert_eq!(keyword("policy"), Some("rules that hold at the same hooks, in one tier"));
        assert_eq!(keyword("nothing"), None);
    }
}
