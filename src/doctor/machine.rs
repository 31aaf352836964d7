//! This process's limits, and who else may touch its files.

use std::{collections::BTreeMap, fs, path::Path};

use super::{Report, finding::Finding};
use crate::{
    capacity,
    config::{Config, FileKind, permissions},
    process::{Hardening, Memory},
    vault::permissions as private,
};

/// What the kernel granted to this command; it grants a service what its unit or container says.
pub(super) fn limits(hardening: &Hardening, config: &Config, report: &mut Report) {
    let dumps = match (hardening.core_limit, hardening.not_dumpable) {
        (Ok(()), Ok(())) => Ok("no core dump is written of this process"),
        (Err(error), _) | (_, Err(error)) => Err(format!("core dumps could not be switched off: {error}")),
    };
    match dumps {
        Ok(said) => report.add(None, "process", Finding::Fine, said),
        Err(said) => report.add(None, "process", Finding::CoreDumps, said),
    }
    let finding = match hardening.memory {
        Memory::NoSwap | Memory::Locked => Finding::Fine,
        Memory::Limited(_) | Memory::Refused(_) => Finding::MemoryNotLocked,
    };
    report.add(None, "process", finding, format_args!("memory: {}", hardening.memory));
    let misfits = capacity::warnings(config);
    if misfits.is_empty() {
        report.add(None, "process", Finding::Fine, format_args!("open files: {}", hardening.open_files));
    }
    misfits.iter().for_each(|misfit| report.add(None, "process", Finding::Capacity, misfit));
}

/// Files that decide what the gateway does, and those that are secret.
pub(super) fn files(config: &Config, path: &Path, report: &mut Report) {
    // One that is named twice is what it is at most.
    let mut files = BTreeMap::from([(path.to_owned(), FileKind::Trust)]);
    for (file, kind) in config.loaded_files().chain(config.other_files()) {
        files.entry(file).and_modify(|known| *known = kind.max(*known)).or_insert(kind);
    }
    let mut fine = 0;
    for (file, kind) in files {
        let (finding, reason) = judge(&file, kind);
        match finding {
            Finding::Fine => fine += 1,
            _ => report.add(None, "files", finding, format_args!("{}: {reason}", file.display())),
        }
    }
    let said = format!("{fine} files that nobody else can change, or read where they are secret");
    report.add(None, "files", Finding::Fine, said);
}

/// What is wrong with it. A file that is not there is missed by whoever needs it.
fn judge(file: &Path, kind: FileKind) -> (Finding, String) {
    let Ok(metadata) = fs::metadata(file) else { return (Finding::Fine, String::new()) };
    if let Err(untrusted) = permissions::check(file) {
        return (Finding::FileMode, untrusted.to_string());
    }
    match (kind, private::private(&metadata)) {
        (FileKind::Trust, _) | (_, Ok(())) => (Finding::Fine, String::new()),
        (FileKind::VaultKey, Err(refused)) => (Finding::FileMode, refused.to_string()),
        (FileKind::Secret, Err(refused)) => (Finding::FileReadable, refused.to_string()),
    }
}
