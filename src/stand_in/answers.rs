//! A plausible answer for every operation, in the words of MX's models.
//!
//! `answers.json` is compiled in. `generate_answers.py` made it from MX's own OpenAPI documents (MIT licence):
//! field names, types and example values are theirs. What the request says is taken over: the ids in its path,
//! the fields that it sets, the page that it asks for. Nothing is remembered from one request to the next.

use std::{collections::HashMap, sync::LazyLock};

use bytes::Bytes;
use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::mx::{Version, catalogue::Operation};

static ANSWERS: LazyLock<Answers> = LazyLock::new(|| {
    #[expect(clippy::expect_used, reason = "the file is compiled in, and a test parses it")]
    Answers::parse(include_str!("answers.json")).expect("answers.json is well formed")
});

/// `records_per_page` when none, or none that is allowed, is asked for.
const PER_PAGE_DEFAULT: u64 = 25;
const PER_PAGE_MIN: u64 = 10;

/// All answers.
pub(super) struct Answers(HashMap<String, Vec<Answer>>);

/// What one operation answers, as the generator wrote it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    versions: Vec<String>,
    status: u16,
    list: Option<String>,
    per_page: Option<u64>,
    /// Names of which a request's JSON body must hold one; empty: it needs no body.
    #[serde(default)]
    pub(super) required: Vec<String>,
    body: Option<Value>,
}

/// What of a request shows in its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'r> {
    pub(super) operation: &'r Operation,
    pub(super) path: &'r str,
    pub(super) query: Option<&'r str>,
    /// The request's JSON.
    pub(super) body: Option<&'r Value>,
    /// How many records a paginated list has.
    pub(super) entries: usize,
    /// Whether a job runs on the member.
    pub(super) job: bool,
}

/// The answers, parsed on first use.
pub(super) fn answers() -> &'static Answers {
    &ANSWERS
}

impl Answers {
    fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text).map(Self)
    }

    /// The answer of `operation` under `version`.
    pub(super) fn find(&self, operation: &Operation, version: Version) -> Option<&Answer> {
        self.0.get(operation.id)?.iter().find(|answer| answer.versions.iter().any(|v| v == version.as_str()))
    }
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or_default()
    }

    /// The JSON; `None` for an answer that has none.
    pub(super) fn render(&self, asked: &Asked<'_>) -> Option<Bytes> {
        let Some(Value::Object(body)) = &self.body else { return None };
        let text = match &self.list {
            Some(list) => self.render_list(list, body, asked),
            None => render_object(body, asked),
        };
        Some(text.into())
    }

    fn render_list(&self, list: &str, body: &Map<String, Value>, asked: &Asked<'_>) -> String {
        let mut item = body.get(list).and_then(|items| items.get(0)).cloned().unwrap_or_default();
        if let Value::Object(fields) = &mut item {
            take_over_ids(fields, None, asked);
        }
        let total = asked.entries as u64;
        let number = |name| asked.query_number(name);
        let per_page_max = self.per_page.unwrap_or(100);
        let per_page = number("records_per_page")
            .filter(|n| (PER_PAGE_MIN..=per_page_max).contains(n))
            .unwrap_or(PER_PAGE_DEFAULT);
        let page = number("page").filter(|&page| page > 0).unwrap_or(1);
        let first = (page - 1).saturating_mul(per_page).min(total);
        let last = page.saturating_mul(per_page).min(total);
        let pagination = json!({
            "current_page": page,
            "per_page": per_page,
            "total_entries": total,
            "total_pages": total.div_ceil(per_page),
        });
        let item = numbered(item);
        let items: Vec<String> = (first..last).map(|n| item(n + 1)).collect();
        format!("{{{}:[{}],\"pagination\":{pagination}}}", json!(list), items.join(","))
    }
}

/// The item as text, by its number: its own guid ends with the number, so that no two items are the same.
fn numbered(mut item: Value) -> impl Fn(u64) -> String {
    const DIGITS: usize = 6;
    const MARK: &str = "<number>";
    if let Some(Value::String(guid)) = item.get_mut("guid") {
        guid.truncate(guid.len().saturating_sub(DIGITS));
        guid.push_str(MARK);
    }
    let text = item.to_string();
    move |number| match text.split_once(MARK) {
        Some((start, rest)) => format!("{start}{number:06x}{rest}"),
        None => text.clone(),
    }
}

fn render_object(body: &Map<String, Value>, asked: &Asked<'_>) -> String {
    let mut body = body.clone();
    let wrapped = body.len() == 1;
    for (name, value) in &mut body {
        let Value::Object(fields) = value else { continue };
        if !wrapped {
            continue;
        }
        take_over_ids(fields, Some(name), asked);
        if let Some(Value::Object(sent)) = asked.body.and_then(|sent| sent.get(name)) {
            take_over_fields(fields, sent);
        }
        if asked.operation.id == "readMemberStatus" {
            fields.insert("is_being_aggregated".to_owned(), asked.job.into());
        }
    }
    Value::Object(body).to_string()
}

/// `user_guid` and its like, from the path; and the object's own `guid`, if the path names it.
fn take_over_ids(fields: &mut Map<String, Value>, object: Option<&str>, asked: &Asked<'_>) {
    for (parameter, value) in asked.path_parameters() {
        let own = object.is_some_and(|object| parameter.strip_suffix("_guid") == Some(object));
        if let Some(field @ Value::String(_)) = fields.get_mut(if own { "guid" } else { parameter }) {
            *field = percent_decode_str(value).decode_utf8_lossy().into();
        }
    }
}

/// The values that the request sets, where they are of the answer's type.
fn take_over_fields(fields: &mut Map<String, Value>, sent: &Map<String, Value>) {
    for (name, field) in fields {
        match (field, sent.get(name)) {
            (field @ Value::String(_), Some(value @ Value::String(_)))
            | (field @ Value::Number(_), Some(value @ Value::Number(_)))
            | (field @ Value::Bool(_), Some(value @ Value::Bool(_))) => *field = value.clone(),
            _ => {}
        }
    }
}

impl<'r> Asked<'r> {
    fn path_parameters(&self) -> impl Iterator<Item = (&'r str, &'r str)> {
        let names = self.operation.template.split('/');
        names.zip(self.path.split('/')).filter_map(|(name, value)| {
            let (name, suffix) = name.strip_prefix('{')?.split_once('}')?;
            Some((name, value.strip_suffix(suffix)?))
        })
    }

    fn query_number(&self, name: &str) -> Option<u64> {
        let pairs = self.query?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mx::catalogue::catalogue;

    fn render(id: &str, path: &str, query: Option<&str>, body: Option<Value>) -> Value {
        let operation = catalogue().by_id(id).unwrap();
        let asked = Asked { operation, path, query, body: body.as_ref(), entries: 12, job: false };
        let answer = answers().find(operation, Version::V20250224).unwrap();
        serde_json::from_slice(&answer.render(&asked).unwrap()).unwrap()
    }

    #[test]
    fn every_operation_of_a_version_has_an_answer_in_it_and_in_no_other() {
        for operation in catalogue().operations() {
            for version in Version::ALL {
                let answer = answers().find(operation, version);
                if operation.versions.is_empty() {
                    assert_eq!(answer.is_some(), operation.id.starts_with("exchange"), "{}", operation.id);
                    continue;
                }
                assert_eq!(answer.is_some(), operation.versions.contains(version), "{}", operation.id);
                if let Some(answer) = answer {
                    let json = operation.media_types.iter().any(|t| t.as_str().ends_with("json"));
                    assert_eq!(answer.body.is_some(), json, "{}", operation.id);
                }
            }
        }
    }

    #[test]
    fn lists_have_pages_and_no_item_twice() {
        let guids = |page: &Value| -> Vec<String> {
            page["users"].as_array().unwrap().iter().map(|user| user["guid"].to_string()).collect()
        };
        let first = render("listUsers", "/users", Some("records_per_page=10"), None);
        let second = render("listUsers", "/users", Some("page=2&records_per_page=10"), None);
        assert_eq!(
            second["pagination"],
            json!({"current_page": 2, "per_page": 10, "total_entries": 12, "total_pages": 2})
        );
        let mut all = guids(&first);
        all.extend(guids(&second));
        assert_eq!((guids(&first).len(), all.len()), (10, 12));
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 12);
        assert_eq!(guids(&render("listUsers", "/users", Some("page=3"), None)), [""; 0]);
    }

    #[test]
    fn a_page_size_out_of_range_is_the_default() {
        let per_page = |id, query| render(id, "/x", Some(query), None)["pagination"]["per_page"].clone();
        assert_eq!(per_page("listUsers", "records_per_page=9"), 25);
        assert_eq!(per_page("listUsers", "records_per_page=1001"), 25);
        assert_eq!(per_page("listUsers", "records_per_page=1000"), 1000);
        assert_eq!(per_page("listACHRetruns", "records_per_page=101"), 25);
        assert_eq!(per_page("listACHRetruns", "records_per_page=100"), 100);
        assert_eq!(per_page("listUsers", "page=18446744073709551615"), 25);
    }

    #[test]
    fn ids_of_the_path_and_fields_of_the_body_are_taken_over() {
        let member = render("readMember", "/users/U%2F1/members/M-1", None, None);
        assert_eq!(
            (&member["member"]["guid"], &member["member"]["user_guid"]),
            (&json!("M-1"), &json!("U/1"))
        );
        let sent = json!({"user": {"email": "a@b.c", "id": 7, "other": "x"}});
        let user = render("createUser", "/users", None, Some(sent));
        assert_eq!(user["user"]["email"], "a@b.c");
        assert!(user["user"]["id"].is_string(), "a number is no id");
        assert!(user["user"].get("other").is_none());
        // The user's id is not the new member's own.
        let member = render("createMember", "/users/U-1/members", None, None);
        assert_eq!(member["member"]["user_guid"], "U-1");
        assert_ne!(member["member"]["guid"], "U-1");
    }

    #[test]
    fn only_the_items_own_guid_is_numbered() {
        let third = numbered(json!({"a": {"guid": "NESTED-0000000"}, "guid": "OWN-abcdefabcdef"}))(3);
        assert_eq!(third, r#"{"a":{"guid":"NESTED-0000000"},"guid":"OWN-abcdef000003"}"#);
        assert_eq!(numbered(json!({"id": 1}))(3), r#"{"id":1}"#);
    }
}
