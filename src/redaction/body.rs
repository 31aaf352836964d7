//! The secret that was injected never comes back: an answer's body is masked while it streams.
//!
//! In go the upstream's data frames and trailers, out come the same, as many bytes, at the pace at which they
//! come. A frame in which nothing is found is passed on as it is, without a copy. Only an end that
//! really is the beginning of a form of the secret is held back, until the next frame or the end decides; it
//! is shorter than the longest form. What must never happen: a secret passes because it was cut
//! in two, or a byte is lost, added or held beyond the end.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{MASK, Masker, mask_headers};

/// Masks one text that comes in pieces.
#[derive(Debug)]
pub struct StreamMasker {
    masker: Arc<Masker>,
    /// The end of what came so far, which may be the beginning of a form. Not masked yet: it is compared again.
    held: BytesMut,
    /// How many of the first bytes of `held` belong to a form that was found already.
    masked: usize,
    hits: usize,
}

impl StreamMasker {
    /// Nothing is held at first.
    #[must_use]
    pub fn new(masker: Arc<Masker>) -> Self {
        Self { masker, held: BytesMut::new(), masked: 0, hits: 0 }
    }

    /// Takes the next piece and gives what can be passed on, which may be nothing yet.
    pub fn push(&mut self, piece: Bytes) -> Bytes {
        let text = self.join(piece);
        self.release(text, false)
    }

    /// Gives what was still held. Call it once, at the end.
    pub fn finish(&mut self) -> Bytes {
        self.finish_with(Bytes::new())
    }

    /// [`StreamMasker::push`] and [`StreamMasker::finish`] in one, when `piece` is known to be the last.
    fn finish_with(&mut self, piece: Bytes) -> Bytes {
        let text = self.join(piece);
        self.release(text, true)
    }

    /// How many places were hit so far; forms that overlap are one.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.hits
    }

    /// How many bytes are held back.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn join(&mut self, piece: Bytes) -> Bytes {
        if self.held.is_empty() {
            return piece;
        }
        self.held.extend_from_slice(&piece);
        self.held.split().freeze()
    }

    fn release(&mut self, mut text: Bytes, is_last: bool) -> Bytes {
        let scan = self.masker.scan(&text, self.masked);
        let cut = match scan.open.or_else(|| self.masker.open_end(&text)) {
            Some(open) if !is_last => open,
            _ => text.len(),
        };
        // A hit that begins in what is held back is found again; one that only ends there is not.
        let known = usize::from(self.masked > 0);
        let hits = scan.hits.iter().enumerate().take_while(|(index, hit)| *index < known || hit.start < cut);
        let hits = &scan.hits[..hits.count()];
        self.hits += hits.len() - known;
        self.masked = hits.last().map_or(0, |hit| hit.end.saturating_sub(cut));
        if cut < text.len() {
            self.held = BytesMut::from(&text[cut..]);
            text.truncate(cut);
        }
        if hits.is_empty() {
            return text;
        }
        let mut bytes = text.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        for hit in hits {
            bytes[hit.start.min(cut)..hit.end.min(cut)].fill(MASK);
        }
        bytes.freeze()
    }
}

/// A body whose data and trailer values are masked on their way. It tells `on_hits` each time something was masked,
/// with the number of places. Sizes are the inner body's, exactly.
#[derive(Debug)]
pub struct MaskedBody<B, F> {
    inner: B,
    masker: StreamMasker,
    on_hits: F,
    /// Trailers that wait until what was held before them is out.
    trailers: Option<Box<HeaderMap>>,
    /// The inner body is not to be asked again.
    is_over: bool,
}

/// Hears how many places were masked.
pub trait OnHits {
    /// Called each time something was masked.
    fn on_hits(&mut self, hits: usize);
}

impl<F: FnMut(usize)> OnHits for F {
    fn on_hits(&mut self, hits: usize) {
        self(hits);
    }
}

impl<B, F: OnHits> MaskedBody<B, F> {
    /// Wraps the answer's body. `masker` knows the secret that was injected into this request.
    pub fn new(inner: B, masker: Arc<Masker>, on_hits: F) -> Self {
        Self { inner, masker: StreamMasker::new(masker), on_hits, trailers: None, is_over: false }
    }

    /// The body under the mask.
    pub fn inner_mut(&mut self) -> &mut B {
        &mut self.inner
    }

    fn report(&mut self, hits_before: usize) {
        let hits = self.masker.hits() - hits_before;
        if hits > 0 {
            self.on_hits.on_hits(hits);
        }
    }

    /// What was held, then the trailers, then the end.
    fn poll_rest(&mut self) -> Poll<Option<Frame<Bytes>>> {
        let before = self.masker.hits();
        let rest = self.masker.finish();
        self.report(before);
        if !rest.is_empty() {
            return Poll::Ready(Some(Frame::data(rest)));
        }
        Poll::Ready(self.trailers.take().map(|mut trailers| {
            let hits = mask_headers(&self.masker.masker, &mut trailers);
            if hits > 0 {
                self.on_hits.on_hits(hits);
            }
            Frame::trailers(*trailers)
        }))
    }
}

impl<B, F> Body for MaskedBody<B, F>
where
    B: Body<Data = Bytes> + Unpin,
    F: OnHits + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        while !this.is_over {
            let Some(frame) = ready!(Pin::new(&mut this.inner).poll_frame(cx)?) else {
                this.is_over = true;
                break;
            };
            match frame.into_data() {
                Ok(data) => {
                    let before = this.masker.hits();
                    let data = if this.inner.is_end_stream() {
                        this.is_over = true;
                        this.masker.finish_with(data)
                    } else {
                        this.masker.push(data)
                    };
                    this.report(before);
                    // An empty frame ends nothing, but passing it on wakes the connection for nothing.
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Err(frame) => {
                    this.trailers = frame.into_trailers().ok().map(Box::new);
                    this.is_over = true;
                }
            }
        }
        this.poll_rest().map(|frame| frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        let nothing_waits = self.masker.held.is_empty() && self.trailers.is_none();
        nothing_waits && (self.is_over || self.inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.masker.held.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint.set_lower(inner.lower().saturating_add(held));
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http::HeaderValue;
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;
    use crate::vault::secret::Secret;

    const CANARY: &str = "9f3Kq7Zt20xLmW8b";

    fn masker(secrets: &[&str]) -> Arc<Masker> {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new((*text).into()).unwrap()).collect();
        Arc::new(Masker::new(&secrets))
    }

    fn stream(masker: &Arc<Masker>, pieces: &[&[u8]]) -> (Vec<u8>, usize) {
        let mut stream = StreamMasker::new(Arc::clone(masker));
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(stream.push(Bytes::copy_from_slice(piece)));
        }
        out.extend(stream.finish());
        assert_eq!((stream.finish().len(), stream.held_bytes()), (0, 0));
        (out, stream.hits())
    }

    #[test]
    fn a_clean_piece_is_passed_on_without_a_copy() {
        let mut stream = StreamMasker::new(masker(&[CANARY]));
        let piece = Bytes::from(vec![b'-'; 100]);
        let address = piece.as_ptr();
        let out = stream.push(piece);
        assert_eq!((out.as_ptr(), out.len(), stream.held_bytes()), (address, 100, 0));
    }

    #[test]
    fn a_hit_in_a_piece_that_nobody_shares_is_masked_in_place() {
        let mut stream = StreamMasker::new(masker(&[CANARY]));
        let piece = Bytes::from(format!("<{CANARY}>").into_bytes());
        let address = piece.as_ptr();
        let out = stream.push(piece);
        assert_eq!((out.as_ptr(), &out[..]), (address, &b"<****************>"[..]));
    }

    #[test]
    fn only_an_end_that_could_begin_a_form_is_held_back() {
        let mut stream = StreamMasker::new(masker(&[CANARY]));
        assert_eq!(stream.push("key: 9f3Kq7Zt".into()), "key: ");
        assert_eq!(stream.held_bytes(), 8);
        assert_eq!(stream.push("!!".into()), "9f3Kq7Zt!!");
        assert_eq!(stream.push("9f3K".into()), "");
        assert_eq!(stream.push("q7Zt20xLmW8b.".into()), "****************.");
        assert_eq!(stream.push("9f3Kq7Zt20xLmW8".into()), "");
        assert_eq!(stream.finish(), "9f3Kq7Zt20xLmW8");
        assert_eq!(stream.hits(), 1);
    }

    #[test]
    fn overlapping_forms_across_an_edge_are_masked_whole_and_counted_once() {
        let masker = masker(&["abcdefghij", "ghijklmnop"]);
        for cut in 0..=20 {
            let (left, right) = b"--abcdefghijklmnop--".split_at(cut);
            assert_eq!(stream(&masker, &[left, right]), (b"--****************--".to_vec(), 1), "{cut}");
        }
        assert_eq!(stream(&masker, &[b"abcdefghijk", b"lm"]), (b"**********klm".to_vec(), 1));
    }

    #[test]
    fn with_masking_left_out_the_secret_is_there() {
        let left_out = Arc::new(Masker::left_out_to_prove_that_a_test_finds_the_secret());
        let text = format!("<{CANARY}>");
        assert_eq!(stream(&left_out, &[text.as_bytes()]), (text.into_bytes(), 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// The alphabet is that of the secrets, so that ends are often beginnings of forms.
        #[test]
        fn any_split_gives_what_masking_the_whole_gives(
            parts in prop::collection::vec(prop_oneof![
                "[ab%6\"]{0,12}",
                Just("abababab".to_owned()), Just("ababbaba6b".to_owned()), Just("babaabab".to_owned()),
                Just("%61%62%61%62%61%62%61%62".to_owned()), Just("YWJhYmFiYWI=".to_owned()),
                Just("\\u0061\\u0062\\u0061\\u0062\\u0061\\u0062\\u0061\\u0062".to_owned()),
            ], 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let masker = masker(&["abababab", "ababbaba6b", "babaabab"]);
            let text = parts.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|edge| &text[edge[0]..edge[1]]).collect();
            let mut whole = text.clone();
            let hits = masker.mask(&mut whole);
            prop_assert_eq!(stream(&masker, &pieces), (whole.clone(), hits));
            // Against a search that knows nothing of beginnings, groups or ranges.
            let mut naive = text.clone();
            for form in masker.searches.iter().flat_map(|search| &search.forms).flatten() {
                for at in 0..text.len() {
                    if text[at..].starts_with(form) {
                        naive[at..at + form.len()].fill(MASK);
                    }
                }
            }
            prop_assert_eq!(whole, naive);
        }
    }

    /// Gives its frames one by one and counts what is left; panics when it is asked after its end.
    struct Frames {
        frames: VecDeque<Frame<Bytes>>,
        is_exact: bool,
        is_over: bool,
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            assert!(!self.is_over, "asked after its end");
            let frame = self.frames.pop_front();
            self.is_over = frame.is_none();
            Poll::Ready(frame.map(Ok))
        }

        fn is_end_stream(&self) -> bool {
            self.is_exact && self.frames.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            let left = self.frames.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum();
            if self.is_exact { SizeHint::with_exact(left) } else { SizeHint::default() }
        }
    }

    fn body(pieces: &[&'static str], trailer: Option<&'static str>, is_exact: bool) -> Frames {
        let mut frames: VecDeque<_> =
            pieces.iter().map(|piece| Frame::data(Bytes::from_static(piece.as_bytes()))).collect();
        frames.extend(trailer.map(|value| {
            Frame::trailers(HeaderMap::from_iter([(
                "x-end".parse().unwrap(),
                HeaderValue::from_static(value),
            )]))
        }));
        Frames { frames, is_exact, is_over: false }
    }

    #[tokio::test]
    async fn data_and_trailers_are_masked_and_hits_reported() {
        let mut hits = 0;
        let inner = body(&["a 9f3Kq7", "Zt20xLmW8b b 9f3", "Kq7"], Some("9f3Kq7Zt20xLmW8b"), false);
        let out = MaskedBody::new(inner, masker(&[CANARY]), |more| hits += more).collect().await.unwrap();
        assert_eq!(out.trailers().unwrap()["x-end"], "****************");
        assert_eq!(out.to_bytes(), "a **************** b 9f3Kq7");
        assert_eq!(hits, 2);
    }

    #[tokio::test]
    async fn a_clean_body_is_the_same_frames_and_reports_nothing() {
        let inner = body(&["one", "two", "three"], Some("end"), false);
        let mut out = MaskedBody::new(inner, masker(&[CANARY]), |_| panic!("no hit"));
        for piece in ["one", "two", "three"] {
            assert_eq!(out.frame().await.unwrap().unwrap().into_data().unwrap(), piece);
        }
        assert_eq!(out.frame().await.unwrap().unwrap().into_trailers().unwrap()["x-end"], "end");
        assert!(out.frame().await.is_none() && out.is_end_stream());
    }

    #[tokio::test]
    async fn what_was_held_comes_before_the_trailers_and_neither_is_the_end() {
        let mut out = MaskedBody::new(body(&["a 9f3"], Some("end"), true), masker(&[CANARY]), |_| ());
        assert_eq!(out.frame().await.unwrap().unwrap().into_data().unwrap(), "a ");
        assert!(!out.is_end_stream());
        assert_eq!(out.frame().await.unwrap().unwrap().into_data().unwrap(), "9f3");
        assert!(!out.is_end_stream());
        assert!(out.frame().await.unwrap().unwrap().is_trailers());
        assert!(out.is_end_stream() && out.frame().await.is_none());
    }

    #[tokio::test]
    async fn size_and_end_are_exact_at_every_step() {
        for (pieces, frames) in [
            (&["a 9f3Kq7", "Zt20xLmW8b b", " 9f3", "Kq7"][..], &[2, 18, 1, 6][..]),
            (&["9f3Kq7Zt20xLmW8", "b"], &[16]),
            (&["9f3"], &[3]),
            (&[], &[]),
        ] {
            let mut left = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
            let mut out = MaskedBody::new(body(pieces, None, true), masker(&[CANARY]), |_| ());
            for length in frames {
                assert_eq!((out.size_hint().exact(), out.is_end_stream()), (Some(left), false), "{pieces:?}");
                assert_eq!(out.frame().await.unwrap().unwrap().into_data().unwrap().len(), *length);
                left -= *length as u64;
            }
            assert_eq!(
                (left, out.size_hint().exact(), out.is_end_stream()),
                (0, Some(0), true),
                "{pieces:?}"
            );
            assert!(out.frame().await.is_none());
        }
    }

    #[tokio::test]
    async fn an_inner_error_is_passed_on_and_does_not_look_like_an_end() {
        let mut out = MaskedBody::new(Failing(false), masker(&[CANARY]), |_| ());
        assert_eq!(out.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
        assert!(out.frame().await.unwrap().is_err());
    }

    /// `x9f3`, then an error.
    struct Failing(bool);

    impl Body for Failing {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let is_second = std::mem::replace(&mut self.0, true);
            let error = || Err(std::io::ErrorKind::ConnectionReset.into());
            Poll::Ready(Some(if is_second { error() } else { Ok(Frame::data("x9f3".into())) }))
        }
    }
}
