//! What stands between `aws:` and `#`: which secret of AWS Secrets Manager, and which of its versions.
//!
//! In goes `NAME` or `ARN`, perhaps with [`PREVIOUS`] behind it; out comes the two parts. A name holds no `?`, so that
//! the suffix cannot be part of one; a query is how other tools with one text for all of it say it, too. The current
//! version is the one without a suffix, and has no other spelling: two spellings of one secret would look like two secrets.

/// What stands behind the name when not the current version is meant, but the one that was current before.
const PREVIOUS: &str = "?stage=AWSPREVIOUS";
/// The longest id that Secrets Manager takes.
const BYTES_MAX: usize = 2048;

/// One version of one secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AwsPlace<'a> {
    /// A name or an ARN.
    pub(crate) id: &'a str,
    /// The version that was current before this one.
    pub(crate) is_previous: bool,
}

impl<'a> AwsPlace<'a> {
    /// `None` when `place` can be no secret's.
    pub(crate) fn of(place: &'a str) -> Option<Self> {
        let (id, is_previous) = match place.strip_suffix(PREVIOUS) {
            Some(id) => (id, true),
            None => (place, false),
        };
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte))
        };
        let is_id = match arn(id) {
            Some((_, name)) => is_name(name),
            None => is_name(id),
        };
        (is_id && id.len() <= BYTES_MAX).then_some(Self { id, is_previous })
    }

    /// The region in an ARN; `None` for a name, which is looked for in the configured region.
    pub(crate) fn region(self) -> Option<&'a str> {
        arn(self.id).map(|(region, _)| region)
    }
}

/// Region and name of `arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME`.
fn arn(id: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = id.split(':').collect();
    let ["arn", partition, "secretsmanager", region, account, "secret", name] = parts[..] else {
        return None;
    };
    let is_word = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let is_account = !account.is_empty() && account.bytes().all(|byte| byte.is_ascii_digit());
    (is_word(partition) && is_word(region) && is_account).then_some((region, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:mx/production-AbCdEf";

    #[test]
    fn a_name_or_an_arn_is_the_current_version_unless_the_previous_is_asked_for() {
        for id in ["mx", "mx/production", "a_b+c=d.e@f-g", ARN] {
            assert_eq!(AwsPlace::of(id), Some(AwsPlace { id, is_previous: false }));
            let previous = format!("{id}?stage=AWSPREVIOUS");
            assert_eq!(AwsPlace::of(&previous), Some(AwsPlace { id, is_previous: true }));
        }
        assert_eq!(AwsPlace::of(ARN).unwrap().region(), Some("eu-west-1"));
        assert_eq!(AwsPlace::of("mx").unwrap().region(), None);
    }

    #[test]
    fn what_no_secret_is_called_is_refused() {
        for place in [
            "",
            "?stage=AWSPREVIOUS",
            "mx?stage=AWSCURRENT",
            "mx?stage=AWSPENDING",
            "mx?stage=awsprevious",
            "mx?stage=AWSPREVIOUS?stage=AWSPREVIOUS",
            "mx?",
            "mx:production",
            "a b",
            "ä",
            "arn:aws:s3:eu-west-1:123456789012:secret:mx",
            "arn:aws:secretsmanager:eu-west-1:123456789012:mx",
            "arn:aws:secretsmanager::123456789012:secret:mx",
            "arn:aws:secretsmanager:eu-west-1::secret:mx",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:mx:a",
        ] {
            assert_eq!(AwsPlace::of(place), None, "{place}");
        }
        assert!(AwsPlace::of(&"a".repeat(2048)).is_some() && AwsPlace::of(&"a".repeat(2049)).is_none());
    }
}
