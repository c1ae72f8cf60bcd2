//! Processes that share one login through a store, killed at random, at a server that ends the login when a refresh token
//! comes twice.

use std::collections::HashSet;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tower::BoxError;
use tower_oauth2::grants::read_token_response;
use tower_oauth2::store::{SealingKey, Shared, from_url};
use tower_oauth2::{
    AccessToken, Error, RefreshTokenGrant, SourceIdentity, TokenCache, TokenRequest, TokenSource,
};

use crate::api::{Api, Check};
use crate::redis_server::RedisServer;
use crate::server::Server;
use crate::{BASIC, CLIENTS, Finding, connect, login, send, whole_line};

const PROCESSES: usize = 10;
/// Requests of a process in a second.
const PACE: u32 = 5;
/// What makes this program one of those processes.
const CHILD: &str = "--share";

/// Runs as one of those processes, if the arguments say so.
pub(crate) async fn child() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip_while(|argument| argument != CHILD).skip(1);
    let (store, token_url, origin, refresh_token) =
        (arguments.next()?, arguments.next()?, arguments.next()?, arguments.next()?);
    match live_on(store, token_url, origin, refresh_token).await {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            println!("failed {}", whole_line(&*error));
            Some(ExitCode::FAILURE)
        }
    }
}

/// Says when a request to the token endpoint may leave.
struct Begins<S>(S);

impl<S: TokenSource> TokenSource for Begins<S> {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        println!("begin");
        self.0.token(request).await
    }

    fn identity(&self) -> Option<SourceIdentity> {
        self.0.identity()
    }
}

/// Says when the store has what came of it.
struct Ends<S>(S);

impl<S: TokenSource> TokenSource for Ends<S> {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        let result = self.0.token(request).await;
        println!("end");
        result
    }
}

/// Sends requests until the process is killed.
async fn live_on(
    store: String,
    token_url: String,
    origin: String,
    refresh_token: String,
) -> Result<(), BoxError> {
    let grant = RefreshTokenGrant::builder(token_url, BASIC.id, BASIC.secret).refresh_token(refresh_token);
    let shared = Shared::builder(Begins(grant.build()?), from_url(&store)?, SealingKey::new([7; 32]))
        .principal("ann")
        .lease(Duration::from_secs(1))
        .build()?;
    let client = connect(&TokenCache::new(Ends(shared)), &origin)?;
    let mut ticks = interval(Duration::from_secs(1) / PACE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (client, origin) = (client.clone(), origin.clone());
        tokio::spawn(async move {
            match send(client, origin).await {
                Ok(status) if status.is_success() => println!("ok"),
                Ok(status) => println!("failed {status}"),
                Err(error) => println!("failed {}", whole_line(&*error)),
            }
        });
    }
}

pub(crate) async fn killed_at_random_over_files(span: Duration) -> Result<Finding, BoxError> {
    let folder = std::env::temp_dir().join(format!("interop-{}-tokens", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let found = killed_at_random(span, format!("file:{}", folder.display())).await;
    std::fs::remove_dir_all(&folder)?;
    found
}

pub(crate) async fn killed_at_random_over_redis(span: Duration) -> Result<Finding, BoxError> {
    let server = RedisServer::start(&[]).await;
    killed_at_random(span, server.url()).await
}

async fn killed_at_random(span: Duration, store: String) -> Result<Finding, BoxError> {
    // The server ends a token at a full second by its clock, up to a second before it said that it would. One that was to
    // live for a second might have ended on its way here.
    let server = Server::start(Duration::from_secs(2), CLIENTS).await?;
    let api = Api::start(&server, Check::EveryTime).await?;
    let mut refresh_token = sign_in(&server).await?;
    let (said, mut heard) = mpsc::unbounded_channel();
    let mut children: Vec<Child> = Vec::new();
    let start = |children: &mut Vec<Child>, refresh_token: &str| -> Result<usize, BoxError> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .arg(&store)
            .args([&server.token_url(), &api.origin(), refresh_token])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("a piped output")?).lines();
        let (number, said) = (children.len(), said.clone());
        children.push(child);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                // The case may have ended.
                let _ = said.send((number, line));
            }
        });
        Ok(number)
    };
    let mut alive = Vec::new();
    for _ in 0..PROCESSES {
        alive.push(start(&mut children, &refresh_token)?);
    }
    let (mut exchanging, mut chance) = (HashSet::new(), fastrand::Rng::with_seed(7));
    let (mut ok, mut failures, mut killed, mut inside, mut ended) = (0, Vec::new(), 0, 0, 0);
    let end = Instant::now() + span;
    let mut next = Instant::now() + Duration::from_secs(1);
    while next < end {
        let mut victim = None;
        tokio::select! {
            Some((number, line)) = heard.recv() => {
                match line.as_str() {
                    "ok" => ok += 1,
                    "begin" => drop(exchanging.insert(number)),
                    "end" => drop(exchanging.remove(&number)),
                    failed => failures.push(failed.to_owned()),
                }
                // An exchange takes milliseconds, so chance alone hardly ever meets one.
                if killed % 12 == 11 && line == "begin" {
                    victim = alive.iter().position(|alive| *alive == number);
                }
                if victim.is_none() {
                    continue;
                }
            }
            () = sleep_until(next) => next += Duration::from_millis(chance.u64(200..800)),
        }
        let victim = victim.unwrap_or_else(|| chance.usize(..alive.len()));
        let number = alive.swap_remove(victim);
        inside += usize::from(exchanging.contains(&number));
        children[number].kill().await?;
        killed += 1;
        // The login has ended: the user signs in again, and the processes that start from now on bring that along.
        if server.answers()?.iter().filter(|status| **status != 200).count() > ended {
            ended += 1;
            refresh_token = sign_in(&server).await?;
        }
        alive.push(start(&mut children, &refresh_token)?);
    }
    for child in &mut children {
        child.kill().await?;
    }
    // One that ended since the last kill counts too: the API refused its tokens before the next process signed in.
    let (taken, refused): (Vec<u64>, Vec<u64>) =
        server.answers()?.into_iter().partition(|status| *status == 200);
    let (rotations, ended) = (taken.len(), ended.max(refused.len()));
    let shown = failures.first().map(|failure| format!(" first=\"{failure}\"")).unwrap_or_default();
    let seconds = usize::try_from(span.as_secs())?;
    Ok(Finding::new(format!(
        "requests={} failed={} rotations={rotations} killed={killed} killed_in_an_exchange={inside} \
         logins_ended={ended}{shown}",
        ok + failures.len(),
        failures.len()
    ))
    .demand(ok > PROCESSES, "requests that were served")
    .demand(rotations >= seconds / 3, "a rotation in three seconds")
    .demand(killed >= seconds, "a kill in a second")
    .demand(span.as_secs() < 30 || inside > 0, "a kill in an exchange")
    .demand(ended <= inside, "no login that ended without a kill in an exchange")
    .demand(ended > 0 || failures.is_empty(), "no failure without the end of a login"))
}

async fn sign_in(server: &Server) -> Result<String, BoxError> {
    let token = read_token_response(login::sign_in(server, BASIC).await?)?;
    Ok(token.expose_refresh_token().ok_or("the login brought no refresh token")?.to_owned())
}
