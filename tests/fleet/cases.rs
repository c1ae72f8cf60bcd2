//! The cases, and the table at the end.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::fleet::{Fleet, Said, Servers, Tally};
use crate::groups::{Cluster, Sentinels};
use crate::redis_server::RedisServer;
use crate::slow_way;
use crate::worker::Orders;

const SECOND: Duration = Duration::from_secs(1);

/// What a case found: a row of figures, and what is wrong with them.
type Found = Result<String, String>;
type Run = fn(Scale) -> Pin<Box<dyn Future<Output = Found>>>;

/// How much a case does: all of it, or a short part.
#[derive(Clone, Copy)]
struct Scale {
    processes: usize,
    seconds: u32,
    /// Requests of each process in a second.
    per_second: u32,
}

const FULL: Scale = Scale { processes: 50, seconds: 20, per_second: 20 };
const SMOKE: Scale = Scale { processes: 8, seconds: 8, per_second: 10 };

macro_rules! cases {
    ($($function:ident),* $(,)?) => { &[$((stringify!($function), |scale| Box::pin($function(scale)))),*] };
}

const CASES: &[(&str, Run)] = cases![
    tokens_expire,
    tokens_are_revoked_twice,
    the_holder_of_the_lease_is_killed,
    the_store_is_killed_and_comes_back_empty,
    the_store_is_paused,
    the_store_is_slow,
    the_store_is_full,
    the_store_is_a_replica,
    the_password_is_wrong,
    the_store_speaks_no_tls,
    values_are_tampered_with,
    clocks_differ_by_half_a_minute,
    refresh_tokens_in_redis_under_kills,
    refresh_tokens_in_files_under_kills,
    a_thousand_tenants_have_one_connection,
    a_primary_of_a_cluster_is_killed,
    sentinels_promote_a_replica,
];

/// Those of the short part.
const SHORT: &[&str] = &[
    "tokens_are_revoked_twice",
    "the_holder_of_the_lease_is_killed",
    "the_store_is_killed_and_comes_back_empty",
    "values_are_tampered_with",
    "refresh_tokens_in_files_under_kills",
    "a_thousand_tenants_have_one_connection",
    "sentinels_promote_a_replica",
];

/// Runs the cases, prints the table, and returns how many failed.
pub(crate) async fn run(smoke: bool, only: Option<&str>) -> usize {
    let scale = if smoke { SMOKE } else { FULL };
    let (mut passed, mut failed, mut table) = (0, 0, String::new());
    let chosen = |name: &str| match only {
        Some(only) => name.contains(only),
        None => !smoke || SHORT.contains(&name),
    };
    for (name, case) in CASES.iter().filter(|(name, _)| chosen(name)) {
        println!("== {}", name.replace('_', " "));
        let row = match case(scale).await {
            Ok(figures) => {
                passed += 1;
                format!("ok    {}: {figures}", name.replace('_', " "))
            }
            Err(wrong) => {
                failed += 1;
                format!("WRONG {}: {wrong}", name.replace('_', " "))
            }
        };
        println!("{row}");
        table += &format!("{row}\n");
    }
    println!("\n{table}\n{passed} passed, {failed} failed");
    failed
}

/// Compares figures with their limits; the text has both.
struct Figures {
    shown: Vec<String>,
    wrong: Vec<String>,
}

impl Figures {
    /// Those that every case has: as many requests as were to be sent, and none failed.
    fn of(tally: &Tally, expected: u64) -> Self {
        let mut figures = Self { shown: Vec::new(), wrong: Vec::new() };
        figures.shown.push(format!("processes={} requests={}", tally.ended, tally.requests));
        if tally.requests < expected {
            figures.wrong.push(format!("{} requests were sent, not {expected}", tally.requests));
        }
        figures.at_most("failed", tally.failed, 0);
        figures.shown.push(format!("slowest={}ms", tally.slowest));
        // A process that met a timeout of the store fetched for itself.
        figures.shown.push(format!("warnings={}", tally.warnings.iter().sum::<u64>()));
        figures
    }

    fn at_most(&mut self, name: &str, value: u64, limit: u64) {
        self.shown.push(format!("{name}={value}"));
        if value > limit {
            self.wrong.push(format!("{name}={value}, at most {limit}"));
        }
    }

    fn at_least(&mut self, name: &str, value: u64, limit: u64) {
        self.shown.push(format!("{name}={value}"));
        if value < limit {
            self.wrong.push(format!("{name}={value}, at least {limit}"));
        }
    }

    /// One warning in each process, where each met the trouble once.
    fn one_warning_each(&mut self, tally: &Tally) {
        self.at_most("warnings_of_a_process", tally.warnings.iter().copied().max().unwrap_or(0), 1);
        if tally.warnings.iter().all(|warnings| *warnings == 0) {
            self.wrong.push("no process warned".to_owned());
        }
    }

    fn end(self) -> Found {
        if self.wrong.is_empty() {
            Ok(self.shown.join(" "))
        } else {
            Err(format!("{} ({})", self.wrong.join("; "), self.shown.join(" ")))
        }
    }
}

impl Scale {
    fn requests(self, processes: usize) -> u64 {
        processes as u64 * u64::from(self.seconds * self.per_second)
    }

    /// Token requests that tokens of three seconds explain: the first, and one for each three quarters of a life.
    fn expiries(self) -> u64 {
        1 + u64::from(self.seconds * 1000) / 2250
    }

    /// So many seconds, or those of the short part.
    fn long(self, seconds: u32) -> u32 {
        if self.seconds == FULL.seconds { seconds } else { 10 }
    }

    fn fewer(self) -> Self {
        Self { processes: self.processes.min(10), ..self }
    }
}

/// A fleet over one store while something happens to it.
async fn under<F: Future<Output = ()>>(
    scale: Scale,
    servers: &Servers,
    store: String,
    trouble: impl FnOnce() -> F,
) -> Tally {
    let fleet = Fleet::of(scale.processes, &servers.orders(store, scale.seconds, scale.per_second)).await;
    let (tally, ()) = tokio::join!(fleet.ends(), trouble());
    tally
}

async fn tokens_expire(scale: Scale) -> Found {
    let (servers, redis) = (Servers::start(3 * SECOND).await, RedisServer::start(&[]).await);
    let tally = under(scale, &servers, redis.url(), || async {}).await;
    let mut figures = Figures::of(&tally, scale.requests(scale.processes));
    figures.at_most("token_requests", servers.authorization.counts().token_requests, scale.expiries());
    figures.end()
}

async fn tokens_are_revoked_twice(scale: Scale) -> Found {
    let (servers, redis) = (Servers::start(3 * SECOND).await, RedisServer::start(&[]).await);
    let tally = under(scale, &servers, redis.url(), || async {
        for _ in 0..2 {
            sleep(SECOND * scale.seconds / 3).await;
            servers.authorization.revoke_all();
        }
    })
    .await;
    let mut figures = Figures::of(&tally, scale.requests(scale.processes));
    figures.at_most("token_requests", servers.authorization.counts().token_requests, scale.expiries() + 2);
    figures.at_least("refused", servers.api.counts().unauthorized, 2);
    figures.end()
}

async fn the_holder_of_the_lease_is_killed(scale: Scale) -> Found {
    let (servers, redis) = (Servers::start(3 * SECOND).await, RedisServer::start(&[]).await);
    servers.authorization.set_latency(Duration::from_millis(300));
    let mut orders = servers.orders(redis.url(), scale.seconds, scale.per_second);
    orders.lease = SECOND;
    let mut fleet = Fleet::of(scale.processes, &orders).await;
    let begun = Instant::now();
    let (mut killed, mut next) = (0, begun + SECOND);
    let end = begun + SECOND * scale.seconds.saturating_sub(3);
    while Instant::now() < end {
        let Ok((number, said)) = tokio::time::timeout_at(end, fleet.hears()).await else { break };
        if said == Said::Begin && Instant::now() >= next {
            fleet.kill(number);
            killed += 1;
            next = Instant::now() + 2 * SECOND;
        }
    }
    let tally = fleet.ends().await;
    let mut figures = Figures::of(&tally, scale.requests(scale.processes - killed));
    figures.at_least("killed", killed as u64, u64::from(scale.seconds / 8));
    // A lease, the token request of the next holder, and a machine that is busy.
    let lease = u64::try_from(orders.lease.as_millis()).unwrap();
    figures.at_most("slowest_ms", tally.slowest, lease + 1000);
    figures.end()
}

async fn the_store_is_killed_and_comes_back_empty(scale: Scale) -> Found {
    // Every process has to renew its token once while the store is away.
    let (servers, mut redis) = (Servers::start(8 * SECOND).await, RedisServer::start(&[]).await);
    let url = redis.url();
    let mut during = 0;
    let tally = under(scale, &servers, url, || async {
        sleep(SECOND * scale.seconds / 4).await;
        let before = servers.authorization.counts().token_requests;
        redis.kill();
        sleep(5 * SECOND).await;
        during = servers.authorization.counts().token_requests - before;
        redis.start_again().await;
    })
    .await;
    let mut figures = Figures::of(&tally, scale.requests(scale.processes));
    figures.at_most("token_requests_while_away", during, scale.processes as u64);
    figures.one_warning_each(&tally);
    figures.end()
}

async fn the_store_is_paused(scale: Scale) -> Found {
    let (servers, redis) = (Servers::start(3 * SECOND).await, RedisServer::start(&[]).await);
    let tally = under(scale, &servers, redis.url(), || async {
        sleep(SECOND * scale.seconds / 4).await;
        redis.signal("STOP");
        sleep(3 * SECOND).await;
        redis.signal("CONT");
    })
    .await;
    let mut figures = Figures::of(&tally, scale.requests(scale.processes));
    // The store's timeout once, the token request, and a machine that is busy.
    figures.at_most("slowest_ms", tally.slowest, 250 + 50 + 1000);
    figures.one_warning_each(&tally);
    figures.end()
}

async fn the_store_is_slow(scale: Scale) -> Found {
    let (servers, redis) = (Servers::start(3 * SECOND).await, RedisServer::start(&[]).await);
    let port = slow_way::to(redis.port, Duration::from_millis(200)).await;
    let tally = under(scale, &servers, format!("redis://127.0.0.1:{port}"), || async {}).await;
    let mut figures = Figures::of(&tally, scale.requests(scale.processes));
    figures.one_warning_each(&tally);
    figures.end()
}

/// A store that cannot be written, from the start: each process fetches for itself, and says so once.
async fn out_of_order(scale: Scale, servers: &Servers, store: String) -> Found {
    let scale = scale.fewer();
    let tally = under(scale, servers, store, || async {}).await;
    let mut figures = Figures::of(&tally, scale.requests(scale.processes));
    let most = scale.expiries() * scale.processes as u64;
    figures.at_most("token_requests", servers.authorization.counts().token_requests, most);
    figures.one_warning_each(&tally);
    figures.end()
}

async fn the_store_is_full(scale: Scale) -> Found {
    let (servers, redis) =
        (Servers::start(3 * SECOND).await, RedisServer::start(&["--maxmemory", "1"]).await);
    out_of_order(scale, &servers, redis.url()).await
}

async fn the_store_is_a_replica(scale: Scale) -> Found {
    let (servers, redis) =
        (Servers::start(3 * SECOND).await, RedisServer::start(&["--replicaof", "127.0.0.1 1"]).await);
    out_of_order(scale, &servers, redis.url()).await
}

async fn the_password_is_wrong(scale: Scale) -> Found {
    let (servers, redis) =
        (Servers::start(3 * SECOND).await, RedisServer::start(&["--requirepass", "right"]).await);
    out_of_order(scale, &servers, format!("redis://:wrong@127.0.0.1:{}", redis.port)).await
}

async fn the_store_speaks_no_tls(scale: Scale) -> Found {
    let (servers, redis) = (Servers::start(3 * SECOND).await, RedisServer::start(&[]).await);
    out_of_order(scale, &servers, format!("rediss://127.0.0.1:{}", redis.port)).await
}

async fn values_are_tampered_with(scale: Scale) -> Found {
    let (servers, redis) = (Servers::start(3 * SECOND).await, RedisServer::start(&[]).await);
    let tally = under(scale, &servers, redis.url(), || async {
        sleep(SECOND * scale.seconds / 2).await;
        let found = redis.cli(&["KEYS", "*"]);
        let key = found.lines().find(|key| key.ends_with('}')).expect("there is a token in the store");
        for value in ["garbage", ""] {
            redis.cli(&["HSET", key, "d", value]);
            sleep(SECOND / 4).await;
        }
    })
    .await;
    let mut figures = Figures::of(&tally, scale.requests(scale.processes));
    // Each change costs one token request, as a rejection does.
    figures.at_most("token_requests", servers.authorization.counts().token_requests, scale.expiries() + 2);
    figures.one_warning_each(&tally);
    figures.end()
}

async fn clocks_differ_by_half_a_minute(scale: Scale) -> Found {
    let scale = scale.fewer();
    let (servers, redis) = (Servers::start(3 * SECOND).await, RedisServer::start(&[]).await);
    let orders = servers.orders(redis.url(), scale.seconds, scale.per_second);
    let clocks = ["-30s", "+0s", "+30s"].iter().cycle().take(scale.processes);
    let all =
        clocks.map(|by| (orders.clone(), vec!["faketime".to_owned(), "-f".to_owned(), (*by).to_owned()]));
    let tally = Fleet::start(all).await.ends().await;
    let mut figures = Figures::of(&tally, scale.requests(scale.processes));
    figures.at_most("token_requests", servers.authorization.counts().token_requests, scale.expiries());
    figures.end()
}

/// The fleet while a server is killed and another takes its place. Until then each process fetches for itself.
async fn while_one_takes_over(
    scale: Scale,
    store: String,
    kill: impl FnOnce() -> usize,
    took_over: impl Fn() -> bool,
) -> Found {
    let (servers, scale) = (Servers::start(3 * SECOND).await, scale.fewer());
    let mut away = Duration::ZERO;
    let tally = under(scale, &servers, store, || async {
        sleep(SECOND * scale.seconds / 4).await;
        let killed = kill();
        let begun = Instant::now();
        while !took_over() && begun.elapsed() < 60 * SECOND {
            sleep(SECOND / 10).await;
        }
        away = begun.elapsed();
        println!("  server {killed} was killed; another took over after {away:?}");
    })
    .await;
    let mut figures = Figures::of(&tally, scale.requests(scale.processes));
    figures.shown.push(format!("taken_over_after={}ms", away.as_millis()));
    // The store's timeout once, the token request, and a machine that is busy.
    figures.at_most("slowest_ms", tally.slowest, 250 + 50 + 1000);
    // Each process fetches for itself while the server is away, and once when it comes back.
    let lives = 2 + away.as_millis() / 2250;
    let most = scale.expiries() + u64::try_from(lives).unwrap() * scale.processes as u64;
    figures.at_most("token_requests", servers.authorization.counts().token_requests, most);
    figures.one_warning_each(&tally);
    figures.end()
}

async fn a_primary_of_a_cluster_is_killed(scale: Scale) -> Found {
    let cluster = std::cell::RefCell::new(Cluster::start().await);
    let url = cluster.borrow().url();
    // The one that has the token.
    let kill = || {
        let mut cluster = cluster.borrow_mut();
        let primaries = cluster.primaries();
        let has_keys = |at: &usize| cluster.nodes[*at].cli(&["DBSIZE"]).trim() != "0";
        let holder = primaries.into_iter().find(has_keys).expect("one of them has the token");
        cluster.nodes[holder].kill();
        holder
    };
    while_one_takes_over(scale, url, kill, || cluster.borrow().primaries().len() == 3).await
}

async fn sentinels_promote_a_replica(scale: Scale) -> Found {
    let group = std::cell::RefCell::new(Sentinels::start("").await);
    let url = group.borrow().url("");
    let kill = || {
        group.borrow_mut().servers[0].kill();
        0
    };
    let took_over = || group.borrow().servers[1].cli(&["ROLE"]).starts_with("master");
    while_one_takes_over(scale, url, kill, took_over).await
}

async fn refresh_tokens_in_redis_under_kills(scale: Scale) -> Found {
    let redis = RedisServer::start(&[]).await;
    under_kills(scale.long(60), redis.url()).await
}

async fn refresh_tokens_in_files_under_kills(scale: Scale) -> Found {
    let folder = std::env::temp_dir().join(format!("tower-oauth2-fleet-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    // A login of 200 rotations, of tokens that live for a second.
    let found = under_kills(scale.long(220), format!("file:{}", folder.display())).await;
    std::fs::remove_dir_all(&folder).unwrap();
    found
}

/// Ten processes live on one login, whose server ends it if a refresh token comes twice. Processes are killed at random, and
/// others started. A login may end only if a process was killed between the start of an exchange and its end; then a user
/// signs in again.
async fn under_kills(seconds: u32, store: String) -> Found {
    let servers = Servers::start(SECOND).await;
    let mut orders = servers.orders(store, seconds, 5);
    orders.lease = SECOND;
    orders.refresh_token = Some(servers.authorization.sign_in("fleet", ""));
    let mut fleet = Fleet::of(10, &orders).await;
    let mut chance = fastrand::Rng::with_seed(11);
    let begun = Instant::now();
    let end = begun + SECOND * (seconds - 3);
    // The processes that are in an exchange, and those that run.
    let (mut exchanging, mut alive) = (HashSet::new(), (0..10).collect::<Vec<usize>>());
    let (mut killed, mut killed_inside, mut logins) = (0_u64, 0_u64, 0);
    let mut next = begun + SECOND;
    loop {
        tokio::select! {
            (number, said) = fleet.hears() => {
                match said {
                    Said::Begin => drop(exchanging.insert(number)),
                    Said::Ready | Said::End => drop(exchanging.remove(&number)),
                }
                continue;
            }
            () = sleep_until(next) => {}
        }
        if next >= end {
            break;
        }
        next += Duration::from_millis(chance.u64(200..800));
        let number = alive.swap_remove(chance.usize(..alive.len()));
        killed_inside += u64::from(exchanging.contains(&number));
        fleet.kill(number);
        killed += 1;
        if servers.authorization.counts().reuses > logins {
            logins = servers.authorization.counts().reuses;
            orders.refresh_token = Some(servers.authorization.sign_in("fleet", ""));
        }
        orders.seconds = u32::try_from((end - next.min(end)).as_secs()).unwrap() + 3;
        alive.push(fleet.add(&orders));
    }
    let tally = fleet.ends().await;
    let counts = servers.authorization.counts();
    let mut figures = Figures { shown: Vec::new(), wrong: Vec::new() };
    figures.at_least("requests", tally.requests, 100);
    figures.at_least("rotations", counts.tokens, u64::from(seconds) / 2);
    figures.at_least("killed", killed, u64::from(seconds) / 2);
    figures.shown.push(format!("killed_inside={killed_inside}"));
    figures.at_most("logins_that_ended", counts.reuses, killed_inside);
    figures.at_most("failed_without_an_end", if counts.reuses == 0 { tally.failed } else { 0 }, 0);
    figures.shown.push(format!("failed={}", tally.failed));
    figures.end()
}

async fn a_thousand_tenants_have_one_connection(_scale: Scale) -> Found {
    let (servers, redis) = (Servers::start(600 * SECOND).await, RedisServer::start(&[]).await);
    let mut orders: Orders = servers.orders(redis.url(), 0, 0);
    orders.tenants = 1000;
    let mut figures = Figures { shown: Vec::new(), wrong: Vec::new() };
    // The second process finds all of them in the store.
    for _ in 0..2 {
        let fleet = Fleet::of(1, &orders).await;
        let (tally, connections) = tokio::join!(fleet.ends(), async {
            let mut most = 0;
            for _ in 0..40 {
                sleep(Duration::from_millis(25)).await;
                // One line is redis-cli's own.
                most = most
                    .max(redis.cli(&["CLIENT", "LIST"]).lines().filter(|line| !line.is_empty()).count() - 1);
            }
            most as u64
        });
        figures.at_most("failed", tally.failed, 0);
        figures.at_least("tenants", tally.requests, 1000);
        figures.at_most("connections", connections, 1);
        figures.at_least("connections", connections, 1);
        figures.at_most("token_requests", servers.authorization.counts().token_requests, 1000);
        figures.at_least("token_requests", servers.authorization.counts().token_requests, 1000);
    }
    figures.at_least("keys", redis.cli(&["DBSIZE"]).trim().parse().unwrap(), 1000);
    figures.end()
}
