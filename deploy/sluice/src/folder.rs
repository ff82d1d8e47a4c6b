//! A data folder: what is where, made private, with a master key of its own.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sluice_core::address::UrlPolicy;
use sluice_core::api_key::ApiKey;
use sluice_core::seal::{KEY_BYTES, MasterKeys};
use sluice_data_plane::Admission;
use sluice_data_plane::dispatch::DispatchSettings;
use sluice_data_plane::inbox::{EmbeddedSettings, InboxSettings};
use sluice_data_plane::settings::{IngressSettings, Pings, WorkerSettings};

/// How often a data plane looks for a master key that it lacks.
const KEYS_READ_EVERY: std::time::Duration = std::time::Duration::from_secs(10);
/// How long compiling a revision may take.
const COMPILE_MAX: std::time::Duration = std::time::Duration::from_secs(60);
/// How often a data plane says what it serves.
const BEAT_EVERY: std::time::Duration = std::time::Duration::from_secs(15);
/// After which time a delivery without an attempt is told of.
const WAITING_TOLD_AFTER: std::time::Duration = std::time::Duration::from_secs(10);
/// How often is looked whether the certificate for the control plane is to be renewed.
const CERTIFICATE_CHECKED_EVERY: std::time::Duration = std::time::Duration::from_secs(60);
/// How long a stop waits for what is running.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(30);

/// A folder that only its owner can read.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// A folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path}: {source}", path = .path.display())]
pub struct FolderError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A fresh master key as a line of the ring.
///
/// # Errors
/// The id is not of letters, digits, `_`, `-`, `.` (at most 64), or the system gives no random numbers.
pub fn master_key_line(id: &str) -> io::Result<String> {
    let mut bytes = [0_u8; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let line = format!("{id}:{}", STANDARD.encode(bytes));
    MasterKeys::parse(&line).map_err(io::Error::other)?;
    Ok(line)
}

/// A fresh API key, as the files `admin.key` and `data-plane.key` hold one.
///
/// # Errors
/// The system gives no random numbers.
pub fn access_key() -> io::Result<String> {
    let (mut id, mut secret) = ([0_u8; 4], [0_u8; 32]);
    for bytes in [id.as_mut_slice(), secret.as_mut_slice()] {
        getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()))?;
    }
    Ok(ApiKey::new(id, &secret).text().to_string())
}

impl Folder {
    /// Opens `path`; makes it with mode 0700 when it is not there. One that others can read is refused.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        let fail = |source| FolderError { what: "the data folder", path: path.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail)?;
        let path = path.canonicalize().map_err(fail)?;
        let mode = fs::metadata(&path).map_err(fail)?.permissions().mode();
        if mode & 0o077 != 0 {
            let message = format!("others can read it (mode {:o}); run: chmod 700 {}", mode & 0o777, path.display());
            return Err(fail(io::Error::new(io::ErrorKind::PermissionDenied, message)));
        }
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The ring of master keys.
    pub fn master_key_file(&self) -> PathBuf {
        self.0.join("master.key")
    }

    /// The API key for administrators.
    pub fn admin_key_file(&self) -> PathBuf {
        self.0.join("admin.key")
    }

    /// The API key for data planes.
    pub fn data_plane_key_file(&self) -> PathBuf {
        self.0.join("data-plane.key")
    }

    /// Makes a master key with mode 0600, unless there is one.
    pub fn ensure_master_key(&self) -> Result<(), FolderError> {
        let path = self.master_key_file();
        let fail = |source| FolderError { what: "the master key file", path: path.clone(), source };
        if path.try_exists().map_err(fail)? {
            return Ok(());
        }
        let line = master_key_line("first").map_err(fail)?;
        let text = format!(
            "# Opens every secret of this installation: keep a copy in a safe place. The first key is the one in use.\n{line}\n"
        );
        // Whole or not at all, and never over one that somebody else has just made.
        let fresh = self.0.join(format!("master.key.{}", std::process::id()));
        let _left_over = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(fail)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fail)?;
        let made = fs::hard_link(&fresh, &path);
        fs::remove_file(&fresh).map_err(fail)?;
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(fail(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Settings of a control plane on this folder.
    pub fn control_plane(&self, urls: UrlPolicy) -> sluice_control_plane::Settings {
        sluice_control_plane::Settings::in_folder(&self.0, urls)
    }

    /// Where a data plane remembers which shared store it worked with.
    pub fn store_memory_file(&self) -> PathBuf {
        self.0.join("inbox-store.json")
    }

    /// Settings of a data plane on this folder.
    pub fn data_plane(
        &self,
        id: &str,
        control_plane_url: String,
        egress: sluice_egress::Settings,
    ) -> sluice_data_plane::Settings {
        sluice_data_plane::Settings {
            data_plane_id: id.to_owned(),
            control_plane_url,
            admission: Admission::Key(self.data_plane_key_file()),
            certificate_checked_every: CERTIFICATE_CHECKED_EVERY,
            master_key_file: self.master_key_file(),
            keys_read_every: KEYS_READ_EVERY,
            beat_every: BEAT_EVERY,
            compile_max: COMPILE_MAX,
            pings: Pings::default(),
            data_dir: self.0.clone(),
            ingress: IngressSettings::default(),
            workers: WorkerSettings::default(),
            dispatch: DispatchSettings::default(),
            egress,
            inbox: InboxSettings::Embedded(EmbeddedSettings::new(self.0.join("inbox.db"))),
            waiting_told_after: WAITING_TOLD_AFTER,
            lame_duck: std::time::Duration::ZERO,
            drain: DRAIN,
            clock: sluice_data_plane::clock::Clock::system(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_kept() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let folder = Folder::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        folder.ensure_master_key().unwrap();
        let first = fs::read_to_string(folder.master_key_file()).unwrap();
        assert_eq!(fs::metadata(folder.master_key_file()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(MasterKeys::parse(&first).is_ok());
        assert_ne!(master_key_line("a").unwrap(), master_key_line("a").unwrap());
        let files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, ["master.key"], "nothing is left over");
        assert!(ApiKey::parse(&access_key().unwrap()).is_ok() && access_key().unwrap() != access_key().unwrap());
        assert!(master_key_line("a:b").is_err() && master_key_line("").is_err());
        folder.ensure_master_key().unwrap();
        assert_eq!(fs::read_to_string(folder.master_key_file()).unwrap(), first);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Folder::open(&path).unwrap_err().to_string().contains("chmod 700"));
    }
}
