//! Where paths are fetched from, whom to believe, and who signs.

use std::sync::Arc;

use igloo_binary_cache::{CacheOptions, CacheUrl, HttpBinaryCache, StoreSubstituter, Substituter, Trust};
use igloo_remote::ContentCache;
use igloo_status::Code;
use igloo_store::StoreUrl;
use nix_compat::signature::{PublicKey, SecretKey};
use nix_compat::store_path::StoreDir;

use crate::config::Config;
use crate::failure::Failure;

/// The substituters that are configured, the preferred first. Nothing is asked yet, but stores of other processes are
/// connected to.
pub async fn open(config: &Config, dir: &StoreDir) -> Result<Vec<Arc<dyn Substituter>>, Failure> {
    if !config.substitute {
        return Ok(Vec::new());
    }
    let trust = trust(config)?;
    let mut all: Vec<Arc<dyn Substituter>> = Vec::new();
    for (index, text) in config.substituters.iter().enumerate() {
        let priority = u32::try_from(index).unwrap_or(u32::MAX);
        all.push(match text.parse() {
            Ok(StoreUrl::Remote { url }) => {
                let cache = Arc::new(ContentCache::default());
                let store = igloo_remote::path_info::open(&url, dir.clone(), cache).await?;
                Arc::new(StoreSubstituter::new(
                    text.as_str().into(),
                    store,
                    trust.clone(),
                    priority,
                ))
            }
            _ => Arc::new(cache(text, dir, &trust)?),
        });
    }
    Ok(all)
}

fn cache(text: &str, dir: &StoreDir, trust: &Trust) -> Result<HttpBinaryCache, Failure> {
    let url: CacheUrl = text
        .parse()
        .map_err(|error: igloo_binary_cache::ParseCacheUrlError| {
            Failure::usage(format!("substituter '{text}': {error}")).with_hint(
                "a substituter is https://HOST, file:///DIR, or grpc+unix:///SOCKET of an igloo store",
            )
        })?;
    HttpBinaryCache::new(url, dir.clone(), trust, CacheOptions::default())
        .map_err(|error| Failure::new(anyhow::Error::new(error).context(format!("substituter '{text}'"))))
}

fn trust(config: &Config) -> Result<Trust, Failure> {
    if !config.require_signatures {
        return Ok(Trust::Anyone);
    }
    let key = |text: &String| {
        PublicKey::parse(text).map_err(|error| {
            Failure::usage(format!("trusted-public-keys: '{text}': {error}")).with_hint(
                "a public key is NAME:BASE64, as `nix-store --generate-binary-cache-key` writes it",
            )
        })
    };
    let keys: Result<Vec<PublicKey>, Failure> = config.trusted_public_keys.iter().map(key).collect();
    Ok(Trust::Keys(keys?))
}

/// The keys that sign what is built.
pub fn secret_keys(config: &Config) -> Result<Vec<SecretKey>, Failure> {
    let mut keys = Vec::new();
    for file in &config.secret_key_files {
        let text = std::fs::read_to_string(file).map_err(|error| {
            let code = Code::from_io(&error);
            let error = anyhow::Error::new(error).context(format!("secret-key-files: cannot read {file}"));
            Failure::coded(error, code)
        })?;
        let key = SecretKey::parse(text.trim()).map_err(|error| {
            Failure::usage(format!("secret-key-files: {file}: {error}")).with_hint(
                "a secret key is NAME:BASE64, as `nix-store --generate-binary-cache-key` writes it",
            )
        })?;
        keys.push(key);
    }
    Ok(keys)
}
