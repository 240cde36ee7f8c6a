//! The configuration file: TOML, one key for each setting, and tables that name stores and builders.
//!
//! ```toml
//! substituters = ["https://cache.nixos.org"]
//! max-jobs = 4
//! [builders]
//! big = "grpc+unix:///run/big-builder.sock"
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use igloo_status::Code;

use super::Config;
use super::value::Value;
use crate::failure::Failure;

/// Most a configuration file may have, bytes.
const SIZE_MAX: u64 = 1 << 20;

/// Merges a file in. `is_named` when somebody asked for this file: then it must be there.
pub fn merge(config: &mut Config, path: &Path, is_named: bool) -> Result<(), Failure> {
    let shown = path.display();
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_named => return Ok(()),
        Err(error) => {
            let code = Code::from_io(&error);
            let error = anyhow::Error::new(error).context(format!("cannot read the configuration {shown}"));
            return Err(Failure::coded(error, code).with_hint("--config and IGLOO_CONFIG name it"));
        }
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| {
            1 + text
                .bytes()
                .take(span.start)
                .filter(|byte| *byte == b'\n')
                .count()
        });
        Failure::usage(format!("{shown}:{line}: {}", error.message()))
    })?;
    for (name, value) in table {
        match (name.as_str(), value) {
            ("stores", toml::Value::Table(table)) => config.stores = urls(path, &name, table)?,
            ("builders", toml::Value::Table(table)) => config.builders = urls(path, &name, table)?,
            (_, value) => {
                let value = value_of(path, &name, value)?;
                config
                    .set(&name, &value)
                    .map_err(|error| error.into_failure(&shown.to_string()))?;
            }
        }
    }
    Ok(())
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    if file.take(SIZE_MAX + 1).read_to_string(&mut text)? as u64 > SIZE_MAX {
        return Err(std::io::Error::other(format!(
            "it has more than {SIZE_MAX} bytes"
        )));
    }
    Ok(text)
}

fn urls(path: &Path, name: &str, table: toml::Table) -> Result<BTreeMap<String, String>, Failure> {
    let url = |(key, value): (String, toml::Value)| match value {
        toml::Value::String(url) => Ok((key, url)),
        _ => Err(Failure::usage(format!(
            "{}: `{name}.{key}` should be a URL in quotes",
            path.display()
        ))),
    };
    table.into_iter().map(url).collect()
}

fn value_of(path: &Path, name: &str, value: toml::Value) -> Result<Value, Failure> {
    let wrong = || {
        Failure::usage(format!(
            "{}: `{name}` should be a text, a number, true, false or a list of texts",
            path.display()
        ))
    };
    Ok(match value {
        toml::Value::String(text) => Value::Text(text),
        toml::Value::Boolean(value) => Value::Switch(value),
        toml::Value::Integer(number) => Value::Number(number),
        toml::Value::Array(items) => {
            let words: Option<Vec<String>> = items
                .into_iter()
                .map(|item| item.as_str().map(String::from))
                .collect();
            Value::Words(words.ok_or_else(wrong)?)
        }
        _ => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let mut config = Config::default();
        merge(&mut config, &path, true)
            .map(|()| config)
            .map_err(|failure| failure.message().replace(dir.path().to_str().unwrap(), "DIR"))
    }

    #[test]
    fn a_file_sets_what_it_names() {
        let config = merged(
            "substituters = [\"a\", \"b\"]\nmax-jobs = 3\nkeep-going = true\ntrusted-public-keys = \"k1 k2\"\n\
             timeout = 60\n[stores]\nwork = \"rocksdb:///w\"\n",
        )
        .unwrap();
        assert_eq!(config.substituters, ["a", "b"]);
        assert_eq!((config.max_jobs, config.keep_going), (3, true));
        assert_eq!(config.trusted_public_keys, ["k1", "k2"]);
        assert_eq!(config.timeout, Some(std::time::Duration::from_secs(60)));
        assert_eq!(config.stores["work"], "rocksdb:///w");
    }

    #[test]
    fn mistakes_name_file_and_key() {
        for (text, message) in [
            (
                "timout = 3",
                "error: DIR/config.toml: unknown setting 'timout'\nhint: did you mean 'timeout'?\n",
            ),
            (
                "timeout = true",
                "error: DIR/config.toml: setting 'timeout' should be a whole number, but is 'true'\n",
            ),
            (
                "[builders]\nx = 1",
                "error: DIR/config.toml: `builders.x` should be a URL in quotes\n",
            ),
            (
                "substituters = [1]",
                "error: DIR/config.toml: `substituters` should be a text, a number, true, false or a list of texts\n",
            ),
        ] {
            assert_eq!(merged(text).unwrap_err(), message);
        }
        assert!(
            merged("cores = 1\nb = = 2")
                .unwrap_err()
                .starts_with("error: DIR/config.toml:2: ")
        );
    }

    #[test]
    fn a_file_that_nobody_named_may_be_missing() {
        let mut config = Config::default();
        assert!(merge(&mut config, Path::new("/no/such/file"), false).is_ok());
        let failure = merge(&mut config, Path::new("/no/such/file"), true).unwrap_err();
        assert!(failure.message().contains("/no/such/file"));
    }
}
