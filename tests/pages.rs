//! Lists that come in pages: over services in memory, and over the fakes of the kit with trouble in the middle.

#![cfg(feature = "stack")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::LINK;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::time::timeout;
use tower::{BoxError, service_fn};
use tower_oauth2::client::pages::{Next, NextPage, Pages};
use tower_oauth2::client::{ApiClient, ApiError};
use tower_oauth2::extensions::Deadline;
use tower_oauth2::retry::RetryOptions;
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient, Trouble, pass, timed};
use tower_oauth2::{AccessToken, Body, ClientCredentials};

const BASE: &str = "https://api.example.com/v2";

/// What a server was sent: the URL and the body.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// A client of a server that is a function of URL and body.
fn client<F>(respond: F) -> (ApiClient, Seen)
where
    F: Fn(&str, &str) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let server = service_fn(move |request: Request<Body>| {
        let (respond, log) = (respond.clone(), Arc::clone(&log));
        async move {
            assert_eq!(request.headers()["authorization"], "Bearer A1");
            let url = request.uri().to_string();
            let body = request.into_body().collect().await?.to_bytes();
            let body = String::from_utf8(body.to_vec())?;
            let response = respond(&url, &body);
            log.lock().unwrap().push((url, body));
            Ok::<_, BoxError>(response)
        }
    });
    let tokens = AccessToken::bearer("A1").unwrap();
    (ApiClient::builder(BASE, tokens).build_with(server).unwrap(), seen)
}

#[allow(clippy::needless_pass_by_value, reason = "texts and values alike")]
fn page(body: impl ToString) -> Response<Body> {
    Response::new(Body::from(body.to_string()))
}

/// Returns what was asked for, from the base URL on.
fn asked(seen: &Seen) -> Vec<String> {
    seen.lock().unwrap().iter().map(|(url, _)| url.strip_prefix(BASE).unwrap_or(url).to_owned()).collect()
}

fn param(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1;
    form_urlencoded::parse(query.as_bytes())
        .find_map(|(key, value)| (key == name).then(|| value.into_owned()))
}

async fn items(mut pages: Pages) -> Result<Vec<u64>, ApiError> {
    let mut items = Vec::new();
    while let Some(page) = pages.next().await {
        items.extend(page?.items::<u64>()?);
    }
    assert!(pages.next().await.is_none() && pages.position().is_none());
    assert_eq!(pages.progress().items(), Some(items.len() as u64));
    Ok(items)
}

/// Walks three pages of two numbers each, and returns what was asked for.
async fn walk<F>(next: Next, respond: F) -> Vec<String>
where
    F: Fn(&str) -> Response<Body> + Clone + Send + Sync + 'static,
{
    let (api, seen) = client(move |url, _| respond(url));
    let pages = api.get("users").query(&[("limit", "2"), ("q", "a b")]).pages(next);
    assert_eq!(items(pages).await.unwrap(), [1, 2, 3, 4, 5, 6]);
    asked(&seen)
}

/// Which of three pages it is, by a parameter that says it, and their items.
fn numbers(at: usize) -> Value {
    [json!([1, 2]), json!([3, 4]), json!([5, 6]), json!([])][at].clone()
}

// --- Shapes ---

#[tokio::test]
async fn a_link_header_leads_from_page_to_page() {
    let walked = walk(Next::link(), |url| {
        let at = param(url, "page").map_or(0, |page| page.parse().unwrap());
        let mut response = page(numbers(at));
        let link = match at {
            0 => {
                r#"</v2/users?page=2,x>; rel=prev; title="rel=next, really", <https://api.example.com/v2/users?page=1>; REL="Next""#
            }
            1 => "<?page=2>;rel=next",
            _ => "<?page=0>; rel=first",
        };
        response.headers_mut().insert(LINK, link.parse().unwrap());
        response
    });
    assert_eq!(walked.await, ["/users?limit=2&q=a+b", "/users?page=1", "/users?page=2"]);
}

#[tokio::test]
async fn a_url_in_the_body_leads_from_page_to_page() {
    for (first, second) in [
        ("https://api.example.com/v2/users?at=1", "http://api.example.com/v2/users?at=2"),
        ("/v2/users?at=1", "users?at=2"),
        ("//api.example.com/v2/users?at=1", "?at=2"),
    ] {
        for end in [json!(null), json!(""), json!(" "), json!(false)] {
            let walked = walk(Next::url("/meta/next").items("data"), move |url| {
                let at = param(url, "at").map_or(0, |at| at.parse().unwrap());
                let next = [json!(first), json!(second), end.clone()][at].clone();
                page(json!({ "data": numbers(at), "meta": { "next": next } }))
            });
            assert_eq!(walked.await, ["/users?limit=2&q=a+b", "/users?at=1", "/users?at=2"]);
        }
    }
}

#[tokio::test]
async fn a_cursor_goes_into_a_parameter_and_all_else_stays() {
    for (one, two) in [
        (json!("a b&c=ü"), json!("x=")),
        (json!(17), json!(18)),
        (json!(-1), json!(12345678901234567890_u64)),
    ] {
        for end in [json!(null), json!(""), json!(0), json!("0"), json!(false), json!("gone")] {
            let cursors = [one.clone(), two.clone()];
            let texts =
                cursors.clone().map(|cursor| cursor.as_str().map_or(cursor.to_string(), str::to_owned));
            let expected: Vec<_> = texts.iter().map(|text| Some(text.clone())).collect();
            let walked = walk(Next::cursor("after", "cursor").items("users"), move |url| {
                let at = param(url, "after")
                    .map_or(0, |after| 1 + texts.iter().position(|text| *text == after).unwrap());
                let mut body = json!({ "users": numbers(at), "cursor": cursors.get(at).unwrap_or(&end) });
                if at == 2 && end == "gone" {
                    body.as_object_mut().unwrap().remove("cursor");
                }
                page(body)
            })
            .await;
            assert_eq!(walked[0], "/users?limit=2&q=a+b");
            let sent: Vec<_> = walked[1..].iter().map(|url| param(url, "after")).collect();
            assert_eq!(sent, expected);
            assert!(
                walked[1..].iter().all(|url| url.starts_with("/users?limit=2&q=a+b&after=")),
                "{walked:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_cursor_of_many_digits_loses_none() {
    let (api, seen) = client(|url, _| match url.contains("at=") {
        false => page(r#"{"next": 123456789012345678901234567890}"#),
        true => page("{}"),
    });
    let mut pages = api.get("x").pages(Next::cursor("at", "next"));
    while let Some(page) = pages.next().await {
        page.unwrap();
    }
    assert_eq!(asked(&seen), ["/x", "/x?at=123456789012345678901234567890"]);
}

#[tokio::test]
async fn pages_are_counted_up_to_the_page_count_or_to_an_empty_page() {
    let numbered = |url: &str| param(url, "page").map_or(0, |page| page.parse::<usize>().unwrap() - 1);
    let counted = walk(Next::page_number("page").items("data").page_count("pageCount"), move |url| {
        page(json!({ "data": numbers(numbered(url)), "pageCount": 3 }))
    });
    let three = ["/users?limit=2&q=a+b", "/users?limit=2&q=a+b&page=2", "/users?limit=2&q=a+b&page=3"];
    assert_eq!(counted.await, three);

    let more = walk(Next::page_number("page").items("data").more("hasMore"), move |url| {
        page(json!({ "data": numbers(numbered(url)), "hasMore": numbered(url) < 2 }))
    });
    assert_eq!(more.await, three);

    // An empty page is one without items, with null for them, without the member, or without a body.
    for empty in ["{\"data\": []}", "{\"data\": null}", "{\"total\": 6}", ""] {
        let until_empty = walk(Next::page_number("page").items("data"), move |url| match numbered(url) {
            3 => page(empty),
            at => page(json!({ "data": numbers(at) })),
        });
        assert_eq!(until_empty.await[..3], three);
    }
    let bare = walk(Next::page_number("page"), move |url| page(numbers(numbered(url))));
    assert_eq!(bare.await.len(), 4);
}

#[tokio::test]
async fn pages_with_numbers_end_with_the_total_if_it_is_what_came() {
    let numbered = |url: &str| param(url, "page").map_or(0, |page| page.parse::<usize>().unwrap() - 1);
    // A total that is less than what came, or more, is not right: an empty page is the end.
    for (total, requests) in
        [(json!(6), 3), (json!("6"), 3), (json!(0), 4), (json!(3), 4), (json!(7), 4), (json!(null), 4)]
    {
        let next = Next::page_number("page").items("data").total("total");
        let walked = walk(next, move |url| page(json!({ "data": numbers(numbered(url)), "total": total })));
        assert_eq!(walked.await.len(), requests);
    }
    // One that knows better says so.
    let next = Next::page_number("page").items("data").total("total").more("more");
    let walked = walk(next, move |url| {
        page(json!({ "data": numbers(numbered(url)), "total": 2, "more": numbered(url) < 2 }))
    });
    assert_eq!(walked.await.len(), 3);
    // What came before the position counts too.
    let serve = move |url: &str, _: &str| page(json!({ "data": numbers(numbered(url)), "total": 6 }));
    let next = || Next::page_number("page").items("data").total("total");
    let (api, seen) = client(serve);
    let mut pages = api.get("x").pages(next());
    pages.next().await.unwrap().unwrap();
    let saved = pages.position().unwrap();
    let rest = api.get("x").pages(next()).resume(saved).unwrap().try_collect::<Vec<_>>().await.unwrap();
    assert_eq!((rest.len(), asked(&seen).len()), (2, 3));
}

#[tokio::test]
async fn counting_begins_where_the_request_says() {
    let (api, seen) = client(|url, _| {
        let at: usize = param(url, "page").unwrap().parse().unwrap();
        page(json!({ "data": numbers(at), "pages": "3" }))
    });
    let next = Next::page_number("page").first(0).items("data").page_count("pages");
    let pages = api.get("users?page=1&size=2").pages(next);
    assert_eq!(items(pages).await.unwrap(), [3, 4, 5, 6]);
    assert_eq!(asked(&seen), ["/users?page=1&size=2", "/users?size=2&page=2"]);
}

#[tokio::test]
async fn items_are_left_out_up_to_the_total_or_to_an_empty_page() {
    let at = |url: &str| param(url, "skip").map_or(0, |skip| skip.parse::<usize>().unwrap() / 2);
    let total = walk(Next::offset("skip").items("data").total("total"), move |url| {
        page(json!({ "data": numbers(at(url)), "total": 6 }))
    });
    assert_eq!(
        total.await,
        ["/users?limit=2&q=a+b", "/users?limit=2&q=a+b&skip=2", "/users?limit=2&q=a+b&skip=4"]
    );
    assert_eq!(walk(Next::offset("skip"), move |url| page(numbers(at(url)))).await.len(), 4);

    // SCIM counts from 1.
    let (api, seen) = client(|url, _| {
        let start: usize = param(url, "startIndex").map_or(1, |start| start.parse().unwrap());
        page(json!({ "Resources": numbers(start / 2), "totalResults": 4 }))
    });
    let next = Next::offset("startIndex").first(1).items("Resources").total("totalResults");
    assert_eq!(items(api.get("Users").pages(next)).await.unwrap(), [1, 2, 3, 4]);
    assert_eq!(asked(&seen), ["/Users", "/Users?startIndex=3"]);
}

#[tokio::test]
async fn a_parameter_may_stand_in_the_json_body() {
    let (api, seen) = client(|_, body| {
        let body: Value = serde_json::from_str(body).unwrap();
        let at = body["paging"]["pageNumber"].as_u64().unwrap();
        page(match at {
            4 => json!({}),
            at => json!({ "conversations": [at], "totalHits": 3 }),
        })
    });
    let query = json!({ "interval": "all", "paging": { "pageSize": 1, "pageNumber": 2 } });
    let next = Next::page_number("/paging/pageNumber").items("conversations").total("totalHits");
    assert_eq!(items(api.post("query").json(&query).pages(next)).await.unwrap(), [2, 3]);
    let bodies: Vec<Value> =
        seen.lock().unwrap().iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect();
    let sent = |number| json!({ "interval": "all", "paging": { "pageSize": 1, "pageNumber": number } });
    assert_eq!(bodies, [sent(2), sent(3), sent(4)]);

    // A cursor that is an object, into a request that had no body.
    let (api, seen) = client(|_, body| match body {
        "" => page(json!({ "Items": [1], "LastKey": { "id": 7 } })),
        _ => page(json!({ "Items": [2] })),
    });
    let next = Next::cursor("/ExclusiveStartKey", "LastKey").items("Items");
    assert_eq!(items(api.post("scan").pages(next)).await.unwrap(), [1, 2]);
    assert_eq!(seen.lock().unwrap()[1].1, r#"{"ExclusiveStartKey":{"id":7}}"#);
}

#[tokio::test]
async fn a_function_may_say_what_comes_next() {
    let next = Next::by(|page| {
        let list: Value = page.json()?;
        let last = list["data"].as_array().and_then(|data| data.last()).filter(|_| list["more"] == true);
        Ok(last.map(|last| NextPage::with("after", last.clone()).and("v", "2")))
    });
    let walked = walk(next.items("data"), |url| {
        let at = param(url, "after").map_or(0, |after| after.parse::<usize>().unwrap() / 2);
        page(json!({ "data": numbers(at), "more": at < 2 }))
    });
    assert_eq!(walked.await[1..], ["/users?limit=2&q=a+b&after=2&v=2", "/users?limit=2&q=a+b&after=4&v=2"]);

    let (api, _) = client(|_, _| page("[]"));
    let mut pages =
        api.get("x").pages(Next::by(|_| Err("no idea at https://api.example.com/x?key=S3CR3T".into())));
    assert!(pages.next().await.unwrap().is_ok());
    let error = pages.next().await.unwrap().unwrap_err();
    assert!(error.is_pages() && pages.next().await.is_none());
    assert!(error.to_string().ends_with("has failed: no idea at https://api.example.com"), "{error}");
}

#[tokio::test]
async fn a_byte_order_mark_is_read_over() {
    let (api, _) = client(|_, _| page("\u{feff}{\"data\": [1, 2]}"));
    assert_eq!(items(api.get("x").pages(Next::url("next").items("data"))).await.unwrap(), [1, 2]);
}

// --- Where a URL may lead ---

#[tokio::test]
async fn a_url_that_leads_elsewhere_is_an_error_and_nothing_is_sent() {
    for url in [
        "https://evil.example/v2/users?page=2&key=hunter2",
        "//evil.example/v2?key=hunter2",
        "https://api.example.com/v1/users?key=hunter2",
        "/v2/../v1?key=hunter2",
        "/v2/%2e%2e/v1?key=hunter2",
        "https://api.example.com:8443/v2?key=hunter2",
        "https://user:hunter2@api.example.com/v2",
        "javascript://api.example.com/v2/?key=hunter2",
    ] {
        let (api, seen) = client(move |_, _| page(json!({ "data": [1], "next": url })));
        let mut pages = api.get("users").pages(Next::url("next").items("data"));
        // The page itself is good.
        assert_eq!(pages.next().await.unwrap().unwrap().items::<u64>().unwrap(), [1]);
        let error = pages.next().await.unwrap().unwrap_err();
        let shown = format!("{error} {error:?} {pages:?}");
        assert!(error.is_pages() && !error.is_request() && !shown.contains("hunter2"), "{url}: {shown}");
        assert!(pages.next().await.is_none());
        assert_eq!(asked(&seen), ["/users"], "{url}");
    }
}

#[tokio::test]
async fn a_saved_position_leads_nowhere_else_either() {
    let (api, seen) = client(|_, _| page("{}"));
    for url in ["https://evil.example/v2", "/v1/users", "//evil.example"] {
        let saved = json!({ "next": { "url": url }, "pages": 1 }).to_string();
        let mut pages = api.get("users").pages(Next::url("next")).resume(saved).unwrap();
        let error = pages.next().await.unwrap().unwrap_err();
        assert!(error.is_pages(), "{error}");
    }
    assert_eq!(asked(&seen), [""; 0]);
}

#[tokio::test]
async fn another_base_can_be_allowed_and_the_layers_say_whether_it_gets_the_token() {
    let urls = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&urls);
    let server = service_fn(move |request: Request<Body>| {
        log.lock()
            .unwrap()
            .push((request.uri().to_string(), request.headers().contains_key("authorization")));
        let body = match request.uri().host() {
            Some("api.example.com") => json!({ "data": [1], "next": "https://files.example.com/part/2" }),
            _ => json!({ "data": [2] }),
        };
        async move { Ok::<_, BoxError>(page(body)) }
    });
    let builder = || ApiClient::builder(BASE, AccessToken::bearer("A1").unwrap());
    let next = Next::url("next").items("data").also_under("https://files.example.com/part/");
    let api = builder().allow_origin("https://files.example.com").build_with(server.clone()).unwrap();
    assert_eq!(items(api.get("x").pages(next.clone())).await.unwrap(), [1, 2]);
    assert_eq!(urls.lock().unwrap()[1], ("https://files.example.com/part/2".to_owned(), true));

    // A client that does not allow the origin refuses the request.
    let mut pages = builder().build_with(server).unwrap().get("x").pages(next);
    assert!(pages.next().await.unwrap().is_ok());
    assert!(pages.next().await.unwrap().unwrap_err().token_error().is_some());
    assert_eq!(urls.lock().unwrap().len(), 3);
}

// --- Loops ---

#[tokio::test]
async fn a_server_that_goes_in_circles_ends_in_an_error() {
    // Each row: what follows what; how many pages come before the error.
    for (next, pages_before) in [
        (&[("", "a"), ("a", "a")][..], 2),
        (&[("", "a"), ("a", "b"), ("b", "a")], 3),
        (&[("", "a"), ("a", "b"), ("b", "c"), ("c", "b")], 4),
    ] {
        let table: HashMap<&str, &str> = next.iter().copied().collect();
        let (api, seen) = client(move |url, _| {
            let at = param(url, "at").unwrap_or_default();
            page(json!({ "next": table[at.as_str()] }))
        });
        for shape in [
            Next::cursor("at", "next"),
            Next::by(|page| {
                let next: Value = page.json()?;
                Ok(Some(NextPage::at(format!("?at={}", next["next"].as_str().unwrap()))))
            }),
        ] {
            seen.lock().unwrap().clear();
            let mut pages = api.get("x").pages(shape);
            for _ in 0..pages_before {
                pages.next().await.unwrap().unwrap();
            }
            let error = pages.next().await.unwrap().unwrap_err();
            assert!(error.is_pages() && error.to_string().contains("has come already"), "{error}");
            assert!(pages.next().await.is_none());
            assert_eq!(asked(&seen).len(), pages_before);
        }
    }
}

#[tokio::test]
async fn a_url_that_leads_back_to_the_first_page_is_a_circle() {
    let (api, seen) = client(|_, _| page(json!({ "next": "https://API.example.com:443/v2/x?a=1#top" })));
    let mut pages = api.get("x?a=1").pages(Next::url("next"));
    assert!(pages.next().await.unwrap().is_ok());
    assert!(pages.next().await.unwrap().unwrap_err().is_pages());
    assert_eq!(asked(&seen), ["/x?a=1"]);
}

#[tokio::test]
async fn to_try_a_circle_again_does_not_go_round_it() {
    let (api, seen) = client(|_, _| page(json!({ "next": "?at=a" })));
    let mut pages = api.get("x").pages(Next::url("next"));
    assert!(pages.next().await.unwrap().is_ok() && pages.next().await.unwrap().is_ok());
    for _ in 0..3 {
        let error = pages.next().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("has come already"), "{error}");
        assert!(pages.next().await.is_none());
        pages.try_again();
    }
    assert_eq!(asked(&seen), ["/x", "/x?at=a"]);
}

#[tokio::test]
async fn a_page_that_says_nothing_good_about_the_next_one_can_be_had_again() {
    let is_good = Arc::new(Mutex::new(false));
    let good = Arc::clone(&is_good);
    let (api, seen) = client(move |url, _| {
        let at = param(url, "page").map_or(0, |page| page.parse::<usize>().unwrap() - 1);
        page(
            json!({ "data": numbers(at), "more": if *good.lock().unwrap() { json!(at < 2) } else { json!("so") } }),
        )
    });
    let mut pages = api.get("x").pages(Next::page_number("page").items("data").more("more"));
    // Twice the same page: that is no sign of a wrong parameter.
    for _ in 0..2 {
        assert_eq!(pages.next().await.unwrap().unwrap().items::<u64>().unwrap(), [1, 2]);
        let error = pages.next().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("a boolean"), "{error}");
        pages.try_again();
    }
    *is_good.lock().unwrap() = true;
    // The page comes once more, so that its word about the next one is read.
    for items in [[1, 2], [3, 4], [5, 6]] {
        assert_eq!(pages.next().await.unwrap().unwrap().items::<u64>().unwrap(), items);
    }
    assert!(pages.next().await.is_none());
    assert_eq!((pages.progress().items(), asked(&seen).len()), (Some(6), 5));
}

#[tokio::test]
async fn a_list_that_never_ends_ends_at_the_bound() {
    let (api, seen) = client(|url, _| {
        let at = param(url, "at").map_or(0, |at| at.parse::<u64>().unwrap());
        page(json!({ "next": at + 1 }))
    });
    let pages = || api.get("x").pages(Next::cursor("at", "next"));
    let mut bounded = pages().max_pages(5);
    for number in 1..=5 {
        assert_eq!(bounded.next().await.unwrap().unwrap().number(), number);
    }
    for _ in 0..2 {
        let error = bounded.next().await.unwrap().unwrap_err();
        assert!(error.is_pages() && error.to_string().contains("max_pages"), "{error}");
        assert!(bounded.next().await.is_none());
        bounded.try_again();
    }
    assert_eq!(asked(&seen).len(), 5);
    // Those before the position count, so a program that is started again and again ends as well.
    let position = bounded.position().unwrap();
    assert_eq!(bounded.progress().pages(), 5);
    let mut resumed = pages().max_pages(7).resume(position).unwrap();
    assert!(resumed.next().await.unwrap().is_ok() && resumed.next().await.unwrap().is_ok());
    assert!(resumed.next().await.unwrap().unwrap_err().is_pages());
    assert_eq!(asked(&seen).len(), 7);
    // Without a bound it is for the caller to stop.
    assert_eq!(pages().take(50).try_collect::<Vec<_>>().await.unwrap().len(), 50);
    // A list that ends at the bound ends.
    let (api, _) = client(|_, _| page("[1]"));
    let once = api.get("x").pages(Next::link()).max_pages(1);
    assert_eq!(once.try_collect::<Vec<_>>().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_takes_no_notice_of_the_number_is_found_out() {
    for next in [
        Next::page_number("pgae").items("data"),
        Next::page_number("pgae").items("data").page_count("pages"),
        Next::offset("offest").items("data"),
    ] {
        let (api, seen) = client(|_, _| page(json!({ "data": [1, 2], "pages": 9 })));
        let mut pages = api.get("x").pages(next);
        assert!(pages.next().await.unwrap().is_ok());
        let error = pages.next().await.unwrap().unwrap_err().to_string();
        assert!(error.contains("takes no notice of \"pgae\"") || error.contains("\"offest\""), "{error}");
        assert!(pages.next().await.is_none());
        assert_eq!(asked(&seen).len(), 2);
    }
}

#[tokio::test]
async fn a_list_that_nothing_ends_or_whose_items_are_elsewhere_is_an_error() {
    let (api, _) = client(|_, _| page(json!({ "users": [1], "more": "perhaps" })));
    for (next, words) in [
        (Next::page_number("page"), "set page_count, more or items of Next"),
        (Next::offset("skip"), "set items of Next"),
        (Next::page_number("page").items("user"), "it has some in \"users\""),
        (Next::page_number("page").items("users").more("more"), "\"more\" of page 1 is not a boolean"),
        (Next::url("users"), "\"users\" of page 1 is not a string"),
        (Next::url("next").items("more"), "\"more\" of page 1 is not an array"),
    ] {
        let pages = api.get("x").pages(next);
        let error = pages.try_collect::<Vec<_>>().await.unwrap_err();
        assert!(error.is_pages() && error.to_string().contains(words), "{error}");
    }
    let (api, _) = client(|_, _| page("<html>"));
    for next in [Next::url("next"), Next::page_number("page").items("data")] {
        let error = api.get("x").pages(next).try_collect::<Vec<_>>().await.unwrap_err();
        assert!(error.is_decode(), "{error}");
    }
    // A page that is not JSON does not matter where a header says what comes next.
    let pages = api.get("x").pages(Next::link()).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(pages[0].response().body(), "<html>");
}

// --- What may happen on the way ---

#[tokio::test]
async fn what_is_wrong_with_the_request_is_told_by_the_first_page() {
    let (api, seen) = client(|_, _| page("{}"));
    let parts = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from("part")))]);
    let next = || Next::url("next");
    let requests = [
        api.get("../x").pages(next()),
        api.get("x").header("a b", "c").pages(next()),
        api.post("x").body(Body::new(StreamBody::new(parts))).pages(next()),
        api.get("x").pages(next().also_under("ftp://files.example.com")),
    ];
    for mut pages in requests {
        let error = pages.next().await.unwrap().unwrap_err();
        assert!(error.is_builder(), "{error}");
        assert!(pages.next().await.is_none());
    }
    let (bad, _) = client(|_, _| page("[1]"));
    let mut pages = bad.post("x").body("no JSON").pages(Next::page_number("/page"));
    assert!(pages.next().await.unwrap().is_ok());
    assert!(pages.next().await.unwrap().unwrap_err().is_builder());
    assert_eq!(asked(&seen).len(), 0);
}

#[tokio::test]
async fn an_error_ends_the_pages_and_the_failed_one_can_be_had_again() {
    let fails = Arc::new(Mutex::new(true));
    let failing = Arc::clone(&fails);
    let (api, seen) = client(move |url, _| {
        let at = param(url, "page").map_or(0, |page| page.parse::<usize>().unwrap() - 1);
        if at == 1 && *failing.lock().unwrap() {
            let mut response = page("gone");
            *response.status_mut() = StatusCode::GONE;
            return response;
        }
        page(numbers(at))
    });
    let mut pages = api.get("x").pages(Next::page_number("page"));
    assert!(pages.next().await.unwrap().is_ok());
    let before = pages.position();
    let error = pages.next().await.unwrap().unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::GONE));
    assert!(pages.next().await.is_none() && pages.next().await.is_none());
    assert_eq!(pages.position(), before);
    *fails.lock().unwrap() = false;
    pages.try_again();
    let page = pages.next().await.unwrap().unwrap();
    assert_eq!((page.number(), page.items::<u64>().unwrap()), (2, vec![3, 4]));
    assert_eq!(pages.by_ref().try_collect::<Vec<_>>().await.unwrap().len(), 2);
    assert_eq!(asked(&seen), ["/x", "/x?page=2", "/x?page=2", "/x?page=3", "/x?page=4"]);
    // Nothing has failed: nothing is done again.
    pages.try_again();
    assert!(pages.next().await.is_none() && pages.position().is_none());
    assert_eq!(pages.progress().items(), Some(6));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_next_loses_no_page_and_sends_nothing_twice() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let slow = service_fn(move |request: Request<Body>| {
        let url = request.uri().to_string();
        log.lock().unwrap().push(url.clone());
        async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let at = param(&url, "page").map_or(0, |page| page.parse::<usize>().unwrap() - 1);
            Ok::<_, BoxError>(page(numbers(at)))
        }
    });
    let tokens = AccessToken::bearer("A1").unwrap();
    let api = ApiClient::builder(BASE, tokens).build_with(slow).unwrap();
    let mut pages = api.get("x").pages(Next::page_number("page"));
    let (mut items, mut dropped) = (Vec::new(), 0);
    loop {
        let position = pages.position();
        match timeout(Duration::from_secs(2), pages.next()).await {
            Ok(Some(page)) => items.extend(page.unwrap().items::<u64>().unwrap()),
            Ok(None) => break,
            Err(_) => {
                assert_eq!(pages.position(), position);
                dropped += 1;
            }
        }
    }
    assert_eq!((items, dropped), (vec![1, 2, 3, 4, 5, 6], 8));
    assert_eq!(seen.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn pages_go_on_at_a_saved_position() {
    let serve = |url: &str, _: &str| {
        let at = param(url, "at").map_or(0, |at| at.parse::<usize>().unwrap());
        let cursor = (at < 2).then_some(at + 1);
        let next = cursor.map(|at| format!("?at={at}"));
        page(json!({ "data": numbers(at), "next": next, "total": 6, "cursor": cursor, "all": 3 }))
    };
    let shapes = || {
        [
            Next::url("next").items("data").total("total"),
            Next::cursor("at", "cursor").items("data").total("total"),
            Next::page_number("at").first(0).items("data").total("total").page_count("all"),
        ]
    };
    for (shape, again) in shapes().into_iter().zip(shapes()) {
        let (api, _) = client(serve);
        let mut pages = api.get("x?limit=2").pages(shape);
        assert_eq!(pages.position().unwrap(), r#"{"pages":0}"#);
        pages.next().await.unwrap().unwrap();
        pages.next().await.unwrap().unwrap();
        let saved = pages.position().unwrap();
        drop(pages);

        let (api, seen) = client(serve);
        let mut pages = api.get("x?limit=2").pages(again).resume(saved).unwrap();
        assert_eq!(pages.progress().to_string().split(", ").last(), Some("4 of 6 items"));
        let page = pages.next().await.unwrap().unwrap();
        assert_eq!((page.number(), page.items::<u64>().unwrap()), (3, vec![5, 6]));
        assert!(pages.next().await.is_none());
        assert_eq!((pages.progress().pages(), pages.progress().items()), (3, Some(6)));
        assert_eq!(asked(&seen).len(), 1);
    }
}

/// The fakes of the kit: tokens of 600 s, 300 pages of 4 s each. On the way tokens expire and are revoked, the API asks for
/// pauses, is unavailable, and breaks connections.
#[tokio::test(start_paused = true)]
async fn three_hundred_pages_come_once_each_whatever_happens_to_tokens_and_limits() {
    let login = FakeAuthorizationServer::builder()
        .client(FakeClient::confidential("reports", "hunter2"))
        .lifetime(Duration::from_secs(600))
        .build();
    let list = service_fn(async |request: Request<Body>| {
        let body: Value = serde_json::from_slice(&request.into_body().collect().await?.to_bytes())?;
        let page = body["paging"]["pageNumber"].as_u64().unwrap();
        let from = (page - 1) * 10;
        let items: Vec<u64> = if page <= 300 { (from..from + 10).collect() } else { Vec::new() };
        Ok::<_, BoxError>(Response::new(Body::from(json!({ "items": items, "totalHits": 3000 }).to_string())))
    });
    let server = FakeApi::builder(&login).service(list).latency(Duration::from_secs(4)).build();
    let source = ClientCredentials::builder(login.token_url(), "reports", "hunter2");
    let source = source.build_with(login.clone()).unwrap();
    let api = ApiClient::builder(server.origin(), source).build_with(server.clone()).unwrap();

    let next = Next::page_number("/paging/pageNumber").items("items").total("totalHits");
    let query = json!({ "paging": { "pageSize": 10, "pageNumber": 1 } });
    let mut pages = api.post("query").json(&query).pages(next);
    let mut came = Vec::new();
    let (_, took) = timed(async {
        while let Some(page) = pages.next().await {
            let page = page.unwrap();
            came.extend(page.items::<u64>().unwrap());
            match page.number() {
                40 | 200 => {
                    login.revoke_all();
                }
                80 => server.fail_next(2, Trouble::TooManyRequests { retry_after: Duration::from_secs(30) }),
                // While nobody asks, a token ends.
                120 => pass(Duration::from_secs(700)).await,
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(came, (0..3000).collect::<Vec<_>>());
    assert_eq!(pages.progress().to_string(), "page 300, 3000 of 3000 items");
    let (seen, issued) = (server.counts(), login.counts());
    assert_eq!((seen.ok, seen.unauthorized, seen.revoked), (300, 2, 2));
    // Of each token a fifth of its life is left when the next one is fetched, so they last for 480 s, and two did not.
    let lifetimes = took.as_secs().div_ceil(480);
    assert!(issued.tokens <= lifetimes + 2, "{} tokens in {took:?}", issued.tokens);
    assert_eq!(issued.token_requests, issued.tokens);
}

#[tokio::test]
async fn pages_are_a_stream() {
    let (api, _) = client(|url, _| {
        page(numbers(param(url, "page").map_or(0, |page| page.parse::<usize>().unwrap() - 1)))
    });
    let pages = api.get("x").pages(Next::page_number("page"));
    let sums: Vec<u64> =
        pages.map(|page| page.unwrap().items::<u64>().unwrap().iter().sum::<u64>()).collect().await;
    assert_eq!(sums, [3, 7, 11, 0]);
    // And they go where tasks go.
    let pages = api.get("x").pages(Next::page_number("page"));
    assert_eq!(tokio::spawn(items(pages)).await.unwrap().unwrap().len(), 6);
}

// --- Hostile servers and positions ---

#[tokio::test]
async fn a_cursor_that_cannot_be_read_is_not_taken_for_the_end_of_the_list() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    for cursor in [r#""\ud800""#, "1e999", deep.as_str()] {
        for next in [Next::cursor("after", "next").items("data"), Next::url("next").items("data")] {
            let body = format!(r#"{{"data": [1, 2], "next": {cursor}}}"#);
            let (api, _) = client(move |_, _| page(&body));
            let mut pages = api.get("users").pages(next);
            pages.next().await.unwrap().unwrap();
            let error = pages.next().await.expect("half a list is not a whole one").unwrap_err();
            assert!(error.is_pages() && error.to_string().contains("\"next\""), "{error}");
            assert!(pages.position().is_some());
        }
    }
}

#[tokio::test]
async fn a_whole_number_of_19_digits_is_still_a_number_in_a_json_body() {
    for cursor in ["1799999999999999999", "9007199254740993", "-9007199254740993", "1.5"] {
        let body = format!(r#"{{"data": [1], "next": {cursor}}}"#);
        let (api, seen) = client(move |_, sent| match sent.contains("after") {
            true => page(json!({ "data": [] })),
            false => page(&body),
        });
        let query = api.post("users").json(&json!({ "limit": 1 }));
        let pages = query.pages(Next::cursor("/after", "next").items("data"));
        assert_eq!(items(pages).await.unwrap(), [1]);
        let sent = seen.lock().unwrap()[1].1.clone();
        assert_eq!(sent, format!(r#"{{"after":{cursor},"limit":1}}"#));
    }
}

#[tokio::test]
async fn a_position_with_a_pointer_of_a_million_steps_does_not_end_the_process() {
    let saved = format!(r#"{{"next": {{"set": [["{}", 1]]}}, "pages": 1}}"#, "/a".repeat(1_000_000));
    let (api, seen) = client(|_, _| page("[]"));
    let mut pages =
        api.post("users").json(&json!({})).pages(Next::cursor("/after", "next")).resume(saved).unwrap();
    let error = pages.next().await.unwrap().unwrap_err();
    assert!(error.is_builder(), "{error}");
    assert!(error.to_string().len() < 1_000, "{}", error.to_string().len());
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn what_stands_in_a_saved_position_is_in_no_error_of_reading_it() {
    for text in [
        r#"{"pages": "S3CR3T"}"#,
        r#"{"pages": 1, "next": {"S3CR3T": 1}}"#,
        r#"{"pages": 1, "next": {"set": "S3CR3T"}}"#,
    ] {
        let (api, _) = client(|_, _| page("[]"));
        let error = api.get("users").pages(Next::link()).resume(text).unwrap_err();
        let mut shown = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            shown.push_str(&format!("{error} {error:?}"));
            source = error.source();
        }
        assert!(error.is_pages() && !shown.contains("S3CR3T"), "{shown}");
    }
}

#[tokio::test]
async fn a_host_of_a_megabyte_does_not_fill_the_log() {
    let url = format!("https://{}.example.com/v2/users", "a".repeat(1 << 20));
    let (api, seen) = client(move |_, _| page(json!({ "data": [1], "next": url })));
    let mut pages = api.get("users").pages(Next::url("next").items("data"));
    pages.next().await.unwrap().unwrap();
    let error = pages.next().await.unwrap().unwrap_err();
    assert!(error.is_pages() && error.to_string().len() < 1_000, "{}", error.to_string().len());
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn urls_of_every_trick_send_no_second_request() {
    for url in [
        "https://user@api.example.com/v2/users?p=2",
        "https://api.example.com@evil.com/v2/users",
        "https://api.example.com:8443/v2/users",
        "HTTPS://evil.com/v2/users",
        "ftp://api.example.com/v2/users",
        "wss://api.example.com/v2/users",
        "//evil.com/v2/users",
        "///evil.com/v2/users",
        "\\\\evil.com\\v2",
        "/\\evil.com/v2",
        "https:\\\\evil.com/v2/users",
        "https://api.example.com./v2/users",
        "https://bücher.example/v2/users",
        "https://[::1]/v2/users",
        "https://[::ffff:127.0.0.1]/v2/users",
        "/v2/../admin",
        "/v2/%2e%2e/admin",
        "/v2/%252e%252e/admin",
        "/v2/..%2fadmin",
        "/v2%2f..%2fadmin",
        "/v2/..;x/admin",
        "/v2/users%00",
        "/v2/users\r\nx: y",
        "/v22/users",
        "/V2/users",
    ] {
        let body = json!({ "data": [1], "next": url });
        let (api, seen) = client(move |_, _| page(&body));
        let mut pages = api.get("users").pages(Next::url("next").items("data"));
        pages.next().await.unwrap().unwrap();
        let error = pages.next().await.unwrap().unwrap_err();
        assert!(error.is_pages(), "{url}: {error}");
        let position = json!({ "next": { "url": url }, "pages": 1 }).to_string();
        let resumed = api.get("users").pages(Next::url("next").items("data"));
        let mut resumed = resumed.resume(position).unwrap();
        assert!(resumed.next().await.unwrap().is_err(), "{url}");
        assert_eq!(seen.lock().unwrap().len(), 1, "{url}");
    }
}

#[tokio::test]
async fn loops_of_two_and_three_end_and_bodies_of_any_bytes_are_errors() {
    for length in [2, 3] {
        let (api, seen) = client(move |url, _| {
            let at: u64 = param(url, "at").map_or(0, |at| at.parse().unwrap());
            page(json!({ "data": [at], "next": at % length + 1 }))
        });
        let mut pages = api.get("users").pages(Next::cursor("at", "next").items("data"));
        let error = loop {
            if let Err(error) = pages.next().await.unwrap() {
                break error;
            }
        };
        assert!(error.is_pages(), "{error}");
        assert!(seen.lock().unwrap().len() < 30);
    }
    let bomb = "[".repeat(5_000_000);
    for body in
        [&b"{\"data\": [\"\xff\xfe\"], \"next\": 1}"[..], b"\xff\xfe[\x001\x00", bomb.as_bytes(), b"{"]
    {
        let body = Bytes::copy_from_slice(body);
        let (api, _) = client(move |_, _| Response::new(Body::from(body.clone())));
        let mut pages = api.get("users").pages(Next::cursor("at", "next").items("data"));
        assert!(pages.next().await.unwrap().unwrap_err().is_decode());
    }
}

/// The body is an object, as most are, and nothing names the member.
#[tokio::test(start_paused = true)]
async fn items_of_an_object_without_their_name_say_how_to_name_it() {
    let (api, _) = client(|_, _| page(r#"{"users":["S3CR3T"]}"#));
    let mut pages = api.get("x").pages(Next::url("next"));
    let page = pages.next().await.unwrap().unwrap();
    let error = page.items::<String>().unwrap_err();
    assert!(error.is_decode());
    assert_eq!(
        error.to_string(),
        "the response of https://api.example.com is not the JSON that was asked for: it is an object where a list was \
         expected; if the items are in a member, name it by Next::items"
    );
    // An item of another type is another mistake.
    let mut pages = api.get("x").pages(Next::url("next").items("users"));
    let error = pages.next().await.unwrap().unwrap().items::<u32>().unwrap_err().to_string();
    assert!(
        error.contains("it is a string where u32 was expected; check") && !error.contains("S3CR3T"),
        "{error}"
    );
}

// --- What proves that a list is over ---

#[tokio::test]
async fn an_offset_goes_on_where_the_total_is_less_than_what_came_or_more_says_so() {
    let at = |url: &str| param(url, "skip").map_or(0, |skip| skip.parse::<usize>().unwrap() / 2);
    // Some do not count, and send a zero; some count the page; some count up to a limit.
    for (total, requests) in [(json!(6), 3), (json!(0), 4), (json!(1), 4), (json!(-1), 4), (json!(7), 4)] {
        let next = Next::offset("skip").items("data").total("total");
        let walked = walk(next, move |url| page(json!({ "data": numbers(at(url)), "total": total })));
        assert_eq!(walked.await.len(), requests);
    }
    let next = Next::offset("skip").items("data").total("total").more("more");
    let walked =
        walk(next, move |url| page(json!({ "data": numbers(at(url)), "total": 2, "more": at(url) < 2 })));
    assert_eq!(walked.await.len(), 3);
    // So it is with numbers, whose count may be one up to a limit too. If nothing comes any more, both are not believed.
    for always in [true, false] {
        let next = Next::page_number("page").items("data").page_count("pages").more("more");
        let walked = walk(next, move |url| {
            let at = param(url, "page").map_or(0, |page| page.parse::<usize>().unwrap() - 1);
            let more = at < 2 || always;
            page(json!({ "data": numbers(at), "pages": 1, "more": more }))
        });
        assert_eq!(walked.await.len(), if always { 4 } else { 3 });
    }
    // There is more, and no offset at which to ask for it.
    let (api, seen) = client(|_, _| page(json!({ "data": [], "more": true })));
    let mut pages = api.get("x").pages(Next::offset("skip").items("data").more("more"));
    assert!(pages.next().await.unwrap().is_ok());
    assert!(pages.next().await.unwrap().unwrap_err().is_pages());
    assert_eq!(asked(&seen).len(), 1);
}

#[tokio::test]
async fn an_empty_list_that_leaves_its_items_out_may_have_other_arrays() {
    // A search of FHIR that finds nothing has links, and no entries.
    let bundle =
        json!({ "total": 0, "link": [{ "relation": "self", "url": "https://api.example.com/v2/Patient" }] });
    for next in [Next::offset("_offset"), Next::page_number("page"), Next::url("next")] {
        let bundle = bundle.clone();
        let (api, _) = client(move |_, _| page(&bundle));
        let pages = api.get("Patient").pages(next.items("entry").total("total"));
        assert_eq!(items(pages).await.unwrap(), [0; 0]);
    }
}

#[tokio::test]
async fn a_redirect_that_is_not_followed_is_no_page() {
    let (api, _) = client(|_, _| {
        let mut response = page("");
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert("location", "https://login.example.com/".parse().unwrap());
        response
    });
    for next in [Next::link(), Next::url("next").items("data"), Next::page_number("page").items("data")] {
        let mut pages = api.get("x").pages(next);
        let error = pages.next().await.unwrap().unwrap_err();
        assert!(error.is_status() && error.status() == Some(StatusCode::FOUND), "{error}");
        assert!(error.to_string().contains("302"), "{error}");
        assert!(pages.position().is_some());
    }
    // The caller has asked whether it has changed.
    let (api, _) = client(|_, _| {
        let mut response = page("");
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    });
    let mut pages = api.get("x").header("if-none-match", "\"a\"").pages(Next::link());
    assert_eq!(pages.next().await.unwrap().unwrap().response().status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn a_page_that_the_server_named_and_sent_empty_is_not_the_last_one() {
    let shapes = [
        Next::url("next"),
        Next::cursor("at", "next"),
        Next::url("next").items("data").total("total").more("more"),
    ];
    for next in shapes {
        for (status, is_page) in [(200, false), (204, true)] {
            let (api, _) = client(move |_, _| {
                let mut response = page("");
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response
            });
            let mut pages = api.get("x").pages(next.clone());
            let first = pages.next().await.unwrap();
            assert_eq!(first.is_ok(), is_page, "{next:?} {status} {first:?}");
            assert!(first.is_ok() || first.is_err_and(|error| error.is_decode()));
            assert_eq!(pages.position().is_none(), is_page);
        }
    }
    // Of a page that a header tells about the body says nothing.
    let (api, _) = client(|_, _| page(""));
    assert!(api.get("x").pages(Next::link()).next().await.unwrap().is_ok());
}

#[tokio::test]
async fn a_link_that_is_not_utf_8_keeps_its_bytes() {
    let (api, seen) = client(|url, _| {
        let mut response = page("[1]");
        if !url.contains("at=2") {
            let link = http::HeaderValue::from_bytes(b"<?q=M\xfcller&at=2>; rel=next").unwrap();
            response.headers_mut().insert(LINK, link);
        }
        response
    });
    assert_eq!(items(api.get("x").pages(Next::link())).await.unwrap(), [1, 1]);
    assert_eq!(asked(&seen)[1], "/x?q=M%FCller&at=2");
}

#[tokio::test]
async fn a_total_that_the_first_page_alone_states_is_still_shown() {
    let (api, _) = client(|url, _| match param(url, "at") {
        None => page(json!({ "value": [1, 2], "count": 4, "pages": 2, "next": "?at=2" })),
        Some(_) => page(json!({ "value": [3, 4] })),
    });
    let next = Next::url("next").items("value").total("count").page_count("pages");
    let mut pages = api.get("x").pages(next);
    while let Some(page) = pages.next().await {
        page.unwrap();
    }
    assert_eq!(pages.progress().to_string(), "page 2 of 2, 4 of 4 items");
}

// --- Bodies that do not come ---

/// Serves a page whose body breaks off, or stalls, as often as it is told; then `[1]`.
fn breaking(times: usize, stalls: bool) -> (ApiClient, Seen) {
    let left = Arc::new(Mutex::new(times));
    client(move |_, _| {
        let mut left = left.lock().unwrap();
        if *left == 0 {
            return page("[1]");
        }
        *left -= 1;
        let begun = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from("[1")))]);
        Response::new(match stalls {
            true => Body::new(StreamBody::new(begun.chain(stream::pending()))),
            false => Body::new(StreamBody::new(begun.chain(stream::iter([Err("connection reset".into())])))),
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_page_that_breaks_off_is_asked_for_again_if_it_may_be() {
    let (api, seen) = breaking(2, false);
    assert_eq!(items(api.get("x").pages(Next::link())).await.unwrap(), [1]);
    assert_eq!(asked(&seen).len(), 3);
    // One that breaks off each time is an error, after which it can be had again.
    let (api, seen) = breaking(3, false);
    let mut pages = api.get("x").pages(Next::link());
    assert!(pages.next().await.unwrap().unwrap_err().is_body());
    assert_eq!(asked(&seen).len(), 3);
    pages.try_again();
    assert_eq!(items(pages).await.unwrap(), [1]);
    // A POST may do something, unless the caller says that it does not.
    for (options, requests) in [
        (RetryOptions::default(), 1),
        (RetryOptions::default().repeatable(true), 3),
        (RetryOptions::never(), 1),
    ] {
        let (api, seen) = breaking(9, false);
        let mut pages = api.post("x").extension(options).pages(Next::link());
        assert!(pages.next().await.unwrap().unwrap_err().is_body());
        assert_eq!(asked(&seen).len(), requests);
    }
}

#[tokio::test]
async fn a_request_that_is_wrong_is_not_sent_by_trying_again() {
    struct Unwritable;
    impl serde::Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it cannot be written"))
        }
    }
    let (api, seen) = breaking(0, false);
    let next = || Next::link().also_under("ftp://files.example.com");
    for mut pages in [
        api.get("../admin").pages(Next::link()),
        api.post("search").json(&Unwritable).pages(Next::link()),
        api.get("x").header("a b", "c").pages(Next::link()),
        api.get("x").pages(next()),
        api.get("x").pages(next()).resume(r#"{"pages":1}"#).unwrap(),
    ] {
        assert!(pages.next().await.unwrap().unwrap_err().is_builder());
        pages.try_again();
        assert!(pages.next().await.is_none());
    }
    assert!(asked(&seen).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_page_may_be_asked_for_again_as_any_request_may_be_repeated() {
    let key = ("idempotency-key", "\"k-1\"");
    for (method, header, requests) in [
        ("QUERY", ("accept", "*/*"), 3),
        ("REPORT", ("depth", "1"), 3),
        ("PUT", ("accept", "*/*"), 3),
        ("PUT", ("if-match", "\"v1\""), 1),
        ("POST", key, 3),
        ("PATCH", key, 3),
        ("PATCH", ("accept", "*/*"), 1),
    ] {
        let (api, seen) = breaking(9, false);
        let request = api.request(method.parse().unwrap(), "x").header(header.0, header.1);
        assert!(request.pages(Next::link()).next().await.unwrap().unwrap_err().is_body());
        assert_eq!(asked(&seen).len(), requests, "{method} {header:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_page_covers_its_body() {
    let (api, seen) = breaking(2, true);
    let mut pages = api.get("x").timeout(Duration::from_secs(5)).pages(Next::link());
    let (error, took) = timed(timeout(Duration::from_secs(60), pages.next())).await;
    let error = error.unwrap().unwrap().unwrap_err();
    assert!(error.is_timeout() && error.is_body(), "{error}");
    assert_eq!((took, asked(&seen).len()), (Duration::from_secs(5), 1));
    let mut pages = api.get("x").extension(Deadline::within(Duration::from_secs(7))).pages(Next::link());
    let (error, took) = timed(timeout(Duration::from_secs(60), pages.next())).await;
    assert!(error.unwrap().unwrap().unwrap_err().is_timeout());
    assert_eq!(took, Duration::from_secs(7));
}
