//! What a token request looks like.

use http::Method;
use tower_oauth2::{ClientAuth, ClientCredentials};

use crate::scripted::{Scripted, Seen, URL, a_token, billing, fetch};

/// Lets a source ask once and returns its request.
macro_rules! request_of {
    ($builder:expr) => {{
        let endpoint = Scripted::new([a_token()]);
        endpoint.ask($builder).await.unwrap();
        let [seen] = <[Seen; 1]>::try_from(endpoint.seen()).ok().unwrap();
        seen
    }};
}

#[tokio::test]
async fn it_is_a_form_post_that_asks_for_plain_json() {
    let seen = request_of!(billing());
    assert_eq!(seen.method, Method::POST);
    assert_eq!(seen.uri, URL);
    assert_eq!(seen.body, "grant_type=client_credentials");
    assert_eq!(seen.headers["accept"], "application/json");
    assert_eq!(seen.headers["accept-encoding"], "identity");
    assert_eq!(seen.headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(seen.headers["authorization"], "Basic YmlsbGluZzpodW50ZXIyLWh1bnRlcjI=");
    assert!(seen.headers["authorization"].is_sensitive());
    assert!(seen.headers["user-agent"].to_str().unwrap().starts_with("tower-oauth2/"));
}

#[tokio::test]
async fn the_query_of_the_endpoint_is_kept_and_no_credentials_join_it() {
    let url = "https://example.com/token?tenant=a%20b";
    for auth in [ClientAuth::basic("hunter2"), ClientAuth::basic_raw("hunter2"), ClientAuth::post("hunter2")]
    {
        let seen = request_of!(ClientCredentials::builder(url, "billing", auth));
        assert_eq!(seen.uri.path_and_query().unwrap(), "/token?tenant=a%20b");
    }
}

#[tokio::test]
async fn each_authentication_stands_alone() {
    let post = request_of!(ClientCredentials::builder(URL, "billing", ClientAuth::post("hunter2-hunter2")));
    assert_eq!(post.body, "grant_type=client_credentials&client_id=billing&client_secret=hunter2-hunter2");
    assert!(!post.headers.contains_key("authorization"));

    let none = request_of!(ClientCredentials::builder(URL, "billing", ClientAuth::none()));
    assert_eq!(none.body, "grant_type=client_credentials&client_id=billing");
    assert!(!none.headers.contains_key("authorization"));

    let encoded = request_of!(ClientCredentials::builder(URL, "my:client", "a b"));
    let raw = request_of!(ClientCredentials::builder(URL, "my client", ClientAuth::basic_raw("a b")));
    assert_eq!(encoded.headers["authorization"], "Basic bXklM0FjbGllbnQ6YSti");
    assert_eq!(raw.headers["authorization"], "Basic bXkgY2xpZW50OmEgYg==");
}

#[tokio::test]
async fn parameters_come_in_order_once_each_and_not_when_empty() {
    let seen = request_of!(
        billing()
            .scope("read write")
            .scope("read")
            .scope("Write")
            .audience("https://api/")
            .resource("https://cal.example.com/")
            .resource("https://contacts.example.com/")
            .param("organization", "north & south")
            .param("empty", "")
            .secret_param("pin", "12+34")
    );
    assert_eq!(
        seen.body,
        "grant_type=client_credentials&scope=read+write+Write&audience=https%3A%2F%2Fapi%2F\
         &resource=https%3A%2F%2Fcal.example.com%2F&resource=https%3A%2F%2Fcontacts.example.com%2F\
         &organization=north+%26+south&pin=12%2B34"
    );
    assert_eq!(request_of!(billing().scope("").audience("")).body, "grant_type=client_credentials");
}

#[tokio::test]
async fn clones_of_a_source_ask_by_the_same_transport() {
    let endpoint = Scripted::new([a_token(), a_token()]);
    let source = billing().build_with(endpoint.clone()).unwrap();
    fetch(&source).await.unwrap();
    fetch(&source.clone()).await.unwrap();
    assert_eq!(endpoint.seen().len(), 2);
    assert!(endpoint.is_finished());
}
