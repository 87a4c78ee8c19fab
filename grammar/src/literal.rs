//! Values of numbers, addresses and texts as written. What is ill-formed says why.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::problems::shorten;

/// The value of `1_000` or `0xff`.
pub(crate) fn number(text: &str) -> Result<u64, &'static str> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let mut value: u64 = 0;
    for digit in digits.chars().filter(|&digit| digit != '_') {
        let digit = digit.to_digit(radix).ok_or("it has a digit that does not belong there")?;
        value = value
            .checked_mul(u64::from(radix))
            .and_then(|value| value.checked_add(u64::from(digit)))
            .ok_or("numbers are at most 18446744073709551615")?;
    }
    Ok(value)
}

/// The address and the length of `10.0.0.0/8` or `2001:db8::1`.
pub(crate) fn prefix(text: &str) -> Result<(IpAddr, Option<u8>), String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address = if address.contains(':') {
        IpAddr::V6(address.parse::<Ipv6Addr>().map_err(|_| why_not_ipv6(address))?)
    } else {
        IpAddr::V4(address.parse::<Ipv4Addr>().map_err(|_| why_not_ipv4(address))?)
    };
    let Some(length) = length else { return Ok((address, None)) };
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a prefix length is a number of bits, as in `10.0.0.0/8`".to_owned());
    }
    // Whether the address has that many bits is checked with its type.
    match length.parse::<u8>() {
        Ok(bits) => Ok((address, Some(bits))),
        Err(_) => Err("a prefix length is at most 128".to_owned()),
    }
}

fn why_not_ipv4(address: &str) -> String {
    let parts: Vec<&str> = address.split('.').collect();
    for part in &parts {
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return format!("`{}` is not a decimal number", shorten(part));
        }
        if part.len() > 1 && part.starts_with('0') {
            return format!("`{}` has a leading zero, which some read as octal", shorten(part));
        }
        if part.parse::<u8>().is_err() {
            return format!("`{}` is above 255", shorten(part));
        }
    }
    format!("an IPv4 address has four numbers, this has {}", parts.len())
}

fn why_not_ipv6(address: &str) -> String {
    if address.contains('%') {
        return "it must not name an interface; zones do that".to_owned();
    }
    if address.matches("::").count() > 1 || address.contains(":::") {
        return "`::` may occur only once".to_owned();
    }
    if let Some((_, last)) = address.rsplit_once(':')
        && last.contains('.')
        && last.parse::<Ipv4Addr>().is_err()
    {
        return why_not_ipv4(last);
    }
    let groups = address.split(':').filter(|group| !group.is_empty());
    for group in groups.clone().filter(|group| !group.contains('.')) {
        if !group.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return format!("`{}` is not a hexadecimal number", shorten(group));
        }
        if group.len() > 4 {
            return format!("`{}` has more than four digits", shorten(group));
        }
    }
    let count = groups.map(|group| if group.contains('.') { 2 } else { 1 }).sum::<usize>();
    if address.contains("::") {
        format!("`::` stands for at least one group, but {count} of 8 are written")
    } else {
        format!("an IPv6 address has 8 groups, this has {count}")
    }
}

/// The first escape of a quoted text that means nothing, as offset and length.
pub(crate) fn bad_escape(quoted: &str) -> Option<(usize, usize)> {
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        if char != '\\' {
            continue;
        }
        match chars.next() {
            Some((_, '"' | '\\' | 'n' | 't')) => {}
            Some((_, other)) => return Some((at, 1 + other.len_utf8())),
            None => return Some((at, 1)),
        }
    }
    None
}

/// The text between the quotes, escapes resolved; ill-formed escapes stay as they are.
pub(crate) fn text(quoted: &str) -> String {
    let mut inner = quoted.chars();
    inner.next();
    if quoted.chars().count() > 1 {
        inner.next_back();
    }
    let mut text = String::with_capacity(quoted.len());
    while let Some(char) = inner.next() {
        if char != '\\' {
            text.push(char);
            continue;
        }
        match inner.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some(other) => text.push(other),
            None => text.push('\\'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number("1_000"), Ok(1000));
        assert_eq!(number("0xFF_ff"), Ok(0xffff));
        assert_eq!(number("18446744073709551615"), Ok(u64::MAX));
        assert!(number("18446744073709551616").is_err());
        assert!(number("0x1_0000_0000_0000_0000").is_err());
    }

    #[test]
    fn prefixes() {
        assert_eq!(prefix("10.0.0.0/8"), Ok((IpAddr::from([10, 0, 0, 0]), Some(8))));
        assert_eq!(prefix("10.0.0.0/64").map(|(_, length)| length), Ok(Some(64)));
        assert_eq!(prefix("::"), Ok((Ipv6Addr::UNSPECIFIED.into(), None)));
        assert_eq!(prefix("::ffff:1.2.3.4/128").map(|(_, length)| length), Ok(Some(128)));
    }

    #[test]
    fn reasons() {
        let why = |text| prefix(text).unwrap_err();
        assert_eq!(why("10.0.0"), "an IPv4 address has four numbers, this has 3");
        assert_eq!(why("10.0.0.256"), "`256` is above 255");
        assert_eq!(why("10.0.0.01"), "`01` has a leading zero, which some read as octal");
        assert_eq!(why("10.0.0.0/256"), "a prefix length is at most 128");
        assert_eq!(why("10.0.0.0/"), "a prefix length is a number of bits, as in `10.0.0.0/8`");
        assert_eq!(why("1::2::3"), "`::` may occur only once");
        assert_eq!(why("1:2:3:4:5:6:7"), "an IPv6 address has 8 groups, this has 7");
        assert_eq!(why("1:2:3:4:5:6:7:8:9"), "an IPv6 address has 8 groups, this has 9");
        assert_eq!(why("::12345"), "`12345` has more than four digits");
        assert_eq!(why("::1.2.3.444"), "`444` is above 255");
    }

    #[test]
    fn escapes() {
        assert_eq!(text(r#""a\"b\\c\nd\te""#), "a\"b\\c\nd\te");
        assert_eq!(bad_escape(r#""a\"b\qc""#), Some((5, 2)));
        assert_eq!(bad_escape(r#""a\"b\\""#), None);
    }
}
