use tower_oauth2::grants::CustomGrant;
use tower_oauth2::transport::HttpTransport;
use tower_oauth2::{ClientAuth, Error, Secret};

pub fn docker_registry(secret: Secret, http: impl HttpTransport) -> Result<CustomGrant, Error> {
    CustomGrant::get("https://auth.docker.io/token")
        .client("USER", ClientAuth::basic_raw(secret))
        .param("service", "registry.docker.io")
        .param("scope", "repository:library/alpine:pull")
        .response_member("access_token", "token")
        .build_with(http)
}
