//! What people and servers get wrong without harm is read as it is meant; what cannot be meant is refused by name.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Response;
use tower_oauth2::grants::{CustomGrant, Issuer, Revocation, SecurityToken, TokenExchange, TokenType};
use tower_oauth2::{
    AccessToken, ApiClient, ClientAuth, ClientCredentials, Error, ErrorKind, Secret, TokenRevoker as _,
};

use crate::rotating::{builder, renew};
use crate::scripted::{Scripted, Step, TOKEN, URL, a_token, answer, answer_with, billing, body, response};

fn bytes(status: u16, bytes: &[u8]) -> Step {
    let mut response: Response<_> = response(status, &[("content-type", "application/json")], "");
    *response.body_mut() = body(bytes.to_vec());
    Step::Answer(response)
}

// --- Secrets and names ---

#[tokio::test(start_paused = true)]
async fn an_empty_secret_is_refused_by_name_wherever_it_comes_from() {
    for empty in ["", "\n", "\r\n", "\t", "\0", "\u{feff}", "\u{a0}", "\u{2003}\u{200b}"] {
        let given =
            ClientCredentials::builder(URL, "billing", empty).build_with(Scripted::new([])).unwrap_err();
        assert!(
            given.kind() == ErrorKind::Config && given.to_string().starts_with("client_secret: it is empty"),
            "{given}"
        );

        let asked = Secret::from_fn(move || async move { Ok(empty) });
        let closure = ClientCredentials::builder(URL, "billing", asked).retries(0);
        let error = Scripted::new([]).ask(closure).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Transient && error.to_string().contains("the client secret is empty"),
            "{error}"
        );

        let parameter = billing().secret_param("pin", empty).build_with(Scripted::new([])).unwrap_err();
        assert!(
            parameter.kind() == ErrorKind::Config
                && parameter.to_string().starts_with("param: \"pin\" is refused: it is empty"),
            "{parameter}"
        );
        let asked = billing().secret_param("pin", Secret::from_fn(move || async move { Ok(empty) }));
        let error = Scripted::new([]).ask(asked.retries(0)).await.unwrap_err();
        assert!(error.to_string().contains("the secret parameter pin is empty"), "{error}");

        let token = || SecurityToken::new(empty, TokenType::JWT);
        let good = || SecurityToken::new("subject-token", TokenType::JWT);
        let subject = TokenExchange::builder(URL, token()).build_with(Scripted::new([])).unwrap_err();
        assert!(
            subject.kind() == ErrorKind::Config && subject.to_string().starts_with("subject: "),
            "{subject}"
        );
        let actor =
            TokenExchange::builder(URL, good()).actor(token()).build_with(Scripted::new([])).unwrap_err();
        assert!(actor.kind() == ErrorKind::Config && actor.to_string().starts_with("actor: "), "{actor}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_sees_at_the_ends_of_ids_and_secrets_is_not_sent() {
    for around in ["\n", "\r\n", "\t", "\0", "\u{feff}", "\u{a0}", "\u{3000}", "\u{200b}"] {
        let wrapped = |text: &str| format!("{around}{text}{around}");
        for by_closure in [false, true] {
            let value = wrapped("hunter 2");
            let secret = match by_closure {
                true => Secret::from_fn(move || {
                    let value = value.clone();
                    async move { Ok(value) }
                }),
                false => Secret::new(value),
            };
            let endpoint = Scripted::new([a_token()]);
            let builder = ClientCredentials::builder(URL, wrapped("billing"), ClientAuth::post(secret));
            endpoint.ask(builder).await.unwrap();
            assert!(
                endpoint.seen()[0].body.ends_with("client_id=billing&client_secret=hunter+2"),
                "{around:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_end_around_a_url_is_no_part_of_it() {
    for around in ["\n", "\r\n", " ", "\u{feff}", "\u{a0}"] {
        let wrapped = |text: &str| format!("{around}{text}{around}");
        let endpoint = Scripted::new([a_token()]);
        endpoint.ask(ClientCredentials::builder(wrapped(URL), "billing", "secret")).await.unwrap();
        assert_eq!(endpoint.seen()[0].uri, URL, "{around:?}");
        let document = format!(r#"{{"issuer":"https://login.example.com","token_endpoint":"{URL}"}}"#);
        let endpoint = Scripted::new([answer(200, &document), a_token()]);
        let issuer = Issuer::new(wrapped("https://login.example.com"));
        let issuer = issuer.metadata_url(wrapped("https://login.example.com/metadata"));
        endpoint.ask(ClientCredentials::builder(issuer, "billing", "secret")).await.unwrap();
        let api = ApiClient::new(wrapped("https://api.example.com/v2/"), ());
        assert_eq!(api.unwrap().origin().to_string(), "https://api.example.com");
    }
}

#[test]
fn a_url_that_holds_what_belongs_into_the_body_is_refused() {
    for (url, said) in [
        ("https://login.example.com/token?grant_type=client_credentials", "grant_type in its query"),
        ("https://login.example.com/token?client_secret=S3CR3T", "client_secret in its query"),
        ("https://login.example.com/token?tenant=7&password=S3CR3T", "password in its query"),
        ("https://login.example.com/a/%2e%2e/token", "a segment of dots"),
        ("https://login.example.com/a\\..\\token", "a backslash"),
        ("https://login.example.com/token?Client_Secret=S", "Client_Secret in its query"),
        ("https://login.example.com/token?subject_token=S", "subject_token in its query"),
        ("https://login.example.com/token?actor%5Ftoken=S", "actor_token in its query"),
        ("https://login.example.com/a/%2E./token", "a segment of dots"),
        ("https://login.example.com/a/../token", "a segment of dots"),
        ("https://login.example.com/tökén", "outside ASCII"),
        ("https://lögin.example.com/token", "outside ASCII"),
    ] {
        let revocation =
            Revocation::builder(url, "billing", "secret").build_with(Scripted::new([])).unwrap_err();
        let custom = CustomGrant::builder(url, "urn:x").build_with(Scripted::new([])).unwrap_err();
        let client =
            ClientCredentials::builder(url, "billing", "secret").build_with(Scripted::new([])).unwrap_err();
        for error in [revocation, custom, client] {
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains(said), "{url}: {error}");
            assert!(!error.to_string().contains("S3CR3T"), "{error}");
        }
    }
    let odd = "https://login.example.com/token?tenant=7&resource_grant_type=x";
    assert!(ClientCredentials::builder(odd, "billing", "secret").build_with(Scripted::new([])).is_ok());
}

// --- Responses ---

#[tokio::test(start_paused = true)]
async fn a_byte_order_mark_and_a_byte_that_is_not_utf8_do_no_harm_outside_the_tokens() {
    let marked = [b"\xef\xbb\xbf".as_slice(), TOKEN.as_bytes()].concat();
    assert!(Scripted::new([bytes(200, &marked)]).ask(billing()).await.is_ok());
    let odd = b"{\"access_token\":\"AT1\",\"token_type\":\"Bearer\",\"org\":\"M\xfcller\"}";
    let token = Scripted::new([bytes(200, odd)]).ask(billing()).await.unwrap();
    assert_eq!(token.header_value(), "Bearer AT1");
    let odd = b"{\"error\":\"invalid_client\",\"error_description\":\"unbekannt: M\xfcller\"}";
    let error = Scripted::new([bytes(401, odd)]).ask(billing()).await.unwrap_err();
    assert_eq!(error.code(), Some("invalid_client"));

    for strict in [
        b"{\"access_token\":\"AT\xfc\",\"token_type\":\"Bearer\"}".as_slice(),
        b"{\"access_token\":\"AT1\",\"refresh_token\":\"RT\xfc\"}",
    ] {
        let error = Scripted::new([bytes(200, strict)]).ask(billing()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotated_refresh_token_without_an_access_token_is_kept() {
    let endpoint = Scripted::new([answer(200, r#"{"refresh_token":"RT2"}"#), a_token()]);
    let source = builder(Some("RT1")).build_with(endpoint.clone()).unwrap();
    assert_eq!(renew(&source).await.unwrap_err().kind(), ErrorKind::Protocol);
    renew(&source).await.unwrap();
    assert!(endpoint.seen()[1].body.contains("refresh_token=RT2"));
}

#[tokio::test(start_paused = true)]
async fn every_2xx_with_a_token_is_a_success() {
    for status in [200, 201, 203] {
        assert!(Scripted::new([answer(status, TOKEN)]).ask(billing()).await.is_ok(), "{status}");
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_token_may_be_given_as_a_point_in_time() {
    let end = now() + Duration::from_secs(600);
    let written = httpdate::fmt_http_date(UNIX_EPOCH + end);
    // Such as `Sun, 29 Nov 2026 14:00:00 GMT`.
    let parts: Vec<&str> = written.split(' ').collect();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = 1 + months.iter().position(|month| *month == parts[2]).unwrap();
    let iso = format!("{}-{month:02}-{}T{}", parts[3], parts[1], parts[4]);
    let (seconds, millis) = (end.as_secs(), end.as_millis());
    for member in [
        format!(r#""expires_in":"{iso}Z""#),
        format!(r#""expires_in":{seconds}"#),
        format!(r#""expires_in":{millis}"#),
        format!(r#""expires_at":"{iso}Z""#),
        format!(r#""expires_at":"{iso}.123+00:00""#),
        format!(r#""expires_at":{seconds}"#),
        format!(r#""expires_at":"{seconds}""#),
        format!(r#""expires_at":{millis}"#),
        format!(r#""expires_at":"{millis}""#),
        format!(r#""expires_at":{}"#, end.as_micros()),
        format!(r#""expires_at":"{}""#, end.as_nanos()),
        format!(r#""expires_at":"{written}""#),
        format!(r#""expires_at":"{} UTC""#, iso.replace('T', " ")),
        format!(r#""expires_at":"{} +0000""#, iso.replace('T', " ")),
        format!(r#""expires_at":"{iso}+0000""#),
        r#""expires_in":600,"expires_at":1"#.to_owned(),
        r#""expires_at":600"#.to_owned(),
        r#""expires_at":"600""#.to_owned(),
        r#""expires_in":"600s""#.to_owned(),
        r#""expires_in":"10m""#.to_owned(),
    ] {
        let text = format!(r#"{{"access_token":"AT1",{member}}}"#);
        let token = Scripted::new([answer(200, &text)]).ask(billing()).await.unwrap();
        let lifetime = token.lifetime().unwrap().as_secs();
        assert!((595..=600).contains(&lifetime), "{member}: {lifetime}");
    }
    for member in [r#""expires_at":"soon""#, r#""expires_at":"2026-13-01T00:00:00Z""#, r#""expires_at":{}"#] {
        let text = format!(r#"{{"access_token":"AT1",{member}}}"#);
        let token = Scripted::new([answer(200, &text)]).ask(billing()).await.unwrap();
        assert_eq!(token.lifetime(), None, "{member}");
    }
    // A life of ten years stays one, and a zone is one.
    let long = r#"{"access_token":"AT1","expires_in":315360000}"#;
    let token = Scripted::new([answer(200, long)]).ask(billing()).await.unwrap();
    assert_eq!(token.lifetime().unwrap().as_secs(), 315_360_000);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_token_is_measured_by_the_clock_of_its_server() {
    // That clock, or the one here, is hours off; the response comes from a cache that is a minute old.
    for ahead in [-7200_i64, 7200] {
        let there = u64::try_from(i64::try_from(now().as_secs()).unwrap() + ahead).unwrap();
        let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(there));
        let text = format!(r#"{{"access_token":"AT1","expires_at":{}}}"#, there + 660);
        let headers = [("content-type", "application/json"), ("date", &*date), ("age", "60")];
        let token = Scripted::new([answer_with(200, &headers, &text)]).ask(billing()).await.unwrap();
        assert_eq!(token.lifetime(), Some(Duration::from_secs(600)), "{ahead}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_access_token_is_none_and_the_request_is_sent_again() {
    for empty in [r#"{"access_token":""}"#, r#"{"access_token":null}"#, "{}"] {
        Scripted::new([answer(200, empty), a_token()]).ask(billing()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_pointer_to_a_member_leads_through_lists() {
    let text = r#"{"authorizationData":[{"token":"other"},{"token":"AT1","a/b":[60]}]}"#;
    let of = |at: &str| {
        let builder = billing()
            .response_member("access_token", format!("/authorizationData/{at}/token"))
            .response_member("expires_in", "/authorizationData/1/a~1b/0");
        let endpoint = Scripted::new([answer(200, text)]);
        async move { endpoint.ask(builder.retries(0)).await }
    };
    let token = of("1").await.unwrap();
    assert_eq!(
        (token.header_value(), token.lifetime()),
        (&"Bearer AT1".parse().unwrap(), Some(Duration::from_secs(60)))
    );
    for nowhere in ["2", "01", "-", "+1", "", "18446744073709551616"] {
        of(nowhere).await.unwrap_err();
    }
}

// --- Revocation ---

async fn revoke(steps: Vec<Step>) -> Result<(), Error> {
    let endpoint = Scripted::new(steps);
    let revocation =
        Revocation::builder(URL, "billing", "secret").retries(0).build_with(endpoint.clone()).unwrap();
    let token = AccessToken::bearer("AT1").unwrap().with_refresh_token("RT1");
    let result = revocation.revoke(token).await;
    assert!(endpoint.is_finished());
    result
}

#[tokio::test(start_paused = true)]
async fn to_revoke_what_is_dead_already_is_done() {
    for (status, code) in [
        (404, "invalid_token"),
        (410, "invalid_token"),
        (422, "invalid_token"),
        (400, "expired_token"),
        (400, "token_expired"),
        (400, "token_revoked"),
        (400, "token_already_revoked"),
        (400, "refresh_token_not_found"),
    ] {
        let said = || answer(status, &format!(r#"{{"error":"{code}"}}"#));
        revoke(vec![said(), said()]).await.unwrap();
    }
    for (status, code) in [
        (400, "failed_to_revoke"),
        // It may be alive, and another client's.
        (400, "invalid_grant"),
        (404, "unsupported_refresh_token"),
        (400, "missing_refresh_token"),
        (400, "refresh_token_error"),
        (401, "invalid_grant"),
        (403, "token_revoked"),
    ] {
        let said = || answer(status, &format!(r#"{{"error":"{code}"}}"#));
        revoke(vec![said(), said()]).await.unwrap_err();
    }
    for (code, words, is_done) in [
        ("invalid_request", "The token has already been revoked.", true),
        ("invalid_grant", "Token is revoked", true),
        ("invalid_request", "Token not found", true),
        ("invalid_request", "the parameter token is missing", false),
        ("invalid_request", "Token not found in the request", false),
        ("invalid_request", "CSRF token not found", false),
        ("access_denied", "No token was revoked", false),
        (
            "invalid_client",
            "the token of this client was not found: its registration token has been revoked",
            false,
        ),
    ] {
        let said = || answer(400, &format!(r#"{{"error":"{code}","error_description":"{words}"}}"#));
        assert_eq!(revoke(vec![said(), said()]).await.is_ok(), is_done, "{words}");
    }
    let dead = || answer(400, r#"{"error":"invalid_token"}"#);
    let kind = || answer(400, r#"{"error":"unsupported_token_type"}"#);
    assert!(revoke(vec![dead(), dead()]).await.is_ok());
    assert!(revoke(vec![answer(200, ""), kind()]).await.is_ok());
    assert!(revoke(vec![dead(), kind()]).await.is_ok());
    // What the server does not revoke at all is an error, and so is what its proxy says.
    assert!(revoke(vec![kind(), kind()]).await.is_err());
    assert!(revoke(vec![kind(), answer(200, "")]).await.is_err());
    assert!(revoke(vec![answer(200, ""), answer_with(400, &[], "<html>")]).await.is_err());
    assert!(revoke(vec![answer(401, r#"{"error":"invalid_token"}"#), answer(200, "")]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_secret_in_the_extra_members_stays_readable() {
    let text = r#"{"access_token":"AT1","id_token":"a.b.c"}"#;
    let token = Scripted::new([answer(200, text)]).ask(billing()).await.unwrap();
    assert_eq!(token.expose_extra("id_token").unwrap(), "a.b.c");
}
