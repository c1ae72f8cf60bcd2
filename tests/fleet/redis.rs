//! The store in Redis against a real server: `bash tests/fleet/run.sh` installs it and runs this.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod redis_server;

use std::error::Error as _;
use std::fs;
use std::time::Duration;

use redis_server::{RedisServer, free_port};
use tower_oauth2::store::{Acquired, RedisStore, StoreKey, TokenStore as _, Write};
use tower_oauth2::test_util::check_token_store;
use tower_oauth2::{Error, ErrorKind};

const PERIOD: Duration = Duration::from_secs(10);

fn key() -> StoreKey {
    StoreKey::new("billing").unwrap()
}

fn write(replaces: u64, version: u64, fence: u64) -> Write {
    Write::new(replaces, version, fence, PERIOD, "sealed".into())
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
    let store = RedisStore::builder(server.url()).prefix("reports:").build().unwrap();
    let Acquired::Taken(lease) = store.acquire(&key(), PERIOD).await.unwrap() else { panic!("it is free") };
    assert_eq!(server.cli(&["TTL", "reports:{billing}"]).trim(), "3610");
    assert_eq!(server.cli(&["TTL", "reports:{billing}:lease"]).trim(), "10");
    assert!(store.swap(&key(), write(0, 1, lease.fence)).await.unwrap());
    assert_eq!(server.cli(&["TTL", "reports:{billing}"]).trim(), "10");
    assert_eq!(server.cli(&["DBSIZE"]).trim(), "2");
    assert_eq!(server.cli(&["HGET", "reports:{billing}", "d"]).trim(), "sealed");
}

#[tokio::test]
async fn a_server_that_comes_back_empty_repeats_no_number() {
    let mut server = RedisServer::start(&[]).await;
    let store = RedisStore::connect(server.url()).unwrap();
    let Acquired::Taken(before) = store.acquire(&key(), PERIOD).await.unwrap() else { panic!("it is free") };
    assert!(store.swap(&key(), write(0, 1, before.fence)).await.unwrap());
    server.kill();
    assert_eq!(store.load(&key()).await.unwrap_err().kind(), ErrorKind::Transient);
    server.start_again().await;
    let after = loop {
        match store.acquire(&key(), PERIOD).await {
            Ok(Acquired::Taken(lease)) => break lease,
            Ok(Acquired::Held(_)) => panic!("the server is empty"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert!(after.fence > before.fence);
    assert!(!store.swap(&key(), write(0, 2, before.fence)).await.unwrap(), "a writer from before loses");
    // Waiters are woken over the new connection as well.
    let changed = tokio::spawn({
        let store = store.clone();
        async move { store.changed(&key(), 0).await }
    });
    while !server.cli(&["PUBSUB", "NUMSUB", "tower-oauth2:changed"]).contains("\n1") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(store.swap(&key(), write(0, 2, after.fence)).await.unwrap());
    changed.await.unwrap().unwrap();
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
    let debug = format!("{:?} {:?}", at(":S3CR3T@"), RedisStore::builder("redis://:S3CR3T@127.0.0.1"));
    assert!(!debug.contains("S3CR3T"), "{debug}");
    for url in
        ["http://:S3CR3T@127.0.0.1", "S3CR3T", "redis://:S3CR3T@127.0.0.1/x", "rediss://:S3CR3T@h/#insecure"]
    {
        match RedisStore::connect(url) {
            Err(error) => {
                assert!(error.is_config() && !shown(&error).contains("S3CR3T"), "{}", shown(&error))
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
    assert!(gone.is_transient() && shown(&gone).contains("refused"), "{}", shown(&gone));
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
    let rights = "+evalsha +script|load +hmget +hget +hset +get +set +del +pttl +pexpire +time +hello +ping";
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
        RedisStore::builder(format!("redis://whole:R1GHT@127.0.0.1:{}", server.port)).prefix("x:").build();
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
    let trusted = RedisStore::builder(&url).root_certificates(authority.cert.pem()).build().unwrap();
    assert!(trusted.load(&key()).await.unwrap().is_none());
    let refused = RedisStore::connect(&url).unwrap().load(&key()).await.unwrap_err();
    assert!(refused.is_transient() && shown(&refused).contains("certificate"), "{}", shown(&refused));
    assert!(RedisStore::builder(server.url()).root_certificates("x").build().unwrap_err().is_config());
    fs::remove_dir_all(&folder).unwrap();
}
