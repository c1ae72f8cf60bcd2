//! A real redis-server on a free port of loopback, which ends with the test.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How often a starting server is looked for, at most.
const LOOKS: usize = 500;

pub(crate) struct RedisServer {
    child: Option<Child>,
    pub(crate) port: u16,
    folder: PathBuf,
    /// A file of settings, for a server that writes into it.
    settings: Option<PathBuf>,
    arguments: Vec<String>,
}

impl RedisServer {
    /// Starts a server that keeps nothing on disk, with further arguments.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        Self::start_with("", arguments).await
    }

    /// Starts a server with a file of settings, if they are not empty.
    pub(crate) async fn start_with(settings: &str, arguments: &[&str]) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("tower-oauth2-redis-{}-{port}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let file = (!settings.is_empty()).then(|| folder.join("redis.conf"));
        if let Some(file) = &file {
            fs::write(file, settings).unwrap();
        }
        let mut server = Self { child: None, port, folder, settings: file, arguments };
        server.start_again().await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it on the same port, empty.
    pub(crate) async fn start_again(&mut self) {
        let child = Command::new("redis-server")
            .args(&self.settings)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            // A Sentinel keeps nothing, and knows no such settings.
            .args(if self.settings.is_some() { &[][..] } else { &["--save", "", "--appendonly", "no"] })
            .args(["--dir", &shown(&self.folder)])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed; tests/fleet/run.sh installs it");
        self.child = Some(child);
        for _ in 0..LOOKS {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("redis-server did not listen on its port");
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sends it a signal, such as `STOP` and `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Whether it was started and not killed.
    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Runs a command by redis-cli and returns what it prints.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        self.cli_as("", arguments)
    }

    /// The same with a password, if it is not empty.
    pub(crate) fn cli_as(&self, password: &str, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let login: &[&str] = if password.is_empty() { &[] } else { &["--no-auth-warning", "-a", password] };
        let output =
            Command::new("redis-cli").args(["-p", &port]).args(login).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns a port on which nothing listens. No two calls return the same one, and the system gives none of these to a
/// connection, so a server that was killed finds its port free.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 100 + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + u16::try_from(number % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn shown(path: &Path) -> String {
    path.to_str().expect("a folder for temporary files has a name in UTF-8").to_owned()
}
