use tower_oauth2::grants::GrantBuilder;
use tower_oauth2::{ClientAuth, RefreshTokenGrant, Secret};

pub fn slack(refresh_token: String, secret: Secret) -> GrantBuilder<RefreshTokenGrant> {
    let url = "https://slack.com/api/oauth.v2.access";
    RefreshTokenGrant::builder(url, "CLIENT-ID", ClientAuth::post(secret))
        .refresh_token(refresh_token)
        .token_type("bot")
}
