//! What clients must present, and the oldest TLS version for them.

use super::certificates::{ask, curl, pair, probe, s_client, signed_pair, start};
use crate::harness::Running;

crate::for_both_servers!(required_client_certificates_are_required, the_oldest_version_is_the_same);

const CLASSES: [&str; 2] = ["uvicorn_worker.UvicornWorker", "asgi"];

fn start_with_authority(server: &str, verify: &str, arguments: &[&str]) -> Option<Running> {
    // Granian and Gunicorn check their files before they start.
    let authority = tempfile::tempdir().unwrap();
    pair(authority.path(), "authority");
    pair(authority.path(), "stranger");
    signed_pair(authority.path(), "friend", "authority");
    signed_pair(authority.path(), "foe", "stranger");
    let file = authority.path().join("authority.crt");
    let env = [("SSL_CLIENT_VERIFY", verify), ("SSL_CA_FILE", file.to_str().unwrap())];
    let running = start(server, arguments, &env)?;
    for name in ["friend.crt", "friend.key", "foe.crt", "foe.key"] {
        std::fs::copy(authority.path().join(name), running.directory.path().join(name)).unwrap();
    }
    Some(running)
}

/// Whether clients without a certificate, with one of the authority and with one of another authority get an answer.
fn answered(running: &Running, version: &[&str]) -> [bool; 3] {
    [&[][..], &["--cert", "friend.crt", "--key", "friend.key"], &["--cert", "foe.crt", "--key", "foe.key"]].map(
        |shown| {
            let (code, said) = curl(running, "/", &[&["--cacert", "server.crt"], version, shown].concat());
            assert_eq!(code == 0, said.starts_with("200"), "{code} {said}");
            code == 0
        },
    )
}

fn required_client_certificates_are_required(server: &str) {
    let Some(mut running) = start_with_authority(server, "required", &[]) else { return };
    for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        assert_eq!(answered(&running, version), [false, true, false], "{version:?}\n{}", running.log());
    }
    let (code, said) = ask(&running, &["health"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = probe(&running);
    assert!(code == 0 && said.contains("requires a client certificate"), "{said}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn optional_client_certificates_are_checked_if_they_are_shown() {
    for class in CLASSES {
        let Some(mut running) = start_with_authority("gunicorn", "optional", &["--worker-class", class]) else {
            return;
        };
        assert_eq!(answered(&running, &[]), [true, true, false], "{class}\n{}", running.log());
        assert_eq!(running.stop(), 0);
    }
}

fn the_oldest_version_is_the_same(server: &str) {
    for class in if server == "gunicorn" { &CLASSES[..] } else { &[""] } {
        let arguments = if class.is_empty() { &[][..] } else { &["--worker-class", class] };
        let started = ["1.2", "1.3"].map(|least| start(server, arguments, &[("SSL_MIN_VERSION", least)]));
        for (running, old_is_welcome) in started.into_iter().zip([true, false]) {
            let Some(mut running) = running else { return };
            for (version, welcome) in [("-tls1_1", false), ("-tls1_2", old_is_welcome), ("-tls1_3", true)] {
                // What openssl itself refuses at its usual level would show nothing about the server.
                let output = s_client(&running, &[version, "-cipher", "DEFAULT:@SECLEVEL=0"]);
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert_eq!(!text.contains("Cipher is (NONE)"), welcome, "{class} {version}: {text}");
            }
            assert_eq!(running.stop(), 0);
        }
    }
}

/// Gunicorn's own file may set more than our settings, and have its own hooks.
#[test]
fn tls_settings_in_gunicorns_configuration_file_count_too() {
    let Some(mut launch) = super::certificates::launch("gunicorn", "server", &[]) else { return };
    let directory = launch.directory.path().to_owned();
    pair(&directory, "server");
    std::fs::write(
        directory.join("gunicorn.conf.py"),
        "import ssl\nciphers = 'ECDHE-ECDSA-AES256-GCM-SHA384'\n\n\ndef ssl_context(conf, make):\n    context = make()\n    \
         context.maximum_version = ssl.TLSVersion.TLSv1_2\n    return context\n\n\ndef post_worker_init(worker):\n    \
         worker.log.info('a hook of the user')\n",
    )
    .unwrap();
    launch = launch.env("SSL_MIN_VERSION", "1.2");
    let mut running = launch.start();
    running.wait_log(" ready ");
    assert!(running.log().contains("a hook of the user"), "{}", running.log());
    let (code, said) = probe(&running);
    assert!(code == 0 && said.contains("answered 200"), "{said}");
    for (arguments, welcome) in [
        (&["-tls1_3"][..], false),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], false),
        (&["-tls1_2"], true),
    ] {
        let text = String::from_utf8_lossy(&s_client(&running, arguments).stdout).into_owned();
        assert_eq!(!text.contains("Cipher is (NONE)"), welcome, "{arguments:?}: {text}");
    }
    assert_eq!(running.stop(), 0);
}

/// Then a request over a private socket tells whether a generation is ready: it must be in TLS, or in what the
/// configuration file decides while it runs.
#[test]
fn without_the_guard_gunicorn_is_probed_in_tls() {
    for (class, by) in [("auto", "settings"), ("asgi", "settings"), ("gthread", "settings"), ("auto", "file")] {
        let Some(launch) = super::certificates::launch("gunicorn", "server", &["--worker-class", class]) else {
            return;
        };
        let directory = launch.directory.path().to_owned();
        pair(&directory, "server");
        let launch = if by == "file" {
            let file =
                "import os\ncertfile = os.path.join(os.getcwd(), 'server.crt')\nkeyfile = certfile[:-3] + 'key'\n";
            std::fs::write(directory.join("gunicorn.conf.py"), file).unwrap();
            launch.without("SSL").without("CERT_FILE").without("KEY_FILE")
        } else {
            launch
        };
        let launch = if class == "gthread" {
            let app = "def app(environ, start_response):\n    start_response('200 OK', [('Content-Length', '2')])\n    return [b'{}']\n";
            std::fs::write(directory.join("wsgi_app.py"), app).unwrap();
            launch.replacing_argument("hello:app", "wsgi_app:app")
        } else {
            launch
        };
        let mut running = launch.env("MCP_LAUNCH_GUARD", "off").start();
        running.wait_log("ready generation=1");
        running.signal(nix::sys::signal::Signal::SIGHUP);
        running.wait_log("gone generation=1");
        assert!(running.log().contains("ready generation=2"), "{class} {by}: {}", running.log());
        let shake = String::from_utf8_lossy(&s_client(&running, &["-tls1_3"]).stdout).into_owned();
        assert!(!shake.contains("Cipher is (NONE)"), "{class} {by}: {shake}");
        assert_eq!(running.stop(), 0, "{class} {by}: {}", running.log());
    }
}
