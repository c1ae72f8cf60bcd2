//! Refresh tokens with rotation, where the server ends the grant when one comes twice; and revocation.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tower::BoxError;
use tower_oauth2::grants::{GrantBuilder, Revocation, read_token_response};
use tower_oauth2::{ErrorKind, RefreshTokenGrant, TokenCache};

use crate::api::{Api, Check};
use crate::server::Server;
use crate::{BASIC, CLIENTS, Finding, HOUR, basic_source, connect, login, send, send_steadily, whole_line};

/// The access tokens are revoked so often.
const REVOKED_EVERY: Duration = Duration::from_millis(800);
/// So many requests per second.
const PACE: u32 = 20;

// --- The cases ---

pub(crate) async fn login_and_rotation() -> Result<Finding, BoxError> {
    let server = Server::start(HOUR, CLIENTS).await?;
    let api = Api::start(&server, Check::EveryTime).await?;
    let token = read_token_response(login::sign_in(&server, BASIC).await?)?;
    let refresh_token = token.expose_refresh_token().unwrap_or_default().to_owned();
    let rotations = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&rotations);
    let source = RefreshTokenGrant::builder(server.token_url(), BASIC.id, BASIC.secret)
        .refresh_token(refresh_token)
        .access_token(token)
        .on_rotate(move |_| {
            counted.fetch_add(1, Relaxed);
            std::future::ready(Ok(()))
        })
        .build()?;
    let granted = source.has_refresh_token();
    let cache = TokenCache::new(source);
    let client = connect(&cache, &api.origin())?;
    let first = send(client.clone(), api.origin()).await?;
    let before = server.token_requests()?;
    for _ in 0..3 {
        cache.refresh().await?;
    }
    let last = send(client, api.origin()).await?;
    let (answers, rotations) = (server.answers()?, rotations.load(Relaxed));
    Ok(Finding::new(format!("answers={answers:?} rotations={rotations} requests={first},{last}"))
        .demand(granted, "a refresh token from the login")
        .demand(first == StatusCode::OK && last == StatusCode::OK, "no failure")
        .demand(before == 1, "no token request while the token of the login is good")
        .demand(answers == [200; 4] && rotations == 3, "a rotation for each refresh"))
}

pub(crate) async fn revoked_under_rotation(span: Duration) -> Result<Finding, BoxError> {
    let server = Server::start(HOUR, CLIENTS).await?;
    let api = Api::start(&server, Check::EveryTime).await?;
    let rotations = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&rotations);
    let source = signed_in(&server)
        .await?
        .on_rotate(move |_| {
            counted.fetch_add(1, Relaxed);
            // A store is not there at once.
            async {
                sleep(Duration::from_millis(5)).await;
                Ok(())
            }
        })
        .build()?;
    let client = connect(&TokenCache::new(source), &api.origin())?;
    let mut traffic = std::pin::pin!(send_steadily(&client, &api, PACE, span));
    let mut ticks = interval(REVOKED_EVERY);
    ticks.tick().await;
    let mut revocations = 0;
    let traffic = loop {
        tokio::select! {
            traffic = &mut traffic => break traffic,
            _ = ticks.tick() => {
                server.revoke_all().await?;
                revocations += 1;
            }
        }
    };
    let (answers, rotations) = (server.answers()?, rotations.load(Relaxed));
    let refused = answers.iter().filter(|status| **status != 200).count();
    Ok(Finding::new(format!("{traffic} revocations={revocations} rotations={rotations} reuses={refused}"))
        .demand(traffic.failed() == 0, "no failure")
        .demand(refused == 0, "no reuse")
        .demand(answers.len() == 1 + rotations, "a rotation for each refresh")
        .demand((revocations..=revocations + 1).contains(&rotations), "one refresh for each revocation"))
}

pub(crate) async fn killed_and_restarted(span: Duration) -> Result<Finding, BoxError> {
    let server = Server::start(HOUR, CLIENTS).await?;
    let api = Api::start(&server, Check::EveryTime).await?;
    let token = read_token_response(login::sign_in(&server, BASIC).await?)?;
    let state = State::new()?;
    let refresh_token = token.expose_refresh_token().ok_or("the login brought no refresh token")?;
    write(&state.path, refresh_token)?;
    let mut told = Told::default();
    let (mut lives, mut revocations) = (0, 0);
    let end = Instant::now() + span;
    while Instant::now() < end {
        let (mut child, mut lines) = start_child(&state, &server, &api)?;
        told.until_rotated(&mut lines).await?;
        // Never at the same point of its life.
        for _ in 0..lives % 3 {
            sleep(REVOKED_EVERY).await;
            server.revoke_all().await?;
            revocations += 1;
            told.until_rotated(&mut lines).await?;
        }
        sleep(REVOKED_EVERY / (1 + lives % 4)).await;
        child.kill().await?;
        told.until_the_end(&mut lines).await?;
        lives += 1;
    }
    let answers = server.answers()?;
    let refused = answers.iter().filter(|status| **status != 200).count();
    let Told { ok, failures, rotations } = told;
    let shown = failures.first().map(|failure| format!(" first=\"{failure}\"")).unwrap_or_default();
    Ok(Finding::new(format!(
        "requests={} failed={} lives={lives} revocations={revocations} rotations={rotations} reuses={refused}{shown}",
        ok + failures.len(),
        failures.len()
    ))
    .demand(ok > 0 && failures.is_empty(), "no failure")
    .demand(lives >= 2, "a restart")
    .demand(refused == 0, "no reuse")
    .demand(answers.len() == 1 + rotations, "a rotation for each refresh"))
}

pub(crate) async fn revoked_for_good() -> Result<Finding, BoxError> {
    let server = Server::start(HOUR, CLIENTS).await?;
    let api = Api::start(&server, Check::EveryTime).await?;
    let revocation = Revocation::builder(server.revocation_url(), BASIC.id, BASIC.secret).build()?;
    let cache =
        TokenCache::builder(signed_in(&server).await?.build()?).revoke_with(revocation.clone()).build();
    let token = cache.get().await?;
    let before = bare(&api, token.header_value()).await?;
    cache.revoke().await?;
    let after = bare(&api, token.header_value()).await?;
    let refused = cache.get().await;
    // At a shutdown, of a token of the client's own.
    let own =
        TokenCache::builder(basic_source(&server)?).revoke_with(revocation).revoke_at_shutdown(true).build();
    let token = own.get().await?;
    let good = bare(&api, token.header_value()).await?;
    own.shutdown(Duration::from_secs(5)).await?;
    let gone = bare(&api, token.header_value()).await?;
    Ok(Finding::new(format!("on request {before} then {after}, at a shutdown {good} then {gone}"))
        .demand(before == StatusCode::OK && good == StatusCode::OK, "tokens that are good")
        .demand(
            after == StatusCode::UNAUTHORIZED && gone == StatusCode::UNAUTHORIZED,
            "tokens that are revoked",
        )
        .demand(
            refused.is_err_and(|error| error.kind() == ErrorKind::Grant),
            "a refresh token that is revoked",
        ))
}

/// Signs in, and begins with the refresh token of that.
async fn signed_in(server: &Server) -> Result<GrantBuilder<RefreshTokenGrant>, BoxError> {
    let token = read_token_response(login::sign_in(server, BASIC).await?)?;
    let refresh_token = token.expose_refresh_token().unwrap_or_default().to_owned();
    Ok(RefreshTokenGrant::builder(server.token_url(), BASIC.id, BASIC.secret).refresh_token(refresh_token))
}

/// Sends a request with this token, and nothing of ours around it.
pub(crate) async fn bare(api: &Api, authorization: &http::HeaderValue) -> Result<StatusCode, BoxError> {
    let request = Request::get(api.origin() + "/items")
        .header(header::AUTHORIZATION, authorization)
        .body(Full::<Bytes>::default())?;
    let http = HttpClient::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    Ok(http.request(request).await?.status())
}

// --- The process that is killed ---

/// What makes this program that process.
const CHILD: &str = "--live-on";

/// A file with the refresh token, which is gone when this is dropped.
struct State {
    path: PathBuf,
}

/// What a process told of its life.
#[derive(Default)]
struct Told {
    ok: usize,
    failures: Vec<String>,
    rotations: usize,
}

/// Runs as that process, if the arguments say so.
pub(crate) async fn child() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip_while(|argument| argument != CHILD).skip(1);
    let (state, token_url, origin) = (arguments.next()?, arguments.next()?, arguments.next()?);
    match live_on(state.into(), token_url, origin).await {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            println!("failed {}", whole_line(&*error));
            Some(ExitCode::FAILURE)
        }
    }
}

/// Begins with the refresh token of the file, and sends requests until somebody ends it.
async fn live_on(state: PathBuf, token_url: String, origin: String) -> Result<(), BoxError> {
    let refresh_token = std::fs::read_to_string(&state)?;
    let source = RefreshTokenGrant::builder(token_url, BASIC.id, BASIC.secret)
        .refresh_token(refresh_token)
        .on_rotate(move |token| {
            let state = state.clone();
            async move {
                tokio::task::spawn_blocking(move || write(&state, token.expose_refresh_token())).await??;
                println!("rotated");
                Ok(())
            }
        })
        .build()?;
    let client = connect(&TokenCache::new(source), &origin)?;
    let mut ticks = interval(Duration::from_secs(1) / PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        ticks.tick().await;
        let (client, origin) = (client.clone(), origin.clone());
        tokio::spawn(async move {
            let line = match send(client, origin).await {
                Ok(status) if status.is_success() => "ok".to_owned(),
                Ok(status) => format!("failed {status}"),
                Err(error) => format!("failed {}", whole_line(&*error)),
            };
            println!("{line}");
        });
    }
}

/// In one step: who is killed underway leaves the old file or the new one.
fn write(path: &Path, refresh_token: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(refresh_token.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(new, path)
}

fn start_child(
    state: &State,
    server: &Server,
    api: &Api,
) -> Result<(Child, Lines<BufReader<ChildStdout>>), BoxError> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(CHILD)
        .arg(&state.path)
        .args([server.token_url(), api.origin()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().ok_or("a piped output")?).lines();
    Ok((child, lines))
}

impl Told {
    async fn until_rotated(&mut self, lines: &mut Lines<BufReader<ChildStdout>>) -> Result<(), BoxError> {
        let before = self.rotations;
        while self.rotations == before {
            let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await??;
            self.note(
                &line.ok_or_else(|| format!("the process ended by itself: {:?}", self.failures.last()))?,
            );
        }
        Ok(())
    }

    async fn until_the_end(&mut self, lines: &mut Lines<BufReader<ChildStdout>>) -> Result<(), BoxError> {
        while let Some(line) = lines.next_line().await? {
            self.note(&line);
        }
        Ok(())
    }

    fn note(&mut self, line: &str) {
        match line {
            "ok" => self.ok += 1,
            "rotated" => self.rotations += 1,
            other => self.failures.push(other.to_owned()),
        }
    }
}

impl State {
    fn new() -> Result<Self, BoxError> {
        let name = format!("interop-{}-refresh-token", std::process::id());
        Ok(Self { path: std::env::temp_dir().join(name) })
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // A file that stays in the temporary folder harms nobody: the grant ends with its server.
        let _ = std::fs::remove_file(&self.path);
    }
}
