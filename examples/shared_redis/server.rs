//! The Redis of the example.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tower::BoxError;

/// The server that `REDIS_URL` names, or one of this program, which ends with what is returned.
pub(crate) async fn start() -> Result<(String, Option<tokio::process::Child>), BoxError> {
    if let Ok(url) = std::env::var("REDIS_URL") {
        return Ok((url, None));
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let mut server = Command::new("redis-server");
    server
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
        .stdout(Stdio::null())
        .kill_on_drop(true);
    let server = server
        .spawn()
        .map_err(|error| format!("redis-server cannot be started ({error}); install it, or set REDIS_URL"))?;
    while tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok((format!("redis://127.0.0.1:{port}"), Some(server)))
}
