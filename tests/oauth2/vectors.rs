//! Every vector of token requests through the public type that a user takes for it.

use serde_json::Value;
use tower_oauth2::grants::{CustomGrant, GrantBuilder, Revocation, SecurityToken, TokenExchange, TokenType};
use tower_oauth2::{AccessToken, ClientAuth, ClientCredentials, RefreshTokenGrant, TokenRevoker as _};

use crate::rotating::renew;
use crate::scripted::{Scripted, Seen, URL, a_token, answer};

#[allow(dead_code, reason = "the rows from the field are of no set that is tested here")]
#[path = "../../src/vectors.rs"]
pub(crate) mod read;

/// The parameters of a row, and how its client authenticates.
struct Row {
    parameters: Vec<(String, String)>,
    auth: ClientAuth,
}

impl Row {
    fn of(input: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let pairs = input["params"].as_array().unwrap().iter();
        let parameters: Vec<_> = pairs.map(|pair| (text(&pair[0]), text(&pair[1]))).collect();
        let secret = parameters.iter().find(|pair| pair.0 == "client_secret").map(|pair| pair.1.as_str());
        let secret = secret.unwrap_or("7Fjfp0ZBr1KtDRbnfVdmIw");
        let auth = match input["client_auth"].as_str().unwrap() {
            "client_secret_basic" => secret.into(),
            "client_secret_post" => ClientAuth::post(secret),
            "tls_client_auth" => ClientAuth::tls(),
            "none" => ClientAuth::none(),
            other => panic!("{other}"),
        };
        Self { parameters, auth }
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    fn client_id(&self) -> String {
        self.find("client_id").unwrap_or("s6BhdRkqt3").to_owned()
    }

    fn security_token(&self, name: &str) -> Option<SecurityToken> {
        let token_type = TokenType::new(self.find(&format!("{name}_type"))?);
        Some(SecurityToken::new(self.find(name)?, token_type))
    }

    fn custom(&self, grant_type: &str) -> GrantBuilder<CustomGrant> {
        let builder = CustomGrant::builder(URL, grant_type).client(self.client_id(), self.auth.clone());
        let own =
            self.parameters.iter().filter(|pair| !matches!(pair.0.as_str(), "grant_type" | "client_id"));
        own.fold(builder, |builder, pair| builder.param(&pair.0, &pair.1))
    }

    /// Sends the request of the row by the source that is made for it.
    async fn send(&self) -> Seen {
        let endpoint = Scripted::new([a_token()]);
        let http = endpoint.clone();
        match self.find("grant_type") {
            Some("client_credentials") => {
                let mut builder = ClientCredentials::builder(URL, self.client_id(), self.auth.clone());
                for (name, value) in &self.parameters {
                    builder = match name.as_str() {
                        "scope" => builder.scope(value),
                        "resource" => builder.resource(value),
                        _ => builder,
                    };
                }
                renew(&builder.build_with(http).unwrap()).await.unwrap();
            }
            Some("refresh_token") => {
                let token = self.find("refresh_token").unwrap();
                let builder =
                    RefreshTokenGrant::builder(URL, self.client_id(), self.auth.clone()).refresh_token(token);
                renew(&builder.build_with(http).unwrap()).await.unwrap();
            }
            Some("urn:ietf:params:oauth:grant-type:token-exchange") => {
                let mut builder = TokenExchange::builder(URL, self.security_token("subject_token").unwrap())
                    .client(self.client_id(), self.auth.clone());
                for (name, value) in &self.parameters {
                    builder = match name.as_str() {
                        "resource" => builder.resource(value),
                        "audience" => builder.audience(value),
                        "requested_token_type" => builder.requested_token_type(TokenType::new(value)),
                        _ => builder,
                    };
                }
                if let Some(actor) = self.security_token("actor_token") {
                    builder = builder.actor(actor);
                }
                renew(&builder.build_with(http).unwrap()).await.unwrap();
            }
            // What else there is, an assertion that is there already and the code of a device, is a grant of one's own.
            Some(other) => {
                renew(&self.custom(other).build_with(http).unwrap()).await.unwrap();
            }
            None if self.find("token").is_some() => {
                let endpoint = Scripted::new([answer(200, ""), answer(200, "")]);
                let builder = Revocation::builder(URL, self.client_id(), self.auth.clone());
                let token =
                    AccessToken::bearer("AT1").unwrap().with_refresh_token(self.find("token").unwrap());
                builder.build_with(endpoint.clone()).unwrap().revoke(token).await.unwrap();
                return endpoint.seen().remove(0);
            }
            // A source of tokens always has a grant type, so that of this one is taken off again.
            None => {
                renew(&self.custom("urn:x").build_with(http).unwrap()).await.unwrap();
                let mut seen = endpoint.seen().remove(0);
                seen.body = seen.body.strip_prefix("grant_type=urn%3Ax&").unwrap().to_owned();
                return seen;
            }
        }
        endpoint.seen().remove(0)
    }
}

fn sorted<T: Ord>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().collect();
    items.sort();
    items
}

#[tokio::test]
async fn every_vector_of_token_requests_is_what_a_source_sends() {
    let vectors = read::read("token_request");
    assert_eq!(vectors.len(), 16);
    for vector in &vectors {
        let (id, expect) = (&vector["id"], &vector["expect"]);
        let row = Row::of(&vector["input"]);
        let seen = row.send().await;
        let text = |name: &str| expect[name].as_str().unwrap().to_owned();
        let header = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
        assert_eq!(seen.method.as_str(), text("method"), "{id}");
        assert_eq!(header("content-type"), text("content_type"), "{id}");
        assert_eq!(header("accept"), text("accept"), "{id}");
        // The order is free.
        assert_eq!(sorted(seen.body.split('&')), sorted(text("body").split('&')), "{id}");
        let decoded = sorted(form_urlencoded::parse(seen.body.as_bytes()).into_owned());
        let pair =
            |pair: &Value| (pair[0].as_str().unwrap().to_owned(), pair[1].as_str().unwrap().to_owned());
        assert_eq!(decoded, sorted(expect["decoded"].as_array().unwrap().iter().map(pair)), "{id}");
        let is_basic = vector["input"]["client_auth"] == "client_secret_basic";
        assert_eq!(seen.headers.contains_key("authorization"), is_basic, "{id}");
        for name in expect["must_not_contain_params"].as_array().into_iter().flatten() {
            // A name that nothing ever sends would be absent for nothing.
            let credentials = ["client_id", "client_secret", "client_assertion", "client_assertion_type"];
            assert!(credentials.iter().any(|known| name == known), "{id}: {name}");
            assert!(!decoded.iter().any(|pair| *name == pair.0), "{id}: {name}");
        }
    }
    let decoded = |vector: &Value| vector["expect"]["decoded"].as_array().unwrap().len();
    assert_eq!(vectors.iter().map(decoded).sum::<usize>(), 42);
}

#[test]
fn each_row_that_is_met_in_another_way_exists_differs_and_says_why() {
    let read = |name: &str| -> Value {
        let path = format!("{}/tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors")).unwrap();
    let names = folder.filter_map(|file| {
        let name = file.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".json").filter(|name| *name != "here").map(str::to_owned)
    });
    let rows: Vec<Value> =
        names.flat_map(|name| read(&name)["vectors"].as_array().unwrap().clone()).collect();
    let here = read("here");
    for (id, differs) in here["rows"].as_object().unwrap() {
        let row = rows.iter().find(|row| row["id"] == *id).unwrap();
        let instead = match differs["alternative"].as_u64() {
            Some(number) => &row["alternatives"][usize::try_from(number).unwrap() - 1],
            None => &differs["expect"],
        };
        assert!(instead.is_object() && *instead != row["expect"], "{id}");
        assert!(differs["why"].as_str().is_some_and(|why| why.len() > 10), "{id}");
    }
    assert_eq!(rows.len(), 399);
}
