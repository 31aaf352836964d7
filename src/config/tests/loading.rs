//! The file itself, and texts that are hardly a configuration.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use proptest::prelude::*;

use super::{Config, SMALLEST, lines, parse};

fn load(content: &[u8], mode: u32) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mxgate.toml");
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let result = Config::load(&path);
    assert_eq!(result.is_ok(), lines(&result).is_empty());
    let name = format!("{}/", directory.path().display());
    lines(&result).iter().map(|line| line.replace(&name, "")).collect()
}

#[test]
fn a_file_is_loaded_unless_others_may_write_it() {
    assert_eq!(load(SMALLEST.as_bytes(), 0o644), [""; 0]);
    assert_eq!(
        load(SMALLEST.as_bytes(), 0o664),
        ["mxgate.toml: may be written by group or others (mode 0664); chmod go-w it"]
    );
}

#[test]
fn a_file_is_utf8_and_of_a_sensible_size() {
    let latin1 = [SMALLEST.as_bytes(), b"# caf\xe9\n"].concat();
    assert_eq!(load(&latin1, 0o600), ["mxgate.toml:12:6: is not UTF-8 from here on"]);
    let long = SMALLEST.to_owned() + &"#".repeat(16 << 20);
    assert_eq!(load(long.as_bytes(), 0o600), ["mxgate.toml: is too large; at most 16777216 bytes"]);
    let windows = SMALLEST.replace('\n', "\r\n");
    assert_eq!(load(windows.as_bytes(), 0o600), [""; 0]);
}

#[test]
fn what_is_no_file_says_so() {
    let absent = lines(&Config::load(Path::new("/nonexistent/mxgate.toml")));
    assert!(absent[0].starts_with("/nonexistent/mxgate.toml: cannot be read: No such file"), "{absent:?}");
    assert_eq!(lines(&Config::load(Path::new("/dev/zero"))), ["/dev/zero: is not a regular file"]);
    assert_eq!(lines(&Config::load(Path::new("/"))), ["/: is not a regular file"]);
}

#[test]
fn control_characters_of_the_file_and_its_name_are_escaped() {
    let result = Config::parse("a\u{7f} = 1", "a\u{1b}[2J", &super::Overrides::none());
    let shown = lines(&result).concat();
    assert!(shown.starts_with("a\\u{1b}[2J:1:"), "{shown}");
    assert!(!shown.contains(char::is_control), "{shown:?}");
}

proptest! {
    /// Texts made of a configuration's pieces: never a panic, and never accepted without listeners.
    #[test]
    fn any_text_ends_in_faults_and_not_in_a_panic(
        pieces in proptest::collection::vec(prop_oneof![
            Just("[[listener]]\n"), Just("[limits]\n"), Just("[environment.production]\n"), Just("[environment"),
            Just("credential = "), Just("{ kind = \"basic\" "), Just("}"), Just("allow = ["), Just("]"), Just("\""),
            Just("\"\"\""), Just("'"), Just(","), Just("\n"), Just("a.b.c = 1\n"), Just("x = 1e999\n"), Just("é"),
            Just("1979-05-27T07:32:00Z"), Just("\u{0}"), Just("limits.header_count_max = 64\n"), Just(" = "), Just("#"),
        ], 0..24),
        noise in ".{0,12}",
    ) {
        let text = pieces.concat() + &noise;
        let result = parse(&text);
        prop_assert!(!lines(&result).is_empty());
        prop_assert!(result.is_err());
    }

    /// A secret pasted where a reference belongs, in a file with further slips of the hand: wherever
    /// quotes, brackets and line ends are lost or doubled, nothing shows it.
    #[test]
    fn a_pasted_secret_is_never_shown_however_broken_the_file(
        slips in proptest::collection::vec((0..400_usize, prop_oneof![
            Just(""), Just("\""), Just("'"), Just("="), Just(","), Just("{"), Just("}"), Just("["), Just("]"), Just("\n"),
            Just("."), Just("#"), Just(" "), Just("\"\"\""),
        ]), 0..6),
    ) {
        const SECRET: &str = "c4n4ry-S3CR3T";
        let text = SMALLEST.replace("env:MX_API_KEY", SECRET) + "[log]\nformat = \"c4n4ry-S3CR3T\"\n";
        let mut pieces: Vec<String> = text.split(SECRET).flat_map(|part| {
            part.chars().map(String::from).chain([SECRET.to_owned()])
        }).collect();
        for (at, slip) in slips {
            let at = at % pieces.len();
            if pieces[at] != SECRET {
                pieces[at] = slip.to_owned();
            }
        }
        let result = parse(&pieces.concat());
        prop_assert!(result.is_err());
        for fault in result.unwrap_err().0 {
            let printed = format!("{fault} {}", fault.to_json());
            prop_assert!(!printed.contains("c4n4ry"), "{}", printed);
        }
    }
}
