//! Times as people write them: RFC 3339, or so long from some moment.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use crate::failure::Failure;

/// Unix time in seconds.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `2027-01-31T00:00:00Z` as Unix time.
///
/// # Errors
/// The text is no time, or one before 1970.
pub fn moment(text: &str) -> Result<u64, Failure> {
    let parsed = text.parse::<Timestamp>().ok();
    parsed.and_then(|time| u64::try_from(time.as_second()).ok()).ok_or_else(|| wrong(text))
}

/// A time, or a duration such as `30d`, `12h`, `15m` or `40s` behind `start`.
///
/// # Errors
/// The text is neither.
pub fn moment_or_duration(text: &str, start: u64) -> Result<u64, Failure> {
    let seconds = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)].into_iter().find_map(
        |(unit, seconds): (&str, u64)| {
            let count = text.strip_suffix(unit)?;
            let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
            count.parse::<u64>().ok().filter(|_| digits)?.checked_mul(seconds)
        },
    );
    match seconds {
        Some(seconds) => start.checked_add(seconds).ok_or_else(|| wrong(text)),
        None => moment(text),
    }
}

/// Unix time as `2027-01-31T00:00:00Z`; `ever` for the end of all numbers.
pub fn tell(second: u64) -> String {
    if second == u64::MAX {
        return "ever".into();
    }
    let time = i64::try_from(second).ok().and_then(|second| Timestamp::from_second(second).ok());
    time.map_or_else(|| format!("second {second}"), |time| time.to_string())
}

fn wrong(text: &str) -> Failure {
    Failure::Usage {
        message: format!("`{text}` is no time"),
        help: "Write 2027-01-31T00:00:00Z, or a duration such as 30d or 12h where one may stand."
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations() {
        assert_eq!(moment("2027-01-31T00:00:00Z").unwrap(), 1_801_353_600);
        assert_eq!(tell(1_801_353_600), "2027-01-31T00:00:00Z");
        for (text, seconds) in [("30d", 2_592_000), ("12h", 43_200), ("15m", 900), ("0s", 0)] {
            assert_eq!(moment_or_duration(text, 5).unwrap(), seconds + 5);
        }
        for wrong in ["", "d", "3", "-3d", "+3d", "1.5d", "3 d", "1960-01-01T00:00:00Z", "soon"] {
            assert!(moment_or_duration(wrong, 0).is_err(), "{wrong}");
        }
        assert!(moment_or_duration("99999999999999999999d", 0).is_err());
        assert!(moment_or_duration("1s", u64::MAX).is_err());
        assert_eq!(tell(u64::MAX), "ever");
    }
}
