//! Sets of addresses as the language writes them: prefixes, and what is left out of them.

use std::net::Ipv6Addr;

use crate::table::IntervalSet;

const BITS: u8 = 128;
/// The addresses that IPv4 is mapped to. No IPv6 prefix, however short, speaks of them.
const V4: (u128, u128) = (0xffff << 32, 0xffff << 32 | 0xffff_ffff);

/// What makes up a set of addresses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Networks {
    /// Prefixes that hold all of it.
    pub(super) within: Vec<String>,
    /// What of these is not in it.
    pub(super) except: Vec<String>,
}

/// The prefixes of a set, or those around it with what they hold besides, if these are fewer.
pub(super) fn networks(set: &IntervalSet) -> Networks {
    let v4 = IntervalSet::new(vec![V4]);
    let mut networks = Networks::default();
    for (family, is_v4) in [(v4.clone(), true), (v4.complement(BITS), false)] {
        let own = set.intersect(&family);
        let plain = written(&own, is_v4);
        let Some((first, last)) = around(&own) else { continue };
        let outer = IntervalSet::new(vec![(first, last)]).intersect(&family);
        let except = written(&outer.intersect(&own.complement(BITS)), is_v4);
        if plain.len() <= 1 + except.len() {
            networks.within.extend(plain);
        } else {
            networks.within.push(text(first, last, is_v4));
            networks.except.extend(except);
        }
    }
    networks
}

/// The smallest prefix around a set, by its first and last address.
fn around(set: &IntervalSet) -> Option<(u128, u128)> {
    let (first, last) = (set.intervals().first()?.0, set.intervals().last()?.1);
    let hosts = u128::MAX.checked_shr((first ^ last).leading_zeros()).unwrap_or(0);
    Some((first & !hosts, last | hosts))
}

/// The fewest prefixes that make up a set of one family.
fn written(set: &IntervalSet, is_v4: bool) -> Vec<String> {
    let (mut prefixes, mut before) = (Vec::new(), None);
    let mut joined: Vec<(u128, u128)> = Vec::new();
    for &(first, last) in set.intervals() {
        // What IPv4 is mapped to lies within the prefixes of IPv6, which do not mean it.
        let gap = before == Some(V4.0 - 1) && first == V4.1 + 1;
        match joined.last_mut().filter(|_| gap) {
            Some(interval) => interval.1 = last,
            None => joined.push((first, last)),
        }
        before = Some(last);
    }
    for (first, last) in joined {
        let mut next = Some(first);
        while let Some(start) = next.filter(|start| *start <= last) {
            let mut hosts = u128::MAX.checked_shr(128 - start.trailing_zeros()).unwrap_or(0);
            while hosts > last - start {
                hosts >>= 1;
            }
            if is_v4 || (start, start | hosts) != V4 {
                prefixes.push(text(start, start | hosts, is_v4));
            }
            next = (start | hosts).checked_add(1);
        }
    }
    prefixes
}

/// One prefix, without a length where it is one address.
fn text(first: u128, last: u128, is_v4: bool) -> String {
    let length = (first ^ last).leading_zeros();
    let v6 = Ipv6Addr::from_bits(first);
    let v4 = v6.to_ipv4_mapped().filter(|_| is_v4);
    let address = v4.map_or_else(|| v6.to_string(), |v4| v4.to_string());
    match length {
        128 => address,
        _ if is_v4 => format!("{address}/{}", length - 96),
        _ => format!("{address}/{length}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::{checked::Prefix, lower, sample::Random};

    fn set(texts: &[String]) -> IntervalSet {
        let prefix = |text: &String| {
            let (address, length) = text.split_once('/').unwrap_or((text, "128"));
            let address: IpAddr = address.parse().unwrap();
            let length: u8 = length.parse().unwrap();
            Prefix { address, length: if address.is_ipv4() { length.min(32) } else { length } }
        };
        lower::prefixes(&texts.iter().map(prefix).collect::<Vec<_>>())
    }

    fn told(texts: &[&str], except: &[&str]) -> String {
        let list = |texts: &[&str]| set(&texts.iter().map(|&text| text.into()).collect::<Vec<_>>());
        let found = networks(&list(texts).intersect(&list(except).complement(BITS)));
        format!("{} - {}", found.within.join(" "), found.except.join(" "))
    }

    #[test]
    fn sets_are_told_as_they_are_written() {
        assert_eq!(told(&["10.0.0.0/8"], &["10.0.0.0/15"]), "10.0.0.0/8 - 10.0.0.0/15");
        assert_eq!(told(&["10.0.0.0/8"], &["10.0.0.0/9"]), "10.128.0.0/9 - ");
        assert_eq!(told(&["10.0.0.1", "10.0.0.2"], &[]), "10.0.0.1 10.0.0.2 - ");
        assert_eq!(told(&["::/0"], &[]), "::/0 - ");
        assert_eq!(told(&["0.0.0.0/0", "::/0"], &[]), "0.0.0.0/0 ::/0 - ");
        assert_eq!(
            told(&["0.0.0.0/0", "::/0"], &["10.20.0.0/16", "2001:db8::/32"]),
            "0.0.0.0/0 ::/0 - 10.20.0.0/16 2001:db8::/32"
        );
        assert_eq!(told(&["::/64"], &[]), "::/64 - ");
        assert_eq!(told(&[], &[]), " - ");
    }

    #[test]
    fn what_is_told_is_the_set() {
        let random = &mut Random::new(7);
        for _ in 0..2_000 {
            let interval = |random: &mut Random| {
                let near = *random.pick(&[0, V4.0 - 3, V4.0, V4.0 + 0x0a00_0000, V4.1, 1 << 125]);
                let span = 1_u128 << random.below(120);
                let first = near + u128::from(random.below(9));
                (first, first + span.min(1 << random.below(40)))
            };
            let all = IntervalSet::new((0..3).map(|_| interval(random)).collect());
            let found = networks(&all);
            let again = set(&found.within).intersect(&set(&found.except).complement(BITS));
            assert_eq!(again, all, "{found:?}");
        }
    }
}
