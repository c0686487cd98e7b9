//! What HTTP and WebSocket connections share: the provider of cryptography for TLS.

/// Makes ring the process's provider of cryptography, unless there is one.
pub(crate) fn install_crypto_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was faster, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
    }
}
