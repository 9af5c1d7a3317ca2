//! TLS settings for Granian, all of them as arguments.

use std::sync::Arc;

use super::super::server::install;
use super::super::{Credentials, Launch, tls};
use super::Args;
use crate::host::Version;
use crate::problem::Problem;
use crate::settings::Origin;
use crate::settings::value::{ClientVerify, TlsVersion};

/// Granian's own variables for settings that it gets as arguments, and for a passphrase that it does not need.
const OWN_FILES: [&str; 3] = ["GRANIAN_SSL_CERTIFICATE", "GRANIAN_SSL_KEYFILE", "GRANIAN_SSL_KEYFILE_PASSWORD"];

/// The first release of Granian that accepts only TLS 1.3; a later one added a flag for it.
const ONLY_1_3: Version = Version(2, 0, 0);

impl Args<'_> {
    /// Whether it serves TLS, by our settings or by Granian's own.
    pub(super) fn serves_tls(&self) -> bool {
        let own = |name: &str| self.inputs.resolution.native.iter().any(|native| native.name == name);
        self.settings().ssl.value || own("GRANIAN_SSL_CERTIFICATE") && own("GRANIAN_SSL_KEYFILE")
    }

    /// Makes it serve TLS if it is to, and returns whether it does.
    pub(super) fn tls(&mut self, launch: &mut Launch) -> bool {
        let settings = self.settings().clone();
        if !settings.ssl.value {
            return self.serves_tls();
        }
        // We name the files, and the key is not encrypted.
        launch.env.extend(OWN_FILES.map(|name| (name.into(), None)));
        launch.credentials = self.inputs.pair.map(|pair| Credentials {
            directory: tls::directory(&settings, self.inputs.host, pair, self.findings),
            pair: Arc::clone(pair),
        });
        let files = launch.credentials.as_ref().and_then(Credentials::files);
        let (certificate, key, authority) = files.map_or_else(
            || {
                let authority = settings.ssl_ca_file.value.clone().unwrap_or_default();
                (settings.cert_file.value.clone(), settings.key_file.value.clone(), authority)
            },
            |files| (files.pair.clone(), files.pair, files.authority),
        );
        self.words.extend(["--ssl-certificate".into(), certificate.into(), "--ssl-keyfile".into(), key.into()]);
        let least = &settings.ssl_min_version;
        let is_native =
            !least.is_explicit() && self.is_set_natively("--ssl-protocol-min", "GRANIAN_SSL_PROTOCOL_MIN", &[]);
        if self.has("--ssl-protocol-min") {
            let word = if least.value == TlsVersion::V1_3 { "tls1.3" } else { "tls1.2" };
            if !is_native {
                self.pair("--ssl-protocol-min", word);
            }
        } else if least.value == TlsVersion::V1_3 {
            self.too_old("ssl_min_version", "--ssl-protocol-min", &least.origin);
        } else if let Some(version) = self.inputs.version.filter(|version| *version >= ONLY_1_3) {
            self.findings.warn(format!(
                "granian {version} accepts only TLS 1.3, so older clients are refused; {}",
                install(&self.inputs.host.python, "-U granian")
            ));
        }
        if settings.ssl_ca_file.value.is_some() {
            if self.has("--ssl-ca") {
                self.words.extend(["--ssl-ca".into(), authority.into()]);
            } else {
                self.too_old("ssl_ca_file", "--ssl-ca", &settings.ssl_ca_file.origin);
            }
        }
        let verify = &settings.ssl_client_verify;
        match verify.value {
            ClientVerify::None if verify.is_explicit() && self.has("--ssl-client-verify") => {
                self.flag("--no-ssl-client-verify");
            }
            ClientVerify::None => {}
            ClientVerify::Required => self.flag("--ssl-client-verify"),
            ClientVerify::Optional => {
                let message = "Granian cannot make client certificates optional";
                let hint = "use required or none, or --server gunicorn";
                self.findings.problem(Problem::setting(message, &verify.origin).hint(hint));
            }
        }
        if let Some(ciphers) = &settings.ssl_ciphers.value {
            let message = format!("Granian has no setting for ciphers: ssl_ciphers = {ciphers}");
            let hint = "remove it (Granian offers no weak ciphers), or use --server gunicorn";
            self.findings.problem(Problem::setting(message, &settings.ssl_ciphers.origin).hint(hint));
        }
        true
    }

    /// A protection must not be dropped silently.
    fn too_old(&mut self, setting: &str, flag: &str, origin: &Origin) {
        let message = format!("{setting} needs a newer Granian: {}", self.lacks(flag));
        let hint = install(&self.inputs.host.python, "-U granian");
        self.findings.problem(Problem::setting(message, origin).hint(hint));
    }
}
