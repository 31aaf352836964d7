//! From a file to a [`Config`] or to all that is wrong with it.

use std::{fs::File, io::Read as _, path::Path};

use super::{
    Config, check,
    document::{self, Parsed},
    fault::{Fault, Faults, Place, Problem, Report, Severity},
    overrides::{self, Overrides},
    permissions, schema,
};
use crate::capacity;

/// Ten thousand callers with long grants fit; a wrong path may lead to something that never ends.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is probably not meant.
    pub warnings: Vec<Fault>,
}

impl Config {
    /// Reads and checks the file at `path`, with the overrides of this process's environment. The file
    /// must be a regular one that only root or this user can write, and not larger than 16 MiB. What it allows is
    /// compared with what this process may have, see [`capacity`].
    ///
    /// # Errors
    /// Every fault of the file and of the variables, and the warnings.
    pub fn load(path: &Path) -> Result<Loaded, Faults> {
        let name = path.display().to_string();
        let text = read(path).map_err(|problem| Faults(vec![Fault::of_file(&name, problem)]))?;
        match String::from_utf8(text) {
            Ok(text) => {
                let mut loaded = Self::parse(&text, &name, &Overrides::from_environment())?;
                let misfits = capacity::warnings(&loaded.config).into_iter();
                loaded.warnings.extend(misfits.map(|misfit| Fault {
                    severity: Severity::Warning,
                    ..Fault::of_file(&name, Problem::new(misfit))
                }));
                Ok(loaded)
            }
            Err(error) => {
                Err(Faults(vec![not_utf8(&name, error.as_bytes(), error.utf8_error().valid_up_to())]))
            }
        }
    }

    /// Checks a configuration that is at hand as text; `file_name` appears in messages only.
    ///
    /// # Errors
    /// Every fault of the text and of the variables, and the warnings.
    pub fn parse(text: &str, file_name: &str, overrides: &Overrides) -> Result<Loaded, Faults> {
        let Parsed { mut root, mut faults, unread } = document::parse(text, file_name);
        faults.extend(overrides::apply(&mut root, file_name, overrides));
        let report = Report::new(file_name, &root, unread);
        let config = check::config(&root, &report);
        faults.extend(report.into_faults());
        faults.sort_by(|a, b| a.place.cmp(&b.place));
        match config {
            Some(config) if faults.iter().all(|fault| fault.severity == Severity::Warning) => {
                Ok(Loaded { config, warnings: faults })
            }
            _ => Err(Faults(faults)),
        }
    }

    /// The JSON schema of the file (draft 2020-12).
    #[must_use]
    pub fn json_schema() -> serde_json::Value {
        schema::json::schema()
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let unreadable = |error: std::io::Error| Problem::new(format!("cannot be read: {error}"));
    if !path.metadata().map_err(unreadable)?.is_file() {
        return Err("is not a regular file".into());
    }
    let file = File::open(path).map_err(unreadable)?;
    permissions::check_open(&file).map_err(|untrusted| Problem::new(untrusted.to_string()))?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Problem::new("is too large").allowed(format!("at most {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn not_utf8(file: &str, bytes: &[u8], valid: usize) -> Fault {
    let before = bytes.get(..valid).and_then(|before| std::str::from_utf8(before).ok()).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Fault {
        place: Place::At { line, column },
        ..Fault::of_file(file, Problem::from("is not UTF-8 from here on"))
    }
}
