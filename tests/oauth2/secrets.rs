//! Where the client secret comes from, and what happens when it is rotated.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tower_oauth2::{ClientAuth, ClientCredentials, Error, ErrorKind, Secret};

use crate::scripted::{Scripted, URL, a_token, answer, fetch};

const REFUSED: &str = r#"{"error":"invalid_client"}"#;

/// A secret that is another one each time it is read, as long as `names` has one.
fn rotating(names: &'static [&'static str]) -> (Secret, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let reads = Arc::clone(&count);
    let secret = Secret::from_fn(move || {
        let at = reads.fetch_add(1, Ordering::Relaxed).min(names.len() - 1);
        async move { Ok::<_, Error>(names[at]) }
    });
    (secret, count)
}

fn by_post(secret: Secret) -> tower_oauth2::grants::GrantBuilder<ClientCredentials> {
    ClientCredentials::builder(URL, "billing", ClientAuth::post(secret))
}

fn secrets_sent(endpoint: &Scripted) -> Vec<String> {
    let sent = endpoint.seen().into_iter();
    sent.map(|seen| seen.body.split("client_secret=").nth(1).unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_read_at_each_fetch() {
    let (secret, reads) = rotating(&["one", "two"]);
    let endpoint = Scripted::new([a_token(), a_token()]);
    let source = by_post(secret).build_with(endpoint.clone()).unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    fetch(&source).await.unwrap();
    fetch(&source).await.unwrap();
    assert_eq!(secrets_sent(&endpoint), ["one", "two"]);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_was_rotated_in_between_is_tried_at_once() {
    for refusal in [answer(401, REFUSED), answer(400, REFUSED), answer(401, ""), answer(403, "")] {
        let (secret, _) = rotating(&["old", "new"]);
        let endpoint = Scripted::new([refusal, a_token()]);
        let start = tokio::time::Instant::now();
        endpoint.ask(by_post(secret)).await.unwrap();
        assert_eq!(secrets_sent(&endpoint), ["old", "new"]);
        assert_eq!(start.elapsed(), std::time::Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_stayed_the_same_is_not_tried_again() {
    let (secret, reads) = rotating(&["old"]);
    let endpoint = Scripted::new([answer(401, REFUSED)]);
    let error = endpoint.ask(by_post(secret)).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.code() == Some("invalid_client"), "{error}");
    assert_eq!(reads.load(Ordering::Relaxed), 2);

    let endpoint = Scripted::new([answer(401, REFUSED)]);
    assert_eq!(endpoint.ask(by_post(Secret::new("value"))).await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_read_again_once_and_no_more() {
    let (secret, reads) = rotating(&["one", "two", "three"]);
    let endpoint = Scripted::new([answer(401, REFUSED), answer(401, REFUSED)]);
    assert_eq!(endpoint.ask(by_post(secret)).await.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(reads.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_read_again_does_not_hide_the_refusal() {
    let reads = AtomicUsize::new(0);
    let sealed_later = Secret::from_fn(move || {
        let is_first = reads.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            if is_first { Ok("one") } else { Err(Error::new(ErrorKind::Transient, "the vault is sealed")) }
        }
    });
    let endpoint = Scripted::new([answer(401, REFUSED)]);
    assert_eq!(endpoint.ask(by_post(sealed_later)).await.unwrap_err().code(), Some("invalid_client"));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_passes_by_itself_blames_no_secret() {
    let (secret, reads) = rotating(&["old", "new"]);
    let endpoint = Scripted::new([answer(401, ""), a_token()]);
    let flaky = by_post(secret).classifier(|_| Some(ErrorKind::Transient));
    assert!(endpoint.ask(flaky).await.is_ok());
    assert_eq!(reads.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn another_refusal_does_not_blame_the_secret() {
    let (secret, reads) = rotating(&["old", "new"]);
    let endpoint = Scripted::new([answer(400, r#"{"error":"invalid_scope"}"#)]);
    assert!(endpoint.ask(by_post(secret)).await.is_err());
    assert_eq!(reads.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_secret_nothing_is_sent() {
    let endpoint = Scripted::new([]);
    let unset = Secret::from_env("TOWER_OAUTH2_TEST_UNSET");
    let error = endpoint.ask(by_post(unset)).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("TOWER_OAUTH2_TEST_UNSET"),
        "{error}"
    );

    let sealed =
        Secret::from_fn(|| async { Err::<&str, _>(Error::new(ErrorKind::Transient, "the vault is sealed")) });
    assert_eq!(endpoint.ask(by_post(sealed)).await.unwrap_err().to_string(), "the vault is sealed");
    assert!(endpoint.seen().is_empty());
}

#[tokio::test]
async fn a_file_and_a_variable_give_the_secret_that_is_sent() {
    let path = std::env::temp_dir().join(format!("tower-oauth2-rotation-{}", std::process::id()));
    std::fs::write(&path, "from-file\r\n").unwrap();
    let endpoint = Scripted::new([a_token(), a_token()]);
    endpoint.ask(by_post(Secret::from_file(&path))).await.unwrap();
    // A test cannot set a variable, so it takes one that is there.
    endpoint.ask(by_post(Secret::from_env("PATH"))).await.unwrap();
    let path_variable = std::env::var("PATH").unwrap();
    let path_variable: String = form_urlencoded::byte_serialize(path_variable.as_bytes()).collect();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(secrets_sent(&endpoint), ["from-file", path_variable.as_str()]);
}
