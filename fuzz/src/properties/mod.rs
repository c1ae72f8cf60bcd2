//! The properties, one for each reader.

mod challenge;
mod claims;
mod grpc;
mod http_date;
mod metadata;
mod origin;
mod rate_limit;
mod redactor;
mod replay_body;
mod retry_after;
mod structured;
mod token_answer;

pub use self::challenge::challenge;
pub use self::claims::claims;
pub use self::grpc::grpc;
pub use self::http_date::http_date;
pub use self::metadata::metadata;
pub use self::origin::origin;
pub use self::rate_limit::rate_limit;
pub use self::redactor::redactor;
pub use self::replay_body::replay_body;
pub use self::retry_after::retry_after;
pub use self::structured::structured;
pub use self::token_answer::token_answer;
