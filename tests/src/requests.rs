//! Requests aimed at the places where a decision table changes its mind.

use govc_abi::attribute::{self, Attribute, Request, shape, state};
use govc_compiler::table::{DecisionTable, Row};

use crate::random::Random;

/// Makes requests whose values lie at, just before or just behind ends of rows' intervals.
pub struct Aim<'a> {
    rows: Vec<&'a Row>,
    times: &'a [u32],
    shapes: u32,
}

impl<'a> Aim<'a> {
    /// At one program of a table.
    pub fn new(table: &'a DecisionTable, program: u32) -> Self {
        let groups = table.programs[program as usize].groups.iter();
        let rows = groups.flat_map(|group| group.enforced.iter().chain(&group.observed));
        Self { rows: rows.collect(), times: &table.times, shapes: table.shapes }
    }

    /// The next request; whatever is in it, packets with such attributes can exist at the hook.
    pub fn next(&self, hook: usize, random: &mut Random) -> Request {
        let mut request = possible(self.any(random), hook);
        let past = &mut request.scalars[usize::from(attribute::TIME)];
        *past = (*past).min(self.times.len() as u32);
        request.scalars[usize::from(attribute::SHAPE)] &= self.shapes;
        if request.scalars[usize::from(attribute::SHAPE)] & shape::FRAGMENT != 0 {
            for shown in [attribute::SOURCE_PORT, attribute::DESTINATION_PORT, attribute::ICMP] {
                request.scalars[usize::from(shown)] = 0;
            }
        }
        request
    }

    /// A request of [`Self::next`] as it is under a policy with other moments, at the same time.
    pub fn under(&self, times: &[u32], request: &Request) -> Request {
        let mut request = *request;
        let past = &mut request.scalars[usize::from(attribute::TIME)];
        let last = past.checked_sub(1).map(|last| self.times[last as usize]);
        *past = last.map_or(0, |now| times.iter().filter(|time| **time <= now).count() as u32);
        request
    }

    /// The next request, with any values in it.
    pub fn any(&self, random: &mut Random) -> Request {
        let mut request = Request::EMPTY;
        for attribute in 0..attribute::COUNT as Attribute {
            if random.one_in(5) {
                set(&mut request, attribute, u128::from(random.bits()));
            }
        }
        set(&mut request, attribute::STATE, random.below(3) as u128);
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
                set(&mut request, *attribute, value);
            }
        }
        request
    }
}

fn set(request: &mut Request, attribute: Attribute, value: u128) {
    let halves = [(value >> 64) as u64, value as u64];
    match attribute {
        attribute::SOURCE => request.source = halves,
        attribute::DESTINATION => request.destination = halves,
        _ => {
            let bits = attribute::BITS[usize::from(attribute)];
            let mask = if bits == 32 { attribute::SCOPE_NONE } else { (1 << bits) - 1 };
            request.scalars[usize::from(attribute)] = value as u32 & mask;
        }
    }
}

/// The constraints that the tests' vocabulary names: five.
const CONSTRAINTS: u32 = 0x1f;

/// Changes a request as little as it takes for a packet to have such attributes: no label fields
/// without a label, no ports without a protocol that has them, one family of addresses.
pub fn possible(mut request: Request, hook: usize) -> Request {
    let scalars = &mut request.scalars;
    let get = |scalars: &[u32; 20], attribute: Attribute| scalars[usize::from(attribute)];
    let clear = |scalars: &mut [u32; 20], attribute: Attribute| {
        scalars[usize::from(attribute)] = Request::EMPTY.scalars[usize::from(attribute)];
    };
    scalars[usize::from(attribute::STATE)] %= 3;
    // What labels have room for; verifiers drop constraints that the vocabulary does not name.
    scalars[usize::from(attribute::LEVEL)] &= 0xf;
    scalars[usize::from(attribute::RADIUS)] &= 0xf;
    scalars[usize::from(attribute::CONSTRAINTS)] &= CONSTRAINTS;
    // The only domain of the tests' vocabulary.
    scalars[usize::from(attribute::SUBJECT)] &= 0x00ff_ffff;
    if get(scalars, attribute::STATE) == state::ABSENT {
        for attribute in attribute::SUBJECT..=attribute::ROUTE {
            clear(scalars, attribute);
        }
    }
    let is_v4 = |halves: [u64; 2]| halves[0] == 0 && halves[1] >> 32 == 0xffff;
    let v4 = is_v4(request.source);
    if v4 != is_v4(request.destination) {
        request.destination = request.source;
    }
    let protocol = &mut scalars[usize::from(attribute::PROTOCOL)];
    if matches!(*protocol, 1 | 58) {
        *protocol = if v4 { 1 } else { 58 };
    }
    let protocol = *protocol;
    if !matches!(protocol, 6 | 17 | 132) {
        clear(scalars, attribute::SOURCE_PORT);
        clear(scalars, attribute::DESTINATION_PORT);
    }
    if !matches!(protocol, 1 | 58) {
        clear(scalars, attribute::ICMP);
    }
    scalars[usize::from(attribute::SHAPE)] &= shape::ALL;
    clear(scalars, attribute::CGROUP);
    clear(scalars, if hook == 0 { attribute::EGRESS_ZONE } else { attribute::OBJECT });
    request
}
