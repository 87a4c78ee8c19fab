//! Measures how long a policy of many rules takes: `cargo run --release --example speed`. With
//! the name of a file, tells what is wrong with it.

use std::fmt::Write;
use std::time::Instant;

use govc_grammar::ast::Item;
use govc_grammar::parse;
use govc_grammar::span::FileId;

const RULES: usize = 100_000;
const RUNS: usize = 5;

fn main() {
    if let Some(name) = std::env::args().nth(1) {
        return tell(&std::fs::read_to_string(name).unwrap_or_default());
    }
    let mut source = String::from("package acme.large\npolicy large {\n    on ingress\n");
    for number in 0..RULES {
        let _ = writeln!(
            source,
            "    permit r{number} {{ from acme.a{number} operation ledger.read proto tcp port 443 }}"
        );
    }
    source.push_str("}\n");
    for _ in 0..RUNS {
        let start = Instant::now();
        let (file, diagnostics) = parse(FileId(0), &source);
        let elapsed = start.elapsed();
        let rules = file.items.iter().map(|item| match item {
            Item::Policy(policy) => policy.rules.len(),
            _ => 0,
        });
        println!(
            "{} rules, {} bytes, {} diagnostics: {elapsed:?}",
            rules.sum::<usize>(),
            source.len(),
            diagnostics.len()
        );
    }
}

fn tell(source: &str) {
    let (_, diagnostics) = parse(FileId(0), source);
    for diagnostic in diagnostics {
        println!("{} {}", diagnostic.code.id, diagnostic.message);
        for label in &diagnostic.labels {
            let before = source.get(..label.span.start as usize).unwrap_or_default();
            let text = source.get(label.span.start as usize..label.span.end as usize);
            let line = before.matches('\n').count() + 1;
            println!("    line {line}: {:?}: {}", text.unwrap_or_default(), label.text);
        }
        println!("    help: {}", diagnostic.help.unwrap_or_default());
    }
}
