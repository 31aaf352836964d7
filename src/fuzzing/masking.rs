//! Masking: what the finder and the groups of forms find is what comparing with every form at every place finds.
//!
//! Two bytes choose the pieces of a stream and whether there are more forms than Teddy takes; then forms, a line each,
//! an empty line, and the text, in which `<0>` to `<9>` stand for a form, and the same with `>` left out for one cut short.

use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::{split_choices, wire::Plan};
use crate::redaction::{FORM_BYTES_MIN, Masker, body::StreamMasker};

/// How many forms are like the first one, so that Teddy is not used and many grams are known.
const ALIKE: usize = 160;

pub(super) fn check(input: &[u8]) {
    let case = Case::new(input);
    if let Err(fault) = claims(&case, &case.masker()) {
        panic!("{fault}: {:?} {}", case.forms, case.text.escape_ascii());
    }
}

/// What is looked for, and in what.
#[derive(Debug, Clone)]
pub(super) struct Case {
    seed: u8,
    pub(super) forms: Vec<Vec<u8>>,
    text: Vec<u8>,
}

impl Case {
    pub(super) fn new(input: &[u8]) -> Self {
        let ([seed, choices], mut rest) = split_choices(input);
        let mut forms = Vec::new();
        while let Some((line, after)) = line(rest) {
            rest = after;
            if line.is_empty() {
                break;
            }
            if line.len() >= FORM_BYTES_MIN {
                forms.push(line.to_vec());
            }
        }
        let text = written_out(rest, &forms);
        if let Some(first) = forms.first().filter(|_| choices & 1 == 1).cloned() {
            forms.extend((0..ALIKE).map(|n| {
                let mut alike = first.clone();
                // Every other one has a beginning of its own.
                let at = n % if n % 2 == 0 { FORM_BYTES_MIN } else { alike.len() };
                alike[at] = alike[at].wrapping_add(1 + n as u8);
                alike
            }));
        }
        Self { seed, forms, text }
    }

    pub(super) fn masker(&self) -> Arc<Masker> {
        Arc::new(Masker::of(self.forms.iter().cloned().map(Zeroizing::new).collect()))
    }
}

fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b'\n')?;
    Some((&text[..end], &text[end + 1..]))
}

fn written_out(mut text: &[u8], forms: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((first, after)) = text.split_first() {
        text = after;
        match (first, text.first().and_then(|digit| forms.get(usize::from(digit.wrapping_sub(b'0'))))) {
            (b'<', Some(form)) => {
                text = &text[1..];
                let whole = text.strip_prefix(b">");
                text = whole.unwrap_or(text);
                out.extend_from_slice(&form[..form.len() - usize::from(whole.is_none())]);
            }
            _ => out.push(*first),
        }
    }
    out
}

pub(super) fn claims(case: &Case, masker: &Arc<Masker>) -> Result<(), String> {
    let (expected, hits) = plainly(case);
    let mut whole = case.text.clone();
    let found = masker.mask(&mut whole);
    if (found, &whole) != (hits, &expected) {
        return Err(format!("{found} places instead of {hits}: {}", whole.escape_ascii()));
    }
    if masker.is_hit(&case.text) != (hits > 0) {
        return Err("not the same without masking".into());
    }
    let mut stream = StreamMasker::new(Arc::clone(masker));
    let (mut plan, mut out, mut rest) = (Plan::new(case.seed), Vec::new(), &case.text[..]);
    let longest = case.forms.iter().map(Vec::len).max().unwrap_or(1);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(plan.next_some().min(rest.len()));
        rest = after;
        out.extend(stream.push(Bytes::copy_from_slice(piece)));
        if stream.held_bytes() >= longest || out.len() + stream.held_bytes() + rest.len() != case.text.len() {
            return Err(format!("{} bytes are held back after {}", stream.held_bytes(), out.len()));
        }
    }
    out.extend(stream.finish());
    if (stream.hits(), &out) != (hits, &expected) {
        return Err(format!("{} places of {hits} in pieces: {}", stream.hits(), out.escape_ascii()));
    }
    Ok(())
}

/// Every form at every place; those that overlap are one.
fn plainly(case: &Case) -> (Vec<u8>, usize) {
    let (mut out, mut hits, mut end) = (case.text.clone(), 0, 0);
    for start in 0..case.text.len() {
        let forms = case.forms.iter().filter(|form| case.text[start..].starts_with(form));
        if let Some(length) = forms.map(Vec::len).max() {
            hits += usize::from(start >= end);
            end = end.max(start + length);
            out[start..start + length].fill(b'*');
        }
    }
    (out, hits)
}
