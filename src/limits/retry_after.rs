//! `Retry-After` (RFC 9110, 10.2.3): when an upstream wants to be asked again.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header::RETRY_AFTER};

/// No upstream is believed for longer.
pub(crate) const MAX: Duration = Duration::from_secs(5 * 60);

/// The wait that an answer asks for, at most [`MAX`]; `None` when it asks for none, or not in one clear word.
pub(crate) fn read(fields: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let mut values = fields.get_all(RETRY_AFTER).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time as well.
        value.parse().map_or(MAX, Duration::from_secs)
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(now).ok()?
    };
    Some(wait.min(MAX)).filter(|wait| !wait.is_zero())
}

/// What we write there: whole seconds, rounded up, at least one.
pub(crate) fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_bounded() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        for (values, wait) in [
            (&["7"][..], Some(7)),
            (&[" 7 "], Some(7)),
            (&["300"], Some(300)),
            (&["301"], Some(300)),
            (&["99999999999999999999999"], Some(300)),
            (&["Sun, 06 Nov 1994 08:49:47 GMT"], Some(10)),
            (&["Sunday, 06-Nov-94 08:49:47 GMT"], Some(10)),
            (&["Sun Nov  6 08:49:47 1994"], Some(10)),
            (&["Sat, 06 Nov 2094 08:49:47 GMT"], Some(300)),
            (&["Sun, 06 Nov 1994 08:49:37 GMT"], None),
            (&["Sun, 06 Nov 1984 08:49:47 GMT"], None),
            (&["0"], None),
            (&["-1"], None),
            (&["1.5"], None),
            (&["+7"], None),
            (&["7 s"], None),
            (&[""], None),
            (&["soon"], None),
            (&["7", "8"], None),
            (&[], None),
        ] {
            let fields = values.iter().map(|value| (RETRY_AFTER, value.parse().unwrap())).collect();
            assert_eq!(read(&fields, now), wait.map(Duration::from_secs), "{values:?}");
        }
    }

    #[test]
    fn our_own_are_whole_seconds_and_never_none() {
        for (millis, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
    }
}
