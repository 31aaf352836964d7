//! Looks for secrets, or what is left of them, in anything.
//!
//! The forms are written here a second time, naively and bit by bit, and share nothing with the product's
//! encoder: a form that the product forgets or gets wrong is found all the same. Not whole secrets are looked
//! for but pieces of eight bytes, so that a secret cut in two, of which one part was masked, is found too.

use aho_corasick::AhoCorasick;

/// The bytes of a secret that are looked for together. Every run of `PIECE + STEP - 1` bytes holds such a piece.
const PIECE: usize = 8;
const STEP: usize = 3;

/// One planted secret.
#[derive(Clone)]
pub struct Canary {
    /// Where it was planted; for messages.
    pub name: &'static str,
    pub value: String,
}

impl Canary {
    pub fn new(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, value: value.into() }
    }
}

/// Finds pieces of canaries in every form, in any case of letters.
pub struct Search {
    finder: AhoCorasick,
    /// Of each pattern.
    names: Vec<String>,
}

impl Search {
    pub fn new<'c>(canaries: impl IntoIterator<Item = &'c Canary>) -> Self {
        let (mut patterns, mut names) = (Vec::new(), Vec::new());
        for canary in canaries {
            let bytes = canary.value.as_bytes();
            assert!(bytes.len() >= PIECE && canary.value.is_ascii(), "{}", canary.name);
            for start in (0..=bytes.len() - PIECE).step_by(STEP) {
                for (form, pattern) in forms(&bytes[start..start + PIECE]) {
                    patterns.push(pattern);
                    names.push(format!("{} as {form}", canary.name));
                }
            }
        }
        // Header names come in lower case, and some programs shout.
        let finder = AhoCorasick::builder().ascii_case_insensitive(true).build(&patterns).expect("a finder");
        Self { finder, names }
    }

    /// What was found first, in which form, and what stands around it.
    pub fn first(&self, bytes: &[u8]) -> Option<String> {
        let found = self.finder.find(bytes)?;
        let around = &bytes[found.start().saturating_sub(80)..(found.end() + 40).min(bytes.len())];
        Some(format!("{}: {}", self.names[found.pattern()], String::from_utf8_lossy(around)))
    }

    /// Fails when anything is found.
    #[track_caller]
    pub fn assert_clean(&self, place: &str, bytes: &[u8]) {
        if let Some(found) = self.first(bytes) {
            panic!("{place} holds {found}");
        }
    }
}

/// All that programs commonly make of a text that they print, each with its name.
pub fn forms(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let each = |write: &dyn Fn(u8) -> String| bytes.iter().map(|byte| write(*byte)).collect::<String>();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let as_is = |byte: u8| char::from(byte).to_string();
    let texts = [
        ("itself", each(&as_is)),
        ("hex", each(&|byte| format!("{byte:02x}"))),
        ("HEX", each(&|byte| format!("{byte:02X}"))),
        ("%", each(&|byte| if is_plain(byte) { as_is(byte) } else { format!("%{byte:02X}") })),
        ("% in lower case", each(&|byte| if is_plain(byte) { as_is(byte) } else { format!("%{byte:02x}") })),
        ("% of every byte", each(&|byte| format!("%{byte:02X}"))),
        ("JSON", serde_json::Value::from(each(&as_is)).to_string().trim_matches('"').to_owned()),
        (
            "JSON of a careful encoder",
            each(&|byte| match byte {
                b'"' | b'\\' | b'/' => format!("\\{}", char::from(byte)),
                b'<' | b'>' | b'&' => format!("\\u{byte:04x}"),
                _ => as_is(byte),
            }),
        ),
        ("JSON of every byte", each(&|byte| format!("\\u{byte:04x}"))),
        ("JSON OF EVERY BYTE", each(&|byte| format!("\\u{byte:04X}"))),
        (
            "HTML",
            each(&|byte| match byte {
                b'&' => "&amp;".into(),
                b'<' => "&lt;".into(),
                b'>' => "&gt;".into(),
                b'"' => "&quot;".into(),
                b'\'' => "&#39;".into(),
                _ => as_is(byte),
            }),
        ),
        ("Debug of bytes", format!("{bytes:?}").trim_matches(['[', ']']).to_owned()),
        ("JSON list", format!("{bytes:?}").trim_matches(['[', ']']).replace(' ', "")),
    ];
    let base64 = (0..3).flat_map(|before| {
        [("Base64", b"+/"), ("Base64 for URLs", b"-_")]
            .map(|(name, last)| (name, base64_inside(bytes, before, *last)))
    });
    texts.into_iter().map(|(name, text)| (name, text.into_bytes())).chain(base64).collect()
}

/// The characters of Base64 that hold bits of `bytes` only, when `before` bytes (modulo three) stand before them.
fn base64_inside(bytes: &[u8], before: usize, last: [u8; 2]) -> Vec<u8> {
    let bits: Vec<bool> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect();
    let others = [0, 4, 2][before];
    let character = |bits: &[bool]| match bits.iter().fold(0_u8, |value, bit| value << 1 | u8::from(*bit)) {
        value @ 0..26 => b'A' + value,
        value @ 26..52 => b'a' + value - 26,
        value @ 52..62 => b'0' + value - 52,
        value => last[usize::from(value) - 62],
    };
    bits[others..].chunks_exact(6).map(character).collect()
}

#[test]
fn the_naive_base64_is_base64() {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let bytes: Vec<u8> = (0..=255).rev().collect();
    for before in 0..3 {
        let real = BASE64_STANDARD.encode([vec![b'x'; before], bytes.clone()].concat());
        let ours = String::from_utf8(base64_inside(&bytes, before, *b"+/")).unwrap();
        assert!(ours.len() > 330 && real.contains(&ours), "{before}");
    }
}
