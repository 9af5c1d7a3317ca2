//! The client's side of TLS. It accepts any certificate: checking whether a server responds does not require trust.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, ResolvesClientCert};
use rustls::crypto::ring::{DEFAULT_CIPHER_SUITES, kx_group};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, SupportedKxGroup,
    WebPkiSupportedAlgorithms,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{AlertDescription, ClientConfig, DigitallySignedStruct, Error, NamedGroup, SignatureScheme};

use super::Response;

/// The report about a server that requires a client certificate.
pub(super) fn without_certificate() -> Response {
    Response::Refused("requires a client certificate".into())
}

/// A connection.
#[derive(Debug)]
pub(super) struct Tls {
    connection: Result<ClientConnection, Error>,
    asked: Arc<AskedForCertificate>,
}

impl Tls {
    pub fn new() -> Self {
        let asked = Arc::<AskedForCertificate>::default();
        let connection = config(Arc::clone(&asked)).and_then(|config| {
            let name = ServerName::try_from("localhost").map_err(|_| Error::General("no name".into()))?;
            ClientConnection::new(Arc::new(config), name)
        });
        Self { connection, asked }
    }

    /// Whether the server has asked for a client certificate.
    pub fn wants_certificate(&self) -> bool {
        self.asked.0.load(Relaxed)
    }

    /// Whether HTTP/2 was negotiated.
    pub fn speaks_http2(&self) -> bool {
        self.connection.as_ref().is_ok_and(|connection| connection.alpn_protocol() == Some(b"h2"))
    }

    /// Takes what was received and returns what the server says; nothing during the handshake.
    ///
    /// # Errors
    /// The reason why the server refuses to continue.
    pub fn received(&mut self, mut bytes: &[u8]) -> Result<Option<Vec<u8>>, Response> {
        let asked = Arc::clone(&self.asked);
        let Ok(connection) = &mut self.connection else { return Err(Response::Other) };
        let mut clear = Vec::new();
        while !bytes.is_empty() {
            if connection.read_tls(&mut bytes).map_err(|_| Response::Other)? == 0 {
                // The server has closed the connection; what comes after that is ignored.
                break;
            }
            let state = connection.process_new_packets().map_err(|error| match error {
                Error::AlertReceived(_) if asked.0.load(Relaxed) => without_certificate(),
                // An error of the server itself, with any client.
                Error::AlertReceived(AlertDescription::InternalError) => Response::Other,
                Error::AlertReceived(alert) => Response::Refused(format!("refuses the TLS handshake ({alert:?})")),
                _ => Response::Other,
            })?;
            let start = clear.len();
            clear.resize(start + state.plaintext_bytes_to_read(), 0);
            connection.reader().read_exact(&mut clear[start..]).map_err(|_| Response::Other)?;
        }
        Ok((!connection.is_handshaking()).then_some(clear))
    }

    /// Sends data in the connection.
    pub fn send(&mut self, bytes: &[u8]) {
        if let Ok(connection) = &mut self.connection {
            // Writing to memory does not fail.
            let _ = connection.writer().write_all(bytes);
        }
    }

    /// Adds the bytes to be sent.
    pub fn flush(&mut self, into: &mut Vec<u8>) {
        if let Ok(connection) = &mut self.connection {
            while connection.wants_write() && connection.write_tls(into).is_ok() {}
        }
    }
}

fn config(asked: Arc<AskedForCertificate>) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(provider()));
    let mut config = config
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_client_cert_resolver(asked);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What is needed by a client that has no key and verifies no signature.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: DEFAULT_CIPHER_SUITES.to_vec(),
        kx_groups: vec![kx_group::X25519, kx_group::SECP256R1, &FOR_CERTIFICATES[0], &FOR_CERTIFICATES[1]],
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        secure_random: &Ring,
        key_provider: &Ring,
    }
}

/// Up to TLS 1.2 the list of curves also restricts the server's certificate (RFC 8422, 5.1.1).
static FOR_CERTIFICATES: [Announced; 2] = [Announced(NamedGroup::secp384r1), Announced(NamedGroup::secp521r1)];

/// A curve without key exchange.
#[derive(Debug)]
struct Announced(NamedGroup);

impl SupportedKxGroup for Announced {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Err(Error::General("this curve has no key exchange".into()))
    }

    fn name(&self) -> NamedGroup {
        self.0
    }
}

#[derive(Debug)]
struct Ring;

impl SecureRandom for Ring {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), buffer).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for Ring {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("keys are not supported".into()))
    }
}

/// Has no certificate, and notes whether one was asked for.
#[derive(Debug, Default)]
struct AskedForCertificate(AtomicBool);

impl ResolvesClientCert for AskedForCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        // Otherwise rustls would not call it.
        true
    }
}

/// Accepts whatever the server presents.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    /// All signature schemes that servers use, including those for keys that are not verified here.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ED25519,
            SignatureScheme::ED448,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
        ]
    }
}
