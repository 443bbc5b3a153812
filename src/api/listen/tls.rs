//! TLS 1.2 and 1.3, with client certificates where an authority for them is given; renewed from the files without a restart.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::watched::Watched;

pub use super::super::watched::FileError as TlsError;

/// Where certificates lie, all in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of client certificates; clients without one are refused when it is given.
    pub client_authorities: Option<PathBuf>,
    /// Client certificates that are no longer good (CRL); only with `client_authorities`.
    pub client_revocations: Option<PathBuf>,
}

/// The server's side of TLS.
#[derive(Debug)]
pub struct Tls(Watched<ServerConfig>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file and what is wrong with it: unreadable, no certificate in it, a key of another certificate.
    pub fn open(files: &TlsFiles) -> Result<Self, TlsError> {
        let mut paths = vec![files.certificate.clone(), files.key.clone()];
        let has_authorities = files.client_authorities.is_some();
        paths.extend(files.client_authorities.clone());
        paths.extend(files.client_revocations.clone().filter(|_| has_authorities));
        Watched::open(paths, server_config).map(Self)
    }

    /// A handshake with the certificate of now.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.0.current()).accept(stream).await
    }
}

/// Of certificate, key, and maybe client authorities and revocations.
fn server_config(files: &[Vec<u8>]) -> Result<ServerConfig, String> {
    let [certificate, key, clients @ ..] = files else { return Err("certificate and key are needed".to_owned()) };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_reader(Cursor::new(key))
        .map_err(|error| format!("no private key in the file of the key: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match clients {
        [] => builder.with_no_client_auth(),
        [authorities, revocations @ ..] => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(authorities)? {
                roots.add(authority).map_err(|error| format!("an authority of clients: {error}"))?;
            }
            let revocations = revocations.iter().flat_map(|pem| CertificateRevocationListDer::pem_slice_iter(pem));
            let revocations =
                revocations.collect::<Result<Vec<_>, _>>().map_err(|error| format!("a revocation list: {error}"))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .with_crls(revocations)
                .build()
                .map_err(|error| format!("the authorities of clients: {error}"))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config =
        builder.with_single_cert(chain, key).map_err(|error| format!("the certificate with its key: {error}"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("no certificate (PEM) in it".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("no certificate (PEM): {error}")),
    }
}
