//! What must hold for any bytes whatever. A violation panics.

use bytes::Bytes;
use igloo_castore::Directory;

/// Bytes that are accepted as a directory are its one encoding, and its entries make the same directory again.
pub fn directory(bytes: &[u8]) {
    let Ok(directory) = Directory::decode(&Bytes::copy_from_slice(bytes)) else {
        return;
    };
    assert_eq!(directory.encode(), bytes, "accepted, but encoded otherwise");
    let again = Directory::from_entries(directory.entries().to_vec());
    assert_eq!(
        again.as_ref(),
        Ok(&directory),
        "its entries make another directory"
    );
    for (name, node) in directory.entries() {
        assert_eq!(
            directory.get(name.as_bytes()),
            Some(node),
            "an entry is not found"
        );
    }
    assert!(directory.size() >= directory.len() as u64);
}
