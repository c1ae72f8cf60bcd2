//! Stores keep the rules of `tower_oauth2::store`. The store in Redis is tried against a real server in `tests/fleet`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tower_oauth2::ErrorKind;
use tower_oauth2::store::{self, Acquired, MemoryStore, StoreKey, TokenStore as _};
use tower_oauth2::test_util::check_token_store;

#[tokio::test(start_paused = true)]
async fn the_store_in_memory_keeps_every_rule() {
    check_token_store(MemoryStore::new(), "memory", true).await;
    check_token_store(store::from_url("memory:").unwrap(), "any", true).await;
}

// Real time, and threads that call it at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_keeps_every_rule_among_threads() {
    check_token_store(MemoryStore::new(), "threads", true).await;
}

/// Asks for a lease without a pause, and returns how often another thread held it as well.
async fn held_twice(store: MemoryStore, key: StoreKey, holders: Arc<AtomicUsize>) -> usize {
    let mut twice = 0;
    for _ in 0..20_000 {
        if let Acquired::Taken(fence) = store.acquire(&key, Duration::from_secs(600)).await.unwrap() {
            twice += holders.fetch_add(1, Ordering::SeqCst);
            (0..500).for_each(|_| std::hint::spin_loop());
            holders.fetch_sub(1, Ordering::SeqCst);
            store.release(&key, fence).await.unwrap();
        }
    }
    twice
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_ask_without_a_pause_never_hold_one_lease_together() {
    let (store, holders) = (MemoryStore::new(), Arc::new(AtomicUsize::new(0)));
    let key = StoreKey::new("busy").unwrap();
    let ask = || tokio::spawn(held_twice(store.clone(), key.clone(), Arc::clone(&holders)));
    let tasks: Vec<_> = (0..4).map(|_| ask()).collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), 0);
    }
}

#[cfg(all(unix, feature = "redis"))]
#[test]
fn a_socket_of_this_machine_is_a_redis_store() {
    for url in ["redis+unix:///run/redis.sock", "valkey+unix:///run/redis.sock?pass=S3CR3T"] {
        let name = store::from_url(url).unwrap().name().unwrap();
        assert!(name.contains("/run/redis.sock") && !name.contains("S3CR3T"), "{name}");
    }
}

#[test]
fn a_line_end_behind_a_url_is_no_part_of_it() {
    store::from_url(" memory:\n").unwrap();
    #[cfg(feature = "redis")]
    for url in ["redis://h", "redis+sentinel://a,b/service"] {
        let name = |url: &str| store::from_url(url).unwrap().name().unwrap();
        assert_eq!(name(&format!("\u{feff}{url}\r\n")), name(url));
    }
    #[cfg(all(unix, feature = "file-store"))]
    {
        let folder = std::env::temp_dir().join(format!("tower-oauth2-files-{}-line-end", std::process::id()));
        drop(store::from_url(&format!("file:{}\n", folder.display())).unwrap());
        assert!(folder.is_dir());
        std::fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn a_url_that_names_no_store_is_refused_without_its_password() {
    for url in [
        "",
        "memory",
        "memory://x",
        "S3CR3T",
        "redis+ring://:S3CR3T@h",
        "http://:S3CR3T@h",
        "file:S3CR3T",
        "file:",
        "redis:S3CR3T",
    ] {
        let error = store::from_url(url).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Config && !format!("{error:?}").contains("S3CR3T"),
            "{url}: {error:?}"
        );
    }
}

#[cfg(all(unix, feature = "file-store"))]
mod files {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use tower_oauth2::ErrorKind;
    use tower_oauth2::store::{self, Acquired, FileStore, StoreKey, TokenStore as _, Write};
    use tower_oauth2::test_util::check_token_store;

    const PERIOD: Duration = Duration::from_secs(60);

    /// A folder that ends with its test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("tower-oauth2-files-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn path(&self) -> &Path {
            &self.0
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn key() -> StoreKey {
        StoreKey::new("billing").unwrap()
    }

    async fn written(store: &FileStore) -> Write {
        let Acquired::Taken(fence) = store.acquire(&key(), PERIOD).await.unwrap() else {
            panic!("it is free")
        };
        let write = Write { replaces: 0, version: 1, fence, keep_for: PERIOD, value: "sealed".into() };
        assert!(store.swap(&key(), write.clone()).await.unwrap());
        write
    }

    // Real time: the clock of a store in files is the machine's.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_store_in_files_keeps_every_rule() {
        let folder = Folder::new("rules");
        check_token_store(FileStore::open(folder.path()).unwrap(), "file", false).await;
        // A second instance, as another process has it.
        let url = format!("file:{}", folder.path().display());
        let found =
            store::from_url(&url).unwrap().load(&StoreKey::new("file-fences").unwrap()).await.unwrap();
        assert_eq!(found.unwrap().value, "holder");
    }

    #[tokio::test]
    async fn files_are_for_this_user_alone() {
        let folder = Folder::new("modes");
        let store = FileStore::open(folder.path().join("a/b")).unwrap();
        written(&store).await;
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path().join("a")), 0o700);
        assert_eq!(mode(folder.path().join("a/b")), 0o700);
        for file in fs::read_dir(folder.path().join("a/b")).unwrap() {
            assert_eq!(mode(file.unwrap().path()), 0o600);
        }
    }

    #[tokio::test]
    async fn a_directory_that_others_can_write_or_that_is_a_link_is_refused() {
        let folder = Folder::new("refused");
        let inner = folder.path().join("inner");
        let store = FileStore::open(&inner).unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o770)).unwrap();
        let error = FileStore::open(&inner).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert_eq!(
            error.to_string(),
            format!(
                "the directory of the token store {} cannot be used: other users can write to it; take that right away \
                 (chmod go-w)",
                inner.display()
            )
        );
        // Also where it became so later.
        let error = store.load(&key()).await.unwrap_err();
        assert!(
            error.kind() == ErrorKind::Transient && error.to_string().contains("failed: other users can"),
            "{error}"
        );
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(store.load(&key()).await.unwrap().is_none());
        let link = folder.path().join("link");
        symlink(&inner, &link).unwrap();
        let error = FileStore::open(&link).unwrap_err();
        let said = error.to_string();
        assert!(
            error.kind() == ErrorKind::Config
                && said.ends_with(
                    "link cannot be used: it is a symbolic link; open the directory that it leads to"
                ),
            "{said}"
        );
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = FileStore::open(&file).unwrap_err();
        let said = error.to_string();
        assert!(
            error.kind() == ErrorKind::Config
                && said.ends_with("file cannot be used: it is a file and not a directory"),
            "{said}"
        );
        let error = FileStore::open(file.join("below")).unwrap_err();
        assert!(
            error.kind() == ErrorKind::Config
                && error.to_string().contains("cannot be used: Not a directory"),
            "{error}"
        );
        assert_eq!(FileStore::open("").unwrap_err().kind(), ErrorKind::Config);
        for name in ["", ".", "..", "a/b", "a\\b"] {
            assert_eq!(FileStore::for_program(name).unwrap_err().kind(), ErrorKind::Config, "{name:?}");
        }
    }

    #[tokio::test]
    async fn a_link_in_place_of_a_file_is_not_followed() {
        let folder = Folder::new("links");
        let store = FileStore::open(folder.path()).unwrap();
        let target = folder.path().join("target");
        for ending in ["token", "lock", "new"] {
            let write =
                Write { replaces: 0, version: 1, fence: u64::MAX, keep_for: PERIOD, value: "sealed".into() };
            fs::write(&target, "untouched").unwrap();
            let link = folder.path().join(format!("billing.{ending}"));
            let _ = fs::remove_file(&link);
            symlink(&target, &link).unwrap();
            let result = store.swap(&key(), write).await;
            assert_eq!(fs::read_to_string(&target).unwrap(), "untouched", "{ending}");
            // A link in place of the new file is removed, since it is made anew each time.
            assert_eq!(result.is_ok(), ending == "new", "{ending}: {result:?}");
            let _ = fs::remove_file(&link);
        }
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_no_hindrance() {
        let folder = Folder::new("left");
        let store = FileStore::open(folder.path()).unwrap();
        let write = written(&store).await;
        fs::write(folder.path().join("billing.new"), "half").unwrap();
        let next = Write { replaces: 1, version: 2, value: "next".into(), ..write };
        assert!(store.swap(&key(), next).await.unwrap());
        assert_eq!(store.load(&key()).await.unwrap().unwrap().value, "next");
        // A file that was cut off, or is of another program, is none.
        for broken in ["", "tower-oauth2-store-1 1 2", "other\n", "\0\u{1}"] {
            fs::write(folder.path().join("billing.token"), broken).unwrap();
            assert!(store.load(&key()).await.unwrap().is_none(), "{broken:?}");
        }
        assert!(matches!(store.acquire(&key(), PERIOD).await.unwrap(), Acquired::Taken(_)));
    }
}
