use std::os::unix::fs::symlink;

use super::*;

fn in_dir(dir: &tempfile::TempDir) -> (PathBuf, Address) {
    let path = dir.path().join("socket");
    (path.clone(), Address::Unix(path))
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_and_goes_with_the_listener() {
    let dir = tempfile::tempdir().unwrap();
    let (path, address) = in_dir(&dir);
    let listener = Listener::bind(&address).await.unwrap();
    let mode = std::fs::symlink_metadata(&path).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    UnixStream::connect(&path).await.unwrap();
    drop(listener);
    assert!(!path.exists());
    let left: Vec<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["socket.lock"]);
}

#[tokio::test]
async fn a_live_listener_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (path, address) = in_dir(&dir);
    let _listener = Listener::bind(&address).await.unwrap();
    let error = Listener::bind(&address).await.unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
    UnixStream::connect(&path).await.unwrap();
}

/// A program that takes no lock is found by connecting.
#[tokio::test]
async fn a_live_stranger_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (path, address) = in_dir(&dir);
    let _stranger = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = Listener::bind(&address).await.unwrap_err();
    assert!(matches!(error, ListenError::InUse { .. }), "{error}");
}

#[tokio::test]
async fn a_dead_process_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let (path, address) = in_dir(&dir);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // std leaves the file, as a killed process does
    assert!(path.exists());
    let _listener = Listener::bind(&address).await.unwrap();
    UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, address) = in_dir(&dir);
    std::fs::write(&path, "precious").unwrap();
    let error = Listener::bind(&address).await.unwrap_err();
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
    std::fs::remove_file(&path).unwrap();
    symlink("/nowhere", &path).unwrap();
    let error = Listener::bind(&address).await.unwrap_err();
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error}");
}

#[tokio::test]
async fn a_directory_others_can_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, address) = in_dir(&dir);
    let mode = |mode| std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o777);
    let error = Listener::bind(&address).await.unwrap_err();
    assert!(matches!(error, ListenError::Directory { .. }), "{error}");
    mode(0o1777);
    Listener::bind(&address).await.unwrap();
}

#[tokio::test]
async fn any_free_port_is_told() {
    let any = Address::parse_listen("127.0.0.1:0").unwrap();
    let listener = Listener::bind(&any).await.unwrap();
    assert_ne!(listener.address(), &any);
}
