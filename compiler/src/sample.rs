//! Decision tables for tests: random ones, and ones like those of large policies.

use govc_abi::{
    attribute::{self, Attribute, Request},
    image::{carriage, program, rule},
    node::LEAF_NONE,
    walk::Outcome,
};

use crate::{
    class::value_of,
    table::{
        DecisionTable, Group, IntervalSet, Label, Program, Row, Transform, Translation, max_of,
    },
};

/// A xorshift generator; tests print its seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

/// What a program says, by looking at all rows, as [`govc_abi::walk`] describes it.
pub fn naive(table: &DecisionTable, which: u32, request: &Request) -> Outcome {
    let program = &table.programs[which as usize];
    let best_of = |rows: &[Row]| {
        let matching = rows.iter().filter(|row| {
            row.cells.iter().all(|(attribute, set)| set.contains(value_of(request, *attribute)))
        });
        matching.map(|row| row.value).min().unwrap_or(LEAF_NONE)
    };
    let passes = |value: u32| table.rules[value as usize] & rule::ACTION_MASK == rule::PASS;
    let mut pending = LEAF_NONE;
    for group in &program.groups {
        pending = pending.min(best_of(&group.observed));
        let best = best_of(&group.enforced);
        if best == LEAF_NONE {
            continue;
        }
        if which < program::INGRESS {
            return Outcome { winner: best, pending };
        }
        // What an observed rule would have done shows only when it comes before the decision.
        if pending > best {
            pending = LEAF_NONE;
        }
        if !passes(best) {
            return Outcome { winner: best, pending };
        }
    }
    Outcome { winner: LEAF_NONE, pending }
}

/// A v4 address as the number that attributes hold.
pub fn v4(address: u32) -> u128 {
    0xffff_0000_0000 | u128::from(address)
}

/// Sets an attribute.
pub fn set(request: &mut Request, attribute: Attribute, value: u128) {
    let halves = [(value >> 64) as u64, value as u64];
    match attribute {
        attribute::SOURCE => request.source = halves,
        attribute::DESTINATION => request.destination = halves,
        _ => request.scalars[usize::from(attribute)] = value as u32,
    }
}

/// A table whose ingress program has one group of these rows; row number is value.
pub fn table_of(rows: Vec<Vec<(Attribute, IntervalSet)>>) -> DecisionTable {
    let rules = (0..rows.len()).map(|i| if i % 3 == 0 { rule::DENY } else { rule::PERMIT });
    let rules: Vec<u32> = rules.collect();
    let row = |(value, mut cells): (usize, Vec<(Attribute, IntervalSet)>)| {
        cells.sort_by_key(|&(attribute, _)| attribute);
        Row { value: value as u32, cells }
    };
    let enforced = rows.into_iter().enumerate().map(row).collect();
    let mut table = DecisionTable {
        rule_positions: (0..rules.len() as u32).collect(),
        rules,
        ..DecisionTable::default()
    };
    let groups = vec![Group { enforced, observed: Vec::new() }];
    table.programs[program::INGRESS as usize] = Program { groups, governed: true };
    table
}

fn exact(value: u128) -> IntervalSet {
    IntervalSet::new(vec![(value, value)])
}

/// Rules that name one subject, one object, an operation and a port each.
pub fn identities(count: usize, random: &mut Random) -> DecisionTable {
    let scopes = (count as u64).clamp(4, 50_000);
    let rows = (0..count).map(|_| {
        vec![
            (attribute::STATE, exact(2)),
            (attribute::SUBJECT, exact(u128::from(random.below(scopes)))),
            (attribute::OBJECT, exact(u128::from(random.below(scopes)))),
            (attribute::OPERATION, exact(1 + u128::from(random.below(100)))),
            (attribute::PROTOCOL, exact(6)),
            (attribute::DESTINATION_PORT, exact(u128::from(1 + random.below(2000)))),
        ]
    });
    table_of(rows.collect())
}

/// How the rules of [`addresses`] are made.
#[derive(Clone, Copy, Debug)]
pub enum Mixture {
    /// Mostly narrow on both sides.
    Access,
    /// Many rules leave the source, the destination or both open.
    Firewall,
    /// In between, with many prefixes of middle lengths.
    Chain,
}

/// Rules over five-tuples, in the manner of ClassBench.
pub fn addresses(count: usize, mixture: Mixture, random: &mut Random) -> DecisionTable {
    let sources = pool(count / 4 + 4, random);
    let destinations = pool(count / 4 + 4, random);
    let (open, source_open, destination_open, short) = match mixture {
        Mixture::Access => (0, 3, 1, 5),
        Mixture::Firewall => (1, 35, 30, 5),
        Mixture::Chain => (1, 8, 8, 12),
    };
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let mut cells = Vec::with_capacity(5);
        let wide = random.below(100);
        let (mut source, mut destination) = (true, true);
        if wide < open {
            (source, destination) = (false, false);
        } else if wide < open + source_open {
            source = false;
        } else if wide < open + source_open + destination_open {
            destination = false;
        }
        if source {
            cells.push((attribute::SOURCE, prefix(&sources, short, random)));
        }
        if destination {
            cells.push((attribute::DESTINATION, prefix(&destinations, short, random)));
        }
        ports(mixture, &mut cells, random);
        rows.push(cells);
    }
    // Narrow rows first, as people and ClassBench write them.
    rows.sort_by_cached_key(|cells: &Vec<(Attribute, IntervalSet)>| {
        let size = |&(attribute, ref set): &(Attribute, IntervalSet)| {
            let values: u128 = set.intervals().iter().map(|&(first, last)| last - first + 1).sum();
            let bits = attribute::BITS[usize::from(attribute)].min(32);
            values.ilog2() as i64 - i64::from(bits)
        };
        cells.iter().map(size).sum::<i64>()
    });
    table_of(rows)
}

/// Networks of 24 bits, many of them neighbours.
fn pool(count: usize, random: &mut Random) -> Vec<u32> {
    let mut pool: Vec<u32> = vec![10 << 16];
    while pool.len() < count {
        let near = *random.pick(&pool);
        pool.push(match random.below(10) {
            0 => random.next() as u32 >> 8,
            1 | 2 => near & !0xffff | random.below(1 << 16) as u32,
            _ => near & !0xff | random.below(1 << 8) as u32,
        });
    }
    pool
}

fn prefix(pool: &[u32], short: u64, random: &mut Random) -> IntervalSet {
    let network = u128::from(*random.pick(pool)) << 8;
    let length = match random.below(100) {
        n if n < short => 6 + random.below(10),
        n if n < 20 => 16 + random.below(8),
        n if n < 45 => 24,
        n if n < 60 => 25 + random.below(7),
        _ => 32,
    };
    let size = 1_u128 << (32 - length);
    let first = (network | u128::from(random.below(40))) & !(size - 1);
    IntervalSet::new(vec![(v4(0) + first, v4(0) + first + size - 1)])
}

fn ports(mixture: Mixture, cells: &mut Vec<(Attribute, IntervalSet)>, random: &mut Random) {
    let protocol = random.below(100);
    let mut add = |attribute, first: u64, last: u64| {
        cells.push((attribute, IntervalSet::new(vec![(first.into(), last.into())])));
    };
    match protocol {
        0..70 => add(attribute::PROTOCOL, 6, 6),
        70..90 => add(attribute::PROTOCOL, 17, 17),
        90..95 => return add(attribute::PROTOCOL, 1, 1),
        _ => return,
    }
    let well_known = [22, 25, 53, 80, 123, 143, 389, 443, 636, 1433, 1521, 3306, 5432, 8080, 8443];
    match random.below(100) {
        0..50 => {
            let port = *random.pick(&well_known);
            add(attribute::DESTINATION_PORT, port, port);
        }
        50..60 => {
            let port = random.below(65536);
            add(attribute::DESTINATION_PORT, port, port);
        }
        60..70 => add(attribute::DESTINATION_PORT, 1024, 65535),
        70..78 => {
            let first = random.below(60000);
            add(attribute::DESTINATION_PORT, first, first + random.below(5000));
        }
        _ => {}
    }
    let with_source_port = match mixture {
        Mixture::Access => 1,
        Mixture::Firewall => 30,
        Mixture::Chain => 8,
    };
    if random.chance(with_source_port) {
        match random.below(10) {
            0..6 => add(attribute::SOURCE_PORT, 1024, 65535),
            6..9 => {
                let port = *random.pick(&well_known);
                add(attribute::SOURCE_PORT, port, port);
            }
            _ => {
                let first = random.below(60000);
                add(attribute::SOURCE_PORT, first, first + random.below(5000));
            }
        }
    }
}

/// A small table with everything in it: several programs and groups, observed and passing
/// rules, attributes of all widths.
pub fn anything(rows_max: usize, random: &mut Random) -> DecisionTable {
    let mut table = DecisionTable {
        domains: vec![(7, 0x00ff), (9, 0xffff)],
        objects: (0..1000).collect(),
        labels: (0..1000)
            .map(|i| Label {
                head: i,
                mid: i << 32 | 5,
                domain_index: (i % 2) as u32,
                declared: i << 7,
                further: (i as u32 / 2, i as u32 % 3),
                fragments: i % 2 == 0,
            })
            .collect(),
        translations: (0..1000_u32)
            .map(|i| Translation {
                first: i << 4,
                last: i << 4 | 0xf,
                subject: (i % 3 != 0).then_some(i),
                transform: i % 2,
            })
            .collect(),
        carriages: 1000,
        transforms: vec![transform(false, &[(2, 7)]), transform(true, &[])],
        ..DecisionTable::default()
    };
    for which in 0..program::COUNT as u32 {
        if random.chance(30) {
            continue;
        }
        let attributes = some_attributes(random);
        let values = values_of(&attributes, random);
        let groups = if which < program::INGRESS { 1 } else { random.below(5) };
        let mut program = Program { groups: Vec::new(), governed: random.chance(50) };
        for _ in 0..groups {
            let count = random.below(rows_max as u64 / groups + 1);
            program.groups.push(group(&mut table, which, count, &attributes, &values, random));
        }
        table.programs[which as usize] = program;
    }
    table
}

fn some_attributes(random: &mut Random) -> Vec<Attribute> {
    let count = 1 + random.below(6);
    let mut list: Vec<_> =
        (0..count).map(|_| random.below(attribute::COUNT as u64) as Attribute).collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// Values by attribute from which cells are made, so that cells meet.
fn values_of(attributes: &[Attribute], random: &mut Random) -> Vec<Vec<u128>> {
    let of_one = |&attribute: &Attribute, random: &mut Random| {
        let bits = match attribute {
            attribute::SUBJECT | attribute::OBJECT => 28,
            _ => attribute::BITS[usize::from(attribute)],
        };
        let mut values = vec![0, max_of(bits)];
        for _ in 0..1 + random.below(20) {
            let wide = u128::from(random.next()) << 64 | u128::from(random.next());
            let value = match (bits, random.below(3)) {
                (128, 0) => wide,
                (128, _) => v4(random.next() as u32),
                (_, 0) => wide & 0xff,
                _ => wide & max_of(bits),
            };
            values.push(value & max_of(bits));
        }
        if bits == 128 {
            values.extend([v4(0), v4(u32::MAX), v4(0) - 1, v4(u32::MAX) + 1]);
        }
        values
    };
    attributes.iter().map(|attribute| of_one(attribute, random)).collect()
}

fn cell(attribute: Attribute, values: &[u128], wide: u64, random: &mut Random) -> IntervalSet {
    let bits = attribute::BITS[usize::from(attribute)];
    if (attribute == attribute::COMPARTMENTS || attribute == attribute::CONSTRAINTS)
        && random.chance(50)
    {
        return bits_set(random);
    }
    let mut intervals = Vec::new();
    for _ in 0..1 + random.below(3) {
        let (one, other) = (*random.pick(values), *random.pick(values));
        intervals.push(if random.chance(wide) {
            (one.min(other), one.max(other))
        } else if bits == 128 && random.chance(30) {
            (one & !0xffff, one | 0xffff)
        } else {
            (one, one)
        });
    }
    IntervalSet::new(intervals)
}

/// The values of 16 bits in which some bits are set and some are not.
fn bits_set(random: &mut Random) -> IntervalSet {
    // Tests of low bits have very many intervals: a few will do.
    let lowest = if random.chance(5) { 0 } else { 8 };
    let mut bit = || 1_u32 << (lowest + random.below(16 - lowest));
    let mask = bit() | bit();
    let wanted = mask & random.next() as u32;
    let step = 1 << mask.trailing_zeros();
    let starts = (0..1_u32 << 16).step_by(step).filter(|bits| bits & mask == wanted);
    IntervalSet::new(starts.map(|first| (first.into(), (first + step as u32 - 1).into())).collect())
}

fn group(
    table: &mut DecisionTable,
    which: u32,
    count: u64,
    attributes: &[Attribute],
    values: &[Vec<u128>],
    random: &mut Random,
) -> Group {
    let mut group = Group::default();
    let mut next = 0;
    // Many rows of wide cells are more than any diagram takes.
    let wide = if count > 50 { 4 } else { 25 };
    let passing = random.chance(50);
    let observing = random.chance(50);
    for _ in 0..count {
        let observed = observing && random.chance(25);
        let value = match which {
            program::STAMP | program::LEGACY | program::DELIVER | program::TRANSLATE => {
                next += u32::from(random.chance(80));
                next.min(999)
            }
            program::CARRIAGE => {
                next += u32::from(random.chance(80));
                let rule = next.min(999);
                rule << carriage::RULE_SHIFT | rule & carriage::KIND_MASK
            }
            _ => {
                let action = if passing && random.chance(30) {
                    rule::PASS
                } else {
                    *random.pick(&[rule::PERMIT, rule::DENY])
                };
                table.rules.push(action | if observed { rule::OBSERVE } else { 0 });
                table.rule_positions.push(table.rules.len() as u32 - 1);
                table.rules.len() as u32 - 1
            }
        };
        for _ in 0..1 + random.below(2) {
            let mut cells = Vec::new();
            for (&attribute, values) in attributes.iter().zip(values) {
                let set = cell(attribute, values, wide, random);
                if random.chance(if count > 50 { 90 } else { 65 })
                    && set != IntervalSet::full(attribute::BITS[usize::from(attribute)])
                {
                    cells.push((attribute, set));
                }
            }
            let row = Row { value, cells };
            if observed { group.observed.push(row) } else { group.enforced.push(row) }
        }
    }
    group
}

/// Makes requests whose values lie at, just before or just behind ends of rows' intervals.
pub struct Requests<'a> {
    rows: Vec<&'a Row>,
}

impl<'a> Requests<'a> {
    /// Requests for one program.
    pub fn new(table: &'a DecisionTable, which: u32) -> Self {
        let groups = table.programs[which as usize].groups.iter();
        Self {
            rows: groups.flat_map(|group| group.enforced.iter().chain(&group.observed)).collect(),
        }
    }

    pub fn next(&self, random: &mut Random) -> Request {
        let mut request = Request::EMPTY;
        for attribute in 0..attribute::COUNT as Attribute {
            let wide = u128::from(random.next()) << 64 | u128::from(random.next());
            set(&mut request, attribute, if random.chance(20) { wide } else { 0 });
        }
        if self.rows.is_empty() {
            return request;
        }
        // Mostly one row's values, so that requests match, and some of other rows.
        let main = *random.pick(&self.rows);
        for row in [*random.pick(&self.rows), *random.pick(&self.rows), main] {
            for (attribute, cell) in &row.cells {
                let &(first, last) = random.pick(cell.intervals());
                let value = match random.below(10) {
                    0 => first.wrapping_sub(1),
                    1 => last.wrapping_add(1),
                    2..6 => first,
                    6..9 => last,
                    _ => first + (last - first) / 2,
                };
                let bits = attribute::BITS[usize::from(*attribute)];
                set(&mut request, *attribute, value & max_of(bits));
            }
        }
        request
    }
}

/// A transform into the first domain.
fn transform(same: bool, operations: &[(u16, u16)]) -> Transform {
    let numbers = |list: &[(u16, u16)]| (!same).then(|| list.to_vec());
    Transform {
        domain_index: 0,
        same,
        readdress: same,
        radius: 2,
        life: 2,
        levels: std::array::from_fn(|level| level as u8 / 2),
        added: 0b10,
        constraints: [Some(1); 16],
        compartments: [None; 16],
        numbers: [numbers(operations), numbers(&[]), numbers(&[(1, 1)])],
    }
}
