//! `[tokens]`.

use super::credential::header_name;
use crate::config::{Tokens, fault::Problem, walk::Table};

/// `None` when the section is not written, or faulty.
pub(super) fn tokens(table: &Table<'_>) -> Option<Tokens> {
    let header = table.parsed("header", |text| {
        let name = header_name(text)?;
        // A token there is taken in any case, and so is MX's own.
        match name.as_str() {
            "authorization" => Err(Problem::new("is looked at in any case").allowed("name another field")),
            "mx-api-key" | "mx-client-id" | "mx-session-token" | "cookie" | "origin" | "user-agent" => {
                Err("has a meaning of its own".into())
            }
            _ => Ok(name),
        }
    });
    if !table.is_written() {
        return None;
    }
    let file = table.path("file");
    Some(Tokens { file: file?, header: header? })
}
