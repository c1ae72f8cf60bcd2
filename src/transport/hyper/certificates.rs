//! Whom a client trusts, and how it proves who it is.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use crate::error::Error;

/// Root certificates, and the client's own.
#[derive(Clone, Default)]
pub(super) struct Certificates {
    /// Without those of the platform.
    only: bool,
    roots: Vec<CertificateDer<'static>>,
    identity: Option<Arc<Identity>>,
}

struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Certificates {
    pub(super) fn add_roots(&mut self, pem: &[u8]) -> Result<(), Error> {
        self.roots.extend(read_roots(pem)?);
        Ok(())
    }

    pub(super) fn replace_roots(&mut self, pem: &[u8]) -> Result<(), Error> {
        self.roots = read_roots(pem)?;
        self.only = true;
        Ok(())
    }

    pub(super) fn set_identity(&mut self, chain: &[u8], key: &[u8]) -> Result<(), Error> {
        let refuse = |what: &str| Error::config(format!("the client certificate cannot be used: {what}"));
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| refuse("the PEM of its chain is broken"))?;
        if chain.is_empty() {
            return Err(refuse("its chain holds no certificate"));
        }
        // What is wrong with a key may quote it.
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| refuse("the PEM of its key holds no private key that is not encrypted"))?;
        let identity = Identity { chain, key };
        // Whether TLS knows the key, and it is that of the certificate, shows when a configuration is made of both.
        identity.of(tls()?.with_root_certificates(RootCertStore::empty()))?;
        self.identity = Some(Arc::new(identity));
        Ok(())
    }

    /// Makes the configuration for servers, and the one for proxies, which do not get the client's certificate.
    pub(super) async fn configs(&self) -> Result<(ClientConfig, ClientConfig), Error> {
        let certificates = self.clone();
        // The platform's are many files.
        tokio::task::spawn_blocking(move || certificates.read())
            .await
            .map_err(|_| Error::transient("the runtime shut down while the root certificates were read"))?
    }

    fn read(&self) -> Result<(ClientConfig, ClientConfig), Error> {
        let mut store = RootCertStore::empty();
        if !self.only {
            // One that cannot be read is no reason to trust none of the others.
            let platform = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(platform.certs);
        }
        store.add_parsable_certificates(self.roots.iter().cloned());
        if store.is_empty() {
            return Err(Error::config(
                "this machine has no root certificates to check a server by: install them (the package is often called \
                 ca-certificates), or name a file of them in SSL_CERT_FILE",
            ));
        }
        let store = Arc::new(store);
        let to_proxy = tls()?.with_root_certificates(Arc::clone(&store)).with_no_client_auth();
        let own = match &self.identity {
            None => to_proxy.clone(),
            Some(identity) => identity.of(tls()?.with_root_certificates(store))?,
        };
        Ok((own, to_proxy))
    }
}

impl Identity {
    fn of(
        &self,
        builder: ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    ) -> Result<ClientConfig, Error> {
        builder.with_client_auth_cert(self.chain.clone(), self.key.clone_key()).map_err(|error| {
            Error::config(
                "the client certificate cannot be used: TLS does not know a key of this kind, or it belongs to another \
                 certificate",
            )
            .with_source(error)
        })
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("platform", &!self.only)
            .field("roots", &self.roots.len())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

fn read_roots(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let refuse = |what: &str| Error::config(format!("the root certificates cannot be used: {what}"));
    let roots = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refuse("the PEM is broken").with_source(error))?;
    if roots.is_empty() {
        return Err(refuse("the PEM holds no certificate"));
    }
    let mut trial = RootCertStore::empty();
    for root in &roots {
        trial.add(root.clone()).map_err(|error| refuse("one is no root certificate").with_source(error))?;
    }
    Ok(roots)
}

fn tls() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::config("TLS cannot be set up").with_source(error))
}
