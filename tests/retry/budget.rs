//! How many retries there may be for the requests there were.

use http::{Request, StatusCode};
use http_body_util::Full;
use tower_oauth2::RetryPolicy;
use tower_oauth2::extensions::CredentialId;
use tower_oauth2::retry::{RetryBudget, StopReason};
use tower_oauth2::test_util::Script;

use super::{answers, get, hinted, report, send, text};

fn without_floor() -> RetryBudget {
    RetryBudget::default().min_per_second(0)
}

#[tokio::test(start_paused = true)]
async fn when_it_is_spent_the_newest_answer_is_handed_out() {
    let (budget, script) = (without_floor(), answers(503, 1_000));
    let policy = RetryPolicy::builder().budget(budget.clone()).build().unwrap();
    let mut retries = 0;
    for n in 0..100 {
        let response = send(&policy, &script, get()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let report = report(&response).clone();
        retries += report.attempts() - 1;
        let expected =
            if report.attempts() == 4 { StopReason::AttemptsExhausted } else { StopReason::BudgetExhausted };
        assert_eq!(report.stop_reason(), &expected, "request {n}");
        assert_eq!(text(response).await, "the server's own words");
    }
    // Ten to begin with, and one for every five requests; those of the first two came while it was full.
    assert_eq!(script.seen().len(), 100 + retries as usize);
    assert!((29..=30).contains(&retries), "{retries}");
    assert!(budget.balance(get().uri(), None) < 1.0);
}

#[tokio::test(start_paused = true)]
async fn it_is_kept_by_origin_and_credential() {
    let (budget, script) = (without_floor(), answers(503, 1_000));
    let policy = RetryPolicy::builder().budget(budget).build().unwrap();
    let to = |uri: &str, tenant: &str| {
        let request = Request::get(uri).extension(CredentialId::new(tenant));
        request.body(Full::default()).unwrap()
    };
    let attempts = async |uri, tenant| {
        let response = send(&policy, &script, to(uri, tenant)).await.unwrap();
        report(&response).attempts()
    };
    for _ in 0..6 {
        attempts("https://api.example.com/a", "seven").await;
    }
    assert_eq!(attempts("https://api.example.com/b", "seven").await, 1);
    assert_eq!(attempts("https://api.example.com/a", "eight").await, 4);
    assert_eq!(attempts("https://other.example.com/", "seven").await, 4);
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_policy_share_theirs_and_other_policies_do_not() {
    let script = answers(503, 1_000);
    let spend = async |policy: &RetryPolicy| {
        let mut retries = 0;
        for _ in 0..6 {
            retries += report(&send(policy, &script, get()).await.unwrap()).attempts() - 1;
        }
        retries
    };
    let builder = RetryPolicy::builder().min_delay(std::time::Duration::from_millis(1));
    let (one, other) = (builder.clone().build().unwrap(), builder.clone().build().unwrap());
    let alone = spend(&one).await;
    assert!((10..18).contains(&alone), "{alone}");
    assert!(spend(&one.clone()).await < alone);
    assert_eq!(spend(&other).await, alone);
    assert_eq!(spend(&builder.budget(None).build().unwrap()).await, 18);
}

#[tokio::test(start_paused = true)]
async fn what_will_not_be_retried_costs_nothing() {
    let budget = without_floor();
    let policy = RetryPolicy::builder().budget(budget.clone()).build().unwrap();
    let script = Script::new([hinted(429, "61"), hinted(401, "1"), hinted(503, "200")]);
    for _ in 0..3 {
        send(&policy, &script, get()).await.unwrap();
    }
    assert_eq!((script.seen().len(), budget.balance(get().uri(), None)), (3, 10.0));
}
