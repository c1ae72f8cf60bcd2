//! Analytics of Genesys Cloud: a query of 300 pages, and twenty of them at once without and with a pool of tokens.
//!
//! ```sh
//! cargo run --example genesys_analytics --features providers     # against the emulator of the test kit, on a paused clock
//! GENESYSCLOUD_REGION=eu-central-1 GENESYSCLOUD_OAUTHCLIENT_ID=.. GENESYSCLOUD_OAUTHCLIENT_SECRET=.. \
//!     GENESYS_INTERVAL=2026-11-01T00:00Z/2026-11-08T00:00Z cargo run --example genesys_analytics --features providers
//! ```
//!
//! On a terminal a bar shows how far the query is, elsewhere a line for every thirty pages does. Against the emulator the exit code
//! is 1 if a figure is off. If it fails, it says why in one sentence.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tower::BoxError;
use tower_oauth2::ApiClient;
use tower_oauth2::client::pages::Progress;
use tower_oauth2::providers::genesys::{self, Genesys};
use tower_oauth2::test_util::{FakeGenesys, timed};

/// The environment for the emulator.
const VARIABLES: &str = "GENESYS_CLIENT_ID=reports GENESYS_CLIENT_SECRET=s3cr/t GENESYS_REGION=genesys.test \
                         GENESYSCLOUD_TOKEN_POOL_SIZE=4";

fn main() -> Result<ExitCode, BoxError> {
    let is_real = std::env::vars().any(|(name, _)| name.starts_with("GENESYS"));
    let runtime = Builder::new_current_thread().enable_all().start_paused(!is_real).build()?;
    let run = runtime.block_on(async { if is_real { real().await } else { emulated().await } });
    let is_right = run.inspect_err(|error| eprintln!("genesys_analytics: {error}")).unwrap_or(false);
    Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn real() -> Result<bool, BoxError> {
    let api = Genesys::from_env()?.connect()?;
    let interval = std::env::var("GENESYS_INTERVAL").map_err(|_| "GENESYS_INTERVAL is not set: START/END")?;
    let what = json!({ "interval": interval, "paging": { "pageSize": 100, "pageNumber": 1 } });
    let [pages, conversations, _] = query(&api, &what, shown()?).await?;
    println!("{conversations} conversations on {pages} pages");
    Ok(true)
}

async fn emulated() -> Result<bool, BoxError> {
    let set = |name: &str| VARIABLES.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let genesys = Genesys::from_variables(|name| set(name).map(str::to_owned))?;
    let fake = || FakeGenesys::builder().client("reports", "s3cr/t").conversations(3_000);
    let what = json!({ "interval": "2026-11", "paging": { "pageSize": 10, "pageNumber": 1 } });
    // The token of the first query is short-lived, is revoked, and is refused above 60 requests a minute.
    let eventful = fake().latency(Duration::from_millis(200)).lifetime(Duration::from_secs(120)).limit(60);
    let [mut lost, mut twice, mut failed, mut faults] = [0; 4];
    let (mut runs, mut pages, show) = (Vec::new(), Vec::new(), shown()?);
    for (queries, has_pool, fake) in [(1, false, eventful), (20, false, fake()), (20, true, fake())] {
        let fake = fake.build();
        let one_token = genesys.client_credentials().build_with(fake.clone())?;
        let without_pool = genesys.api(one_token)?.build_with(fake.clone())?;
        let api = if has_pool { genesys.connect_with(fake.clone())? } else { without_pool };
        let after = |progress: &Progress| {
            if queries == 1 {
                show(progress);
            }
            if queries == 1 && progress.pages() == 100 {
                fake.revoke_all();
            }
        };
        let (found, took) = timed(join_all((0..queries).map(|_| query(&api, &what, after)))).await;
        println!("queries: {queries}, pool: {has_pool}, {took:.0?} by the clock, {:?}", fake.counts());
        runs.push((took, fake.counts()));
        for found in found {
            failed += usize::from(found.is_err());
            let [count, all, distinct] = found.inspect_err(|error| eprintln!("{error}")).unwrap_or_default();
            (lost, twice) = (lost + 3_000 - distinct, twice + all - distinct);
            pages.push(count);
        }
        faults += fake.faults().len();
    }
    let [(took, first), (one_token, one), (pool_of_4, four)] = runs[..] else { return Ok(false) };
    let (one_token, pool_of_4) = (one_token.as_secs_f64(), pool_of_4.as_secs_f64());
    let (pages, tokens, ratio) = (pages[0], first.token_requests, one_token / pool_of_4);
    print!("genesys_analytics: pages={pages} lost={lost} twice={twice} failed={failed} ");
    println!("token_requests={tokens} one_token={one_token:.0}s pool_of_4={pool_of_4:.0}s ratio={ratio:.2}");
    // A token is renewed when a fifth of its life is left, or a bit more. The revocation costs one more.
    let is_thrifty = (3..=took.as_secs().div_ceil(88) + 1).contains(&tokens);
    let is_eventful = first.unauthorized == 1 && first.limited > 0;
    let is_right = (pages, lost, twice, failed, faults) == (300, 0, 0, 0, 0) && is_eventful && is_thrifty;
    Ok(is_right && (one.token_requests, four.token_requests) == (1, 4) && ratio >= 3.5)
}

/// Returns what shows how far a query is: a bar on a terminal, lines elsewhere.
fn shown() -> Result<impl Fn(&Progress), BoxError> {
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template("{bar:40} {msg}")?);
    Ok(move |progress: &Progress| {
        let is_last = progress.items() == progress.total();
        bar.set_length(progress.total().unwrap_or_default());
        bar.set_message(progress.to_string());
        bar.set_position(progress.items().unwrap_or_default());
        if is_last {
            bar.finish_and_clear();
        }
        if is_last || bar.is_hidden() && progress.pages().is_multiple_of(30) {
            println!("{progress}");
        }
    })
}

/// Returns how many pages and conversations there are, and how many different ones.
async fn query(api: &ApiClient, what: &Value, after: impl Fn(&Progress)) -> Result<[usize; 3], BoxError> {
    let request = api.post("analytics/conversations/details/query").json(what);
    let (mut pages, mut ids, mut count) = (request.pages(genesys::conversations()), HashSet::new(), [0; 3]);
    while let Some(page) = pages.next().await {
        let found: Vec<Value> = page?.items()?;
        ids.extend(found.iter().map(|conversation| conversation["conversationId"].to_string()));
        count = [count[0] + usize::from(!found.is_empty()), count[1] + found.len(), ids.len()];
        after(pages.progress());
    }
    Ok(count)
}
