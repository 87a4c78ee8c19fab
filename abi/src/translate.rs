//! What a label of one domain becomes in another: one source for the kernel and for checks.
//!
//! Whatever a transform does not speak of is refused: nothing passes because nobody thought of it.

use crate::{
    attribute::scope_key,
    image::{
        AT_DOMAINS, AT_TRANSFORMS, AT_TRANSLATIONS, TRANSFORM_ADDED, TRANSFORM_COMPARTMENTS,
        TRANSFORM_CONSTRAINTS, TRANSFORM_KNOWN, TRANSFORM_LEVELS, TRANSFORM_LIFE_SHIFT,
        TRANSFORM_LIMITS, TRANSFORM_OPERATIONS, TRANSFORM_RADIUS_SHIFT, TRANSFORM_READDRESSES,
        TRANSFORM_REFUSED, TRANSFORM_RESIDENCIES, TRANSFORM_ROUTES, TRANSFORM_SAME,
        TRANSFORM_WORDS, TRANSLATION_FIRST, TRANSLATION_KEEPS, TRANSLATION_LAST,
        TRANSLATION_SUBJECT, TRANSLATION_TRANSFORM, TRANSLATION_WORDS,
    },
    label::{Label, radius},
    reason,
    walk::{Tables, double},
};

/// Word where translation `number` begins.
#[inline(always)]
#[must_use]
pub fn translation_at<T: Tables>(tables: &T, number: u32) -> u32 {
    tables.header(AT_TRANSLATIONS).wrapping_add(number.wrapping_mul(TRANSLATION_WORDS))
}

/// Word where the transform of translation `number` begins.
#[inline(always)]
#[must_use]
pub fn transform_at<T: Tables>(tables: &T, number: u32) -> u32 {
    let transform = tables.word(translation_at(tables, number).wrapping_add(TRANSLATION_TRANSFORM));
    tables.header(AT_TRANSFORMS).wrapping_add(transform.wrapping_mul(TRANSFORM_WORDS))
}

/// Whether translation `number` leads into another domain.
#[inline(always)]
#[must_use]
pub fn leads_elsewhere<T: Tables>(tables: &T, number: u32) -> bool {
    let limits = transform_at(tables, number).wrapping_add(TRANSFORM_LIMITS);
    tables.word(limits) & TRANSFORM_SAME == 0
}

/// Whether translation `number` is for packets whose addresses or ports have changed too.
#[inline(always)]
#[must_use]
pub fn readdresses<T: Tables>(tables: &T, number: u32) -> bool {
    let limits = transform_at(tables, number).wrapping_add(TRANSFORM_LIMITS);
    tables.word(limits) & TRANSFORM_READDRESSES != 0
}

/// Makes `label`, of the domain with index `domain`, what translation `number` makes of it; the index of
/// its new domain. Version, flags, epoch and slot are left alone.
///
/// # Errors
/// The reason to drop the packet; the label is as it was.
#[inline(always)]
pub fn translate<T: Tables>(
    tables: &T,
    number: u32,
    domain: u32,
    label: &mut Label,
) -> Result<u32, u8> {
    let row = translation_at(tables, number);
    let key = scope_key(domain, label.subject());
    if key < tables.word(row.wrapping_add(TRANSLATION_FIRST))
        || key > tables.word(row.wrapping_add(TRANSLATION_LAST))
    {
        return Err(reason::UNTRANSLATED);
    }
    let at = transform_at(tables, number);
    let limits = tables.word(at.wrapping_add(TRANSFORM_LIMITS));
    if limits & TRANSFORM_SAME == 0 && label.radius() < radius::FEDERATION {
        return Err(reason::RADIUS_EXCEEDED);
    }
    let compartments = label.compartments() as u32;
    if compartments & !tables.word(at.wrapping_add(TRANSFORM_KNOWN)) != 0 {
        return Err(reason::COMPARTMENTS_UNTRANSLATED);
    }
    let constraints = label.constraints() as u32;
    let added = tables.word(at.wrapping_add(TRANSFORM_ADDED));
    if constraints & !(added >> 16) != 0 {
        return Err(reason::CONSTRAINTS_UNTRANSLATED);
    }
    let number = |table: u32, value: u32| number_of(tables, at.wrapping_add(table), value);
    let operation = number(TRANSFORM_OPERATIONS, label.operation() as u32);
    let residency = number(TRANSFORM_RESIDENCIES, label.residency() as u32);
    let route = number(TRANSFORM_ROUTES, label.route() as u32);
    if operation == TRANSFORM_REFUSED {
        return Err(reason::OPERATION_UNTRANSLATED);
    }
    if residency == TRANSFORM_REFUSED {
        return Err(reason::RESIDENCY_UNTRANSLATED);
    }
    if route == TRANSFORM_REFUSED {
        return Err(reason::ROUTE_UNTRANSLATED);
    }
    let compartments = tables.becomes(at.wrapping_add(TRANSFORM_COMPARTMENTS), compartments);
    let constraints = tables.becomes(at.wrapping_add(TRANSFORM_CONSTRAINTS), constraints) | added;
    let levels = double(tables, at.wrapping_add(TRANSFORM_LEVELS));
    let subject = tables.word(row.wrapping_add(TRANSLATION_SUBJECT));
    if subject & TRANSLATION_KEEPS == 0 {
        *label = label.with_subject(subject);
    }
    let least = |a: u8, b: u32| if (a as u32) < b & 15 { a } else { b as u8 & 15 };
    *label = label
        .with_domain(tables.word(AT_DOMAINS.wrapping_add(limits & 15)) as u16)
        .with_level((levels >> (label.level() as u32 * 4)) as u8 & 15)
        .with_radius(least(label.radius(), limits >> TRANSFORM_RADIUS_SHIFT))
        .with_life(least(label.life(), limits >> TRANSFORM_LIFE_SHIFT))
        .with_compartments(compartments as u16)
        .with_constraints(constraints as u16)
        .with_operation(operation as u16)
        .with_residency(residency as u8)
        .with_route(route as u8);
    Ok(limits & 15)
}

/// What becomes of a number by the table whose index is in word `at`.
#[inline(always)]
fn number_of<T: Tables>(tables: &T, at: u32, value: u32) -> u32 {
    let table = tables.word(at);
    if table == 0 || value == 0 {
        return value;
    }
    if value > tables.word(table) {
        TRANSFORM_REFUSED
    } else {
        tables.word(table.wrapping_add(value))
    }
}

/// What becomes of the bits of a bitmap by the eight words from `at` on.
#[inline(always)]
#[must_use]
pub fn becomes<T: Tables>(tables: &T, at: u32, bits: u32) -> u32 {
    let mut becomes = 0;
    let mut index = 0;
    while index < 8 {
        let pair = tables.word(at.wrapping_add(index));
        if bits >> (2 * index) & 1 != 0 {
            becomes |= pair & 0xffff;
        }
        if bits >> (2 * index) & 2 != 0 {
            becomes |= pair >> 16;
        }
        index += 1;
    }
    becomes
}
