//! Stores keep the rules of `tower_oauth2::store`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use tower_oauth2::store::MemoryStore;
use tower_oauth2::test_util::check_token_store;

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_every_rule() {
    check_token_store(&MemoryStore::new(), "memory", true).await;
}
