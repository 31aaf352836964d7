//! An explanation for people and for programs. What was asked is escaped: it is somebody's request line.

use std::fmt;

use serde_json::{Value, json};

use super::{Explanation, MASK, Sent, UsedCredential};
use crate::config::fault::Escaped;

impl Explanation {
    /// For programs: the same content as [`Display`](fmt::Display).
    #[must_use]
    pub fn to_json(&self) -> Value {
        let credential = self.credential.as_ref().map(|used| {
            json!({ "name": used.name, "kind": used.kind, "fingerprint": used.fingerprint, "note": used.note })
        });
        let sent = self.sent.as_ref().map(|sent| {
            let added: Vec<_> =
                sent.added.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
            json!({
                "target": sent.target, "query_added": sent.query, "headers_removed": sent.removed,
                "headers_added": added, "headers_kept": sent.kept,
            })
        });
        let refused = self.refused.as_ref();
        let would_refuse = self.would_refuse.as_ref().map(|would| {
            let until = would.until.map(|until| humantime::format_rfc3339_seconds(until).to_string());
            json!({ "until": until, "code": would.refused.code, "changes": would.refused.changes })
        });
        json!({
            "would_refuse": would_refuse,
            "allowed": refused.is_none(),
            "code": refused.map(|refused| refused.code),
            "status": refused.map(|refused| refused.status),
            "changes": refused.map(|refused| refused.changes.clone()).unwrap_or_default(),
            "method": self.method, "target": self.target,
            "listener": self.listener, "serves": self.serves, "environment": self.environment, "host": self.host,
            "origin": self.origin, "caller": self.caller, "recognised": self.recognised,
            "operation": self.operation, "template": self.template, "classes": self.classes,
            "rule": self.rule, "limits": self.limits, "users": self.users,
            "credential": credential, "sent": sent, "answer": self.answer, "not_judged": self.not_judged,
        })
    }
}

/// A block of lines for a terminal, without the last line's break.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}\n", Escaped(&self.method), Escaped(&self.target))?;
        let serves = match &*self.environment {
            "" => "serves connections".to_owned(),
            environment => format!("sends to {environment}"),
        };
        step(f, "listener", &format!("{}, which {serves}", self.listener))?;
        match &self.caller {
            Some(caller) => step(f, "caller", &format!("{caller}: {}", self.recognised))?,
            None => step(f, "caller", &self.recognised)?,
        }
        match (self.operation, &self.template) {
            (Some(operation), Some(template)) => {
                step(f, "operation", &format!("{operation} ({template}; {})", self.classes.join(", ")))?;
            }
            (None, Some(template)) => step(f, "path", template)?,
            _ => {}
        }
        if let Some(rule) = &self.rule {
            step(f, "grant", rule)?;
        }
        for (index, line) in self.users.iter().enumerate() {
            step(f, if index == 0 { "users" } else { "" }, line)?;
        }
        for (index, limit) in self.limits.iter().enumerate() {
            step(f, if index == 0 { "limits" } else { "" }, limit)?;
        }
        if let Some(used) = &self.credential {
            step(f, "credential", &credential(used))?;
        }
        if let Some(sent) = &self.sent {
            self.sent(f, sent)?;
        }
        if let Some(answer) = self.answer {
            step(f, "answer", answer)?;
        }
        if let Some(not_judged) = self.not_judged {
            step(f, "not judged", not_judged)?;
        }
        match &self.refused {
            None => match &self.would_refuse {
                None => write!(f, "\nallowed"),
                Some(would) => {
                    let until = would.until.map(humantime::format_rfc3339_seconds);
                    let until = until.map(|until| until.to_string()).unwrap_or_default();
                    write!(f, "\nallowed by observe mode alone, until {until}; then {}", would.refused.code)?;
                    would.refused.changes.iter().try_for_each(|change| write!(f, "\n  - {}", Escaped(change)))
                }
            },
            Some(refused) => {
                write!(f, "\nrefused: {} {}", refused.status, refused.code)?;
                refused.changes.iter().try_for_each(|change| write!(f, "\n  - {}", Escaped(change)))
            }
        }
    }
}

impl Explanation {
    fn sent(&self, f: &mut fmt::Formatter<'_>, sent: &Sent) -> fmt::Result {
        let query: Vec<String> = sent.query.iter().map(|name| format!("{name}={MASK}")).collect();
        let and = if query.is_empty() { String::new() } else { format!(" with {}", query.join("&")) };
        step(f, "sent", &format!("{} {} to {}{and}", self.method, sent.target, self.host))?;
        let removed = sent.removed.iter().map(|name| format!("- {name}: {MASK}"));
        let kept = sent.kept.iter().map(|name| format!("  {name}"));
        let added = sent.added.iter().map(|(name, value)| format!("+ {name}: {value}"));
        let mut label = "headers";
        for line in removed.chain(kept).chain(added) {
            step(f, label, &line)?;
            label = "";
        }
        Ok(())
    }
}

fn credential(used: &UsedCredential) -> String {
    let fingerprint = match (&used.fingerprint, &used.note) {
        (Some(fingerprint), _) => format!(", fingerprint {fingerprint}"),
        (None, Some(note)) => format!(", fingerprint unknown: {note}"),
        (None, None) => String::new(),
    };
    format!("{} as {}{fingerprint}", used.name, used.kind)
}

fn step(f: &mut fmt::Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    writeln!(f, "  {label:<11} {}", Escaped(text))
}
