//! A no, as an explanation has it.

use crate::{gateway::End, refusal::Refusal};

/// Why a walk ended, with what is known beyond the code.
pub(super) struct No {
    pub(super) end: End,
    pub(super) detail: Option<String>,
}

impl No {
    pub(super) fn malformed(detail: &str) -> Self {
        Self { end: Refusal::MalformedRequest.into(), detail: Some(detail.to_owned()) }
    }

    pub(super) fn refusal(&self) -> Option<Refusal> {
        match &self.end {
            End::Refused(denial) => Some(denial.refusal),
            End::Failed(_) => None,
        }
    }

    pub(super) fn status_and_code(&self) -> (u16, &'static str) {
        match &self.end {
            End::Refused(denial) => (denial.refusal.status().as_u16(), denial.refusal.code()),
            End::Failed(failure) => (failure.status().as_u16(), failure.code()),
        }
    }
}
