//! The file of an embedded store: how it is made, judged, opened and copied.
//!
//! In: a path and the keys. Out: an open database of redb's with four tables (what the store is, the connections, their
//! leases, and what is pending), or why not.
//!
//! What must never happen: a file that is refused was changed; a store is made or restored over another; half a file
//! has the store's name; a file that others may read or write is used; what is pending is in a copy, where it
//! could be used once more.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
    backends::FileBackend,
};
use serde::{Deserialize, Serialize};

use super::{super::record::Record, Error, overlay::Overlay};
use crate::{
    oauth::{
        connection::ConnectionId,
        seal::{KeyId, Keys, StoreId},
    },
    storage,
    vault::permissions,
};

/// All tables are of one type, since the database has 30 KB of code for each type. What a table does not need is 0 or empty.
type Table = TableDefinition<'static, &'static [u8], Row<'static>>;

/// A number, a text, and bytes.
pub(super) type Row<'r> = (u64, &'r str, &'r [u8]);

/// What the store is: JSON under one name.
pub(super) const ABOUT: Table = TableDefinition::new("about");
pub(super) const ABOUT_NAME: &[u8] = b"mxgate connections";

/// Header and sealed tokens by connection.
pub(super) const CONNECTIONS: Table = TableDefinition::new("connections");

/// JSON by connection.
pub(super) const LEASES: Table = TableDefinition::new("leases");

/// Its end, the key that sealed it, and the sealed content, by the name of a pending record.
pub(super) const PENDING: Table = TableDefinition::new("pending");

/// A row that is a text.
pub(super) fn text(text: &str) -> Row<'_> {
    (0, text, &[])
}

/// The key of a row of [`CONNECTIONS`].
pub(super) fn id_of(key: &[u8]) -> Result<ConnectionId, redb::Error> {
    let bytes = key.try_into().map_err(|_| redb::Error::Corrupted("an id of another length".into()))?;
    Ok(ConnectionId::from_bytes(bytes))
}

/// The format that this program writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;

/// The database keeps this much of the file in memory.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    format: u32,
    /// In hex.
    id: String,
    /// The key that sealed when it was last opened, so that an empty store knows its key too.
    key: String,
    /// Rises with each opening.
    pub(super) opening: u64,
    /// When this backup was made, in Unix seconds; `None`: it is no backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) backup_of: Option<u64>,
}

/// Of any version.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl About {
    pub(super) fn new(id: StoreId, key: KeyId) -> Self {
        let id = format!("{:032x}", u128::from_be_bytes(id.0));
        Self { format: FORMAT, id, key: key.to_string(), opening: 0, backup_of: None }
    }

    pub(super) fn id(&self) -> Option<StoreId> {
        u128::from_str_radix(&self.id, 16).ok().map(|id| StoreId(id.to_be_bytes()))
    }

    /// As of a backup that is made now, or of the store that it becomes again.
    pub(super) fn backup(self, backup_of: Option<u64>) -> Self {
        Self { backup_of, ..self }
    }

    /// As of the next opening, by `key`.
    pub(super) fn opened(self, key: KeyId) -> Self {
        Self { opening: self.opening.saturating_add(1), key: key.to_string(), backup_of: None, ..self }
    }
}

/// Where a store is: its file, and the lock beside it, which stays the same when the file is another one.
pub(super) struct Place {
    pub(super) store: PathBuf,
    lock: PathBuf,
}

impl Place {
    pub(super) fn of(path: &Path) -> Self {
        // Behind a symbolic link: one store has one lock, whatever it is called.
        let store = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let mut lock = OsString::from(&store);
        lock.push(".lock");
        Self { lock: lock.into(), store }
    }

    /// Held for as long as the store is used.
    pub(super) fn lock(&self) -> Result<storage::Lock, Error> {
        check_folder(&self.store)?;
        let lock = storage::try_lock(&self.lock, fs::metadata(&self.store).ok().as_ref())
            .map_err(|source| Error::Unwritable { path: self.lock.clone(), source })?;
        lock.ok_or_else(|| Error::InUse { path: self.store.clone() })
    }
}

fn check_folder(path: &Path) -> Result<(), Error> {
    /// Others may make files there, and remove none of ours.
    const STICKY: u32 = 0o1000;
    let folder = storage::folder(path);
    let unreadable = |source| Error::Unreadable { path: folder.into(), source };
    let mode = fs::metadata(folder).map_err(unreadable)?.mode() & 0o7777;
    if mode & 0o002 != 0 && mode & STICKY == 0 {
        return Err(Error::Folder { path: folder.into(), mode });
    }
    Ok(())
}

/// The file, if it is one and nobody else may use it.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    let file =
        OpenOptions::new().read(true).write(true).open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Absent { path: path.into() },
            _ => Error::Unreadable { path: path.into(), source },
        })?;
    let metadata = file.metadata().map_err(|source| Error::Unreadable { path: path.into(), source })?;
    permissions::private(&metadata).map_err(|source| Error::Untrusted { path: path.into(), source })?;
    // redb takes an empty file for a new database.
    if !metadata.is_file() || metadata.len() == 0 {
        return Err(Error::NotAStore { path: path.into() });
    }
    Ok(file)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// The database in `file`, to be used.
pub(super) fn database(file: &File) -> Result<Database, redb::Error> {
    Ok(builder().create_with_backend(FileBackend::new(file.try_clone()?)?)?)
}

/// The same, judged and left as it is: every page's checksum, the format, and that the key of every record is known.
pub(super) fn look(path: &Path, file: &File, keys: &Keys) -> Result<(Database, About), Error> {
    let damaged = |source: redb::Error| Error::Damaged { path: path.into(), source: Box::new(source) };
    let overlay = file.try_clone().and_then(Overlay::new);
    let overlay = overlay.map_err(|source| Error::Unreadable { path: path.into(), source })?;
    let database = builder().set_check_integrity_on_open(true).create_with_backend(overlay);
    let database = database.map_err(|source| damaged(source.into()))?;
    let read = database.begin_read().map_err(|source| damaged(source.into()))?;
    let text = about_text(&read).ok().flatten().ok_or_else(|| Error::NotAStore { path: path.into() })?;
    let about = judge(path, &text)?;
    check_keys(path, &read, &about, keys)?;
    Ok((database, about))
}

fn about_text(read: &ReadTransaction) -> Result<Option<String>, redb::Error> {
    Ok(read.open_table(ABOUT)?.get(ABOUT_NAME)?.map(|row| row.value().1.to_owned()))
}

fn judge(path: &Path, text: &str) -> Result<About, Error> {
    let not_a_store = || Error::NotAStore { path: path.into() };
    let Format { format } = serde_json::from_str(text).map_err(|_| not_a_store())?;
    if format > FORMAT {
        return Err(Error::Newer { path: path.into(), found: format });
    }
    let about: About = serde_json::from_str(text).map_err(|_| not_a_store())?;
    about.id().ok_or_else(not_a_store)?;
    Ok(about)
}

fn check_keys(path: &Path, read: &ReadTransaction, about: &About, keys: &Keys) -> Result<(), Error> {
    let wrong_key = |source| Error::WrongKey { path: path.into(), source };
    let key: KeyId = about.key.parse().map_err(|_| Error::NotAStore { path: path.into() })?;
    keys.check(key).map_err(wrong_key)?;
    let damaged = |source: redb::Error| Error::Damaged { path: path.into(), source: Box::new(source) };
    for (id, header) in headers(read).map_err(damaged)? {
        let key = Record::key(&header).map_err(|source| Error::Record {
            path: path.into(),
            id,
            source: Box::new(source),
        })?;
        keys.check(key).map_err(wrong_key)?;
    }
    Ok(())
}

/// The headers of all records, by id.
pub(super) fn headers(read: &ReadTransaction) -> Result<Vec<(ConnectionId, String)>, redb::Error> {
    let mut headers = Vec::new();
    for row in read.open_table(CONNECTIONS)?.iter()? {
        let (id, record) = row?;
        headers.push((id_of(id.value())?, record.value().1.to_owned()));
    }
    Ok(headers)
}

/// Replaces what the store says of itself. Makes the table that stores of before have not.
pub(super) fn put_about(write: &WriteTransaction, about: &About) -> Result<(), redb::Error> {
    let about = serde_json::to_string(about).map_err(io::Error::from)?;
    write.open_table(ABOUT)?.insert(ABOUT_NAME, text(&about))?;
    write.open_table(PENDING)?;
    Ok(())
}

/// A new file at `path` with `about` and the records of `from`, and no lease.
pub(super) fn make(path: &Path, about: &About, from: Option<&ReadTransaction>) -> Result<(), Error> {
    let made = storage::create_with(path, |file| {
        let fill = || {
            let database = database(file)?;
            let write = begin(&database)?;
            put_about(&write, about)?;
            write.open_table(LEASES)?;
            copy(from, &write)?;
            write.commit()?;
            Ok(database.close()?)
        };
        fill().map_err(|error: redb::Error| match error {
            redb::Error::Io(error) => error,
            error => io::Error::other(error),
        })
    });
    made.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => Error::Exists { path: path.into() },
        _ => Error::Unwritable { path: path.into(), source },
    })
}

fn copy(from: Option<&ReadTransaction>, to: &WriteTransaction) -> Result<(), redb::Error> {
    let mut table = to.open_table(CONNECTIONS)?;
    let Some(from) = from else { return Ok(()) };
    for row in from.open_table(CONNECTIONS)?.iter()? {
        let (id, record) = row?;
        table.insert(id.value(), record.value())?;
    }
    Ok(())
}

/// A write that is in the file, and not only on its way there, when it was committed. Both phases are synced: what is
/// stored comes from providers, and must not be able to look like the checksum of a write that was cut short.
pub(super) fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut write = database.begin_write()?;
    write.set_two_phase_commit(true);
    Ok(write)
}
