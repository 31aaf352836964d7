//! Every form in which a secret may come back: in goes one [`Secret`], out go the byte strings to look for.
//!
//! An upstream that echoes a credential rarely echoes it as it was sent: it decodes Basic, puts the
//! key into JSON, a URL, an HTML error page or a hex dump; our own `Debug` prints byte lists. For a key of
//! letters and digits most forms are equal, and about a dozen are left.
//!
//! Not covered, because no fixed list could: encodings of encodings (but for Base64 inside JSON and
//! URLs), hex digits of mixed case, the secret in capitals, Base64 broken into lines, compression (answers in a content coding
//! are refused before they come here), encryption, digests, a secret cut into pieces.
//! What must never happen: a form too short to be told from ordinary text, see [`FORM_BYTES_MIN`].

use base64::{
    Engine as _,
    engine::{GeneralPurpose, general_purpose},
};
use zeroize::Zeroizing;

use crate::vault::secret::{self, Secret};

/// One byte string to look for; wiped on drop.
pub(crate) type Form = Zeroizing<Vec<u8>>;

/// The shortest form there can be, in bytes. Raw forms have [`secret::BYTES_MIN`]; the others are longer,
/// except for Base64 where up to five bits at either end belong to a neighbour's character.
pub(crate) const FORM_BYTES_MIN: usize = 6;

const _: () =
    assert!(secret::BYTES_MIN >= FORM_BYTES_MIN && (secret::BYTES_MIN * 8 - 10) / 6 >= FORM_BYTES_MIN);

/// All forms of `secret`, sorted, each once.
#[expect(clippy::disallowed_methods, reason = "what is to be masked has to be known by value")]
pub(super) fn forms(secret: &Secret) -> Vec<Form> {
    let bytes = secret.expose();
    // In lower case, too: so it comes back where it was taken for the name of a header field.
    let mut forms = vec![Form::new(bytes.to_vec()), Form::new(bytes.to_ascii_lowercase())];
    forms.extend(base64(bytes));
    forms.extend(percent(bytes));
    forms.extend(json(bytes));
    forms.extend(html(bytes));
    forms.extend(
        [Digits::Lower, Digits::Upper].map(|digits| build(bytes, 2, |byte, out| hex(byte, digits, out))),
    );
    forms.extend([", ", ","].map(|separator| byte_list(bytes, separator)));
    forms.sort_unstable_by(|a, b| a.as_slice().cmp(b));
    forms.dedup();
    forms
}

/// Both alphabets of RFC 4648 at each of the three places a byte can have in a group of three.
///
/// With `n` bytes before the secret, the characters that hold bits of those bytes, or of what follows the
/// secret, depend on more than the secret and are left out: so these forms are also found inside
/// `base64(client_id:api_key)`, with padding or without. At most four bits of the secret's first and of its
/// last byte stay readable beside the mask. `+` and `/` may be escaped once more, by a URL or by JSON.
fn base64(bytes: &[u8]) -> Vec<Form> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let standard = aligned(bytes, before, &general_purpose::STANDARD_NO_PAD);
        for (plus, slash) in [("+", "\\/"), ("%2B", "%2F"), ("%2b", "%2f")] {
            forms.push(build(&standard, 3, |byte, out| match byte {
                b'+' => out.extend_from_slice(plus.as_bytes()),
                b'/' => out.extend_from_slice(slash.as_bytes()),
                _ => out.push(byte),
            }));
        }
        forms.push(standard);
        forms.push(aligned(bytes, before, &general_purpose::URL_SAFE_NO_PAD));
    }
    forms
}

fn aligned(bytes: &[u8], before: usize, engine: &GeneralPurpose) -> Form {
    let mut padded = Form::new(Vec::with_capacity(before + bytes.len()));
    padded.resize(before, 0);
    padded.extend_from_slice(bytes);
    let encoded = Zeroizing::new(engine.encode(&*padded));
    let (first, end) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
    Form::new(encoded.as_bytes()[first..end].to_vec())
}

/// RFC 3986 and what encoders make of it: they agree on letters and digits and on little else.
fn percent(bytes: &[u8]) -> Vec<Form> {
    const UNRESERVED: &[u8] = b"-._~";
    const ENCODE_URI_COMPONENT: &[u8] = b"-._~!'()*";
    const ENCODE_URI: &[u8] = b"-._~!'()*;,/?:@&=+$#";
    const FORM: &[u8] = b"*-._"; // application/x-www-form-urlencoded, where a space is `+`

    let mut forms = Vec::new();
    for digits in [Digits::Lower, Digits::Upper] {
        let escape = |byte, out: &mut Vec<u8>| {
            out.push(b'%');
            hex(byte, digits, out);
        };
        forms.push(build(bytes, 3, escape));
        for kept in [UNRESERVED, ENCODE_URI_COMPONENT, ENCODE_URI, FORM] {
            forms.push(build(bytes, 3, |byte, out| match byte {
                b' ' if kept == FORM => out.push(b'+'),
                _ if byte.is_ascii_alphanumeric() || kept.contains(&byte) => out.push(byte),
                _ => escape(byte, out),
            }));
        }
    }
    forms
}

/// RFC 8259, section 7: every character may be written in several ways.
fn json(bytes: &[u8]) -> Vec<Form> {
    /// Which characters become `\uXXXX`, besides those that must be escaped.
    #[derive(Clone, Copy)]
    enum Long {
        None,
        Html,
        HtmlAndQuotes,
        NonAscii,
        All,
    }
    let escape = |c: char, slash: bool, long: Long, digits, out: &mut Vec<u8>| {
        let is_long = match long {
            Long::None => false,
            Long::Html => "<>&".contains(c),
            Long::HtmlAndQuotes => "<>&'\"".contains(c),
            Long::NonAscii => !c.is_ascii(),
            Long::All => true,
        };
        match c {
            _ if is_long => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.extend_from_slice(b"\\u");
                    unit.to_be_bytes().into_iter().for_each(|byte| hex(byte, digits, out));
                }
            }
            '"' | '\\' => out.extend([b'\\', c as u8]),
            '/' if slash => out.extend_from_slice(b"\\/"),
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    };
    let mut forms = Vec::new();
    for slash in [false, true] {
        for long in [Long::None, Long::Html, Long::HtmlAndQuotes, Long::NonAscii, Long::All] {
            for digits in [Digits::Lower, Digits::Upper] {
                let mut form = Form::new(Vec::with_capacity(bytes.len() * 6));
                for chunk in bytes.utf8_chunks() {
                    chunk.valid().chars().for_each(|c| escape(c, slash, long, digits, &mut form));
                    chunk
                        .invalid()
                        .iter()
                        .for_each(|byte| escape((*byte).into(), slash, long, digits, &mut form));
                }
                forms.push(form);
            }
        }
    }
    forms
}

/// The flavours differ in what they do to quotes.
fn html(bytes: &[u8]) -> impl Iterator<Item = Form> {
    let flavours =
        [("\"", "'"), ("&quot;", "'"), ("&quot;", "&#39;"), ("&quot;", "&#x27;"), ("&#34;", "&#39;")];
    flavours.into_iter().map(|(double, single)| {
        build(bytes, 6, |byte, out| match byte {
            b'&' => out.extend_from_slice(b"&amp;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'"' => out.extend_from_slice(double.as_bytes()),
            b'\'' => out.extend_from_slice(single.as_bytes()),
            _ => out.push(byte),
        })
    })
}

/// What `{:?}` (or JSON) makes of a byte slice: the usual way for a Rust program to log one by mistake.
fn byte_list(bytes: &[u8], separator: &str) -> Form {
    let mut form = Form::new(Vec::with_capacity(bytes.len() * 5));
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            form.extend_from_slice(separator.as_bytes());
        }
        let digits = [byte / 100, byte / 10 % 10, byte % 10].map(|digit| b'0' + digit);
        let zeros = digits[..2].iter().take_while(|digit| **digit == b'0').count();
        form.extend_from_slice(&digits[zeros..]);
    }
    form
}

#[derive(Clone, Copy)]
enum Digits {
    Lower,
    Upper,
}

fn hex(byte: u8, digits: Digits, out: &mut Vec<u8>) {
    let table: &[u8; 16] = match digits {
        Digits::Lower => b"0123456789abcdef",
        Digits::Upper => b"0123456789ABCDEF",
    };
    out.extend([byte >> 4, byte & 15].map(|half| table[usize::from(half)]));
}

/// Writes every byte with `write`, which adds at most `growth` bytes: a buffer that had to grow would leave
/// an unwiped copy behind.
fn build(bytes: &[u8], growth: usize, write: impl Fn(u8, &mut Vec<u8>)) -> Form {
    let mut form = Form::new(Vec::with_capacity(bytes.len() * growth));
    bytes.iter().for_each(|byte| write(*byte, &mut form));
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "9f3Kq7Zt20xLmW8b";
    const ODD: &str = "a\"b\\c/d+e f&g<h'ü=~!";

    fn texts(secret: &str) -> Vec<String> {
        let secret = Secret::new(secret.into()).unwrap();
        forms(&secret).iter().map(|form| String::from_utf8(form.to_vec()).unwrap()).collect()
    }

    #[track_caller]
    fn assert_found(secret: &str, text: &str) {
        assert!(texts(secret).iter().any(|form| text.contains(form)), "{text}");
    }

    #[test]
    fn what_common_encoders_write_is_a_form() {
        for text in [
            ODD,
            &serde_json::to_string(ODD).unwrap(),
            r#"a\"b\\c\/d+e f&g<h'\u00fc=~!"#,     // PHP's json_encode
            r#"a\"b\\c/d+e f\u0026g\u003ch'ü=~!"#, // Go's encoding/json
            r#"a\u0022b\\c/d+e f\u0026g\u003Ch\u0027ü=~!"#, // JSON_HEX_*
            "a%22b%5Cc%2Fd%2Be%20f%26g%3Ch%27%C3%BC%3D~%21", // RFC 3986
            "a%22b%5cc%2fd%2be%20f%26g%3ch%27%c3%bc%3d~%21", // the same in lower case
            "a%22b%5Cc%2Fd%2Be%20f%26g%3Ch'%C3%BC%3D~!", // encodeURIComponent
            "a%22b%5Cc/d+e%20f&g%3Ch'%C3%BC=~!",   // encodeURI
            "a%22b%5Cc%2Fd%2Be+f%26g%3Ch%27%C3%BC%3D%7E%21", // a form field
            "a&quot;b\\c/d+e f&amp;g&lt;h&#x27;ü=~!", // Python's html.escape
            "a&#34;b\\c/d+e f&amp;g&lt;h&#39;ü=~!", // Go's html/template
            &format!("{:?}", ODD.as_bytes()),
            &serde_json::to_string(ODD.as_bytes()).unwrap(),
        ] {
            assert_found(ODD, text);
        }
        assert!(!texts(ODD).iter().any(|form| ODD.to_uppercase().contains(form)), "another text is no form");
    }

    #[test]
    fn every_byte_escaped_is_a_form() {
        let each = |write: fn(u8) -> String| PLAIN.bytes().map(write).collect::<String>();
        for text in [
            each(|byte| format!("%{byte:02x}")),
            each(|byte| format!("%{byte:02X}")),
            each(|byte| format!("\\u{byte:04x}")),
            each(|byte| format!("\\u{byte:04X}")),
            each(|byte| format!("{byte:02x}")),
            each(|byte| format!("{byte:02X}")),
        ] {
            assert_found(PLAIN, &text);
            assert!(!texts(ODD).iter().any(|form| text.contains(form)));
        }
    }

    #[test]
    fn basic_is_found_whatever_the_client_id_and_what_follows() {
        for secret in [PLAIN, ODD, "12345678"] {
            for length in 0..8 {
                for end in ["", "x", "xy"] {
                    let text = format!("{}:{secret}{end}", "c".repeat(length));
                    for engine in [
                        &general_purpose::STANDARD,
                        &general_purpose::STANDARD_NO_PAD,
                        &general_purpose::URL_SAFE,
                    ] {
                        let encoded = engine.encode(&text);
                        assert_found(secret, &encoded);
                        assert_found(secret, &encoded.replace('/', "\\/"));
                        assert_found(secret, &encoded.replace('+', "%2B").replace('/', "%2F"));
                    }
                }
            }
        }
    }

    #[test]
    fn other_base64_is_no_form() {
        let other = general_purpose::STANDARD.encode(format!("client:{}", PLAIN.to_lowercase()));
        assert!(!texts(PLAIN).iter().any(|form| other.contains(form)));
    }

    #[test]
    fn no_form_is_short_and_none_is_there_twice() {
        for secret in ["12345678", PLAIN, ODD] {
            let mut texts = texts(secret);
            assert!(texts.iter().all(|form| form.len() >= FORM_BYTES_MIN), "{texts:?}");
            let count = texts.len();
            texts.dedup();
            assert_eq!(texts.len(), count);
        }
        assert_eq!(texts(PLAIN).len(), 13, "{:?}", texts(PLAIN));
    }

    #[test]
    fn bytes_that_are_no_text_have_forms_too() {
        let secret = Secret::new(vec![0xff, 0xfe, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85]).unwrap();
        let forms = forms(&secret);
        assert!(forms.iter().any(|form| form.as_slice() == b"fffe808182838485"));
        assert!(forms.iter().any(|form| form.starts_with(b"\\u00ff\\u00fe\\u0080")));
    }
}
