//! Operations for people: three lines each, grouped by tag, in 80 to 120 columns.

use std::fmt::Write as _;

use mxgate::{
    mx::{Version, catalogue::Class},
    policy::grant::{Item, Rule},
};

use super::{Grant, Shown};

/// Wide enough for all ids but two.
const ID_WIDTH: usize = 36;

/// Everything. `of` is how many operations fit the filters, whatever the grant says.
pub(super) fn page(shown: &[Shown<'_>], of: usize, grant: Option<&Grant>, refused: bool) -> String {
    let mut page = String::new();
    let mut tags: Vec<&str> = shown.iter().map(|one| one.operation.tag).collect();
    tags.sort_unstable();
    tags.dedup();
    for tag in tags {
        line(&mut page, format_args!("{tag}\n"));
        for one in shown.iter().filter(|one| one.operation.tag == tag) {
            operation(&mut page, one);
        }
    }
    match grant {
        None => line(&mut page, operations(shown.len())),
        Some(grant) => {
            let verb = if refused { "refused" } else { "allowed" };
            of_grant(&mut page, format_args!("{} of {} {verb}", shown.len(), operations(of)), grant);
        }
    }
    page
}

fn operation(page: &mut String, shown: &Shown<'_>) {
    let operation = shown.operation;
    line(page, format_args!("  {:ID_WIDTH$}  {}", operation.id, shown.classes().join(", ")));
    line(page, format_args!("    {} {}", operation.method, operation.template));
    let media: Vec<&str> = operation.media_types.iter().map(|one| short(one.as_str())).collect();
    let media = match (media.is_empty(), operation.versions.is_empty()) {
        (false, _) => media.join(", "),
        (true, false) => "no body".into(),
        (true, true) => "-".into(),
    };
    let replay = if operation.repeatable { "repeatable" } else { "sent once" };
    let versions: Vec<&str> = shown.versions().map(Version::as_str).collect();
    let versions = if versions.is_empty() { "documented elsewhere".to_owned() } else { versions.join(" ") };
    let deprecated = operation.deprecated_in.map(|since| format!("  DEPRECATED in {}", since.as_str()));
    let credential = shown.credential();
    line(
        page,
        format_args!(
            "    {credential:11}  {media:13}  {replay:10}  {versions}{}",
            deprecated.unwrap_or_default()
        ),
    );
    if let Some(rule) = shown.rule {
        line(page, format_args!("    {}", why(rule)));
    }
    page.push('\n');
}

/// A media type without what all of them have.
fn short(media_type: &str) -> &str {
    let subtype = media_type.strip_prefix("application/").unwrap_or(media_type);
    subtype.strip_prefix("vnd.mx.api.").unwrap_or(subtype)
}

fn why(rule: Rule<'_>) -> String {
    let quoted = |item: &Item| format!("\"{item}\"");
    match rule {
        Rule::Allows(item) => format!("allowed by {}", quoted(item)),
        Rule::Excludes(item) => format!("refused by {}", quoted(item)),
        Rule::NotAskedFor(item, Class::KeyAdmin) => {
            format!(
                "refused: {} never brings key-admin, which is granted by operation id alone",
                quoted(item)
            )
        }
        Rule::NotAskedFor(item, class) => {
            format!("refused: {} brings it only where {} is asked for as well", quoted(item), class.as_str())
        }
        Rule::Nothing => "refused: no item covers it".into(),
    }
}

fn of_grant(page: &mut String, counted: std::fmt::Arguments<'_>, grant: &Grant) {
    for path in grant.paths() {
        line(page, format_args!("and outside of the catalogue: {path}"));
    }
    line(page, counted);
    for warning in &grant.warnings {
        line(page, format_args!("warning: {warning}"));
    }
}

fn operations(count: usize) -> String {
    format!("{count} operation{}", if count == 1 { "" } else { "s" })
}

fn line(page: &mut String, text: impl std::fmt::Display) {
    // A `String` takes every write.
    _ = writeln!(page, "{text}");
}
