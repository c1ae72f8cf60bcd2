//! Processes that live on one refresh token, which the server takes once: one that comes a second time ends the login.

use std::time::Duration;

use futures_util::future::join_all;
use tower_oauth2::store::{MemoryStore, SealingKey, Shared, TokenStore};
use tower_oauth2::test_util::{FakeAuthorizationServer, FakeClient, Trouble, pass, timed};
use tower_oauth2::{
    AccessToken, Error, ErrorKind, FetchReason, RefreshTokenGrant, TokenCache, TokenSource as _, source_fn,
};

use crate::mortal::{Life, MortalServer, MortalStore};
use crate::stores::{Fault, FaultyStore};
use crate::{OUT_OF_ORDER, SECOND, asks, key, logging, said, sealing};

const LIFE: Duration = Duration::from_secs(100);

fn server() -> FakeAuthorizationServer {
    let client = FakeClient::confidential("reports", "hunter2").scopes("items:read");
    FakeAuthorizationServer::builder().client(client).lifetime(LIFE).build()
}

/// The source of a process that starts with this refresh token, or with none.
fn grant(server: &FakeAuthorizationServer, refresh_token: &str) -> RefreshTokenGrant {
    RefreshTokenGrant::builder(server.token_url(), "reports", "hunter2")
        .refresh_token(refresh_token)
        .second_attempt_after(None)
        .build_with(server.clone())
        .unwrap()
}

fn process<T: TokenStore>(source: &RefreshTokenGrant, store: T) -> Shared<RefreshTokenGrant, T> {
    Shared::builder(source.clone(), store, sealing()).principal("ada").build().unwrap()
}

async fn first<T: TokenStore>(process: &Shared<RefreshTokenGrant, T>) -> Result<AccessToken, Error> {
    process.token(asks(FetchReason::Initial)).await
}

fn refused_by(error: &Error) -> bool {
    error.kind() == ErrorKind::Grant && error.to_string().contains("sign in")
}

#[tokio::test(start_paused = true)]
async fn ten_processes_live_on_one_refresh_token() {
    let (server, store) = (server(), MemoryStore::new());
    let login = server.sign_in("reports", "items:read");
    let fleet: Vec<_> =
        (0..10).map(|_| TokenCache::new(process(&grant(&server, &login), store.clone()))).collect();
    for _ in 0..500 {
        for token in join_all(fleet.iter().map(TokenCache::get)).await {
            token.unwrap();
        }
        pass(5 * SECOND).await;
    }
    let counts = server.counts();
    assert_eq!((counts.reuses, counts.refusals), (0, 0));
    assert!((25..=35).contains(&counts.token_requests), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_process_needs_no_refresh_token_of_its_own() {
    let (server, store) = (server(), MemoryStore::new());
    let error = first(&process(&grant(&server, ""), store.clone())).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Grant && error.to_string().contains("no user has signed in"),
        "{error}"
    );
    let login = server.sign_in("reports", "items:read");
    first(&process(&grant(&server, &login), store.clone())).await.unwrap();
    for _ in 0..3 {
        pass(LIFE).await;
        let token = first(&process(&grant(&server, ""), store.clone())).await.unwrap();
        assert!(token.expose_refresh_token().is_some_and(|token| token != login));
    }
    assert_eq!((server.counts().token_requests, server.counts().reuses), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn the_access_token_of_a_login_is_shared_before_anything_is_exchanged() {
    let (server, store) = (server(), MemoryStore::new());
    let login = server.sign_in("reports", "items:read");
    let source = RefreshTokenGrant::builder(server.token_url(), "reports", "hunter2")
        .refresh_token(login)
        .access_token(AccessToken::bearer("of-the-login").unwrap().with_lifetime(LIFE))
        .build_with(server.clone())
        .unwrap();
    assert_eq!(first(&process(&source, store.clone())).await.unwrap().expose(), "of-the-login");
    let other = process(&grant(&server, ""), store);
    assert_eq!(first(&other).await.unwrap().expose(), "of-the-login");
    assert_eq!(server.counts().token_requests, 0);
    pass(LIFE).await;
    first(&other).await.unwrap();
    assert_eq!(server.counts().token_requests, 1);
}

#[tokio::test(start_paused = true)]
async fn a_login_that_has_ended_is_told_to_all_and_sent_by_none() {
    let (server, store) = (server(), MemoryStore::new());
    let login = server.sign_in("reports", "items:read");
    let fleet: Vec<_> = (0..5).map(|_| process(&grant(&server, &login), store.clone())).collect();
    first(&fleet[0]).await.unwrap();
    pass(LIFE).await;
    // A thief sends what was spent.
    grant(&server, &login).token(asks(FetchReason::Initial)).await.unwrap_err();
    let requests = server.counts().token_requests;
    let mut said = Vec::new();
    for process in &fleet {
        let error = first(process).await.unwrap_err();
        assert!(refused_by(&error) && error.code() == Some("invalid_grant"), "{error}");
        said.push(error.to_string());
    }
    // One that starts later, too, and even with a token of that login.
    let error = first(&process(&grant(&server, &login), store.clone())).await.unwrap_err();
    said.push(error.to_string());
    said.dedup();
    assert_eq!((said.len(), server.counts().token_requests), (1, requests + 1), "{said:?}");
    // The user signs in again, at one of them.
    let again = server.sign_in("reports", "items:read");
    let source = grant(&server, &login);
    let one = process(&source, store.clone());
    first(&one).await.unwrap_err();
    source.replace(again).unwrap();
    first(&one).await.unwrap();
    for process in &fleet {
        first(process).await.unwrap();
    }
    pass(LIFE).await;
    first(&fleet[3]).await.unwrap();
    assert_eq!((server.counts().token_requests, server.counts().reuses), (requests + 3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_after_a_new_login_goes_on_with_it() {
    let (server, store) = (server(), MemoryStore::new());
    let login = server.sign_in("reports", "items:read");
    first(&process(&grant(&server, &login), store.clone())).await.unwrap();
    pass(LIFE).await;
    grant(&server, &login).token(asks(FetchReason::Initial)).await.unwrap_err();
    first(&process(&grant(&server, &login), store.clone())).await.unwrap_err();
    let again = server.sign_in("reports", "items:read");
    first(&process(&grant(&server, &again), store.clone())).await.unwrap();
    first(&process(&grant(&server, &login), store)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_login_goes_before_one_that_is_still_good() {
    let (server, store) = (server(), MemoryStore::new());
    let login = server.sign_in("reports", "items:read");
    let source = grant(&server, &login);
    let (one, other) = (process(&source, store.clone()), process(&grant(&server, &login), store));
    first(&one).await.unwrap();
    source.replace(server.sign_in("reports", "items:read")).unwrap();
    // What comes of the old one from now on must not matter.
    grant(&server, &login).token(asks(FetchReason::Initial)).await.unwrap_err();
    pass(LIFE).await;
    first(&one).await.unwrap();
    pass(LIFE).await;
    first(&other).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_the_store_no_refresh_token_is_sent_unless_it_is_allowed() {
    for fault in [Fault::Error, Fault::Hang, Fault::ReadOnly, Fault::Full, Fault::Tampered] {
        let (log, _guard) = logging();
        let (server, store) = (server(), FaultyStore::default());
        let login = server.sign_in("reports", "items:read");
        first(&process(&grant(&server, &login), store.clone())).await.unwrap();
        pass(LIFE).await;
        store.set(fault);
        let new = process(&grant(&server, &login), store.clone());
        let error = first(&new).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Transient
                && error.to_string().starts_with("the token store is out of order"),
            "{error}"
        );
        assert_eq!((server.counts().token_requests, said(&log, OUT_OF_ORDER)), (1, 1), "{fault:?}");
        store.set(Fault::None);
        first(&new).await.unwrap();
        assert_eq!(server.counts().reuses, 0, "{fault:?}");
    }
}

/// One of two processes was not given the new sealing key.
#[tokio::test(start_paused = true)]
async fn a_refresh_token_is_not_sent_if_another_process_may_have_exchanged_it() {
    let (server, store) = (server(), MemoryStore::new());
    let login = server.sign_in("reports", "items:read");
    let by = |login: &str, sealing| {
        let source = grant(&server, login);
        Shared::builder(source, store.clone(), sealing).principal("ada").build().unwrap()
    };
    let (old, new) = (by(&login, sealing()), by("", SealingKey::new([8; 32]).also(&sealing())));
    first(&old).await.unwrap();
    pass(LIFE).await;
    first(&new).await.unwrap();
    pass(LIFE).await;
    let error = first(&old).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Transient
            && error.to_string().starts_with("the token store is out of order"),
        "{error}"
    );
    first(&new).await.unwrap();
    assert_eq!((server.counts().token_requests, server.counts().reuses), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_exchanged_without_the_store_goes_before_what_it_has() {
    let (server, store) = (server(), FaultyStore::default());
    let login = server.sign_in("reports", "items:read");
    let brave = Shared::builder(grant(&server, &login), store.clone(), sealing());
    let brave = brave.principal("ada").refresh_without_store(true).build().unwrap();
    first(&brave).await.unwrap();
    store.set(Fault::Error);
    for _ in 0..3 {
        pass(LIFE).await;
        first(&brave).await.unwrap();
        assert!(!brave.is_disposable());
    }
    store.set(Fault::None);
    pass(LIFE).await;
    first(&brave).await.unwrap();
    assert!(brave.is_disposable());
    pass(LIFE).await;
    first(&process(&grant(&server, ""), store)).await.unwrap();
    assert_eq!((server.counts().token_requests, server.counts().reuses), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn a_new_refresh_token_that_could_not_be_written_is_written_later() {
    let (server, store) = (server(), FaultyStore::default());
    server.set_latency(SECOND);
    let login = server.sign_in("reports", "items:read");
    let one = process(&grant(&server, &login), store.clone());
    // The store is full between the intent and the result.
    let filling = async {
        pass(SECOND / 2).await;
        store.set(Fault::Full);
    };
    let (token, ()) = futures_util::future::join(first(&one), filling).await;
    token.unwrap();
    assert!(!one.is_disposable());
    // Longer than the lease: the process is alive, and keeps it.
    pass(20 * SECOND).await;
    store.set(Fault::None);
    pass(5 * SECOND).await;
    assert!(one.is_disposable());
    pass(LIFE).await;
    first(&process(&grant(&server, ""), store)).await.unwrap();
    assert_eq!((server.counts().token_requests, server.counts().reuses), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_reply_was_lost_is_not_taken_for_that_of_another_process() {
    for is_optional in [false, true] {
        let (server, store) = (server(), FaultyStore::default());
        let login = server.sign_in("reports", "items:read");
        let one = Shared::builder(grant(&server, &login), store.clone(), sealing()).principal("ada");
        let one = one.refresh_without_store(is_optional).build().unwrap();
        // The intent: with the switch, the exchange goes on without knowing that it arrived.
        store.set(Fault::ReplyLost);
        assert_eq!(first(&one).await.is_ok(), is_optional);
        let token = first(&one).await.unwrap();
        // The mark of a rejected token, before the intent.
        store.set(Fault::ReplyLost);
        let request = asks(FetchReason::Rejected).with_rejected(Some(token));
        one.token(request).await.unwrap();
        pass(LIFE).await;
        first(&process(&grant(&server, ""), store)).await.unwrap();
        assert_eq!((server.counts().token_requests, server.counts().reuses), (3, 0), "{is_optional}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lost_everything_gets_the_newest_that_a_process_knows() {
    let (server, old) = (server(), FaultyStore::default());
    let login = server.sign_in("reports", "items:read");
    let fleet: Vec<_> = (0..2).map(|_| process(&grant(&server, &login), old.clone())).collect();
    for _ in 0..3 {
        first(&fleet[0]).await.unwrap();
        first(&fleet[1]).await.unwrap();
        pass(LIFE).await;
    }
    old.lose_everything();
    first(&fleet[1]).await.unwrap();
    assert_eq!((server.counts().token_requests, server.counts().reuses), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_leaves_an_exchange_that_goes_on() {
    let (server, store) = (server(), MemoryStore::new());
    server.set_latency(8 * SECOND);
    let login = server.sign_in("reports", "items:read");
    let one = process(&grant(&server, &login), store.clone());
    assert!(tokio::time::timeout(SECOND, first(&one)).await.is_err());
    assert!(!one.is_disposable());
    // Another one waits for it.
    first(&process(&grant(&server, &login), store)).await.unwrap();
    pass(SECOND).await;
    assert!(one.is_disposable());
    assert_eq!((server.counts().token_requests, server.counts().reuses), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_goes_on_under_its_lease_after_the_deadline_of_its_cache() {
    let (server, store) = (server(), MemoryStore::new());
    server.set_latency(8 * SECOND);
    let login = server.sign_in("reports", "items:read");
    let cache = TokenCache::builder(process(&grant(&server, &login), store.clone()));
    let cache = cache.fetch_timeout(3 * SECOND).build();
    assert_eq!(cache.get().await.unwrap_err().kind(), ErrorKind::Transient);
    // Its refresh token must not be sent by another one meanwhile.
    first(&process(&grant(&server, &login), store)).await.unwrap();
    assert_eq!((server.counts().token_requests, server.counts().reuses), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_lost_leaves_the_doubt_to_all() {
    let (server, store) = (server(), MemoryStore::new());
    let login = server.sign_in("reports", "items:read");
    // It broke off before the server had done anything, which no client can know.
    server.fail_next(2, Trouble::Disconnect);
    let error = first(&process(&grant(&server, &login), store.clone())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
    first(&process(&grant(&server, &login), store)).await.unwrap();
    assert_eq!(server.counts().reuses, 0);
}

#[tokio::test(start_paused = true)]
async fn on_rotate_is_called_by_the_process_that_exchanges() {
    let (server, store) = (server(), MemoryStore::new());
    let login = server.sign_in("reports", "items:read");
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let source = RefreshTokenGrant::builder(server.token_url(), "reports", "hunter2").refresh_token(login);
    let source = source.on_rotate(move |token| {
        let told = told.clone();
        async move { Ok(told.send(token.expose_refresh_token().to_owned())?) }
    });
    let source = source.build_with(server.clone()).unwrap();
    let token = first(&process(&source, store)).await.unwrap();
    assert_eq!(heard.recv().await.as_deref(), token.expose_refresh_token());
}

/// A process is killed at each of its steps: before and after each call to the store, and before and after the token request.
#[tokio::test(start_paused = true)]
async fn a_process_killed_outside_the_window_loses_nothing() {
    let mut windows = Vec::new();
    let mut kills = 0;
    for step in 0.. {
        let (server, store) = (server(), MemoryStore::new());
        let login = server.sign_in("reports", "items:read");
        first(&process(&grant(&server, &login), store.clone())).await.unwrap();
        pass(LIFE).await;
        let life = Life::of(step);
        let doomed = mortal(&server, &login, &store, &life);
        let doomed = tokio::spawn(async move { first(&doomed).await });
        pass(SECOND).await;
        if !life.is_over() {
            doomed.await.unwrap().unwrap();
            break;
        }
        kills += 1;
        let died_at = life.steps().pop().unwrap();
        let sent = server.counts().token_requests;
        let (next, took) = timed(first(&process(&grant(&server, &login), store.clone()))).await;
        assert!(took < 12 * SECOND, "killed at {died_at}: {took:?}");
        let others = [
            first(&process(&grant(&server, ""), store.clone())).await,
            first(&process(&grant(&server, &login), store)).await,
        ];
        match next {
            Ok(token) => {
                assert_eq!(server.counts().reuses, 0, "killed at {died_at}");
                for other in others {
                    assert_eq!(other.unwrap().expose(), token.expose(), "killed at {died_at}");
                }
            }
            Err(error) => {
                assert!(refused_by(&error), "{error}");
                assert!(
                    error
                        .to_string()
                        .contains("a response that may have contained the next refresh token was lost"),
                    "{error}"
                );
                // It was sent once more, by one of them, and all say the same.
                assert_eq!((server.counts().token_requests, server.counts().reuses), (sent + 1, 1));
                for other in others {
                    assert_eq!(other.unwrap_err().to_string(), error.to_string(), "killed at {died_at}");
                }
                windows.push(died_at);
            }
        }
    }
    // The server has taken the request, and the store has not what came of it.
    assert_eq!((kills, windows), (14, vec!["request>", "swap<"]));
}

fn mortal(
    server: &FakeAuthorizationServer,
    login: &str,
    store: &MemoryStore,
    life: &Life,
) -> Shared<RefreshTokenGrant, MortalStore> {
    let source = RefreshTokenGrant::builder(server.token_url(), "reports", "hunter2")
        .refresh_token(login)
        .second_attempt_after(None)
        .build_with(MortalServer::new(server, life))
        .unwrap();
    // A process that is dead notices no timeout.
    Shared::builder(source, MortalStore::new(store, life), sealing())
        .principal("ada")
        .store_timeout(3600 * SECOND)
        .lease(4 * 3600 * SECOND)
        .build()
        .unwrap()
}

#[test]
fn a_refresh_token_needs_the_name_of_its_user() {
    let server = server();
    let source = grant(&server, "RT1");
    let build = |source| Shared::builder(source, MemoryStore::new(), sealing()).build();
    let error = build(source.clone()).unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().starts_with("principal: "), "{error}");
    let cached = TokenCache::new(source.clone()).as_source();
    let error = Shared::builder(cached, MemoryStore::new(), sealing()).principal("ada").build().unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("behind a cache"), "{error}");
    let of = |principal| {
        Shared::builder(source.clone(), MemoryStore::new(), sealing()).principal(principal).build()
    };
    assert_ne!(of("ada").unwrap().key(), of("bob").unwrap().key());
}

#[tokio::test(start_paused = true)]
async fn a_login_with_a_fallback_without_a_description_shares_its_refresh_token_all_the_same() {
    let (server, store) = (server(), MemoryStore::new());
    let login = server.sign_in("reports", "items:read");
    for _ in 0..3 {
        let fallback = source_fn(|_request| async { Err(Error::new(ErrorKind::Config, "there is none")) });
        let source = grant(&server, &login).or(fallback);
        let process = Shared::builder(source, store.clone(), sealing()).key(key()).build().unwrap();
        process.token(asks(FetchReason::Initial)).await.unwrap();
        pass(LIFE).await;
    }
    assert_eq!((server.counts().token_requests, server.counts().reuses), (3, 0));
}
