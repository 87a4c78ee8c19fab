//! What the tests share: compiling texts, building packets, asking the kernel.

#[cfg(feature = "kernel")]
pub mod domains;
pub mod frame;
#[cfg(feature = "kernel")]
pub mod kernel;
#[cfg(feature = "kernel")]
pub mod lab;
pub mod ledger;
#[cfg(feature = "kernel")]
pub mod live;
#[cfg(feature = "kernel")]
pub mod node;
pub mod policies;
pub mod random;
pub mod reference;
#[cfg(feature = "kernel")]
pub mod remembered;
#[cfg(feature = "kernel")]
pub mod replay;
pub mod requests;
#[cfg(feature = "kernel")]
pub mod router;
pub mod wireshark;

use govc_compiler::{
    analysis, checked::Policy, lock::Locks, sources::Source, table::DecisionTable,
};
use govc_grammar::{ast, diagnostic::Diagnostic, span::FileId};
use govc_image::Image;

/// A policy with everything that it compiles to.
pub struct Compiled {
    /// The checked policy.
    pub policy: Policy,
    /// Its decision table.
    pub table: DecisionTable,
    /// Its image.
    pub image: Image,
}

/// Texts with their trees and whatever the compiler says about them.
pub struct Checked {
    /// The texts.
    pub sources: Vec<Source>,
    /// All diagnostics.
    pub diagnostics: Vec<Diagnostic>,
    /// The policy, if there is no mistake.
    pub policy: Option<Policy>,
    /// Advice about names of the first file that nothing uses.
    pub unused: Vec<Diagnostic>,
}

/// Parses and checks texts.
pub fn check(texts: &[(&str, &str)]) -> Checked {
    check_with(texts, &Locks::default())
}

/// Parses and checks texts, with the lock files of their vocabularies.
pub fn check_with(texts: &[(&str, &str)], locks: &Locks) -> Checked {
    let sources: Vec<Source> = texts
        .iter()
        .map(|(name, text)| Source { name: (*name).to_owned(), text: (*text).to_owned() })
        .collect();
    let mut diagnostics = Vec::new();
    let mut files: Vec<(FileId, ast::File)> = Vec::new();
    for (id, source) in (0..).zip(&sources) {
        let (file, found) = govc_grammar::parse(FileId(id), &source.text);
        diagnostics.extend(found);
        files.push((FileId(id), file));
    }
    let (checked, index) = govc_compiler::check::check_parsed_indexed(&files, diagnostics, locks);
    let first = |file| file == FileId(0);
    let unused = govc_compiler::unused::unused(&index, &checked.diagnostics, first);
    let diagnostics = govc_compiler::expectations::settle(&files, checked.diagnostics, false);
    Checked { sources, diagnostics, policy: checked.policy, unused }
}

/// Compiles texts that must be right.
pub fn compile(texts: &[(&str, &str)]) -> Compiled {
    let checked = check(texts);
    let Some(policy) = checked.policy else {
        panic!("{:#?}", checked.diagnostics);
    };
    let (table, image) = govc_compiler::compile(&policy, &checked.sources, "test")
        .unwrap_or_else(|error| panic!("{error:?}"));
    Compiled { policy, table, image }
}

/// What the analysis finds in texts, if they are a policy.
pub fn findings(checked: &Checked) -> Vec<Diagnostic> {
    let Some(policy) = &checked.policy else { return Vec::new() };
    match govc_compiler::compile(policy, &checked.sources, "test") {
        Ok((table, image)) => analysis::findings(policy, &table, &image, &|_| {}).diagnostics,
        Err(diagnostic) => vec![*diagnostic],
    }
}

/// What the analysis tells only when it is asked: conflicts and gaps.
pub fn findings_on_demand(checked: &Checked) -> Vec<Diagnostic> {
    let policy = checked.policy.as_ref().expect("a policy");
    let (table, image) =
        govc_compiler::compile(policy, &checked.sources, "test").expect("a policy that compiles");
    let mut found = analysis::conflicts::diagnose(policy, &table, image.names());
    found.extend(analysis::gaps::diagnose(policy, &table, image.names()));
    found
}

/// Whether kernel tests can run here. Without root they are skipped, unless
/// `GOVC_REQUIRE_KERNEL` is set: then they have to run.
#[cfg(feature = "kernel")]
pub fn kernel_available() -> bool {
    let available =
        govc_netlab::require_root().and(Ok(())).is_ok() && govc_loader::kernel::check().is_ok();
    if !available {
        assert!(
            std::env::var_os("GOVC_REQUIRE_KERNEL").is_none(),
            "GOVC_REQUIRE_KERNEL is set, but the kernel is out of reach: run as root"
        );
        println!("skipped: needs root and Linux 6.6 or newer");
    }
    available
}
