//! Texts that look like secrets, for what leaves this machine although nobody knows them by value.
//!
//! A guess, on the safe side: a key that somebody wrote where none belongs is held back, and so is now and then a text
//! that is none.

/// Keys of MX's have 40 characters; shorter runs are words, names and numbers.
const RUN_MIN: usize = 20;

/// Different characters in a run that seems to be random.
const DIFFERENT_MIN: usize = 10;

/// Whether `text` holds a run of characters as keys have them: long, of many different ones, letters and digits mixed.
#[must_use]
pub fn looks_secret(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/=_-".contains(c)).any(|run| {
        let mut different: Vec<u8> = run.bytes().collect();
        different.sort_unstable();
        different.dedup();
        run.len() >= RUN_MIN && different.len() >= DIFFERENT_MIN && changes(run) >= run.len() / 6
    })
}

/// How often letters and digits take turns: in words with a number behind them once, in random text all the time.
fn changes(run: &str) -> usize {
    let is_digit: Vec<bool> =
        run.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.is_ascii_digit()).collect();
    is_digit.windows(2).filter(|two| two[0] != two[1]).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_by_chance_is_told_from_what_people_write() {
        for text in [
            "9f3Kq7Zt20xLmW8bQ4vN",
            "ad874bd68a2b5a9e4c9a3ee0a7c9a3ee0a7c9a3e",
            "7dbd1f9a-3b5c-4d9e-8f2a-6c1b0e4d7a95",
            "vault:9f3Kq7Zt20xLmW8bQ4vN",
            "Basic dTE6OWYzS3E3WnQyMHhMbVc4YlE0dk4=",
        ] {
            assert!(looks_secret(text), "{text}");
        }
        for text in [
            "",
            "vault:production/api_key",
            "file:/run/secrets/mxgate-identity",
            "/var/lib/mxgate/vault.age",
            "https://int-api.mx.com",
            "GET /users/{user_guid}/members/{member_guid}/statements",
            "127.0.0.1:8080",
            "2001:db8:85a3:8d3:1319:8a2e:370:7348",
            "info,mxgate::upstream=debug",
            "uri:spiffe://example.internal/payments/ledger-production-2",
            "v20250224",
        ] {
            assert!(!looks_secret(text), "{text}");
        }
    }
}
