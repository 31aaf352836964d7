//! The corpus, replayed; and each claim on generated cases and on what breaks it.

use std::{fs, panic, path::Path};

use super::TARGETS;

mod gates;
mod others;

/// Every input in a directory of `fuzz/`, with its path.
fn inputs(directory: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(directory);
    let files = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let paths = files.map(|file| file.unwrap().path());
    paths.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

#[test]
fn the_corpus_holds() {
    let mut failed = Vec::new();
    for (name, check) in TARGETS {
        let inputs = inputs(&format!("corpus/{name}"));
        assert!(!inputs.is_empty(), "{name} has no corpus");
        let fails = |input: &[u8]| panic::catch_unwind(|| check(input)).is_err();
        failed.extend(inputs.into_iter().filter(|(_, input)| fails(input)).map(|(path, _)| path));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// So that none is forgotten in `fuzz/Cargo.toml`, and none is only there.
#[test]
fn every_target_is_built() {
    let manifest = include_str!("../../fuzz/Cargo.toml");
    let built: Vec<&str> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""))
        .collect();
    assert_eq!(built, TARGETS.map(|(name, _)| name));
}
