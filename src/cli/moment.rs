//! Moments as people write and read them: `2h` from now, `3 min ago`.

use crate::clock;
use crate::rollout::Moment;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Reads `2026-11-24T15:30:00Z`, or how long from now: `90m`, `2h`, `1d12h`.
///
/// # Errors
/// When it is neither.
pub fn parse(text: &str) -> Result<Moment, String> {
    at(text, clock::unix_millis())
}

fn at(text: &str, now: u64) -> Result<Moment, String> {
    if let Some(span) = span(text) {
        // Whole seconds: nobody who says `2h` means milliseconds.
        let moment = now.saturating_add(span) / SECOND * SECOND;
        if moment <= clock::LATEST_MILLIS {
            return Ok(Moment(moment));
        }
        let latest = clock::rfc3339(clock::LATEST_MILLIS);
        return Err(format!(
            "{text:?} from now is later than {latest}: write a shorter time, or that one"
        ));
    }
    let wrong =
        |_| format!("{text:?} is no time: write one such as 2026-11-24T15:30:00Z, or from now on, such as 2h or 7d");
    clock::parse_rfc3339(text).map(Moment).map_err(wrong)
}

/// Milliseconds of `1d12h`; units of one letter, each once or more. More than can be counted are as many as can.
fn span(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let unit = match tail.as_bytes().first()? {
            b's' => SECOND,
            b'm' => MINUTE,
            b'h' => HOUR,
            b'd' => DAY,
            b'w' => 7 * DAY,
            _ => return None,
        };
        if number.is_empty() {
            return None;
        }
        let number = number.parse::<u64>().unwrap_or(u64::MAX);
        total = total.saturating_add(number.saturating_mul(unit));
        rest = &tail[1..];
    }
    (total > 0).then_some(total)
}

/// `3 min ago`, `in 2 h`; of what is no time, the text.
pub fn relative(text: &str) -> String {
    clock::parse_rfc3339(text).map_or_else(|_| text.to_owned(), |at| between(clock::unix_millis(), at))
}

/// The moment as the API has it.
pub fn text(moment: Moment) -> String {
    clock::rfc3339(moment.0)
}

fn between(now: u64, at: u64) -> String {
    let apart = length(now.abs_diff(at));
    if apart.is_empty() {
        "now".to_owned()
    } else if at < now {
        format!("{apart} ago")
    } else {
        format!("in {apart}")
    }
}

/// `2 h`: in the unit that says enough, rounded; empty below half a second.
pub fn length(millis: u64) -> String {
    for (unit, size, limit) in [("s", SECOND, 60), ("min", MINUTE, 60), ("h", HOUR, 48)] {
        let number = (millis + size / 2) / size;
        if number == 0 {
            return String::new();
        }
        if number < limit {
            return format!("{number} {unit}");
        }
    }
    format!("{} d", (millis + DAY / 2) / DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_or_spans_from_now() {
        assert_eq!(at("2h", 1_999), Ok(Moment(1_000 + 2 * HOUR)));
        assert_eq!(at("1d12h", 0), Ok(Moment(36 * HOUR)));
        assert_eq!(at("2026-11-24T15:30:00Z", 0), Ok(Moment(1_795_534_200_000)));
        assert_eq!(at("2026-11-24T16:30:00+01:00", 0), Ok(Moment(1_795_534_200_000)));
        for bad in ["", "2", "h", "2 h", "-2h", "0s", "2y", "tomorrow", "2026-11-24"] {
            assert!(at(bad, 0).is_err_and(|e| e.contains("is no time")), "{bad}");
        }
        for late in ["99999999999d", "99999999999999999999d"] {
            let text =
                format!("{late:?} from now is later than 9999-12-30T22:00:00Z: write a shorter time, or that one");
            assert_eq!(at(late, 1_999), Err(text));
        }
    }

    #[test]
    fn times_are_told_from_now() {
        let now = 10 * DAY;
        for (moment, told) in [
            (now, "now"),
            (now - 499, "now"),
            (now - 59_400, "59 s ago"),
            (now - 59_500, "1 min ago"),
            (now - 3 * MINUTE, "3 min ago"),
            (now + 2 * HOUR - 1, "in 2 h"),
            (now + 47 * HOUR, "in 47 h"),
            (now - 7 * DAY, "7 d ago"),
        ] {
            assert_eq!(between(now, moment), told);
        }
    }
}
