//! Policies whose rules overlap each other, as text.

#![expect(clippy::indexing_slicing, reason = "lots are below the lengths of the lists")]

use std::{fmt::Write as _, net::Ipv4Addr};

const RULES_PER_POLICY: usize = 50;

/// Rules at all depths of the scopes and of the addresses, with ranges of ports and levels, in
/// three tiers, that permit, deny and pass on; always the same ones.
pub fn generate(count: usize) -> String {
    let mut lot = lots();
    let mut text = String::from(
        "package bench.load\n\ndomain bench = 77 { level { public < internal < secret < top } }\n\
         scope bench {\n",
    );
    for region in 0..16 {
        let _ = write!(text, "    r{region} at internal {{");
        for team in 0..16 {
            let _ = write!(text, " t{team} {{ web[64] api[16] db }}");
        }
        text.push_str(" }\n");
    }
    text.push_str("}\n");
    for group in 0..8 {
        let _ = write!(text, "operation g{group} {{");
        (0..16).for_each(|number| text.push_str(&format!(" c{number}")));
        text.push_str(" }\n");
    }
    text.push_str("tier guardrails, default, baseline\n");
    for number in 0..count {
        if number % RULES_PER_POLICY == 0 {
            let tier = ["guardrails", "default", "default", "default", "baseline"][lot(5)];
            let end = if number > 0 { "}\n" } else { "" };
            let _ = writeln!(
                text,
                "{end}policy p{} {{\n    on {}\n    tier {tier}",
                number / RULES_PER_POLICY,
                if lot(4) == 0 { "egress" } else { "ingress" }
            );
        }
        let action = match lot(20) {
            0 => "pass",
            1..7 => "deny",
            _ => "permit",
        };
        let _ = write!(text, "    {action} r{number} {{");
        clauses(&mut text, &mut lot);
        text.push_str(" }\n");
    }
    text.push_str("}\n");
    text
}

fn clauses(text: &mut String, lot: &mut impl FnMut(usize) -> usize) {
    let (region, team) = (lot(16), lot(16));
    // The less a rule says about the sender, the more about the address.
    let (lengths, from) = match lot(20) {
        0 => (4, String::new()),
        1..6 => (2, format!(" from bench.r{region}.**")),
        6..12 => (1, format!(" from bench.r{region}.t{team}.**")),
        _ => (0, format!(" from bench.r{region}.t{team}.web[{}]", lot(64))),
    };
    text.push_str(&from);
    if lengths > 0 || lot(3) > 0 {
        let length = [8, 12, 16, 20, 24, 28, 32][lengths + lot(7 - lengths)];
        let address = (10 << 24 | lot(1 << 24) as u32) & (u32::MAX << (32 - length));
        let word = if lot(2) == 0 { "source" } else { "destination" };
        let _ = write!(text, " {word} {}/{length}", Ipv4Addr::from(address));
    }
    match lot(4) {
        0 => {}
        1 => {
            let first = 1024 + lot(60_000);
            let _ = write!(text, " proto udp port {first}..{}", first + lot(4000));
        }
        _ => {
            let _ = write!(text, " proto tcp port {}", 1024 + lot(2000));
        }
    }
    let group = lot(8);
    let _ = match lot(4) {
        0 => write!(text, " operation g{group}.*"),
        1 | 2 => write!(text, " operation g{group}.c{}", lot(16)),
        _ => Ok(()),
    };
    if lot(4) == 0 {
        text.push_str([" where level >= secret", " where level < secret"][lot(2)]);
    }
}

/// Numbers below a limit, always the same ones.
fn lots() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |limit| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}
