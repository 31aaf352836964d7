//! `mxgate operations`: MX's operations, and what a grant over them allows.
//!
//! Reads the catalogue that is compiled in and nothing else. Exit code 0: shown, if only that nothing fits; 3: the
//! grant has faults; 2: a filter is no such thing; 1: the result could not be printed.

mod text;

use std::{io, process::ExitCode};

use clap::builder::PossibleValuesParser;
use mxgate::{
    config::{self, fault::Problem},
    mx::{
        Version,
        catalogue::{Class, Operation, OperationCredential, catalogue},
    },
    policy::grant::{
        Effect, Item, Rule, Term, decide,
        review::{Finding, review},
        spelled,
    },
};
use serde_json::{Value, json};

use super::out;

/// Which operations to show. Filters of one kind add up, those of different kinds must all hold.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only those whose id, path or tag holds each of these texts, in any case.
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// Only those of this tag, MX's grouping.
    #[arg(long, value_name = "TAG", value_parser = tag)]
    tag: Vec<String>,
    /// Only those of this class.
    #[arg(long, value_name = "CLASS", value_parser = PossibleValuesParser::new(Class::ALL.map(Class::as_str)))]
    class: Vec<String>,
    /// Only those with this method.
    #[arg(long, value_name = "METHOD", ignore_case = true, value_parser = ["GET", "POST", "PUT", "DELETE"])]
    method: Vec<String>,
    /// Only those that this version of MX's API has.
    #[arg(long, value_name = "VERSION", value_parser = PossibleValuesParser::new(Version::ALL.map(Version::as_str)))]
    api_version: Option<String>,
    /// Only those that MX calls deprecated.
    #[arg(long)]
    deprecated: bool,
    /// Only those that this grant allows, such as "read,-tag:insights", each with the item that decided.
    #[arg(long, value_name = "ITEMS", allow_hyphen_values = true)]
    grant: Option<String>,
    /// With --grant: those that it does not allow, each with why.
    #[arg(long, requires = "grant")]
    refused: bool,
}

/// Shows them, and says how it went.
pub(crate) fn run(args: &Args, json: bool) -> ExitCode {
    show(args, json).unwrap_or(ExitCode::FAILURE)
}

fn show(args: &Args, json: bool) -> io::Result<ExitCode> {
    let grant = match args.grant.as_deref().map(Grant::parse).transpose() {
        Ok(grant) => grant,
        Err(faults) => {
            if json {
                out::json(&json!({ "faults": faults }))?;
            } else {
                faults.iter().try_for_each(|fault| out::line(format_args!("--grant: {fault}")))?;
            }
            return Ok(ExitCode::from(super::EXIT_FAULTS));
        }
    };
    let fitting: Vec<&Operation> = catalogue().operations().iter().filter(|one| args.fits(one)).collect();
    let shown: Vec<Shown<'_>> = fitting
        .iter()
        .map(|operation| Shown {
            operation,
            rule: grant.as_ref().map(|grant| decide(&grant.items, operation)),
        })
        .filter(|shown| shown.rule.is_none_or(|rule| rule.is_allowed() != args.refused))
        .collect();
    if json {
        out::json(&as_json(&shown, grant.as_ref()))?;
    } else {
        out::line(text::page(&shown, fitting.len(), grant.as_ref(), args.refused).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One operation, and what the grant says of it.
struct Shown<'a> {
    operation: &'a Operation,
    rule: Option<Rule<'a>>,
}

/// What stands behind `--grant`.
struct Grant {
    items: Vec<Item>,
    /// What of it does nothing, by item.
    warnings: Vec<String>,
}

impl Grant {
    /// Every fault at once, each with the place of its item.
    fn parse(text: &str) -> Result<Self, Vec<String>> {
        let texts: Vec<&str> = text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect();
        let (mut items, mut faults) = (Vec::new(), Vec::new());
        for (place, text) in texts.iter().enumerate() {
            match item(text) {
                Ok(item) => items.push(item),
                Err(problem) => faults.push(format!("item {place}: {problem}")),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let said = |(place, finding): (usize, Finding)| format!("item {place}: {finding}");
        let (faults, warnings): (Vec<_>, Vec<_>) =
            review(&items, None).into_iter().partition(|(_, finding)| finding.is_fault());
        if !faults.is_empty() {
            return Err(faults.into_iter().map(said).collect());
        }
        Ok(Self { items, warnings: warnings.into_iter().map(said).collect() })
    }

    fn paths(&self) -> Vec<String> {
        let paths = Effect::of(&self.items, None).paths.into_iter();
        paths.map(|path| format!("{} {}", path.method, path.template)).collect()
    }
}

fn item(text: &str) -> Result<Item, Problem> {
    let item = config::grant_item(text)?;
    match item.term {
        Term::Paths => Err(Problem {
            what: "is for environments that list their own paths".into(),
            allowed: None,
            nearest: None,
        }),
        _ => Ok(item),
    }
}

impl Args {
    fn fits(&self, operation: &Operation) -> bool {
        let any = |wanted: &[String], fits: &dyn Fn(&str) -> bool| {
            wanted.is_empty() || wanted.iter().any(|one| fits(one))
        };
        let version = self.api_version.as_deref().and_then(Version::parse);
        let searched = [operation.id, operation.template, operation.tag].map(str::to_lowercase);
        any(&self.tag, &|tag| spelled(operation.tag) == tag)
            && any(&self.class, &|class| {
                Class::parse(class).is_some_and(|one| operation.classes.contains(one))
            })
            && any(&self.method, &|method| operation.method.as_str().eq_ignore_ascii_case(method))
            && version.is_none_or(|version| operation.versions.contains(version))
            && (!self.deprecated || operation.deprecated_in.is_some())
            && self.texts.iter().all(|text| searched.iter().any(|in_it| in_it.contains(&text.to_lowercase())))
    }
}

/// As grants spell it.
fn tag(text: &str) -> Result<String, Problem> {
    config::grant_item(&format!("tag:{text}")).map(|_| text.to_owned())
}

fn as_json(shown: &[Shown<'_>], grant: Option<&Grant>) -> Value {
    let operations: Vec<Value> = shown.iter().map(Shown::as_json).collect();
    match grant {
        None => json!({ "operations": operations }),
        Some(grant) => {
            json!({ "operations": operations, "paths": grant.paths(), "warnings": grant.warnings })
        }
    }
}

impl Shown<'_> {
    fn as_json(&self) -> Value {
        let Operation { id, template, tag, .. } = self.operation;
        let versions: Vec<&str> = self.versions().map(Version::as_str).collect();
        let mut value = json!({
            "id": id, "method": self.operation.method.as_str(), "path": template, "tag": tag,
            "credential": self.credential(),
            "media_types": self.operation.media_types.iter().map(|one| one.as_str()).collect::<Vec<_>>(),
            "classes": self.classes(),
            "repeatable": self.operation.repeatable,
            "versions": versions,
            "deprecated_in": self.operation.deprecated_in.map(Version::as_str),
        });
        if let (Some(rule), Some(object)) = (self.rule, value.as_object_mut()) {
            let item = match rule {
                Rule::Allows(item) | Rule::Excludes(item) | Rule::NotAskedFor(item, _) => {
                    Some(item.to_string())
                }
                Rule::Nothing => None,
            };
            object.insert("allowed".into(), rule.is_allowed().into());
            object.insert("decided_by".into(), item.into());
            object.insert("not_asked_for".into(), rule.missing_class().map(Class::as_str).into());
        }
        value
    }

    fn classes(&self) -> Vec<&'static str> {
        self.operation.classes.iter().map(Class::as_str).collect()
    }

    fn versions(&self) -> impl Iterator<Item = Version> {
        Version::ALL.into_iter().filter(|version| self.operation.versions.contains(*version))
    }

    fn credential(&self) -> &'static str {
        match self.operation.credential {
            OperationCredential::Environment => "environment",
            OperationCredential::Bearer => "bearer",
        }
    }
}
