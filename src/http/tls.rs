//! Encrypted connections: TLS 1.2 and 1.3 with a certificate from files.
//!
//! The files are read again when they change, so that a renewed certificate is used without a restart; when what is there
//! cannot be used, the one before goes on, and the log says why.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or has nothing of its kind in it.
    #[error("{} has no {what} in PEM: {why}", file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// What it should have.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// They do not go together, or are of a kind nobody supports.
    #[error("the certificate and its key cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// A certificate, its key, and where they come from.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    config: ArcSwap<ServerConfig>,
    /// Of the files that were read last.
    stamps: ArcSwap<Stamps>,
}

type Stamps = [Option<SystemTime>; 2];

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({})", self.certificate.display())
    }
}

impl Tls {
    /// Reads a certificate chain and its key.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let stamps = [certificate, key].map(changed_at);
        Ok(Self {
            config: ArcSwap::new(read(certificate, key)?),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            stamps: ArcSwap::from_pointee(stamps),
        })
    }

    /// Takes connections by the certificate there is now.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// Reads the files again if they have changed.
    pub(super) fn look_again(&self) {
        let stamps = [self.certificate.as_path(), self.key.as_path()].map(changed_at);
        if stamps == **self.stamps.load() {
            return;
        }
        self.stamps.store(Arc::new(stamps));
        match read(&self.certificate, &self.key) {
            Ok(config) => {
                self.config.store(config);
                tracing::info!("the TLS certificate was read again");
            }
            Err(error) => {
                tracing::error!(%error, "the changed TLS certificate cannot be used, the one before goes on: {error}");
            }
        }
    }
}

fn changed_at(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|metadata| metadata.modified()).ok()
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let refuse = |file: &Path, what| {
        let file = file.to_owned();
        move |why: String| TlsError::File { file, what, why }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
    let chain = chain.map_err(|error| refuse(certificate, "certificate")(error.to_string()))?;
    if chain.is_empty() {
        return Err(refuse(certificate, "certificate")("it has none".to_owned()));
    }
    let key =
        PrivateKeyDer::from_pem_file(key).map_err(|error| refuse(key, "private key")(error.to_string()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
