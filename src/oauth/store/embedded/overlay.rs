//! A file as it would be: what is written stays in memory.
//!
//! A database of redb's that was not closed in order is mended when it is opened, and one that was gets a mark that it is
//! open. So a store that may have to be refused is opened through this first.
//!
//! What must never happen: the file is changed.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

/// A file, and what was written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    /// How much of the file still counts.
    kept: u64,
    len: u64,
    /// In their order: a later one hides an earlier one.
    writes: Vec<(u64, Vec<u8>)>,
}

impl Overlay {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, changes: Mutex::new(Changes { kept: len, len, writes: Vec::new() }) })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changes().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let changes = self.changes();
        if end(offset, out)? > changes.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.fill(0);
        if let Some(kept) = overlap(offset, out.len(), 0, changes.kept) {
            let from = offset + kept.start as u64;
            self.file.read_exact_at(&mut out[kept], from)?;
        }
        for (at, bytes) in &changes.writes {
            if let Some(place) = overlap(offset, out.len(), *at, at + bytes.len() as u64) {
                let from = usize::try_from((offset + place.start as u64) - at).map_err(io::Error::other)?;
                let length = place.len();
                out[place].copy_from_slice(&bytes[from..from + length]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut changes = self.changes();
        changes.kept = changes.kept.min(len);
        changes.len = len;
        changes.writes.retain_mut(|(at, bytes)| {
            bytes.truncate(usize::try_from(len.saturating_sub(*at)).unwrap_or(usize::MAX));
            !bytes.is_empty()
        });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.changes();
        changes.len = changes.len.max(end(offset, data)?);
        changes.writes.push((offset, data.to_vec()));
        Ok(())
    }
}

fn end(offset: u64, bytes: &[u8]) -> io::Result<u64> {
    offset.checked_add(bytes.len() as u64).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Which of `length` bytes at `offset` lie between `from` and `to`.
fn overlap(offset: u64, length: usize, from: u64, to: u64) -> Option<std::ops::Range<usize>> {
    let inside =
        |place: u64| usize::try_from(place.saturating_sub(offset)).map_or(length, |place| place.min(length));
    let range = inside(from)..inside(to);
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let write = (0..40_u64, prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, bytes)| Step::Write(at, bytes));
        prop::collection::vec(prop_oneof![3 => write, 1 => (0..60_u64).prop_map(Step::SetLen)], 0..12)
    }

    proptest! {
        #[test]
        fn it_reads_as_a_file_would_and_the_file_stays(base in prop::collection::vec(any::<u8>(), 0..40), steps in steps()) {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&base).unwrap();
            let overlay = Overlay::new(file.try_clone().unwrap()).unwrap();
            let mut model = base.clone();
            for step in &steps {
                match step {
                    Step::Write(at, bytes) => {
                        overlay.write(*at, bytes).unwrap();
                        let at = *at as usize;
                        model.resize(model.len().max(at + bytes.len()), 0);
                        model[at..at + bytes.len()].copy_from_slice(bytes);
                    }
                    Step::SetLen(len) => {
                        overlay.set_len(*len).unwrap();
                        model.resize(*len as usize, 0);
                    }
                }
            }
            prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
            for from in 0..=model.len() {
                let mut read = vec![7; model.len() - from];
                overlay.read(from as u64, &mut read).unwrap();
                prop_assert_eq!(&read, &model[from..]);
            }
            prop_assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
            let mut kept = vec![0; base.len()];
            file.read_exact_at(&mut kept, 0).unwrap();
            prop_assert_eq!((kept, file.metadata().unwrap().len()), (base.clone(), base.len() as u64));
        }
    }
}
