//! One process of a fleet.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tower_oauth2::store::{self, SealingKey, Shared, TokenStore};
use tower_oauth2::{
    AccessToken, ApiClient, ClientAuth, ClientCredentials, Error, RefreshTokenGrant, SourceIdentity,
    TokenRequest, TokenSource,
};

/// What a process is told, as one line of words.
#[derive(Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) store: String,
    pub(crate) token_url: String,
    pub(crate) api_url: String,
    pub(crate) seconds: u32,
    pub(crate) per_second: u32,
    /// A refresh token to begin with; else client credentials.
    pub(crate) refresh_token: Option<String>,
    /// One token for each of so many tenants, in place of requests at a pace.
    pub(crate) tenants: u32,
    pub(crate) lease: Duration,
}

impl Orders {
    pub(crate) fn words(&self) -> Vec<String> {
        vec![
            self.store.clone(),
            self.token_url.clone(),
            self.api_url.clone(),
            self.seconds.to_string(),
            self.per_second.to_string(),
            self.refresh_token.clone().unwrap_or_else(|| "-".to_owned()),
            self.tenants.to_string(),
            self.lease.as_millis().to_string(),
        ]
    }

    fn read(words: &[String]) -> Self {
        let number = |at: usize| words[at].parse().unwrap();
        Self {
            store: words[0].clone(),
            token_url: words[1].clone(),
            api_url: words[2].clone(),
            seconds: number(3),
            per_second: number(4),
            refresh_token: Some(words[5].clone()).filter(|token| token != "-"),
            tenants: number(6),
            lease: Duration::from_millis(number(7).into()),
        }
    }
}

/// Says on stdout when a token request begins.
struct Begins<S>(S);

impl<S: TokenSource> TokenSource for Begins<S> {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        say("begin");
        self.0.token(request).await
    }

    fn identity(&self) -> Option<SourceIdentity> {
        self.0.identity()
    }
}

/// Says on stdout when a token is there and the store has what it must have, so that the one that started the process can
/// kill it in between.
struct Ends<S>(S);

impl<S: TokenSource> TokenSource for Ends<S> {
    async fn token(&self, request: TokenRequest) -> Result<AccessToken, Error> {
        let result = self.0.token(request).await;
        say("end");
        result
    }
}

pub(crate) fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // The one that started this process may be gone.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

pub(crate) async fn run(words: &[String]) {
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let orders = Orders::read(words);
    let store = store::from_url(&orders.store).unwrap();
    say("ready");
    // All processes begin when the one that started them closes the pipe.
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
    if orders.tenants > 0 {
        return each_tenant(&orders, store).await;
    }
    let sealing = SealingKey::new([7; 32]);
    match &orders.refresh_token {
        Some(token) => {
            let grant = RefreshTokenGrant::builder(&orders.token_url, "fleet", ClientAuth::from("a secret"));
            let grant = grant.refresh_token(token.clone()).build().unwrap();
            let shared = Shared::builder(Begins(grant), store, sealing)
                .principal("ann")
                .lease(orders.lease)
                .build()
                .unwrap();
            requests(&orders, shared).await;
        }
        None => {
            let source = ClientCredentials::builder(&orders.token_url, "fleet", "a secret").build().unwrap();
            let shared = Shared::builder(Begins(source), store, sealing).lease(orders.lease).build().unwrap();
            requests(&orders, shared).await;
        }
    }
}

/// Sends requests at a pace, and says how many failed, how long the slowest took, and by which processes.
async fn requests<S: TokenSource, T: TokenStore>(orders: &Orders, source: Shared<S, T>) {
    let api = ApiClient::connect(&orders.api_url, Ends(source)).unwrap();
    let (failed, slowest) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let mut sent = JoinSet::new();
    let number = orders.seconds * orders.per_second;
    for at in 0..number {
        sleep_until(begun + Duration::from_secs(1) * at / orders.per_second).await;
        let (api, failed, slowest) = (api.clone(), Arc::clone(&failed), Arc::clone(&slowest));
        sent.spawn(async move {
            let begun = Instant::now();
            match api.get("items").send().await {
                Ok(response) if response.status().is_success() => {}
                Ok(response) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    eprintln!("request failed: {}", response.status());
                }
                Err(error) => {
                    failed.fetch_add(1, Ordering::Relaxed);
                    eprintln!("request failed: {error}");
                }
            }
            let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
            slowest.fetch_max(took, Ordering::Relaxed);
        });
        while sent.try_join_next().is_some() {}
    }
    sent.join_all().await;
    let (failed, slowest) = (failed.load(Ordering::Relaxed), slowest.load(Ordering::Relaxed));
    say(&format!("done {number} {failed} {slowest}"));
}

/// Sends one request for each of many tenants, fifty at a time, and looks whose token it had.
async fn each_tenant(orders: &Orders, store: impl TokenStore + Clone) {
    let at_once = Arc::new(Semaphore::new(50));
    let mut tenants = JoinSet::new();
    for number in 0..orders.tenants {
        let tenant = format!("tenant-{number}");
        let source = ClientCredentials::builder(&orders.token_url, &tenant, "a secret").build().unwrap();
        let shared = Shared::builder(source, store.clone(), SealingKey::new([7; 32])).lease(orders.lease);
        let api = ApiClient::connect(&orders.api_url, shared.build().unwrap()).unwrap();
        let permit = Arc::clone(&at_once).acquire_owned().await.unwrap();
        tenants.spawn(async move {
            let response = api.get("items").send().await.unwrap().error_for_status().unwrap();
            drop(permit);
            response.text().await.unwrap() == tenant
        });
    }
    let failed = tenants.join_all().await.into_iter().filter(|own| !own).count();
    say(&format!("done {} {failed} 0", orders.tenants));
}
