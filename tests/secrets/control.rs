//! The control: what is planted by hand must be found, or the other tests prove nothing.

use tower_oauth2::{Error, ErrorKind};

use crate::trail::{Trail, first_leak, listen_for_panics, panics};
use crate::words;

fn is_found(text: &str, secret: &str) -> bool {
    first_leak(text, &[secret]).is_some()
}

/// What is shorter than a needle cannot be found: the halves of the shortest secret.
fn can_be_found(echo: &str, secret: &str) -> bool {
    echo.chars().count() >= 12 || !secret.contains(echo)
}

#[test]
fn every_needle_and_every_echo_is_found_in_a_log_an_error_and_a_panic() {
    listen_for_panics();
    let mut count = 0;
    for secret in words::planted() {
        let echoes = words::echoes(secret).into_iter().filter(|echo| can_be_found(echo, secret));
        for text in words::needles(secret).into_iter().chain(echoes) {
            let trail = Trail::begin();
            assert!(!is_found(&trail.log(), secret));
            tracing::trace!("before {text} behind");
            assert!(is_found(&trail.log(), secret), "{text} in a log");

            let trail = Trail::begin();
            let span = tracing::info_span!("span", field = %text).entered();
            tracing::trace!("in the span");
            assert!(is_found(&trail.log(), secret), "{text} in a span");

            drop(span);

            let trail = Trail::begin();
            trail.error("planted", &Error::new(ErrorKind::Transient, "outer").with_source(text.clone()));
            assert_eq!(trail.leak().expect("a leak").0, "planted", "{text} in an error");
            count += 1;
        }
        let word = format!("planted panic {count}");
        let thrown = format!("{word}: {secret}");
        assert!(std::panic::catch_unwind(|| panic!("{thrown}")).is_err());
        let heard = panics(&word).concat();
        assert!(is_found(&heard, secret), "{secret} in a panic");
    }
    assert!(count > 300, "{count}");
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let text = "the token endpoint at https://login.example.com returned 401 invalid_client ([redacted]): check the \
                client id, the client secret, and how they are sent; Bearer token of the type Basic client_secret=";
    assert_eq!(first_leak(text, &words::planted()), None);
}

#[tokio::test]
#[should_panic(expected = "the log")]
async fn a_careless_source_is_found_out() {
    let trail = Trail::begin();
    let cache = tower_oauth2::TokenCache::new(tower_oauth2::source_fn(|_| async {
        tracing::trace!(secret = words::PIN, "a source that logs what it should not");
        tower_oauth2::AccessToken::bearer(words::OPAQUE)
    }));
    cache.get().await.unwrap();
    trail.assert_clean();
}
