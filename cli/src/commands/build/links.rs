//! Links to what was built, and the roots that keep it.
//!
//! A link leads to `/nix/store/…`, the one name that holds on every machine: it can be followed where the store is mounted
//! there (`igloo mount /nix/store`), and always says which path it was.
//!
//! Roots: `STORE/roots/HASH` links to the link, where HASH is of the link's absolute path; as with Nix's indirect roots, who
//! removes the link gives the path up. Nothing collects yet.
//!
//! Invariant: only links into the store are replaced, each in one step.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use igloo_driver::job::JobReport;
use igloo_status::Code;
use igloo_store::StoreUrl;
use nix_compat::store_path::{StoreDir, StorePath};

use super::Wish;
use crate::context::Context;
use crate::evaluation::absolute;
use crate::failure::Failure;

/// Makes the links that were asked for.
pub fn make(context: &Context, wish: &Wish, dir: &StoreDir, reports: &[JobReport]) -> Result<(), Failure> {
    let Some(name) = &wish.link else {
        return Ok(());
    };
    let roots = roots_dir(context)?;
    for (link, target) in named(name, reports) {
        let link = PathBuf::from(link);
        let target = PathBuf::from(dir.print(&target));
        replace(&link, &target, dir)?;
        if let Some(roots) = &roots {
            register(roots, &link).map_err(|error| disk(error, "cannot register", &link))?;
        }
    }
    if roots.is_none() && context.verbosity > 0 {
        eprintln!(
            "note: {name} is no root: the store {} keeps its own",
            context.store_url
        );
    }
    Ok(())
}

/// The links and where they lead: `result`, `result-2` for the next derivation, `-OUTPUT` after it unless it is `out`
/// (recorded from nix-build 2.8 and 2.34).
fn named(name: &str, reports: &[JobReport]) -> Vec<(String, StorePath)> {
    let mut numbers: BTreeMap<&StorePath, usize> = BTreeMap::new();
    let mut links = Vec::new();
    for goal in reports.iter().flat_map(|report| &report.goals) {
        let next = numbers.len() + 1;
        let number = *numbers.entry(&goal.goal.drv).or_insert(next);
        let prefix = if number == 1 {
            name.to_string()
        } else {
            format!("{name}-{number}")
        };
        for (output, path) in &goal.outputs {
            let link = match output.as_str() {
                "out" => prefix.clone(),
                output => format!("{prefix}-{output}"),
            };
            if !links.iter().any(|(known, _)| *known == link) {
                links.push((link, path.clone()));
            }
        }
    }
    links
}

fn replace(link: &Path, target: &Path, dir: &StoreDir) -> Result<(), Failure> {
    if std::fs::symlink_metadata(link).is_ok() {
        let ours = std::fs::read_link(link).is_ok_and(|old| old.starts_with(dir.as_str()));
        if !ours {
            return Err(Failure::coded(
                anyhow::anyhow!("cannot create symlink '{}'; already exists", link.display()),
                Code::AlreadyExists,
            )
            .with_hint("it is no link into the store; move it away, name another with -o, or make none with --no-link"));
        }
    }
    if let Some(folder) = link.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| disk(error, "cannot create the folder of", link))?;
    }
    swap(link, target).map_err(|error| disk(error, "cannot create symlink", link))
}

/// A link under a name nobody has, moved into place.
fn swap(link: &Path, target: &Path) -> std::io::Result<()> {
    let mut name = link.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".tmp-{}", std::process::id()));
    let temporary = link.with_file_name(name);
    std::os::unix::fs::symlink(target, &temporary)?;
    std::fs::rename(&temporary, link).inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary); // the error that matters is the one above
    })
}

fn register(roots: &Path, link: &Path) -> std::io::Result<()> {
    let place = absolute_path(link);
    let digest = blake3::hash(place.as_os_str().as_bytes());
    let name = nix_compat::nixbase32::encode(&digest.as_bytes()[..20]);
    std::fs::create_dir_all(roots)?;
    swap(&roots.join(name), &place)
}

/// Where this store's roots are; none when it is in another process or nowhere.
fn roots_dir(context: &Context) -> Result<Option<PathBuf>, Failure> {
    Ok(match context.store_url.parse()? {
        StoreUrl::Rocksdb { dir } => Some(dir.join("roots")),
        StoreUrl::Memory | StoreUrl::Remote { .. } => None,
    })
}

fn absolute_path(path: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStringExt as _;
    let bytes = absolute(&path.to_string_lossy());
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn disk(error: std::io::Error, what: &str, link: &Path) -> Failure {
    let code = Code::from_io(&error);
    let error = anyhow::Error::new(error).context(format!("{what} '{}'", link.display()));
    Failure::coded(error, code)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use igloo_driver::job::GoalReport;
    use igloo_evaluator::Goal;

    use super::*;

    fn path(name: &str) -> StorePath {
        StorePath::parse(&format!("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-{name}")).unwrap()
    }

    fn goal(drv: &str, outputs: &[(&str, &str)]) -> GoalReport {
        GoalReport {
            goal: Goal {
                attribute: String::new(),
                drv: path(drv),
                outputs: BTreeSet::new(),
            },
            outputs: outputs
                .iter()
                .map(|(name, at)| (name.parse().unwrap(), path(at)))
                .collect(),
            failure: None,
            is_valid: true,
        }
    }

    fn names(goals: Vec<GoalReport>) -> Vec<(String, String)> {
        let report = JobReport {
            goals,
            ..JobReport::default()
        };
        let named = named("result", &[report]);
        named
            .into_iter()
            .map(|(link, path)| (link, path.name().to_string()))
            .collect()
    }

    /// Recorded: `nix-build -A app.all -A lib`, `-A app.dev -A lib`, `-A lib -A lib -A app`.
    #[test]
    fn links_are_named_as_nix_build_names_them() {
        let pair = |link: &str, at: &str| (link.to_string(), at.to_string());
        let found = names(vec![
            goal("app.drv", &[("out", "app")]),
            goal("app.drv", &[("dev", "app-dev")]),
            goal("lib.drv", &[("out", "lib")]),
        ]);
        assert_eq!(
            found,
            [
                pair("result", "app"),
                pair("result-dev", "app-dev"),
                pair("result-2", "lib")
            ]
        );
        let found = names(vec![
            goal("app.drv", &[("dev", "app-dev")]),
            goal("lib.drv", &[("out", "lib")]),
        ]);
        assert_eq!(found, [pair("result-dev", "app-dev"), pair("result-2", "lib")]);
        let twice = names(vec![
            goal("lib.drv", &[("out", "lib")]),
            goal("lib.drv", &[("out", "lib")]),
            goal("app.drv", &[("man", "app-man"), ("out", "app")]),
        ]);
        assert_eq!(
            twice,
            [
                pair("result", "lib"),
                pair("result-2-man", "app-man"),
                pair("result-2", "app")
            ]
        );
    }

    #[test]
    fn only_links_into_the_store_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StoreDir::default();
        let link = folder.path().join("below/result");
        let target = |name: &str| PathBuf::from(dir.print(&path(name)));
        replace(&link, &target("a"), &dir).unwrap();
        replace(&link, &target("b"), &dir).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), target("b"));
        let file = folder.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        let message = replace(&file, &target("a"), &dir).unwrap_err().message();
        assert!(message.contains("already exists"), "{message}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        let roots = folder.path().join("store/roots");
        register(&roots, &link).unwrap();
        register(&roots, &link).unwrap();
        let found: Vec<_> = std::fs::read_dir(&roots).unwrap().collect();
        assert_eq!(found.len(), 1);
        let root = found.into_iter().next().unwrap().unwrap().path();
        assert_eq!(std::fs::read_link(root).unwrap(), link);
    }
}
