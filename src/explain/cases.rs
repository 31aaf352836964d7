//! A table of requests with what is expected of each, for a policy's own tests.
//!
//! In: TOML with a `[[case]]` each. Out: for each case nothing, or how the explanation differs. A table with a mistake
//! in it is refused whole, since a case that does not ask what was meant would pass for the wrong reason.

use std::net::IpAddr;

use serde::Deserialize;

use super::{Asker, Explainer, Explanation, Question, Refused};
use crate::{mx::catalogue::catalogue, refusal::Refusal};

/// The cases of one file, in its order.
#[derive(Debug, Clone)]
pub struct Table(Vec<Case>);

/// One request, and what is expected of it.
#[derive(Debug, Clone)]
struct Case {
    name: String,
    question: Question,
    /// `None`: it is allowed.
    expect: Option<&'static str>,
    operation: Option<String>,
}

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The case's name.
    pub name: String,
    /// What was otherwise, and what would have to change; `None` when all was as expected.
    pub failure: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    case: Vec<WrittenCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    name: String,
    from: Option<IpAddr>,
    uid: Option<u32>,
    #[serde(default)]
    tls_names: Vec<String>,
    gid: Option<u32>,
    caller: Option<String>,
    listener: Option<String>,
    environment: Option<String>,
    request: String,
    #[serde(default)]
    headers: Vec<String>,
    expect: String,
    operation: Option<String>,
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// Every mistake in it, each a line.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let written: Written = toml::from_str(text).map_err(|error| vec![error.to_string()])?;
        if written.case.is_empty() {
            return Err(vec!["has no [[case]]".to_owned()]);
        }
        let mut mistakes = Vec::new();
        let mut cases = Vec::new();
        for (index, case) in written.case.into_iter().enumerate() {
            let place = format!("case {} ({})", index + 1, case.name);
            match Case::read(case) {
                Ok(case) => cases.push(case),
                Err(mistake) => mistakes.push(format!("{place}: {mistake}")),
            }
        }
        if mistakes.is_empty() { Ok(Self(cases)) } else { Err(mistakes) }
    }

    /// Asks for each case.
    #[must_use]
    pub fn run(&self, explainer: &Explainer) -> Vec<Outcome> {
        let one = |case: &Case| Outcome { name: case.name.clone(), failure: case.failure(explainer) };
        self.0.iter().map(one).collect()
    }
}

impl Case {
    fn read(written: WrittenCase) -> Result<Self, String> {
        let asker = match (written.from, written.uid, written.caller) {
            (Some(address), None, None) => Asker::Address(address),
            (None, Some(uid), None) => Asker::Unix { uid, gid: written.gid.unwrap_or(uid) },
            (None, None, Some(name)) => Asker::Caller(name),
            _ => return Err("gives not exactly one of from, uid and caller".to_owned()),
        };
        if !written.tls_names.is_empty() && !matches!(asker, Asker::Address(_)) {
            return Err("gives tls_names without from".to_owned());
        }
        if written.gid.is_some() && !matches!(asker, Asker::Unix { .. }) {
            return Err("gives gid without uid".to_owned());
        }
        let (method, target) =
            written.request.split_once(' ').ok_or("request is not \"METHOD /path\"".to_owned())?;
        let header = |text: &String| {
            let (name, value) = text.split_once(':').ok_or("a header is not \"Name: value\"")?;
            Ok((name.to_owned(), value.trim().to_owned()))
        };
        if let Some(id) = &written.operation
            && catalogue().by_id(id).is_none()
        {
            return Err(format!("operation {id} is none of MX's; `mxgate operations` lists them"));
        }
        let expect = match written.expect.as_str() {
            "allowed" => None,
            code => Some(known(code)?),
        };
        let question = Question {
            asker,
            listener: written.listener,
            environment: written.environment,
            tls_names: written.tls_names,
            method: method.to_owned(),
            target: target.to_owned(),
            headers: written.headers.iter().map(header).collect::<Result<_, &str>>()?,
        };
        Ok(Self { name: written.name, question, expect, operation: written.operation })
    }

    fn failure(&self, explainer: &Explainer) -> Option<String> {
        let told = match explainer.explain(&self.question) {
            Ok(told) => told,
            Err(unanswerable) => return Some(unanswerable.to_string()),
        };
        let mut wrong = Vec::new();
        // A test says what the policy is, whatever is let through for a while.
        let code = refusal(&told).map(|refused| refused.code);
        if code != self.expect {
            let word = |code: Option<&'static str>| code.unwrap_or("allowed");
            wrong.push(format!("expected {}, got {}{}", word(self.expect), word(code), why(&told)));
        }
        if let Some(expected) = &self.operation
            && told.operation != Some(expected)
        {
            let got = told.operation.unwrap_or("none");
            wrong.push(format!("expected operation {expected}, got {got}"));
        }
        if let Some(expected) = &self.question.environment
            && *expected != told.environment
        {
            wrong.push(format!("expected environment {expected}, got {}", told.environment));
        }
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }
}

/// As if observe mode were off.
fn refusal(told: &Explanation) -> Option<&Refused> {
    told.refused.as_ref().or(told.would_refuse.as_ref().map(|would| &would.refused))
}

fn why(told: &Explanation) -> String {
    let caller = told.caller.as_deref().map(|caller| format!(" for {caller}")).unwrap_or_default();
    let because = match refusal(told) {
        Some(refused) if !refused.changes.is_empty() => format!(" ({})", refused.changes.join("; ")),
        Some(_) => String::new(),
        None => told.rule.as_ref().map(|rule| format!(" ({rule})")).unwrap_or_default(),
    };
    caller + &because
}

/// A mistyped code would never match.
fn known(code: &str) -> Result<&'static str, String> {
    let codes = || Refusal::ALL.iter().map(|refusal| refusal.code());
    codes().find(|known| *known == code).ok_or_else(|| {
        let list = codes().collect::<Vec<_>>().join(", ");
        format!("expect is neither \"allowed\" nor a refusal's code; there are {list}")
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{EXAMPLE, explainer},
        *,
    };

    fn failures(table: &str) -> Vec<String> {
        let outcomes = Table::parse(table).unwrap().run(&explainer(EXAMPLE));
        outcomes.into_iter().filter_map(|outcome| outcome.failure).collect()
    }

    const PUBLISHED: &str = include_str!("../../config/policy/two-environments.toml");

    #[test]
    fn the_published_table_holds_for_the_published_configuration() {
        assert_eq!(failures(PUBLISHED), [""; 0]);
        assert!(Table::parse(PUBLISHED).unwrap().0.len() >= 8);
    }

    /// Each of its cases asks something: the other answer would be noticed.
    #[test]
    fn every_case_of_the_published_table_can_fail() {
        let cases = Table::parse(PUBLISHED).unwrap().0.len();
        let turned = PUBLISHED.replace("expect = \"allowed\"", "expect = \"suspended\"");
        let turned = turned.replace("_denied\"", "_allowed\"").replace("operation_allowed", "suspended");
        let turned =
            turned.replace("unknown_operation", "suspended").replace("caller_not_allowed", "suspended");
        assert_eq!(failures(&turned).len(), cases, "{turned}");
    }

    #[test]
    fn a_failure_says_what_was_otherwise_and_what_would_change_it() {
        let case = |rest: &str| format!("[[case]]\nname = \"n\"\nfrom = \"10.20.1.7\"\n{rest}");
        let all = [
            (
                "request = \"POST /users\"\nexpect = \"allowed\"",
                "got operation_denied for ledger (add \"createUser\"",
            ),
            (
                "request = \"GET /users\"\nexpect = \"operation_denied\"",
                "got allowed for ledger (\"read\" in",
            ),
            ("request = \"GET /users\"\nexpect = \"allowed\"\noperation = \"readUser\"", "got listUsers"),
            (
                "request = \"GET /users\"\nexpect = \"allowed\"\nlistener = \"127.0.0.1:8081\"\n\
                 environment = \"production\"",
                "expected environment production, got sandbox",
            ),
            ("request = \"GET /users\"\nexpect = \"allowed\"\nlistener = \"nowhere\"", "no listener"),
        ];
        for (rest, expected) in all {
            let failures = failures(&case(rest));
            assert!(failures.len() == 1 && failures[0].contains(expected), "{rest}: {failures:?}");
        }
    }

    #[test]
    fn a_table_with_a_mistake_is_refused() {
        let base = "[[case]]\nname = \"n\"\nrequest = \"GET /users\"\n";
        for (rest, expected) in [
            ("expect = \"allowed\"", "exactly one of"),
            ("expect = \"allowed\"\nfrom = \"10.0.0.1\"\ncaller = \"a\"", "exactly one of"),
            ("expect = \"allowed\"\nfrom = \"10.0.0.1\"\ngid = 1", "gid without uid"),
            ("expect = \"alowed\"\nfrom = \"10.0.0.1\"", "operation_denied"),
            ("expect = \"allowed\"\nfrom = \"10.0.0.1\"\noperation = \"listUser\"", "none of MX's"),
            ("expect = \"allowed\"\nfrom = \"10.0.0.1\"\nheaders = [\"X\"]", "Name: value"),
            ("expect = \"allowed\"\nfrom = \"10.0.0.1\"\nexpekt = 1", "expekt"),
            ("expect = \"allowed\"\nfrom = \"10.0.0\"", "from"),
        ] {
            let mistakes = Table::parse(&format!("{base}{rest}")).unwrap_err().join("\n");
            assert!(mistakes.contains(expected), "{rest}: {mistakes}");
        }
        assert!(Table::parse("").is_err());
        assert!(Table::parse("case = []").is_err());
        assert!(Table::parse(&base.replace("GET /users", "GET")).is_err());
    }
}
