//! Unix time as the text of a log line, in UTC. The part above the second is kept and written again only when the second
//! changes.

/// How the part of a timestamp above the second is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DateForm {
    /// `2026-11-24T00:00:00`, as RFC 3339 begins.
    Rfc3339,
    /// `24/Nov/2026:00:00:00 +0000`, the common log format.
    CommonLog,
}

/// Writes timestamps in one form and remembers the last second it wrote.
#[derive(Debug)]
pub(super) struct DateWriter {
    form: DateForm,
    second: Option<u64>,
    text: Vec<u8>,
}

impl DateWriter {
    pub(super) fn new(form: DateForm) -> Self {
        Self {
            form,
            second: None,
            text: Vec::with_capacity(32),
        }
    }

    /// The second that was written last, Unix time.
    pub(super) fn second(&self) -> Option<u64> {
        self.second
    }

    /// Appends the date and time of `unix_seconds`, without what is below the second.
    pub(super) fn push(&mut self, out: &mut Vec<u8>, unix_seconds: u64) {
        if self.second != Some(unix_seconds) {
            self.second = Some(unix_seconds);
            self.text.clear();
            match self.form {
                DateForm::Rfc3339 => push_rfc3339(&mut self.text, unix_seconds),
                DateForm::CommonLog => push_common_log(&mut self.text, unix_seconds),
            }
        }
        out.extend_from_slice(&self.text);
    }
}

/// Appends `count` decimal digits of `number`, the lowest ones, with leading zeros. `count` is at most 6.
pub(super) fn push_digits(out: &mut Vec<u8>, number: u64, count: usize) {
    let mut digits = [b'0'; 6];
    let mut rest = number;
    for digit in digits[..count].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[..count]);
}

/// Appends `2026-11-24T00:00:00`.
pub(super) fn push_rfc3339(out: &mut Vec<u8>, unix_seconds: u64) {
    let date = Date::of_day(unix_seconds / DAY);
    push_year(out, date.year);
    out.push(b'-');
    push_digits(out, date.month, 2);
    out.push(b'-');
    push_digits(out, date.day, 2);
    out.push(b'T');
    push_time_of_day(out, unix_seconds % DAY);
}

const DAY: u64 = 86_400;

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

fn push_common_log(out: &mut Vec<u8>, unix_seconds: u64) {
    let date = Date::of_day(unix_seconds / DAY);
    push_digits(out, date.day, 2);
    out.push(b'/');
    out.extend_from_slice(MONTHS[(date.month - 1) as usize]);
    out.push(b'/');
    push_year(out, date.year);
    out.push(b':');
    push_time_of_day(out, unix_seconds % DAY);
    out.extend_from_slice(b" +0000");
}

fn push_year(out: &mut Vec<u8>, year: u64) {
    if year <= 9_999 {
        push_digits(out, year, 4);
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(year).as_bytes());
    }
}

fn push_time_of_day(out: &mut Vec<u8>, second_of_day: u64) {
    push_digits(out, second_of_day / 3_600, 2);
    out.push(b':');
    push_digits(out, second_of_day / 60 % 60, 2);
    out.push(b':');
    push_digits(out, second_of_day % 60, 2);
}

struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    /// The Gregorian date of a day counted from 1970-01-01: Howard Hinnant's `civil_from_days`, for days that are not
    /// negative. <https://howardhinnant.github.io/date_algorithms.html>
    fn of_day(day: u64) -> Self {
        let shifted = day + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        // Months are counted from March, so that the leap day is the last of the year.
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 {
            from_march + 3
        } else {
            from_march - 9
        };
        Self {
            year: year_of_era + era * 400 + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: DateForm, unix_seconds: u64) -> String {
        let mut out = Vec::new();
        DateWriter::new(form).push(&mut out, unix_seconds);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // Expected texts are those of `date -u -d @SECONDS +%FT%T`.
        for (unix_seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (68_169_599, "1972-02-28T23:59:59"),
            (68_169_600, "1972-02-29T00:00:00"),
            (68_256_000, "1972-03-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (978_307_199, "2000-12-31T23:59:59"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_795_478_400, "2026-11-24T00:00:00"),
            (2_147_483_647, "2038-01-19T03:14:07"),
            (2_147_483_648, "2038-01-19T03:14:08"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (253_402_300_799, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(written(DateForm::Rfc3339, unix_seconds), expected);
        }
        assert_eq!(written(DateForm::CommonLog, 951_782_461), "29/Feb/2000:00:01:01 +0000");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut previous = Date::of_day(0);
        for day in 1..=60_000 {
            let next = Date::of_day(day);
            let same_month = next.month == previous.month && next.day == previous.day + 1;
            let next_month = next.day == 1 && next.month == previous.month % 12 + 1 && previous.day >= 28;
            assert!(same_month || next_month, "day {day}");
            assert_eq!(next.year, previous.year + u64::from(next.day == 1 && next.month == 1));
            previous = next;
        }
    }

    #[test]
    fn a_kept_second_is_written_like_a_fresh_one() {
        let mut dates = DateWriter::new(DateForm::Rfc3339);
        for unix_seconds in [5, 5, 6, 5] {
            let mut out = Vec::new();
            dates.push(&mut out, unix_seconds);
            assert_eq!(out, format!("1970-01-01T00:00:0{unix_seconds}").into_bytes());
        }
    }
}
