//! Translations and transforms as words; see [`govc_abi::translate`], which reads them.

use govc_abi::image as layout;

use crate::table::{DecisionTable, Transform};

/// Appends all of them, and tells where translations and transforms begin.
pub(super) fn write(table: &DecisionTable, words: &mut Vec<u32>) -> (u32, u32) {
    let translations = words.len() as u32;
    for translation in &table.translations {
        let subject = translation.subject.unwrap_or(layout::TRANSLATION_KEEPS);
        words.extend([translation.first, translation.last, subject, translation.transform]);
    }
    let transforms = words.len() as u32;
    let records = table.transforms.len() * layout::TRANSFORM_WORDS as usize;
    let mut behind = transforms + records as u32;
    let mut tables = Vec::new();
    for transform in &table.transforms {
        write_one(transform, words);
        for numbers in &transform.numbers {
            let Some(numbers) = numbers else {
                words.push(0);
                continue;
            };
            words.push(behind);
            let last = numbers.last().map_or(0, |&(came, _)| u32::from(came));
            let mut entries = vec![layout::TRANSFORM_REFUSED; last as usize];
            for &(came, goes) in numbers {
                let place = usize::from(came).checked_sub(1).and_then(|at| entries.get_mut(at));
                if let Some(place) = place {
                    *place = goes.into();
                }
            }
            tables.push(last);
            tables.extend(entries);
            behind += last + 1;
        }
    }
    words.extend(tables);
    // Rows of diagrams are found in units of four words.
    words.resize(words.len().next_multiple_of(4), 0);
    (translations, transforms)
}

/// Everything but the last three words, which say where tables lie.
fn write_one(transform: &Transform, words: &mut Vec<u32>) {
    let same = if transform.same { layout::TRANSFORM_SAME } else { 0 };
    let readdress = if transform.readdress { layout::TRANSFORM_READDRESSES } else { 0 };
    words.push(
        transform.domain_index
            | u32::from(transform.radius) << layout::TRANSFORM_RADIUS_SHIFT
            | u32::from(transform.life) << layout::TRANSFORM_LIFE_SHIFT
            | same
            | readdress,
    );
    let levels = transform.levels.iter().rev();
    let levels = levels.fold(0_u64, |word, &level| word << 4 | u64::from(level));
    words.extend([levels as u32, (levels >> 32) as u32]);
    let known = |list: &[Option<u16>]| {
        (0..).zip(list).fold(0_u32, |bits, (bit, goes)| bits | u32::from(goes.is_some()) << bit)
    };
    let pairs = |list: &[Option<u16>]| {
        let (pairs, _) = list.as_chunks::<2>();
        let pair = |[low, high]: &[Option<u16>; 2]| {
            u32::from(low.unwrap_or(0)) | u32::from(high.unwrap_or(0)) << 16
        };
        pairs.iter().map(pair).collect::<Vec<u32>>()
    };
    words.push(u32::from(transform.added) | known(&transform.constraints) << 16);
    words.extend(pairs(&transform.constraints));
    words.push(known(&transform.compartments));
    words.extend(pairs(&transform.compartments));
}
