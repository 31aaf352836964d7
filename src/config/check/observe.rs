//! `observe_until`: until when a caller's refusals are only noted.

use std::time::{Duration, SystemTime};

use crate::config::{fault::Problem, walk::Table};

/// Longer, and it is no trial but the policy.
const AHEAD_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Until when it is on; said in any case, so that nobody forgets it.
pub(super) fn until(table: &Table<'_>) -> Option<SystemTime> {
    let key = "observe_until";
    let until = table.parsed(key, parse)?;
    let now = SystemTime::now();
    let shown = humantime::format_rfc3339_seconds(until);
    match until.duration_since(now) {
        Err(_) => table.warn(key, "is over: observe mode is off"),
        Ok(ahead) if ahead > AHEAD_MAX => {
            table.fault(key, Problem::new("is too far ahead").allowed("at most 30 days from now"));
        }
        Ok(_) => {
            let what = format!("observe mode is on until {shown}: what its grants refuse is let through");
            table.warn(key, Problem::new(what));
        }
    }
    Some(until)
}

/// A date is its beginning.
fn parse(text: &str) -> Result<SystemTime, Problem> {
    let is_date = text.len() == "2026-12-01".len();
    let time = if is_date {
        humantime::parse_rfc3339(&format!("{text}T00:00:00Z"))
    } else {
        humantime::parse_rfc3339(text)
    };
    time.map_err(|_| {
        Problem::new("is no date").allowed("such as 2026-12-01 or 2026-12-01T12:00:00Z, in UTC (RFC 3339)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, fault::Faults, overrides::Overrides};

    #[test]
    fn dates_and_date_times_are_read_in_utc() {
        let seconds = |text: &str| {
            parse(text)
                .ok()
                .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
                .map(|it| it.as_secs())
        };
        assert_eq!(seconds("2026-12-01"), Some(1_796_083_200));
        assert_eq!(seconds("2026-12-01T12:00:00Z"), Some(1_796_083_200 + 12 * 3600));
        for text in
            ["", "tomorrow", "2026-13-01", "2026-12-01 12:00", "2026-12-01T12:00:00+01:00", "01.12.2026"]
        {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    /// What is said about a date so many seconds from now, and whether the configuration is used.
    fn said(seconds: i64) -> (bool, String) {
        let now = SystemTime::now();
        let span = Duration::from_secs(seconds.unsigned_abs());
        let until = if seconds < 0 { now - span } else { now + span };
        let until = humantime::format_rfc3339_seconds(until);
        let text = include_str!("../../../config/sidecar.toml");
        let text = text.replacen("[[caller]]", &format!("[[caller]]\nobserve_until = \"{until}\""), 1);
        match Config::parse(&text, "f", &Overrides::none()) {
            Ok(loaded) => (true, loaded.warnings.iter().map(ToString::to_string).collect()),
            Err(Faults(faults)) => (false, faults.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn thirty_days_are_the_longest_and_it_is_always_said() {
        const DAY: i64 = 24 * 60 * 60;
        for (seconds, used, expected) in [
            (60, true, "observe mode is on until"),
            (30 * DAY - 60, true, "observe mode is on until"),
            (30 * DAY + 60, false, "is too far ahead; at most 30 days from now"),
            (-60, true, "is over: observe mode is off"),
        ] {
            let (is_used, said) = said(seconds);
            assert_eq!(is_used, used, "{seconds}: {said}");
            assert!(said.contains("caller[0].observe_until") && said.contains(expected), "{seconds}: {said}");
        }
    }
}
