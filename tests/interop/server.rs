//! The process with oidc-provider in it, its log and its control port.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tower::BoxError;

use crate::keys;

/// A client as the server is told about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    pub(crate) id: &'static str,
    pub(crate) secret: &'static str,
    /// In the words of OpenID Connect, such as `client_secret_basic`.
    pub(crate) method: &'static str,
}

/// oidc-provider in a process of its own, which ends when this is dropped.
pub(crate) struct Server {
    process: Child,
    ports: Ports,
    log: PathBuf,
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

#[derive(Clone, Copy, Deserialize)]
struct Ports {
    port: u16,
    control: u16,
}

impl Server {
    /// Starts the server with tokens of that lifetime.
    pub(crate) async fn start(lifetime: Duration, clients: &[Registered]) -> Result<Self, BoxError> {
        let node = std::env::var_os("NODE").ok_or("NODE is not set; tests/interop/run.sh sets it")?;
        let script = std::env::var_os("INTEROP_SERVER").ok_or("INTEROP_SERVER is not set")?;
        let log = std::env::temp_dir().join(format!("interop-{}-{}.log", std::process::id(), next_number()));
        let clients: Vec<Value> = clients
            .iter()
            .map(|client| {
                let mut entry =
                    json!({ "client_id": client.id, "token_endpoint_auth_method": client.method });
                match client.method {
                    "none" => {}
                    "private_key_jwt" => entry["jwks"] = keys::published(),
                    _ => entry["client_secret"] = client.secret.into(),
                }
                entry
            })
            .collect();
        let setup = json!({ "log": log, "lifetime": lifetime.as_secs(), "clients": clients });
        let mut process = Command::new(node)
            .arg(script)
            .env("INTEROP", setup.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It warns of its development keys, which nothing here uses.
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().ok_or("a piped output")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await??;
        let ports = serde_json::from_str(&line.ok_or("the server ended before it told its ports")?)?;
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Ok(Self { process, ports, log, http })
    }

    /// Returns the name by which the server calls itself.
    pub(crate) fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.port)
    }

    pub(crate) fn token_url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.ports.port)
    }

    pub(crate) fn introspection_url(&self) -> String {
        format!("{}/introspection", self.token_url())
    }

    pub(crate) fn revocation_url(&self) -> String {
        format!("{}/revocation", self.token_url())
    }

    pub(crate) fn device_url(&self) -> String {
        format!("http://127.0.0.1:{}/device/auth", self.ports.port)
    }

    /// Revokes every access token.
    pub(crate) async fn revoke_all(&self) -> Result<(), BoxError> {
        self.order("/revoke-all").await
    }

    /// Closes the server's port and its connections; what it issued stays good.
    pub(crate) async fn take_down(&self) -> Result<(), BoxError> {
        self.order("/down").await
    }

    pub(crate) async fn bring_up(&self) -> Result<(), BoxError> {
        self.order("/up").await
    }

    async fn order(&self, path: &str) -> Result<(), BoxError> {
        let url = format!("http://127.0.0.1:{}{path}", self.ports.control);
        let answer = self.http.request(Request::post(url).body(Full::default())?).await?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("{path}: {}", answer.status()).into()) }
    }

    /// Returns how many token requests the server's own log tells of.
    pub(crate) fn token_requests(&self) -> Result<usize, BoxError> {
        Ok(self.answers()?.len())
    }

    /// Returns the statuses with which token requests were answered, from the server's own log.
    pub(crate) fn answers(&self) -> Result<Vec<u64>, BoxError> {
        self.answers_at(|path| path == "/token")
    }

    /// Returns the statuses with which requests for the server's metadata were answered.
    pub(crate) fn metadata_answers(&self) -> Result<Vec<u64>, BoxError> {
        self.answers_at(|path| path.starts_with("/.well-known/"))
    }

    fn answers_at(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<u64>, BoxError> {
        // The log is born with its first line.
        let log = match std::fs::read_to_string(&self.log) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let mut statuses = Vec::new();
        for line in log.lines() {
            let line: Value = serde_json::from_str(line)?;
            if line["path"].as_str().is_some_and(&wanted) {
                statuses.push(line["status"].as_u64().ok_or("a line of the log without a status")?);
            }
        }
        Ok(statuses)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, and a file that stays in the temporary folder harms nobody.
        let _ = self.process.start_kill();
        let _ = std::fs::remove_file(&self.log);
    }
}

fn next_number() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
