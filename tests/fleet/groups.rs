//! Servers that stand together: a cluster, and a primary with its replica and Sentinels.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::redis_server::{RedisServer, free_port};

/// How long a group may take to be whole, on a machine that is busy.
const LONGEST: Duration = Duration::from_secs(60);

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LONGEST;
    while !is_so() {
        assert!(Instant::now() < end, "not in a minute: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

// --- Cluster ---

/// Three primaries with one replica each.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<RedisServer>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let bus = free_port().to_string();
            let node = RedisServer::start(&[
                "--cluster-enabled",
                "yes",
                "--cluster-config-file",
                "nodes.conf",
                "--cluster-node-timeout",
                "1000",
                "--cluster-port",
                &bus,
            ])
            .await;
            nodes.push(node);
        }
        let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let mut words = vec!["--cluster", "create"];
        words.extend(addresses.iter().map(String::as_str));
        words.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        let said = nodes[0].cli(&words);
        assert!(said.contains("All 16384 slots covered"), "{said}");
        let cluster = Self { nodes };
        cluster.is_whole().await;
        let replicas = || cluster.nodes.iter().filter(|node| node.cli(&["ROLE"]).contains("connected"));
        until("each primary has a replica", || replicas().count() == 3).await;
        cluster
    }

    /// Waits until all nodes see all slots served.
    pub(crate) async fn is_whole(&self) {
        let sees = |node: &RedisServer| node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
        until("the cluster is whole", || self.nodes.iter().filter(|node| node.runs()).all(sees)).await;
    }

    /// Some of its nodes: a client finds the others.
    pub(crate) fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{},127.0.0.1:{}", self.nodes[0].port, self.nodes[4].port)
    }

    /// The nodes that are primaries.
    pub(crate) fn primaries(&self) -> Vec<usize> {
        let is_primary = |at: &usize| {
            self.nodes[*at].runs() && self.nodes[*at].cli(&["ROLE"]).lines().next() == Some("master")
        };
        (0..self.nodes.len()).filter(is_primary).collect()
    }
}

// --- Sentinels ---

/// A primary, a replica, and three Sentinels, two of which have to agree.
pub(crate) struct Sentinels {
    pub(crate) servers: Vec<RedisServer>,
    pub(crate) sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Starts them, all with this password if it is not empty.
    pub(crate) async fn start(password: &str) -> Self {
        let login = ["--requirepass", password, "--masterauth", password];
        let primary = RedisServer::start(&login).await;
        let port = primary.port.to_string();
        let replica =
            RedisServer::start(&[&login[..], &["--replicaof", &format!("127.0.0.1 {port}")]].concat()).await;
        let mut settings = format!(
            "sentinel monitor billing 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds billing 1000\n\
             sentinel failover-timeout billing 3000\n"
        );
        if !password.is_empty() {
            settings +=
                &format!("sentinel auth-pass billing {password}\nsentinel sentinel-pass {password}\n");
            settings += &format!("requirepass {password}\n");
        }
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(RedisServer::start_with(&settings, &["--sentinel"]).await);
        }
        let servers = vec![primary, replica];
        let group = Self { servers, sentinels };
        for sentinel in &group.sentinels {
            let knows = |what: &str| {
                let told = sentinel.cli_as(password, &["SENTINEL", "MASTER", "billing"]);
                let mut lines = told.lines().skip_while(|line| *line != what).skip(1);
                lines.next().and_then(|number| number.parse().ok()).unwrap_or(0)
            };
            until("a Sentinel knows the others", || {
                knows("num-slaves") == 1 && knows("num-other-sentinels") == 2
            })
            .await;
        }
        let synced = || group.servers[1].cli_as(password, &["ROLE"]).contains("connected");
        until("the replica has what the primary has", synced).await;
        group
    }

    pub(crate) fn url(&self, login: &str) -> String {
        let hosts: Vec<_> =
            self.sentinels.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
        format!("redis+sentinel://{login}{}/billing", hosts.join(","))
    }
}
