//! What stands in tables.

use std::time::Duration;

use crate::measure::Figure;

/// To the nanosecond.
pub fn plain(figure: Figure) -> String {
    format!("{:.0} ±{:.0}", figure.median, figure.spread)
}

/// To a tenth of that.
pub fn precise(figure: Figure) -> String {
    format!("{:.1} ±{:.1}", figure.median, figure.spread)
}

/// How many times `b` is in `a`.
pub fn ratio(a: f64, b: f64) -> String {
    format!("{:.1}", a / b)
}

/// How many times, where hundredths count.
pub fn fine_ratio(figure: Figure) -> String {
    format!("{:.3} ±{:.3}", figure.median, figure.spread)
}

/// Times of compilers.
pub fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// Sizes of images.
pub fn megabytes(len: usize) -> String {
    format!("{:.2} MiB", len as f64 / f64::from(1 << 20))
}

/// Events or packets a second.
pub fn per_second(count: f64) -> String {
    match count {
        1e6.. => format!("{:.2} M", count / 1e6),
        1e4.. => format!("{:.0} k", count / 1e3),
        1e3.. => format!("{:.1} k", count / 1e3),
        _ => format!("{count:.0}"),
    }
}

/// A number with its thousands set apart.
pub fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A row or a head.
pub fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(milliseconds(Duration::from_micros(1500)), "1.50 ms");
        assert_eq!(megabytes(3 << 19), "1.50 MiB");
        assert_eq!(per_second(2_345_678.0), "2.35 M");
        assert_eq!(per_second(99_700.0), "100 k");
        assert_eq!(per_second(4_040.0), "4.0 k");
        assert_eq!(per_second(12.0), "12");
    }
}
