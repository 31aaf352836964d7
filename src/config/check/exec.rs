//! `[exec.NAME]`.

use std::collections::BTreeMap;

use super::{environment::is_name, refresh::refresh};
use crate::config::{
    Exec,
    fault::Problem,
    walk::{Table, absolute_path},
};
use crate::tree::tree;

/// Every command, by name; `None` for one with a fault.
pub(super) fn all(file: &Table<'_>) -> BTreeMap<String, Option<Exec>> {
    tree(file.named("exec").into_iter().map(|(name, table)| (name.to_owned(), one(file, name, &table))))
}

fn one(file: &Table<'_>, name: &str, table: &Table<'_>) -> Option<Exec> {
    if !is_name(name) {
        let form = "lower-case letters and digits, joined by single - or _, a letter first";
        file.fault(&format!("exec.{name}"), Problem::new("has a name of another form").allowed(form));
    }
    let command = command(table);
    let variables = table.list("variables", variable);
    let exec = Exec {
        command: command.unwrap_or_default(),
        variables,
        timeout: table.millis("timeout_ms"),
        output_bytes_max: table.size("output_bytes_max"),
        refresh: refresh(table),
    };
    (!exec.command.is_empty()).then_some(exec)
}

/// A path and arguments, none of which is repeated.
fn command(table: &Table<'_>) -> Option<Vec<String>> {
    let words = table.list("command", |word| match word.contains('\0') {
        true => Err("holds a NUL".into()),
        false => Ok(word.to_owned()),
    });
    match words.first().map(|first| absolute_path(first)) {
        Some(Ok(_)) => Some(words),
        Some(Err(problem)) => {
            table.fault("command[0]", problem);
            None
        }
        None => {
            if table.is_empty_list("command") {
                table.fault(
                    "command",
                    Problem::new("is empty").allowed("expected an absolute path and its arguments"),
                );
            }
            None
        }
    }
}

fn variable(name: &str) -> Result<String, Problem> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match !name.is_empty() && name.bytes().all(is_name) {
        true => Ok(name.to_owned()),
        // A value in the configuration could be a secret.
        false => {
            Err(Problem::new("is no name of a variable").allowed("letters, digits and _, without a value"))
        }
    }
}
