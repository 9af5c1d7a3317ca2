//! How the server gets certificate and key.
//!
//! A generation has its own copy of the chain, the key and the CA certificates, made together with its plan: a worker
//! that it replaces later starts with the same ones as the others, whatever has happened to the files. The copy is a
//! single file with chain and key, so that one cannot be read without the other, and it is never written to disk.
//! Gunicorn inherits a memory file. Granian resolves the path that it is given, which a memory file does not have, and
//! every worker reads it again, so it gets a file on a file system in memory for the lifetime of the generation.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Descriptor, Findings, Inherited, Launch};
use crate::host::Host;
use crate::problem::Problem;
use crate::settings::value::{ClientVerify, Mode, Value};
use crate::settings::{Resolution, Settings};
use crate::tls::{self, Conversion, Form, Kind, Pair};

/// Placeholder for the name of a generation's directory while its number is unknown.
const DIRECTORY: &str = "mcp-launch-GENERATION";
const PAIR: &str = "pair.pem";
const AUTHORITY: &str = "ca.pem";

/// The certificates of a generation.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Certificates and key.
    pub pair: Arc<Pair>,
    /// The directory in memory in which the generation gets its own directory, if it reads files.
    pub directory: Option<PathBuf>,
}

impl Credentials {
    /// The files of a generation, if it reads files.
    #[must_use]
    pub fn files(&self) -> Option<Files> {
        let directory = self.directory.as_ref()?.join(DIRECTORY);
        Some(Files { pair: directory.join(PAIR), authority: directory.join(AUTHORITY), directory })
    }
}

/// Paths as they are in the arguments, before the generation has its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The directory.
    pub directory: PathBuf,
    /// The chain and the key.
    pub pair: PathBuf,
    /// The CA certificates.
    pub authority: PathBuf,
}

/// Takes what is known about the files, and reports it.
pub(super) fn judge(settings: &Settings, found: &tls::Findings, findings: &mut Findings) {
    findings.problems.extend(found.problems.iter().cloned());
    findings.warnings.extend(found.warnings.iter().cloned());
    let Some(pair) = &found.pair else { return };
    let because = format!(
        "{} (from {}) and {} (from {})",
        settings.cert_file.value.show(),
        settings.cert_file.origin,
        settings.key_file.value.show(),
        settings.key_file.origin
    );
    findings.decide("certificate", pair.summary(), because);
    let verify = settings.ssl_client_verify.value;
    if verify != ClientVerify::None {
        let authority = settings.ssl_ca_file.value.as_ref().map(Value::show).unwrap_or_default();
        let because = format!("{}; checked against {authority}", settings.ssl_client_verify.origin);
        findings.decide("client-certificates", verify.word(), because);
    }
}

/// Gunicorn's: the descriptors, as paths that can be opened.
pub(super) fn descriptors(launch: &mut Launch, pair: &Pair, resolution: &Resolution) -> (String, Option<String>) {
    let mut inherit = |what: Inherited| {
        let number = launch.next_number(resolution);
        launch.descriptors.push(Descriptor { number, what });
        format!("/proc/self/fd/{number}")
    };
    (inherit(Inherited::Pair), pair.authority.as_ref().map(|_| inherit(Inherited::Authority)))
}

/// Granian's: a directory in memory. None if it must read the user's own files, or if there is a problem.
pub(super) fn directory(settings: &Settings, host: &Host, pair: &Pair, findings: &mut Findings) -> Option<PathBuf> {
    if let kind @ (Kind::P521 | Kind::Other(_)) = &pair.key.kind {
        let name = settings.key_file.value.show();
        let message = format!("Granian cannot serve with the private key {name}: it is {kind}");
        let hint = "use one of RSA, EC P-256, EC P-384 or Ed25519, or --server gunicorn";
        findings.problem(Problem::setting(message, &settings.key_file.origin).hint(hint));
        return None;
    }
    let (obstacle, remedy) = match (settings.mode.value, &host.memory_directory) {
        (Mode::Supervise, Some(directory)) => return Some(directory.clone()),
        (Mode::Supervise, None) => {
            ("none of /dev/shm, /run and /tmp is a tmpfs that can be written to", "mount a tmpfs on /dev/shm")
        }
        (Mode::Exec, _) => ("in exec mode the launcher cannot remove a file with the key", "use supervise mode"),
    };
    if pair.key.form != Form::Pkcs8 {
        let name = settings.key_file.value.show();
        let message = format!("Granian reads no key like {name}, and it cannot be converted in memory: {obstacle}");
        let command = Conversion::Clear.command(&settings.key_file.value);
        let hint = format!("{remedy}, use --server gunicorn, or convert it with: {command}");
        findings.problem(Problem::setting(message, &settings.key_file.origin).hint(hint));
    }
    None
}
