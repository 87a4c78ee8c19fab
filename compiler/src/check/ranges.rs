//! Ranges of numbers, for what is put together from several lists.

/// Numbers of one kind, both ends inclusive. Ranges of different kinds have nothing in common.
pub(crate) type Range<K> = (K, u128, u128);

/// Whether a range has anything in common with ranges that are sorted and disjoint.
pub(crate) fn meets<K: Ord + Copy>(disjoint: &[Range<K>], (kind, first, last): Range<K>) -> bool {
    let before = |&(other, _, end): &Range<K>| (other, end) < (kind, first);
    let next = disjoint.get(disjoint.partition_point(before));
    next.is_some_and(|&(other, begin, _)| other == kind && begin <= last)
}

/// What two lists of sorted, disjoint ranges have in common.
pub(crate) fn common<K: Ord + Copy>(one: &[Range<K>], other: &[Range<K>]) -> Vec<Range<K>> {
    let mut common = Vec::new();
    let (mut left, mut right) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(&&a), Some(&&b)) = (left.peek(), right.peek()) {
        let (first, last) = (a.1.max(b.1), a.2.min(b.2));
        if a.0 == b.0 && first <= last {
            common.push((a.0, first, last));
        }
        if (a.0, a.2) < (b.0, b.2) {
            left.next();
        } else {
            right.next();
        }
    }
    common
}

/// What is left of sorted, disjoint ranges without others.
pub(crate) fn without<K: Ord + Copy>(ranges: &[Range<K>], except: &[Range<K>]) -> Vec<Range<K>> {
    let mut left = Vec::new();
    let mut except = except.iter().peekable();
    for &(kind, mut first, last) in ranges {
        let mut whole = true;
        while let Some(&&(other, begin, end)) = except.peek() {
            if (other, end) < (kind, first) {
                except.next();
                continue;
            }
            if other != kind || begin > last {
                break;
            }
            if first < begin {
                left.push((kind, first, begin - 1));
            }
            // It may reach into the next range as well.
            if end >= last {
                whole = false;
                break;
            }
            first = end + 1;
        }
        if whole {
            left.push((kind, first, last));
        }
    }
    left
}

/// The largest blocks that each are one prefix and together are the range.
pub(crate) fn blocks<K: Copy>((kind, first, last): Range<K>) -> Vec<Range<K>> {
    let mut blocks = Vec::new();
    let mut next = Some(first).filter(|&first| first <= last);
    while let Some(first) = next {
        let aligned = if first == 0 { u128::MAX } else { (1 << first.trailing_zeros()) - 1 };
        // The largest block of ones that fits into what is left.
        let room =
            (last - first).checked_add(1).map_or(u128::MAX, |count| (1 << count.ilog2()) - 1);
        let end = first | aligned.min(room);
        blocks.push((kind, first, end));
        next = end.checked_add(1).filter(|&next| next <= last);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_and_what_is_common_are_all() {
        // Every pair of subsets of a few numbers, as ranges of two kinds.
        let ranges = |bits: u32, kind: bool| -> Vec<Range<bool>> {
            let alone = (0..6).filter(|at| bits >> at & 1 == 1).map(|at| (kind, at, at));
            let mut ranges: Vec<Range<bool>> = Vec::new();
            for (kind, first, last) in alone {
                match ranges.last_mut() {
                    Some((_, _, end)) if *end + 1 == first => *end = last,
                    _ => ranges.push((kind, first, last)),
                }
            }
            ranges
        };
        for one in 0..64 {
            for other in 0..64 {
                let (a, b) = (ranges(one, true), ranges(other, true));
                assert_eq!(common(&a, &b), ranges(one & other, true));
                assert_eq!(without(&a, &b), ranges(one & !other, true));
                assert!(common(&a, &ranges(other, false)).is_empty());
                assert_eq!(without(&a, &ranges(other, false)), a);
                assert_eq!(meets(&a, (true, 3, 4)), one & 0b11000 != 0);
            }
        }
    }

    #[test]
    fn blocks_are_aligned_and_cover_the_range() {
        for (first, last) in [(0, 255), (1, 14), (5, 5), (0, u128::MAX), (1, u128::MAX)] {
            let blocks = blocks(((), first, last));
            let mut next = Some(first);
            for &((), begin, end) in &blocks {
                assert_eq!(next, Some(begin));
                let size = (end - begin).checked_add(1);
                assert!(size.is_none_or(|size| size.is_power_of_two() && begin % size == 0));
                next = end.checked_add(1);
            }
            assert_eq!(next, last.checked_add(1));
        }
    }
}
