//! Reads and writes JSON with an `ApiClient`, the client for one API below one base URL.
//!
//! ```sh
//! cargo run --example base_url_client
//! ```

#![allow(clippy::print_stdout, reason = "an example prints")]

use axum::extract::{Path, Query};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::BoxError;
use tower_oauth2::test_util::{FakeApi, FakeAuthorizationServer, FakeClient};
use tower_oauth2::{ApiClient, ClientCredentials};

#[derive(Debug, Deserialize)]
struct Customer {
    name: String,
    orders: Vec<u32>,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // These stand for your provider and your API.
    let billing = FakeClient::confidential("billing", "hunter2");
    let provider = FakeAuthorizationServer::builder().client(billing).start().await?;
    let server = FakeApi::builder(&provider).service(customers()).start().await?;

    let source = ClientCredentials::builder(provider.token_url(), "billing", "hunter2").build()?;
    let api = ApiClient::connect(server.origin() + "/v2", source)?;

    // Text of a user becomes one segment of the path, whatever is in it.
    let name = "Smith & Sons / London";
    let request = api.get("customers").segment(name).query(&[("year", "2026")]);
    let customer: Customer = request.send().await?.error_for_status()?.json().await?;
    println!("{} has the orders {:?}", customer.name, customer.orders);

    let order = json!({ "pieces": 3 });
    let created: Value =
        api.post("customers").segment(name).json(&order).send().await?.error_for_status()?.json().await?;
    println!("created: {created}");

    // A path that leaves the base URL is refused before it is sent.
    if let Err(error) = api.get("../admin").send().await {
        println!("refused: {error}");
    }
    // A status is not an error until you ask for one.
    let missing = api.get("invoices").send().await?;
    println!("GET invoices: {}", missing.status());
    if let Err(error) = missing.error_for_status() {
        println!("as an error: {error}");
    }
    Ok(())
}

fn customers() -> Router {
    let read = async |Path(name): Path<String>, Query(query): Query<Value>| {
        println!("(the API reads {name:?} of {})", query["year"]);
        Json(json!({ "name": name, "orders": [7, 12] }))
    };
    let write =
        async |Path(_): Path<String>, Json(order): Json<Value>| Json(json!({ "id": 13, "order": order }));
    Router::new().route("/v2/customers/{name}", get(read).post(write))
}
