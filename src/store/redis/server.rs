//! Where the server is: at one address, where Sentinels say, or the nodes of a cluster.

use std::fmt;
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo, RedisError, ServerErrorKind,
    TlsCertificates,
};

use crate::error::Error;
use crate::text;

/// How long a connection attempt and a response may take. A process that waits for a token has a shorter timeout of its own.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a call to a cluster follows its slots to another node, or waits for one that takes over.
#[cfg(feature = "redis-cluster")]
const CLUSTER_RETRIES: u32 = 3;

/// Codes of errors that a script may come to.
const IN_SCRIPTS: [&str; 3] = ["READONLY", "OOM", "NOPERM"];

/// Where Sentinels listen if the URL has no port.
const SENTINEL_PORT: u16 = 26379;

/// A server, or several that stand for one.
#[derive(Clone)]
pub(super) struct Server {
    /// The URL without user and password, for people.
    name: String,
    address: Address,
    root_certificates: Option<Vec<u8>>,
}

#[derive(Clone)]
enum Address {
    One(ConnectionInfo),
    Sentinels {
        sentinels: Vec<ConnectionInfo>,
        /// The name by which they know the primary.
        service: String,
        /// The primary, but for its address.
        primary: ConnectionInfo,
    },
    #[cfg(feature = "redis-cluster")]
    Cluster(Vec<ConnectionInfo>),
}

/// A connection. Clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    #[cfg(feature = "redis-cluster")]
    Cluster(redis::cluster_async::ClusterConnection),
}

// --- Server ---

impl Server {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// A configuration error that does not repeat the URL, since it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let url = text::visible(url);
        let (scheme, rest) = url.split_once("://").ok_or_else(unreadable)?;
        let (name, address) = match scheme.split_once('+') {
            Some((base, "sentinel")) => {
                let hosts = Hosts::parse(base, rest)?;
                (format!("{scheme}://{}", hosts.hosts), hosts.sentinels()?)
            }
            #[cfg(feature = "redis-cluster")]
            Some((base, "cluster")) => {
                let hosts = Hosts::parse(base, rest)?;
                (format!("{scheme}://{}", hosts.hosts), hosts.cluster()?)
            }
            #[cfg(not(feature = "redis-cluster"))]
            Some((_, "cluster")) => {
                return Err(Error::config(
                    "a token store in a Redis Cluster needs the feature `redis-cluster` of tower-oauth2",
                ));
            }
            _ => {
                let info = connection_info(url)?;
                (format!("{scheme}://{}", info.addr()), Address::One(info))
            }
        };
        Ok(Self { name, address, root_certificates: None })
    }

    /// Trusts these certificates alone.
    pub(super) fn with_root_certificates(mut self, pem: Vec<u8>) -> Self {
        self.root_certificates = Some(pem);
        self
    }

    /// Returns whether connections use TLS.
    pub(super) fn is_tls(&self) -> bool {
        let info = match &self.address {
            Address::One(info) | Address::Sentinels { primary: info, .. } => info,
            #[cfg(feature = "redis-cluster")]
            Address::Cluster(nodes) => return nodes.iter().all(is_tls),
        };
        is_tls(info)
    }

    /// Returns whether a connection is at an end when one of its nodes is.
    pub(super) fn has_one_node(&self) -> bool {
        match self.address {
            Address::One(_) | Address::Sentinels { .. } => true,
            #[cfg(feature = "redis-cluster")]
            Address::Cluster(_) => false,
        }
    }

    /// Connects. Messages that the server sends unasked go to `pushed`.
    pub(super) async fn connect(&self, pushed: impl AsyncPushSender) -> Result<Connection, RedisError> {
        match &self.address {
            Address::One(info) => {
                let config = config().set_push_sender(pushed);
                self.open(info.clone(), &config).await.map(Connection::One)
            }
            Address::Sentinels { sentinels, service, primary } => {
                let config = config().set_push_sender(pushed);
                self.by_sentinels(sentinels, service, primary, &config).await.map(Connection::One)
            }
            #[cfg(feature = "redis-cluster")]
            Address::Cluster(nodes) => {
                let mut builder = redis::cluster::ClusterClient::builder(nodes.clone())
                    .use_protocol(ProtocolVersion::RESP3)
                    .connection_timeout(CONNECT_TIMEOUT)
                    .response_timeout(CONNECT_TIMEOUT)
                    .retries(CLUSTER_RETRIES)
                    .push_sender(pushed);
                if let Some(certificates) = self.certificates() {
                    builder = builder.certs(certificates);
                }
                builder.build()?.get_async_connection().await.map(Connection::Cluster)
            }
        }
    }

    /// Opens a connection to the primary. The Sentinels are asked one after the other: one that was cut off may name a server
    /// that is the primary no more.
    async fn by_sentinels(
        &self,
        sentinels: &[ConnectionInfo],
        service: &str,
        primary: &ConnectionInfo,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        let mut last = None;
        for sentinel in sentinels {
            let opened = match self.ask(sentinel, service).await {
                Ok(Some(address)) => {
                    let info = primary.clone().set_addr(at(primary.addr(), address));
                    self.open_primary(info, config).await
                }
                Ok(None) => {
                    last = last.or_else(|| Some(unknown_service()));
                    continue;
                }
                Err(error) => Err(error),
            };
            match opened {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(unknown_service))
    }

    /// Opens a connection to the server that a Sentinel names, if that is a primary.
    async fn open_primary(
        &self,
        info: ConnectionInfo,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        // A connection of its own: the end of one that is not used says nothing about the one that is.
        let mut connection = self.open(info.clone(), &self::config()).await?;
        let role: Result<Vec<redis::Value>, _> = redis::cmd("ROLE").query_async(&mut connection).await;
        match role {
            Ok(role) if is_primary(&role) => {}
            Ok(_) => return Err(not_primary()),
            // The user may lack the right to it.
            Err(error) if error.code().is_some() => {}
            Err(error) => return Err(error),
        }
        self.open(info, config).await
    }

    /// Asks a Sentinel for the address of the primary.
    async fn ask(
        &self,
        sentinel: &ConnectionInfo,
        service: &str,
    ) -> Result<Option<(String, u16)>, RedisError> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(service);
        // Most Sentinels have no password, and refuse one. Those that have one are taken to have that of the servers.
        let open = sentinel.clone().set_redis_settings(RedisConnectionInfo::default());
        let refused = match self.open(open, &config()).await {
            Ok(mut connection) => match question.query_async(&mut connection).await {
                Err(error) if error.code() == Some("NOAUTH") => error,
                result => return result,
            },
            Err(error) if error.code() == Some("NOAUTH") => error,
            Err(error) => return Err(error),
        };
        if sentinel.redis_settings().password().is_none() {
            return Err(refused);
        }
        let mut connection = self.open(sentinel.clone(), &config()).await?;
        question.query_async(&mut connection).await
    }

    async fn open(
        &self,
        info: ConnectionInfo,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        let client = match self.certificates() {
            Some(certificates) => Client::build_with_tls(info, certificates)?,
            None => Client::open(info)?,
        };
        client.get_multiplexed_async_connection_with_config(config).await
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        self.root_certificates
            .as_ref()
            .map(|pem| TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) })
    }
}

/// The URL without user and password.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

// --- Hosts ---

/// The parts of a URL with several hosts.
struct Hosts<'a> {
    /// The scheme of a URL with one of them.
    scheme: &'a str,
    /// User and password, if there are any, with the sign behind them.
    login: &'a str,
    hosts: &'a str,
    path: &'a str,
}

impl<'a> Hosts<'a> {
    fn parse(scheme: &'a str, rest: &'a str) -> Result<Self, Error> {
        if rest.contains(['?', '#']) {
            return Err(unreadable());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // It would be a part of a password with a slash.
        if path.contains('@') {
            return Err(unreadable());
        }
        let (login, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        Ok(Self { scheme, login, hosts, path })
    }

    fn sentinels(&self) -> Result<Address, Error> {
        let (service, database) = self.path.split_once('/').unwrap_or((self.path, "0"));
        if service.is_empty() {
            return Err(Error::config(
                "the URL of the token store lacks the name of the service: redis+sentinel://host1,host2/service",
            ));
        }
        let sentinel = |host| self.at(&with_port(host), "0");
        Ok(Address::Sentinels {
            sentinels: self.hosts.split(',').map(sentinel).collect::<Result<_, _>>()?,
            service: service.to_owned(),
            primary: self.at("localhost", database)?,
        })
    }

    #[cfg(feature = "redis-cluster")]
    fn cluster(&self) -> Result<Address, Error> {
        let node = |host| self.at(host, self.path);
        Ok(Address::Cluster(self.hosts.split(',').map(node).collect::<Result<_, _>>()?))
    }

    fn at(&self, host: &str, database: &str) -> Result<ConnectionInfo, Error> {
        connection_info(&format!("{}://{}{host}/{database}", self.scheme, self.login))
    }
}

// --- Connection ---

impl Connection {
    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        match self {
            Self::One(connection) => command.query_async(&mut connection.clone()).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        }
    }

    pub(super) async fn subscribe(&self, channel: &str) -> Result<(), RedisError> {
        match self {
            Self::One(connection) => connection.clone().subscribe(channel).await,
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(connection) => connection.clone().subscribe(channel).await,
        }
    }

    /// Returns whether it is of no use after this error of a call.
    pub(super) fn is_lost_by(&self, error: &RedisError) -> bool {
        match self {
            // A primary that has become a replica is not the server that its name stands for any more.
            Self::One(_) => error.is_unrecoverable_error() || code(error) == "READONLY",
            // A node that refuses connections is left to it: it finds its nodes again as long as one of them is left, and
            // serves the others meanwhile.
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(_) => error.is_unrecoverable_error() && !error.is_connection_refusal(),
        }
    }
}

// --- Helpers ---

/// Returns the code of an error of the server, empty if it is another error. Before version 7 the server puts an error that a
/// script came to into a text of its own.
pub(super) fn code(error: &RedisError) -> &str {
    let code = error.code().unwrap_or_default();
    if code != "ERR" {
        return code;
    }
    let text = error.detail().unwrap_or_default();
    if text.contains("The user executing the script can't") {
        return "NOPERM";
    }
    let mut words = text.split_ascii_whitespace().map(|word| word.trim_start_matches('-'));
    words.find(|word| IN_SCRIPTS.contains(word)).unwrap_or(code)
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(CONNECT_TIMEOUT))
}

fn connection_info(url: &str) -> Result<ConnectionInfo, Error> {
    let info = url.into_connection_info().map_err(|_error| unreadable())?;
    // By this protocol messages come over the same connection.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings))
}

fn unreadable() -> Error {
    Error::config(
        "the URL of the token store is not one of Redis; it looks like redis://user:password@host:6379/0, or rediss://… for \
         TLS",
    )
}

/// The error of Sentinels that do not know the service.
fn unknown_service() -> RedisError {
    (redis::ErrorKind::Server(ServerErrorKind::ResponseError), "no Sentinel knows a primary of this service")
        .into()
}

/// The error of a Sentinel that is behind the others.
fn not_primary() -> RedisError {
    let kind = redis::ErrorKind::Server(ServerErrorKind::ResponseError);
    (kind, "the server that a Sentinel named as the primary is none").into()
}

/// Returns whether the response to `ROLE` is that of a primary.
fn is_primary(role: &[redis::Value]) -> bool {
    let name = role.first().and_then(|name| String::from_redis_value_ref(name).ok());
    name.as_deref() == Some("master")
}

/// Adds the port of a Sentinel to a host without one. The colons of an IPv6 address stand in brackets.
fn with_port(host: &str) -> String {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    if has_port { host.to_owned() } else { format!("{host}:{SENTINEL_PORT}") }
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

/// Another address, with TLS if the first has it.
fn at(like: &ConnectionAddr, (host, port): (String, u16)) -> ConnectionAddr {
    match like {
        ConnectionAddr::TcpTls { .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        }
        _ => ConnectionAddr::Tcp(host, port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_an_error_in_a_script_is_found_in_the_text_of_an_older_server() {
        let in_script = "ERR Error running script (call to f_5c1e): @user_script:7: @user_script: 7: ";
        for (text, expected) in [
            ("-READONLY You can't write against a read only replica.", "READONLY"),
            ("-OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
            ("The user executing the script can't run this command or subcommand", "NOPERM"),
            ("The user executing the script can't access at least one of the keys", "NOPERM"),
            ("Wrong number of args calling Redis command From Lua script", "ERR"),
        ] {
            let error = server_error(&format!("{in_script}{text}"));
            assert_eq!(code(&error), expected, "{text}");
        }
        assert_eq!(code(&server_error("READONLY You can't write against a read only replica.")), "READONLY");
        assert_eq!(code(&server_error("OOM command not allowed")), "OOM");
        assert_eq!(code(&std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()), "");
    }

    fn server_error(line: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }
}
