//! The examples in docs/policy.md.

use super::{SMALLEST, lines, parse};

/// Every example is a caller, beside which the rest of a file stands.
#[test]
fn every_example_of_the_policy_is_accepted_without_a_warning() {
    let text = include_str!("../../../docs/policy.md");
    let examples = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let rest = SMALLEST.split_once("[[listener]]").unwrap().1;
    let mut count = 0;
    for example in examples {
        let result = parse(&format!("allow = [\"10.0.0.0/8\"]\n{example}\n[[listener]]{rest}"));
        assert_eq!(lines(&result), [""; 0], "{example}");
        assert!(result.is_ok(), "{example}");
        count += 1;
    }
    assert!(count >= 3, "{count}");
}
