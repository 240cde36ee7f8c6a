//! Trees of GitHub, GitLab and SourceHut: their archives, and the commits that branches and tags mean.
//!
//! Source: Nix 2.34 `src/libfetchers/github.cc` (which URLs are asked), and the services' documentation of them.

use igloo_eval::io::{FetchAttr, IoError};

use super::{Found, Request, number, refused, words};
use crate::fetching::Wish;
use crate::store_io::StoreIo;

/// Most bytes of what a service says of its branches and tags.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A repository of a service.
struct Forge<'a> {
    kind: &'a str,
    host: &'a str,
    owner: &'a str,
    repo: &'a str,
}

impl StoreIo {
    pub(super) fn forge(&self, request: Request<'_>, kind: &str) -> Result<Option<Found>, IoError> {
        let forge = Forge {
            kind,
            host: checked_host(request.text("host")?.unwrap_or(default_host(kind)))?,
            owner: checked_name(request.required("owner")?)?,
            repo: checked_name(request.required("repo")?)?,
        };
        let reference = request.text("ref")?;
        let rev = match (request.rev()?, reference) {
            (Some(_), Some(_)) => {
                return Err(refused(format!(
                    "input {request} contains both a commit hash and a branch/tag name"
                )));
            }
            (Some(rev), None) => rev.to_owned(),
            (None, reference) => match self.forge_commit(&forge, reference.unwrap_or("HEAD"))? {
                Some(rev) => rev,
                None => return Ok(None),
            },
        };
        let url = forge.archive(&rev);
        let got = self.get(&Wish {
            url: &url,
            name: "source",
            unpack: true,
            hash: None,
        })?;
        let Some(got) = got else {
            return Ok(None);
        };
        let mut attrs = vec![words("rev", rev)];
        attrs.extend(got.last_modified.map(|time| number("lastModified", time)));
        Ok(Some(Found {
            tree: self.registered_tree(&got.path)?,
            attrs,
        }))
    }

    /// The commit a branch or tag means now; `None` while the service is being asked.
    fn forge_commit(&self, forge: &Forge<'_>, reference: &str) -> Result<Option<String>, IoError> {
        let wrong = |url: &str| refused(format!("'{url}' does not say which commit '{reference}' is"));
        let rev = if forge.kind == "sourcehut" {
            let base = forge.base();
            let name = if reference == "HEAD" {
                let Some(head) = self.text_at_url(&format!("{base}/HEAD"))? else {
                    return Ok(None);
                };
                let name = head.lines().next().and_then(|line| line.strip_prefix("ref: "));
                name.map(ToOwned::to_owned).ok_or_else(|| wrong(&base))?
            } else {
                reference.to_owned()
            };
            let url = format!("{base}/info/refs");
            let Some(list) = self.text_at_url(&url)? else {
                return Ok(None);
            };
            listed_commit(&list, &name).ok_or_else(|| wrong(&url))?
        } else {
            let url = forge.commit_query(reference);
            let Some(answer) = self.text_at_url(&url)? else {
                return Ok(None);
            };
            let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|_| wrong(&url))?;
            let id = match forge.kind {
                "github" => &answer["sha"],
                _ => &answer[0]["id"],
            };
            id.as_str().map(ToOwned::to_owned).ok_or_else(|| wrong(&url))?
        };
        let attr = [("rev".to_owned(), FetchAttr::String(rev.clone()))];
        Request(&attr).rev()?;
        Ok(Some(rev))
    }

    /// A text a service has; `None` while it is being asked.
    pub(super) fn text_at_url(&self, url: &str) -> Result<Option<String>, IoError> {
        let got = self.get(&Wish {
            url,
            name: "source",
            unpack: false,
            hash: None,
        })?;
        let Some(got) = got else {
            return Ok(None);
        };
        let info = self.info_of(&got.path)?;
        let path = self.print(&got.path);
        let info = info.ok_or_else(|| IoError::InvalidPath { path: path.clone() })?;
        if info.nar_size > ANSWER_BYTES_MAX {
            return Err(refused(format!("the answer of '{url}' is too long to be read")));
        }
        let bytes = self.view.read(path.as_bytes(), &info.node)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

fn default_host(kind: &str) -> &'static str {
    match kind {
        "github" => "github.com",
        "gitlab" => "gitlab.com",
        _ => "git.sr.ht",
    }
}

impl Forge<'_> {
    fn base(&self) -> String {
        format!("https://{}/{}/{}", self.host, self.owner, self.repo)
    }

    /// Where an archive of a commit is.
    fn archive(&self, rev: &str) -> String {
        let Self {
            kind,
            host,
            owner,
            repo,
        } = self;
        match *kind {
            "github" if *host == "github.com" => format!("{}/archive/{rev}.tar.gz", self.base()),
            "github" => format!("https://{host}/api/v3/repos/{owner}/{repo}/tarball/{rev}"),
            "gitlab" => {
                format!("https://{host}/api/v4/projects/{owner}%2F{repo}/repository/archive.tar.gz?sha={rev}")
            }
            _ => format!("{}/archive/{rev}.tar.gz", self.base()),
        }
    }

    /// Where it is said which commit a branch or tag is; not for SourceHut.
    fn commit_query(&self, reference: &str) -> String {
        let Self {
            kind,
            host,
            owner,
            repo,
        } = self;
        match *kind {
            "github" if *host == "github.com" => {
                format!("https://api.github.com/repos/{owner}/{repo}/commits/{reference}")
            }
            "github" => format!("https://{host}/api/v3/repos/{owner}/{repo}/commits/{reference}"),
            _ => format!(
                "https://{host}/api/v4/projects/{owner}%2F{repo}/repository/commits?ref_name={reference}"
            ),
        }
    }
}

/// The commit of a reference in Git's list of all: a commit, a tab, a name.
fn listed_commit(list: &str, reference: &str) -> Option<String> {
    let names = match reference.strip_prefix("refs/") {
        Some(_) => vec![reference.to_owned()],
        None => vec![
            format!("refs/heads/{reference}"),
            format!("refs/tags/{reference}"),
        ],
    };
    list.lines().find_map(|line| {
        let (id, name) = line.split_once('\t')?;
        names
            .iter()
            .any(|wanted| wanted == name.trim())
            .then(|| id.to_owned())
    })
}

/// A part of a URL that cannot become another part.
fn checked_name(name: &str) -> Result<&str, IoError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.~%+".contains(c);
    if !name.is_empty() && name != "." && name != ".." && name.chars().all(fits) {
        return Ok(name);
    }
    Err(refused(format!("'{name}' is no owner's or repository's name")))
}

fn checked_host(host: &str) -> Result<&str, IoError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
    if !host.is_empty() && host.chars().all(fits) {
        return Ok(host);
    }
    Err(refused(format!("'{host}' is no host's name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_archives_and_commits() {
        let forge = |kind, host| Forge {
            kind,
            host,
            owner: "o",
            repo: "r",
        };
        let at = |kind| forge(kind, default_host(kind));
        assert_eq!(
            at("github").archive("1"),
            "https://github.com/o/r/archive/1.tar.gz"
        );
        assert_eq!(
            forge("github", "h").archive("1"),
            "https://h/api/v3/repos/o/r/tarball/1"
        );
        assert_eq!(
            at("gitlab").archive("1"),
            "https://gitlab.com/api/v4/projects/o%2Fr/repository/archive.tar.gz?sha=1"
        );
        assert_eq!(
            at("sourcehut").archive("1"),
            "https://git.sr.ht/o/r/archive/1.tar.gz"
        );
        assert_eq!(
            at("github").commit_query("b"),
            "https://api.github.com/repos/o/r/commits/b"
        );
        assert_eq!(
            at("gitlab").commit_query("b"),
            "https://gitlab.com/api/v4/projects/o%2Fr/repository/commits?ref_name=b"
        );
        let list = "aa\trefs/heads/main\nbb\trefs/heads/x/main\ncc\trefs/tags/v1\n";
        assert_eq!(listed_commit(list, "main").as_deref(), Some("aa"));
        assert_eq!(listed_commit(list, "v1").as_deref(), Some("cc"));
        assert_eq!(listed_commit(list, "refs/heads/x/main").as_deref(), Some("bb"));
        assert_eq!(listed_commit(list, "v2"), None);
    }

    #[test]
    fn names_stay_in_their_part_of_the_url() {
        for name in ["", "..", "a/b", "a?b", "a#b", "a b"] {
            assert!(checked_name(name).is_err(), "{name}");
        }
        assert!(checked_name("~user").is_ok());
        assert!(checked_host("evil.example/x").is_err());
    }
}
