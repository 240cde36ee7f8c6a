//! The files of `/etc` a sealed build sees, byte for byte as C++ Nix writes them in its sandbox.
//!
//! The host places them with `File` messages; other views may place others.
//!
//! Source: recorded in the sandbox of Nix 2.8, byte for byte; written by linux-derivation-builder.cc in later ones.

/// Uid of the build user in the sandbox.
pub const BUILD_UID: u32 = 1000;
/// Gid of the build group in the sandbox.
pub const BUILD_GID: u32 = 100;

/// Path and content of each file of a build without network. All belong to root, mode [`FILE_MODE`].
pub fn sealed_files(build_dir: &str) -> Vec<(&'static str, String)> {
    vec![
        ("etc/group", GROUP.to_owned()),
        ("etc/hosts", HOSTS.to_owned()),
        ("etc/passwd", passwd(build_dir)),
    ]
}

/// Mode of the files.
pub const FILE_MODE: u16 = 0o644;

const GROUP: &str = "root:x:0:\nnixbld:!:100:\nnogroup:x:65534:\n";

const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

fn passwd(build_dir: &str) -> String {
    format!(
        "root:x:0:0:Nix build user:{build_dir}:/noshell\n\
         nixbld:x:{BUILD_UID}:{BUILD_GID}:Nix build user:{build_dir}:/noshell\n\
         nobody:x:65534:65534:Nobody:/:/noshell\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files name the ids the build runs as.
    #[test]
    fn files_name_the_ids() {
        let files = sealed_files("/build");
        let passwd = &files[2];
        assert_eq!(passwd.0, "etc/passwd");
        assert!(
            passwd
                .1
                .lines()
                .any(|line| line == "nixbld:x:1000:100:Nix build user:/build:/noshell")
        );
        assert!(files.is_sorted());
    }
}
