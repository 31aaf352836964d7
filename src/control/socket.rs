//! The control socket's file: who can reach it, and what happens to one that was left behind.
//!
//! In: a path. Out: a listening socket with mode 0600, whose file goes away with it. The mode is set
//! before the socket listens, so nobody else connects in between; the directory has to belong to the
//! operator. What must never happen: another gateway's socket, or a file that is none, is removed.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::storage;

/// A bound control socket. Dropping it removes the file, if it is still this one's.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// Why the control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody answers there.
    #[error("the socket {0} is in use: another mxgate is running with it; stop it or configure another path")]
    InUse(PathBuf),
    /// Its folder is not there, and is not made: whose it is says who may come near the socket.
    #[error(
        "the socket {} cannot be made: there is no folder {}; make it, or change `socket` in [control]",
        .path.display(), .folder.display()
    )]
    NoFolder {
        /// The socket.
        path: PathBuf,
        /// Its folder.
        folder: PathBuf,
    },
    /// The path holds something that is no socket.
    #[error("the socket {0} cannot be made: the path holds something that is no socket; move it away")]
    NotASocket(PathBuf),
    /// The system said no.
    #[error("the socket {path} cannot be made: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl ControlSocket {
    /// Binds `path`. A socket file that nobody answers on is replaced.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn bind(path: &Path) -> Result<Self, Error> {
        if let Some(folder) = storage::missing_folder(path) {
            return Err(Error::NoFolder { path: path.into(), folder: folder.into() });
        }
        let (listener, file) = bind_unix(path, 0o600)?;
        Ok(Self { listener, file })
    }

    /// The listener, non-blocking, and what removes its file when dropped.
    pub(super) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// Binds any Unix socket with this mode; whoever the mode lets write can connect. A socket file that nobody answers on is
/// replaced.
pub(crate) fn bind_unix(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), Error> {
    let failed = |error| Error::Io { path: path.into(), error };
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    let address = SockAddr::unix(path).map_err(failed)?;
    socket.bind(&address).map_err(|error| match error.kind() {
        // Another one was quicker.
        io::ErrorKind::AddrInUse => Error::InUse(path.into()),
        _ => failed(error),
    })?;
    let file = SocketFile::of(path).map_err(failed)?;
    // Until it listens, connecting is refused by the kernel.
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    socket.listen(1024).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
    Ok((listener, file))
}

/// Root, and the user that this process runs as.
pub(super) fn is_operator(uid: u32, own: u32) -> bool {
    uid == 0 || uid == own
}

fn remove_stale(path: &Path) -> Result<(), Error> {
    let failed = |error| Error::Io { path: path.into(), error };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(Error::NotASocket(path.into())),
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A full queue would make a blocking connect wait; it is an answer, too.
    probe.set_nonblocking(true).map_err(failed)?;
    match probe.connect(&SockAddr::unix(path).map_err(failed)?) {
        Ok(()) => Err(Error::InUse(path.into())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Error::InUse(path.into())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The file that `bind` made, told from a later one at the same path.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let made = fs::symlink_metadata(path)?;
        Ok(Self { path: path.into(), device: made.dev(), inode: made.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a socket's file is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_the_owner_can_reach_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let _socket = ControlSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_socket_that_answers_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let first = ControlSocket::bind(&path).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        assert!(matches!(ControlSocket::bind(&path), Err(Error::InUse(_))));
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        drop(first);
        ControlSocket::bind(&path).unwrap();
    }

    #[test]
    fn a_socket_with_a_full_queue_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        busy.listen(0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(Error::InUse(_))));
    }

    #[test]
    fn a_socket_that_nobody_answers_on_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        // std's listener leaves its file behind, as a killed process does.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = ControlSocket::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(Error::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        // Nor is a link followed to one.
        let link = folder.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(ControlSocket::bind(&link), Err(Error::NotASocket(_))));
    }

    #[test]
    fn the_file_goes_with_the_socket_and_a_successors_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        drop(socket);
        assert!(!path.exists());

        let old = ControlSocket::bind(&path).unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        let _new = ControlSocket::bind(&path).unwrap();
        drop(old);
        assert!(path.exists());
    }

    #[test]
    fn a_path_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().join("absent/control.sock"), folder.path().join("x".repeat(200))] {
            let error = ControlSocket::bind(&path).unwrap_err();
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
        let error = ControlSocket::bind(&folder.path().join("absent/control.sock")).unwrap_err();
        let absent = folder.path().join("absent");
        assert!(error.to_string().contains(&format!("there is no folder {};", absent.display())), "{error}");
    }

    #[test]
    fn root_and_our_own_user_are_operators_and_others_are_not() {
        assert!(is_operator(0, 999) && is_operator(999, 999) && is_operator(0, 0));
        assert!(!is_operator(1000, 999) && !is_operator(1000, 0) && !is_operator(u32::MAX, 999));
    }
}
