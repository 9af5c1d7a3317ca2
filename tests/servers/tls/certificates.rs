//! Certificates and keys for the tests, made with openssl, and the clients that verify them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::harness::ask::Answer;
use crate::harness::{Launch, Running, venv};

/// How long the certificates are valid.
pub const DAYS: u64 = 90;

/// Runs openssl in a directory; the words are separated by white space.
#[track_caller]
pub fn openssl(directory: &Path, arguments: &str) {
    let made =
        Command::new("openssl").args(arguments.split_ascii_whitespace()).current_dir(directory).output().unwrap();
    assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

/// A self-signed certificate for an existing key: `NAME.crt` for `NAME.key`, for 127.0.0.1.
pub fn certify(directory: &Path, name: &str, passphrase: &str) {
    let subject = format!("-subj /CN={name} -addext subjectAltName=IP:127.0.0.1 -days {DAYS}");
    openssl(directory, &format!("req -x509 -new -key {name}.key {passphrase} {subject} -out {name}.crt"));
}

/// `NAME.crt` and `NAME.key`, of the curve P-256.
pub fn pair(directory: &Path, name: &str) {
    openssl(directory, &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"));
    certify(directory, name, "");
}

/// `NAME.crt` and `NAME.key`, signed by `AUTHORITY`.
pub fn signed_pair(directory: &Path, name: &str, authority: &str) {
    openssl(directory, &format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"));
    let usage = "-addext extendedKeyUsage=clientAuth";
    openssl(directory, &format!("req -new -key {name}.key -subj /CN={name} {usage} -out {name}.csr"));
    let by = format!("-CA {authority}.crt -CAkey {authority}.key -CAcreateserial");
    openssl(directory, &format!("x509 -req -in {name}.csr {by} -copy_extensions copy -days {DAYS} -out {name}.crt"));
}

/// A server with TLS; certificate and key are `NAME.crt` and `NAME.key` in its directory.
pub fn launch(server: &str, name: &str, arguments: &[&str]) -> Option<Launch> {
    let launch = Launch::app(&venv()?, server, &[&["--workers", "1"], arguments].concat());
    let files = ["crt", "key"].map(|kind| launch.directory.path().join(format!("{name}.{kind}")));
    let [certificate, key] = files;
    Some(launch.env("SSL", "true").env("CERT_FILE", certificate).env("KEY_FILE", key))
}

/// The same, started and ready, with a pair of its own.
pub fn start(server: &str, arguments: &[&str], env: &[(&str, &str)]) -> Option<Running> {
    let mut launch = launch(server, "server", arguments)?;
    pair(launch.directory.path(), "server");
    for (name, value) in env {
        launch = launch.env(name, value);
    }
    let mut running = launch.start();
    running.wait_log(" ready ");
    Some(running)
}

/// curl's exit status and output.
pub fn curl(running: &Running, path: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new("curl")
        .args([
            "--silent",
            "--max-time",
            "20",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code} %{http_version}\n",
        ])
        .args(arguments)
        .arg(format!("https://127.0.0.1:{}{path}", running.port))
        .current_dir(running.directory.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .output()
        .expect("curl must be installed");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a client that only trusts this certificate gets an answer.
pub fn serves(running: &Running, certificate: &str) -> bool {
    curl(running, "/", &["--cacert", certificate]).0 == 0
}

/// The output of `openssl s_client` for a handshake.
pub fn s_client(running: &Running, arguments: &[&str]) -> Output {
    Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{}", running.port)])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// One of our commands for a running launcher: its exit status and output.
pub fn ask(running: &Running, arguments: &[&str]) -> (i32, String) {
    let Answer { code, out, problem } = crate::harness::ask::ask(running, arguments);
    (code.unwrap(), out + &problem)
}

/// Makes a request, like a probe from outside.
pub fn probe(running: &Running) -> (i32, String) {
    ask(running, &["health", &format!("https://127.0.0.1:{}/health", running.port)])
}

/// Directories in memory that the launcher with this pid has made.
pub fn in_memory(launcher: i32) -> Vec<PathBuf> {
    let entries = ["/dev/shm", "/run", "/tmp"].map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
    let ours = format!("mcp-launch-{launcher}-");
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours)).map(|entry| entry.path()).collect()
}
