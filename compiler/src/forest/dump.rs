//! The forest as text, for people and for expected files.

use std::{
    fmt::{self, Write},
    net::{Ipv4Addr, Ipv6Addr},
};

use govc_abi::{
    attribute::{self, Attribute, state},
    image::program,
};

use super::{Forest, Part};
use crate::{
    class::Classification,
    diagram::{Diagram, Entry, NodeId, Target},
};

/// Intervals that an edge shows; a bitmap's class may have thousands.
const INTERVALS_SHOWN: usize = 8;

/// Shows a forest: each node with its edges' classes and values, indented below the edge that
/// leads to it first; later edges name it.
#[derive(Clone, Copy, Debug)]
pub struct ForestDump<'a> {
    forest: &'a Forest,
    classification: &'a Classification,
}

impl Forest {
    /// The forest as text.
    #[must_use]
    pub fn dump<'a>(&'a self, classification: &'a Classification) -> ForestDump<'a> {
        ForestDump { forest: self, classification }
    }
}

impl fmt::Display for ForestDump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = Values::new(self.classification);
        for (name, parts) in program::NAMES.iter().zip(&self.forest.programs) {
            if parts.is_empty() {
                continue;
            }
            writeln!(f, "{name}")?;
            for part in parts {
                write_part(f, part, &values)?;
            }
        }
        Ok(())
    }
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &Part, values: &Values) -> fmt::Result {
    let Part { group, observe, rows, diagram } = part;
    let observed = if *observe { ", observed" } else { "" };
    let (nodes, edges) = (diagram.node_count(), diagram.edge_count());
    writeln!(f, "  group {group}{observed}: {rows} rows, {nodes} nodes, {edges} edges")?;
    let mut writer = DiagramWriter { diagram, values, shown: vec![false; nodes] };
    write!(f, "    ")?;
    writer.entry(f, diagram.root(), 2)
}

struct DiagramWriter<'a> {
    diagram: &'a Diagram,
    values: &'a Values,
    shown: Vec<bool>,
}

impl DiagramWriter<'_> {
    /// The end of a line, and below it what hangs on it.
    fn entry(&mut self, f: &mut fmt::Formatter<'_>, entry: Entry, depth: usize) -> fmt::Result {
        match entry.target() {
            Target::Leaf(None) => writeln!(f, "nothing"),
            Target::Leaf(Some(value)) => writeln!(f, "{value}"),
            Target::Node(node) => {
                let name = attribute_name(self.diagram.attribute(node));
                match self.shown.get_mut(node as usize) {
                    Some(shown) if !*shown => *shown = true,
                    _ => return writeln!(f, "{name} #{node}, see above"),
                }
                writeln!(f, "{name} #{node}")?;
                self.edges(f, node, depth + 1)
            }
        }
    }

    fn edges(&mut self, f: &mut fmt::Formatter<'_>, node: NodeId, depth: usize) -> fmt::Result {
        let attribute = self.diagram.attribute(node);
        let mut first = 0;
        let edges: Vec<_> = self.diagram.edges(node).collect();
        for (last, entry) in edges {
            write!(f, "{}", "  ".repeat(depth))?;
            match first == last {
                true => write!(f, "class {first}")?,
                false => write!(f, "classes {first}..{last}")?,
            }
            write!(f, " ({}): ", self.values.text(attribute, first, last))?;
            self.entry(f, entry, depth)?;
            first = last + 1;
        }
        Ok(())
    }
}

/// Values by class.
struct Values {
    /// By attribute, ascending: class, first value, last value.
    stretches: Vec<Vec<(u32, u128, u128)>>,
}

impl Values {
    fn new(classification: &Classification) -> Self {
        let stretches = (0..).zip(attribute::BITS).map(|(attribute, bits)| {
            let bits = if bits == 32 { attribute::SCOPE_NONE.count_ones() as u8 } else { bits };
            let stretches = classification.attribute(attribute).stretches(bits);
            let mut list: Vec<_> =
                stretches.map(|(first, last, class)| (class, first, last)).collect();
            list.sort_unstable();
            list
        });
        Self { stretches: stretches.collect() }
    }

    /// The values of some classes of an attribute.
    fn text(&self, attribute: Attribute, first: u32, last: u32) -> String {
        let all = self.stretches.get(usize::from(attribute)).map_or(&[][..], Vec::as_slice);
        let from = all.partition_point(|&(class, ..)| class < first);
        let until = all.partition_point(|&(class, ..)| class <= last);
        let here = all.get(from..until).unwrap_or_default();
        let mut here: Vec<_> = here.iter().map(|&(_, first, last)| (first, last)).collect();
        here.sort_unstable();
        here.dedup_by(|next, before| {
            let touches = next.0 == before.1 + 1;
            if touches {
                before.1 = next.1;
            }
            touches
        });
        let mut text = String::new();
        for (number, &(first, last)) in here.iter().take(INTERVALS_SHOWN).enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            // Writing to a string does not fail.
            let _ = write!(text, "{comma}{}", interval_text(attribute, first, last));
        }
        if here.len() > INTERVALS_SHOWN {
            let _ = write!(text, " and {} more", here.len() - INTERVALS_SHOWN);
        }
        text
    }
}

fn attribute_name(attribute: Attribute) -> &'static str {
    attribute::NAMES.get(usize::from(attribute)).copied().unwrap_or("?")
}

fn interval_text(attribute: Attribute, first: u128, last: u128) -> String {
    let address = matches!(attribute, attribute::SOURCE | attribute::DESTINATION);
    match prefix_length(first, last) {
        _ if first == last => value_text(attribute, first),
        Some(length) if address && v4(first).is_some() && v4(last).is_some() => {
            format!("{}/{}", value_text(attribute, first), length - 96)
        }
        Some(length) if address => format!("{}/{length}", value_text(attribute, first)),
        _ => format!("{}..{}", value_text(attribute, first), value_text(attribute, last)),
    }
}

fn value_text(attribute: Attribute, value: u128) -> String {
    const NONE: u128 = attribute::SCOPE_NONE as u128;
    match attribute {
        attribute::SOURCE | attribute::DESTINATION => match v4(value) {
            Some(address) => address.to_string(),
            None => Ipv6Addr::from_bits(value).to_string(),
        },
        attribute::SUBJECT | attribute::OBJECT if value == NONE => "nobody".into(),
        attribute::SUBJECT | attribute::OBJECT => format!("{}:{}", value >> 24, value & 0xff_ffff),
        attribute::COMPARTMENTS | attribute::CONSTRAINTS => format!("{value:#06x}"),
        attribute::STATE if value == u128::from(state::ABSENT) => "absent".into(),
        attribute::STATE if value == u128::from(state::LEGACY) => "legacy".into(),
        attribute::STATE if value == u128::from(state::VALID) => "valid".into(),
        _ => value.to_string(),
    }
}

fn v4(value: u128) -> Option<Ipv4Addr> {
    Ipv6Addr::from_bits(value).to_ipv4_mapped()
}

/// The length of the prefix that is just this interval.
fn prefix_length(first: u128, last: u128) -> Option<u32> {
    let host = first ^ last;
    let is_prefix = host & host.wrapping_add(1) == 0 && first & host == 0;
    is_prefix.then(|| host.leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        forest::Budgets,
        sample::{table_of, v4},
        table::IntervalSet,
    };

    #[test]
    fn shows_classes_values_and_leaves() {
        let cell = |intervals: &[(u128, u128)]| IntervalSet::new(intervals.to_vec());
        let table = table_of(vec![
            vec![(attribute::SOURCE, cell(&[(v4(0x0a00_0000), v4(0x0aff_ffff))]))],
            vec![
                (attribute::SUBJECT, cell(&[(5, 9)])),
                (attribute::DESTINATION_PORT, cell(&[(80, 80), (8000, 8099)])),
            ],
            vec![(attribute::STATE, cell(&[(1, 2)]))],
        ]);
        let classification = Classification::new(&table);
        let forest = Forest::new(&table, &classification, Budgets::default()).unwrap();
        assert_eq!(
            forest.dump(&classification).to_string(),
            "\
ingress
  group 0: 3 rows, 6 nodes, 12 edges
    source #5
      class 0 (::..9.255.255.255, 11.0.0.0..ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff): state #4
        class 0 (absent, 3..255): subject #1
          class 0 (0:0..0:4, 0:10..nobody): nothing
          class 1 (0:5..0:9): destination_port #0
            class 0 (0..79, 81..7999, 8100..65535): nothing
            class 1 (80, 8000..8099): 1
        class 1 (legacy..valid): subject #3
          class 0 (0:0..0:4, 0:10..nobody): 2
          class 1 (0:5..0:9): destination_port #2
            class 0 (0..79, 81..7999, 8100..65535): 2
            class 1 (80, 8000..8099): 1
      class 1 (10.0.0.0/8): 0
"
        );
    }

    #[test]
    fn intervals_read_well() {
        let text = |attribute, first, last| interval_text(attribute, first, last);
        assert_eq!(text(attribute::SOURCE, v4(0), v4(u32::MAX)), "0.0.0.0/0");
        assert_eq!(text(attribute::SOURCE, v4(1), v4(2)), "0.0.0.1..0.0.0.2");
        assert_eq!(text(attribute::SOURCE, 0, u128::MAX), "::/0");
        assert_eq!(text(attribute::SOURCE, 1 << 64, (1 << 65) - 1), "0:0:0:1::/64");
        assert_eq!(text(attribute::OBJECT, 1 << 24 | 7, 1 << 24 | 7), "1:7");
        assert_eq!(text(attribute::STATE, 0, 1), "absent..legacy");
        assert_eq!(text(attribute::COMPARTMENTS, 3, 3), "0x0003");
    }
}
