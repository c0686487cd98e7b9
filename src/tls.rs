//! The certificate that the listener shows, from files of the operator, and its renewal without a restart.
//!
//! Whoever renews certificates replaces the files: they are read again on SIGHUP, and by themselves soon
//! after they change. What cannot be used is refused at the start; later it is logged, and the server goes
//! on with what it has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use iris_actors::supervision::detached;
use iris_agent::Clock;
use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error as RustlsError, InconsistentKeys, ServerConfig};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use x509_parser::parse_x509_certificate;

/// How often it is looked whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Most bytes of one of the files.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// What is spoken over TLS.
const PROTOCOL: &[u8] = b"http/1.1";

/// Where the certificate and its key are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate of the server, and behind it those that lead to an authority.
    pub certificate: PathBuf,
    /// The private key of the first one.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{}` cannot be read: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("`{}` holds no {expected} in PEM", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it has to hold.
        expected: &'static str,
    },
    /// The certificate and the key are no pair.
    #[error("the key in `{}` is not that of the certificate", .0.display())]
    OtherKey(PathBuf),
    /// Its time is over, or has not come.
    #[error("the certificate in `{}` is good from {from} to {until} and not now", .path.display())]
    NotNow {
        /// The file.
        path: PathBuf,
        /// When it begins.
        from: String,
        /// When it ends.
        until: String,
    },
    /// The library refuses it.
    #[error("the certificate in `{}` cannot be used: {reason}", .path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The certificate of a listener, as it is now.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    /// Of the files as they were read.
    stamp: Stamp,
    current: Arc<Current>,
    provider: Arc<CryptoProvider>,
}

/// What is shown to who connects.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

impl Tls {
    /// Reads the files. Waits for the disk.
    ///
    /// # Errors
    /// When they hold nothing that can be used now.
    pub(crate) fn load(files: &TlsFiles, clock: &dyn Clock) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        // Before: what changes meanwhile is a change.
        let stamp = stamp(files);
        let key = read(files, &provider, clock)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(key))));
        Ok(Self { files: files.clone(), stamp, current, provider })
    }

    /// How connections are encrypted.
    ///
    /// # Errors
    /// When the library finds no version of the protocol that it can speak.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| unusable(&self.files.certificate, &error))?;
        let current = Arc::clone(&self.current);
        let mut config = builder.with_no_client_auth().with_cert_resolver(current);
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }

    /// Takes what the files hold now; what cannot be used changes nothing.
    fn reload(&self, clock: &dyn Clock) {
        match read(&self.files, &self.provider, clock) {
            Ok(key) => {
                *self.current.0.write() = Arc::new(key);
                tracing::info!("the certificate was read again");
            }
            Err(error) => {
                tracing::error!(%error, "the certificate was not taken; the one before goes on");
            }
        }
    }

    /// Reads the files again whenever they change, and on SIGHUP, until the answer is dropped.
    ///
    /// # Errors
    /// When the signal cannot be waited for.
    pub(crate) fn watch(self, clock: Arc<dyn Clock>) -> io::Result<Watching> {
        let (watching, mut ended) = oneshot::channel();
        let mut hang_up = HangUp::new()?;
        let tls = Arc::new(self);
        let mut seen = tls.stamp;
        detached(async move {
            let mut looks = interval(LOOK_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let is_told = tokio::select! {
                    _ = &mut ended => return,
                    () = hang_up.next() => true,
                    _ = looks.tick() => false,
                };
                let (tls, clock, before) = (Arc::clone(&tls), Arc::clone(&clock), seen);
                // Away from the threads that serve: a disk may take its time.
                let looked = tokio::task::spawn_blocking(move || {
                    let now = stamp(&tls.files);
                    if is_told || now != before {
                        tls.reload(clock.as_ref());
                    }
                    now
                });
                match looked.await {
                    Ok(now) => seen = now,
                    Err(error) => tracing::error!(%error, "the certificate was not looked at"),
                }
            }
        });
        Ok(Watching { _ended: watching })
    }
}

/// Ends the watch over the files when it is dropped.
pub(crate) struct Watching {
    _ended: oneshot::Sender<()>,
}

/// The signal to read configuration again.
pub(crate) struct HangUp(#[cfg(unix)] tokio::signal::unix::Signal);

impl HangUp {
    #[cfg(unix)]
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(signal(SignalKind::hangup())?))
    }

    #[cfg(not(unix))]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self())
    }

    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if self.0.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// When each file was written, and how long it is; none for one that is not there.
type Stamp = [Option<(SystemTime, u64)>; 2];

fn stamp(files: &TlsFiles) -> Stamp {
    [&files.certificate, &files.key].map(|path| {
        let found = fs::metadata(path).ok()?;
        Some((found.modified().ok()?, found.len()))
    })
}

/// What the files hold, if it can be used now.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn check(files: &TlsFiles, clock: &dyn Clock) -> Result<(), TlsError> {
    read(files, &ring::default_provider(), clock).map(drop)
}

fn read(
    files: &TlsFiles,
    provider: &CryptoProvider,
    clock: &dyn Clock,
) -> Result<CertifiedKey, TlsError> {
    let path = &files.certificate;
    let certificates = CertificateDer::pem_slice_iter(&bytes(path)?)
        .collect::<Result<Vec<_>, pem::Error>>()
        .map_err(|error| unusable(path, &error))?;
    let Some(first) = certificates.first() else {
        return Err(TlsError::Missing { path: path.clone(), expected: "certificate" });
    };
    check_time(path, first, clock.now_ms().div_euclid(1_000))?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?)
        .map_err(|_| TlsError::Missing { path: files.key.clone(), expected: "private key" })?;
    let other_key = RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch);
    CertifiedKey::from_der(certificates, key, provider).map_err(|error| {
        if error == other_key {
            return TlsError::OtherKey(files.key.clone());
        }
        unusable(path, &error)
    })
}

fn bytes(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_BYTES_MAX {
        let message = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(unreadable(io::Error::new(io::ErrorKind::FileTooLarge, message)));
    }
    fs::read(path).map(zeroize::Zeroizing::new).map_err(unreadable)
}

/// A clock that is wrong is the same to who connects as a certificate that is: both have to be put right.
fn check_time(
    path: &Path,
    certificate: &CertificateDer<'_>,
    now_seconds: i64,
) -> Result<(), TlsError> {
    let (_, parsed) =
        parse_x509_certificate(certificate).map_err(|error| unusable(path, &error))?;
    let validity = parsed.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if (from..=until).contains(&now_seconds) {
        return Ok(());
    }
    Err(TlsError::NotNow {
        path: path.to_owned(),
        from: validity.not_before.to_string(),
        until: validity.not_after.to_string(),
    })
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Unusable { path: path.to_owned(), reason: error.to_string() }
}
