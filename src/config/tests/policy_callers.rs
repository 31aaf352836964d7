//! The examples in `docs/policy.md` about callers: each is loaded, and what it says is refused is.

use super::{assert_accepted, assert_fault};

const POLICY: &str = include_str!("../../../docs/policy.md");

/// What an example leaves out.
fn whole(example: &str) -> String {
    let listener = "[[listener]]\naddress = \"127.0.0.1:8080\"\nenvironment = \"production\"\n";
    let listener = if example.contains("[[listener]]") { "" } else { listener };
    format!(
        "allow = [\"10.20.0.0/16\"]\n{listener}{example}\n[environment.production]\n\
         credential = {{ kind = \"basic\", client_id = \"CLIENT-ID\", api_key = \"env:MX_API_KEY\" }}\n"
    )
}

fn callers() -> &'static str {
    let start = POLICY.find("## Callers\n").unwrap();
    let end = POLICY[start + 1..].find("\n## ").map_or(POLICY.len(), |end| start + 1 + end);
    &POLICY[start..end]
}

#[test]
fn every_example_of_a_caller_is_accepted_without_a_warning() {
    let examples: Vec<&str> =
        callers().split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        assert_accepted(&whole(example), &[]);
    }
}

/// The table of pairs: each row as two callers.
#[test]
fn every_pair_of_callers_is_what_the_table_says() {
    let rows = callers().lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 4);
    let rows: Vec<Vec<&str>> = rows.map(|row| row.split('|').map(str::trim).collect()).collect();
    let rows: Vec<_> =
        rows.iter().filter(|row| row[3].starts_with("fault") || row[3].starts_with("fine")).collect();
    assert_eq!(rows.len(), 6);
    for row in rows {
        let caller = |name: &str, criteria: &str| {
            let keys = criteria.replace("`, `", "\n").replace('`', "");
            format!("[[caller]]\nname = \"{name}\"\n{keys}\ngrant = {{ production = [\"read\"] }}\n")
        };
        let tls = "[[listener]]\naddress = \"127.0.0.1:8080\"\nenvironment = \"production\"\n\
                   tls = { certificate = \"/c\", key = \"/k\", client_ca = \"/a\" }\n[tokens]\nfile = \"/t\"\n";
        let text = whole(&(caller("one", row[1]) + &caller("other", row[2]) + tls));
        if row[3].starts_with("fault") {
            assert_fault(&text, "give both one kind of criterion, with nothing in common");
        } else {
            assert_accepted(&text, &[]);
        }
    }
}
