//! One request and its answer over one connection, driven by whoever waits for it.
//!
//! No task of its own: the caller's connection drives it, so a caller that leaves takes it along, and the
//! upstream's connection closes with it. It goes back to its pool by itself, and only when the request was
//! sent whole and the answer read whole.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};

use super::{
    answer::AnswerReader,
    pool::Lease,
    upload::{Unsent, Upload},
};
use crate::refusal::Failure;

/// An exchange in progress. Dropped before its end, its connection closes.
pub(crate) struct Exchange {
    /// Until the exchange is over.
    lease: Option<Lease>,
    upload: Upload,
    /// The upstream takes no more of the request. It may have answered all the same.
    upload_failed: bool,
    reader: AnswerReader,
}

impl Exchange {
    pub(crate) fn new(lease: Lease, upload: Upload) -> Self {
        Self { lease: Some(lease), upload, upload_failed: false, reader: AnswerReader::new() }
    }

    /// Sends the request until the answer's head has come; its fields are added to `fields`.
    pub(crate) async fn head(
        &mut self,
        is_head: bool,
        fields: &mut HeaderMap,
    ) -> Result<StatusCode, Failure> {
        poll_fn(|cx| {
            self.poll_upload(cx)?;
            let Some(lease) = &mut self.lease else { return Poll::Ready(Err(Failure::UpstreamClosed)) };
            let head = self.reader.poll_head(cx, lease.stream(), is_head, fields);
            if matches!(head, Poll::Ready(Ok(_))) {
                self.settle();
            }
            head
        })
        .await
    }

    /// Moves the request on; an error only when the caller's part failed.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let Some(lease) = self.lease.as_mut().filter(|_| !self.upload_failed) else { return Ok(()) };
        match self.upload.poll(cx, lease.stream()) {
            Poll::Ready(Err(Unsent::Caller)) => return Err(Failure::UpstreamClosed),
            Poll::Ready(Err(Unsent::Upstream)) => self.upload_failed = true,
            _ => {}
        }
        Ok(())
    }

    /// When the answer is over, so is the exchange.
    fn settle(&mut self) {
        if !self.reader.is_over() {
            return;
        }
        if let Some(lease) = self.lease.take()
            && self.upload.is_sent()
            && self.reader.keeps_alive()
        {
            lease.finish();
        }
    }

    /// Ends it; true if it was not over.
    pub(crate) fn abandon(&mut self) -> bool {
        self.lease.take().is_some()
    }
}

/// The answer's body.
impl Body for Exchange {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = &mut *self;
        // An answer may come before its request is complete.
        this.poll_upload(cx)?;
        let Some(lease) = &mut this.lease else { return Poll::Ready(None) };
        let frame = this.reader.poll_body(cx, lease.stream());
        this.settle();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.reader.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.reader.size_hint()
    }
}
