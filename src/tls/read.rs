//! Reading the files that the settings name.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::check::{File, Files, Passphrase};
use crate::host::regular_file;
use crate::settings::{Origin, Settings};

/// No file that is read here may be larger: bundles of all public authorities are a quarter of that.
const LARGEST: u64 = 1 << 20;
const READABLE_BY_ALL: u32 = 0o004;

/// Reads what TLS needs, if it is on.
#[must_use]
pub fn read(settings: &Settings) -> Option<Files> {
    let root = settings.app_root.value.as_deref();
    let read = |path: &Path, origin: &Origin| file(root, path, origin);
    settings.ssl.value.then(|| Files {
        certificate: read(&settings.cert_file.value, &settings.cert_file.origin),
        key: read(&settings.key_file.value, &settings.key_file.origin),
        passphrase: passphrase(settings),
        authority: settings.ssl_ca_file.value.as_ref().map(|path| read(path, &settings.ssl_ca_file.origin)),
    })
}

/// The paths of those files, absolute where the working directory is known.
#[must_use]
pub fn paths(settings: &Settings) -> Vec<PathBuf> {
    let named = [
        Some(&settings.cert_file.value),
        Some(&settings.key_file.value),
        settings.ssl_ca_file.value.as_ref(),
        settings.key_file_password_file.value.as_ref(),
    ];
    let found = named.into_iter().flatten().map(|path| within(settings.app_root.value.as_deref(), path));
    found.map(|path| std::path::absolute(&path).unwrap_or(path)).collect()
}

fn within(root: Option<&Path>, path: &Path) -> PathBuf {
    root.map_or_else(|| path.to_owned(), |root| root.join(path))
}

fn file(root: Option<&Path>, path: &Path, origin: &Origin) -> File {
    let whole = within(root, path);
    let content = content(&whole);
    let mode = fs::metadata(&whole).map_or(0, |metadata| metadata.permissions().mode());
    let content = content.map_err(|error| match error.kind() {
        ErrorKind::NotFound => "does not exist".to_owned(),
        ErrorKind::PermissionDenied => "is not readable for this user".to_owned(),
        _ => format!("cannot be read: {error}"),
    });
    File { path: path.to_owned(), origin: origin.clone(), content, is_public: mode & READABLE_BY_ALL != 0 }
}

fn content(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    regular_file::read(path, LARGEST).map(Zeroizing::new)
}

/// The passphrase itself, else the first line of the file that contains it, as with `openssl -passin file:`.
fn passphrase(settings: &Settings) -> Option<Passphrase> {
    if let Some(given) = &settings.key_file_password.value {
        let text = Ok(Zeroizing::new(given.reveal().as_bytes().to_vec()));
        return Some(Passphrase { text, origin: settings.key_file_password.origin.clone() });
    }
    let (path, origin) = (settings.key_file_password_file.value.as_ref()?, &settings.key_file_password_file.origin);
    let File { content, .. } = file(settings.app_root.value.as_deref(), path, origin);
    let text = content.map_err(|why| format!("the file {} {why}", path.display())).and_then(|content| {
        let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Err(format!("the file {} has an empty first line", path.display()));
        }
        Ok(Zeroizing::new(line.to_vec()))
    });
    Some(Passphrase { text, origin: origin.clone() })
}
