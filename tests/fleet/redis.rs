//! The store in Redis against a real server: `bash tests/fleet/run.sh` installs it and runs this.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "servers have clocks of their own")]

#[allow(dead_code, reason = "the program of the fleet uses the rest")]
mod groups;
#[allow(dead_code, reason = "the program of the fleet uses the rest")]
mod redis_server;

#[allow(dead_code, reason = "the program of the fleet uses the rest")]
mod slow_way;

use std::error::Error as _;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use groups::{Cluster, Sentinels};
use redis_server::{RedisServer, free_port};
use tokio::time::{Instant, timeout};
use tower_oauth2::store::{Acquired, RedisStore, StoreKey, TokenStore as _, Write};
use tower_oauth2::test_util::check_token_store;
use tower_oauth2::{Error, ErrorKind};

const PERIOD: Duration = Duration::from_secs(10);

fn key() -> StoreKey {
    StoreKey::new("billing").unwrap()
}

fn write(replaces: u64, version: u64, fence: u64) -> Write {
    Write { replaces, version, fence, keep_for: PERIOD, value: "sealed".into() }
}

/// What an operator reads: the error and all its causes.
fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(" {error} {error:?}"));
        cause = error.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_redis_keeps_every_rule() {
    let server = RedisServer::start(&[]).await;
    check_token_store(RedisStore::connect(server.url()).unwrap(), "check", true).await;
}

#[tokio::test]
async fn every_key_has_an_expiry_and_entry_and_lease_share_a_hash_tag() {
    let server = RedisServer::start(&[]).await;
    let store = RedisStore::connect(server.url()).unwrap().prefix("reports:").unwrap();
    let Acquired::Taken(fence) = store.acquire(&key(), PERIOD).await.unwrap() else { panic!("it is free") };
    assert_eq!(server.cli(&["TTL", "reports:{billing}"]).trim(), "3610");
    assert_eq!(server.cli(&["TTL", "reports:{billing}:lease"]).trim(), "10");
    assert!(store.swap(&key(), write(0, 1, fence)).await.unwrap());
    assert_eq!(server.cli(&["TTL", "reports:{billing}"]).trim(), "10");
    assert_eq!(server.cli(&["DBSIZE"]).trim(), "2");
    assert_eq!(server.cli(&["HGET", "reports:{billing}", "d"]).trim(), "sealed");
}

#[tokio::test]
async fn an_entry_from_after_the_clock_was_set_back_is_of_any_age() {
    let server = RedisServer::start(&[]).await;
    let store = RedisStore::connect(server.url()).unwrap();
    let Acquired::Taken(fence) = store.acquire(&key(), PERIOD).await.unwrap() else { panic!("it is free") };
    assert!(store.swap(&key(), write(0, 1, fence)).await.unwrap());
    let written: u64 = server.cli(&["HGET", "tower-oauth2:{billing}", "at"]).trim().parse().unwrap();
    for (ahead, is_any) in [(3_000, false), (3_600_000, true)] {
        server.cli(&["HSET", "tower-oauth2:{billing}", "at", &(written + ahead).to_string()]);
        let age = store.load(&key()).await.unwrap().unwrap().age;
        assert!(if is_any { age > Duration::from_secs(1 << 40) } else { age < PERIOD }, "{ahead}: {age:?}");
    }
}

#[tokio::test]
async fn a_server_that_comes_back_empty_repeats_no_number() {
    let mut server = RedisServer::start(&[]).await;
    let store = RedisStore::connect(server.url()).unwrap();
    let Acquired::Taken(before) = store.acquire(&key(), PERIOD).await.unwrap() else { panic!("it is free") };
    assert!(store.swap(&key(), write(0, 1, before)).await.unwrap());
    server.kill();
    assert_eq!(store.load(&key()).await.unwrap_err().kind(), ErrorKind::Transient);
    server.start_again().await;
    let after = loop {
        match store.acquire(&key(), PERIOD).await {
            Ok(Acquired::Taken(fence)) => break fence,
            Ok(Acquired::Held(_)) => panic!("the server is empty"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert!(after > before);
    assert!(!store.swap(&key(), write(0, 2, before)).await.unwrap(), "a writer from before loses");
    // Waiters are woken over the new connection as well.
    let changed = tokio::spawn({
        let store = store.clone();
        async move { store.changed(&key(), 0).await }
    });
    while !server.cli(&["PUBSUB", "NUMSUB", "tower-oauth2:changed"]).contains("\n1") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(store.swap(&key(), write(0, 2, after)).await.unwrap());
    changed.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_machine_that_is_gone_without_a_word_costs_five_timeouts() {
    let (server, cut) = (RedisServer::start(&[]).await, Arc::new(AtomicBool::new(false)));
    let port = slow_way::that_can_be_cut(server.port, Arc::clone(&cut)).await;
    let store = RedisStore::connect(format!("redis://127.0.0.1:{port}")).unwrap();
    assert!(store.load(&key()).await.unwrap().is_none());
    cut.store(true, Ordering::Release);
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..5 {
        assert!(timeout(Duration::from_millis(100), store.load(&key())).await.is_err());
    }
    assert!(store.load(&key()).await.unwrap().is_none());
    // Timeouts between which it responds prove nothing.
    let connections = || {
        let told = server.cli(&["INFO", "stats"]);
        let line = told.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        line.unwrap().trim().parse::<u32>().unwrap()
    };
    let before = connections();
    server.signal("STOP");
    for _ in 0..4 {
        assert!(timeout(Duration::from_millis(100), store.load(&key())).await.is_err());
    }
    server.signal("CONT");
    assert!(store.load(&key()).await.unwrap().is_none());
    assert_eq!(connections(), before + 1, "one more is that of redis-cli");
}

#[tokio::test]
async fn an_error_says_what_to_do_and_never_the_password() {
    let server = RedisServer::start(&["--requirepass", "R1GHT"]).await;
    let at =
        |userinfo: &str| RedisStore::connect(format!("redis://{userinfo}127.0.0.1:{}", server.port)).unwrap();
    let wrong = at(":S3CR3T@").load(&key()).await.unwrap_err();
    assert!(shown(&wrong).contains("password") && !shown(&wrong).contains("S3CR3T"), "{}", shown(&wrong));
    let none = at("").load(&key()).await.unwrap_err();
    assert!(shown(&none).contains("password"), "{}", shown(&none));
    assert!(at(":R1GHT@").load(&key()).await.unwrap().is_none());
    let debug = format!("{:?} {:?}", at(":S3CR3T@"), RedisStore::connect("redis://:S3CR3T@127.0.0.1"));
    assert!(!debug.contains("S3CR3T"), "{debug}");
    for url in
        ["http://:S3CR3T@127.0.0.1", "S3CR3T", "redis://:S3CR3T@127.0.0.1/x", "rediss://:S3CR3T@h/#insecure"]
    {
        match RedisStore::connect(url) {
            Err(error) => {
                assert!(
                    error.kind() == ErrorKind::Config && !shown(&error).contains("S3CR3T"),
                    "{}",
                    shown(&error)
                )
            }
            // The URL can be read; what it asks for is refused by the first call.
            Ok(store) => {
                let error = store.load(&key()).await.unwrap_err();
                assert!(!shown(&error).contains("S3CR3T"), "{}", shown(&error));
            }
        }
    }
    let nothing_there = RedisStore::connect(format!("redis://127.0.0.1:{}", free_port())).unwrap();
    let gone = nothing_there.load(&key()).await.unwrap_err();
    assert!(gone.kind() == ErrorKind::Transient && shown(&gone).contains("refused"), "{}", shown(&gone));
}

#[tokio::test]
async fn a_server_that_is_full_or_a_replica_is_named() {
    let server = RedisServer::start(&[]).await;
    let store = RedisStore::connect(server.url()).unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = store.acquire(&key(), PERIOD).await.unwrap_err();
    assert!(full.to_string().contains("maxmemory"), "{}", shown(&full));
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    server.cli(&["REPLICAOF", "127.0.0.1", &free_port().to_string()]);
    let replica = store.acquire(&key(), PERIOD).await.unwrap_err();
    assert!(replica.to_string().contains("replica"), "{}", shown(&replica));
}

#[tokio::test]
async fn the_rights_that_the_page_lists_suffice_and_without_the_channel_it_is_polled() {
    let server = RedisServer::start(&[]).await;
    let rights = "+evalsha +eval +hmget +hget +hset +get +set +del +pttl +pexpire +time +hello +ping";
    let user = |name: &str, more: &str| {
        let mut line = vec!["ACL", "SETUSER", name, "on", ">R1GHT", "~tower-oauth2:*", "resetchannels"];
        line.extend(rights.split(' ').chain(more.split(' ')));
        assert_eq!(server.cli(&line).trim(), "OK");
        RedisStore::connect(format!("redis://{name}:R1GHT@127.0.0.1:{}", server.port)).unwrap()
    };
    let whole = user("whole", "+subscribe +publish &tower-oauth2:*");
    check_token_store(whole, "whole", true).await;
    let polled = user("polled", "+time");
    check_token_store(polled.clone(), "polled", false).await;
    assert!(polled.changed(&key(), 0).await.is_err());
    let foreign =
        RedisStore::connect(format!("redis://whole:R1GHT@127.0.0.1:{}", server.port)).unwrap().prefix("x:");
    let refused = foreign.unwrap().acquire(&key(), PERIOD).await.unwrap_err();
    assert!(refused.to_string().contains("right"), "{}", shown(&refused));
}

#[tokio::test]
async fn tls_is_verified() {
    let port = free_port();
    let authority = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let folder = std::env::temp_dir().join(format!("tower-oauth2-redis-tls-{port}"));
    fs::create_dir_all(&folder).unwrap();
    let (certificate, private) = (folder.join("certificate.pem"), folder.join("key.pem"));
    fs::write(&certificate, authority.cert.pem()).unwrap();
    fs::write(&private, authority.signing_key.serialize_pem()).unwrap();
    let server = RedisServer::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        certificate.to_str().unwrap(),
        "--tls-key-file",
        private.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let url = format!("rediss://127.0.0.1:{port}");
    let trusted = RedisStore::connect(&url).unwrap().root_certificates(authority.cert.pem()).unwrap();
    assert!(trusted.load(&key()).await.unwrap().is_none());
    let refused = RedisStore::connect(&url).unwrap().load(&key()).await.unwrap_err();
    assert!(
        refused.kind() == ErrorKind::Transient && shown(&refused).contains("certificate"),
        "{}",
        shown(&refused)
    );
    assert_eq!(
        RedisStore::connect(server.url()).unwrap().root_certificates("x").unwrap_err().kind(),
        ErrorKind::Config
    );
    // Sentinels are asked over TLS, and the primary that they name is called over TLS.
    let monitored = format!("sentinel monitor billing 127.0.0.1 {port} 1\n");
    let files = [certificate.to_str().unwrap(), private.to_str().unwrap()];
    let tls = free_port().to_string();
    let arguments =
        ["--sentinel", "--tls-port", &tls, "--tls-cert-file", files[0], "--tls-key-file", files[1]];
    let more = ["--tls-ca-cert-file", files[0], "--tls-auth-clients", "no", "--tls-replication", "yes"];
    let _sentinel = RedisServer::start_with(&monitored, &[&arguments[..], &more[..]].concat()).await;
    let url = format!("rediss+sentinel://127.0.0.1:{tls}/billing");
    let trusted = RedisStore::connect(&url).unwrap().root_certificates(authority.cert.pem()).unwrap();
    assert!(trusted.load(&key()).await.unwrap().is_none());
    let refused = RedisStore::connect(&url).unwrap().load(&key()).await.unwrap_err();
    assert!(
        refused.kind() == ErrorKind::Transient && shown(&refused).contains("certificate"),
        "{}",
        shown(&refused)
    );
    fs::remove_dir_all(&folder).unwrap();
}

/// The keys of some tenants, which are spread over all nodes of a cluster.
fn tenants() -> Vec<StoreKey> {
    (0..20).map(|number| StoreKey::new(format!("tenant-{number}")).unwrap()).collect()
}

/// Takes the lease of each key, as soon as the store gives it, and writes. Returns the fences.
async fn written(store: &RedisStore, keys: &[StoreKey]) -> Vec<u64> {
    let mut fences = Vec::new();
    for key in keys {
        let write_it = async || {
            let Acquired::Taken(fence) = store.acquire(key, PERIOD).await.ok()? else { return None };
            let version = store.load(key).await.ok()?.map_or(0, |entry| entry.version);
            let is_written = store.swap(key, write(version, version + 1, fence)).await.ok()?;
            store.release(key, fence).await.ok()?;
            is_written.then_some(fence)
        };
        let begun = Instant::now();
        let fence = loop {
            // As the caller does it, with a timeout.
            if let Ok(Some(fence)) = timeout(Duration::from_secs(1), write_it()).await {
                break fence;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{key:?} cannot be written any more");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        fences.push(fence);
    }
    fences
}

/// Waits by one store for what another writes.
async fn is_woken(store: &RedisStore, writer: &RedisStore, key: &StoreKey) {
    let begun = Instant::now();
    let waiter = loop {
        let entry = store.load(key).await;
        let version = entry.as_ref().map_or(0, |entry| entry.as_ref().map_or(0, |entry| entry.version));
        let waiter = tokio::spawn({
            let (store, key) = (store.clone(), key.clone());
            async move { store.changed(&key, version).await }
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        // A new subscription wakes it as well: it may have missed something before.
        if !waiter.is_finished() && entry.is_ok() {
            break waiter;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it never waits");
    };
    written(writer, std::slice::from_ref(key)).await;
    timeout(Duration::from_secs(1), waiter).await.expect("it is woken").unwrap().unwrap();
}

#[tokio::test]
async fn the_store_in_a_cluster_keeps_every_rule() {
    let cluster = Cluster::start().await;
    check_token_store(RedisStore::connect(cluster.url()).unwrap(), "check", true).await;
    written(&RedisStore::connect(cluster.url()).unwrap(), &tenants()).await;
    for primary in cluster.primaries() {
        let keys: usize = cluster.nodes[primary].cli(&["DBSIZE"]).trim().parse().unwrap();
        assert!(keys > 0, "each node has some of the keys");
    }
    // One node of it, taken for a whole server.
    let alone = RedisStore::connect(format!("redis://127.0.0.1:{}", cluster.nodes[0].port)).unwrap();
    let mut told = Vec::new();
    for key in tenants() {
        told.extend(alone.load(&key).await.err().map(|error| error.to_string()));
    }
    assert!(!told.is_empty() && told.iter().all(|told| told.contains("redis+cluster")), "{told:?}");
}

#[tokio::test]
async fn a_cluster_goes_on_without_the_nodes_that_were_killed() {
    let mut cluster = Cluster::start().await;
    let (store, other) = (RedisStore::connect(cluster.url()), RedisStore::connect(cluster.url()));
    let (store, other) = (store.unwrap(), other.unwrap());
    let before = written(&store, &tenants()).await;
    is_woken(&other, &store, &key()).await;
    let primary = cluster.primaries()[0];
    cluster.nodes[primary].kill();
    let after = written(&store, &tenants()).await;
    assert!(before.iter().zip(&after).all(|(before, after)| after > before));
    is_woken(&other, &store, &key()).await;
    // All of them, at once: they come back without what they had, and know their slots.
    cluster.is_whole().await;
    for node in &mut cluster.nodes {
        node.kill();
    }
    assert!(timeout(PERIOD, store.load(&key())).await.unwrap().is_err());
    for node in &mut cluster.nodes {
        node.start_again().await;
    }
    let last = written(&store, &tenants()).await;
    assert!(after.iter().zip(&last).all(|(after, last)| last > after));
    is_woken(&other, &store, &key()).await;
}

#[tokio::test]
async fn a_node_that_hangs_is_left_for_its_replica() {
    let cluster = Cluster::start().await;
    let store = RedisStore::connect(cluster.url()).unwrap();
    written(&store, &tenants()).await;
    cluster.nodes[cluster.primaries()[0]].signal("STOP");
    let begun = Instant::now();
    loop {
        // The other nodes respond all the time.
        let mut found = 0;
        for key in tenants() {
            let entry = timeout(Duration::from_millis(250), store.load(&key)).await;
            found += usize::from(matches!(entry, Ok(Ok(Some(_)))));
        }
        if found == tenants().len() {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{found} of the entries are found");
    }
}

/// Calls a store from a runtime of its own, which ends with that.
fn load_in_another_runtime(store: &RedisStore) {
    let store = store.clone();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let load = move || runtime().block_on(async { store.load(&key()).await.unwrap() });
    assert!(std::thread::spawn(load).join().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_ended_with_its_runtime_is_replaced() {
    let (server, cluster) = (RedisServer::start(&[]).await, Cluster::start().await);
    for url in [server.url(), cluster.url()] {
        let store = RedisStore::connect(url).unwrap();
        load_in_another_runtime(&store);
        // The first call finds out.
        let _ = store.load(&key()).await;
        assert!(store.load(&key()).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_write_that_is_sent_twice_is_written_once() {
    let server = RedisServer::start(&[]).await;
    let store = RedisStore::connect(server.url()).unwrap();
    let Acquired::Taken(fence) = store.acquire(&key(), PERIOD).await.unwrap() else { panic!("it is free") };
    // As by the client of a cluster that has lost the first response.
    assert!(store.swap(&key(), write(0, 1, fence)).await.unwrap());
    assert!(store.swap(&key(), write(0, 1, fence)).await.unwrap());
    assert!(!store.swap(&key(), write(0, 1, fence + 1)).await.unwrap(), "that is another writer");
    assert!(!store.swap(&key(), write(0, 2, fence)).await.unwrap(), "that is another write");
    assert_eq!(store.load(&key()).await.unwrap().unwrap().version, 1);
}

#[tokio::test]
async fn a_sentinel_that_is_behind_the_others_is_not_believed() {
    let primary = RedisServer::start(&[]).await;
    let replica = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {}", primary.port)]).await;
    let mut sentinels = Vec::new();
    // They do not know each other, and so never agree on another primary.
    for port in [free_port(), replica.port, primary.port] {
        let settings = format!("sentinel monitor billing 127.0.0.1 {port} 2\n");
        sentinels.push(RedisServer::start_with(&settings, &["--sentinel"]).await);
    }
    let at = |numbers: &[usize]| {
        let hosts: Vec<_> =
            numbers.iter().map(|number| format!("127.0.0.1:{}", sentinels[*number].port)).collect();
        RedisStore::connect(format!("redis+sentinel://{}/billing", hosts.join(","))).unwrap()
    };
    for numbers in [&[0, 1, 2][..], &[1, 2, 0], &[2]] {
        let acquired = at(numbers).acquire(&key(), PERIOD).await;
        assert!(acquired.is_ok(), "{numbers:?}: {}", shown(&acquired.unwrap_err()));
    }
    let behind = at(&[1]).acquire(&key(), PERIOD).await.unwrap_err();
    assert!(shown(&behind).contains("named as the primary"), "{}", shown(&behind));
    let gone = at(&[0]).acquire(&key(), PERIOD).await.unwrap_err();
    assert!(shown(&gone).contains("refused"), "{}", shown(&gone));
}

#[tokio::test]
async fn the_store_behind_sentinels_keeps_every_rule_and_follows_the_primary() {
    let mut group = Sentinels::start("").await;
    let (store, other) = (RedisStore::connect(group.url("")), RedisStore::connect(group.url("")));
    let (store, other) = (store.unwrap(), other.unwrap());
    check_token_store(store.clone(), "check", true).await;
    let before = written(&store, &tenants()).await;
    is_woken(&other, &store, &key()).await;
    group.servers[0].kill();
    group.sentinels[0].kill();
    let after = written(&store, &tenants()).await;
    assert!(before.iter().zip(&after).all(|(before, after)| after > before));
    is_woken(&other, &store, &key()).await;
    let entry = group.servers[1].cli(&["HGET", "tower-oauth2:{tenant-7}", "d"]);
    assert_eq!(entry.trim(), "sealed", "the replica has become the primary");
}

#[tokio::test]
async fn sentinels_with_a_password_get_that_of_the_url_and_those_that_cannot_help_are_named() {
    let group = Sentinels::start("R1GHT").await;
    let at = |url: String| RedisStore::connect(url).unwrap();
    let none = at(group.url("")).load(&key()).await.unwrap_err();
    assert!(
        shown(&none).contains("password") && shown(&none).contains("redis+sentinel://127"),
        "{}",
        shown(&none)
    );
    let wrong = at(group.url(":S3CR3T@")).load(&key()).await.unwrap_err();
    assert!(shown(&wrong).contains("password") && !shown(&wrong).contains("S3CR3T"), "{}", shown(&wrong));
    let other = at(group.url(":R1GHT@").replace("/billing", "/reports")).load(&key()).await.unwrap_err();
    assert!(shown(&other).contains("no Sentinel knows"), "{}", shown(&other));
    assert_eq!(written(&at(group.url(":R1GHT@")), &tenants()).await.len(), 20);
}

#[test]
fn a_url_with_several_hosts_is_read_or_refused_without_its_password() {
    for url in [
        "redis+cluster://ann:S3CR3T@a,b:7000/",
        "rediss+cluster://:S3CR3T@a",
        "valkey+cluster://a,b",
        "redis+sentinel://ann:S3CR3T@a,b:7000/billing",
        "rediss+sentinel://:S3CR3T@[::1],[::1]:7000/billing/1",
        "valkeys+sentinel://a/billing",
        "redis+unix:///run/redis.sock?pass=S3CR3T",
        "valkey+unix:///run/valkey.sock",
    ] {
        let store = RedisStore::connect(url).unwrap();
        assert!(!format!("{store:?} {:?}", store.name()).contains("S3CR3T"), "{store:?}");
    }
    for url in [
        "redis+sentinel://:S3CR3T@a,b",
        "redis+sentinel://:S3CR3T@a,b/",
        "redis+sentinel://:S3CR3T@a,b/billing/x",
        "redis+sentinel://:S3CR3T@a,,b/billing",
        "redis+sentinel://:S3CR3T@a/billing?db=1",
        "rediss+cluster://:S3CR3T@a/#insecure",
        "redis+cluster://:S3CR3T@/",
        "redis+ring://:S3CR3T@a",
        "redis+cluster:S3CR3T",
        "redis+sentinel://ann:12/S3CR3T@a/billing",
        "redis+sentinel://ann:12/S3CR3T@a",
        "redis+cluster://ann:12/S3CR3T@a",
        "redis://ann:12/S3CR3T@a",
    ] {
        let error = RedisStore::connect(url).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Config && !shown(&error).contains("S3CR3T"),
            "{url}: {}",
            shown(&error)
        );
    }
}
