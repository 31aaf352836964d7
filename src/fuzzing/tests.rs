//! The corpus, replayed; and each claim on generated cases and on what breaks it.

use std::{fs, panic, path::Path};

use super::TARGETS;

mod messages;
mod others;

/// The inputs of `target` that are kept in this directory of `fuzz/`, with their paths.
fn inputs(kept: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kept).join(target);
    let files = fs::read_dir(&directory).into_iter().flatten();
    let paths = files.map(|file| file.unwrap().path());
    paths.map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

#[test]
fn the_corpus_holds() {
    let mut failed = Vec::new();
    for (name, check) in TARGETS {
        let corpus = inputs("corpus", name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        let all = corpus.into_iter().chain(inputs("regressions", name));
        let fails = |input: &[u8]| panic::catch_unwind(|| check(input)).is_err();
        failed.extend(all.filter(|(_, input)| fails(input)).map(|(path, _)| path));
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
