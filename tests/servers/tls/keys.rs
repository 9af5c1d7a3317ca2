//! Keys of every kind, and where they must not be visible.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::certificates::{ask, certify, curl, in_memory, launch, openssl, pair, probe, s_client, start};
use crate::harness::{Launch, Running, is_root, skipped};

const PASSPHRASE: &str = "correct-horse-battery";

/// Each kind, and the commands of openssl that make `server.key`.
const KINDS: &[(&str, &[&str])] = &[
    ("RSA, PKCS#8", &["genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out server.key"]),
    ("RSA, PKCS#1", &["genrsa -traditional -out server.key 2048"]),
    ("P-256, SEC1", &["ecparam -name prime256v1 -genkey -out server.key"]),
    ("P-384, PKCS#8", &["genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out server.key"]),
    ("Ed25519", &["genpkey -algorithm ed25519 -out server.key"]),
    (
        "encrypted PKCS#8",
        &[
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:correct-horse-battery -out server.key",
        ],
    ),
    (
        "encrypted PKCS#8, scrypt",
        &[
            "genrsa -out clear.key 2048",
            "pkcs8 -topk8 -scrypt -in clear.key -passout pass:correct-horse-battery -out server.key",
        ],
    ),
];

crate::for_both_servers!(
    every_common_key_is_served_with,
    a_passphrase_is_nowhere_to_be_seen,
    exec_mode_serves_with_tls,
    what_is_wrong_with_the_files_is_said_before_anything_starts,
    a_key_in_a_rare_form_is_answered_with_the_command_that_converts_it,
);

fn every_common_key_is_served_with(server: &str) {
    let mut running: Vec<(&str, Running)> = Vec::new();
    for (kind, commands) in KINDS {
        let Some(launch) = launch(server, "server", &[]) else { return };
        commands.iter().for_each(|command| openssl(launch.directory.path(), command));
        let passphrase = if kind.starts_with("encrypted") { "-passin pass:correct-horse-battery" } else { "-batch" };
        certify(launch.directory.path(), "server", passphrase);
        let launch = if passphrase == "-batch" { launch } else { launch.env("KEY_FILE_PASSWORD", PASSPHRASE) };
        running.push((kind, launch.start()));
    }
    for (kind, running) in &mut running {
        running.wait_log(" ready ");
        let (code, said) = curl(running, "/", &["--cacert", "server.crt"]);
        assert!(code == 0 && said.starts_with("200"), "{kind}: {code} {said}\n{}", running.log());
        let (code, said) = probe(running);
        assert!(code == 0 && said.contains("answered 200"), "{kind}: {said}");
    }
    for (kind, mut running) in running {
        let launcher = running.pid().as_raw();
        assert_eq!(in_memory(launcher).len(), usize::from(server == "granian"), "{kind}");
        assert_eq!(running.stop(), 0, "{kind}: {}", running.log());
        assert_eq!(in_memory(launcher), [] as [std::path::PathBuf; 0], "{kind}");
        running.assert_nothing_left();
    }
}

/// Neither in the running processes, nor in the launcher's own environment, which contained it.
fn a_passphrase_is_nowhere_to_be_seen(server: &str) {
    let Some(launch) = launch(server, "server", &["--log-level", "debug"]) else { return };
    openssl(launch.directory.path(), KINDS[5].1[0]);
    certify(launch.directory.path(), "server", "-passin pass:correct-horse-battery");
    let file = launch.directory.path().join("passphrase");
    fs::write(&file, format!("{PASSPHRASE}\n")).unwrap();
    let explained = std::process::Command::new(crate::harness::PROGRAM)
        .args(["explain", "--json"])
        .envs(launch.command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("KEY_FILE_PASSWORD", PASSPHRASE)
        .env("HTTP_SERVER", server)
        .output()
        .unwrap();
    assert!(explained.status.success() && !contains(&explained.stdout, PASSPHRASE), "{explained:?}");
    let mut running = launch.env("KEY_FILE_PASSWORD", PASSPHRASE).env("KEY_FILE_PASSWORD_FILE", file).start();
    running.wait_log(" ready ");
    let descendants = running.descendants();
    assert!(descendants.len() >= 2, "main process and worker");
    for pid in descendants {
        for file in ["cmdline", "environ"] {
            let text = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            assert!(!contains(&text, PASSPHRASE) && !contains(&text, "PRIVATE KEY"), "{file} of {pid}");
        }
    }
    for file in ["cmdline", "environ"] {
        let own = fs::read(format!("/proc/{}/{file}", running.pid())).unwrap();
        assert!(!contains(&own, PASSPHRASE), "{file} of the launcher");
    }
    let (_, shown) = ask(&running, &["explain", "--running", "--json"]);
    assert!(shown.contains("certificate") && !shown.contains(PASSPHRASE), "{shown}");
    assert_eq!(running.stop(), 0);
    for text in [running.log(), running.out()] {
        assert!(!text.contains(PASSPHRASE) && !text.contains("PRIVATE KEY"), "{text}");
    }
}

fn contains(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

/// The launcher could not remove a file then: Granian reads the user's own, and a key that it cannot read is reported.
fn exec_mode_serves_with_tls(server: &str) {
    let Some(running) = start_in_exec_mode(server, KINDS[5].1[0]) else { return };
    match (server, running) {
        ("granian", Err(log)) => {
            assert!(log.contains("in exec mode the launcher cannot remove a file with the key"), "{log}");
            assert!(log.contains("openssl pkcs8 -topk8"), "{log}");
        }
        (_, running) => assert_eq!(running.unwrap().stop(), 0),
    }
    let Some(running) = start_in_exec_mode(server, KINDS[0].1[0]) else { return };
    assert_eq!(running.unwrap().stop(), 0);
}

fn start_in_exec_mode(server: &str, key: &str) -> Option<Result<Running, String>> {
    let launch = launch(server, "server", &["--mode", "exec"])?;
    openssl(launch.directory.path(), key);
    certify(launch.directory.path(), "server", "-passin pass:correct-horse-battery");
    let mut running = launch.env("KEY_FILE_PASSWORD", PASSPHRASE).start();
    let answered = crate::harness::wait_for("an answer or the end", || {
        if running.log().contains("mcp-launch: ") {
            return Some(false);
        }
        (curl(&running, "/", &["--cacert", "server.crt"]).0 == 0).then_some(true)
    });
    if answered {
        return Some(Ok(running));
    }
    assert_eq!(running.wait(), 78);
    Some(Err(running.log()))
}

fn what_is_wrong_with_the_files_is_said_before_anything_starts(server: &str) {
    let Some(launch) = launch(server, "server", &[]) else { return };
    let directory = launch.directory.path().to_owned();
    openssl(&directory, KINDS[5].1[0]);
    certify(&directory, "server", "-passin pass:correct-horse-battery");
    let launch = launch.env("KEY_FILE_PASSWORD", "wrong").env("SSL_CA_FILE", directory.join("none.pem"));
    let finished = launch.finish();
    assert_eq!(finished.code, 78, "{}", finished.log);
    for said in [
        "server.key is not encrypted with the passphrase from environment KEY_FILE_PASSWORD",
        "the CA certificate file",
        "none.pem does not exist (from environment SSL_CA_FILE)",
    ] {
        assert!(finished.log.contains(said), "{said} in {}", finished.log);
    }
    assert!(!finished.log.contains("ready"));
}

/// And the result of the command can be served.
fn a_key_in_a_rare_form_is_answered_with_the_command_that_converts_it(server: &str) {
    let traditional = &["genrsa -traditional -aes256 -passout pass:correct-horse-battery -out server.key 2048"][..];
    let without = &["ecparam -name prime256v1 -genkey -out whole.key", "ec -in whole.key -no_public -out server.key"];
    let passphrases = "pkcs8 -topk8 -passin pass:correct-horse-battery -passout pass:correct-horse-battery";
    for (made, said) in [(traditional, "OpenSSL's old format"), (without, "lacks its public point")] {
        let prepared = |served: &str| {
            let launch = launch(server, "server", &[])?;
            let directory = launch.directory.path().to_owned();
            for command in made {
                openssl(&directory, command);
            }
            certify(&directory, "server", "-passin pass:correct-horse-battery");
            let key = directory.join(served);
            Some((launch.env("KEY_FILE_PASSWORD", PASSPHRASE).env("KEY_FILE", &key), directory))
        };
        let Some((launch, directory)) = prepared("server.key") else { return };
        let finished = launch.finish();
        assert_eq!(finished.code, 78, "{}", finished.log);
        let key = directory.join("server.key").display().to_string();
        let command = ["pkcs8 -topk8", "ec"].map(|tool| format!("openssl {tool} -in {key} -out {key}.new"));
        let command = command.iter().find(|command| finished.log.contains(*command));
        for part in [said, "KEY_FILE", key.as_str()] {
            assert!(finished.log.contains(part), "{part} in {}", finished.log);
        }
        let Some((launch, directory)) = prepared("server.key.new") else { return };
        let command = command.unwrap_or_else(|| panic!("no command in {}", finished.log));
        let command = command.replace(&key, "server.key").replace("pkcs8 -topk8", passphrases);
        openssl(&directory, command.strip_prefix("openssl ").unwrap());
        let mut running = launch.start();
        running.wait_log(" ready ");
        let (code, answer) = curl(&running, "/", &["--cacert", "server.crt"]);
        assert!(code == 0 && answer.starts_with("200"), "{said}: {code} {answer}\n{}", running.log());
        assert_eq!(running.stop(), 0);
    }
}

/// Sessions that began with one worker are resumed with another, without opening a file again.
#[test]
fn workers_of_gunicorn_share_their_sessions() {
    let Some(mut running) = start("gunicorn", &["--workers", "2"], &[]) else { return };
    let session = running.directory.path().join("session");
    let file = session.to_str().unwrap();
    s_client(&running, &["-tls1_2", "-sess_out", file]);
    for _ in 0..8 {
        let output = s_client(&running, &["-tls1_2", "-sess_in", file]);
        assert!(contains(&output.stdout, "Reused, TLSv1.2"), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(running.stop(), 0);
}

/// A user that exists on no system.
const SOMEBODY: u32 = 54321;

/// The files of a process in `/proc` belong to its user if it may be traced.
#[test]
fn a_launcher_that_holds_a_key_cannot_be_read_by_its_own_user() {
    if !is_root() {
        skipped("only root may change to another user");
        return;
    }
    let owner_of_memory = |has_key: bool| {
        let launch = Launch::fake("gunicorn", "serve", &[]).without("XDG_RUNTIME_DIR");
        let directory = launch.directory.path().to_owned();
        pair(&directory, "server");
        fs::set_permissions(directory.join("server.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let launch = launch.env("SSL", has_key.to_string());
        let launch =
            launch.env("CERT_FILE", directory.join("server.crt")).env("KEY_FILE", directory.join("server.key"));
        let user = SOMEBODY.to_string();
        let mut running = launch.through(&["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]).start();
        running.wait_log("start mode=supervise");
        fs::metadata(format!("/proc/{}/mem", running.pid())).unwrap().uid()
    };
    assert_eq!((owner_of_memory(false), owner_of_memory(true)), (SOMEBODY, 0));
}
